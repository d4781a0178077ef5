//! What the API server allowed the operator to do, according to the audit log.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use crate::Testbed;

/// Verb, API group and resource.
pub type Use = (String, String, String);

/// Verb, API group and resource of each rule of a role, or of the result of a rules review.
#[must_use]
pub fn granted(rules: &Value) -> BTreeSet<Use> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                granted.extend(words(&rule["verbs"]).into_iter().map(|verb| (verb, group.clone(), resource.clone())));
            }
        }
    }
    granted
}

/// What the operators used, and what was forbidden to them.
///
/// # Errors
/// Fails if the log cannot be read.
pub fn used(testbed: &Testbed) -> Result<(BTreeSet<Use>, Vec<Use>)> {
    let (mut used, mut refused) = (BTreeSet::new(), Vec::new());
    for line in std::fs::read_to_string(testbed.directory.join("audit.log"))?.lines() {
        // the last line may be incomplete
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let object = &entry["objectRef"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        let entry_use = (text(&entry["verb"]), text(&object["apiGroup"]), resource);
        // not what admission denies, which the role allows
        if entry["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            refused.push(entry_use);
        } else {
            used.insert(entry_use);
        }
    }
    Ok((used, refused))
}
