//! Leader election: what one replica does about the Lease, from what it read and from its own monotonic clock.
//!
//! The semantics are those of client-go's `leaderelection` package. The times in a Lease are opaque text: another value
//! means that its holder is alive, and nothing else. So no two clocks are ever compared. `leadership::elector` makes the
//! calls that [`Election::next`] asks for, and hands their answers back.

mod lease;
mod observation;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use itwin_api::digest;

use self::observation::Observation;
pub use self::{
    lease::{Change, NewRecord, ObservedLease, Record, Write},
    observation::LONGEST_LEASE,
};

/// A standby reads where nothing has shown it the Lease for this many periods, and a jitter: a leader that is well renews
/// the Lease before that, and a watch shows it.
pub const SILENCE: f64 = 1.15;
/// The jitter of a standby's reads, as a part of the period: two standbys that start together diverge.
pub const JITTER: f64 = 0.1;

/// The intervals of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a Lease of ours holds without a renewal, and the shortest time that a standby waits for any holder.
    pub lease: Duration,
    /// A leader that could not renew for this long steps down.
    pub renew_within: Duration,
    /// The time between two renewals, and the shortest between two reads of a standby that follows a leader.
    pub period: Duration,
    /// The time after which a call that failed is made again, where the Lease must be known.
    pub retry: Duration,
}

/// What a replica does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the Lease.
    Read,
    /// Create or update it.
    Write(Write),
    /// Do nothing until then.
    Wait(Instant),
    /// Lead no more, for good.
    StepDown(Loss),
}

/// Why a replica steps down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Another replica holds the Lease.
    HolderChanged,
    /// The Lease could not be renewed within [`Timing::renew_within`].
    RenewDeadline,
    /// It was asked to, and does not hold the Lease any more.
    Released,
}

/// One replica's part in the election.
#[derive(Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    role: Role,
    observed: Option<Observation>,
    /// A write failed or may have been made: nothing is written before the Lease was read again.
    is_outdated: bool,
    /// The last attempt met a conflict, and the Lease is read again at once.
    is_retrying: bool,
    read_at: Instant,
    reads: u64,
}

#[derive(Clone, Debug)]
enum Role {
    Standby,
    Leader(Term),
    Releasing,
    Ended(Loss),
}

/// The time of one leader.
#[derive(Clone, Debug)]
struct Term {
    /// When the last renewal that succeeded was sent.
    renewed: Instant,
    acquire_time: Option<String>,
    transitions: i64,
}

impl Election {
    /// A standby. `identity` must be of this process alone: no other process, nor an earlier one, may
    /// have had it.
    #[must_use]
    pub fn new(identity: String, timing: Timing, now: Instant) -> Self {
        Self {
            identity,
            timing,
            role: Role::Standby,
            observed: None,
            is_outdated: false,
            is_retrying: false,
            read_at: now,
            reads: 0,
        }
    }

    /// What to do now. [`Action::Wait`] always names a later time than `now`.
    pub fn next(&mut self, now: Instant) -> Action {
        let action = match self.role.clone() {
            Role::Standby => self.next_of_standby(now),
            Role::Leader(term) => self.lead(term, now),
            Role::Releasing => self.release(now),
            Role::Ended(loss) => Action::StepDown(loss),
        };
        if matches!(action, Action::Wait(_)) {
            self.is_retrying = false;
        }
        action
    }

    /// Whether this replica leads, as far as it knows. Only the fence says whether it may write.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The holder that was last read; `None` where there is none.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        let record = self.observed.as_ref()?.record()?;
        (!record.holder.is_empty()).then_some(&record.holder)
    }

    /// When a leader steps down unless it renews the Lease before: no call needs to last longer.
    #[must_use]
    pub fn renew_deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Leader(term) => Some(term.renewed + self.timing.renew_within),
            _ => None,
        }
    }

    /// When no read is waited for any longer: also where a standby takes the Lease. That is safe without the answer, since
    /// the write is guarded by the version that was observed.
    #[must_use]
    pub fn read_deadline(&self) -> Option<Instant> {
        match (&self.role, &self.observed) {
            (Role::Standby, Some(observed)) if !self.is_outdated => Some(observed.free_at()),
            _ => self.renew_deadline(),
        }
    }

    /// Whether this replica waits for the Lease: a watch of it saves reads.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        matches!(self.role, Role::Standby)
    }

    /// From now on the Lease is given up where this replica holds it or may hold it.
    pub fn stop(&mut self) {
        if matches!(self.role, Role::Standby | Role::Leader(_)) {
            self.role = Role::Releasing;
        }
    }

    /// The Lease was read by a call that was sent at `sent`, and the answer came at `now`. What changed gets the later of
    /// the two times: a standby must not wait too short. The next read counts from the earlier one, after which the answer
    /// may show nothing. A call that took long is still followed by a pause, in which a watch may show the Lease.
    pub fn read(&mut self, lease: Option<ObservedLease>, sent: Instant, now: Instant) {
        self.is_outdated = false;
        self.observe(lease, now);
        self.read_at = (sent + self.read_interval()).max(now + self.timing.retry);
    }

    /// A watch showed the Lease, which may be late. So it is a sign of life, or a release, but says nothing of a write of
    /// this replica.
    pub fn shown(&mut self, lease: ObservedLease, now: Instant) {
        if self.is_standby() && !self.is_outdated {
            self.read(Some(lease), now, now);
        }
    }

    /// A watch showed something that only a read explains, such as a deletion.
    pub fn is_unclear(&mut self, now: Instant) {
        if self.is_standby() {
            self.read_at = self.read_at.min(now);
        }
    }

    /// A write that was sent at `sent` succeeded; the answer came at `now`. The right to write counts from `sent`.
    pub fn written(&mut self, lease: ObservedLease, sent: Instant, now: Instant) {
        (self.is_outdated, self.is_retrying) = (false, false);
        let Record { holder, acquire_time, .. } = &lease.record;
        let term = Term { renewed: sent, acquire_time: acquire_time.clone(), transitions: lease.record.transitions() };
        match self.role {
            Role::Standby | Role::Leader(_) => self.role = Role::Leader(term),
            Role::Releasing if holder.is_empty() => self.role = Role::Ended(Loss::Released),
            Role::Releasing | Role::Ended(_) => {}
        }
        self.observe(Some(lease), now);
    }

    /// The API server refused a write because the Lease had changed, was deleted or existed already, or its answer is not
    /// waited for: read it again at once, but not twice without a pause.
    pub fn conflicted(&mut self, sent: Instant, now: Instant) {
        let was_retrying = self.is_retrying;
        self.write_failed(sent, now);
        if !was_retrying {
            (self.is_retrying, self.read_at) = (true, now);
        }
    }

    /// A write failed, or it is not known whether it was made.
    pub fn write_failed(&mut self, sent: Instant, now: Instant) {
        self.is_outdated = true;
        self.read_failed(sent, now);
    }

    /// A read failed. It is made again soon: what it would have shown is not known yet.
    pub fn read_failed(&mut self, sent: Instant, now: Instant) {
        self.read_at = now.max(sent + self.retry_interval());
    }

    fn next_of_standby(&self, now: Instant) -> Action {
        let observed = match &self.observed {
            Some(observed) if !self.is_outdated => observed,
            _ => return self.read_when_due(now),
        };
        let free = observed.free_at();
        if now >= free {
            self.take(observed)
        } else if now >= self.read_at {
            Action::Read
        } else {
            Action::Wait(free.min(self.read_at))
        }
    }

    /// Takes a Lease that is free. Whether it still is, the API server knows: the write is guarded by the version.
    fn take(&self, observed: &Observation) -> Action {
        Action::Write(match &observed.lease {
            None => Write::create(self.record(None, 0)),
            // an earlier write was made, although its answer did not say so
            Some(lease) if lease.record.holder == self.identity => self.renewal(lease),
            Some(lease) => self.acquisition(lease),
        })
    }

    fn lead(&mut self, term: Term, now: Instant) -> Action {
        if now >= term.renewed + self.timing.renew_within {
            return self.end(Loss::RenewDeadline);
        }
        let observed = match &self.observed {
            Some(observed) if !self.is_outdated => observed,
            _ => return self.read_when_due(now),
        };
        let due = term.renewed + self.timing.period;
        match &observed.lease {
            None => Action::Write(Write::create(self.record(term.acquire_time, term.transitions))),
            Some(lease) if lease.record.holder.is_empty() => Action::Write(self.acquisition(lease)),
            Some(lease) if lease.record.holder != self.identity => self.end(Loss::HolderChanged),
            Some(_) if now < due => Action::Wait(due),
            Some(lease) => Action::Write(self.renewal(lease)),
        }
    }

    fn release(&mut self, now: Instant) -> Action {
        if self.is_outdated {
            return self.read_when_due(now);
        }
        match self.observed.as_ref().and_then(|observed| observed.lease.as_ref()) {
            Some(lease) if lease.record.holder == self.identity => Action::Write(Write::release(lease)),
            _ => self.end(Loss::Released),
        }
    }

    fn end(&mut self, loss: Loss) -> Action {
        self.role = Role::Ended(loss);
        Action::StepDown(loss)
    }

    fn read_when_due(&self, now: Instant) -> Action {
        if now >= self.read_at { Action::Read } else { Action::Wait(self.read_at) }
    }

    fn record(&self, acquire_time: Option<String>, transitions: i64) -> NewRecord {
        NewRecord { holder: self.identity.clone(), duration: self.timing.lease, acquire_time, transitions }
    }

    fn renewal(&self, lease: &ObservedLease) -> Write {
        let record = self.record(lease.record.acquire_time.clone(), lease.record.transitions());
        Write::update(Change::Renew, lease, record)
    }

    fn acquisition(&self, lease: &ObservedLease) -> Write {
        Write::update(Change::Acquire, lease, self.record(None, lease.record.next_transitions()))
    }

    fn observe(&mut self, lease: Option<ObservedLease>, now: Instant) {
        self.observed = Some(Observation::after(self.observed.take(), lease, &self.identity, self.timing.lease, now));
    }

    /// The time from when a read is sent to the next one.
    fn read_interval(&mut self) -> Duration {
        let follows = self.is_standby() && self.observed.is_some() && !self.is_outdated;
        if follows { self.timing.period.mul_f64(SILENCE + self.jitter()) } else { self.retry_interval() }
    }

    /// The time from a call that failed to the read that follows it.
    fn retry_interval(&mut self) -> Duration {
        if self.is_standby() { self.timing.retry.mul_f64(1.0 + self.jitter()) } else { self.timing.retry }
    }

    /// The jitter of a standby's next read, which is fixed by its identity and the number of the read.
    fn jitter(&mut self) -> f64 {
        self.reads += 1;
        JITTER * digest::unit_interval(["read of the Lease", &self.identity, &self.reads.to_string()])
    }
}
