//! How many failures of clients that were never seen to work open the circuit of the server.
//!
//! After a start the operator knows no client. Of those whose requests fail, some may never have worked: while the server
//! responds to others, a circuit that they open is a mistake. Each such circuit ends with a response, and then more
//! consecutive failures are needed for the next one. It was none if they work afterwards: of more clients than are
//! remembered, those whose tokens are due next were forgotten, and an outage is theirs as well.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::bounds::THRESHOLD;
use crate::requests::request::Requester;

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
    /// Clients that failed before the response that ended the last of the mistakes, and did not succeed since: as many as
    /// outages remember. None once that was found to be no mistake.
    to_recover: HashSet<Requester>,
    /// How many of them succeeded since.
    recovered: u32,
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

    /// A response ended the open circuit, before which these clients failed.
    pub(super) fn ended(&mut self, failed: HashSet<Requester>) {
        if std::mem::take(&mut self.has_opened) {
            self.mistakes = self.mistakes.saturating_add(1);
            (self.to_recover, self.recovered) = (failed, 0);
        }
    }

    /// A client succeeded. If more than half as many as opened the circuit failed before its end and succeeded since, the
    /// server was down. A few whose requests fail now and then take nothing back: the first success of each counts.
    pub(super) fn succeeded(&mut self, client: &Requester) {
        if !self.to_recover.remove(client) {
            return;
        }
        self.recovered = self.recovered.saturating_add(1);
        // twice as many are needed since
        if self.recovered.saturating_mul(4) > self.needed() {
            self.mistakes = self.mistakes.saturating_sub(1);
            self.to_recover = HashSet::new();
        }
    }
}
