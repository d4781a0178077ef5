//! Durations of an object, validated before the parser of the Kubernetes client reads them.
//!
//! That parser panics if a number is too large or negative. The schema rejects such values, but an object that is older
//! than the schema can contain them. What the client itself writes for a duration that the schema accepts can be read
//! again: it writes `0.5ms` as `500µs`.

use kube::core::Duration;
use serde::{Deserialize, Deserializer, de::Error};

use super::limits::DURATION_MAX;

/// Terms of a duration, such as the two of `1h30m`.
const TERMS_MAX: usize = 4;
/// Digits before or after the decimal point, in any unit: four terms of 10^15 hours are still fewer than 2^64 seconds.
const DIGITS_MAX: usize = 15;
/// Units; `ms` comes before `m`, its prefix.
const UNITS: [&str; 7] = ["ms", "ns", "us", "µs", "s", "m", "h"];

/// Reads a duration such as `90s`, `1h30m` or `1.5h`.
///
/// # Errors
/// A message that says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration such as 90s, 5m or 1h30m".to_owned();
    if text.len() > DURATION_MAX || !is_duration(text) {
        return Err(expected());
    }
    text.parse().map_err(|_| expected())
}

/// Whether this is one to four terms, each an unsigned number and a unit.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    for _ in 0..TERMS_MAX {
        let Some(remaining) = after_term(rest) else { return false };
        if remaining.is_empty() {
            return true;
        }
        rest = remaining;
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
    fn durations_that_the_schema_accepts_are_parsed() {
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
    fn longest_durations_survive_a_round_trip_through_the_client() {
        for text in ["999999999h".repeat(3), "999999999.999999999h".to_owned(), "0.0001ms".to_owned()] {
            let read = parse(&text).expect("a duration");
            assert_eq!(parse(&read.to_string()), Ok(read), "{text}: {read}");
        }
        assert!(parse("999999999999999h999999999999999h").is_ok());
    }

    #[test]
    fn everything_else_is_rejected_without_a_panic() {
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
