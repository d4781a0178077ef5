//! POST, PUT, PATCH and DELETE: what the API server makes of an object before it stores it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    complete::{complete, drop_empty},
    managed_fields::{self, Writer},
    object::{self, meta, remove_meta, set_meta},
    patch::merge,
    request::{Call, Verb},
    resources::{Resource, Rules},
    state::State,
    status::{self, Failure},
    store::Key,
    validate::{self, Invalid},
};

/// Media type of merge patches.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Metadata that a client cannot set in a new object.
const SYSTEM: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"];
/// Finalizer by which dependents are left.
pub const ORPHAN: &str = "orphan";
/// Finalizer by which dependents are deleted first.
pub const FOREGROUND: &str = "foregroundDeletion";

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

fn key(call: &Call) -> Key {
    Key::new(&call.resource, call.namespace.as_deref(), &call.name)
}

fn now(state: &State) -> String {
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
    prepare_new(&resource, &mut object);
    object::drop_empty(&mut object);
    refuse_invalid(&resource, &name, &validate::object(&resource, &object, None))?;
    drop_empty(&resource, &mut object);
    if object::version(&object) != 0 {
        return Err(Failure::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    let key = Key::new(&resource, call.namespace.as_deref(), &name);
    if state.store.get(&key).is_some() {
        return Err(Failure::already_exists(&resource, &name));
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
    if media != MERGE_PATCH {
        return Err(Failure::unsupported(MERGE_PATCH));
    }
    let patch = call.json()?;
    let old = state.store.get(&key(call)).ok_or_else(|| Failure::not_found(&call.resource, &call.name))?;
    if !patch.is_object() {
        return Err(Failure::bad_request("error decoding patch: it is no object"));
    }
    let mut object = Value::clone(&old);
    merge(&mut object, &patch);
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
    let managed = owned(call, old, &mut new);
    set_meta(&mut new, "managedFields", managed(&now(state)));
    state.admit(call, &mut new, Some(old))?;
    check_version(resource, &call.name, old, &mut new)?;
    set_meta(&mut new, "generation", old["metadata"]["generation"].clone());
    prepare_update(call, old, &mut new);
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

/// `managedFields` of the update as a function of the time; takes them out of `new`.
fn owned<'a>(call: &'a Call, old: &'a Value, new: &mut Value) -> impl FnOnce(&str) -> Value + use<'a> {
    let given = remove_meta(new, "managedFields").unwrap_or_default();
    let before = &old["metadata"]["managedFields"];
    let managed = if !call.subresource.is_empty() {
        before.clone()
    } else if managed_fields::is_reset(&given) {
        Value::Null
    } else if given.is_null() {
        before.clone()
    } else {
        given
    };
    let mut new = new.clone();
    drop_empty(&call.resource, &mut new);
    move |now| {
        let (resource, subresource) = (&*call.resource, call.subresource.as_str());
        let mut old = old.clone();
        remove_meta(&mut old, "managedFields");
        Writer { resource, subresource, manager: &call.manager, now }.update(&old, &new, &managed)
    }
}

/// A write that changes nothing but times of field managers changes nothing.
fn keep_times(old: &Value, new: &mut Value) {
    let mut same = new.clone();
    set_meta(&mut same, "managedFields", old["metadata"]["managedFields"].clone());
    let fields = |object: &Value| object["metadata"]["managedFields"].clone();
    if same == *old && !managed_fields::differ(&fields(old), &fields(new)) {
        *new = same;
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

fn prepare_new(resource: &Resource, object: &mut Value) {
    if resource.counts_generations() {
        set_meta(object, "generation", json!(1));
    }
    match resource.rules {
        Rules::Custom => drop(object.as_object_mut().and_then(|fields| fields.remove("status"))),
        Rules::Workload => object["status"] = json!({}),
        Rules::Namespace => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        _ => {}
    }
}

fn prepare_update(call: &Call, old: &Value, new: &mut Value) {
    let is_status = call.subresource == "status";
    match call.resource.rules {
        Rules::Custom if is_status => {
            let (status, managed) = (new.get("status").cloned(), new["metadata"]["managedFields"].clone());
            *new = old.clone();
            set_meta(new, "managedFields", managed);
            set_part(new, "status", status);
        }
        Rules::Workload if is_status => {
            new["spec"] = old["spec"].clone();
            set_meta(new, "labels", old["metadata"]["labels"].clone());
        }
        Rules::Namespace if is_status => new["spec"] = old["spec"].clone(),
        Rules::Custom | Rules::Workload => {
            set_part(new, "status", old.get("status").cloned());
            if content(&call.resource, new) != content(&call.resource, old) {
                set_meta(new, "generation", json!(object::generation(old) + 1));
            }
        }
        Rules::Namespace => {
            new["spec"] = old["spec"].clone();
            new["status"] = old["status"].clone();
        }
        _ => {}
    }
}

fn set_part(object: &mut Value, name: &str, part: Option<Value>) {
    let Some(fields) = object.as_object_mut() else { return };
    match part {
        Some(part) => drop(fields.insert(name.to_owned(), part)),
        None => drop(fields.remove(name)),
    }
}

/// What makes a new generation when it changes.
fn content(resource: &Resource, object: &Value) -> Value {
    if resource.rules == Rules::Workload {
        // a Deployment's annotations are copied to its ReplicaSets
        let annotations = if resource.kind == "Deployment" { &object["metadata"]["annotations"] } else { &Value::Null };
        return json!([object["spec"], annotations]);
    }
    let mut content = object.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("metadata");
    }
    content
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

fn delete(state: &mut State, call: &Call) -> Written {
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

fn mark_terminating(state: &State, object: &mut Value) {
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
