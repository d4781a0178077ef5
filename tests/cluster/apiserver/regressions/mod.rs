//! Bugs of comparable projects, reproduced: each test has the name and number of the issue that it learns from. What is
//! a pure decision is tested as one; the rest runs with the real servers.

mod cert_manager;
mod external_secrets;
mod others;
mod sealed_secrets;
mod vault_secrets_operator;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_core::{
    observed::{Authority, Client, Desired, Drift, Form, Held, Integrity, ObservedState, Target},
    policy::{Policy, RenewBefore},
    samples,
    token::TokenMetadata,
};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn policy(renew_before: RenewBefore) -> Policy {
    Policy { renew_before, minimum_validity: Some(TimeDelta::minutes(5)) }
}

/// A token that was requested at second 0 and lives for this many seconds.
fn token_metadata(lifetime: i64) -> TokenMetadata {
    TokenMetadata {
        request: "request".into(),
        issuer: "https://ims.example.com".into(),
        authority: Some("ims".into()),
        client_reference: Some("client/keys".into()),
        client_version: "uid/1".into(),
        issued_at: at(0),
        expires_at: at(lifetime),
    }
}

/// A credential that holds this token and lacks nothing.
fn holding(token_metadata: TokenMetadata, policy: Policy) -> ObservedState {
    let observed = samples::observed_state();
    ObservedState {
        uid: "2a9f4d3e".to_owned(),
        desired: Desired { request: token_metadata.request.to_string(), policy, ..observed.desired },
        authority: Authority::Ready { issuer: token_metadata.issuer.to_string() },
        client: Client::Unread { version: Some(token_metadata.client_version.clone()) },
        target: Target::Ours(Held {
            token_metadata: Some(token_metadata),
            data: Integrity::Verified,
            drift: Drift::None,
            form: Form::Presumed,
        }),
        is_admitted: true,
        ..observed
    }
}
