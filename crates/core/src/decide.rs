//! From facts and the time to the next step.
//!
//! The order matters: what must not be touched comes first, then whether a token is needed at all, then whether it
//! may be asked for now. Nothing is read that the decision does not need, so that a restart with everything valid
//! reads no Secret.

use chrono::{DateTime, Utc};

use super::{
    action::{Action, Fetch, IssueReason},
    observed::{Authority, Client, Held, Integrity, ObservedState, Target, TokenMetadata},
    schedule,
};

/// The next step for one credential.
#[must_use]
pub fn decide(observed: &ObservedState, now: DateTime<Utc>) -> Action {
    if observed.suspend {
        return suspended(&observed.target);
    }
    match &observed.target {
        Target::Unread => Action::Fetch(Fetch::Target),
        // Whose Secret it is counts as an attempt's failure: otherwise a token would be asked for and thrown away.
        Target::NotOwned(failure) => attempt(observed, now, |_| Action::Fail(failure.clone())),
        Target::Presumed if !observed.is_admitted && !observed.has_unwritten => {
            request_token(observed, now, IssueReason::Missing)
        }
        Target::Presumed => Action::Fetch(Fetch::Target),
        Target::Absent => request_token(observed, now, IssueReason::Missing),
        Target::Ours(held) => with_held(observed, held, now),
    }
}

/// Nothing is done, but what is told must be true: whether the Secret holds a token is looked at all the same.
fn suspended(target: &Target) -> Action {
    match target {
        Target::Unread | Target::Presumed => Action::Fetch(Fetch::Target),
        Target::Ours(Held { data: Integrity::Unverified, .. }) => Action::Fetch(Fetch::TargetData),
        _ => Action::UpToDate { renew_at: None },
    }
}

fn with_held(observed: &ObservedState, held: &Held, now: DateTime<Utc>) -> Action {
    if held.data == Integrity::Unverified {
        return Action::Fetch(Fetch::TargetData);
    }
    let Some(token_metadata) = &held.token_metadata else {
        return request_token(observed, now, IssueReason::Missing);
    };
    if held.data == Integrity::Tampered {
        return request_token(observed, now, IssueReason::Tampered);
    }
    if observed.held_for_spec().is_none() {
        return request_token(observed, now, IssueReason::SpecChanged);
    }
    match client_change(observed, token_metadata) {
        ClientChange::Unknown => return Action::Fetch(Fetch::Client),
        ClientChange::Changed => return request_token(observed, now, IssueReason::ClientChanged),
        ClientChange::Same => {}
    }
    if observed.renewal_request.is_some_and(|request| request.is_due(now)) {
        return request_token(observed, now, IssueReason::Requested);
    }
    let renew_at = schedule::renew_at(token_metadata, &observed.desired.policy, &observed.uid);
    if now >= renew_at {
        return request_token(observed, now, IssueReason::Due);
    }
    if !held.metadata_intact {
        return attempt(observed, now, |_| Action::PatchMetadata);
    }
    if observed.restart.is_some_and(|restart| restart.is_due(token_metadata.issued_at, now)) {
        return Action::Restart { issued_at: token_metadata.issued_at };
    }
    if let Some(until) = observed.renewal_request.and_then(|request| request.not_before) {
        return Action::BackOff { until };
    }
    Action::UpToDate { renew_at: Some(renew_at) }
}

enum ClientChange {
    Unknown,
    Changed,
    Same,
}

/// Whether the client's credentials are others than those that the held token was asked for with.
///
/// A client Secret that is gone or of no use is no change: the token is good until it must be renewed.
fn client_change(observed: &ObservedState, token_metadata: &TokenMetadata) -> ClientChange {
    match &observed.client {
        Client::Unread { version: Some(version) } if *version != token_metadata.client_version => ClientChange::Unknown,
        Client::Usable { same_as_held: Some(false), .. } => ClientChange::Changed,
        _ => ClientChange::Same,
    }
}

/// An attempt is due: is it allowed now?
fn attempt(observed: &ObservedState, now: DateTime<Utc>, make: impl Fn(&ObservedState) -> Action) -> Action {
    match back_off(observed, now) {
        Some(until) => Action::BackOff { until },
        None => make(observed),
    }
}

/// The end of the back-off, which a user who asks for a renewal does not wait for.
fn back_off(observed: &ObservedState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let until = observed.history.not_before.filter(|until| *until > now && !observed.is_asked_for(now))?;
    let asked_for = observed.renewal_request.filter(|request| request.fresh).and_then(|request| request.not_before);
    Some(asked_for.map_or(until, |asked_for| asked_for.min(until)))
}

/// A token is needed.
fn request_token(observed: &ObservedState, now: DateTime<Utc>, issue_reason: IssueReason) -> Action {
    attempt(observed, now, |observed| ask(observed, issue_reason))
}

fn ask(observed: &ObservedState, issue_reason: IssueReason) -> Action {
    match &observed.authority {
        Authority::Pending => return Action::AwaitAuthority,
        Authority::Unavailable(failure) | Authority::Forbids(failure) => return Action::Fail(failure.clone()),
        Authority::Ready { .. } => {}
    }
    match &observed.client {
        Client::Unusable(failure) => Action::Fail(failure.clone()),
        // nothing is sent where there is no client, so that nothing is to be waited for
        Client::Missing => Action::Fetch(Fetch::Client),
        // a token that is at hand was issued to a version of the client that can be compared without reading it
        Client::Unread { version: Some(_) } if observed.has_unwritten => Action::RequestToken(issue_reason),
        Client::Unread { version: None } if observed.has_unwritten => Action::Fetch(Fetch::Client),
        Client::Usable { .. } if observed.has_unwritten => Action::RequestToken(issue_reason),
        // before anything is read: what waits costs no call
        _ if !observed.is_admitted => Action::AwaitAdmission,
        Client::Unread { .. } => Action::Fetch(Fetch::Client),
        Client::Usable { .. } => Action::RequestToken(issue_reason),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use itwin_api::{conditions::Reason, failure::Failure};

    use super::*;
    use crate::observed::{Desired, History, Policy, RenewBefore, RenewalRequest, Restart};

    const ISSUER: &str = "https://ims.example.com";

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn token_metadata() -> TokenMetadata {
        TokenMetadata {
            request: "request".into(),
            issuer: ISSUER.into(),
            client_version: "uid/1".into(),
            issued_at: at(0),
            expires_at: at(3600),
        }
    }

    fn held() -> Held {
        Held { token_metadata: Some(token_metadata()), data: Integrity::Verified, metadata_intact: true }
    }

    fn failure(reason: Reason) -> Failure {
        Failure::new(reason, "because")
    }

    /// A credential whose Secret holds a token issued at second 0 that expires at second 3600.
    fn settled() -> ObservedState {
        ObservedState {
            uid: "uid".into(),
            desired: Desired {
                request: "request".into(),
                policy: Policy { renew_before: RenewBefore::Default, minimum_validity: TimeDelta::minutes(5) },
            },
            suspend: false,
            renewal_request: None,
            authority: Authority::Ready { issuer: ISSUER.into() },
            client: Client::Unread { version: Some("uid/1".into()) },
            target: Target::Ours(held()),
            history: History::default(),
            is_admitted: true,
            has_unwritten: false,
            restart: None,
        }
    }

    fn usable(same_as_held: Option<bool>) -> Client {
        Client::Usable { version: "uid/2".into(), same_as_held }
    }

    impl ObservedState {
        fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }

        fn holding(self, change: impl FnOnce(&mut Held)) -> Self {
            let mut held = held();
            change(&mut held);
            self.with(|observed| observed.target = Target::Ours(held))
        }
    }

    fn renewal_of(observed: &ObservedState) -> DateTime<Utc> {
        schedule::renew_at(&token_metadata(), &observed.desired.policy, &observed.uid)
    }

    #[test]
    fn valid_token_is_kept_without_reading_anything() {
        let observed = settled();
        let renew_at = Some(renewal_of(&observed));
        assert_eq!(decide(&observed, at(1)), Action::UpToDate { renew_at });
    }

    #[test]
    fn valid_token_is_kept_whatever_becomes_of_the_authority_and_the_client() {
        for authority in [
            Authority::Pending,
            Authority::Unavailable(failure(Reason::AuthorityNotFound)),
            Authority::Forbids(failure(Reason::ScopeNotAllowed)),
        ] {
            let observed = settled().with(|observed| observed.authority = authority);
            assert!(matches!(decide(&observed, at(1)), Action::UpToDate { .. }));
        }
        let observed =
            settled().with(|observed| observed.client = Client::Unusable(failure(Reason::ClientCredentialsNotFound)));
        assert!(matches!(decide(&observed, at(1)), Action::UpToDate { .. }));
    }

    #[test]
    fn due_token_is_renewed_once_the_client_secret_was_read() {
        let observed = settled();
        let due = renewal_of(&observed);
        assert!(matches!(decide(&observed, due - TimeDelta::milliseconds(1)), Action::UpToDate { .. }));
        assert_eq!(decide(&observed, due), Action::Fetch(Fetch::Client));
        let read = observed.with(|observed| observed.client = usable(Some(true)));
        assert_eq!(decide(&read, due), Action::RequestToken(IssueReason::Due));
    }

    #[test]
    fn suspended_secret_that_somebody_may_have_edited_is_read_and_left_alone() {
        let suspended =
            |target| decide(&settled().with(|observed| (observed.suspend, observed.target) = (true, target)), at(1));
        let edited = |data| Target::Ours(Held { data, ..held() });
        assert_eq!(suspended(Target::Unread), Action::Fetch(Fetch::Target));
        assert_eq!(suspended(edited(Integrity::Unverified)), Action::Fetch(Fetch::TargetData));
        assert_eq!(suspended(edited(Integrity::Tampered)), Action::UpToDate { renew_at: None });
    }

    #[test]
    fn suspended_credential_is_left_alone_even_when_due() {
        let observed = settled().with(|observed| observed.suspend = true);
        assert_eq!(decide(&observed, at(4000)), Action::UpToDate { renew_at: None });
    }

    #[test]
    fn changed_client_secret_is_read_and_only_new_content_asks_for_a_token() {
        let changed = settled().with(|observed| {
            observed.client = Client::Unread { version: Some("uid/2".into()) };
        });
        assert_eq!(decide(&changed, at(1)), Action::Fetch(Fetch::Client));
        let relabelled = settled().with(|observed| observed.client = usable(Some(true)));
        assert!(matches!(decide(&relabelled, at(1)), Action::UpToDate { .. }));
        let rotated = settled().with(|observed| observed.client = usable(Some(false)));
        assert_eq!(decide(&rotated, at(1)), Action::RequestToken(IssueReason::ClientChanged));
    }

    #[test]
    fn changed_spec_or_issuer_asks_for_another_token() {
        let read = || settled().with(|observed| observed.client = usable(Some(true)));
        let respecified = read().with(|observed| observed.desired.request = "other".into());
        assert_eq!(decide(&respecified, at(1)), Action::RequestToken(IssueReason::SpecChanged));
        let moved = read().with(|observed| observed.authority = Authority::Ready { issuer: "https://other".into() });
        assert_eq!(decide(&moved, at(1)), Action::RequestToken(IssueReason::SpecChanged));
    }

    #[test]
    fn foreign_secret_is_refused_before_any_token_is_asked_for() {
        let observed = settled().with(|observed| observed.target = Target::NotOwned(failure(Reason::SecretNotOwned)));
        assert_eq!(decide(&observed, at(1)), Action::Fail(failure(Reason::SecretNotOwned)));
    }

    #[test]
    fn missing_secret_is_created_again() {
        let observed = settled().with(|observed| {
            observed.target = Target::Absent;
            observed.client = usable(None);
        });
        assert_eq!(decide(&observed, at(1)), Action::RequestToken(IssueReason::Missing));
    }

    #[test]
    fn unverified_data_is_read_and_tampered_data_replaced() {
        let doubtful = settled().holding(|held| held.data = Integrity::Unverified);
        assert_eq!(decide(&doubtful, at(1)), Action::Fetch(Fetch::TargetData));
        let tampered = settled()
            .holding(|held| held.data = Integrity::Tampered)
            .with(|observed| observed.client = usable(Some(true)));
        assert_eq!(decide(&tampered, at(1)), Action::RequestToken(IssueReason::Tampered));
    }

    #[test]
    fn changed_metadata_is_patched_without_a_token_request() {
        let observed = settled().holding(|held| held.metadata_intact = false);
        assert_eq!(decide(&observed, at(1)), Action::PatchMetadata);
    }

    #[test]
    fn workloads_are_restarted_once_for_each_token_and_later_again_where_that_failed() {
        let with = |restart| settled().with(|observed| observed.restart = Some(restart));
        let due = Restart::default();
        assert_eq!(decide(&with(due), at(1)), Action::Restart { issued_at: at(0) });
        let done = Restart { done_for: Some(at(0)), not_before: None };
        assert!(matches!(decide(&with(done), at(1)), Action::UpToDate { .. }));
        let failed = Restart { done_for: None, not_before: Some(at(60)) };
        assert!(matches!(decide(&with(failed), at(59)), Action::UpToDate { .. }));
        assert_eq!(decide(&with(failed), at(60)), Action::Restart { issued_at: at(0) });
    }

    #[test]
    fn back_off_is_waited_for_except_on_request() {
        let until = at(3000);
        let observed = settled().with(|observed| {
            observed.history.not_before = Some(until);
            observed.client = usable(Some(true));
        });
        assert_eq!(decide(&observed, at(2999)), Action::BackOff { until });
        assert_eq!(decide(&observed, until), Action::RequestToken(IssueReason::Due));
        let asked = |fresh| {
            let request = RenewalRequest { fresh, not_before: None };
            observed.clone().with(|observed| observed.renewal_request = Some(request))
        };
        assert_eq!(decide(&asked(true), at(2999)), Action::RequestToken(IssueReason::Requested));
        assert_eq!(decide(&asked(false), at(2999)), Action::BackOff { until }, "one attempt only");
    }

    #[test]
    fn due_token_waits_for_admission_before_anything_is_read() {
        let due = at(3000);
        let waiting = settled().with(|observed| observed.is_admitted = false);
        assert_eq!(decide(&waiting, due), Action::AwaitAdmission);
        assert!(matches!(decide(&waiting, at(1)), Action::UpToDate { .. }), "nothing is due");
        let missing = waiting.clone().with(|observed| observed.client = Client::Missing);
        assert_eq!(decide(&missing, due), Action::Fetch(Fetch::Client), "nothing will be sent");
        let at_hand = waiting.clone().with(|observed| observed.has_unwritten = true);
        assert_eq!(decide(&at_hand, due), Action::RequestToken(IssueReason::Due), "nothing needs to be sent or read");
        let forbidden =
            missing.with(|observed| observed.authority = Authority::Forbids(failure(Reason::ScopeNotAllowed)));
        assert_eq!(decide(&forbidden, due), Action::Fail(failure(Reason::ScopeNotAllowed)));
    }

    #[test]
    fn secret_of_a_new_credential_is_read_once_its_request_is_admitted() {
        let new = settled().with(|observed| {
            observed.target = Target::Presumed;
            observed.is_admitted = false;
        });
        assert_eq!(decide(&new, at(1)), Action::AwaitAdmission);
        let admitted = new.clone().with(|observed| observed.is_admitted = true);
        assert_eq!(decide(&admitted, at(1)), Action::Fetch(Fetch::Target));
        let suspended = new.with(|observed| observed.suspend = true);
        assert_eq!(decide(&suspended, at(1)), Action::Fetch(Fetch::Target));
    }

    #[test]
    fn renewal_that_is_asked_for_too_often_waits_and_holds_up_nothing_else() {
        let floor = at(10);
        let asked = settled().with(|observed| {
            observed.client = usable(Some(true));
            observed.renewal_request = Some(RenewalRequest { fresh: true, not_before: Some(floor) });
        });
        assert_eq!(decide(&asked, at(9)), Action::BackOff { until: floor });
        assert_eq!(decide(&asked, floor), Action::RequestToken(IssueReason::Requested));
        let later = asked.clone().with(|observed| {
            observed.renewal_request = Some(RenewalRequest { fresh: true, not_before: Some(at(3595)) });
        });
        assert_eq!(decide(&later, at(3590)), Action::RequestToken(IssueReason::Due));
        let failing = asked.with(|observed| {
            observed.target = Target::Absent;
            observed.history.not_before = Some(at(300));
        });
        assert_eq!(decide(&failing, at(9)), Action::BackOff { until: floor });
        assert_eq!(
            decide(&failing, floor),
            Action::RequestToken(IssueReason::Missing),
            "it waits for no back-off then"
        );
    }

    #[test]
    fn due_token_waits_for_an_authority_that_was_not_reconciled_yet() {
        let observed = settled().with(|observed| observed.authority = Authority::Pending);
        assert_eq!(decide(&observed, at(3599)), Action::AwaitAuthority);
    }

    #[test]
    fn failures_are_reported_when_an_attempt_is_due() {
        let forbidden =
            settled().with(|observed| observed.authority = Authority::Forbids(failure(Reason::ScopeNotAllowed)));
        assert_eq!(decide(&forbidden, at(3599)), Action::Fail(failure(Reason::ScopeNotAllowed)));
        let gone =
            settled().with(|observed| observed.client = Client::Unusable(failure(Reason::ClientCredentialsNotFound)));
        assert_eq!(decide(&gone, at(3599)), Action::Fail(failure(Reason::ClientCredentialsNotFound)));
    }
}
