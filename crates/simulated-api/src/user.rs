//! Direct access to the server, past faults and the log: what a test does as some user.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    list,
    object::meta,
    request::{Call, Form, Verb},
    resources::Resource,
    server::ApiServer,
    status::Failure,
    write::write,
};

/// A user who acts at once, under the name of a field manager. Resources are named by plural or kind; the namespace is
/// empty for those without.
#[derive(Clone, Debug)]
pub struct User {
    server: ApiServer,
    name: String,
}

impl User {
    pub(crate) fn new(server: ApiServer, name: &str) -> Self {
        Self { server, name: name.to_owned() }
    }

    /// Creates an object of the kind that it names.
    ///
    /// # Errors
    /// As the API server answers.
    pub fn create(&self, object: &Value) -> Result<Arc<Value>, Failure> {
        self.write(Verb::Create, (kind(object), meta(object, "namespace"), "", ""), object)
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// As the API server answers.
    pub fn update(&self, object: &Value) -> Result<Arc<Value>, Failure> {
        let place = (kind(object), meta(object, "namespace"), meta(object, "name"), "");
        self.write(Verb::Update, place, object)
    }

    /// Applies a merge patch.
    ///
    /// # Errors
    /// As the API server answers.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> Result<Arc<Value>, Failure> {
        self.write(Verb::Patch, (resource, namespace, name, ""), patch)
    }

    /// Applies a merge patch to the status.
    ///
    /// # Errors
    /// As the API server answers.
    pub fn patch_status(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Arc<Value>, Failure> {
        self.write(Verb::Patch, (resource, namespace, name, "status"), patch)
    }

    /// Deletes an object with these `DeleteOptions`.
    ///
    /// # Errors
    /// As the API server answers.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str, options: &Value) -> Result<Arc<Value>, Failure> {
        self.write(Verb::Delete, (resource, namespace, name, ""), options)
    }

    /// Reads an object; `None` where there is none.
    #[must_use]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let call = self.call(Verb::Get, (resource, namespace, name, ""), &Value::Null).ok()?;
        self.server.with(|state| list::get(state, &call)).ok()
    }

    /// Reads all objects of a resource, in a namespace or, where that is empty, everywhere.
    #[must_use]
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let call = self.call(Verb::List, (resource, namespace, "", ""), &Value::Null);
        let list = call.and_then(|call| self.server.with(|state| list::list(state, &call)));
        match list.map(|mut list| list["items"].take()) {
            Ok(Value::Array(items)) => items,
            _ => Vec::new(),
        }
    }

    fn write(&self, verb: Verb, place: (&str, &str, &str, &str), body: &Value) -> Result<Arc<Value>, Failure> {
        let call = self.call(verb, place, body)?;
        self.server.change(|state| write(state, &call)).map(|(_, object)| object)
    }

    fn call(
        &self,
        verb: Verb,
        (resource, namespace, name, subresource): (&str, &str, &str, &str),
        body: &Value,
    ) -> Result<Call, Failure> {
        let resource: Arc<Resource> =
            self.server.with(|state| state.resource(resource)).ok_or_else(Failure::no_such_resource)?;
        let body = if body.is_null() { json!({}) } else { body.clone() };
        Ok(Call {
            client: self.name.clone(),
            verb,
            namespace: (resource.namespaced && !namespace.is_empty()).then(|| namespace.to_owned()),
            resource,
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            query: BTreeMap::new(),
            form: Form::Whole,
            manager: self.name.clone(),
            content_type: "application/merge-patch+json".to_owned(),
            body: Bytes::from(body.to_string()),
        })
    }
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}
