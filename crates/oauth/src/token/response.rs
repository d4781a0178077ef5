//! The token response (RFC 6749 section 5.1) before anything in it is verified.

use chrono::{DateTime, Utc};

use super::{MalformedResponse, exchange::WireResponse};
use crate::{limits::ACCESS_TOKEN_MAX, sensitive::Sensitive};

/// A token response. Its token fits into a header; nothing else of it is verified.
#[derive(Clone)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: Sensitive,
    /// Its type, in the server's case (RFC 6749 section 7.1).
    pub token_type: String,
    /// `expires_in`, in seconds.
    pub expires_in: Option<u64>,
    /// `scope`; absent means "as requested" (RFC 6749 section 5.1).
    pub scope: Option<Vec<String>>,
    /// When the request was sent. Lifetimes count from here: `expires_in` was true at some later time.
    pub sent_at: DateTime<Utc>,
}

impl TokenResponse {
    pub(super) fn read(response: WireResponse, sent_at: DateTime<Utc>) -> Result<Self, MalformedResponse> {
        let token = oauth2::TokenResponse::access_token(&response).secret();
        if token.len() > ACCESS_TOKEN_MAX {
            return Err(MalformedResponse::TokenTooLong);
        }
        if !fits_a_header(token.as_bytes()) {
            return Err(MalformedResponse::NotVisibleAscii);
        }
        Ok(Self {
            access_token: Sensitive::new(token.clone()),
            token_type: response.token_type.0,
            expires_in: response.expires_in.map(Into::into),
            scope: response.scope.map(Into::into),
            sent_at,
        })
    }
}

/// Whether it is `1*VSCHAR` without spaces (RFC 6749 appendix A.12). Some opaque tokens are no `b64token` (RFC 6750
/// section 2.1); anything but visible ASCII could end the header it is put into and begin another.
#[must_use]
pub fn fits_a_header(token: &[u8]) -> bool {
    !token.is_empty() && token.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinguished_from_header_injections() {
        for good in ["a", "eyJ.a-b_c.~+/==", "0", "!opaque|token\"", "a=b", "="] {
            assert!(fits_a_header(good.as_bytes()), "{good}");
        }
        for bad in ["", "a b", "a\r\nX: y", "a\n", "ä", "a\t", "a\u{7f}", "a\0"] {
            assert!(!fits_a_header(bad.as_bytes()), "{bad:?}");
        }
    }
}
