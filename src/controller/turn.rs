//! Waiting for the turn of a token request: joining the queue, and what is reported meanwhile.

use std::time::Duration;

use chrono::TimeDelta;

use super::{
    RequeueAfter, gather,
    reconcile::{Visit, requeue},
    requests::{self, Place},
};
use crate::{
    act::template,
    cluster::CallError,
    decide::{
        facts::{Facts, Refusal},
        requests::Blocked,
    },
    digest,
};

/// A credential without a usable token that waits for longer says so in its condition Ready.
const REPORT_AFTER: Duration = Duration::from_secs(30);
/// Thousands that began to wait at the same time report it within so long, not all at once.
const REPORT_SPREAD: Duration = Duration::from_secs(5);

/// What makes an attempt vain.
pub(super) enum Vain {
    /// It is known before anything is sent.
    Invalid(Refusal),
    /// Nothing is sent for now, and that was not reported yet.
    Blocked {
        /// What to report.
        refusal: Refusal,
        /// It is not the failure of this credential's client.
        by_others: bool,
    },
}

impl Visit<'_> {
    /// Has the token request wait for its turn. Returns for how long it has waited.
    ///
    /// # Errors
    /// [`Vain`].
    pub(super) fn enqueue(&mut self, facts: &Facts, inputs: u32) -> Result<Duration, Vain> {
        template::check(self.subject.credential.spec.secret_template.as_ref()).map_err(Vain::Invalid)?;
        let authority = &self.subject.credential.spec.authority_ref.name;
        let request = gather::request(&self.subject, &self.memory, facts, &self.context.index);
        let Place { since, blocked } = self.context.authorities.requests.enqueue(authority, self.key, request);
        self.is_blocked = blocked.is_some();
        if let Some(blocked) = blocked {
            let by_others = !matches!(blocked, Blocked::Client(_));
            let refusal = refusal(authority, blocked);
            if !self.is_reported(&refusal, inputs) {
                // it must not take a probe while this is reported
                self.context.authorities.requests.leave(self.key);
                return Err(Vain::Blocked { refusal, by_others });
            }
        }
        self.waits = true;
        Ok(requests::waited(since))
    }

    /// Whether this was reported, or the last attempt failed for another reason and nothing relevant changed since: then
    /// it says nothing new.
    fn is_reported(&self, refusal: &Refusal, inputs: u32) -> bool {
        let unchanged = self.memory.inputs.is_none_or(|before| before == inputs);
        let last = self.memory.attempts.last_failure.as_ref();
        last.is_some_and(|(_, last)| unchanged || last == refusal)
    }

    /// Reports how the credential stands while it waits, and says when to report again.
    pub(super) async fn await_admission(&mut self, waited: Duration) -> Result<RequeueAfter, CallError> {
        let spread = REPORT_SPREAD.mul_f64(digest::unit_interval(["wait", &self.subject.uid]));
        let until_report = (REPORT_AFTER + spread).checked_sub(waited).filter(|left| !left.is_zero());
        // behind an open circuit it is the failure that is reported, not the queue
        self.waits_long = until_report.is_none() && !self.is_blocked;
        let until_report = until_report.map(|left| TimeDelta::from_std(left).unwrap_or_default());
        // what waits costs no API call, and of a credential that nothing is known of there is nothing to report yet
        if let Some(left) = until_report.filter(|_| gather::is_new(&self.subject, &self.memory)) {
            return Ok(requeue(left));
        }
        self.report(None, until_report).await
    }
}

/// What is blocked, in the words of a condition.
fn refusal(authority: &str, blocked: Blocked) -> Refusal {
    match blocked {
        Blocked::Client(refusal) => refusal,
        Blocked::Server(reason) => Refusal::new(
            reason,
            format!(
                "ITwinAuthority {authority} fails repeatedly; it is asked by single probes until it answers: contact the \
                 operators of the authorization server"
            ),
        ),
        Blocked::Paused(reason) => Refusal::new(
            reason,
            format!(
                "ITwinAuthority {authority} asked all its clients to wait (Retry-After): lower its requestsPerMinute, or \
                 contact the operators of the authorization server; it is tried again"
            ),
        ),
    }
}
