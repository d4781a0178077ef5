//! What a replica knows of the Lease, and from when on it may take it.

use std::time::{Duration, Instant};

use super::lease::{ObservedLease, Record};

/// A Lease holds for at most this long, whatever it says: a wrong value must not prevent failover. client-go's default,
/// and within the 20 s that the contract gives.
pub const LONGEST_LEASE: Duration = Duration::from_secs(15);

/// The Lease as this replica last read or wrote it.
#[derive(Debug)]
pub(super) struct Observation {
    /// `None` where there is none.
    pub(super) lease: Option<ObservedLease>,
    /// When this replica first observed this record, by its own clock.
    changed: Instant,
    /// How long after that the Lease may be taken.
    patience: Duration,
    /// The highest `leaseTransitions` that this replica observed; `None` where it never observed a Lease.
    transitions: Option<i64>,
}

impl Observation {
    /// What is known after the Lease was observed like this at `now`. The same record as before keeps its age, whatever
    /// happened to the metadata. `ours` is the duration of our own Leases.
    pub(super) fn after(
        before: Option<Self>,
        lease: Option<ObservedLease>,
        identity: &str,
        ours: Duration,
        now: Instant,
    ) -> Self {
        match before {
            Some(before) if before.record() == lease.as_ref().map(|lease| &lease.record) => Self { lease, ..before },
            before => {
                let seen = before.and_then(|before| before.transitions);
                let record = lease.as_ref().map(|lease| &lease.record);
                let patience = patience(record, seen, identity, ours);
                let transitions = seen.max(record.map(Record::transitions));
                Self { lease, changed: now, patience, transitions }
            }
        }
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.lease.as_ref().map(|lease| &lease.record)
    }

    /// From when on the Lease may be taken if nothing changes.
    pub(super) fn free_at(&self) -> Instant {
        self.changed + self.patience
    }
}

/// How long a record must stay as it is before the Lease may be taken. `seen` is the highest number of transitions
/// observed before.
fn patience(record: Option<&Record>, seen: Option<i64>, identity: &str, ours: Duration) -> Duration {
    match record {
        // deleted, maybe under a holder that may write until its fence ends
        None => seen.map_or(Duration::ZERO, |_| ours),
        Some(record) if record.holder == identity => Duration::ZERO,
        Some(record) if !record.holder.is_empty() => record.duration_within(ours, LONGEST_LEASE),
        // an older record, as out of a backup of etcd: the last holder did not release it
        Some(record) if Some(record.transitions()) < seen => ours,
        Some(_) => Duration::ZERO,
    }
}
