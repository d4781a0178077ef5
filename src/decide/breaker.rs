//! When an authority that keeps failing is left in peace.
//!
//! Without it, ten thousand credentials with a back-off each still make a storm against a server that is down
//! (external-secrets/external-secrets#6728). After some failures in a row nobody asks, apart from single probes; the
//! first answer opens the way for all.

use chrono::{DateTime, TimeDelta, Utc};

use crate::api::conditions::Reason;

/// Failures in a row that open the breaker. More than one credential's bad luck, less than a storm.
const THRESHOLD: u32 = 5;
/// The first pause, and the longest one; it doubles with each probe that fails.
const PAUSE: (TimeDelta, TimeDelta) = (TimeDelta::seconds(2), TimeDelta::seconds(30));
/// A probe whose end was never told is given up after this: more than the longest deadline of a request.
const PROBE_LOST: TimeDelta = TimeDelta::seconds(90);

/// The breaker of one authority.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    until: DateTime<Utc>,
    pause: TimeDelta,
    reason: Reason,
    probe_since: Option<DateTime<Utc>>,
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Go,
    /// It may not: the authority failed with this reason again and again.
    Paused(Reason),
}

impl Breaker {
    /// Asks for permission to send a request; whoever gets it must [`Self::note`] how it ended.
    pub fn admit(&mut self, now: DateTime<Utc>) -> Admission {
        let Some(open) = &mut self.open else { return Admission::Go };
        if now < open.until || open.is_probing(now) {
            return Admission::Paused(open.reason);
        }
        open.probe_since = Some(now);
        Admission::Go
    }

    /// The instant before which no request may be sent, whoever asks; `None` where one may be sent now. While a probe is
    /// under way it is the earliest end of the pause that its failure would begin.
    #[must_use]
    pub fn paused_until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let open = self.open.as_ref()?;
        if open.is_probing(now) {
            return Some(now + open.next_pause());
        }
        Some(open.until).filter(|until| now < *until)
    }

    /// Notes how a request ended: `None` for an answer of whatever kind. Returns whether the way is open again.
    pub fn note(&mut self, failure: Option<Reason>, now: DateTime<Utc>) -> bool {
        let Some(reason) = failure.filter(|reason| is_outage(*reason)) else {
            self.failures = 0;
            return self.open.take().is_some();
        };
        self.failures = self.failures.saturating_add(1);
        let pause = match &self.open {
            // what was sent before it opened tells nothing new
            Some(open) if open.probe_since.is_none() => return false,
            Some(open) => open.next_pause(),
            None if self.failures < THRESHOLD => return false,
            None => PAUSE.0,
        };
        self.open = Some(Open { until: now + pause, pause, reason, probe_since: None });
        false
    }
}

impl Open {
    fn is_probing(&self, now: DateTime<Utc>) -> bool {
        self.probe_since.is_some_and(|since| now - since < PROBE_LOST)
    }

    fn next_pause(&self) -> TimeDelta {
        (self.pause * 2).min(PAUSE.1)
    }
}

/// Whether this failure says that the authority, or the way to it, is down for everybody.
#[must_use]
pub fn is_outage(reason: Reason) -> bool {
    matches!(reason, Reason::Timeout | Reason::ConnectionFailed | Reason::TLSFailed | Reason::ServerError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..THRESHOLD {
            assert_eq!(breaker.admit(at(0)), Admission::Go);
            breaker.note(Some(Reason::Timeout), at(0));
        }
        breaker
    }

    #[test]
    fn repeated_outages_open_it_and_refusals_do_not() {
        assert_eq!(opened().admit(at(1)), Admission::Paused(Reason::Timeout));
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.note(Some(Reason::InvalidClient), at(0));
        }
        assert_eq!(breaker.admit(at(0)), Admission::Go);
    }

    #[test]
    fn one_answer_between_failures_keeps_it_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 1..THRESHOLD {
                breaker.note(Some(Reason::ServerError), at(0));
            }
            breaker.note(None, at(0));
        }
        assert_eq!(breaker.admit(at(0)), Admission::Go);
    }

    #[test]
    fn single_probes_pass_and_pauses_grow_to_their_limit() {
        let mut breaker = opened();
        let (mut now, mut probes, mut last) = (0, Vec::new(), 0);
        while now < 600 {
            now += 1;
            if breaker.admit(at(now)) == Admission::Go {
                assert_eq!(breaker.admit(at(now)), Admission::Paused(Reason::Timeout), "one at a time");
                breaker.note(Some(Reason::Timeout), at(now));
                probes.push(now - last);
                last = now;
            }
        }
        assert_eq!(&probes[..5], [2, 4, 8, 16, 30]);
        assert!(probes[5..].iter().all(|pause| *pause == 30));
    }

    #[test]
    fn first_answer_opens_the_way_for_all() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(at(2)), Admission::Go);
        assert!(breaker.note(None, at(2)), "told, so that all can be woken");
        assert_eq!(breaker.admit(at(2)), Admission::Go);
        assert!(!breaker.note(None, at(2)), "once");
    }

    #[test]
    fn pause_that_is_told_lets_nobody_in_before_its_end_and_somebody_after_it() {
        assert_eq!(Breaker::default().paused_until(at(0)), None);
        let mut breaker = opened();
        assert_eq!(breaker.paused_until(at(1)), Some(at(2)));
        assert_eq!(breaker.paused_until(at(2)), None, "a probe may be sent");
        assert_eq!(breaker.admit(at(2)), Admission::Go);
        assert_eq!(breaker.paused_until(at(3)), Some(at(7)), "no sooner, should the probe fail now");
        breaker.note(Some(Reason::Timeout), at(3));
        assert_eq!(breaker.paused_until(at(3)), Some(at(7)));
        assert_eq!(breaker.admit(at(7)), Admission::Go);
        breaker.note(None, at(8));
        assert_eq!(breaker.paused_until(at(8)), None);
    }

    #[test]
    fn lost_probe_does_not_close_the_way_for_ever() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(at(2)), Admission::Go);
        assert_eq!(breaker.admit(at(91)), Admission::Paused(Reason::Timeout));
        assert_eq!(breaker.admit(at(92)), Admission::Go);
    }
}
