//! Text of an authorization server that messages repeat: an issuer or an audience, which are no secrets.
//!
//! A server may still answer anything, such as a client secret that it was sent. The text is therefore bounded and
//! printable, and long words in it that may be secrets are left out.

use std::{collections::HashSet, fmt};

/// The longest text, in characters.
const LENGTH_MAX: usize = 200;
/// A longer word with a digit may be a secret, unless it is a UUID.
const WORD_MAX: usize = 23;
/// A shorter part of a secret says nothing about it.
const PART: usize = 8;
/// A shorter secret occurs in many texts by chance.
const SECRET_MIN: usize = 4;
/// What stands in the place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// A text of an authorization server, fit for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// Shows a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut shown = String::new();
        let printable = |c: char| if c.is_ascii_graphic() && c != '"' || c == ' ' { c } else { '?' };
        let bounded: String = text.chars().take(LENGTH_MAX).map(printable).collect();
        let mut rest = bounded.as_str();
        while !rest.is_empty() {
            let word = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(word);
            shown.push_str(if may_be_secret(word) { REDACTED } else { word });
            let between = after.find(is_inside).unwrap_or(after.len());
            shown.push_str(&after[..between]);
            rest = &after[between..];
        }
        if text.chars().nth(LENGTH_MAX).is_some() {
            shown.push('…');
        }
        Self(shown)
    }

    /// Shows a text, unless it repeats a part of one of these secrets.
    #[must_use]
    pub fn without<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets = secrets.into_iter();
        if secrets.any(|secret| repeats(text, secret)) { Self(REDACTED.to_owned()) } else { Self::new(text) }
    }

    /// Whether one of these texts would not be shown in full: it repeats a part of one of these secrets, alone or
    /// together with the others, or has a long word that may be one.
    #[must_use]
    pub fn hides<'a>(texts: &[&str], secrets: impl IntoIterator<Item = &'a str>) -> bool {
        let (listed, joined) = (texts.join(" "), texts.concat());
        listed.split(|c: char| !is_inside(c)).any(may_be_secret)
            || secrets.into_iter().any(|secret| repeats(&listed, secret) || repeats(&joined, secret))
    }
}

impl Shown {
    /// Whether it is an https URL, or may be one, since it is not shown.
    #[must_use]
    pub fn may_be_https(&self) -> bool {
        self.0 == REDACTED || self.0.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

/// Whether a text repeats a part of a secret. Both may have tens of kilobytes, so that each is read once.
fn repeats(text: &str, secret: &str) -> bool {
    let part = PART.min(secret.len());
    if part < SECRET_MIN {
        return false;
    }
    let parts: HashSet<&[u8]> = secret.as_bytes().windows(part).collect();
    text.as_bytes().windows(part).any(|shown| parts.contains(shown))
}

fn is_inside(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_~+=".contains(c)
}

fn may_be_secret(word: &str) -> bool {
    word.len() > WORD_MAX && word.bytes().any(|byte| byte.is_ascii_digit()) && !is_uuid(word)
}

fn is_uuid(word: &str) -> bool {
    word.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && word.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_printable_and_holds_no_long_word_that_may_be_a_secret() {
        let tenant = "https://login.example.com/0f8fad5b-d9cb-469f-a165-70867728950e/v2.0";
        for (text, expected) in [
            ("https://ims.example.com:8443/a", "\"https://ims.example.com:8443/a\""),
            (tenant, &format!("\"{tenant}\"")),
            ("https://a/s3cr3tS3CR3Ts3cr3tS3CR3T?b", "\"https://a/[redacted]?b\""),
            ("a\u{1b}[31m\n\"\u{202e}", "\"a?[31m???\""),
            ("", "\"\""),
        ] {
            assert_eq!(Shown::new(text).to_string(), expected);
        }
        assert_eq!(Shown::new(&"é".repeat(100_000)).to_string(), format!("\"{}…\"", "?".repeat(200)));
    }

    #[test]
    fn https_url_is_known_by_its_scheme() {
        for (text, expected) in [("HTTPS://a", true), ("http://a", false), ("urn:a", false), ("", false)] {
            assert_eq!(Shown::new(text).may_be_https(), expected, "{text}");
        }
        assert!(Shown::without("http://secret", ["secret"]).may_be_https(), "it is not shown");
    }

    #[test]
    fn text_that_repeats_a_secret_is_not_shown() {
        let secrets = ["correct horse", "pin", "word"];
        for text in ["https://a/correct horse", "rect hor", "a word"] {
            assert_eq!(Shown::without(text, secrets).to_string(), "\"[redacted]\"", "{text}");
        }
        assert_eq!(Shown::without("a pin", secrets).to_string(), "\"a pin\"");
        assert_eq!(Shown::without("correct", secrets).to_string(), "\"correct\"");
    }

    #[test]
    fn texts_that_repeat_a_secret_alone_or_together_are_hidden() {
        let secrets = ["correct horse battery", "pin", "word"];
        for texts in [
            &["read", "horse battery"][..],
            &["correct", "horse"],
            &[" hor", "se bat"],
            &["a-word"],
            &["s3cr3tS3CR3Ts3cr3tS3CR3T"],
        ] {
            assert!(Shown::hides(texts, secrets), "{texts:?}");
        }
        for texts in [&["pin"][..], &["horse", "read"], &["itwin-platform2", "imodels:read", "0f8fad5b"], &[]] {
            assert!(!Shown::hides(texts, secrets), "{texts:?}");
        }
    }

    #[test]
    fn long_texts_are_compared_with_long_secrets_in_one_pass() {
        let (text, secret) = ("a".repeat(64 << 10), "b".repeat(64 << 10));
        assert!(!Shown::hides(&[&text], [secret.as_str()]));
        assert!(Shown::hides(&[&text, "bbbbbbbb"], [secret.as_str()]));
    }
}
