//! From facts and the time to the next step.
//!
//! The order matters: what must not be touched comes first, then whether a token is needed at all, then whether it
//! may be asked for now. Nothing is read that the decision does not need, so that a restart with everything valid
//! reads no Secret.

use chrono::{DateTime, Utc};

use super::{
    facts::{Authority, Client, Facts, Held, Integrity, Stamp, Target},
    plan::{Inspect, Need, Plan},
    schedule,
};

/// The next step for one credential.
#[must_use]
pub fn next(facts: &Facts, now: DateTime<Utc>) -> Plan {
    if facts.suspend {
        return suspended(&facts.target);
    }
    match &facts.target {
        Target::Unread => Plan::Inspect(Inspect::Target),
        // Whose Secret it is counts as an attempt's failure: otherwise a token would be asked for and thrown away.
        Target::Foreign(refusal) => attempt(facts, now, |_| Plan::Refuse(refusal.clone())),
        Target::Presumed if !facts.is_admitted && !facts.has_unwritten => mint(facts, now, Need::Missing),
        Target::Presumed => Plan::Inspect(Inspect::Target),
        Target::Absent => mint(facts, now, Need::Missing),
        Target::Ours(held) => with_held(facts, held, now),
    }
}

/// Nothing is done, but what is told must be true: whether the Secret holds a token is looked at all the same.
fn suspended(target: &Target) -> Plan {
    match target {
        Target::Unread | Target::Presumed => Plan::Inspect(Inspect::Target),
        Target::Ours(Held { data: Integrity::Unproven, .. }) => Plan::Inspect(Inspect::TargetData),
        _ => Plan::Keep { renew_at: None },
    }
}

fn with_held(facts: &Facts, held: &Held, now: DateTime<Utc>) -> Plan {
    if held.data == Integrity::Unproven {
        return Plan::Inspect(Inspect::TargetData);
    }
    let Some(stamp) = &held.stamp else {
        return mint(facts, now, Need::Missing);
    };
    if held.data == Integrity::Damaged {
        return mint(facts, now, Need::Damaged);
    }
    if facts.held_for_spec().is_none() {
        return mint(facts, now, Need::SpecChanged);
    }
    match client_change(facts, stamp) {
        ClientChange::Unknown => return Plan::Inspect(Inspect::Client),
        ClientChange::Changed => return mint(facts, now, Need::ClientChanged),
        ClientChange::Same => {}
    }
    if facts.renewal_request.is_some_and(|request| request.is_due(now)) {
        return mint(facts, now, Need::Requested);
    }
    let renew_at = schedule::renew_at(stamp, &facts.desired.policy, &facts.uid);
    if now >= renew_at {
        return mint(facts, now, Need::Due);
    }
    if !held.metadata_intact {
        return attempt(facts, now, |_| Plan::Repair);
    }
    if facts.restart.is_some_and(|restart| restart.is_due(stamp.issued_at, now)) {
        return Plan::Restart { issued_at: stamp.issued_at };
    }
    if let Some(until) = facts.renewal_request.and_then(|request| request.not_before) {
        return Plan::BackOff { until };
    }
    Plan::Keep { renew_at: Some(renew_at) }
}

enum ClientChange {
    Unknown,
    Changed,
    Same,
}

/// Whether the client's credentials are others than those that the held token was asked for with.
///
/// A client Secret that is gone or of no use is no change: the token is good until it must be renewed.
fn client_change(facts: &Facts, stamp: &Stamp) -> ClientChange {
    match &facts.client {
        Client::Unread { version: Some(version) } if *version != stamp.client_version => ClientChange::Unknown,
        Client::Usable { same_as_held: Some(false), .. } => ClientChange::Changed,
        _ => ClientChange::Same,
    }
}

/// An attempt is due: is it allowed now?
fn attempt(facts: &Facts, now: DateTime<Utc>, make: impl Fn(&Facts) -> Plan) -> Plan {
    match back_off(facts, now) {
        Some(until) => Plan::BackOff { until },
        None => make(facts),
    }
}

/// The end of the back-off, which a user who asks for a renewal does not wait for.
fn back_off(facts: &Facts, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let until = facts.history.not_before.filter(|until| *until > now && !facts.is_asked_for(now))?;
    let asked_for = facts.renewal_request.filter(|request| request.fresh).and_then(|request| request.not_before);
    Some(asked_for.map_or(until, |asked_for| asked_for.min(until)))
}

/// A token is needed.
fn mint(facts: &Facts, now: DateTime<Utc>, need: Need) -> Plan {
    attempt(facts, now, |facts| ask(facts, need))
}

fn ask(facts: &Facts, need: Need) -> Plan {
    match &facts.authority {
        Authority::Pending => return Plan::AwaitAuthority,
        Authority::Unavailable(refusal) | Authority::Forbids(refusal) => return Plan::Refuse(refusal.clone()),
        Authority::Ready { .. } => {}
    }
    match &facts.client {
        Client::Unusable(refusal) => Plan::Refuse(refusal.clone()),
        // nothing is sent where there is no client, so that nothing is to be waited for
        Client::Missing => Plan::Inspect(Inspect::Client),
        // a token that is at hand was issued to a version of the client that can be compared without reading it
        Client::Unread { version: Some(_) } if facts.has_unwritten => Plan::Mint(need),
        Client::Unread { version: None } if facts.has_unwritten => Plan::Inspect(Inspect::Client),
        Client::Usable { .. } if facts.has_unwritten => Plan::Mint(need),
        // before anything is read: what waits costs no call
        _ if !facts.is_admitted => Plan::AwaitAdmission,
        Client::Unread { .. } => Plan::Inspect(Inspect::Client),
        Client::Usable { .. } => Plan::Mint(need),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        api::conditions::Reason,
        decide::facts::{Desired, History, Policy, Refusal, RenewBefore, RenewalRequest, Restart},
    };

    const ISSUER: &str = "https://ims.example.com";

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn stamp() -> Stamp {
        Stamp {
            request: "request".into(),
            issuer: ISSUER.into(),
            client_version: "uid/1".into(),
            issued_at: at(0),
            expires_at: at(3600),
        }
    }

    fn held() -> Held {
        Held { stamp: Some(stamp()), data: Integrity::Proven, metadata_intact: true }
    }

    fn refusal(reason: Reason) -> Refusal {
        Refusal::new(reason, "because")
    }

    /// A credential whose Secret holds a token issued at second 0 that expires at second 3600.
    fn settled() -> Facts {
        Facts {
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

    impl Facts {
        fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }

        fn holding(self, change: impl FnOnce(&mut Held)) -> Self {
            let mut held = held();
            change(&mut held);
            self.with(|facts| facts.target = Target::Ours(held))
        }
    }

    fn renewal_of(facts: &Facts) -> DateTime<Utc> {
        schedule::renew_at(&stamp(), &facts.desired.policy, &facts.uid)
    }

    #[test]
    fn valid_token_is_kept_without_reading_anything() {
        let facts = settled();
        let renew_at = Some(renewal_of(&facts));
        assert_eq!(next(&facts, at(1)), Plan::Keep { renew_at });
    }

    #[test]
    fn valid_token_is_kept_whatever_becomes_of_the_authority_and_the_client() {
        for authority in [
            Authority::Pending,
            Authority::Unavailable(refusal(Reason::AuthorityNotFound)),
            Authority::Forbids(refusal(Reason::ScopeNotAllowed)),
        ] {
            let facts = settled().with(|facts| facts.authority = authority);
            assert!(matches!(next(&facts, at(1)), Plan::Keep { .. }));
        }
        let facts = settled().with(|facts| facts.client = Client::Unusable(refusal(Reason::ClientCredentialsNotFound)));
        assert!(matches!(next(&facts, at(1)), Plan::Keep { .. }));
    }

    #[test]
    fn due_token_is_renewed_once_the_client_secret_was_read() {
        let facts = settled();
        let due = renewal_of(&facts);
        assert!(matches!(next(&facts, due - TimeDelta::milliseconds(1)), Plan::Keep { .. }));
        assert_eq!(next(&facts, due), Plan::Inspect(Inspect::Client));
        let read = facts.with(|facts| facts.client = usable(Some(true)));
        assert_eq!(next(&read, due), Plan::Mint(Need::Due));
    }

    #[test]
    fn suspended_secret_that_somebody_may_have_edited_is_read_and_left_alone() {
        let suspended = |target| next(&settled().with(|facts| (facts.suspend, facts.target) = (true, target)), at(1));
        let edited = |data| Target::Ours(Held { data, ..held() });
        assert_eq!(suspended(Target::Unread), Plan::Inspect(Inspect::Target));
        assert_eq!(suspended(edited(Integrity::Unproven)), Plan::Inspect(Inspect::TargetData));
        assert_eq!(suspended(edited(Integrity::Damaged)), Plan::Keep { renew_at: None });
    }

    #[test]
    fn suspended_credential_is_left_alone_even_when_due() {
        let facts = settled().with(|facts| facts.suspend = true);
        assert_eq!(next(&facts, at(4000)), Plan::Keep { renew_at: None });
    }

    #[test]
    fn changed_client_secret_is_read_and_only_new_content_asks_for_a_token() {
        let changed = settled().with(|facts| {
            facts.client = Client::Unread { version: Some("uid/2".into()) };
        });
        assert_eq!(next(&changed, at(1)), Plan::Inspect(Inspect::Client));
        let relabelled = settled().with(|facts| facts.client = usable(Some(true)));
        assert!(matches!(next(&relabelled, at(1)), Plan::Keep { .. }));
        let rotated = settled().with(|facts| facts.client = usable(Some(false)));
        assert_eq!(next(&rotated, at(1)), Plan::Mint(Need::ClientChanged));
    }

    #[test]
    fn changed_spec_or_issuer_asks_for_another_token() {
        let read = || settled().with(|facts| facts.client = usable(Some(true)));
        let respecified = read().with(|facts| facts.desired.request = "other".into());
        assert_eq!(next(&respecified, at(1)), Plan::Mint(Need::SpecChanged));
        let moved = read().with(|facts| facts.authority = Authority::Ready { issuer: "https://other".into() });
        assert_eq!(next(&moved, at(1)), Plan::Mint(Need::SpecChanged));
    }

    #[test]
    fn foreign_secret_is_refused_before_any_token_is_asked_for() {
        let facts = settled().with(|facts| facts.target = Target::Foreign(refusal(Reason::SecretNotOwned)));
        assert_eq!(next(&facts, at(1)), Plan::Refuse(refusal(Reason::SecretNotOwned)));
    }

    #[test]
    fn missing_secret_is_made_again() {
        let facts = settled().with(|facts| {
            facts.target = Target::Absent;
            facts.client = usable(None);
        });
        assert_eq!(next(&facts, at(1)), Plan::Mint(Need::Missing));
    }

    #[test]
    fn doubtful_data_is_read_and_damaged_data_replaced() {
        let doubtful = settled().holding(|held| held.data = Integrity::Unproven);
        assert_eq!(next(&doubtful, at(1)), Plan::Inspect(Inspect::TargetData));
        let damaged =
            settled().holding(|held| held.data = Integrity::Damaged).with(|facts| facts.client = usable(Some(true)));
        assert_eq!(next(&damaged, at(1)), Plan::Mint(Need::Damaged));
    }

    #[test]
    fn damaged_metadata_is_repaired_without_a_token_request() {
        let facts = settled().holding(|held| held.metadata_intact = false);
        assert_eq!(next(&facts, at(1)), Plan::Repair);
    }

    #[test]
    fn workloads_are_restarted_once_for_each_token_and_later_again_where_that_failed() {
        let with = |restart| settled().with(|facts| facts.restart = Some(restart));
        let due = Restart::default();
        assert_eq!(next(&with(due), at(1)), Plan::Restart { issued_at: at(0) });
        let done = Restart { done_for: Some(at(0)), not_before: None };
        assert!(matches!(next(&with(done), at(1)), Plan::Keep { .. }));
        let failed = Restart { done_for: None, not_before: Some(at(60)) };
        assert!(matches!(next(&with(failed), at(59)), Plan::Keep { .. }));
        assert_eq!(next(&with(failed), at(60)), Plan::Restart { issued_at: at(0) });
    }

    #[test]
    fn back_off_is_waited_for_except_on_request() {
        let until = at(3000);
        let facts = settled().with(|facts| {
            facts.history.not_before = Some(until);
            facts.client = usable(Some(true));
        });
        assert_eq!(next(&facts, at(2999)), Plan::BackOff { until });
        assert_eq!(next(&facts, until), Plan::Mint(Need::Due));
        let asked = |fresh| {
            let request = RenewalRequest { fresh, not_before: None };
            facts.clone().with(|facts| facts.renewal_request = Some(request))
        };
        assert_eq!(next(&asked(true), at(2999)), Plan::Mint(Need::Requested));
        assert_eq!(next(&asked(false), at(2999)), Plan::BackOff { until }, "one attempt only");
    }

    #[test]
    fn due_token_waits_for_its_turn_before_anything_is_read() {
        let due = at(3000);
        let waiting = settled().with(|facts| facts.is_admitted = false);
        assert_eq!(next(&waiting, due), Plan::AwaitAdmission);
        assert!(matches!(next(&waiting, at(1)), Plan::Keep { .. }), "nothing is due");
        let missing = waiting.clone().with(|facts| facts.client = Client::Missing);
        assert_eq!(next(&missing, due), Plan::Inspect(Inspect::Client), "nothing will be sent");
        let at_hand = waiting.clone().with(|facts| facts.has_unwritten = true);
        assert_eq!(next(&at_hand, due), Plan::Mint(Need::Due), "nothing needs to be sent or read");
        let forbidden = missing.with(|facts| facts.authority = Authority::Forbids(refusal(Reason::ScopeNotAllowed)));
        assert_eq!(next(&forbidden, due), Plan::Refuse(refusal(Reason::ScopeNotAllowed)));
    }

    #[test]
    fn secret_of_a_new_credential_is_read_once_its_request_is_admitted() {
        let new = settled().with(|facts| {
            facts.target = Target::Presumed;
            facts.is_admitted = false;
        });
        assert_eq!(next(&new, at(1)), Plan::AwaitAdmission);
        let admitted = new.clone().with(|facts| facts.is_admitted = true);
        assert_eq!(next(&admitted, at(1)), Plan::Inspect(Inspect::Target));
        let suspended = new.with(|facts| facts.suspend = true);
        assert_eq!(next(&suspended, at(1)), Plan::Inspect(Inspect::Target));
    }

    #[test]
    fn renewal_that_is_asked_for_too_often_waits_and_holds_up_nothing_else() {
        let floor = at(10);
        let asked = settled().with(|facts| {
            facts.client = usable(Some(true));
            facts.renewal_request = Some(RenewalRequest { fresh: true, not_before: Some(floor) });
        });
        assert_eq!(next(&asked, at(9)), Plan::BackOff { until: floor });
        assert_eq!(next(&asked, floor), Plan::Mint(Need::Requested));
        let later = asked.clone().with(|facts| {
            facts.renewal_request = Some(RenewalRequest { fresh: true, not_before: Some(at(3595)) });
        });
        assert_eq!(next(&later, at(3590)), Plan::Mint(Need::Due));
        let failing = asked.with(|facts| {
            facts.target = Target::Absent;
            facts.history.not_before = Some(at(300));
        });
        assert_eq!(next(&failing, at(9)), Plan::BackOff { until: floor });
        assert_eq!(next(&failing, floor), Plan::Mint(Need::Missing), "it waits for no back-off then");
    }

    #[test]
    fn due_token_waits_for_an_authority_that_was_not_looked_at_yet() {
        let facts = settled().with(|facts| facts.authority = Authority::Pending);
        assert_eq!(next(&facts, at(3599)), Plan::AwaitAuthority);
    }

    #[test]
    fn refusals_are_told_when_an_attempt_is_due() {
        let forbidden = settled().with(|facts| facts.authority = Authority::Forbids(refusal(Reason::ScopeNotAllowed)));
        assert_eq!(next(&forbidden, at(3599)), Plan::Refuse(refusal(Reason::ScopeNotAllowed)));
        let gone = settled().with(|facts| facts.client = Client::Unusable(refusal(Reason::ClientCredentialsNotFound)));
        assert_eq!(next(&gone, at(3599)), Plan::Refuse(refusal(Reason::ClientCredentialsNotFound)));
    }
}
