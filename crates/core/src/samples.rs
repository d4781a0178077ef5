//! What tests of this crate and of others start from, in one place: a token that was just issued, a credential with a
//! template, and what is observed of one that has no token yet.

use chrono::{DateTime, TimeDelta};
use itwin_api::credential::ITwinServiceCredential;
use itwin_oauth::sensitive::Sensitive;
use serde_json::json;

use crate::{
    object::ObjectVersion,
    observed::{Authority, Client, Desired, History, ObservedState, Target},
    policy::{Policy, RenewBefore},
    restart::Restart,
    retry_key::RetryKey,
    token::{Content, Description, TokenMetadata},
};

/// A token that was issued at the start of 2027 for an hour, with all that is written about it.
///
/// # Panics
/// Never: its times are dates.
#[must_use]
pub fn content() -> Content {
    let at = |second: i64| DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range");
    Content {
        token: Sensitive::new("secret".to_owned()),
        token_metadata: TokenMetadata {
            request: "request".into(),
            issuer: "https://ims.example.com".into(),
            authority: Some("ims".into()),
            client_reference: Some("client/keys".into()),
            client_version: ObjectVersion::new("uid", "1"),
            issued_at: at(0),
            expires_at: at(3600),
        },
        description: Description { client_id: Some("id".into()), scopes: Some("a b".into()) },
        client_fingerprint: "fingerprint".into(),
        renewed_for: None,
        checked_with: None,
        counted: None,
    }
}

/// A credential whose Secret has this template as its key `header`.
///
/// # Panics
/// Never: its spec is valid.
#[must_use]
pub fn templated(template: &str) -> ITwinServiceCredential {
    serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinServiceCredential",
        "metadata": {"name": "agent", "namespace": "team", "uid": "uid"},
        "spec": {
            "clientCredentialsRef": {"name": "client"},
            "secretTemplate": {"data": {"header": template}},
        },
    }))
    .expect("a credential")
}

/// A credential that was just created: it has no Secret, and its authority is not reconciled yet.
#[must_use]
pub fn observed_state() -> ObservedState {
    ObservedState {
        uid: "uid".to_owned(),
        desired: Desired {
            request: "request".to_owned(),
            authority: "ims".to_owned(),
            client_reference: "client/keys".to_owned(),
            secret: "team/token".to_owned(),
            template_failure: None,
            policy: Policy { renew_before: RenewBefore::Default, minimum_validity: Some(TimeDelta::minutes(5)) },
        },
        suspend: false,
        renewal_request: None,
        authority: Authority::Pending,
        client: Client::Unread { version: None },
        target: Target::Absent,
        history: History::default(),
        retry_key: RetryKey::default(),
        is_admitted: false,
        unwritten: None,
        restart: Restart::Done,
    }
}
