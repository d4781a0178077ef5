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
    let misfits: [fn(&mut ObservedState, &mut Unwritten); 7] = [
        |_, unwritten| unwritten.token_metadata.expires_at = at(3599),
        |_, unwritten| unwritten.token_metadata.request = "other".into(),
        |_, unwritten| unwritten.token_metadata.issuer = "https://other".into(),
        |_, unwritten| unwritten.token_metadata.client_version = "uid/0".into(),
        |_, unwritten| unwritten.token_metadata.client_reference = Some("another/keys".into()),
        |_, unwritten| unwritten.token_metadata.authority = Some("another".into()),
        |_, unwritten| unwritten.is_checked = false,
    ];
    for (number, misfit) in misfits.into_iter().enumerate() {
        assert_eq!(after(misfit), Action::Fetch(Fetch::Client), "{number}: as if there were none");
    }
    let unknown: fn(&mut ObservedState, &mut Unwritten) = |observed, _| {
        observed.client = Client::Unread { version: None };
        observed.is_admitted = false;
    };
    assert_eq!(after(unknown), Action::Fetch(Fetch::Client), "no one knows whether the client changed");
}

#[test]
fn issued_token_that_is_to_be_renewed_itself_is_written_until_it_expires_where_it_outlives_the_one_that_is_held() {
    let kept = |expires_at| {
        let old = TokenMetadata { issued_at: at(-9000), expires_at, ..token_metadata() };
        settled().with(|observed| observed.unwritten = Some(Unwritten { token_metadata: old, ..unwritten() }))
    };
    let written = Action::WriteIssuedToken(IssueReason::Due);
    assert_eq!(decide(&kept(at(3601)), at(3300)), written, "both are to be renewed");
    assert_eq!(decide(&kept(at(3900)), at(3899)), written, "the one that is held has expired");
    assert_eq!(decide(&kept(at(3900)), at(3900)), Action::Fetch(Fetch::Client), "so has the one at hand");
    assert_eq!(decide(&kept(at(3600)), at(3300)), Action::Fetch(Fetch::Client), "it is no better");
    let missing = kept(at(3900)).with(|observed| observed.target = Target::Absent);
    assert_eq!(decide(&missing, at(3300)), Action::WriteIssuedToken(IssueReason::Missing));
}

#[test]
fn issued_token_is_written_although_no_other_one_could_be_requested() {
    let after = |change: &dyn Fn(&mut ObservedState)| {
        let observed = settled().with(|observed| observed.unwritten = Some(unwritten()));
        decide(&observed.with(change), at(3000))
    };
    let written = Action::WriteIssuedToken(IssueReason::Due);
    let unusable = || Client::Unusable(failure(Reason::ClientCredentialsInvalid));
    for client in [Client::Missing, unusable()] {
        assert_eq!(after(&|observed| observed.client = client.clone()), written, "{client:?}");
    }
    let unlisted = Authority::Unlisted(failure(Reason::AuthorityNotReady));
    assert_eq!(after(&|observed| observed.authority = unlisted.clone()), written);
    let unanswered = |issuer: &str, failure| Authority::Unanswered { issuer: issuer.to_owned(), failure };
    for why in [None, Some(failure(Reason::AuthorityNotReady))] {
        assert_eq!(after(&|observed| observed.authority = unanswered(ISSUER, why.clone())), written, "{why:?}");
    }
    let another = after(&|observed| observed.authority = unanswered("https://other", None));
    assert_eq!(another, Action::AwaitAuthority, "it was replaced");
    let pending = after(&|observed| observed.authority = Authority::Pending);
    assert_eq!(pending, Action::AwaitAuthority, "it may be another issuer by now");
    let unavailable = |reason| Authority::Unavailable(failure(reason));
    for (reason, authority) in [
        (Reason::AuthorityNotReady, unavailable(Reason::AuthorityNotReady)),
        (Reason::AuthorityNotFound, unavailable(Reason::AuthorityNotFound)),
        (Reason::ScopeNotAllowed, Authority::Forbids(failure(Reason::ScopeNotAllowed))),
    ] {
        let failed = Action::Fail(failure(reason));
        assert_eq!(after(&|observed| observed.authority = authority.clone()), failed, "an administrator withdrew it");
    }
    let invalid = after(&|observed| observed.desired.template_failure = Some(failure(Reason::TemplateInvalid)));
    assert_eq!(invalid, Action::Fail(failure(Reason::TemplateInvalid)), "it could not be written");
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
