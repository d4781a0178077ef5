//! Failures as the API server words them: a `Status` object with code, reason, message and details.

use serde_json::{Map, Value, json};

use crate::{
    resources::{Resource, Rules},
    validate::Invalid,
};

/// A failed call, as its `Status` describes it (Kubernetes API conventions, "Response Status Kind").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status code, 400 to 599.
    pub code: u16,
    /// Reason in CamelCase; empty where the server gives none.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// `details`, absent where empty.
    pub details: Option<Value>,
    /// Seconds that the `Retry-After` header asks for.
    pub retry_after: Option<u32>,
    /// Continue token of an expired list, with which the rest can be read inconsistently.
    pub continues: Option<String>,
}

impl Failure {
    /// A failure without details.
    #[must_use]
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.to_owned(), message.into());
        Self { code, reason, message, details: None, retry_after: None, continues: None }
    }

    /// 404: the object does not exist.
    #[must_use]
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::new(404, "NotFound", message).about(resource, &resource.plural, name)
    }

    /// 404: the server does not know the path.
    #[must_use]
    pub fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self { details: Some(json!({})), ..Self::new(404, "NotFound", message) }
    }

    /// 409: there is an object of this name.
    #[must_use]
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message).about(resource, &resource.plural, name)
    }

    /// 409: the object is not the one, or not as, that the request expects.
    #[must_use]
    pub fn conflict(resource: &Resource, name: &str, because: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {because}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, &resource.plural, name)
    }

    /// 409: the object changed since the version that the request names.
    #[must_use]
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let because = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, because)
    }

    /// 409 of a DELETE whose preconditions do not hold; unlike others it names the kind.
    #[must_use]
    pub fn precondition(resource: &Resource, name: &str, because: &str) -> Self {
        let (group, kind) = kind_of(resource);
        let message = format!("Operation cannot be fulfilled on {kind} \"{name}\": {because}");
        Self::new(409, "Conflict", message).with_details(group, &resource.kind, name)
    }

    /// 403 by admission.
    #[must_use]
    pub fn forbidden(resource: &Resource, name: &str, because: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {because}", resource.qualified());
        Self::new(403, "Forbidden", message).about(resource, &resource.plural, name)
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405: the resource has no such method.
    #[must_use]
    pub fn no_such_method() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: Some(json!({})), ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// 415: only bodies of this media type are understood.
    #[must_use]
    pub fn unsupported(media: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {media}");
        Self { details: Some(json!({})), ..Self::new(415, "UnsupportedMediaType", message) }
    }

    /// 410: what is asked for was compacted away.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 504: the version that a read asks for has not been reached.
    #[must_use]
    pub fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        failure.details = Some(json!({"causes": [cause], "retryAfterSeconds": 1}));
        failure.retry_after = Some(1);
        failure
    }

    /// 422 with a cause for each invalid field.
    #[must_use]
    pub fn invalid(resource: &Resource, name: &str, errors: &[Invalid]) -> Self {
        let (group, kind) = kind_of(resource);
        let mut failure = Self::invalid_named(&kind, name, errors);
        failure.details = None;
        failure = failure.with_details(group, &resource.kind, name);
        failure.add_causes(errors);
        failure
    }

    /// 422 of an update that must name a version and names none; unlike others it names the resource.
    #[must_use]
    pub fn invalid_version(resource: &Resource, name: &str, error: &Invalid) -> Self {
        let mut failure = Self::invalid_named(&resource.qualified(), name, std::slice::from_ref(error));
        failure.details = None;
        failure = failure.about(resource, &resource.plural, name);
        failure.add_causes(std::slice::from_ref(error));
        failure
    }

    /// 422 about something that is no object of a resource.
    #[must_use]
    pub fn invalid_named(kind: &str, name: &str, errors: &[Invalid]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(Invalid::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if let [one] = &texts[..] { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut failure = Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {list}"));
        failure.add_causes(errors);
        failure
    }

    fn add_causes(&mut self, errors: &[Invalid]) {
        let causes: Vec<Value> = errors.iter().map(Invalid::cause).collect();
        self.details.get_or_insert_with(|| json!({}))["causes"] = json!(causes);
    }

    fn about(self, resource: &Resource, kind: &str, name: &str) -> Self {
        self.with_details(&resource.group, kind, name)
    }

    fn with_details(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_with(|| json!({}));
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details[key] = json!(value);
            }
        }
        self
    }

    /// The `Status` object.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continues {
            metadata.insert("continue".to_owned(), json!(token));
        }
        let mut body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            body["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            body["details"] = details.clone();
        }
        body
    }
}

/// Group, and kind with group, as in messages about kinds. Events are those of the core group to the server.
fn kind_of(resource: &Resource) -> (&str, String) {
    if resource.group.is_empty() || resource.rules == Rules::Event {
        ("", resource.kind.clone())
    } else {
        (&resource.group, format!("{}.{}", resource.kind, resource.group))
    }
}

/// The `Status` of a DELETE that left nothing.
#[must_use]
pub fn deleted(resource: &Resource, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut details = json!({"name": metadata["name"], "kind": resource.plural, "uid": metadata["uid"]});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
