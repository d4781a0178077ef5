//! What a status says is about the spec that it names (contract section 5): no failure of an attempt for an earlier one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use simulated_api::request::Verb;

/// Times of a status have no fractions of a second.
const PRECISION: TimeDelta = TimeDelta::seconds(1);

/// The newest generation of a credential, and since when there is one.
type Change = (i64, DateTime<Utc>);

/// When the spec of each credential changed last, by UID.
#[derive(Clone, Default)]
pub struct Generations {
    changes: Arc<Mutex<BTreeMap<String, Change>>>,
    /// Which process wrote the newest generation that a status was about, by UID.
    writers: Arc<Mutex<BTreeMap<String, String>>>,
    /// The cluster was restored once.
    is_restored: Arc<AtomicBool>,
}

impl Generations {
    /// A credential is written.
    pub fn written(&self, new: &Value, old: Option<&Value>, now: DateTime<Utc>) {
        let Some(old) = old.filter(|old| old["spec"] != new["spec"]) else { return };
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        self.changes.lock().expect("no panic").insert(old["metadata"]["uid"].to_string(), (generation, now));
    }

    /// Generations are as they were: the cluster was restored to an older state.
    pub fn forget(&self) {
        self.changes.lock().expect("no panic").clear();
        self.is_restored.store(true, Ordering::SeqCst);
    }

    /// What is wrong with a status that is about an older spec than the one before it. One that was about a spec that
    /// there is not, as after a restore ([`Generations::ahead`]), is corrected so. And a process that cannot list the
    /// object patches the status, which may be about an older spec than the process before it knew (decision 0029). A
    /// false alarm is possible where a spec is edited between a restore and that correction.
    pub fn went_back(&self, new: &Value, old: &Value, verb: Verb, client: &str) -> Option<String> {
        let observed = |credential: &Value| credential["status"]["observedGeneration"].as_i64();
        let generation = new["metadata"]["generation"].as_i64()?;
        let uid = new["metadata"]["uid"].to_string();
        let (new, old) = (observed(new)?, observed(old).unwrap_or_default());
        let mut writers = self.writers.lock().expect("no panic");
        let is_its_own = writers.get(&uid).is_some_and(|writer| writer == client);
        if new >= old {
            writers.insert(uid, client.to_owned());
            return None;
        }
        let is_correction = old > generation && new == generation;
        let is_unseen = verb == Verb::Patch && (!is_its_own || self.is_restored.load(Ordering::SeqCst));
        (!is_correction && !is_unseen).then(|| format!("observedGeneration goes back from {old} to {new}"))
    }

    /// What is wrong with a status that is about a spec that there is not. After a restore, one that is patched may be:
    /// no list shows the object then, and the status is not withheld.
    pub fn ahead(&self, credential: &Value, verb: Verb) -> Option<String> {
        let observed = credential["status"]["observedGeneration"].as_i64();
        let is_ahead = observed > credential["metadata"]["generation"].as_i64();
        let is_unseen = verb == Verb::Patch && self.is_restored.load(Ordering::SeqCst);
        (is_ahead && !is_unseen).then(|| "observedGeneration is of a spec that there is not".to_owned())
    }

    /// What is wrong with a status that is being written while the operator's clock is right.
    pub fn objection(&self, credential: &Value) -> Option<String> {
        let status = &credential["status"];
        let (generation, changed_at) =
            *self.changes.lock().expect("no panic").get(&credential["metadata"]["uid"].to_string())?;
        let failed_at = DateTime::parse_from_rfc3339(status["lastFailure"]["time"].as_str()?).ok()?.to_utc();
        let is_claimed = status["observedGeneration"] == generation && failed_at + PRECISION < changed_at;
        is_claimed.then(|| {
            let failure = &status["lastFailure"];
            format!("a failure of {failed_at} is claimed for generation {generation} of {changed_at}: {failure}")
        })
    }
}

#[test]
fn status_goes_back_only_from_a_spec_that_there_is_not_or_as_an_earlier_process_knew_it() {
    let goes_back_by = |verb: Verb, client: &str, generation: i64, from: i64, to: i64| {
        let credential = |observed: i64| {
            let metadata = json!({"generation": generation});
            json!({"metadata": metadata, "status": {"observedGeneration": observed}})
        };
        let generations = Generations::default();
        assert_eq!(generations.went_back(&credential(from), &credential(1), Verb::Update, "replica-1"), None);
        generations.went_back(&credential(to), &credential(from), verb, client).is_some()
    };
    let goes_back = |generation, from, to| goes_back_by(Verb::Update, "replica-1", generation, from, to);
    assert!(!goes_back(2, 1, 2) && !goes_back(2, 2, 2));
    assert!(goes_back(2, 2, 1), "there is such a spec");
    assert!(!goes_back(1, 2, 1), "the cluster was restored");
    assert!(goes_back(3, 5, 1), "nor is that spec the one that there is");
    assert!(!goes_back_by(Verb::Patch, "replica-2", 2, 2, 1), "nothing showed it the newer one");
    assert!(goes_back_by(Verb::Patch, "replica-1", 2, 2, 1), "it wrote that itself");
}
