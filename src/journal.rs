//! The crash journal: records in a file which credentials are being reconciled, so that a credential that crashes the
//! process does not affect the others after the restart (docs/decisions/0011-crash-journal.md).
//!
//! The operator writes to the file before and after each reconciliation, and does not flush it to disk. The data
//! survives the end of the process. It need not survive a failure of the node.

mod file;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use itwin_core::{
    object::ObjectKey,
    suspects::{self, Left, Situation, UnderWay},
};
use tokio::time::Instant;

use self::file::{Record, Slot, Slots};
use crate::metrics::Metrics;

/// The crash journal of a process. Without a directory, it has no suspects.
pub struct Journal {
    state: Option<Mutex<State>>,
}

struct State {
    slots: Slots,
    suspects: HashMap<ObjectKey, Suspect>,
    leading_since: Option<Instant>,
    /// The other credentials that have not been reconciled yet; empty if there are no suspects.
    unserved: HashSet<Arc<ObjectKey>>,
    /// The number of other credentials that are being reconciled.
    others_under_way: usize,
    metrics: Arc<Metrics>,
}

struct Suspect {
    uid: String,
    crashes: u32,
    slot: Option<Slot>,
    standing: Standing,
    /// When its reconciliation ended without a crash for the first time.
    released: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Standing {
    Held,
    /// Since this instant.
    UnderWay(Instant),
    /// Reconciled without a crash; `PROBATION` starts at this instant.
    Released(Instant),
}

/// A reconciliation in progress. It ends when this is dropped, even by a panic.
pub struct Entry<'a> {
    journal: &'a Journal,
    key: &'a ObjectKey,
    /// Its slot in the file; `None` for a suspect, which has a slot of its own.
    slot: Option<Slot>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(mut state) = self.journal.state() {
            state.ended(self.key, self.slot.take(), Instant::now());
        }
    }
}

impl Journal {
    /// Reads the file of the previous process in this directory and starts a new one. Without a directory, or if it
    /// cannot be used, there are no suspects.
    #[must_use]
    pub fn open(directory: Option<&Path>, metrics: &Arc<Metrics>) -> Self {
        let state = directory.map(|directory| {
            let (mut slots, records) = Slots::open(directory);
            let mut suspected: Vec<Record> = records.into_iter().filter_map(Record::suspected).collect();
            suspected.sort_by_key(|record| std::cmp::Reverse(record.crashes));
            suspected.truncate(suspects::SUSPECTS_MAX);
            let suspects = suspected.into_iter().map(|record| {
                let slot = slots.take(&record);
                let Record { key, uid, crashes, .. } = record;
                (key, Suspect { uid, crashes, slot, standing: Standing::Held, released: None })
            });
            let suspects = suspects.collect();
            slots.publish(directory);
            Mutex::new(State {
                slots,
                suspects,
                leading_since: None,
                unserved: HashSet::new(),
                others_under_way: 0,
                metrics: metrics.clone(),
            })
        });
        Self { state }
    }

    /// Records that this process acts from now on in one scope, whose keys are `is_inside`. `credentials` are all of it;
    /// suspects are reconciled last.
    pub fn leads(&self, credentials: impl Iterator<Item = Arc<ObjectKey>>, is_inside: impl Fn(&ObjectKey) -> bool) {
        if let Some(mut state) = self.state() {
            state.leads(credentials, is_inside, Instant::now());
        }
    }

    /// Records that the reconciliation of this credential starts.
    ///
    /// # Errors
    /// The requeue interval, if the credential is held back.
    pub fn begin<'a>(&'a self, key: &'a ObjectKey, uid: &str) -> Result<Entry<'a>, Duration> {
        let slot = match self.state() {
            Some(mut state) => state.begins(key, uid, Instant::now())?,
            None => None,
        };
        Ok(Entry { journal: self, key, slot })
    }

    /// Records that the process ends for another reason, so that credentials under way do not become suspects.
    pub fn close(&self) {
        if let Some(mut state) = self.state() {
            state.close();
        }
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        // every change is complete before anything can panic
        self.state.as_ref().map(|state| state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn leads(
        &mut self,
        credentials: impl Iterator<Item = Arc<ObjectKey>>,
        is_inside: impl Fn(&ObjectKey) -> bool,
        now: Instant,
    ) {
        self.leading_since.get_or_insert(now);
        if self.suspects.is_empty() {
            return;
        }
        let all: HashSet<Arc<ObjectKey>> = credentials.collect();
        for (_, gone) in self.suspects.extract_if(|key, _| is_inside(key) && !all.contains(key)) {
            self.slots.free(gone.slot);
        }
        for (ObjectKey { namespace, name }, suspect) in self.suspects.iter().filter(|(key, _)| is_inside(key)) {
            tracing::warn!(
                namespace,
                credential = name,
                crashes = suspect.crashes,
                "the previous process ended while this credential was being reconciled: the others are reconciled first, and this one \
                 within about {} s",
                suspects::longest_wait(suspect.crashes).as_secs()
            );
        }
        self.unserved.extend(all.into_iter().filter(|key| !self.suspects.contains_key(key)));
        self.gauge();
    }

    fn begins(&mut self, key: &ObjectKey, uid: &str, now: Instant) -> Result<Option<Slot>, Duration> {
        // another credential with the same name is not a suspect
        if self.suspects.get(key).is_some_and(|suspect| suspect.uid != uid) {
            let gone = self.suspects.remove(key);
            self.slots.free(gone.and_then(|gone| gone.slot));
            self.gauge();
        }
        let situation = self.situation(now);
        let Some(suspect) = self.suspects.get_mut(key) else {
            let record = Record { left: Left::UnderWay, crashes: 0, key: key.clone(), uid: uid.to_owned() };
            self.others_under_way += 1;
            return Ok(self.slots.take(&record));
        };
        if matches!(suspect.standing, Standing::Held)
            && let Some(wait) = suspects::wait(suspect.crashes, &situation)
        {
            return Err(wait);
        }
        suspect.standing = Standing::UnderWay(now);
        suspect.record(key, Left::UnderWay, &mut self.slots);
        self.gauge();
        Ok(None)
    }

    fn ended(&mut self, key: &ObjectKey, slot: Option<Slot>, now: Instant) {
        self.slots.free(slot);
        self.unserved.remove(key);
        match self.suspects.get_mut(key) {
            Some(suspect) => {
                // from the first success: most credentials are reconciled more often than the probation lasts
                suspect.standing = Standing::Released(suspect.released.unwrap_or(now));
                suspect.released.get_or_insert(now);
                suspect.record(key, Left::Released, &mut self.slots);
            }
            None => self.others_under_way = self.others_under_way.saturating_sub(1),
        }
        let is_over = |standing| match standing {
            Standing::Released(at) => now.saturating_duration_since(at) >= suspects::PROBATION,
            Standing::Held | Standing::UnderWay(_) => false,
        };
        for (_, suspect) in self.suspects.extract_if(|_, suspect| is_over(suspect.standing)) {
            self.slots.free(suspect.slot);
        }
    }

    fn close(&mut self) {
        let suspects = self.suspects.iter().filter(|(_, suspect)| matches!(suspect.standing, Standing::UnderWay(_)));
        for (key, suspect) in suspects {
            suspect.record(key, Left::Held, &mut self.slots);
        }
        let kept: Vec<&Slot> = self.suspects.values().filter_map(|suspect| suspect.slot.as_ref()).collect();
        self.slots.close(&kept);
    }

    fn situation(&self, now: Instant) -> Situation {
        let since = |instant: Instant| now.saturating_duration_since(instant);
        let under_way = self.suspects.values().filter_map(|suspect| match suspect.standing {
            Standing::UnderWay(begun) => Some(UnderWay { crashes: suspect.crashes, since: since(begun) }),
            Standing::Held | Standing::Released(_) => None,
        });
        Situation {
            leading_for: self.leading_since.map(since).unwrap_or_default(),
            others_served: self.unserved.is_empty() && self.others_under_way == 0,
            under_way: under_way
                .reduce(|a, b| UnderWay { crashes: a.crashes.max(b.crashes), since: a.since.min(b.since) }),
        }
    }

    fn gauge(&self) {
        let held = self.suspects.values().filter(|suspect| matches!(suspect.standing, Standing::Held));
        self.metrics.held_back(held.count());
    }
}

impl Suspect {
    fn record(&self, key: &ObjectKey, left: Left, slots: &mut Slots) {
        if let Some(slot) = &self.slot {
            let (crashes, key, uid) = (self.crashes, key.clone(), self.uid.clone());
            slots.write(slot, &Record { left, crashes, key, uid });
        }
    }
}
