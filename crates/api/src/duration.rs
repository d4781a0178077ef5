//! Durations of an object, checked before a parser reads them.
//!
//! The parser of the Kubernetes client panics where a number is too large or negative. The schema refuses such texts;
//! an object that is older than the schema can have them. What the client itself writes for a duration that the schema
//! takes can be read again: there `0.5ms` is `500µs`.

use kube::core::Duration;
use serde::{Deserialize, Deserializer, de::Error};

use super::limits::DURATION_MAX;

/// Terms of a duration, such as the two of `1h30m`.
const TERMS_MAX: usize = 4;
/// Digits before the point of a number, in any unit: four times as many hours are still fewer seconds than 2^64.
const DIGITS_MAX: usize = 15;
/// Units, the longer before those that they begin with.
const UNITS: [&str; 7] = ["ms", "ns", "us", "µs", "s", "m", "h"];

/// Reads a duration such as `90s`, `1h30m` or `1.5h`.
///
/// # Errors
/// A sentence that says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration such as 90s, 5m or 1h30m".to_owned();
    if text.len() > DURATION_MAX || !is_duration(text) {
        return Err(expected());
    }
    text.parse().map_err(|_| expected())
}

/// One to four times a number without a sign and a unit.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    for _ in 0..TERMS_MAX {
        let Some(behind) = after_term(rest) else { return false };
        if behind.is_empty() {
            return true;
        }
        rest = behind;
    }
    false
}

fn after_term(text: &str) -> Option<&str> {
    let mut rest = after_digits(text)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = after_digits(fraction)?;
    }
    UNITS.into_iter().find_map(|unit| rest.strip_prefix(unit))
}

fn after_digits(text: &str) -> Option<&str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (1..=DIGITS_MAX).contains(&digits).then(|| &text[digits..])
}

/// For `#[serde(deserialize_with)]`.
///
/// # Errors
/// As [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for a field that may be absent.
///
/// # Errors
/// As [`parse`].
pub fn deserialize_optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse(&text)).transpose().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::time::Duration as Span;

    use super::*;

    #[test]
    fn durations_of_the_schema_are_read() {
        for (text, span) in [
            ("0s", Span::ZERO),
            ("90s", Span::from_secs(90)),
            ("1h30m", Span::from_secs(5400)),
            ("1.5h", Span::from_secs(5400)),
            ("100ms", Span::from_millis(100)),
            ("1h1m1s1ms", Span::from_millis(3_661_001)),
            ("500µs", Span::from_micros(500)),
        ] {
            assert_eq!(parse(text).map(Span::from), Ok(span), "{text}");
        }
    }

    #[test]
    fn longest_durations_of_the_schema_come_back_as_the_client_writes_them() {
        for text in ["999999999h".repeat(3), "999999999.999999999h".to_owned(), "0.0001ms".to_owned()] {
            let read = parse(&text).expect("a duration");
            assert_eq!(parse(&read.to_string()), Ok(read), "{text}: {read}");
        }
        assert!(parse("999999999999999h999999999999999h").is_ok());
    }

    #[test]
    fn everything_else_is_refused_and_nothing_panics() {
        for text in [
            "",
            "s",
            "1",
            "0",
            "soon",
            "-1s",
            "+1s",
            "1s-5s",
            "1d",
            "1 s",
            "1.s",
            ".5s",
            "1e9s",
            "infs",
            "NaNs",
            "٣s",
            "1s1s1s1s1s",
            "9999999999999999s",
            "1.9999999999999999s",
            "9999999999999999999999999999999h",
        ] {
            assert!(parse(text).is_err_and(|why| why.contains("such as 90s")), "{text}");
        }
        assert!(parse(&"9".repeat(100_000)).is_err());
    }
}
