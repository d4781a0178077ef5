//! What is done about the Secret: its data, metadata and owner, and the workloads that use it.

use super::*;

#[test]
fn suspended_secret_that_others_may_have_edited_is_read_and_left_alone() {
    let suspended =
        |target| decide(&settled().with(|observed| (observed.suspend, observed.target) = (true, target)), at(1));
    let edited = |data| Target::Ours(Held { data, ..held() });
    assert_eq!(suspended(Target::Unread { last: None }), Action::Fetch(Fetch::Target));
    assert_eq!(suspended(edited(Integrity::Unverified)), Action::Fetch(Fetch::TargetData));
    assert_eq!(suspended(edited(Integrity::Tampered)), Action::UpToDate { renew_at: None });
}

#[test]
fn secret_that_is_to_outlive_a_held_credential_loses_its_owner_and_nothing_else_is_done() {
    let owned = |form: Form| settled().holding(|held| (held.form, held.drift) = (form, Drift::Ownership));
    assert_eq!(release(&owned(Form::Presumed)), Some(Action::PatchMetadata));
    assert_eq!(release(&owned(Form::Immutable)), Some(Action::PatchMetadata));
    assert_eq!(release(&owned(Form::TypeUnknown)), Some(Action::Fetch(Fetch::TargetData)));
    assert_eq!(release(&owned(Form::OtherType("helm.sh/release.v1".into()))), None);
    let refused = owned(Form::Presumed).with(|observed| observed.history.revert_not_before = Some(at(9)));
    assert_eq!(release(&refused), None);
    for drift in [Drift::None, Drift::Metadata, Drift::Data] {
        let tampered = |held: &mut Held| (held.drift, held.data) = (drift, Integrity::Tampered);
        assert_eq!(release(&settled().holding(tampered)), None, "{drift:?}");
    }
    let with = |target| settled().with(|observed| observed.target = target);
    assert_eq!(release(&with(Target::Absent)), None, "no other Secret is created");
    assert_eq!(release(&with(Target::NotOwned(failure(Reason::SecretNotOwned)))), None);
    let unread = with(Target::Unread { last: None });
    assert_eq!(release(&unread), Some(Action::Fetch(Fetch::Target)));
    let waits = unread.with(|observed| observed.history.reads.target = Some(at(9)));
    assert_eq!(release(&waits), Some(Action::AwaitBackoff { until: at(9) }));
}

#[test]
fn secret_that_is_not_owned_is_refused_before_any_token_is_requested() {
    let observed = settled().with(|observed| observed.target = Target::NotOwned(failure(Reason::SecretNotOwned)));
    assert_eq!(decide(&observed, at(1)), Action::Fail(failure(Reason::SecretNotOwned)));
}

#[test]
fn secret_of_an_unknown_type_is_read_before_anything_of_it_is_written_and_not_at_a_start() {
    let unknown = settled().holding(|held| held.form = Form::TypeUnknown);
    assert!(matches!(decide(&unknown, at(1)), Action::UpToDate { .. }));
    let reads = Action::Fetch(Fetch::TargetData);
    for drift in [Drift::Ownership, Drift::Metadata, Drift::Data] {
        let drifted = settled().holding(|held| (held.form, held.drift) = (Form::TypeUnknown, drift));
        assert_eq!(decide(&drifted, at(1)), reads, "{drift:?}");
        let is_owner = drift == Drift::Ownership;
        let expected = if is_owner { reads.clone() } else { Action::UpToDate { renew_at: None } };
        assert_eq!(decide(&drifted.with(|observed| observed.suspend = true), at(1)), expected, "{drift:?}, suspended");
    }
    for restart in [Restart::Due(Duration::ZERO), Restart::Unrecorded(Duration::ZERO)] {
        assert_eq!(decide(&unknown.clone().with(|observed| observed.restart = restart), at(1)), reads, "{restart:?}");
    }
    let due = unknown.with(|observed| observed.client = usable(Some(true)));
    assert_eq!(decide(&due, at(3000)), reads);
    let kept =
        due.clone().with(|observed| observed.unwritten = Some(Unwritten { is_of_client: Some(true), ..unwritten() }));
    assert_eq!(decide(&kept, at(3000)), reads);
    let adoptable = due.with(|observed| observed.target = Target::Adoptable(Form::TypeUnknown));
    assert_eq!(decide(&adoptable, at(1)), reads);
}

#[test]
fn secret_of_another_type_is_reported_and_neither_written_nor_is_a_token_requested_for_it() {
    let other = |drift| {
        settled().holding(|held| (held.form, held.drift) = (Form::OtherType("helm.sh/release.v1".into()), drift))
    };
    let is_mismatch = |observed: &ObservedState, second| {
        let action = decide(observed, at(second));
        matches!(action, Action::Fail(failure) if failure.reason == Reason::SecretTypeMismatch)
    };
    for drift in [Drift::None, Drift::Ownership, Drift::Metadata, Drift::Data] {
        let observed = other(drift);
        assert!(is_mismatch(&observed, 1) && is_mismatch(&observed, 3599), "{drift:?}");
        let respecified = observed.clone().with(|observed| observed.desired.request = "other".into());
        assert!(is_mismatch(&respecified, 1), "{drift:?}");
        let waiting = observed.clone().with(|observed| {
            observed.history.not_before = Some(at(9));
            observed.restart = Restart::Unrecorded(Duration::ZERO);
        });
        assert_eq!(decide(&waiting, at(1)), Action::AwaitBackoff { until: at(9) }, "{drift:?}");
        let suspended = observed.with(|observed| observed.suspend = true);
        assert_eq!(decide(&suspended, at(1)), Action::UpToDate { renew_at: None }, "{drift:?}");
    }
    let good = other(Drift::None);
    assert_eq!(good.held_for_spec(), Some(&token_metadata()), "the token in it stays good");
    let edited = settled().holding(|held| {
        (held.form, held.data) = (Form::OtherType("helm.sh/release.v1".into()), Integrity::Unverified);
    });
    assert_eq!(decide(&edited, at(1)), Action::Fetch(Fetch::TargetData), "whether it is good must be known");
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
    for data in [Integrity::Unverified, Integrity::Suspect, Integrity::Untrusted] {
        let unread = settled().holding(|held| held.data = data);
        assert_eq!(decide(&unread, at(1)), Action::Fetch(Fetch::TargetData), "{data:?}");
        let due = unread.with(|observed| observed.client = usable(Some(true)));
        assert_eq!(decide(&due, at(3599)), Action::Fetch(Fetch::TargetData), "{data:?}: before any request");
    }
    let tampered =
        settled().holding(|held| held.data = Integrity::Tampered).with(|observed| observed.client = usable(Some(true)));
    assert_eq!(decide(&tampered, at(1)), Action::RequestToken(IssueReason::Tampered));
}

#[test]
fn owner_reference_is_restored_while_the_data_of_an_immutable_secret_waits() {
    let waits = |drift: Drift, is_refused_as_immutable: bool| {
        settled().holding(|held| held.drift = drift).with(|observed| {
            observed.history =
                History { revert_not_before: Some(at(9)), is_refused_as_immutable, ..History::default() };
        })
    };
    assert_eq!(decide(&waits(Drift::Ownership, true), at(1)), Action::PatchMetadata);
    for waits in [waits(Drift::Ownership, false), waits(Drift::Data, true)] {
        assert!(matches!(decide(&waits, at(1)), Action::UpToDate { .. }));
    }
    let disputed = waits(Drift::Ownership, true).with(|observed| observed.history.restore_not_before = Some(at(9)));
    assert!(matches!(decide(&disputed, at(1)), Action::UpToDate { .. }));
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
fn wait_of_a_start_in_a_conflict_holds_up_neither_the_owner_nor_a_user() {
    let waits = settled().holding(|held| (held.data, held.form) = (Integrity::Unverified, Form::TypeUnknown));
    let waits = waits.with(|observed| observed.history.reads.target_data = Some(at(9)));
    let (later, now) = (Action::AwaitBackoff { until: at(9) }, Action::Fetch(Fetch::TargetData));
    let without_owner = |observed: &ObservedState| {
        let drifted = |held: &mut Held| {
            (held.data, held.form, held.drift) = (Integrity::Unverified, Form::TypeUnknown, Drift::Ownership);
        };
        observed.clone().holding(drifted)
    };
    let suspended = waits.clone().with(|observed| observed.suspend = true);
    let fresh = Some(RenewalRequest { fresh: true, not_before: None });
    let asked = |observed: &ObservedState| observed.clone().with(|observed| observed.renewal_request = fresh);
    for (number, (observed, first, after_failure)) in [
        (waits.clone(), &later, &later),
        (without_owner(&waits), &now, &later),
        (suspended.clone(), &later, &later),
        (without_owner(&suspended), &now, &later),
        (asked(&waits), &now, &later),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(decide(&observed, at(1)), *first, "row {number}");
        let failed = observed.with(|observed| observed.history.has_data_read_failed = true);
        assert_eq!(decide(&failed, at(1)), *after_failure, "row {number}, after a read that failed");
    }
    assert_eq!(release(&without_owner(&waits)), Some(now));
    let gone = waits.with(|observed| (observed.target, observed.client) = (Target::Absent, usable(None)));
    assert_eq!(decide(&gone, at(1)), later);
    assert_eq!(decide(&asked(&gone), at(1)), Action::RequestToken(IssueReason::Missing));
}

#[test]
fn ownership_is_restored_while_suspended_and_before_anything_is_read() {
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
        assert_eq!(decide(&observed, at(1)), Action::AwaitBackoff { until });
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
    assert_eq!(
        decide(&expired, at(3600)),
        Action::AwaitBackoff { until: at(3700) },
        "workloads wait for one that is valid"
    );
    let tampered = failing.clone().holding(|held| held.data = Integrity::Tampered);
    assert_eq!(decide(&tampered, at(1)), Action::AwaitBackoff { until }, "it is not the token that was issued");
    let other_spec = failing.with(|observed| observed.desired.request = "other".into());
    assert_eq!(decide(&other_spec, at(1)), Action::AwaitBackoff { until }, "workloads wait for one for this spec");
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
    assert_eq!(decide(&waiting, at(1)), Action::AwaitBackoff { until: at(9) });
    let failing = new.with(|observed| observed.history.not_before = Some(at(9)));
    assert_eq!(decide(&failing, at(1)), Action::AwaitBackoff { until: at(9) }, "nothing is claimed");
}
