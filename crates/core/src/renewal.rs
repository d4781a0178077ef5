//! A renewal that a user asks for through the annotation: whether it is still open, and when it may be made.

use chrono::{DateTime, Utc};

use crate::{backoff, fingerprint, observed::RenewalRequest};

/// What is known of the renew annotation and of what was done for it.
#[derive(Clone, Copy, Debug)]
pub struct RenewalClues<'a> {
    /// The value of the annotation.
    pub annotation: Option<&'a str>,
    /// The value that an attempt was made for last.
    pub attempted: Option<&'a str>,
    /// A value for which no token was issued yet.
    pub unfulfilled: Option<&'a str>,
    /// Digest of the value with which the token in the Secret was requested.
    pub renewed_for: Option<&'a str>,
    /// When a token was requested last because a user asked for it.
    pub requested_at: Option<DateTime<Utc>>,
}

/// The renewal that is still open, if there is one.
#[must_use]
pub fn renewal_request(clues: &RenewalClues<'_>, now: DateTime<Utc>) -> Option<RenewalRequest> {
    // the Secret has it before the status, or a process whose write was not answered, does
    let is_open = |value: &str| clues.renewed_for != Some(&*fingerprint::renewal(value));
    let fresh = clues.annotation.is_some_and(|value| clues.attempted != Some(value) && is_open(value));
    let unfulfilled = clues.unfulfilled.is_some_and(is_open);
    // a time to come was read from a clock that was ahead
    let requested_at = clues.requested_at.filter(|at| *at <= now);
    let not_before = requested_at.map(|at| at + backoff::ON_REQUEST_FLOOR).filter(|until| *until > now);
    (fresh || unfulfilled).then_some(RenewalRequest { fresh, not_before })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    #[test]
    fn value_is_open_until_a_token_was_issued_for_it() {
        let none = RenewalClues {
            annotation: None,
            attempted: None,
            unfulfilled: None,
            renewed_for: None,
            requested_at: None,
        };
        let asked = RenewalClues { annotation: Some("now"), ..none };
        let digest = fingerprint::renewal("now");
        let open = |fresh| Some(RenewalRequest { fresh, not_before: None });
        let table = [
            (none, None),
            (asked, open(true)),
            (RenewalClues { attempted: Some("before"), ..asked }, open(true)),
            (RenewalClues { attempted: Some("now"), ..asked }, None),
            (RenewalClues { attempted: Some("now"), unfulfilled: Some("now"), ..asked }, open(false)),
            (RenewalClues { renewed_for: Some(&digest), ..asked }, None),
            (RenewalClues { renewed_for: Some(&digest), unfulfilled: Some("now"), ..none }, None),
        ];
        for (number, (clues, expected)) in table.into_iter().enumerate() {
            assert_eq!(renewal_request(&clues, at(0)), expected, "row {number}");
        }
    }

    #[test]
    fn next_renewal_on_request_waits_unless_the_clock_was_set_back() {
        let not_before = |requested_at, now| {
            let clues = RenewalClues {
                annotation: Some("now"),
                attempted: None,
                unfulfilled: None,
                renewed_for: None,
                requested_at: Some(requested_at),
            };
            renewal_request(&clues, now).expect("it is open").not_before
        };
        assert_eq!(not_before(at(0), at(9)), Some(at(10)));
        assert_eq!(not_before(at(0), at(10)), None);
        assert_eq!(not_before(at(1), at(0)), None);
    }
}
