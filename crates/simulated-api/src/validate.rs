//! What the API server refuses in an object, field by field.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    object::{finalizers, generation, is_terminating, meta},
    resources::{Resource, Rules},
    validate_kinds as kinds,
};

/// The longest name of an object, in characters (RFC 1123 subdomain).
pub const NAME_MAX: usize = 253;
/// The longest label value and the longest part of a qualified name, in characters.
const LABEL_MAX: usize = 63;
/// All annotations of an object together, in bytes.
const ANNOTATIONS_MAX: usize = 256 << 10;

/// One invalid field.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// Path of the field, such as `metadata.labels`.
    pub field: String,
    /// What is wrong, as in `Invalid value`.
    pub what: What,
    /// The value, where it is quoted.
    pub value: Option<Value>,
    /// The rule that it breaks; may be empty.
    pub detail: String,
}

/// In what way a field is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The value is not allowed.
    Invalid,
    /// There is no value.
    Required,
    /// It cannot be set, or not be changed.
    Forbidden,
    /// The value is too long.
    TooLong,
}

impl What {
    const fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Invalid => ("FieldValueInvalid", "Invalid value"),
            Self::Required => ("FieldValueRequired", "Required value"),
            Self::Forbidden => ("FieldValueForbidden", "Forbidden"),
            Self::TooLong => ("FieldValueTooLong", "Too long"),
        }
    }
}

impl Invalid {
    /// A value that breaks a rule.
    #[must_use]
    pub fn value(field: &str, value: impl Into<Value>, detail: &str) -> Self {
        Self::new(field, What::Invalid, Some(value.into()), detail)
    }

    /// A missing value.
    #[must_use]
    pub fn required(field: &str, detail: &str) -> Self {
        Self::new(field, What::Required, None, detail)
    }

    /// A field that cannot be set or changed.
    #[must_use]
    pub fn forbidden(field: &str, detail: &str) -> Self {
        Self::new(field, What::Forbidden, None, detail)
    }

    /// A value that is too long.
    #[must_use]
    pub fn too_long(field: &str, detail: &str) -> Self {
        Self::new(field, What::TooLong, None, detail)
    }

    fn new(field: &str, what: What, value: Option<Value>, detail: &str) -> Self {
        Self { field: field.to_owned(), what, value, detail: detail.to_owned() }
    }

    fn body(&self) -> String {
        let value = self.value.as_ref().map_or_else(String::new, |value| format!(": {value}"));
        let detail = if self.detail.is_empty() { String::new() } else { format!(": {}", self.detail) };
        format!("{}{value}{detail}", self.what.texts().1)
    }

    /// The cause as it is among the details of a `Status`.
    #[must_use]
    pub fn cause(&self) -> Value {
        json!({"reason": self.what.texts().0, "message": self.body(), "field": self.field})
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// What is invalid in an object that is created, or that replaces `old`.
#[must_use]
pub fn object(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<Invalid> {
    let mut errors = Vec::new();
    match old {
        Some(old) => immutable_metadata(new, old, &mut errors),
        None => name(new, &mut errors),
    }
    metadata(new, &mut errors);
    match resource.rules {
        Rules::Secret => kinds::secret(new, old, &mut errors),
        Rules::Lease => kinds::lease(new, &mut errors),
        Rules::Event => kinds::event(new, old, &mut errors),
        _ => {}
    }
    if let Some(validator) = &resource.validator {
        errors.extend(validator(new, old));
    }
    errors
}

fn name(new: &Value, errors: &mut Vec<Invalid>) {
    let name = meta(new, "name");
    if name.is_empty() {
        errors.push(Invalid::required("metadata.name", "name or generateName is required"));
    } else if !is_subdomain(name) {
        errors.push(Invalid::value("metadata.name", name, "a lowercase RFC 1123 subdomain is required"));
    }
}

fn is_subdomain(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_inner) && label.ends_with(is_inner) && label.chars().all(|c| is_inner(c) || c == '-')
    };
    name.len() <= NAME_MAX && name.split('.').all(is_label)
}

fn immutable_metadata(new: &Value, old: &Value, errors: &mut Vec<Invalid>) {
    let before = finalizers(old);
    let added: Vec<String> = finalizers(new).into_iter().filter(|name| !before.contains(name)).collect();
    if is_terminating(old) && !added.is_empty() {
        let detail =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        errors.push(Invalid::forbidden("metadata.finalizers", &detail));
    }
    if generation(new) < generation(old) {
        errors.push(Invalid::value("metadata.generation", generation(new), "must not be decremented"));
    }
    for field in ["name", "namespace", "uid"] {
        if meta(new, field) != meta(old, field) {
            errors.push(Invalid::value(&format!("metadata.{field}"), meta(new, field), "field is immutable"));
        }
    }
}

fn metadata(new: &Value, errors: &mut Vec<Invalid>) {
    let texts = |field: &str| new["metadata"][field].as_object().into_iter().flatten();
    for (key, value) in texts("labels") {
        if !is_qualified(key) {
            errors.push(Invalid::value("metadata.labels", key.as_str(), "a qualified name is required"));
        }
        if !is_label_value(value.as_str().unwrap_or_default()) {
            errors.push(Invalid::value("metadata.labels", value.clone(), "a valid label value is required"));
        }
    }
    let mut size = 0;
    for (key, value) in texts("annotations") {
        if !is_qualified(&key.to_lowercase()) {
            errors.push(Invalid::value("metadata.annotations", key.as_str(), "a qualified name is required"));
        }
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_MAX {
        let detail = format!("may not be more than {ANNOTATIONS_MAX} bytes");
        errors.push(Invalid::too_long("metadata.annotations", &detail));
    }
    owners(new, errors);
}

fn owners(new: &Value, errors: &mut Vec<Invalid>) {
    let owners = new["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut controller: Option<String> = None;
    for (index, owner) in owners.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let field = format!("metadata.ownerReferences[{index}].{field}");
                errors.push(Invalid::required(&field, "must not be empty"));
            }
        }
        if owner["controller"] == true {
            let text = |field: &str| owner[field].as_str().unwrap_or_default().to_owned();
            let this = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.push(Invalid::value("metadata.ownerReferences", json!(owners), &detail));
            } else {
                controller = Some(this);
            }
        }
    }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name_part(value)
}

fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name_part(key),
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
    }
}

fn is_name_part(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_outer = |c: char| c.is_ascii_alphanumeric();
    name.len() <= LABEL_MAX && name.starts_with(is_outer) && name.ends_with(is_outer) && name.chars().all(is_inner)
}
