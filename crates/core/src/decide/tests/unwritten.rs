//! Tokens that were issued and are not written yet.

use super::*;

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
    assert_eq!(decide(&failed, at(2)), Action::AwaitBackoff { until: at(3) });
    let misfit = asked(false).with(|observed| observed.desired.client_reference = "another/keys".into());
    assert_ne!(decide(&misfit, at(1)), Action::WriteIssuedToken(IssueReason::Requested));
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
