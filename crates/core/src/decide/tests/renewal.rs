//! When a token is renewed, and when another one is requested.

use super::*;

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
fn due_token_is_renewed_once_the_client_secret_was_read() {
    let observed = settled();
    let due = renewal_of(&observed);
    assert!(matches!(decide(&observed, due - TimeDelta::milliseconds(1)), Action::UpToDate { .. }));
    assert_eq!(decide(&observed, due), Action::Fetch(Fetch::Client));
    let read = observed.with(|observed| observed.client = usable(Some(true)));
    assert_eq!(decide(&read, due), Action::RequestToken(IssueReason::Due));
}

#[test]
fn suspended_credential_is_left_alone_even_when_due() {
    let observed = settled().with(|observed| observed.suspend = true);
    assert_eq!(decide(&observed, at(4000)), Action::UpToDate { renew_at: None });
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
    assert_eq!(decide(&failing, at(9)), Action::AwaitBackoff { until: floor });
    assert_eq!(decide(&failing, floor), Action::RequestToken(IssueReason::Missing), "it waits for no backoff then");
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
