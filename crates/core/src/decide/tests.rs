//! What is decided in each state.

use chrono::TimeDelta;
use itwin_api::conditions::Reason;

use super::*;
use crate::{
    failure::Failure,
    observed::{Desired, Drift, History, RenewalRequest},
    policy::{Policy, RenewBefore},
};

const ISSUER: &str = "https://ims.example.com";

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

fn token_metadata() -> TokenMetadata {
    TokenMetadata {
        request: "request".into(),
        issuer: ISSUER.into(),
        authority: Some("ims".into()),
        client_reference: Some("client/keys".into()),
        client_version: "uid/1".into(),
        issued_at: at(0),
        expires_at: at(3600),
    }
}

fn held() -> Held {
    Held { token_metadata: Some(token_metadata()), data: Integrity::Verified, drift: Drift::None, form: Form::Presumed }
}

/// A token that was issued at second 3000 with the client that is there.
fn unwritten() -> Unwritten {
    let token_metadata = TokenMetadata { issued_at: at(3000), expires_at: at(6600), ..token_metadata() };
    Unwritten { token_metadata, is_of_client: None }
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
            authority: "ims".into(),
            client_reference: "client/keys".into(),
            secret: "team/token".into(),
            template_failure: None,
            policy: Policy { renew_before: RenewBefore::Default, minimum_validity: Some(TimeDelta::minutes(5)) },
        },
        suspend: false,
        renewal_request: None,
        authority: Authority::Ready { issuer: ISSUER.into() },
        client: Client::Unread { version: Some("uid/1".into()) },
        target: Target::Ours(held()),
        history: History::default(),
        is_admitted: true,
        unwritten: None,
        retry_key: Default::default(),
        restart: Restart::Done,
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
        Authority::Unavailable(failure(Reason::AuthorityNotReady)),
        Authority::Forbids(failure(Reason::ScopeNotAllowed)),
    ] {
        let observed = settled().with(|observed| observed.authority = authority);
        assert!(matches!(decide(&observed, at(1)), Action::UpToDate { .. }));
    }
}

#[test]
fn reference_to_nothing_is_reported_at_once_and_costs_no_token() {
    let failing = |reason, change: fn(&mut ObservedState, Failure)| {
        let observed = settled().with(|observed| change(observed, failure(reason)));
        assert_eq!(decide(&observed, at(1)), Action::Fail(failure(reason)));
        let waiting = observed.with(|observed| observed.history.not_before = Some(at(9)));
        assert_eq!(decide(&waiting, at(1)), Action::BackOff { until: at(9) });
        assert_eq!(waiting.held_for_spec(), Some(&token_metadata()), "it is good");
    };
    failing(Reason::AuthorityNotFound, |observed, failure| observed.authority = Authority::Unavailable(failure));
    failing(Reason::ClientCredentialsNotFound, |observed, failure| observed.client = Client::Unusable(failure));
    let missing = settled().with(|observed| observed.client = Client::Missing);
    assert_eq!(decide(&missing, at(1)), Action::Fetch(Fetch::Client), "a watch may be late");
}

#[test]
fn other_names_in_the_spec_ask_for_another_token_unless_the_old_ones_were_not_recorded() {
    let changes: [fn(&mut ObservedState); 2] = [
        |observed| observed.desired.authority = "other".into(),
        |observed| observed.desired.client_reference = "other/keys".into(),
    ];
    for change in changes {
        let renamed = settled().with(|observed| observed.client = usable(Some(true))).with(change);
        assert_eq!(decide(&renamed, at(1)), Action::RequestToken(IssueReason::SpecChanged));
        let unrecorded = renamed.holding(|held| {
            let token_metadata = held.token_metadata.as_mut().expect("a token");
            (token_metadata.authority, token_metadata.client_reference) = (None, None);
        });
        assert!(matches!(decide(&unrecorded, at(1)), Action::UpToDate { .. }));
    }
    let nowhere = settled().with(|observed| {
        observed.desired.authority = "missing".into();
        observed.authority = Authority::Unavailable(failure(Reason::AuthorityNotFound));
    });
    assert_eq!(decide(&nowhere, at(1)), Action::Fail(failure(Reason::AuthorityNotFound)));
    assert_eq!(nowhere.held_for_spec(), None);
}

#[test]
fn new_token_is_compared_with_the_old_one_only_where_the_client_is_the_same() {
    let held_of = |client| settled().with(|observed| observed.client = client).held_of_client(at(1)).is_some();
    assert!(held_of(usable(Some(true))) && held_of(Client::Unread { version: Some("uid/1".into()) }));
    assert!(!held_of(usable(Some(false))) && !held_of(Client::Unread { version: Some("uid/2".into()) }));
}

#[test]
fn reads_that_failed_are_repeated_after_their_own_backoff() {
    let until = at(9);
    let failing = |what, observed: ObservedState| {
        assert_eq!(decide(&observed, at(1)), Action::Fetch(what));
        let waiting = observed.with(|observed| *observed.history.reads.of_mut(what) = Some(until));
        assert_eq!(decide(&waiting, at(1)), Action::BackOff { until });
        waiting
    };
    let unread = failing(
        Fetch::Target,
        settled().with(|observed| observed.target = Target::Unread { last: Some(token_metadata()) }),
    );
    assert_eq!(unread.held_for_spec(), Some(&token_metadata()), "as far as is known");
    failing(Fetch::TargetData, settled().holding(|held| held.data = Integrity::Unverified));
    let rotated = settled().with(|observed| observed.client = Client::Unread { version: Some("uid/2".into()) });
    failing(Fetch::Client, rotated.holding(|held| held.form = Form::Writable));
    let due = settled().with(|observed| {
        observed.is_admitted = false;
        observed.history.reads.client = Some(at(3009));
    });
    assert_eq!(decide(&due, at(3000)), Action::BackOff { until: at(3009) }, "it would be admitted for nothing");
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
    assert_eq!(suspended(Target::Unread { last: None }), Action::Fetch(Fetch::Target));
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
    assert_eq!(decide(&changed, at(1)), Action::Fetch(Fetch::TargetData), "it records what to compare with");
    let comparable = changed.holding(|held| held.form = Form::Writable);
    assert_eq!(decide(&comparable, at(1)), Action::Fetch(Fetch::Client));
    let verified = settled().with(|observed| observed.client = Client::Verified { version: "uid/2".into() });
    assert!(matches!(decide(&verified, at(1)), Action::UpToDate { .. }));
    let relabelled = settled().with(|observed| observed.client = usable(Some(true)));
    assert!(matches!(decide(&relabelled, at(1)), Action::UpToDate { .. }));
    let rotated = settled().with(|observed| observed.client = usable(Some(false)));
    assert_eq!(decide(&rotated, at(1)), Action::RequestToken(IssueReason::ClientChanged));
}

#[test]
fn client_secret_that_is_labelled_before_it_is_read_is_compared_before_a_token_is_requested() {
    let due = at(3000);
    let labelled = settled().with(|observed| observed.client = usable(None));
    assert_eq!(decide(&labelled, due), Action::Fetch(Fetch::TargetData), "it records what to compare with");
    let compared = |same| {
        let read = settled().holding(|held| held.form = Form::Writable);
        read.with(|observed| observed.client = usable(same))
    };
    let same = compared(Some(true));
    assert_eq!(decide(&same, due), Action::RequestToken(IssueReason::Due));
    assert!(same.held_of_client(due).is_some(), "the new token is compared with the old one");
    assert_eq!(decide(&compared(Some(false)), due), Action::RequestToken(IssueReason::ClientChanged));
    let unrecorded = compared(None);
    assert_eq!(decide(&unrecorded, due), Action::RequestToken(IssueReason::Due), "nothing more can be read");
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
    let unverified = settled().holding(|held| held.data = Integrity::Suspect);
    assert_eq!(decide(&unverified, at(1)), Action::Fetch(Fetch::TargetData));
    let tampered =
        settled().holding(|held| held.data = Integrity::Tampered).with(|observed| observed.client = usable(Some(true)));
    assert_eq!(decide(&tampered, at(1)), Action::RequestToken(IssueReason::Tampered));
}

#[test]
fn changed_metadata_is_patched_without_a_token_request() {
    for drift in [Drift::Ownership, Drift::Metadata, Drift::Data] {
        let drifted = settled().holding(|held| held.drift = drift);
        assert_eq!(decide(&drifted, at(1)), Action::PatchMetadata);
        let failing = drifted.with(|observed| observed.history.not_before = Some(at(3599)));
        assert_eq!(decide(&failing, at(3500)), Action::PatchMetadata, "whatever becomes of the renewal");
        let refused = failing.with(|observed| {
            observed.history = History { revert_not_before: Some(at(9)), ..History::default() };
            observed.client = usable(Some(true));
        });
        assert!(matches!(decide(&refused, at(1)), Action::UpToDate { .. }));
        assert_eq!(decide(&refused, at(3000)), Action::RequestToken(IssueReason::Due), "whatever becomes of the rest");
    }
}

#[test]
fn template_that_is_refused_holds_up_neither_the_owner_reference_nor_a_token() {
    let refused = |withheld: Withheld| {
        settled().holding(|held| held.drift = Drift::Ownership).with(|observed| {
            observed.history.revert_not_before = Some(at(9));
            observed.history.withheld = withheld;
        })
    };
    assert!(matches!(decide(&refused(Withheld::Nothing), at(1)), Action::UpToDate { .. }), "all of it is refused");
    assert_eq!(decide(&refused(Withheld::Metadata), at(1)), Action::PatchMetadata);
    let fought = refused(Withheld::Metadata).with(|observed| observed.history.restore_not_before = Some(at(9)));
    assert!(matches!(decide(&fought, at(1)), Action::UpToDate { .. }), "a fight waits");
    let due = |withheld: Withheld| {
        settled().with(|observed| {
            observed.client = usable(Some(true));
            observed.history.withheld = withheld;
        })
    };
    assert_eq!(decide(&due(Withheld::Metadata), at(3000)), Action::RequestToken(IssueReason::Due));
    let reads = Action::Fetch(Fetch::TargetData);
    assert_eq!(decide(&due(Withheld::Data), at(3000)), reads, "which keys of the template it has must be known");
}

#[test]
fn ownership_is_put_right_while_suspended_and_before_anything_is_read() {
    let drifted = settled().holding(|held| (held.drift, held.data) = (Drift::Ownership, Integrity::Unverified));
    assert_eq!(decide(&drifted, at(1)), Action::PatchMetadata);
    let suspended = drifted.with(|observed| observed.suspend = true);
    assert_eq!(decide(&suspended, at(1)), Action::PatchMetadata);
    let labels = suspended.holding(|held| (held.drift, held.data) = (Drift::Metadata, Integrity::Verified));
    assert_eq!(decide(&labels, at(1)), Action::UpToDate { renew_at: None });
}

#[test]
fn secret_that_is_tampered_with_again_and_again_is_restored_at_growing_intervals() {
    let until = at(9);
    let fight = |target| {
        let observed = settled().with(|observed| {
            observed.target = target;
            observed.client = usable(Some(true));
            observed.history.restore_not_before = Some(until);
        });
        assert_eq!(decide(&observed, at(1)), Action::BackOff { until });
    };
    fight(Target::Absent);
    fight(Target::Ours(Held { data: Integrity::Tampered, ..held() }));
}

#[test]
fn workloads_are_restarted_when_it_is_due_and_that_is_recorded_last() {
    let wait = Duration::from_secs(1);
    let with = |restart| settled().with(|observed| observed.restart = restart);
    for restart in [Restart::Done, Restart::Due(wait), Restart::Unrecorded(wait)] {
        assert!(matches!(decide(&with(restart), at(1)), Action::UpToDate { .. }), "{restart:?}");
    }
    let (due, unrecorded) = (Restart::Due(Duration::ZERO), Restart::Unrecorded(Duration::ZERO));
    assert_eq!(decide(&with(due), at(1)), Action::Restart { issued_at: at(0) });
    assert_eq!(decide(&with(unrecorded), at(1)), Action::RecordRestarts { issued_at: at(0) });
    let drifted = |restart| with(restart).holding(|held| held.drift = Drift::Metadata);
    let fought = drifted(due).with(|observed| observed.history.revert_not_before = Some(at(60)));
    assert_eq!(decide(&fought, at(1)), Action::Restart { issued_at: at(0) });
    assert_eq!(decide(&drifted(unrecorded), at(1)), Action::PatchMetadata);
}

#[test]
fn what_holds_up_a_better_token_keeps_no_workload_from_the_one_that_is_there() {
    let until = at(3590);
    let failing = settled().with(|observed| {
        observed.restart = Restart::Due(Duration::ZERO);
        observed.client = usable(Some(false));
        observed.history.not_before = Some(until);
    });
    let restart = Action::Restart { issued_at: at(0) };
    assert_eq!(decide(&failing, at(1)), restart, "the client changed");
    assert_eq!(
        decide(&failing.clone().with(|observed| observed.client = usable(Some(true))), at(3000)),
        restart,
        "due"
    );
    let waiting = failing.clone().with(|observed| {
        observed.history.not_before = None;
        observed.is_admitted = false;
    });
    assert_eq!(decide(&waiting, at(1)), restart, "in the queue");
    let unrecorded = failing.clone().with(|observed| observed.restart = Restart::Unrecorded(Duration::ZERO));
    assert_eq!(decide(&unrecorded, at(1)), Action::RecordRestarts { issued_at: at(0) });

    let expired = failing.clone().with(|observed| observed.history.not_before = Some(at(3700)));
    assert_eq!(decide(&expired, at(3600)), Action::BackOff { until: at(3700) }, "workloads wait for one that is valid");
    let tampered = failing.clone().holding(|held| held.data = Integrity::Tampered);
    assert_eq!(decide(&tampered, at(1)), Action::BackOff { until }, "it is not the token that was issued");
    let other_spec = failing.with(|observed| observed.desired.request = "other".into());
    assert_eq!(decide(&other_spec, at(1)), Action::BackOff { until }, "workloads wait for one for this spec");
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
    let at_hand = waiting.clone().with(|observed| observed.unwritten = Some(unwritten()));
    assert_eq!(decide(&at_hand, due), Action::WriteIssuedToken(IssueReason::Due), "nothing needs to be sent or read");
    let forbidden = missing.with(|observed| observed.authority = Authority::Forbids(failure(Reason::ScopeNotAllowed)));
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
fn secret_of_a_new_credential_is_read_before_a_failure_is_claimed_of_it() {
    let new = settled().with(|observed| {
        observed.target = Target::Presumed;
        observed.is_admitted = false;
        observed.authority = Authority::Unavailable(failure(Reason::AuthorityNotReady));
    });
    assert_eq!(decide(&new, at(1)), Action::Fetch(Fetch::Target));
    let absent = new.clone().with(|observed| observed.target = Target::Absent);
    assert_eq!(decide(&absent, at(1)), Action::Fail(failure(Reason::AuthorityNotReady)));
    let good = new.clone().with(|observed| observed.target = Target::Ours(held()));
    assert!(matches!(decide(&good, at(1)), Action::UpToDate { .. }));
    let waiting = new.clone().with(|observed| observed.history.reads.target = Some(at(9)));
    assert_eq!(decide(&waiting, at(1)), Action::BackOff { until: at(9) });
    let failing = new.with(|observed| observed.history.not_before = Some(at(9)));
    assert_eq!(decide(&failing, at(1)), Action::BackOff { until: at(9) }, "nothing is claimed");
}

#[test]
fn renewal_that_is_asked_for_too_often_waits_and_holds_up_nothing_else() {
    let floor = at(10);
    let asked = settled().with(|observed| {
        observed.client = usable(Some(true));
        observed.renewal_request = Some(RenewalRequest { fresh: true, not_before: Some(floor) });
    });
    assert_eq!(decide(&asked, at(9)), Action::AwaitBetterToken { until: floor });
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
    assert_eq!(decide(&failing, floor), Action::RequestToken(IssueReason::Missing), "it waits for no backoff then");
}

#[test]
fn token_that_was_issued_on_request_is_written_at_the_next_try() {
    let asked = |fresh| {
        settled().with(|observed| {
            observed.renewal_request = Some(RenewalRequest { fresh, not_before: Some(at(10)) });
            observed.unwritten = Some(unwritten());
        })
    };
    assert_eq!(decide(&asked(false), at(1)), Action::WriteIssuedToken(IssueReason::Requested));
    assert_eq!(decide(&asked(true), at(1)), Action::WriteIssuedToken(IssueReason::Requested));
    let failed = asked(false).with(|observed| observed.history.not_before = Some(at(3)));
    assert_eq!(decide(&failed, at(2)), Action::BackOff { until: at(3) });
    let misfit = asked(false).with(|observed| observed.desired.client_reference = "another/keys".into());
    assert_ne!(decide(&misfit, at(1)), Action::WriteIssuedToken(IssueReason::Requested));
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

#[test]
fn issued_token_is_written_only_while_it_is_what_is_wanted() {
    let due = at(3000);
    let after = |change: fn(&mut ObservedState, &mut Unwritten)| {
        let mut unwritten = unwritten();
        let mut observed = settled();
        change(&mut observed, &mut unwritten);
        observed.unwritten = Some(unwritten);
        decide(&observed, due)
    };
    let fits = Action::WriteIssuedToken(IssueReason::Due);
    assert_eq!(after(|_, _| {}), fits);
    assert_eq!(after(|observed, _| observed.is_admitted = false), fits);
    let misfits: [fn(&mut ObservedState, &mut Unwritten); 6] = [
        |_, unwritten| unwritten.token_metadata.expires_at = at(3599),
        |_, unwritten| unwritten.token_metadata.request = "other".into(),
        |_, unwritten| unwritten.token_metadata.issuer = "https://other".into(),
        |_, unwritten| unwritten.token_metadata.client_version = "uid/0".into(),
        |_, unwritten| unwritten.token_metadata.client_reference = Some("another/keys".into()),
        |_, unwritten| unwritten.token_metadata.authority = Some("another".into()),
    ];
    for (number, misfit) in misfits.into_iter().enumerate() {
        assert_eq!(after(misfit), Action::Fetch(Fetch::Client), "{number}: as if there were none");
    }
    let old: fn(&mut ObservedState, &mut Unwritten) = |_, unwritten| unwritten.token_metadata.issued_at = at(-9000);
    assert_eq!(after(old), Action::Fetch(Fetch::Client), "it would have to be renewed at once");
    let unknown: fn(&mut ObservedState, &mut Unwritten) = |observed, _| {
        observed.client = Client::Unread { version: None };
        observed.is_admitted = false;
    };
    assert_eq!(after(unknown), Action::Fetch(Fetch::Client), "no one knows whether the client changed");
}

#[test]
fn issued_token_is_kept_while_only_labels_of_the_client_secret_change() {
    let labelled = settled().with(|observed| {
        observed.target = Target::Absent;
        observed.client = Client::Unread { version: Some("uid/2".into()) };
        observed.unwritten = Some(unwritten());
        observed.is_admitted = false;
    });
    assert_eq!(decide(&labelled, at(3000)), Action::Fetch(Fetch::Client), "it waits for no turn");
    let read = |is_of_client| {
        labelled.clone().with(|observed| {
            observed.client = usable(None);
            observed.unwritten = Some(Unwritten { is_of_client, ..unwritten() });
        })
    };
    assert_eq!(decide(&read(Some(true)), at(3000)), Action::WriteIssuedToken(IssueReason::Missing));
    assert_eq!(decide(&read(Some(false)), at(3000)), Action::AwaitAdmission, "the client changed");
    let other_spec = labelled.with(|observed| observed.desired.request = "other".into());
    assert_eq!(decide(&other_spec, at(3000)), Action::AwaitAdmission, "nothing is read in vain");
}

#[test]
fn what_makes_a_request_vain_is_found_out_before_it_is_sent() {
    let due = at(3000);
    let ready = || settled().with(|observed| observed.client = usable(Some(true)));
    let with_form = |form: Form| decide(&ready().holding(|held| held.form = form), due);
    assert_eq!(with_form(Form::Writable), Action::RequestToken(IssueReason::Due));
    assert_eq!(with_form(Form::Unread), Action::Fetch(Fetch::TargetData));
    let reason = |action| match action {
        Action::Fail(failure) => Some(failure.reason),
        _ => None,
    };
    assert_eq!(reason(with_form(Form::Immutable)), Some(Reason::SecretImmutable));
    assert_eq!(reason(with_form(Form::OtherType("x".into()))), Some(Reason::SecretTypeMismatch));
    let adoptable = |form| decide(&ready().with(|observed| observed.target = Target::Adoptable(form)), at(1));
    assert_eq!(adoptable(Form::Unread), Action::Fetch(Fetch::TargetData));
    assert_eq!(adoptable(Form::Writable), Action::RequestToken(IssueReason::Missing));
    let invalid = ready().with(|observed| observed.desired.template_failure = Some(failure(Reason::TemplateInvalid)));
    assert_eq!(reason(decide(&invalid, due)), Some(Reason::TemplateInvalid));
    let unqueued = invalid.with(|observed| observed.is_admitted = false);
    assert_eq!(reason(decide(&unqueued, due)), Some(Reason::TemplateInvalid), "it does not wait for its turn");
}

#[test]
fn at_most_one_request_a_second_is_sent_except_on_request() {
    let due = at(3000);
    let sent = |requested_at| {
        settled().with(|observed| {
            observed.client = usable(Some(true));
            observed.history.requested_at = Some(requested_at);
        })
    };
    assert_eq!(decide(&sent(due), due), Action::AwaitInterval { until: at(3001) });
    assert_eq!(decide(&sent(at(2999)), due), Action::RequestToken(IssueReason::Due));
    assert_eq!(decide(&sent(at(3001)), due), Action::RequestToken(IssueReason::Due), "the clock was set back");
    let asked = sent(due).with(|observed| {
        observed.renewal_request = Some(RenewalRequest { fresh: true, not_before: None });
    });
    assert_eq!(decide(&asked, due), Action::RequestToken(IssueReason::Requested));
}

#[test]
fn token_for_another_spec_or_client_waits_after_many_changes_and_holds_up_nothing_else() {
    let until = at(10);
    let waiting = |change: fn(&mut ObservedState)| {
        let observed = settled().with(|observed| observed.client = usable(Some(true))).with(change);
        observed.with(|observed| {
            observed.history.change_not_before = Some(until);
            observed.is_admitted = false;
        })
    };
    let changes: [fn(&mut ObservedState); 2] =
        [|observed| observed.desired.request = "other".into(), |observed| observed.client = usable(Some(false))];
    for change in changes {
        let changed = waiting(change);
        assert_eq!(decide(&changed, at(9)), Action::BackOff { until });
        let asked = changed.clone().with(|observed| {
            observed.renewal_request = Some(RenewalRequest { fresh: true, not_before: None });
        });
        assert_eq!(decide(&asked, at(9)), Action::AwaitAdmission, "a user does not wait");
        let over = changed.with(|observed| observed.history.change_not_before = None);
        assert_eq!(decide(&over, until), Action::AwaitAdmission);
    }
    assert!(matches!(decide(&waiting(|_| {}), at(9)), Action::UpToDate { .. }), "nothing is due");
    assert_eq!(decide(&waiting(|_| {}), at(3000)), Action::AwaitAdmission, "a renewal is no change");
    let issued = waiting(|observed| {
        observed.client = usable(Some(false));
        let token_metadata = TokenMetadata { client_version: "uid/2".into(), ..unwritten().token_metadata };
        observed.unwritten = Some(Unwritten { token_metadata, is_of_client: None });
    });
    assert_eq!(decide(&issued, at(9)), Action::WriteIssuedToken(IssueReason::ClientChanged), "nothing is requested");
}

#[test]
fn token_of_a_clock_that_was_ahead_is_renewed_now_and_not_compared_with() {
    let ahead = settled().with(|observed| observed.client = usable(Some(true)));
    assert_eq!(decide(&ahead, at(-7200)), Action::RequestToken(IssueReason::Due));
    assert!(ahead.held_of_client(at(-7200)).is_none() && ahead.held_of_client(at(-59)).is_some());
    assert!(matches!(decide(&ahead, at(-59)), Action::UpToDate { .. }));
}

#[test]
fn token_is_read_once_before_the_first_renewal_of_a_process() {
    let unknown = settled().with(|observed| {
        observed.client = usable(Some(true));
        observed.history.is_token_unknown = true;
    });
    assert_eq!(decide(&unknown, at(3000)), Action::Fetch(Fetch::TargetData));
    assert!(matches!(decide(&unknown, at(1)), Action::UpToDate { .. }), "not at a start");
    let read = unknown.clone().holding(|held| held.form = Form::Writable);
    assert_eq!(decide(&read, at(3000)), Action::RequestToken(IssueReason::Due));
    let other_client = unknown.with(|observed| observed.client = usable(Some(false)));
    assert_eq!(decide(&other_client, at(3000)), Action::RequestToken(IssueReason::ClientChanged));
}

#[test]
fn renewal_that_gave_no_better_token_is_repeated_only_when_it_may_give_one() {
    let later = at(3300);
    let waiting = settled().with(|observed| {
        observed.client = usable(Some(true));
        observed.history.renew_not_before = Some(later);
    });
    assert_eq!(decide(&waiting, at(3299)), Action::AwaitBetterToken { until: later });
    assert!(matches!(decide(&waiting, at(1)), Action::UpToDate { .. }), "nothing is due");
    assert_eq!(decide(&waiting, later), Action::RequestToken(IssueReason::Due));
    let asked =
        waiting.with(|observed| observed.renewal_request = Some(RenewalRequest { fresh: true, not_before: None }));
    assert_eq!(decide(&asked, at(1)), Action::RequestToken(IssueReason::Requested));
    let attempted = asked.with(|observed| {
        observed.renewal_request = Some(RenewalRequest { fresh: false, not_before: None });
    });
    assert!(matches!(decide(&attempted, at(1)), Action::UpToDate { .. }), "one attempt only");
    assert_eq!(decide(&attempted, at(-7200)), Action::RequestToken(IssueReason::Due), "no one knows when it expires");
}

#[test]
fn what_is_read_for_no_attempt_is_read_once_nothing_else_is_due() {
    let unknown = settled().with(|observed| observed.history.is_client_expiry_unread = true);
    assert_eq!(decide(&unknown, at(1)), Action::Fetch(Fetch::Client));
    let unchecked = settled().with(|observed| observed.history.is_check_due = true);
    assert_eq!(decide(&unchecked, at(1)), Action::Fetch(Fetch::TargetData));
    assert!(matches!(
        decide(&unchecked.clone().holding(|held| held.form = Form::Writable), at(1)),
        Action::UpToDate { .. }
    ));
    let lost = unchecked.clone().with(|observed| {
        observed.authority = Authority::Unavailable(Failure::new(Reason::AuthorityNotFound, "because"));
    });
    assert_eq!(decide(&lost, at(1)), Action::Fetch(Fetch::TargetData), "although nothing can be requested");
    for observed in [unknown, unchecked] {
        let due = observed.clone().with(|observed| observed.client = usable(Some(true)));
        assert_eq!(decide(&due, at(3599)), Action::RequestToken(IssueReason::Due), "it holds up no renewal");
        let is_check_due = observed.history.is_check_due;
        let suspended = observed.with(|observed| observed.suspend = true);
        let expected =
            if is_check_due { Action::Fetch(Fetch::TargetData) } else { Action::UpToDate { renew_at: None } };
        assert_eq!(decide(&suspended, at(1)), expected);
    }
}
