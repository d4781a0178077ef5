//! Structured logs, as text or JSON lines on standard error.
//!
//! An event is one line, whatever tenants and servers wrote into its texts.
//!
//! Only this program's own events are logged. Those of its libraries are not, at any level: the Kubernetes client logs
//! a whole answer that it cannot read as a warning, and the answer can be a Secret.

use std::io::{self, Write};

use itwin_api::line::line;
use tracing::{Metadata, Subscriber};
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
    let layer = tracing_subscriber::fmt::layer().with_writer(Lines(writer)).with_target(false);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

/// Writes each event as one line that no terminal obeys.
struct Lines<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Lines<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Line(self.0.make_writer())
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Self::Writer {
        Line(self.0.make_writer_for(metadata))
    }
}

struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    /// An event comes as a whole, with the line break at its end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        self.0.write_all((line(text.to_owned()) + end).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

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

    fn logged_by(format: LogFormat, level: LogLevel, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        tracing::subscriber::with_default(subscriber(format, level, move || writer.clone()), log);
        let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("text")
    }

    fn logged(format: LogFormat, level: LogLevel) -> String {
        logged_by(format, level, || {
            tracing::info!("ours");
            tracing::debug!("ours in detail");
            tracing::error!(target: "kube_client::client", "theirs");
            tracing::warn!(target: "kube_client::client", "theirs");
            tracing::warn!(target: "kube_runtime::watcher", "theirs");
            tracing::info!(target: "reqwest::connect", "theirs");
        })
    }

    #[test]
    fn event_is_one_line_whatever_is_in_its_texts() {
        let theirs = "a\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{9b}31m\u{202e}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let logged = logged_by(format, LogLevel::Info, || {
                tracing::warn!(error = %theirs, name = theirs, "{theirs}");
                tracing::info!("the next one");
            });
            let lines: Vec<&str> = logged.lines().collect();
            assert!(lines.len() == 2 && logged.ends_with('\n'), "{logged:?}");
            assert!(lines[0].contains("ERROR forged") && lines[1].contains("the next one"), "{logged:?}");
            let hostile = |c: char| c.is_control() || c == '\u{202e}';
            assert!(lines.iter().all(|line| !line.contains(hostile)), "{logged:?}");
        }
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
