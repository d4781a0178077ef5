//! The sentences that users read about authorization servers and tokens, from the typed errors of the protocol: the
//! reason of a condition, and what happened to which object and what to do.

pub mod authority;
mod tls;
pub mod token;
pub mod transport;
pub mod verdict;

use crate::{failure::Failure, request_error::RequestError};

/// A token request without a token that may be written.
#[must_use]
pub fn request_failed(error: &RequestError, names: &token::Names) -> Failure {
    let authority = &names.authority;
    match error {
        RequestError::NotSent(failure) => failure.clone(),
        RequestError::Token(error) => token::not_issued(error, names),
        RequestError::Metadata(error) => authority::unavailable(error, authority),
        RequestError::Verification(error) => verdict::not_trusted(*error, None, authority),
        RequestError::OtherClaim(error, presented) => verdict::not_trusted(*error, Some(presented), authority),
        RequestError::Validation(error) => verdict::not_valid(error, authority),
    }
}
