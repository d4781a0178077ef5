//! What the API server refuses in Secrets, Leases and events.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    object::meta,
    validate::{Invalid, NAME_MAX},
};

/// The longest note of an event, in bytes.
const NOTE_MAX: usize = 1024;
/// All values of a Secret together, in bytes.
const SECRET_MAX: usize = 1 << 20;

/// What is invalid in a Secret.
pub fn secret(new: &Value, old: Option<&Value>, errors: &mut Vec<Invalid>) {
    if let Some(old) = old {
        if new["type"] != old["type"] {
            errors.push(Invalid::value("type", new["type"].clone(), "field is immutable"));
        }
        if old["immutable"] == true {
            const DETAIL: &str = "field is immutable when `immutable` is set";
            if new["immutable"] != true {
                errors.push(Invalid::forbidden("immutable", DETAIL));
            }
            if new["data"] != old["data"] {
                errors.push(Invalid::forbidden("data", DETAIL));
            }
        }
    }
    let mut size = 0;
    for (key, value) in new["data"].as_object().into_iter().flatten() {
        let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || key.len() > NAME_MAX || !key.chars().all(is_inner) {
            errors.push(Invalid::value(&format!("data[{key}]"), key.as_str(), "a valid config key is required"));
        }
        size += STANDARD.decode(value.as_str().unwrap_or_default()).map_or(0, |value| value.len());
    }
    if size > SECRET_MAX {
        let detail = format!("may not be more than {SECRET_MAX} bytes");
        errors.push(Invalid::too_long("data", &detail));
    }
}

/// What is invalid in a Lease.
pub fn lease(new: &Value, errors: &mut Vec<Invalid>) {
    let spec = &new["spec"];
    for (field, least, detail) in [
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ] {
        if spec[field].as_i64().is_some_and(|value| value < least) {
            errors.push(Invalid::value(&format!("spec.{field}"), spec[field].clone(), detail));
        }
    }
}

/// Fields of an event that never change, by their names here and in the internal type that messages use.
const EVENT_IMMUTABLE: [(&str, &str); 8] = [
    ("regarding", "involvedObject"),
    ("reason", "reason"),
    ("note", "message"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("reportingController", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// What is invalid in an event.
pub fn event(new: &Value, old: Option<&Value>, errors: &mut Vec<Invalid>) {
    let text = |field: &str| new[field].as_str().unwrap_or_default();
    for field in ["reportingController", "reportingInstance", "action", "reason"] {
        if text(field).is_empty() {
            errors.push(Invalid::required(field, ""));
        }
    }
    if text("note").len() > NOTE_MAX {
        errors.push(Invalid::value("message", "", &format!("can have at most {NOTE_MAX} characters")));
    }
    let regarding = new["regarding"]["namespace"].as_str().unwrap_or_default();
    if regarding.is_empty() && !["default", "kube-system"].contains(&meta(new, "namespace")) {
        errors.push(Invalid::value("involvedObject.namespace", "", "does not match event.namespace"));
    }
    let before = old.map_or(&Value::Null, |old| &old["series"]);
    if new["series"] != *before && new["series"]["count"].as_i64().is_some_and(|count| count < 2) {
        errors.push(Invalid::value("series.count", "", "should be at least 2"));
    }
    let Some(old) = old else { return };
    for (field, internal) in EVENT_IMMUTABLE {
        if new[field] != old[field] {
            errors.push(Invalid::value(internal, new[field].clone(), "field is immutable"));
        }
    }
}
