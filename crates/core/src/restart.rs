//! Restarts of workloads that read the token once: which are left for the token in the Secret, and when they are due.
//!
//! Each workload is restarted once for each token, a delay after the token was written. Once all are, the Secret
//! records that ([`itwin_api::secret_keys::RESTARTED_FOR`]), so that no later process restarts anything, even where the
//! annotations of the workloads are removed. Which workloads are left is decided when the token is written, and recorded
//! with it ([`itwin_api::secret_keys::RESTART_TARGETS`]): one that is added to the spec later waits for the next token,
//! whether an operator runs then or not. Once only workloads are left that cannot be restarted, the record is narrowed to
//! them.
//!
//! Intervals are those of the monotonic clock: no step of the wall clock delays a restart.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    conditions::Reason,
    credential::{CredentialSpec, RolloutRestartTarget},
    digest,
};

use crate::backoff;

/// The longest `rolloutRestartDelay`; the schema has the same limit.
const DELAY_MAX: Duration = Duration::from_secs(3600);
/// The number of workloads of a credential; the schema has the same limit.
const TARGETS_MAX: usize = 16;

/// What is to be done about workloads for the token in the Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Nothing.
    #[default]
    Done,
    /// Some are restarted after this wait.
    Due(Duration),
    /// All were restarted, and the Secret is to record it after this wait.
    Unrecorded(Duration),
}

impl Restart {
    /// The wait before something is to be done; `None` if nothing is, or now.
    #[must_use]
    pub fn wait(self) -> Option<Duration> {
        match self {
            Self::Done => None,
            Self::Due(wait) | Self::Unrecorded(wait) => Some(wait).filter(|wait| !wait.is_zero()),
        }
    }
}

/// What the spec says about restarts.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The workloads.
    pub targets: &'a [RolloutRestartTarget],
    /// How long after a write they are restarted.
    pub delay: Duration,
}

impl<'a> Wanted<'a> {
    /// What this spec says, within the limits of the schema.
    #[must_use]
    pub fn new(spec: &'a CredentialSpec) -> Self {
        let targets = &spec.rollout_restart_targets;
        let delay = Duration::from(spec.rollout_restart_delay).min(DELAY_MAX);
        Self { targets: &targets[..targets.len().min(TARGETS_MAX)], delay }
    }

    /// The same for tokens of this lifetime. A delay that lasts until the next token is written would never end: it is at
    /// most a quarter of the lifetime, and a renewal is due after 45 % of it at the earliest.
    #[must_use]
    pub fn within(self, lifetime: TimeDelta) -> Self {
        Self { delay: self.delay.min((lifetime / 4).to_std().unwrap_or_default()), ..self }
    }
}

/// What the Secret records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded<'a> {
    /// Nothing is left for the token that was issued then.
    pub restarted_for: Option<DateTime<Utc>>,
    /// The workloads that are left for the token, as [`listed`] and [`Restarts::obstructed`] make it. Earlier versions do
    /// not record it.
    pub targets: Option<&'a str>,
}

impl Recorded<'_> {
    /// Whether this workload is left for the token, as far as is known.
    fn holds(&self, target: &RolloutRestartTarget) -> bool {
        self.targets.is_none_or(|targets| targets.split(',').any(|listed| listed == digest(target)))
    }
}

/// The workloads to restart, as the Secret records them; `None` if there are none.
#[must_use]
pub fn listed(spec: &CredentialSpec) -> Option<String> {
    let targets = Wanted::new(spec).targets;
    (!targets.is_empty()).then(|| targets.iter().map(digest).collect::<Vec<_>>().join(","))
}

fn digest(target: &RolloutRestartTarget) -> String {
    format!("{:08x}", digest::short([target.kind.as_str(), &target.name]))
}

/// A workload to restart now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The workload.
    pub target: RolloutRestartTarget,
    /// It did not exist once the token was written: if it does now, its pods have read the token.
    pub was_missing: bool,
}

/// A workload that could not be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstructed {
    /// For users.
    pub message: String,
    /// It does not exist.
    pub is_missing: bool,
}

/// Restarts for the token in the Secret, as far as this process knows.
#[derive(Debug, Default)]
pub struct Restarts {
    /// When the token was issued.
    issued_at: Option<DateTime<Utc>>,
    /// The Secret recorded that nothing is left. It is not recorded again if someone removes the annotation.
    is_recorded: bool,
    /// What is left; `None` if nothing is.
    left: Option<Box<Left>>,
    /// What an earlier process reported, until this one tried.
    recalled: Option<Box<str>>,
}

#[derive(Debug)]
struct Left {
    /// When the token was written, or found by a new process.
    since: Instant,
    /// The same by the wall clock, if this process wrote it for the first time.
    written_at: Option<DateTime<Utc>>,
    targets: Vec<Target>,
    /// The record in the Secret, which comes last.
    record: Tries,
}

#[derive(Debug)]
struct Target {
    target: RolloutRestartTarget,
    was_missing: bool,
    tries: Tries,
}

/// Failed tries of one call.
#[derive(Clone, Debug, Default)]
struct Tries {
    failures: u32,
    not_before: Option<Instant>,
    message: Option<String>,
}

impl Tries {
    fn failed(&mut self, message: String, uid: &str, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff::delay(self.failures, TimeDelta::zero(), Reason::ServerError, None, uid);
        self.not_before = now.checked_add(wait.to_std().unwrap_or_default());
        self.message = Some(message);
    }

    fn wait(&self, due: Instant, now: Instant) -> Duration {
        self.not_before.map_or(due, |not_before| not_before.max(due)).saturating_duration_since(now)
    }
}

impl Restarts {
    /// What a status says about the time before this process.
    #[must_use]
    pub fn recall(failure: Option<String>) -> Self {
        Self { recalled: failure.map(String::into_boxed_str), ..Self::default() }
    }

    /// A token was written, at this time of both clocks.
    pub fn written(&mut self, issued_at: DateTime<Utc>, wanted: &Wanted<'_>, (now, wall): (Instant, DateTime<Utc>)) {
        self.begin(issued_at, wanted.targets.iter().collect(), now, Some(wall));
    }

    /// A token that the Secret held before was written again, where the Secret had been deleted: a restart since its issue
    /// was made for it.
    pub fn rewritten(&mut self, issued_at: DateTime<Utc>, wanted: &Wanted<'_>, now: Instant) {
        self.begin(issued_at, wanted.targets.iter().collect(), now, None);
    }

    /// What is to be done for the token in the Secret, which was issued at this instant, and of which this is `recorded`.
    pub fn observe(
        &mut self,
        issued_at: DateTime<Utc>,
        recorded: Recorded<'_>,
        wanted: &Wanted<'_>,
        now: Instant,
    ) -> Restart {
        if self.issued_at != Some(issued_at) {
            self.begin(issued_at, wanted.targets.iter().filter(|target| recorded.holds(target)).collect(), now, None);
        }
        if recorded.restarted_for == Some(issued_at) {
            self.recorded();
        }
        if let Some(left) = &mut self.left {
            left.targets.retain(|left| wanted.targets.contains(&left.target));
        }
        if wanted.targets.is_empty() {
            (self.left, self.recalled) = (None, None);
        }
        let Some(left) = self.left.as_deref() else {
            // a workload that was added since: no later process must take it for one that is left
            let is_unrecorded = !self.is_recorded && !wanted.targets.is_empty();
            return if is_unrecorded { Restart::Unrecorded(Duration::ZERO) } else { Restart::Done };
        };
        let due = left.since.checked_add(wanted.delay).unwrap_or(left.since);
        match left.targets.iter().map(|target| target.tries.wait(due, now)).min() {
            Some(wait) => Restart::Due(wait),
            None => Restart::Unrecorded(left.record.wait(left.since, now)),
        }
    }

    /// The workloads to restart now.
    #[must_use]
    pub fn orders(&self, now: Instant) -> Vec<Order> {
        let targets = self.left.iter().flat_map(|left| &left.targets);
        let is_due = |target: &&Target| target.tries.not_before.is_none_or(|not_before| not_before <= now);
        let mut due: Vec<&Target> = targets.filter(is_due).collect();
        // one that hangs each time holds up no other
        due.sort_by_key(|target| target.tries.failures);
        due.into_iter().map(|due| Order { target: due.target.clone(), was_missing: due.was_missing }).collect()
    }

    /// The workloads that are left, as the Secret records them, once none can be restarted now: `None` while one can.
    #[must_use]
    pub fn obstructed(&self, now: Instant) -> Option<String> {
        let targets = &self.left.as_deref()?.targets;
        let waits = |target: &Target| target.tries.not_before.is_some_and(|not_before| not_before > now);
        (!targets.is_empty() && targets.iter().all(waits))
            .then(|| targets.iter().map(|left| digest(&left.target)).collect::<Vec<_>>().join(","))
    }

    /// A restart that was made at or after this time of the wall clock was made with the token in the Secret.
    #[must_use]
    pub fn written_at(&self) -> Option<DateTime<Utc>> {
        self.left.as_ref().and_then(|left| left.written_at).or(self.issued_at)
    }

    /// Notes what became of the workloads that were to be restarted.
    pub fn ended(&mut self, results: Vec<(RolloutRestartTarget, Result<(), Obstructed>)>, uid: &str, now: Instant) {
        self.recalled = None;
        let Some(left) = &mut self.left else { return };
        for (target, result) in results {
            let Some(place) = left.targets.iter().position(|left| left.target == target) else { continue };
            match result {
                Ok(()) => drop(left.targets.remove(place)),
                Err(Obstructed { message, is_missing }) => {
                    left.targets[place].was_missing |= is_missing;
                    left.targets[place].tries.failed(message, uid, now);
                }
            }
        }
    }

    /// The Secret records that nothing is left.
    pub fn recorded(&mut self) {
        (self.is_recorded, self.left, self.recalled) = (true, None, None);
    }

    /// The Secret records which workloads are left.
    pub fn narrowed(&mut self) {
        if let Some(left) = &mut self.left {
            left.record = Tries::default();
        }
    }

    /// The Secret could not be annotated.
    pub fn record_failed(&mut self, message: String, uid: &str, now: Instant) {
        let left = self.left.get_or_insert_with(|| Box::new(Left::new(Vec::new(), now, None)));
        left.record.failed(message, uid, now);
    }

    /// What failed, for the status.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        if let Some(recalled) = &self.recalled {
            return Some(recalled.to_string());
        }
        let left = self.left.as_deref()?;
        let tries = left.targets.iter().map(|target| &target.tries).chain([&left.record]);
        let messages: Vec<&str> = tries.filter_map(|tries| tries.message.as_deref()).collect();
        (!messages.is_empty()).then(|| messages.join("; "))
    }

    fn begin(
        &mut self,
        issued_at: DateTime<Utc>,
        targets: Vec<&RolloutRestartTarget>,
        now: Instant,
        written_at: Option<DateTime<Utc>>,
    ) {
        let failed = self.left.take().map(|left| left.targets).unwrap_or_default();
        // what failed for the token before is reported until it is tried again: else each token would change the status
        let message = |target: &RolloutRestartTarget| {
            failed.iter().find(|failed| failed.target == *target).and_then(|failed| failed.tries.message.clone())
        };
        let targets = targets.into_iter().map(|target| Target {
            target: target.clone(),
            was_missing: false,
            tries: Tries { message: message(target), ..Tries::default() },
        });
        let targets: Vec<Target> = targets.collect();
        self.left = (!targets.is_empty()).then(|| Box::new(Left::new(targets, now, written_at)));
        (self.issued_at, self.is_recorded) = (Some(issued_at), false);
    }
}

impl Left {
    fn new(targets: Vec<Target>, since: Instant, written_at: Option<DateTime<Utc>>) -> Self {
        Self { since, written_at, targets, record: Tries::default() }
    }
}

#[cfg(test)]
mod tests;
