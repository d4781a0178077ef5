//! The Lease as it is read and as it is written.

use std::time::Duration;

/// What a released Lease says about its duration: client-go writes the same, since the API server refuses zero.
pub const RELEASED_DURATION: Duration = Duration::from_secs(1);
/// `leaseTransitions` is an int32.
const MOST_TRANSITIONS: i64 = i32::MAX as i64;

/// The spec of a Lease. Any field may be missing or absurd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `holderIdentity`; empty where no one holds the Lease.
    pub holder: String,
    /// `leaseDurationSeconds`.
    pub duration_seconds: Option<i64>,
    /// `acquireTime`, as text that is never read.
    pub acquire_time: Option<String>,
    /// `renewTime`, as text that is only compared with itself.
    pub renew_time: Option<String>,
    /// `leaseTransitions`.
    pub transitions: Option<i64>,
}

impl Record {
    /// `leaseTransitions`, 0 where it is missing or negative.
    #[must_use]
    pub fn transitions(&self) -> i64 {
        self.transitions.unwrap_or_default().clamp(0, MOST_TRANSITIONS)
    }

    /// Whether this was written before `other`, by the same holder, as far as the clock of that holder says. Only times
    /// of one length are compared, and as text: the operator writes them in one format.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        let is_earlier = |(this, other): (&String, &String)| this.len() == other.len() && this < other;
        !self.holder.is_empty()
            && self.holder == other.holder
            && self.renew_time.as_ref().zip(other.renew_time.as_ref()).is_some_and(is_earlier)
    }

    pub(super) fn next_transitions(&self) -> i64 {
        self.transitions().saturating_add(1).min(MOST_TRANSITIONS)
    }

    /// `leaseDurationSeconds`, brought within these bounds.
    pub(super) fn duration_within(&self, shortest: Duration, longest: Duration) -> Duration {
        let seconds = u64::try_from(self.duration_seconds.unwrap_or_default()).unwrap_or_default();
        Duration::from_secs(seconds).min(longest).max(shortest)
    }
}

/// A Lease that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLease {
    /// Its resourceVersion.
    pub version: String,
    /// Its spec.
    pub record: Record,
}

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is no Lease.
    Create,
    /// It is free.
    Acquire,
    /// It is held by this replica.
    Renew,
    /// It is given up.
    Release,
}

/// A write of the Lease, which succeeds only where no one else wrote in the meantime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What it is for.
    pub change: Change,
    /// The resourceVersion that must not have changed; `None` for a creation, which must find no Lease.
    pub version: Option<String>,
    /// What is written.
    pub record: NewRecord,
}

/// The spec that is written. `renewTime` is the time of the write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// `holderIdentity`.
    pub holder: String,
    /// `leaseDurationSeconds`.
    pub duration: Duration,
    /// `acquireTime`; `None` for the time of the write.
    pub acquire_time: Option<String>,
    /// `leaseTransitions`.
    pub transitions: i64,
}

impl Write {
    pub(super) fn create(record: NewRecord) -> Self {
        Self { change: Change::Create, version: None, record }
    }

    pub(super) fn update(change: Change, lease: &ObservedLease, record: NewRecord) -> Self {
        Self { change, version: Some(lease.version.clone()), record }
    }

    pub(super) fn release(lease: &ObservedLease) -> Self {
        let record = NewRecord {
            holder: String::new(),
            duration: RELEASED_DURATION,
            acquire_time: None,
            transitions: lease.record.transitions(),
        };
        Self::update(Change::Release, lease, record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_holder_at_an_earlier_time_precedes() {
        let record = |holder: &str, time: &str| Record {
            holder: holder.to_owned(),
            renew_time: Some(time.to_owned()),
            ..Record::default()
        };
        let known = record("a", "2026-01-01T00:00:10.000000Z");
        assert!(record("a", "2026-01-01T00:00:09.999999Z").precedes(&known));
        assert!(!record("a", "2026-01-01T00:00:10.000000Z").precedes(&known));
        assert!(!record("b", "2026-01-01T00:00:09.999999Z").precedes(&known));
        assert!(!record("a", "2026-01-01T00:00:09Z").precedes(&known), "another format cannot be compared");
        assert!(!record("", "a").precedes(&record("", "b")), "without a holder no one knows who wrote it");
        assert!(!Record { renew_time: None, ..known.clone() }.precedes(&known));
    }
}
