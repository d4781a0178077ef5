//! What the API server says about a request that it refused, fit for conditions, events and logs.
//!
//! Such a text can come from an admission webhook or a policy, which see the whole object and may repeat a part of it.

use std::fmt;

use itwin_api::secret_keys;

use crate::desired_secret::Data;

/// The longest quotation, in characters.
const SHOWN: usize = 300;
/// No more of a text is kept, in bytes: its beginning says what is wrong.
const KEPT: usize = 4 << 10;
/// A longer word is no name: that of an object has at most 253 characters, and nearly always far fewer.
const LONGEST_WORD: usize = 100;
/// A shorter part of a value says nothing about it.
const SHORTEST_PART: usize = 8;
/// A part of this length in a longer word, such as `token=...`, says something about a value.
const ENCLOSED_PART: usize = 12;
/// A shorter word is no token: it could be guessed (RFC 6749, section 10.10).
const SHORTEST_VALUE: usize = 16;
/// Values that annotations and the status show too.
const PUBLIC: [&str; 4] = [secret_keys::TOKEN_TYPE, secret_keys::EXPIRES_AT, secret_keys::SCOPE, secret_keys::ISSUER];
const REDACTED: &str = "[redacted]";

/// A text of the API server. It is shown without control characters, without long words, and cut to 300 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quote(String);

impl Quote {
    /// Quotes a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(KEPT)];
        let cleaned: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self(redact(&cleaned, |word| word.len() > LONGEST_WORD))
    }

    /// The text without anything that is a part of these values, or of their base64.
    #[must_use]
    pub fn without(&self, data: &Data) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for (_, value) in data.iter().filter(|(key, _)| !PUBLIC.contains(&key.as_str())) {
            secrets.extend(String::from_utf8(value.0.clone()));
            secrets.extend(serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)));
        }
        secrets.retain(|secret| secret.len() >= SHORTEST_PART);
        Self(redact(&self.0, |word| {
            word.len() >= SHORTEST_PART && secrets.iter().any(|secret| says_part_of(word, secret))
        }))
    }

    /// The text without words that may be values: long ones with a digit. For what an admission webhook or policy says of
    /// an object whose values are not known here.
    #[must_use]
    pub fn without_values(&self) -> Self {
        Self(redact(&self.0, |word| word.len() >= SHORTEST_VALUE && word.bytes().any(|byte| byte.is_ascii_digit())))
    }

    /// Whether it says that RBAC denies the request.
    #[must_use]
    pub fn is_missing_permission(&self) -> bool {
        self.contains(" cannot ") && self.contains(" resource ")
    }

    /// Whether the text contains this.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.0.contains(text)
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(&self.0),
        }
    }
}

/// Whether a word is a part of a secret, holds it, or holds a part of it.
fn says_part_of(word: &str, secret: &str) -> bool {
    let holds_part = || {
        let mut parts = word.as_bytes().windows(ENCLOSED_PART).filter_map(|part| std::str::from_utf8(part).ok());
        parts.any(|part| secret.contains(part))
    };
    secret.contains(word) || word.contains(secret) || holds_part()
}

/// The text with some of its words replaced.
fn redact(text: &str, is_secret: impl Fn(&str) -> bool) -> String {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=".contains(c);
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_inside) {
        let length = rest[start..].find(|c| !is_inside(c)).unwrap_or(rest.len() - start);
        let word = &rest[start..start + length];
        redacted.push_str(&rest[..start]);
        redacted.push_str(if is_secret(word.trim_matches(['.', '-'])) { REDACTED } else { word });
        rest = &rest[start + length..];
    }
    redacted.push_str(rest);
    redacted
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn text_is_cut_and_holds_no_control_characters_and_no_long_words() {
        let quote = Quote::new(&"a\u{1b}[31m\n".repeat(1000)).to_string();
        assert_eq!(quote.chars().count(), SHOWN + 1);
        assert!(!quote.contains('\u{1b}') && !quote.contains('\n'));
        assert_eq!(Quote::new(&format!("token {} refused", "x".repeat(101))).to_string(), "token [redacted] refused");
        assert!(Quote::new(&"é".repeat(KEPT)).to_string().chars().count() <= SHOWN + 1);
    }

    #[test]
    fn words_that_may_be_values_are_not_quoted_where_the_values_are_not_known() {
        let unknown = Quote::new("denied: 0f8fad5bd9cb469fa16570867728950e of agent-1").without_values();
        assert_eq!(unknown.to_string(), "denied: [redacted] of agent-1");
    }

    #[test]
    fn values_and_parts_of_them_are_not_quoted_plain_or_in_base64() {
        let data = Data::from([
            ("access_token".to_owned(), ByteString(b"eyJhbGciOiJ.payload-of-it.signature".to_vec())),
            ("authorization".to_owned(), ByteString(b"Bearer eyJhbGciOiJ.payload-of-it.signature".to_vec())),
        ]);
        let quoted = |text: &str| Quote::new(text).without(&data).to_string();
        assert_eq!(quoted("denied: eyJhbGciOiJ.payload-of-it.signature."), "denied: [redacted]");
        assert_eq!(quoted("denied: \"payload-of-it\" is bad"), "denied: \"[redacted]\" is bad");
        assert_eq!(quoted("token=payload-of-it.signa, as it is"), "[redacted], as it is");
        assert_eq!(quoted("got ZXlKaGJHY2lPaUoucGF5bG9hZC1vZi1pdC5zaWduYXR1cmU="), "got [redacted]");
        assert_eq!(
            quoted("secrets \"agent\" is forbidden: exceeded quota"),
            "secrets \"agent\" is forbidden: exceeded quota"
        );
    }
}
