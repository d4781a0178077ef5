//! What controllers do on their own: garbage collection by owner references, and the end of namespaces.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    delete::{FOREGROUND, ORPHAN, mark_terminating},
    object::{self, meta, set_meta},
    resources::{Resource, Rules},
    state::State,
    store::Key,
};

/// Makes every change that is due; returns how many. What one change makes due is made too.
pub fn collect(state: &mut State) -> usize {
    if !state.store.take_garbage() {
        return 0;
    }
    let mut changes = 0;
    while step(state) {
        changes += 1;
    }
    // after the last step nothing is due, whatever the others changed
    state.store.take_garbage();
    changes
}

/// Makes the first change that is due, in the order of objects.
fn step(state: &mut State) -> bool {
    let objects: Vec<(Key, Arc<Value>)> = state
        .store
        .objects()
        .iter()
        .filter(|(_, object)| object::may_be_collected(object))
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    objects.iter().any(|(key, object)| {
        finish_namespace(state, key, object) || finish_owner(state, key, object) || leave_owners(state, key, object)
    })
}

/// Deletes the content of a namespace that is about to end, and then the namespace.
fn finish_namespace(state: &mut State, key: &Key, object: &Value) -> bool {
    if key.resource != "namespaces" || !object::is_terminating(object) {
        return false;
    }
    let content: Vec<(Key, Arc<Value>)> = state
        .store
        .objects()
        .iter()
        .filter(|(other, _)| other.namespace == key.name)
        .map(|(other, object)| (other.clone(), object.clone()))
        .collect();
    if content.is_empty() {
        return state.store.delete(key).is_some();
    }
    content.iter().any(|(key, object)| delete(state, key, object))
}

/// Deletes an object, or begins to where finalizers are to be done first. Returns whether that changed anything.
fn delete(state: &mut State, key: &Key, object: &Value) -> bool {
    if object::finalizers(object).is_empty() {
        return state.store.delete(key).is_some();
    }
    if object::is_terminating(object) {
        return false;
    }
    let mut object = object.clone();
    mark_terminating(state, &mut object);
    state.store.put(key.clone(), object);
    true
}

/// Does what a finalizer of garbage collection asks for: dependents are left, or deleted, and then the finalizer goes.
fn finish_owner(state: &mut State, key: &Key, object: &Value) -> bool {
    let finalizers = object::finalizers(object);
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if !object::is_terminating(object) || !(has(ORPHAN) || has(FOREGROUND)) {
        return false;
    }
    let uid = meta(object, "uid");
    let dependents: Vec<(Key, Arc<Value>)> = state
        .store
        .objects()
        .iter()
        .filter(|(_, other)| owners(other).iter().any(|owner| owner["uid"] == uid))
        .map(|(key, object)| (key.clone(), object.clone()))
        .collect();
    for (key, dependent) in &dependents {
        let others: Vec<Value> = owners(dependent).into_iter().filter(|owner| owner["uid"] != uid).collect();
        let is_owned = others.iter().any(|owner| is_there(state, &key.namespace, owner) == Some(true));
        if has(ORPHAN) || is_owned {
            set_owners(state, key, dependent, others);
        } else {
            delete(state, key, dependent);
        }
    }
    let left: Vec<&String> = finalizers.iter().filter(|name| *name != ORPHAN && *name != FOREGROUND).collect();
    if left.is_empty() {
        return state.store.delete(key).is_some();
    }
    let mut object = object.clone();
    set_meta(&mut object, "finalizers", json!(left));
    state.store.put(key.clone(), object);
    true
}

/// Deletes an object whose owners are all gone; removes those that are gone where another is there.
fn leave_owners(state: &mut State, key: &Key, object: &Value) -> bool {
    let owners = owners(object);
    if owners.is_empty() || object::is_terminating(object) {
        return false;
    }
    // owners of kinds that are not offered are never taken for gone
    let (there, gone): (Vec<Value>, Vec<Value>) =
        owners.into_iter().partition(|owner| is_there(state, &key.namespace, owner).unwrap_or(true));
    match (there.is_empty(), gone.is_empty()) {
        (_, true) => false,
        (true, false) => delete(state, key, object),
        (false, false) => {
            set_owners(state, key, object, there);
            true
        }
    }
}

fn owners(object: &Value) -> Vec<Value> {
    object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default()
}

fn set_owners(state: &mut State, key: &Key, object: &Value, owners: Vec<Value>) {
    let mut object = object.clone();
    set_meta(&mut object, "ownerReferences", json!(owners));
    object::drop_empty(&mut object);
    state.store.put(key.clone(), object);
}

/// Whether an owner exists, by its UID; `None` where its kind is unknown.
fn is_there(state: &State, namespace: &str, owner: &Value) -> Option<bool> {
    let is_it = |resource: &&Arc<Resource>| {
        owner["kind"] == resource.kind.as_str() && owner["apiVersion"] == resource.api_version()
    };
    let resource = state.resources.iter().find(is_it).filter(|resource| resource.rules != Rules::Event)?;
    let name = owner["name"].as_str().unwrap_or_default();
    let key = Key::new(resource, resource.namespaced.then_some(namespace), name);
    Some(state.store.get(&key).is_some_and(|found| owner["uid"] == meta(&found, "uid")))
}
