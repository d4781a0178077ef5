//! What tests of this crate and of others start from, in one place: a token that was just issued.

use chrono::DateTime;
use itwin_oauth::sensitive::Sensitive;

use crate::{
    object::ObjectVersion,
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
        counted: None,
    }
}
