//! The issuer and the audiences that a token names, for the message about one that names others than it should.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use super::{VerificationError, parts_are_shallow};
use crate::limits::ACCESS_TOKEN_MAX;

#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    aud: Option<Value>,
}

/// What a token has in place of the claim that this error is about; `None` where it is about no such claim. The token's
/// signature was verified before, or else there is another error.
pub(super) fn claim(token: &str, error: VerificationError) -> Option<String> {
    if token.len() > ACCESS_TOKEN_MAX || !parts_are_shallow(token) {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    match error {
        VerificationError::Issuer => text(&claims.iss?),
        VerificationError::Audience => text(&claims.aud?),
        _ => None,
    }
}

/// A text, or several texts separated by commas.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => {
            Some(values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(claims: &Value, error: VerificationError) -> Option<String> {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        claim(&token, error)
    }

    #[test]
    fn claim_that_is_wrong_is_given() {
        let claims = json!({"iss": "https://other", "aud": ["a", 1, "b"]});
        assert_eq!(of(&claims, VerificationError::Issuer).as_deref(), Some("https://other"));
        assert_eq!(of(&claims, VerificationError::Audience).as_deref(), Some("a, b"));
        assert_eq!(of(&claims, VerificationError::Signature), None);
        assert_eq!(of(&json!({"aud": []}), VerificationError::Audience), None);
        assert_eq!(of(&json!({"iss": {}}), VerificationError::Issuer), None);
        assert_eq!(claim("opaque", VerificationError::Issuer), None);
    }
}
