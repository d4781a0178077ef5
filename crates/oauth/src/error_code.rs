//! The error that a token endpoint names in its answer (RFC 6749 section 5.2).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::Value;

use crate::{json, limits::ERROR_CODE_MAX};

/// An OAuth error code. Its other texts, such as `error_description`, are never read: the party that answers
/// writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A policy of the server denies this request (RFC 6749 section 4.1.2.1; token endpoints use it too).
    AccessDenied,
    /// Client authentication failed (RFC 6749 section 5.2).
    InvalidClient,
    /// The user name or password is wrong, among others (RFC 6749 section 5.2).
    InvalidGrant,
    /// A parameter is missing, repeated or malformed (RFC 6749 section 5.2).
    InvalidRequest,
    /// A scope is unknown, or not for this client (RFC 6749 section 5.2).
    InvalidScope,
    /// A resource indicator is unknown, or not for this client (RFC 8707 section 2).
    InvalidTarget,
    /// The server failed (RFC 6749 section 4.1.2.1; token endpoints use it too).
    ServerError,
    /// The server is overloaded or down for maintenance (RFC 6749 section 4.1.2.1).
    TemporarilyUnavailable,
    /// This client may not use this grant type (RFC 6749 section 5.2).
    UnauthorizedClient,
    /// The server does not offer this grant type (RFC 6749 section 5.2).
    UnsupportedGrantType,
    /// A code of the server's own; its text is not kept.
    Other,
}

impl ErrorCode {
    /// The code as it is written on the wire; that of [`Self::Other`] is not known.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::Other => "other",
        }
    }

    fn from_text(text: &str) -> Self {
        match text {
            "access_denied" => Self::AccessDenied,
            "invalid_client" => Self::InvalidClient,
            "invalid_grant" => Self::InvalidGrant,
            "invalid_request" => Self::InvalidRequest,
            "invalid_scope" => Self::InvalidScope,
            "invalid_target" => Self::InvalidTarget,
            "server_error" => Self::ServerError,
            "temporarily_unavailable" => Self::TemporarilyUnavailable,
            "unauthorized_client" => Self::UnauthorizedClient,
            "unsupported_grant_type" => Self::UnsupportedGrantType,
            _ => Self::Other,
        }
    }

    /// The error that the answer of a failed server names; `None` where it names none, or one that is empty or too
    /// long to be a code.
    #[must_use]
    pub fn named_in(body: &[u8]) -> Option<Self> {
        let answer: ErrorAnswer = json::read(body)?;
        answer.text().filter(|code| !code.is_empty() && code.len() <= ERROR_CODE_MAX).map(Self::from_text)
    }

    /// The same, for an answer with this status, where it says more than the status. Frameworks and gateways write the
    /// name of the status, a sentence or a code of their own as `error`, above all where there is no token endpoint.
    #[must_use]
    pub fn with_status(status: u16, body: &[u8]) -> Option<Self> {
        let answer: ErrorAnswer = json::read(body)?;
        let text = answer.text().filter(|code| !code.is_empty() && code.len() <= ERROR_CODE_MAX)?;
        let code = Self::from_text(text);
        let says_more = || !explains_itself(status) && is_like_a_code(text) && !is_name_of(status, text);
        (code != Self::Other || says_more()).then_some(code)
    }

    /// The same, for an answer with a status of success: only where it holds no token.
    #[must_use]
    pub fn instead_of_a_token(body: &[u8]) -> Option<Self> {
        let answer: ErrorAnswer = json::read(body)?;
        if answer.access_token.is_some() { None } else { Self::named_in(body) }
    }
}

/// Whether this status says what to check, so that an unknown error adds nothing: no token endpoint (404, 405, 410), no
/// known client (401), a limit (429), and a server that failed.
fn explains_itself(status: u16) -> bool {
    matches!(status, 401 | 404 | 405 | 410 | 429 | 500..)
}

/// Whether this is written as codes are, `consent_required` or `E0000009`, not as a sentence or the name of a status,
/// such as `Not Found` or `Forbidden`.
fn is_like_a_code(text: &str) -> bool {
    let is_joined = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.');
    let is_of_code = text.bytes().all(|byte| byte.is_ascii_alphabetic() || is_joined(byte));
    is_of_code && (text.bytes().any(is_joined) || text.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// Whether this is the name of the status, written as codes are: `bad_request`, `forbidden` or `unprocessable-entity`.
fn is_name_of(status: u16, text: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = u8> {
        let bytes = text.bytes().filter(|byte| !matches!(byte, b'_' | b'-' | b' '));
        bytes.map(|byte| byte.to_ascii_lowercase())
    }
    let status = http::StatusCode::from_u16(status).ok();
    let name = status.as_ref().and_then(http::StatusCode::canonical_reason);
    name.is_some_and(|name| letters(name).eq(letters(text)))
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    /// Reads the code out of an error response.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let answer = ErrorAnswer::deserialize(deserializer)?;
        answer.text().map(Self::from_text).ok_or_else(|| serde::de::Error::missing_field("error"))
    }
}

impl oauth2::ErrorResponse for ErrorCode {}

/// What is read of an error response: `error` (RFC 6749 section 5.2), or `errorCode` or `ErrorCode` as some servers
/// write, such as Apigee.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: Option<Value>,
    #[serde(rename = "errorCode")]
    error_code: Option<Value>,
    #[serde(rename = "ErrorCode")]
    capitalized: Option<Value>,
    access_token: Option<IgnoredAny>,
}

impl ErrorAnswer {
    fn text(&self) -> Option<&str> {
        [&self.error, &self.error_code, &self.capitalized].into_iter().flatten().next().and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn error_is_read_under_each_of_its_names_and_bounded() {
        let code = |body: &str| ErrorCode::named_in(body.as_bytes());
        let both = r#"{"error": "invalid_client", "errorCode": "invalid_scope"}"#;
        assert_eq!(code(both), Some(ErrorCode::InvalidClient));
        assert_eq!(code(r#"{"errorCode": "invalid_client"}"#), Some(ErrorCode::InvalidClient));
        let capitalized = r#"{"ErrorCode": "invalid_client", "Error": "ClientId is Invalid"}"#;
        assert_eq!(code(capitalized), Some(ErrorCode::InvalidClient));
        let all = r#"{"ErrorCode": "invalid_client", "errorCode": "invalid_scope"}"#;
        assert_eq!(code(all), Some(ErrorCode::InvalidScope));
        assert_eq!(code(r#"{"error": "quota"}"#), Some(ErrorCode::Other));
        let long = |name: &str| format!(r#"{{"{name}": "{}"}}"#, "x".repeat(ERROR_CODE_MAX + 1));
        let (long, capitalized) = (long("error"), long("ErrorCode"));
        let others = ["", "<html>", "[]", r#"{"error": 7}"#, r#"{"error": ""}"#, r#"{"error": null}"#];
        for other in others.into_iter().chain([&*long, &*capitalized]) {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn unknown_error_says_more_than_the_status_only_where_it_is_like_a_code_and_the_status_is_general() {
        let code = |status, error: &str| ErrorCode::with_status(status, json!({"error": error}).to_string().as_bytes());
        for status in [400, 401, 403, 404, 405, 410, 429, 500, 503] {
            assert_eq!(code(status, "invalid_client"), Some(ErrorCode::InvalidClient), "{status}");
            for error in ["Not Found", "Unauthorized", "RESTEASY003210: Could not find resource", "", "Internal-Error!"]
            {
                assert_eq!(code(status, error), None, "{status} {error}");
            }
        }
        for error in ["consent_required", "quota", "E0000009", "AADSTS7000215", "oauth.v2.InvalidClient"] {
            assert_eq!(code(400, error), Some(ErrorCode::Other), "{error}");
            assert_eq!(code(403, error), Some(ErrorCode::Other), "{error}");
            for status in [401, 404, 405, 410, 429, 500, 503] {
                assert_eq!(code(status, error), None, "{status} {error}");
            }
        }
    }

    #[test]
    fn name_of_the_status_says_no_more_than_the_status_however_it_is_written() {
        let code = |status, error: &str| ErrorCode::with_status(status, json!({"error": error}).to_string().as_bytes());
        for (status, name) in [
            (400, "bad_request"),
            (400, "badrequest"),
            (400, "BAD_REQUEST"),
            (402, "payment-required"),
            (403, "forbidden"),
            (409, "conflict"),
            (422, "unprocessable_entity"),
        ] {
            assert_eq!(code(status, name), None, "{status} {name}");
            assert_eq!(code(418, name), Some(ErrorCode::Other), "it names another status: {name}");
        }
        for (status, error) in [(400, "bad_request_id"), (403, "quota_exceeded"), (499, "client_closed_request")] {
            assert_eq!(code(status, error), Some(ErrorCode::Other), "{status} {error}");
        }
    }

    #[test]
    fn every_code_is_read_as_it_is_written() {
        for code in [
            ErrorCode::AccessDenied,
            ErrorCode::InvalidClient,
            ErrorCode::InvalidGrant,
            ErrorCode::InvalidRequest,
            ErrorCode::InvalidScope,
            ErrorCode::InvalidTarget,
            ErrorCode::ServerError,
            ErrorCode::TemporarilyUnavailable,
            ErrorCode::UnauthorizedClient,
            ErrorCode::UnsupportedGrantType,
        ] {
            let body = json!({"error": code, "error_description": 7}).to_string();
            assert_eq!(serde_json::from_str(&body).ok(), Some(code));
            assert!(body.contains(code.as_str()), "{body}");
        }
    }

    #[test]
    fn answer_with_a_token_is_no_error() {
        let with_token = br#"{"error": "invalid_client", "access_token": "t"}"#;
        assert_eq!(ErrorCode::instead_of_a_token(with_token), None);
        assert_eq!(ErrorCode::instead_of_a_token(br#"{"error": "invalid_client"}"#), Some(ErrorCode::InvalidClient));
    }
}
