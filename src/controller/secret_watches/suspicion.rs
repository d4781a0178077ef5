//! What is concluded from the failures of one watch: whether they are to be reported, and until when.

use std::time::Duration;

use tokio::time::Instant;

use crate::liveness::{Interruption, Trouble};

/// A watch that fails for so long is reported. Where it fails immediately, it is made again several times by then, and the
/// report is in the status within 10 s of the first failure.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// One failure alone is never reported: the first attempt after an outage of the API server may still meet its end.
const ENOUGH: u32 = 2;
/// A watch that is reported again within this after it worked is said to work only after a rest.
const AGAIN: Duration = Duration::from_secs(600);
/// How long such a watch must work without a failure: the second time, and at most. Each report and each end of one is
/// a status of every credential.
const REST: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// A report is replaced by one of another cause at most this often, for the same reason.
const REPLACED: Duration = Duration::from_secs(300);

/// What is news about a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It fails in this way.
    Fails(Trouble),
    /// It was reported to fail, and does so in this way now.
    FailsOtherwise(Trouble),
    /// It was reported to fail, and works.
    Works,
}

/// The failures of one kind that follow each other.
#[derive(Debug, Default)]
struct Streak {
    /// Those that were taken in.
    failures: u32,
    /// How many of them, without a break, count.
    counted: u32,
    /// Since when they count.
    since: Option<Instant>,
}

impl Streak {
    /// Takes in how many failures there were, and whether the last one `counts`. Returns whether they are to be reported.
    fn observe(&mut self, failures: u32, counts: bool, now: Instant) -> bool {
        if failures < self.failures {
            *self = Self::default();
        }
        if failures != self.failures {
            self.failures = failures;
            if counts {
                self.since = self.since.or(Some(now));
                self.counted = self.counted.saturating_add(1);
            } else {
                (self.since, self.counted) = (None, 0);
            }
        }
        let is_over = self.due().is_some_and(|due| due <= now);
        if is_over && !counts {
            // the next failure may begin another time
            (self.since, self.counted) = (None, 0);
        }
        is_over && counts && self.counted >= ENOUGH
    }

    /// When they are to be reported, unless they end.
    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + GRACE)
    }
}

/// What was reported of a watch.
#[derive(Debug)]
struct Report {
    trouble: Trouble,
    at: Instant,
    /// It was for watches that failed, and not for lists alone.
    is_of_watches: bool,
}

/// What is concluded about one watch from its failures.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// The interruption that the failures belong to.
    number: u64,
    /// The progress of lists before these failures.
    progress: u64,
    lists: Streak,
    watches: Streak,
    /// How the watch failed last, if it was not reported in this way; of how many failures this is the cause.
    other: Option<(Trouble, u32)>,
    report: Option<Report>,
    /// When the last report ended.
    ended: Option<Instant>,
    /// Since when it works.
    works_since: Option<Instant>,
    /// How long it must do so before the report ends.
    rest: Duration,
}

impl Suspicion {
    /// Takes in how the watch is interrupted, if it is, and whether the API server `answers` other calls. Returns what is
    /// news.
    pub(super) fn observe(
        &mut self,
        interruption: Option<&Interruption>,
        answers: bool,
        now: Instant,
    ) -> Option<Verdict> {
        let Some(interruption) = interruption else { return self.works(now) };
        // a watch that works goes on without a list that fails; where lists fail again and again, there may be none
        let goes_on = interruption.watches == 0
            && interruption.lists < ENOUGH
            && self.report.as_ref().is_some_and(|report| report.is_of_watches);
        if !goes_on {
            self.works_since = None;
        }
        if interruption.number != self.number {
            (self.lists, self.watches) = Default::default();
        }
        if interruption.progress != self.progress {
            self.lists = Streak::default();
        }
        let trouble = &interruption.trouble;
        let counts = trouble.is_forbidden || answers;
        let is_another = (self.lists.failures, self.watches.failures) != (interruption.lists, interruption.watches);
        (self.number, self.progress) = (interruption.number, interruption.progress);
        let lists = self.lists.observe(interruption.lists, counts, now);
        // one that is open may work, and is known to do so soon; if not, there is another failure
        let watches = self.watches.observe(interruption.watches, counts, now) && !interruption.is_open;
        if self.report.is_some() {
            return self.fails_on(trouble, is_another && counts, now);
        }
        (lists || watches).then(|| self.fails(trouble, watches, now))
    }

    /// The watch works, or was not made yet.
    fn works(&mut self, now: Instant) -> Option<Verdict> {
        (self.lists, self.watches, self.other) = Default::default();
        let since = *self.works_since.get_or_insert(now);
        if since + self.rest > now {
            return None;
        }
        self.report.take()?;
        self.ended = Some(now);
        Some(Verdict::Works)
    }

    fn fails(&mut self, trouble: &Trouble, is_of_watches: bool, now: Instant) -> Verdict {
        let is_again = self.ended.is_some_and(|ended| now < ended + AGAIN);
        self.rest = if is_again { (self.rest * 2).clamp(REST.0, REST.1) } else { Duration::ZERO };
        self.report = Some(Report { trouble: trouble.clone(), at: now, is_of_watches });
        Verdict::Fails(trouble.clone())
    }

    /// A watch that was reported still fails: the report follows the cause, once that has lasted.
    fn fails_on(&mut self, trouble: &Trouble, is_another: bool, now: Instant) -> Option<Verdict> {
        let report = self.report.as_mut()?;
        if report.trouble == *trouble {
            self.other = None;
            return None;
        }
        let same = self.other.take().filter(|(other, _)| other == trouble).map_or(0, |(_, failures)| failures);
        let failures = same.saturating_add(u32::from(is_another));
        if failures < ENOUGH || now < report.at + REPLACED {
            self.other = Some((trouble.clone(), failures));
            return None;
        }
        (report.trouble, report.at) = (trouble.clone(), now);
        Some(Verdict::FailsOtherwise(trouble.clone()))
    }

    /// When to observe it again, although it neither fails nor works again until then.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let rested = self.report.as_ref().and(self.works_since).map(|since| since + self.rest);
        let replaced = self.other.as_ref().and(self.report.as_ref()).map(|report| report.at + REPLACED);
        let dues = [self.lists.due(), self.watches.due(), rested, replaced];
        dues.into_iter().flatten().filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests;
