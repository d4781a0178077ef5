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
    /// The cluster was restored once.
    is_restored: Arc<AtomicBool>,
}

/// What is wrong with a status that is about an older spec than the one before it. One that was about a spec that there
/// is not, as after a restore ([`Generations::ahead`]), is corrected so. And one that is patched may be about an older spec
/// (decision 0029): the watch did not show the newer one. A false alarm is possible where a spec is edited between a
/// restore and that correction.
pub fn went_back(new: &Value, old: &Value, verb: Verb) -> Option<String> {
    let observed = |credential: &Value| credential["status"]["observedGeneration"].as_i64();
    let generation = new["metadata"]["generation"].as_i64()?;
    let (new, old) = (observed(new)?, observed(old)?);
    let is_correction = old > generation && new == generation;
    (new < old && !is_correction && verb != Verb::Patch)
        .then(|| format!("observedGeneration goes back from {old} to {new}"))
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
fn status_goes_back_only_from_a_spec_that_there_is_not() {
    let goes_back_by = |verb: Verb, generation: i64, from: i64, to: i64| {
        let credential = |observed: i64| {
            let metadata = json!({"generation": generation});
            json!({"metadata": metadata, "status": {"observedGeneration": observed}})
        };
        went_back(&credential(to), &credential(from), verb).is_some()
    };
    let goes_back = |generation, from, to| goes_back_by(Verb::Update, generation, from, to);
    assert!(!goes_back(2, 1, 2) && !goes_back(2, 2, 2));
    assert!(goes_back(2, 2, 1), "there is such a spec");
    assert!(!goes_back(1, 2, 1), "the cluster was restored");
    assert!(goes_back(3, 5, 1), "nor is that spec the one that there is");
    assert!(!goes_back_by(Verb::Patch, 2, 2, 1), "nothing showed it the newer one");
}
