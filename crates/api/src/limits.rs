//! The longest of everything that tenants and authorization servers write, in bytes unless stated otherwise.
//!
//! The schema refuses what is longer, and the code that reads a value checks again: an object may be older than the
//! schema, and no schema stands between an authorization server and the operator.

/// An access token: web servers take 8 to 16 KiB of headers by default, and the largest tokens known have 20 KiB.
pub const ACCESS_TOKEN_MAX: usize = 32 * 1024;
/// `token_type`, which is always written as `Bearer`.
pub const TOKEN_TYPE_MAX: usize = 16;
/// A time in RFC 3339, the year 262142 included.
pub const TIME_MAX: usize = 32;
/// Scopes, requested or granted, as one text with a space between two of them: 64 scopes of 127 characters.
pub const SCOPE_MAX: usize = 8 * 1024;
/// A URL: what browsers and proxies take.
pub const URL_MAX: usize = 2048;
/// Resource indicators of a credential together: four URLs of the longest kind.
pub const RESOURCES_MAX: usize = 8 * 1024;

/// Templates of a credential.
pub const TEMPLATES_MAX: usize = 16;
/// One template.
pub const TEMPLATE_MAX: usize = 4 * 1024;
/// The templates of a credential together, with their keys.
pub const TEMPLATES_TOTAL_MAX: usize = 16 * 1024;
/// The results of the templates of a credential together, if every value had its greatest length. The API server takes
/// a Secret of 1 MiB, and the keys that are always written need up to 75 KiB of it.
pub const RENDERED_MAX: usize = 768 * 1024;

/// Labels, and as many annotations, of `secretTemplate`.
pub const LABELS_MAX: usize = 32;
/// The value of a label, as the API server limits it.
pub const LABEL_VALUE_MAX: usize = 63;
/// The value of an annotation of `secretTemplate`, in characters.
pub const ANNOTATION_VALUE_MAX: usize = 4096;
/// Labels and annotations of `secretTemplate` together, their keys included.
pub const LABELS_TOTAL_MAX: usize = 12 * 1024;

/// The value of the annotation `credentials.itwin.dev/renew`, in characters: a time or a UUID.
pub const RENEW_MAX: usize = 64;

/// A client identifier.
pub const CLIENT_ID_MAX: usize = 1024;
/// A client secret.
pub const CLIENT_SECRET_MAX: usize = 4 * 1024;
/// A private key in PEM: an RSA key of 4096 bits has 3.2 KiB, and certificates may stand before it.
pub const PRIVATE_KEY_MAX: usize = 16 * 1024;
/// A user name, and a password.
pub const USER_MAX: usize = 1024;

/// A duration.
pub const DURATION_MAX: usize = 32;
