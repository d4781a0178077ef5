//! What calls showed of the storage behind the API server, and of its watch cache.

use std::time::Duration;

use tokio::time::Instant;

use super::{error::CallError, step::Step};

/// For how long an answer shows that the API server can read and write. It is more than the time between two renewals of
/// the Lease, and as short as that allows: what is requested meanwhile may not be written.
pub(super) const ANSWERS_FOR: Duration = Duration::from_secs(4);

/// A cache that failed is not asked for so long.
const CACHE_REST: Duration = Duration::from_secs(60);

/// What calls showed of the storage behind the API server, which may fail while its watch caches still answer.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// When a call that needs the storage was last answered.
    answered: Option<Instant>,
    /// Whether the last such call failed.
    is_failing: bool,
    /// Whether the last call that reads or writes the data of a Secret failed: the encryption of Secrets may be down, while
    /// everything else is well.
    secrets_are_failing: bool,
    /// The watch cache of the API server is not asked before this: it failed.
    cache_rests_until: Option<Instant>,
}

impl Storage {
    /// Whether the watch cache may be asked. After it failed, one call finds out whether it answers again: each that does
    /// not costs a worker, and the request slot of an authority.
    pub(super) fn may_ask_cache(&mut self, now: Instant) -> bool {
        match self.cache_rests_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.cache_rests_until = Some(now + CACHE_REST);
                true
            }
        }
    }

    /// The watch cache was asked, and answered or did not.
    pub(super) fn cache_answered(&mut self, answered: bool, now: Instant) {
        self.cache_rests_until = if answered { None } else { Some(now + CACHE_REST) };
    }

    /// Takes in what became of a call that needs the storage.
    pub(super) fn observe(&mut self, step: Step, failure: Option<&CallError>, now: Instant) {
        let is_secret = step.labels().1 == "secrets";
        // events may be kept in a storage of their own (`--etcd-servers-overrides`), which says nothing of this one
        if step.labels().1 == "events" {
            return;
        }
        match failure {
            None | Some(CallError::NotFound | CallError::AlreadyExists | CallError::Conflict) => {
                (self.answered, self.is_failing) = (Some(now), false);
                // what is not there need not be decrypted
                self.secrets_are_failing &= !is_secret || failure == Some(&CallError::NotFound);
            }
            Some(CallError::Unavailable(..) | CallError::Timeout | CallError::Transport) => {
                self.is_failing = true;
                self.secrets_are_failing |= is_secret;
            }
            // these are said without it
            Some(CallError::NotServed | CallError::Forbidden(_) | CallError::Rejected(..) | CallError::NotLeading) => {}
        }
    }

    /// Whether the storage lately answered, or the Lease `is_renewed`, and no call failed since.
    pub(super) fn answers(&self, is_renewed: bool, now: Instant) -> bool {
        let is_failing = self.is_failing || self.secrets_are_failing;
        !is_failing && self.answered_lately(is_renewed, now)
    }

    /// Whether a call of whatever kind was answered lately.
    pub(super) fn answered_lately(&self, is_renewed: bool, now: Instant) -> bool {
        is_renewed || self.answered.is_some_and(|answered| now < answered + ANSWERS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use itwin_core::quote::Quote;

    use super::*;

    #[test]
    fn storage_answers_for_a_few_seconds_after_it_did_and_not_after_a_failure() {
        let start = Instant::now();
        let mut storage = Storage::default();
        assert!(!storage.answers(false, start), "nothing is known");
        assert!(storage.answers(true, start), "the Lease was renewed");
        storage.observe(Step::GetNamespace, None, start);
        assert!(storage.answers(false, start + ANSWERS_FOR / 2));
        assert!(!storage.answers(false, start + ANSWERS_FOR));
        for failure in [CallError::Timeout, CallError::Transport, CallError::Unavailable(500, Quote::new(""))] {
            storage.observe(Step::GetNamespace, Some(&failure), start);
            assert!(!storage.answers(true, start), "{failure}");
            storage.observe(Step::GetNamespace, Some(&CallError::Forbidden(Quote::new(""))), start);
            assert!(!storage.answers(true, start), "authorization needs no storage");
            storage.observe(Step::GetNamespace, Some(&CallError::Conflict), start);
            assert!(storage.answers(false, start));
        }
    }

    #[test]
    fn events_show_nothing_of_the_storage_of_other_objects() {
        let start = Instant::now();
        let mut storage = Storage::default();
        for step in [Step::PublishEvent, Step::CountEvent] {
            storage.observe(step, None, start);
            assert!(!storage.answers(false, start));
            storage.observe(step, Some(&CallError::Timeout), start);
            assert!(storage.answers(true, start));
        }
    }

    #[test]
    fn what_works_without_secrets_does_not_show_that_secrets_can_be_written() {
        let start = Instant::now();
        let mut storage = Storage::default();
        storage.observe(Step::PatchSecret, Some(&CallError::Unavailable(500, Quote::new("kms"))), start);
        storage.observe(Step::PatchCredentialStatus, None, start);
        assert!(!storage.answers(true, start));
        storage.observe(Step::GetTarget, Some(&CallError::NotFound), start);
        assert!(!storage.answers(true, start), "nothing was decrypted");
        storage.observe(Step::GetClientSecret, None, start);
        assert!(storage.answers(true, start));
    }

    #[test]
    fn cache_that_failed_is_asked_by_one_call_after_a_minute() {
        let start = Instant::now();
        let mut storage = Storage::default();
        assert!(storage.may_ask_cache(start) && storage.may_ask_cache(start), "by all");
        storage.cache_answered(false, start);
        assert!(!storage.may_ask_cache(start) && !storage.may_ask_cache(start + CACHE_REST / 2));
        let later = start + CACHE_REST;
        assert!(storage.may_ask_cache(later) && !storage.may_ask_cache(later), "by one");
        storage.cache_answered(true, later);
        assert!(storage.may_ask_cache(later) && storage.may_ask_cache(later));
    }
}
