//! Text from the cluster, fit for a terminal.
//!
//! Names, messages and claims are written by tenants and servers. Printed as they are, they could clear the screen, set
//! colors, or show text in another order than it has.

use itwin_api::line::harmless;

/// The longest text that is printed, in characters.
const LONGEST: usize = 2000;

/// The text as one line without control characters, and without characters that change the direction of text.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).map(harmless).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// The message of a parser without the values that it quotes, which may be secret in any object: names of fields stay.
#[must_use]
pub fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let quoted = if text.starts_with("missing field") { None } else { text.find(['"', '`']) };
    let Some(start) = quoted else { return plain(&text) };
    // what is expected comes last, and is the parser's own; a value may say the same before it
    let expected = text.rfind(", expected").filter(|at| *at > start).map_or("", |at| &text[at..]);
    plain(&format!("{}…{expected}", &text[..start]))
}

/// All strings of a value without such characters, for output that other programs read. Control characters are escaped
/// in JSON, but a terminal shows the others.
#[must_use]
pub fn plain_value(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::String(text) => Value::String(plain(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(plain_value).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (plain(&key), plain_value(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_a_parser_quotes_are_left_out() {
        use itwin_api::credential::CredentialSpec;
        let said = |json: &str| {
            let error =
                serde_json::from_str::<serde_json::Value>(json).and_then(serde_json::from_value::<CredentialSpec>);
            without_values(&error.expect_err("no spec"))
        };
        for json in [
            r#"{"clientCredentialsRef": "S3CR3T"}"#,
            r#"{"clientCredentialsRef": {"name": "a"}, "suspend": "S3\"CR, expected 3T"}"#,
            r#"{"clientCredentialsRef": {"name": "a"}, "grantType": "S3CR3T"}"#,
            r#"{"clientCredentialsRef": {"name": 33333}}"#,
            r#"{"clientCredentialsRef": {"name": "a"}, "deletionPolicy": "S3`, expected 3T"}"#,
        ] {
            let said = said(json);
            assert!(!["S3", "CR", "3T", "33333"].iter().any(|part| said.contains(part)), "{said}");
            assert!(said.contains("expected"), "{said}");
        }
        assert_eq!(said("{}"), "missing field `clientCredentialsRef`");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{7}b\r\nc\u{202e}d\u{2066}\u{200f}\u{feff}\0\u{7f}\u{2028}é日";
        assert_eq!(plain(hostile), "a?[2J?31m?b  c?d??????é日");
        let value = serde_json::json!({"a\u{1b}": ["\u{202e}", 1, null]});
        assert_eq!(plain_value(value), serde_json::json!({"a?": ["?", 1, null]}));
    }

    #[test]
    fn text_is_bounded() {
        assert_eq!(plain(&"é".repeat(100_000)).chars().count(), LONGEST + 1);
    }
}
