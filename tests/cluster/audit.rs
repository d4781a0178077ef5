//! The calls of the operator to the API server, from the audit log.

use anyhow::Result;
use serde_json::Value;
use testbed::{Testbed, namespace::Namespace};

/// One call of the operator, except watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    pub verb: String,
    /// With the subresource, if any.
    pub resource: String,
    pub name: String,
}

impl Call {
    pub fn is_write(&self) -> bool {
        !["get", "list"].contains(&self.verb.as_str())
    }

    pub fn is_read_of_a_secret(&self) -> bool {
        self.verb == "get" && self.resource == "secrets"
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.verb, self.resource, self.name)
    }
}

/// The calls for a namespace up to now. The audit log holds a call before the operator gets the response.
pub fn calls(namespace: &Namespace) -> Result<Vec<Call>> {
    calls_of(&namespace.testbed, |entry| entry["objectRef"]["namespace"] == namespace.name.as_str())
}

/// The calls that are meant, by their entries in the log.
pub fn calls_of(testbed: &Testbed, is_meant: impl Fn(&Value) -> bool) -> Result<Vec<Call>> {
    let log = std::fs::read_to_string(testbed.directory.join("audit.log"))?;
    // the last line may be incomplete
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let calls = entries.filter(is_meant).map(|entry| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let subresource = object["subresource"].as_str().map(|subresource| format!("/{subresource}"));
        Call {
            verb: text(&entry["verb"]),
            resource: text(&object["resource"]) + &subresource.unwrap_or_default(),
            name: text(&object["name"]),
        }
    });
    Ok(calls.filter(|call| call.verb != "watch").collect())
}

/// The calls after the first `count`.
pub fn calls_since(namespace: &Namespace, count: usize) -> Result<Vec<Call>> {
    Ok(calls(namespace)?.split_off(count))
}
