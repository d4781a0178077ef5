//! A token's header and claims as people read them. The signature is never shown, so that what is shown opens no door.

use chrono::{DateTime, Utc};
use itwin_api::time;
use itwin_oauth::jwt::Parts;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    output::Structured,
    span::relative,
    table::{Cell, Table},
};

/// Claims that are times (RFC 7519 section 4.1, OpenID Connect Core section 2).
const TIMES: [&str; 4] = ["exp", "nbf", "iat", "auth_time"];

/// What `token` shows: everything but the signature.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims<'a> {
    /// The Secret with the token, `namespace/name`.
    secret: &'a str,
    expires_at: Option<DateTime<Utc>>,
    expired: bool,
    /// Always false: the signature is not checked here.
    verified: bool,
    /// `None` for a token that is no JWT, as are the claims.
    header: Option<&'a Map<String, Value>>,
    claims: Option<&'a Map<String, Value>>,
}

impl<'a> Claims<'a> {
    /// The claims of a token, which are `None` where it is no JWT.
    #[must_use]
    pub fn new(secret: &'a str, expires_at: Option<DateTime<Utc>>, expired: bool, parts: Option<&'a Parts>) -> Self {
        let (header, claims) = (parts.map(|parts| &parts.header), parts.map(|parts| &parts.claims));
        Self { secret, expires_at, expired, verified: false, header, claims }
    }
}

impl Structured for Claims<'_> {
    const KIND: &'static str = "Token";
}

/// The claims as a table: those of the header first.
#[must_use]
pub fn table(parts: &Parts, now: DateTime<Utc>) -> Table {
    let header = parts.header.iter().map(|(name, value)| (format!("header {name}"), shown(name, value, now)));
    let claims = parts.claims.iter().map(|(name, value)| (name.clone(), shown(name, value, now)));
    let rows = header.chain(claims).map(|(name, value)| vec![Cell::new(name), Cell::new(value)]).collect();
    Table { heads: vec!["CLAIM", "VALUE"], rows }
}

fn shown(name: &str, value: &Value, now: DateTime<Utc>) -> String {
    let at = value.as_i64().filter(|_| TIMES.contains(&name)).and_then(|at| DateTime::from_timestamp(at, 0));
    match (value, at) {
        (_, Some(at)) => format!("{} ({})", time::to_rfc3339(at), relative(at, now)),
        (Value::String(text), _) => text.clone(),
        (Value::Array(items), _) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        (value, _) => value.to_string(),
    }
}

/// When a token expires, by its claims.
#[must_use]
pub fn expiry(parts: &Parts) -> Option<DateTime<Utc>> {
    parts.claims.get("exp")?.as_i64().and_then(|at| DateTime::from_timestamp(at, 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::tests::now;

    #[test]
    fn claims_are_a_table_and_times_are_readable() {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let parts = Parts {
            header: object(json!({"alg": "RS256"})),
            claims: object(json!({
                "exp": now().timestamp() + 3600, "iat": "x", "scope": ["a", "b"], "evil": "\u{1b}[2J", "n": {"a": 1},
            })),
        };
        let expected = format!(
            "CLAIM        VALUE\nheader alg   RS256\nevil         ?[2J\nexp          {} (in 60m)\niat          x\n\
             n            {{\"a\":1}}\nscope        a b\n",
            time::to_rfc3339(now() + chrono::TimeDelta::hours(1))
        );
        let text = table(&parts, now()).render(Some(100), false);
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&text), sorted(&expected));
        assert_eq!(expiry(&parts), Some(now() + chrono::TimeDelta::hours(1)));
    }
}
