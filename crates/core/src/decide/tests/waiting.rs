//! What is read, and what is waited for, before a token is requested.

use super::*;

#[test]
fn reference_to_nothing_is_reported_at_once_and_costs_no_token() {
    let failing = |reason, change: fn(&mut ObservedState, Failure)| {
        let observed = settled().with(|observed| change(observed, failure(reason)));
        assert_eq!(decide(&observed, at(1)), Action::Fail(failure(reason)));
        let waiting = observed.with(|observed| observed.history.not_before = Some(at(9)));
        assert_eq!(decide(&waiting, at(1)), Action::AwaitBackoff { until: at(9) });
        assert_eq!(waiting.held_for_spec(), Some(&token_metadata()), "it is good");
    };
    failing(Reason::AuthorityNotFound, |observed, failure| observed.authority = Authority::Unavailable(failure));
    failing(Reason::ClientCredentialsNotFound, |observed, failure| observed.client = Client::Unusable(failure));
    let missing = settled().with(|observed| observed.client = Client::Missing);
    assert_eq!(decide(&missing, at(1)), Action::Fetch(Fetch::Client), "a watch may be late");
}

#[test]
fn client_secret_that_an_attempt_failed_for_is_read_before_it_is_said_to_be_good() {
    let failed = settled().with(|observed| observed.history.has_failed_for_client = true);
    for client in [Client::Unread { version: None }, Client::Unread { version: Some("uid/1".into()) }] {
        let observed = failed.clone().with(|observed| observed.client = client);
        assert_eq!(decide(&observed, at(1)), Action::Fetch(Fetch::Client));
        let waiting = observed.with(|observed| observed.history.not_before = Some(at(9)));
        assert_eq!(decide(&waiting, at(1)), Action::AwaitBackoff { until: at(9) });
    }
    let good = failed.with(|observed| observed.client = usable(Some(true)));
    assert!(matches!(decide(&good, at(1)), Action::UpToDate { .. }), "it was read");
}

#[test]
fn reads_that_failed_are_repeated_after_their_own_backoff() {
    let until = at(9);
    let failing = |what, observed: ObservedState| {
        assert_eq!(decide(&observed, at(1)), Action::Fetch(what));
        let waiting = observed.with(|observed| *observed.history.reads.of_mut(what) = Some(until));
        assert_eq!(decide(&waiting, at(1)), Action::AwaitBackoff { until });
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
    assert_eq!(decide(&due, at(3000)), Action::AwaitBackoff { until: at(3009) }, "it would be admitted for nothing");
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
fn backoff_is_waited_for_except_on_request() {
    let until = at(3000);
    let observed = settled().with(|observed| {
        observed.history.not_before = Some(until);
        observed.client = usable(Some(true));
    });
    assert_eq!(decide(&observed, at(2999)), Action::AwaitBackoff { until });
    assert_eq!(decide(&observed, until), Action::RequestToken(IssueReason::Due));
    let asked = |fresh| {
        let request = RenewalRequest { fresh, not_before: None };
        observed.clone().with(|observed| observed.renewal_request = Some(request))
    };
    assert_eq!(decide(&asked(true), at(2999)), Action::RequestToken(IssueReason::Requested));
    assert_eq!(decide(&asked(false), at(2999)), Action::AwaitBackoff { until }, "one attempt only");
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
fn due_token_waits_for_an_authority_that_was_not_reconciled_yet() {
    let unanswered = |failure| Authority::Unanswered { issuer: ISSUER.to_owned(), failure };
    let after = |authority| decide(&settled().with(|observed| observed.authority = authority), at(3599));
    assert_eq!(after(Authority::Pending), Action::AwaitAuthority);
    assert_eq!(after(unanswered(None)), Action::AwaitAuthority);
    let not_ready = failure(Reason::AuthorityNotReady);
    assert_eq!(after(unanswered(Some(not_ready.clone()))), Action::Fail(not_ready));
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
        assert_eq!(decide(&changed, at(9)), Action::AwaitBackoff { until });
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
        observed.unwritten = Some(Unwritten { token_metadata, ..unwritten() });
    });
    assert_eq!(decide(&issued, at(9)), Action::WriteIssuedToken(IssueReason::ClientChanged), "nothing is requested");
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
