//! Structured logs, as text or JSON lines on standard error.
//!
//! Only this program's own events are logged. Those of its libraries are not, at any level: the Kubernetes client logs
//! a whole answer that it cannot read as a warning, and the answer can be a Secret.

use tracing::Subscriber;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::args::{LogFormat, LogLevel};

/// Starts logging. Call once.
pub fn start(format: LogFormat, level: LogLevel) {
    subscriber(format, level, std::io::stderr).init();
}

/// Logs a panic by its place alone: its message can hold values.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: please report this as a bug");
    }));
}

fn subscriber<W>(format: LogFormat, level: LogLevel, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // what is not named here is off
    let filter = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::from_level(level.into()));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex, PoisonError},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: LogLevel) -> String {
        let written = Written::default();
        let writer = written.clone();
        tracing::subscriber::with_default(subscriber(format, level, move || writer.clone()), || {
            tracing::info!("ours");
            tracing::debug!("ours in detail");
            tracing::error!(target: "kube_client::client", "theirs");
            tracing::warn!(target: "kube_client::client", "theirs");
            tracing::warn!(target: "kube_runtime::watcher", "theirs");
            tracing::info!(target: "reqwest::connect", "theirs");
        });
        let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn libraries_log_nothing_at_any_level() {
        for format in [LogFormat::Text, LogFormat::Json] {
            for level in [LogLevel::Info, LogLevel::Debug] {
                let logged = logged(format, level);
                assert!(logged.contains("ours") && !logged.contains("theirs"), "{logged}");
                assert_eq!(logged.contains("in detail"), !matches!(level, LogLevel::Info));
            }
        }
    }
}
