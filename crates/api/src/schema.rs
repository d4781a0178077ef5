//! Schema fragments of both custom resources.
//!
//! Strings have a pattern and a maximum length. The pattern makes the CEL rules safe to evaluate (CEL's `duration()`
//! fails with an unhelpful message on a string that is not a duration), and the length bounds their cost.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::limits;

/// Go duration syntax, as `kubectl` users write it: `90s`, `5m`, `1h30m`.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h)){1,4}$",
        "maxLength": limits::DURATION_MAX,
    })
}

/// The name of a namespaced object (a DNS subdomain, RFC 1123).
pub fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    })
}

/// A key of a Secret's `data`.
pub fn secret_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": r"^[-._a-zA-Z0-9]+$",
    })
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
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "pattern": r"^[\x21\x23-\x5B\x5D-\x7E]+$",
    })
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
    string_set(
        json_schema!({
            "type": "string",
            "minLength": 3,
            "maxLength": limits::URL_MAX,
            "pattern": r"^[A-Za-z][A-Za-z0-9+.-]*:[^#\s]+$",
        }),
        0,
        16,
    )
}

/// Accepted audiences (RFC 7519 section 4.1.3).
pub fn audiences(_: &mut SchemaGenerator) -> Schema {
    string_set(json_schema!({"type": "string", "minLength": 1, "maxLength": 2048}), 0, 16)
}

/// The audience of a token or of an assertion. CEL rules validate its characters, because they have better messages.
pub fn audience(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": limits::URL_MAX, "pattern": r"^[\x20-\x7E]+$"})
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
