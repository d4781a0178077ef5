//! Text of an authorization server that messages repeat: an issuer or an audience, which are no secrets.
//!
//! A server may still answer anything, such as a client secret that it was sent. The text is therefore bounded and
//! printable, and long words in it that may be secrets are left out.

use std::{collections::HashSet, fmt, ops::Range};

/// The longest text, in characters.
const LENGTH_MAX: usize = 200;
/// A longer word with a digit may be a secret, unless it is a UUID.
const WORD_MAX: usize = 23;
/// A shorter part of a secret says nothing about it.
const PART: usize = 8;
/// A shorter secret occurs in many texts by chance.
const SECRET_MIN: usize = 4;
/// What stands in the place of a text that may be a secret.
pub const REDACTED: &str = "[redacted]";

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

    /// Shows several texts, separated by commas, except those that repeat a part of one of these secrets.
    #[must_use]
    pub fn listed<'a>(texts: &[&str], secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut shown = texts.to_vec();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or_default();
        for parts in secrets.into_iter().filter_map(|secret| Parts::new(secret, longest)) {
            for text in shown.iter_mut().filter(|text| parts.found_in(text).next().is_some()) {
                *text = REDACTED;
            }
        }
        Self::new(&shown.join(", "))
    }

    /// Which of these texts may not be shown: each that repeats a part of one of these secrets or has a long word that
    /// may be one, and all of them if several together repeat a part of a secret.
    #[must_use]
    pub fn hides<'a>(texts: &[&str], secrets: impl IntoIterator<Item = &'a str>) -> Vec<bool> {
        let has_long_word = |text: &&str| text.split(|c: char| !is_inside(c)).any(may_be_secret);
        let mut hidden: Vec<bool> = texts.iter().map(has_long_word).collect();
        let joined = ["", " "].map(|between| (texts.join(between), ranges(texts, between)));
        let longest = joined.iter().map(|(text, _)| text.len()).max().unwrap_or_default();
        for parts in secrets.into_iter().filter_map(|secret| Parts::new(secret, longest)) {
            for (text, ranges) in &joined {
                for at in parts.found_in(text) {
                    // what is between two texts is of neither
                    let first = ranges.partition_point(|range| range.end <= at);
                    let last = ranges.partition_point(|range| range.start < at + parts.length) - 1;
                    if first != last {
                        return vec![true; texts.len()];
                    }
                    hidden[first] = true;
                }
            }
        }
        hidden
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

/// The parts of a secret. It may have tens of kilobytes, as the texts that are compared with it, so that each is read
/// once.
struct Parts<'a> {
    length: usize,
    parts: HashSet<&'a [u8]>,
}

impl<'a> Parts<'a> {
    /// `None` where no text can repeat one, of which the longest has `longest` bytes: then nothing is read.
    fn new(secret: &'a str, longest: usize) -> Option<Self> {
        let length = PART.min(secret.len());
        if length < SECRET_MIN || longest < length {
            return None;
        }
        Some(Self { length, parts: secret.as_bytes().windows(length).collect() })
    }

    /// Where a text repeats one.
    fn found_in(&self, text: &str) -> impl Iterator<Item = usize> {
        let windows = text.as_bytes().windows(self.length).enumerate();
        windows.filter(move |(_, part)| self.parts.contains(*part)).map(|(at, _)| at)
    }
}

/// Where each of the joined texts is.
fn ranges(texts: &[&str], between: &str) -> Vec<Range<usize>> {
    let mut next = 0;
    let range = |text: &&str| {
        let range = next..next + text.len();
        next = range.end + between.len();
        range
    };
    texts.iter().map(range).collect()
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
        assert!(Shown::listed(&["http://secret"], ["secret"]).may_be_https(), "it is not shown");
    }

    #[test]
    fn text_that_repeats_a_secret_is_not_shown() {
        let secrets = ["correct horse", "pin", "word"];
        for text in ["https://a/correct horse", "rect hor", "a word"] {
            assert_eq!(Shown::listed(&[text], secrets).to_string(), "\"[redacted]\"", "{text}");
        }
        assert_eq!(Shown::listed(&["a pin"], secrets).to_string(), "\"a pin\"");
        assert_eq!(Shown::listed(&["correct"], secrets).to_string(), "\"correct\"");
    }

    #[test]
    fn each_text_of_a_list_is_compared_alone() {
        let secrets = ["correct horse", "pin"];
        let listed = |texts: &[&str]| Shown::listed(texts, secrets).to_string();
        assert_eq!(listed(&["a", "correct horse", "pin"]), "\"a, [redacted], pin\"");
        assert_eq!(listed(&["s3cr3tS3CR3Ts3cr3tS3CR3T", "rect hor"]), "\"[redacted], [redacted]\"");
        assert_eq!(listed(&[]), "\"\"");
    }

    #[test]
    fn texts_that_repeat_a_secret_are_hidden_and_all_of_them_if_they_do_so_together() {
        let secrets = ["correct horse battery", "pin", "word"];
        for (texts, hidden) in [
            (&["read", "horse battery", "write"][..], &[false, true, false][..]),
            (&["read", "correct", "horse"], &[true, true, true]),
            (&[" hor", "se bat", "read"], &[true, true, true]),
            (&["a-word", "pin"], &[true, false]),
            (&["read", "s3cr3tS3CR3Ts3cr3tS3CR3T"], &[false, true]),
            (&["horse", "read"], &[false, false]),
            (&["itwin-platform2", "imodels:read", "0f8fad5b"], &[false, false, false]),
            (&["", ""], &[false, false]),
            (&[], &[]),
        ] {
            assert_eq!(Shown::hides(texts, secrets), hidden, "{texts:?}");
        }
    }

    #[test]
    fn nothing_is_read_of_a_secret_that_no_text_can_repeat() {
        assert!(Parts::new("correct horse", 7).is_none());
        assert!(Parts::new("correct horse", 8).is_some());
        assert!(Parts::new("word", 3).is_none());
        assert!(Parts::new("pin", 64).is_none(), "it occurs by chance");
    }

    #[test]
    fn long_texts_are_compared_with_long_secrets_in_one_pass() {
        let (text, secret) = ("a".repeat(64 << 10), "b".repeat(64 << 10));
        assert_eq!(Shown::hides(&[&text], [secret.as_str()]), [false]);
        assert_eq!(Shown::hides(&[&text, "bbbbbbbb"], [secret.as_str()]), [false, true]);
        let many = vec!["ab"; 32 << 10];
        assert_eq!(Shown::hides(&many, [secret.as_str()]), vec![false; many.len()]);
    }
}
