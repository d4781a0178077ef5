//! Sentences that users read in conditions and events: what happened, to which object, and what to do.

use itwin_api::{conditions::Reason, failure::Failure};

/// The Secret to write cannot be changed.
#[must_use]
pub fn secret_immutable(secret: &str) -> Failure {
    Failure::new(
        Reason::SecretImmutable,
        format!(
            "Secret {secret} is immutable, so that no token can be written into it: delete it, it is made again at once"
        ),
    )
}

/// The Secret to write is of another type than the operator writes.
#[must_use]
pub fn secret_type_mismatch(secret: &str, type_: &str) -> Failure {
    let message = format!(
        "Secret {secret} is of type {type_}, and only Opaque Secrets are written: delete it, or name another in a new credential"
    );
    Failure::new(Reason::SecretTypeMismatch, message)
}
