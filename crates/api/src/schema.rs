//! Schema fragments of both custom resources.
//!
//! The message about a string that does not match a `pattern` is the regular expression. CEL rules validate the form of
//! strings instead, with a message that says what to write. Of patterns only one is left, which says that a string is
//! ASCII, and the maximum length bounds the cost of the rules.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::limits;

/// Printable ASCII.
const ASCII: &str = "^[ -~]*$";
/// Go duration syntax, for CEL, whose `duration()` fails with an unhelpful message on a string that is no duration.
const DURATION: &str = "^([0-9]{1,9}([.][0-9]{1,9})?(ms|s|m|h)){1,4}$";

/// Printable ASCII of a form that a CEL rule validates.
fn formed(min: u32, max: usize, form: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": min,
        "maxLength": max,
        "pattern": ASCII,
        "x-kubernetes-validations": [{"rule": format!("self.matches('{form}')"), "message": message}],
    })
}

/// Go duration syntax, as `kubectl` users write it: `90s`, `5m`, `1h30m`.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    formed(
        1,
        limits::DURATION_MAX,
        DURATION,
        "must be a duration such as 90s, 20m or 1h30m: numbers with the units h, m, s or ms (a day is 24h)",
    )
}

/// A rule about a field that is a duration, unless its form is wrong, which another rule is about. In `rule`, the field
/// is `self`.
pub fn duration_rule(rule: &str, message: &str) -> Rule {
    Rule::new(format!("!self.matches('{DURATION}') || {rule}")).message(message)
}

/// `renewBefore` is not shorter than `minimumValidity`, where both are there and durations.
pub fn renew_before_rule() -> Rule {
    let is_no_duration = |field: &str| format!("!has(self.{field}) || !self.{field}.matches('{DURATION}')");
    Rule::new(format!(
        "{} || {} || duration(self.renewBefore) >= duration(self.minimumValidity)",
        is_no_duration("renewBefore"),
        is_no_duration("minimumValidity")
    ))
    .message(
        "renewBefore is shorter than minimumValidity, so the token would fall below it before each renewal: raise \
         renewBefore or lower minimumValidity",
    )
    .field_path(".renewBefore")
}

/// The name of a namespaced object (a DNS subdomain, RFC 1123).
pub fn object_name(_: &mut SchemaGenerator) -> Schema {
    formed(
        1,
        253,
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "must be the name of an object: lower case letters, digits, '-' and '.', with a letter or digit at both ends and \
         on both sides of each '.'",
    )
}

fn data_key(message: &str) -> Schema {
    formed(1, 253, "^[-._a-zA-Z0-9]+$", message)
}

/// A key of a Secret's `data`.
pub fn secret_key(_: &mut SchemaGenerator) -> Schema {
    data_key("must be a key of a Secret: letters, digits, '-', '_' and '.'")
}

/// A key of the `data` of a ConfigMap or a Secret.
pub fn ca_bundle_key(_: &mut SchemaGenerator) -> Schema {
    data_key("must be a key of a ConfigMap or Secret: letters, digits, '-', '_' and '.'")
}

fn string_set(items: Schema, min: u32, max: u32) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "minItems": min,
        "maxItems": max,
        "items": items,
    })
}

fn scope_token() -> Schema {
    formed(
        1,
        256,
        r#"^[^ "\\\\]+$"#,
        "must be one scope: no spaces, double quotes or backslashes; write several scopes as several items of the list",
    )
}

/// Scopes to request: up to 64 scope tokens (RFC 6749 section 3.3).
pub fn scopes(_: &mut SchemaGenerator) -> Schema {
    string_set(scope_token(), 0, 64)
}

/// Scopes that an authority allows; an empty list allows none.
pub fn allowed_scopes(_: &mut SchemaGenerator) -> Schema {
    string_set(scope_token(), 0, 256)
}

/// Resource indicators: absolute URIs without a fragment (RFC 8707 section 2).
pub fn resources(_: &mut SchemaGenerator) -> Schema {
    let resource = formed(
        3,
        limits::URL_MAX,
        "^[A-Za-z][A-Za-z0-9+.-]*:[^# ]+$",
        "must be an absolute URI without a fragment, such as https://api.example.com",
    );
    string_set(resource, 0, 16)
}

/// Accepted audiences (RFC 7519 section 4.1.3).
pub fn audiences(_: &mut SchemaGenerator) -> Schema {
    string_set(json_schema!({"type": "string", "minLength": 1, "maxLength": 2048}), 0, 16)
}

/// The audience of a token or of an assertion. CEL rules validate its characters, because they have better messages.
pub fn audience(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": limits::URL_MAX, "pattern": ASCII})
}

/// Audiences and resources that an authority allows; an empty list allows none.
pub fn allowed_audiences(_: &mut SchemaGenerator) -> Schema {
    string_set(json_schema!({"type": "string", "minLength": 1, "maxLength": limits::URL_MAX}), 0, 64)
}

/// A URL of at most 2048 characters. CEL rules validate its form, because they have better messages.
pub fn url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": limits::URL_MAX})
}

fn string_map(entries: usize, value: usize) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": entries,
        "additionalProperties": {"type": "string", "maxLength": value},
    })
}

/// Templates of data keys. `itwin_core::template` validates them.
pub fn templates(_: &mut SchemaGenerator) -> Schema {
    string_map(limits::TEMPLATES_MAX, limits::TEMPLATE_MAX)
}

/// Labels of the Secret. CEL rules validate their syntax, because they have better messages.
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    string_map(limits::LABELS_MAX, limits::LABEL_VALUE_MAX)
}

/// Annotations of the Secret. CEL rules validate their syntax.
pub fn annotations(_: &mut SchemaGenerator) -> Schema {
    string_map(limits::LABELS_MAX, limits::ANNOTATION_VALUE_MAX)
}
