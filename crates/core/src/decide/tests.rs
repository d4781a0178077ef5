//! What is decided in each state.

mod renewal;
mod secret;
mod unwritten;
mod waiting;

use itwin_api::conditions::Reason;

use super::*;
use crate::{
    failure::Failure,
    observed::{Drift, History, RenewalRequest, Unwritten},
    samples,
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
    Unwritten { token_metadata, is_of_client: None, is_checked: true }
}

fn failure(reason: Reason) -> Failure {
    Failure::new(reason, "because")
}

/// A credential whose Secret holds a token issued at second 0 that expires at second 3600.
fn settled() -> ObservedState {
    ObservedState {
        authority: Authority::Ready { issuer: ISSUER.into() },
        client: Client::Unread { version: Some("uid/1".into()) },
        target: Target::Ours(held()),
        is_admitted: true,
        ..samples::observed_state()
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
fn no_secret_is_created_for_a_credential_that_is_gone() {
    for target in [Target::Absent, Target::Presumed, Target::Adoptable(Form::Writable)] {
        let observed = settled().with(|observed| observed.target = target).with(|observed| {
            observed.history.is_gone = true;
            observed.renewal_request = Some(RenewalRequest { fresh: true, not_before: None });
        });
        assert_eq!(decide(&observed, at(1)), Action::AwaitBackoff { until: at(61) });
    }
}

#[test]
fn secret_that_is_there_is_kept_in_order_whatever_is_said_of_its_credential() {
    for target in [Target::Unread { last: None }, Target::Ours(held())] {
        for second in [1, 3500, 3601] {
            let observed = settled().with(|observed| observed.target = target.clone());
            let expected = decide(&observed, at(second));
            let observed = observed.with(|observed| observed.history.is_gone = true);
            assert_eq!(decide(&observed, at(second)), expected);
        }
    }
}

#[test]
fn secret_of_a_credential_that_is_known_to_be_absent_is_left_alone() {
    for target in [Target::Absent, Target::Unread { last: None }, Target::Ours(held())] {
        for second in [1, 3500, 3601] {
            let observed = settled().with(|observed| observed.target = target.clone());
            let observed = observed.with(|observed| observed.history.is_known_absent = true);
            assert_eq!(decide(&observed, at(second)), Action::AwaitBackoff { until: at(second + 60) });
        }
    }
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
