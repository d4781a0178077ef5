//! How many failures of clients that were never seen to work open the circuit of the server.
//!
//! After a start the operator knows no client. Of those whose requests fail, some may never have worked: while the server
//! responds to others, a circuit that they open is a mistake. Each such circuit ends with a response, and then more
//! consecutive failures are needed for the next one.

use std::time::{Duration, Instant};

use super::bounds::THRESHOLD;

/// Without a failure of such clients for this long, [`THRESHOLD`] failures are enough again. Failing clients are tried at
/// least every five minutes, and with a long queue less often: those of whom nothing was heard for an hour are gone or
/// known to fail by themselves.
const QUIET: Duration = Duration::from_secs(3600);

/// The failures of clients that were never seen to work.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// How many circuits that they opened, or helped to open, a response ended.
    mistakes: u32,
    /// Whether they opened the circuit that is open, or helped to.
    has_opened: bool,
    last_failure: Option<Instant>,
}

impl Newcomers {
    /// How many failures since the last response open the circuit. This is bounded by twice the failures that ever
    /// followed each other without a response.
    pub(super) fn needed(&self) -> u32 {
        THRESHOLD.saturating_mul(2_u32.saturating_pow(self.mistakes))
    }

    /// One of them failed.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.last_failure.is_some_and(|last| now.saturating_duration_since(last) >= QUIET) {
            self.mistakes = 0;
        }
        self.last_failure = Some(now);
    }

    /// The circuit opened, with their failures or without.
    pub(super) fn opened(&mut self, with_them: bool) {
        self.has_opened = with_them;
    }

    /// A response ended the open circuit.
    pub(super) fn ended(&mut self) {
        if std::mem::take(&mut self.has_opened) {
            self.mistakes = self.mistakes.saturating_add(1);
        }
    }
}
