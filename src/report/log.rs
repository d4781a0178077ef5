//! Structured logs, as text or JSON lines on standard error.
//!
//! Only this program's own events follow `--log-level`; its libraries stay at warnings, since their debug output
//! holds requests and headers.

use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::args::{LogFormat, LogLevel};

/// Starts logging. Call once.
pub fn start(format: LogFormat, level: LogLevel) {
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("itwin_credential_operator", LevelFilter::from_level(level.into()));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
