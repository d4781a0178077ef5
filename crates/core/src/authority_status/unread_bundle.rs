//! CA certificates that an authority refers to and that cannot be read any more, while those of before are in use.

use std::time::Duration;

use itwin_api::conditions::Verdict;

use crate::failure::Failure;

/// An authority whose CA certificates could not be read for this long is not Ready: an operator that starts has none, and
/// one that goes on trusts those that may have been withdrawn.
const LATE_AFTER: Duration = Duration::from_secs(60 * 60);

/// Certificates that could not be read.
#[derive(Clone, Debug)]
pub struct UnreadBundle {
    /// Why.
    pub failure: Failure,
    /// For how long by now.
    pub age: Duration,
}

impl UnreadBundle {
    /// What is reported of an authority, with this failure.
    pub(super) fn added_to(&self, verdict: Verdict) -> Verdict {
        let message = format!(
            "{}; the CA certificates that were read before are in use: {}",
            verdict.message, self.failure.message
        );
        if verdict.holds && self.age >= LATE_AFTER {
            Verdict { holds: false, reason: self.failure.reason, message, ..verdict }
        } else {
            Verdict { message, ..verdict }
        }
    }
}

#[cfg(test)]
mod tests {
    use itwin_api::conditions::{READY, Reason};

    use super::*;

    #[test]
    fn certificates_that_cannot_be_read_are_reported_and_an_hour_later_the_authority_is_not_ready() {
        let after = |minutes: u64, holds, reason| {
            let failure = Failure::new(Reason::ConfigurationInvalid, "it is gone");
            let unread = UnreadBundle { failure, age: Duration::from_secs(60 * minutes) };
            let verdict = Verdict { kind: READY, holds, reason, message: "endpoints".to_owned() };
            let Verdict { holds, reason, message, .. } = unread.added_to(verdict);
            assert_eq!(message, "endpoints; the CA certificates that were read before are in use: it is gone");
            (holds, reason)
        };
        assert_eq!(after(59, true, Reason::AuthorityReachable), (true, Reason::AuthorityReachable));
        assert_eq!(after(60, true, Reason::AuthorityReachable), (false, Reason::ConfigurationInvalid));
        assert_eq!(after(60, false, Reason::TLSFailed), (false, Reason::TLSFailed), "that is the nearer cause");
    }
}
