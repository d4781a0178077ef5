//! A workload is restarted at most once for each token of a credential (contract section 2).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use itwin_api::secret_keys::RESTARTED_FOR;
use serde_json::Value;

/// The restarts so far: workload, annotation and its value.
#[derive(Clone, Default)]
pub struct Restarts(Arc<Mutex<BTreeSet<(String, String, String)>>>);

impl Restarts {
    /// Why the operator must not have made this write of a workload.
    pub fn objections(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let annotations = |workload: &Value| workload["spec"]["template"]["metadata"]["annotations"].clone();
        let (name, before) = (new["metadata"]["name"].to_string(), old.map(annotations).unwrap_or_default());
        let workload = format!("{}/{name}", new["metadata"]["namespace"]);
        let mut all = self.0.lock().expect("no panic");
        let mut objections = Vec::new();
        for (key, value) in annotations(new).as_object().into_iter().flatten() {
            if key.starts_with(RESTARTED_FOR)
                && before[key] != *value
                && !all.insert((workload.clone(), key.clone(), value.to_string()))
            {
                objections.push(format!("{workload} is restarted again for the token of {value} ({key})"));
            }
        }
        objections
    }

    /// Workloads are as they were: the cluster was restored to an older state.
    pub fn forget(&self) {
        self.0.lock().expect("no panic").clear();
    }
}
