//! The crash journal: which credentials are being reconciled, in a file that outlives the process, so that one that
//! crashes it does not take the others along (docs/decisions/0011-crash-journal.md).
//!
//! Written with a plain write before each reconciliation and after it. What a process wrote survives its death without
//! being flushed to a disk; that of the node need not be survived.

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

/// The crash journal of a process; one without a directory suspects no one.
pub struct Journal {
    state: Option<Mutex<State>>,
}

struct State {
    slots: Slots,
    suspects: HashMap<ObjectKey, Suspect>,
    leading_since: Option<Instant>,
    /// The credentials that are not suspected and were not reconciled yet; none are kept where no one is suspected.
    unserved: HashSet<Arc<ObjectKey>>,
    /// How many credentials that are not suspected are being reconciled.
    others_under_way: usize,
    metrics: Arc<Metrics>,
}

struct Suspect {
    uid: String,
    crashes: u32,
    slot: Option<Slot>,
    standing: Standing,
    /// When it ended well for the first time.
    released: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Standing {
    Held,
    /// Since when.
    UnderWay(Instant),
    /// Reconciled without a crash, at this instant.
    Released(Instant),
}

/// A reconciliation under way. It has ended when this is dropped, however it ended.
pub struct Entry<'a> {
    journal: &'a Journal,
    key: &'a ObjectKey,
    /// Where it stands in the file, if it is not a suspect, which has a place of its own.
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
    /// Reads what the process before left in this directory, and begins a new file there. Without a directory, or where it
    /// cannot be used, nothing is suspected.
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

    /// This process leads from now on, and these are all credentials: those that are not suspected come first.
    pub fn leads(&self, credentials: impl Iterator<Item = Arc<ObjectKey>>) {
        if let Some(mut state) = self.state() {
            state.leads(credentials, Instant::now());
        }
    }

    /// The reconciliation of this credential begins.
    ///
    /// # Errors
    /// The time after which to ask again, where it is suspected and held back.
    pub fn begin<'a>(&'a self, key: &'a ObjectKey, uid: &str) -> Result<Entry<'a>, Duration> {
        let slot = match self.state() {
            Some(mut state) => state.begins(key, uid, Instant::now())?,
            None => None,
        };
        Ok(Entry { journal: self, key, slot })
    }

    /// The process ends for a reason of its own: what is under way is not to blame.
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
    fn leads(&mut self, credentials: impl Iterator<Item = Arc<ObjectKey>>, now: Instant) {
        self.leading_since = Some(now);
        if self.suspects.is_empty() {
            return;
        }
        let all: HashSet<Arc<ObjectKey>> = credentials.collect();
        for (_, gone) in self.suspects.extract_if(|key, _| !all.contains(key)) {
            self.slots.free(gone.slot);
        }
        for (ObjectKey { namespace, name }, suspect) in &self.suspects {
            tracing::warn!(
                namespace,
                credential = name,
                crashes = suspect.crashes,
                "the process before ended while this credential was being reconciled: the others come first, and it is \
                 reconciled within about {} s",
                suspects::longest_wait(suspect.crashes).as_secs()
            );
        }
        self.unserved = all.into_iter().filter(|key| !self.suspects.contains_key(key)).collect();
        self.gauge();
    }

    fn begins(&mut self, key: &ObjectKey, uid: &str, now: Instant) -> Result<Option<Slot>, Duration> {
        // another credential of the same name is not suspected
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
        suspect.note(key, Left::UnderWay, &mut self.slots);
        self.gauge();
        Ok(None)
    }

    fn ended(&mut self, key: &ObjectKey, slot: Option<Slot>, now: Instant) {
        self.slots.free(slot);
        self.unserved.remove(key);
        match self.suspects.get_mut(key) {
            Some(suspect) => {
                // from the first time that it ended well: most credentials are reconciled more often than this lasts
                suspect.standing = Standing::Released(suspect.released.unwrap_or(now));
                suspect.released.get_or_insert(now);
                suspect.note(key, Left::Released, &mut self.slots);
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
            suspect.note(key, Left::Held, &mut self.slots);
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
    fn note(&self, key: &ObjectKey, left: Left, slots: &mut Slots) {
        if let Some(slot) = &self.slot {
            let (crashes, key, uid) = (self.crashes, key.clone(), self.uid.clone());
            slots.write(slot, &Record { left, crashes, key, uid });
        }
    }
}
