//! The report at the end of a reconcile: status, metrics and event, and when to reconcile again.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{credential::CredentialStatus, secret_keys, time};
use itwin_core::{
    client_expiry::ClientExpiry,
    events::{self, EventReason, Outcome, Said, Transition},
    last_held::LastHeld,
    messages,
    object::ObjectKey,
    observed::ObservedState,
    schedule, status,
    token::Description,
};
use kube::{Resource, ResourceExt};

use super::{
    RequeueAfter,
    reconciler::{Attempted, Reconciler, requeue},
    references::References,
    registry::Currency,
    status_writer::{StatusWrite, gauges, is_absent, numeric, others_since, write_status},
};
use crate::{cluster::CallError, metrics::CredentialLabels, observe::index::Known};

/// A credential is reconciled at least this often, so that a clock that was set or a machine that slept is noticed.
const RESYNC: TimeDelta = TimeDelta::minutes(10);
/// The same where Secrets are not watched: the contract promises to notice changes within 5 minutes.
pub(super) const RESYNC_UNWATCHED: TimeDelta = TimeDelta::seconds(290);

impl Reconciler<'_> {
    /// Reports how the credential stands, and says when to reconcile again: at the next attempt, after `wait`, or when time
    /// alone changes something.
    pub(super) async fn report(
        &mut self,
        next_attempt: Option<DateTime<Utc>>,
        wait: Option<TimeDelta>,
    ) -> Result<RequeueAfter, CallError> {
        // a status that is being written is not to follow this one
        self.interim.set(None, false, &self.context.clock);
        let written = self.interim.take_written().await;
        self.note_interim(written);
        let deletion = self.references.deletion();
        // nothing is reported of what is gone: no event, and no metric that would stay
        if self.currency() == Currency::Gone && deletion.is_none() {
            return Ok(None);
        }
        let observed = self.observe();
        if observed.suspend {
            self.retry_state.suspended();
        }
        let older_than_known = self.note_version();
        let (previous, guard) = self.previous_with_others();
        let description = self.description(&observed);
        let now = self.context.clock.now();
        // a backoff that is over says nothing of the next attempt: a requeue for it would be a hot loop
        let is_attempted = !observed.suspend && deletion.is_none();
        let backoff = self.retry_state.not_before().filter(|at| *at > now && is_attempted);
        let next_attempt = next_attempt.or(backoff);
        // what waits for its turn was due when it said so: another status would cost a write for each renewal
        let shown_attempt = if self.waits && !self.is_blocked {
            previous.renew_at.as_deref().and_then(time::from_rfc3339)
        } else {
            next_attempt
        };
        let client_secret = self.references.client.to_string();
        let key = &*self.references.credential.spec.client_credentials_ref.expires_at_key;
        let client_expiry =
            self.retry_state.client_expires().map(|expires| ClientExpiry { secret: &client_secret, key, expires });
        let status = status::status(&status::Inputs {
            observed: &observed,
            attempts: &self.retry_state.reported(now),
            description: &description,
            secret: &self.references.target.name,
            generation: self.references.credential.metadata.generation,
            renew_at: shown_attempt,
            previous: &previous,
            waits_for: self.waits_long.then_some(&*self.references.credential.spec.authority_ref.name),
            client_expiry,
            deletion,
            now,
        });
        self.gauge(&observed, &status, shown_attempt);
        let outcome = self.outcome_of_attempt();
        // whether it is still gone is found out by a write of the status, which is the only call that shows it
        let is_gone = self.is_gone() && deletion.is_none();
        let version = self.references.version();
        let is_shown = status == *previous || self.retry_state.is_stored_otherwise(&status, version, now);
        let is_same = !is_gone && (is_shown || (older_than_known && outcome.is_none()));
        // another writer answers each status that is written
        let put_off = if is_same || is_gone { None } else { self.retry_state.rewrite_waits(&status, now) };
        let is_reported = is_same || put_off.is_some();
        // the object may not have what events said already
        let said = self.retry_state.said().or(self.before_interim.as_ref()).cloned();
        let is_news = !is_reported || said.is_some();
        let said = said.unwrap_or_else(|| Said::from(&*previous));
        let transition = outcome.and_then(|outcome| events::transition(&said, &outcome, &self.references.target.name));
        let about_lifetime = events::about_lifetime(&said, &status).filter(|_| is_news);
        drop(previous);
        let wait = wait.into_iter().chain(put_off).min();
        self.await_labels();
        let again = self.until_next_reconcile(&observed, (next_attempt, wait), client_expiry, now);
        // what is due already did not happen, and is tried again with the write
        self.due_at = now.checked_add_signed(again).filter(|_| again > TimeDelta::zero());
        let reported = if is_reported { Ok(()) } else { self.write_status(status, guard).await };
        // the last finalizer was removed meanwhile
        let reported = reported.or_else(|error| match error {
            CallError::NotFound if deletion.is_some() => Ok(()),
            error => Err(error),
        });
        // the status may be written by a later reconcile, or was written although no answer came; the events are of this one
        transition.into_iter().chain(about_lifetime).for_each(|transition| self.publish(transition));
        reported?;
        if is_shown || !is_reported {
            self.retry_state.status_shown();
        }
        self.retry_state.set_ready_changes_at(schedule::next_ready_change(&observed, now));
        // it is there, and what is due waited for this
        if is_gone && !self.is_gone() {
            return Ok(requeue(TimeDelta::zero()));
        }
        // the write took its time
        Ok(requeue(self.due_at.map_or(again, |at| at - self.context.clock.now())))
    }

    /// How long to wait for the next reconcile: until the next attempt, for `wait`, until time alone changes something, or
    /// until something is to be read or checked again, whatever comes first.
    fn until_next_reconcile(
        &self,
        observed: &ObservedState,
        (next_attempt, wait): (Option<DateTime<Utc>>, Option<TimeDelta>),
        client_expiry: Option<ClientExpiry<'_>>,
        now: DateTime<Utc>,
    ) -> TimeDelta {
        let again = if self.is_watched() { RESYNC } else { RESYNC_UNWATCHED };
        // a reconcile that read nothing does not put off the next read
        let unread = self.retry_state.metadata_read_at().filter(|_| !self.is_watched());
        let read_at = unread.map(|at| at + RESYNC_UNWATCHED).max(self.shown_until(now));
        let until_read = read_at.map(|at| at - now).filter(|wait| *wait > TimeDelta::zero());
        let until_attempt = next_attempt.map(|at| at - now);
        let until_change = schedule::next_change(observed, now).map(|at| at - now);
        let reverts = self.retry_state.reverts();
        let until_revert = reverts.not_before(now).or_else(|| reverts.conflict_until(now)).map(|at| at - now);
        let until_notice = client_expiry.and_then(|expiry| expiry.next_change(now)).map(|at| at - now);
        // one that is due and did not happen waits for something else
        let until_check = self.retry_state.check_at().filter(|at| *at > now).map(|at| at - now);
        let until_write = self.retry_state.stored_otherwise_until().filter(|at| *at > now).map(|at| at - now);
        let until_report = [until_attempt, until_change, until_revert, until_notice, until_check, until_write];
        until_report.into_iter().chain([wait, until_read]).flatten().fold(again, TimeDelta::min)
    }

    /// How the attempt ended, if one was made.
    fn outcome_of_attempt(&self) -> Option<Outcome<'_>> {
        self.outcome.as_ref().map(|attempted| match attempted {
            Attempted::Written(issue_reason) => Outcome::Written(*issue_reason),
            Attempted::Failed(failure) => Outcome::Failed(failure),
        })
    }

    fn publish(&self, transition: Transition) {
        self.context.events.publish(self.references.credential.object_ref(&()), transition);
    }

    /// Reports a renew annotation that is too long, once for as long as it is.
    pub(super) fn report_long_renewal(&mut self) {
        let credential = self.references.credential;
        let is_too_long = credential.annotations().contains_key(secret_keys::RENEW_TOO_LONG);
        if self.retry_state.reports_long_renewal(is_too_long, self.context.clock.now()) {
            let note = messages::renew_annotation_too_long();
            tracing::warn!(credential = %self.references.key, "{note}");
            self.publish(Transition::warning(EventReason::InvalidObject, note));
        }
    }

    /// Forgets the status that we wrote once the watch has brought it. Returns whether the object is older than one that
    /// was known before: then no one knows what its status is, and it is written only with an attempt.
    fn note_version(&mut self) -> bool {
        self.retry_state.observed_version(self.references.version())
    }

    /// The newer of the status that the watch brought and the one that we wrote.
    pub(super) fn previous_status(&self) -> Cow<'_, CredentialStatus> {
        match (self.retry_state.written_status(), &self.references.credential.status) {
            (Some(status), _) => Cow::Borrowed(status),
            (None, Some(status)) => Cow::Borrowed(status),
            (None, None) => Cow::Owned(CredentialStatus::default()),
        }
    }

    /// The same with the conditions of others that the object has now, and the resourceVersion that belongs to them.
    fn previous_with_others(&self) -> (Cow<'_, CredentialStatus>, Option<String>) {
        let (mut previous, guard) = (self.previous_status(), self.guard());
        let References { key, uid, .. } = &self.references;
        match others_since(self.context, key, uid, guard.as_deref()) {
            Some((others, version)) => {
                status::replace_others(&mut previous.to_mut().conditions, others);
                (previous, version)
            }
            None => (previous, guard),
        }
    }

    /// What the token in the Secret was issued for, as is remembered of that token, or as the Secret records it: others may
    /// have removed it there, and a status may have been edited.
    pub(super) fn description(&self, observed: &ObservedState) -> Description {
        let last = self.retry_state.last_held().filter(|last| observed.held() == Some(&last.token_metadata));
        let remembered = last.and_then(LastHeld::description);
        let description = match (remembered, self.context.index.get(&self.references.target)) {
            (Some(remembered), _) => remembered.clone(),
            (None, Known::Present(secret_metadata)) => secret_metadata.description.clone(),
            (None, Known::Unknown | Known::Absent) => Description::default(),
        };
        // earlier versions recorded it whatever its key was
        let shows_client_id = self.references.credential.spec.client_credentials_ref.shows_client_id();
        Description { client_id: description.client_id.filter(|_| shows_client_id), ..description }
    }

    async fn write_status(&mut self, status: CredentialStatus, guard: Option<String>) -> Result<(), CallError> {
        let References { key, uid, .. } = &self.references;
        let write = StatusWrite { key, uid, status: &status, resource_version: guard };
        let version = numeric(write.resource_version.as_deref());
        self.retry_state.status_write_begins();
        let written = write_status(&self.context.cluster, write).await;
        let is_absent = matches!(written, Err(CallError::NotFound)) && is_absent(&self.context.cluster, key, uid).await;
        self.note_existence(written.as_ref().err(), is_absent);
        match written {
            Ok(written) if written == version => {
                let (uid, now) = (&self.references.uid, self.context.clock.now());
                self.retry_state.status_changed_nothing(written, status, uid, now);
            }
            Ok(written) => self.retry_state.status_written(written, status, self.context.clock.now()),
            Err(error) => {
                self.retry_state.status_unwritten(&status);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Notes what the end of a write of the status shows: whether the object is there. A list may have shown that it
    /// `is_absent`.
    fn note_existence(&mut self, error: Option<&CallError>, is_absent: bool) {
        let now = self.context.clock.monotonic().into_std();
        if is_absent {
            self.retry_state.known_absent(self.references.version(), now);
            self.context.metrics.hide_credential(self.labels());
        }
        match error {
            Some(CallError::NotFound) => self.retry_state.not_found(self.references.version(), now),
            None | Some(CallError::Conflict) => self.retry_state.found(),
            // these are said, or happen, whether it is there or not
            Some(_) => {}
        }
    }

    /// Whether the API server lately said that there is no such credential, and no watch has shown it since.
    pub(super) fn is_gone(&self) -> bool {
        self.retry_state.is_gone(self.references.version(), self.context.clock.monotonic().into_std())
    }

    /// Whether a list lately showed it.
    pub(super) fn is_known_absent(&self) -> bool {
        self.retry_state.is_known_absent(self.references.version(), self.context.clock.monotonic().into_std())
    }

    /// The resourceVersion that the object has as far as is known.
    pub(super) fn guard(&self) -> Option<String> {
        let written = self.retry_state.written_version().map(|version| version.to_string());
        written.or_else(|| self.references.credential.metadata.resource_version.clone())
    }

    /// The labels of its series.
    fn labels(&self) -> CredentialLabels<'_> {
        let authority = &self.references.credential.spec.authority_ref.name;
        let ObjectKey { namespace, name } = &self.references.key;
        CredentialLabels { namespace, name, uid: &self.references.uid, authority }
    }

    fn gauge(&self, observed: &ObservedState, status: &CredentialStatus, next_attempt: Option<DateTime<Utc>>) {
        let labels = self.labels();
        // no alert is to fire for what is gone
        if self.is_known_absent() {
            self.context.metrics.hide_credential(labels);
            return;
        }
        let failures = self.retry_state.failures_and_postponed();
        let is_going = self.references.deletion().is_some();
        self.context.metrics.credential(labels, gauges(observed, status, next_attempt, failures, is_going));
    }
}
