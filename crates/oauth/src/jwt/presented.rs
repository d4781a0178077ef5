//! The issuer and the audiences that a token names, for the message about one that names others than it should.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use super::error::VerificationError;
use crate::{json, limits::ACCESS_TOKEN_MAX};

#[derive(Deserialize)]
struct Claims {
    iss: Option<Value>,
    aud: Option<Value>,
}

/// What a token has in place of the claim that this error is about, one by one; `None` where it is about no such claim
/// or the token has none. The token's signature was verified before, or else there is another error.
pub(super) fn claim(token: &str, error: VerificationError) -> Option<Vec<String>> {
    if token.len() > ACCESS_TOKEN_MAX || !parts_are_shallow(token) {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    match error {
        VerificationError::Issuer => texts(claims.iss?),
        VerificationError::Audience => texts(claims.aud?),
        _ => None,
    }
}

/// Whether header and claims are not nested too deeply. The parser refuses parts that are not even base64.
pub(super) fn parts_are_shallow(token: &str) -> bool {
    let mut parts = token.split('.').take(2).filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok());
    parts.all(|text| json::is_shallow(&text))
}

/// A text, or several texts.
fn texts(value: Value) -> Option<Vec<String>> {
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    let text = |value| if let Value::String(text) = value { Some(text) } else { None };
    let texts: Vec<String> = values.into_iter().filter_map(text).collect();
    if texts.is_empty() { None } else { Some(texts) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(claims: &Value, error: VerificationError) -> Option<Vec<String>> {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        claim(&token, error)
    }

    #[test]
    fn claim_that_is_wrong_is_given() {
        let claims = json!({"iss": "https://other", "aud": ["a", 1, "b"]});
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&claims, VerificationError::Issuer), texts(&["https://other"]));
        assert_eq!(of(&claims, VerificationError::Audience), texts(&["a", "b"]));
        assert_eq!(of(&json!({"aud": "a, b"}), VerificationError::Audience), texts(&["a, b"]));
        assert_eq!(of(&claims, VerificationError::Signature), None);
        assert_eq!(of(&json!({"aud": []}), VerificationError::Audience), None);
        assert_eq!(of(&json!({"iss": {}}), VerificationError::Issuer), None);
        assert_eq!(claim("opaque", VerificationError::Issuer), None);
    }
}
