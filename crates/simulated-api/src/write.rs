//! POST, PUT, PATCH and DELETE: what the API server makes of an object before it stores it.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use crate::{
    complete::{complete, drop_empty},
    delete::delete,
    managed_fields::{self, Writer},
    object::{self, meta, remove_meta, set_meta},
    patch::{merge, strategic},
    prepare,
    request::{Call, Verb},
    resources::{Resource, Rules},
    state::State,
    status::Failure,
    store::Key,
    validate::{self, Invalid},
};

/// Media type of merge patches.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media type of strategic merge patches.
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
/// Metadata that a client cannot set in a new object.
const SYSTEM: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"];
/// The outcome of a write: HTTP status and body.
pub type Written = Result<(u16, Arc<Value>), Failure>;

/// Makes a write.
///
/// # Errors
/// As the API server answers.
pub fn write(state: &mut State, call: &Call) -> Written {
    match call.verb {
        Verb::Create => create(state, call, call.json()?),
        Verb::Update => update(state, call),
        Verb::Patch => patch(state, call),
        _ => delete(state, call),
    }
}

/// The key of the object that a call is about.
pub fn key(call: &Call) -> Key {
    Key::new(&call.resource, call.namespace.as_deref(), &call.name)
}

/// The time as objects show it, in whole seconds.
pub fn now(state: &State) -> String {
    state.now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn create(state: &mut State, call: &Call, mut object: Value) -> Written {
    let resource = call.resource.clone();
    check_kind(&resource, &object)?;
    check_namespace(call, &mut object)?;
    SYSTEM.iter().for_each(|field| drop(remove_meta(&mut object, field)));
    if meta(&object, "name").is_empty() && !meta(&object, "generateName").is_empty() {
        let name = format!("{}{}", meta(&object, "generateName"), state.random.suffix());
        set_meta(&mut object, "name", json!(name));
    }
    let name = meta(&object, "name").to_owned();
    complete(&resource, &mut object).map_err(|error| undecodable(&resource, &error))?;
    let now = now(state);
    let writer = Writer { resource: &resource, subresource: "", manager: &call.manager, now: &now };
    let mut encoded = object.clone();
    drop_empty(&resource, &mut encoded);
    let managed = writer.update(&resource.empty(), &encoded, &Value::Null);
    set_meta(&mut object, "managedFields", managed);
    check_lifecycle(state, call, &name)?;
    state.admit(call, &mut object, None)?;
    set_meta(&mut object, "uid", json!(state.random.uid()));
    set_meta(&mut object, "creationTimestamp", json!(now));
    prepare::new_object(&resource, &mut object);
    object::drop_empty(&mut object);
    refuse_invalid(&resource, &name, &validate::object(&resource, &object, None))?;
    drop_empty(&resource, &mut object);
    if object::version(&object) != 0 {
        return Err(Failure::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    let key = Key::new(&resource, call.namespace.as_deref(), &name);
    if let Some(found) = state.store.get(&key) {
        let mut failure = Failure::already_exists(&resource, &name);
        if object::is_terminating(&found) {
            failure.message = format!("object is being deleted: {}", failure.message);
        }
        return Err(failure);
    }
    Ok((201, state.store.put(key, object)))
}

fn update(state: &mut State, call: &Call) -> Written {
    let resource = call.resource.clone();
    let mut object = call.json()?;
    check_kind(&resource, &object)?;
    check_namespace(call, &mut object)?;
    let name = meta(&object, "name");
    if name != call.name {
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", call.name);
        return Err(Failure::bad_request(message));
    }
    complete(&resource, &mut object).map_err(|error| undecodable(&resource, &error))?;
    let old = state.store.get(&key(call));
    let uid = meta(&object, "uid");
    if !uid.is_empty() && uid != old.as_ref().map_or("", |old| meta(old, "uid")) {
        let found = old.as_ref().map_or("", |old| meta(old, "uid"));
        if old.is_some() || resource.creates_on_update() {
            return Err(uid_precondition(call, uid, found));
        }
    }
    match old {
        Some(old) => replace(state, call, &old, object),
        None if resource.creates_on_update() && call.subresource.is_empty() => {
            remove_meta(&mut object, "resourceVersion");
            create(state, call, object)
        }
        None => Err(Failure::not_found(&resource, &call.name)),
    }
}

fn uid_precondition(call: &Call, wanted: &str, found: &str) -> Failure {
    let prefix = if call.resource.group.is_empty() || call.resource.rules != Rules::Custom {
        call.resource.plural.clone()
    } else {
        format!("{}/{}", call.resource.group, call.resource.plural)
    };
    let namespace = call.namespace.as_deref().map_or_else(String::new, |namespace| format!("/{namespace}"));
    let because = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{prefix}{namespace}/{}, ResourceVersion: 0, \
         AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}",
        call.name
    );
    Failure::conflict(&call.resource, &call.name, &because)
}

fn patch(state: &mut State, call: &Call) -> Written {
    let media = call.content_type.split(';').next().unwrap_or_default().trim();
    // custom resources have no strategy
    let is_strategic = media == STRATEGIC_MERGE_PATCH && call.resource.rules != Rules::Custom;
    if media != MERGE_PATCH && !is_strategic {
        return Err(Failure::unsupported(MERGE_PATCH));
    }
    let patch = call.json()?;
    let old = state.store.get(&key(call)).ok_or_else(|| Failure::not_found(&call.resource, &call.name))?;
    if !patch.is_object() {
        return Err(Failure::bad_request("error decoding patch: it is no object"));
    }
    let mut object = Value::clone(&old);
    if is_strategic {
        strategic(&mut object, &patch)
    } else {
        merge(&mut object, &patch)
    }
    complete(&call.resource, &mut object).map_err(|error| {
        // the server quotes the patched object as a whole
        Failure::invalid_named("", "", &[Invalid::value("patch", object.to_string(), &error)])
    })?;
    check_namespace(call, &mut object)?;
    if meta(&object, "name") != call.name {
        let name = meta(&object, "name");
        let message = format!("the name of the object ({name}) does not match the name on the URL ({})", call.name);
        return Err(Failure::bad_request(message));
    }
    replace(state, call, &old, object)
}

/// Stores `new`, which is complete, in place of `old`.
fn replace(state: &mut State, call: &Call, old: &Arc<Value>, mut new: Value) -> Written {
    let resource = &*call.resource;
    let managed = owned(call, old, &mut new, &now(state));
    set_meta(&mut new, "managedFields", managed);
    state.admit(call, &mut new, Some(old))?;
    check_version(resource, &call.name, old, &mut new)?;
    set_meta(&mut new, "generation", old["metadata"]["generation"].clone());
    prepare::updated_object(call, old, &mut new);
    if meta(&new, "uid").is_empty() {
        set_meta(&mut new, "uid", old["metadata"]["uid"].clone());
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        set_meta(&mut new, field, old["metadata"][field].clone());
    }
    object::drop_empty(&mut new);
    refuse_invalid(resource, &call.name, &validate::object(resource, &new, Some(old)))?;
    drop_empty(resource, &mut new);
    keep_times(old, &mut new);
    if object::is_terminating(&new) && object::finalizers(&new).is_empty() && resource.rules != Rules::Namespace {
        // the last finalizer was removed
        state.store.delete(&key(call));
        return Ok((200, Arc::new(new)));
    }
    if **old == new {
        return Ok((200, old.clone()));
    }
    Ok((200, state.store.put(key(call), new)))
}

/// `managedFields` after the update; takes them out of `new`.
fn owned(call: &Call, old: &Value, new: &mut Value, now: &str) -> Value {
    let given = remove_meta(new, "managedFields").unwrap_or_default();
    let before = &old["metadata"]["managedFields"];
    let managed = if !call.subresource.is_empty() {
        before
    } else if managed_fields::is_reset(&call.resource, &given) {
        &Value::Null
    } else if object::is_empty(&given) {
        before
    } else {
        &given
    };
    let (resource, subresource) = (&*call.resource, call.subresource.as_str());
    let encoded = match resource.rules {
        Rules::Secret | Rules::ConfigMap => {
            let mut encoded = new.clone();
            drop_empty(resource, &mut encoded);
            Cow::Owned(encoded)
        }
        // nothing is left to drop in an object that is complete
        _ => Cow::Borrowed(&*new),
    };
    Writer { resource, subresource, manager: &call.manager, now }.update(old, &encoded, managed)
}

/// A write that changes nothing but times of field managers changes nothing.
fn keep_times(old: &Value, new: &mut Value) {
    let before = &old["metadata"]["managedFields"];
    let is_same = object::fields_but(old, "metadata").eq(object::fields_but(new, "metadata"))
        && object::fields_but(&old["metadata"], "managedFields")
            .eq(object::fields_but(&new["metadata"], "managedFields"));
    if is_same && !before.is_null() && !managed_fields::differ(before, &new["metadata"]["managedFields"]) {
        set_meta(new, "managedFields", before.clone());
    }
}

fn check_version(resource: &Resource, name: &str, old: &Value, new: &mut Value) -> Result<(), Failure> {
    let version = object::version(new);
    if version == 0 && resource.updates_unconditionally() {
        set_meta(new, "resourceVersion", old["metadata"]["resourceVersion"].clone());
    } else if version == 0 {
        let error = Invalid::value("metadata.resourceVersion", 0, "must be specified for an update");
        return Err(Failure::invalid_version(resource, name, &error));
    } else if version != object::version(old) {
        return Err(Failure::modified(resource, name));
    }
    Ok(())
}

fn refuse_invalid(resource: &Resource, name: &str, errors: &[Invalid]) -> Result<(), Failure> {
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid(resource, name, errors)) }
}

fn undecodable(resource: &Resource, error: &str) -> Failure {
    let (kind, version) = (&resource.kind, &resource.version);
    Failure::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
}

fn check_kind(resource: &Resource, object: &Value) -> Result<(), Failure> {
    if !object.is_object() {
        return Err(Failure::bad_request("the body is no object"));
    }
    // built-in types know what they decode into
    let may_lack = resource.rules != Rules::Custom;
    let is = |field: &str, expected: &str| may_lack && object[field].is_null() || object[field] == expected;
    if is("apiVersion", &resource.api_version()) && is("kind", &resource.kind) {
        return Ok(());
    }
    let given = object["apiVersion"].as_str().unwrap_or_default();
    let message = format!(
        "the API version in the data ({given}) does not match the expected API version ({})",
        resource.api_version()
    );
    Err(Failure::bad_request(message))
}

fn check_namespace(call: &Call, object: &mut Value) -> Result<(), Failure> {
    let requested = call.namespace.clone().unwrap_or_default();
    match meta(object, "namespace") {
        "" if !requested.is_empty() => set_meta(object, "namespace", json!(requested)),
        given if given != requested => {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Failure::bad_request(message));
        }
        _ => {}
    }
    Ok(())
}

/// Nothing is created in a namespace that does not exist or is about to end.
fn check_lifecycle(state: &State, call: &Call, name: &str) -> Result<(), Failure> {
    let Some(namespace) = &call.namespace else { return Ok(()) };
    let namespaces = state.namespaces();
    let found = state.store.get(&Key::new(&namespaces, None, namespace));
    let Some(found) = found else { return Err(Failure::not_found(&namespaces, namespace)) };
    if found["status"]["phase"] != "Terminating" {
        return Ok(());
    }
    let because = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut failure = Failure::forbidden(&call.resource, name, &because);
    let details = failure.details.get_or_insert_with(|| json!({}));
    details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    Err(failure)
}
