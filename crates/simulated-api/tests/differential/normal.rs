//! Answers in a form in which those of two servers can be compared, and all that may differ between them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// What one server called UIDs and versions, numbered in the order in which they came.
#[derive(Default)]
pub struct Normal {
    uids: BTreeMap<String, usize>,
    versions: BTreeMap<String, usize>,
}

impl Normal {
    /// The numbers of the versions in the order of the versions.
    pub fn order(&self) -> Vec<usize> {
        let mut versions: Vec<(u64, usize)> =
            self.versions.iter().map(|(version, number)| (version.parse().unwrap_or_default(), *number)).collect();
        versions.sort_unstable();
        versions.into_iter().map(|(_, number)| number).collect()
    }

    /// An answer without what may differ.
    pub fn answer(&mut self, code: u16, mut answer: Value) -> Value {
        match answer["kind"].as_str() {
            Some("Status") => self.status(code, &mut answer),
            Some("Deployment") => deployment(&mut answer),
            _ => {}
        }
        // the revision of a list moves with everything in the cluster
        if answer["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) {
            let metadata = answer["metadata"].as_object_mut().unwrap();
            metadata.insert("resourceVersion".to_owned(), json!("of a list"));
            metadata
                .entry("continue")
                .and_modify(|token| *token = json!(if *token == "" { "no token" } else { "token" }));
            for item in answer["items"].as_array_mut().into_iter().flatten() {
                *item = self.object(item.take());
            }
            return answer;
        }
        self.object(answer)
    }

    fn object(&mut self, mut object: Value) -> Value {
        let Some(metadata) = object["metadata"].as_object_mut() else { return object };
        for field in ["creationTimestamp", "deletionTimestamp"] {
            metadata.entry(field).and_modify(|time| *time = json!(time.is_string()));
        }
        if let Some(uid) = metadata.get("uid").and_then(Value::as_str) {
            let number = self.uids.len();
            let number = *self.uids.entry(uid.to_owned()).or_insert(number);
            metadata["uid"] = json!(format!("uid {number}"));
        }
        // Deployments are also written by their controller
        let is_deployment = |metadata: &serde_json::Map<String, Value>| {
            metadata
                .get("managedFields")
                .is_some_and(|fields| fields.to_string().contains("\"apiVersion\":\"apps/v1\""))
        };
        if is_deployment(metadata) {
            metadata.remove("resourceVersion");
        } else if let Some(version) = metadata.get("resourceVersion").and_then(Value::as_str) {
            let number = self.versions.len();
            let number = *self.versions.entry(version.to_owned()).or_insert(number);
            metadata["resourceVersion"] = json!(format!("version {number}"));
        }
        if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
            entries.retain(|entry| entry["manager"] != "kube-controller-manager");
            for entry in entries.iter_mut() {
                entry["time"] = json!(entry["time"].is_string());
            }
            // they are sorted by time first
            entries.sort_by_key(ToString::to_string);
        }
        object
    }

    fn status(&self, code: u16, status: &mut Value) {
        for (uid, number) in &self.uids {
            replace(status, uid, &format!("uid {number}"));
        }
        // the simulated server words in its own way why a value is invalid or cannot be decoded or shown
        if matches!(code, 400 | 406 | 415) {
            status.as_object_mut().unwrap().remove("message");
        }
        if code == 422 {
            status.as_object_mut().unwrap().remove("message");
            // and says everything once, in an order of its own
            if let Some(Value::Array(causes)) = status.pointer_mut("/details/causes") {
                causes.iter_mut().for_each(|cause| drop(cause.as_object_mut().unwrap().remove("message")));
                causes.sort_by_key(ToString::to_string);
                causes.dedup();
            }
        }
        // versions in messages
        if let Some(message) = status["message"].as_str() {
            let plain: String = message.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            let mut plain = plain;
            while plain.contains("00") {
                plain = plain.replace("00", "0");
            }
            status["message"] = json!(plain);
        }
        if let Some(uid) = status["details"]["uid"].as_str().and_then(|uid| self.uids.get(uid)) {
            status["details"]["uid"] = json!(format!("uid {uid}"));
        }
    }
}

/// The status of a Deployment is its controller's.
fn deployment(object: &mut Value) {
    object.as_object_mut().unwrap().remove("status");
}

fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) => *text = text.replace(from, to),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|item| replace(item, from, to)),
        _ => {}
    }
}

/// Where two answers differ.
pub fn difference(fake: &Value, real: &Value) -> String {
    let mut lines = Vec::new();
    compare("", Some(fake), Some(real), &mut lines);
    lines.join("\n")
}

fn compare(path: &str, fake: Option<&Value>, real: Option<&Value>, lines: &mut Vec<String>) {
    match (fake, real) {
        (fake, real) if fake == real => {}
        (Some(Value::Object(fake)), Some(Value::Object(real))) => {
            let names: BTreeSet<&String> = fake.keys().chain(real.keys()).collect();
            names.iter().for_each(|name| compare(&format!("{path}/{name}"), fake.get(*name), real.get(*name), lines));
        }
        (Some(Value::Array(fake)), Some(Value::Array(real))) => {
            for index in 0..fake.len().max(real.len()) {
                compare(&format!("{path}/{index}"), fake.get(index), real.get(index), lines);
            }
        }
        (fake, real) => {
            let text = |side: Option<&Value>| side.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            lines.push(format!("  {path}\n    simulated: {}\n    real:      {}", text(fake), text(real)));
        }
    }
}
