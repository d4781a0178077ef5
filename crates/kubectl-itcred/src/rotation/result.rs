//! What `rotate` shows, as programs read it.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::output::Structured;

/// What `rotate` shows once the new secret is written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// The client Secret, `namespace/name`.
    pub secret: String,
    /// The key that holds the new secret.
    pub key: String,
    /// Until when there was time.
    pub usable_until: Option<DateTime<Utc>>,
    /// The credentials that use the client Secret.
    pub items: Vec<Rotated>,
}

impl Structured for Rotation {
    const KIND: &'static str = "Rotation";
}

/// A credential, once a token was requested with the new secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it ended, in a word.
    pub result: RotationResult,
    /// The reason of `Renewed` where the last attempt failed.
    pub reason: Option<String>,
    /// What the operator says about that attempt.
    pub failure: Option<String>,
    /// What happened, and what to do.
    pub message: String,
    /// When the new token expires.
    pub expires_at: Option<DateTime<Utc>>,
}

/// How the rotation ended for a credential, as programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RotationResult {
    /// There is a token that was requested with the new secret.
    Issued,
    /// The last attempt failed; the operator goes on.
    Failed,
    /// No attempt has ended within the time.
    Late,
}
