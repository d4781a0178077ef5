//! DELETE: preconditions, propagation, finalizers, and namespaces, which end later.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    object::{self, meta, set_meta},
    request::Call,
    resources::{Resource, Rules},
    state::State,
    status::{self, Failure},
    write::{Written, key, now},
};

/// Finalizer by which dependents are left.
pub const ORPHAN: &str = "orphan";
/// Finalizer by which dependents are deleted first.
pub const FOREGROUND: &str = "foregroundDeletion";

/// Deletes an object, or begins to.
///
/// # Errors
/// As the API server answers.
pub fn delete(state: &mut State, call: &Call) -> Written {
    let resource = call.resource.clone();
    let options = if call.body.is_empty() { json!({}) } else { call.json()? };
    let old = state.store.get(&key(call)).ok_or_else(|| Failure::not_found(&resource, &call.name))?;
    check_preconditions(&resource, &call.name, &old, &options["preconditions"])?;
    state.admit(call, &mut Value::Null, Some(&old))?;
    if resource.rules == Rules::Namespace {
        return Ok((200, terminate_namespace(state, call, &old)));
    }
    let policy = options["propagationPolicy"].as_str().or(match options["orphanDependents"].as_bool() {
        Some(true) => Some("Orphan"),
        Some(false) => Some("Background"),
        None => None,
    });
    let finalizers = if resource.rules == Rules::Event {
        object::finalizers(&old)
    } else {
        finalizers_for(&old, policy.unwrap_or(call.parameter("propagationPolicy")))
    };
    if finalizers.is_empty() {
        state.store.delete(&key(call));
        return Ok((200, Arc::new(status::deleted(&resource, &old))));
    }
    let mut object = Value::clone(&old);
    set_meta(&mut object, "finalizers", json!(finalizers));
    mark_terminating(state, &mut object);
    Ok((200, if *old == object { old } else { state.store.put(key(call), object) }))
}

fn check_preconditions(resource: &Resource, name: &str, old: &Value, wanted: &Value) -> Result<(), Failure> {
    for (field, label, since) in
        [("uid", "UID", "deleted and then recreated"), ("resourceVersion", "ResourceVersion", "modified")]
    {
        let found = meta(old, field);
        if let Some(wanted) = wanted[field].as_str().filter(|wanted| *wanted != found) {
            let because = format!(
                "the {label} in the precondition ({wanted}) does not match the {label} in record ({found}). \
                 The object might have been {since}"
            );
            return Err(Failure::precondition(resource, name, &because));
        }
    }
    Ok(())
}

/// The finalizers that are left to do when a deletion begins.
fn finalizers_for(object: &Value, policy: &str) -> Vec<String> {
    let mut finalizers = object::finalizers(object);
    let had = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let wanted = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        "Background" => None,
        _ if had(ORPHAN) => Some(ORPHAN),
        _ if had(FOREGROUND) => Some(FOREGROUND),
        _ => None,
    };
    finalizers.retain(|name| name != ORPHAN && name != FOREGROUND);
    finalizers.extend(wanted.map(str::to_owned));
    finalizers
}

/// Marks an object as about to be deleted, once.
pub fn mark_terminating(state: &State, object: &mut Value) {
    if !object::is_terminating(object) {
        if object::generation(object) > 0 {
            let next = object::generation(object) + 1;
            set_meta(object, "generation", json!(next));
        }
        set_meta(object, "deletionTimestamp", json!(now(state)));
    }
    set_meta(object, "deletionGracePeriodSeconds", json!(0));
}

fn terminate_namespace(state: &mut State, call: &Call, old: &Arc<Value>) -> Arc<Value> {
    if object::is_terminating(old) {
        return old.clone();
    }
    let mut object = Value::clone(old);
    set_meta(&mut object, "deletionTimestamp", json!(now(state)));
    object["status"]["phase"] = json!("Terminating");
    state.store.put(key(call), object)
}
