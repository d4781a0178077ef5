//! GET of one object and LIST, page by page.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cache, object,
    request::{Call, Form, Verb},
    resources::Rules,
    selector::Selector,
    state::State,
    status::Failure,
    store::{Key, Objects},
};

/// The version in a continue token by which a list goes on with the objects of now.
const ANY_VERSION: i64 = -1;

/// Reads one object.
///
/// # Errors
/// As the API server answers.
pub fn get(state: &State, call: &Call) -> Result<Value, Failure> {
    let key = Key::new(&call.resource, call.namespace.as_deref(), &call.name);
    let found = match call.parameter("resourceVersion") {
        "" => state.store.get(&key),
        asked => cache::get(state, call, &key, asked, Instant::now())?,
    };
    let found = found.ok_or_else(|| Failure::not_found(&call.resource, &call.name))?;
    shown(&found, call.form)
}

/// An object in the form that was asked for.
///
/// # Errors
/// 406 where it has no such form.
pub fn shown(object: &Value, form: Form) -> Result<Value, Failure> {
    match form {
        Form::Whole => Ok(object.clone()),
        Form::Partial => Ok(object::partial(object)),
        Form::PartialList => {
            let message = "you requested PartialObjectMetadataList, but the requested object is not a list";
            Err(Failure::new(406, "NotAcceptable", message))
        }
    }
}

/// Whether the version that a read asks for has been reached.
#[must_use]
pub fn is_reached(state: &State, call: &Call, now: Instant) -> bool {
    let asked = call.parameter("resourceVersion");
    let current = match call.verb {
        Verb::Get => cache::revision(state, call, now),
        _ => state.store.revision(),
    };
    asked.is_empty() || asked.parse::<u64>().is_ok_and(|asked| asked <= current)
}

/// Reads one page of a collection.
///
/// # Errors
/// As the API server answers: 410 where the version was compacted away, 504 where it has not been reached, also that of a
/// continue token, as after a restore.
pub fn list(state: &State, call: &Call) -> Result<Value, Failure> {
    if call.form == Form::Partial {
        let message = "you requested PartialObjectMetadata, but the requested object is a list";
        return Err(Failure::new(406, "NotAcceptable", message));
    }
    let selector = Selector::new(call)?;
    let page = Page::new(state, call)?;
    let resource = call.resource.qualified();
    let is_in = |key: &Key| call.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
    let mut rest = of_resource(&page.objects, &resource)
        .filter(|(key, _)| is_in(key) && page.start.as_ref().is_none_or(|start| position(call, key) > *start));
    let mut items = Vec::new();
    let mut last = None;
    while items.len() < page.limit
        && let Some((key, object)) = rest.next()
    {
        if selector.matches(object) {
            items.push(item(call, object));
            last = Some(key);
        }
    }
    // there may be more, of which none needs to be selected
    let left = rest.count();
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(last) = last.filter(|_| left > 0) {
        let version = i64::try_from(page.revision).unwrap_or(ANY_VERSION);
        metadata["continue"] = json!(token(version, &position(call, last)));
        if selector.is_empty() {
            metadata["remainingItemCount"] = json!(left);
        }
    }
    if call.form == Form::Whole && call.resource.rules == Rules::Custom && metadata["continue"].is_null() {
        // lists of custom resources always have it
        metadata["continue"] = json!("");
    }
    let (kind, api_version) = match call.form {
        Form::PartialList => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        _ => (format!("{}List", call.resource.kind), call.resource.api_version()),
    };
    // an empty list of metadata is null, as the server makes it
    let is_null = items.is_empty() && call.form == Form::PartialList;
    let mut list = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
    // moved, since the macro would serialize them
    list["items"] = if is_null { Value::Null } else { Value::Array(items) };
    Ok(list)
}

/// The objects of one resource (plural and group), in their order.
fn of_resource<'a>(objects: &'a Objects, resource: &'a str) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
    let before_all = Key { resource: resource.to_owned(), namespace: String::new(), name: String::new() };
    objects.range(before_all..).take_while(move |(key, _)| key.resource == resource)
}

fn item(call: &Call, object: &Value) -> Value {
    if call.form == Form::PartialList {
        return object::partial(object);
    }
    let mut item = object.clone();
    if call.resource.rules != Rules::Custom
        && let Some(fields) = item.as_object_mut()
    {
        // lists of built-in types know the type of their items
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

/// Where a key is in a list, as continue tokens name it.
fn position(call: &Call, key: &Key) -> String {
    match call.namespace {
        None if call.resource.namespaced => format!("{}/{}", key.namespace, key.name),
        _ => key.name.clone(),
    }
}

struct Page<'a> {
    objects: Cow<'a, Objects>,
    revision: u64,
    start: Option<String>,
    limit: usize,
}

impl<'a> Page<'a> {
    fn new(state: &'a State, call: &Call) -> Result<Self, Failure> {
        let limit = call.parameter("limit").parse().ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let current = state.store.revision();
        let at = |revision: u64| state.store.at(revision).map(|objects| (Cow::<Objects>::Owned(objects), revision));
        let now = || (Cow::Borrowed(state.store.objects()), current);
        let continues = call.parameter("continue");
        if !continues.is_empty() {
            let (version, start) = parsed(continues)?;
            let found = match version.unsigned_abs() {
                _ if version == ANY_VERSION => Some(now()),
                asked if asked > current => return Err(Failure::too_large_version(asked, current)),
                asked => at(asked),
            };
            let (objects, revision) = found.ok_or_else(|| expired(&start))?;
            return Ok(Self { objects, revision, start: Some(start), limit });
        }
        let asked = call.parameter("resourceVersion");
        let asked: u64 = if asked.is_empty() {
            0
        } else {
            asked
                .parse()
                .map_err(|_| Failure::bad_request(format!("Invalid value: {asked:?}: invalid resource version")))?
        };
        if asked > current {
            return Err(Failure::too_large_version(asked, current));
        }
        let is_exact = call.parameter("resourceVersionMatch") == "Exact";
        // version 0 is answered from the cache, which has no pages
        let limit = if call.parameter("resourceVersion") == "0" { usize::MAX } else { limit };
        let (objects, revision) = if is_exact {
            at(asked).ok_or_else(|| Failure::expired("The resourceVersion for the provided list is too old."))?
        } else {
            now()
        };
        Ok(Self { objects, revision, start: None, limit })
    }
}

/// 410 with a token by which the list goes on, inconsistently.
fn expired(start: &str) -> Failure {
    let mut failure = Failure::expired(
        "The provided continue parameter is too old to display a consistent list result: start a new list, or \
         continue inconsistently with the continue token of this answer",
    );
    failure.continues = Some(token(ANY_VERSION, start));
    failure
}

fn token(version: i64, start: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": format!("{start}\0")});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn parsed(token: &str) -> Result<(i64, String), Failure> {
    let invalid = |_| Failure::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| invalid(()))?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| invalid(()))?;
    let version = token["rv"].as_i64().ok_or_else(|| invalid(()))?;
    let start = token["start"].as_str().ok_or_else(|| invalid(()))?;
    Ok((version, start.trim_end_matches('\0').to_owned()))
}
