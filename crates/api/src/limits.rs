//! Limits on the size of everything that tenants and authorization servers write, in bytes unless stated otherwise.
//!
//! The schema rejects longer values, and the code that reads a value checks it again: an object may be older than the
//! schema, and no schema applies to responses of an authorization server.

/// An access token. Web servers accept 8 to 16 KiB of headers by default, and the largest known tokens have 20 KiB.
pub const ACCESS_TOKEN_MAX: usize = 32 * 1024;
/// `token_type`; the operator always writes `Bearer`.
pub const TOKEN_TYPE_MAX: usize = 16;
/// A time in RFC 3339, up to the year 262142.
pub const TIME_MAX: usize = 32;
/// Requested or granted scopes, separated by spaces: 64 scopes of 127 characters.
pub const SCOPE_MAX: usize = 8 * 1024;
/// A URL: the length that browsers and proxies accept.
pub const URL_MAX: usize = 2048;
/// All resource indicators of a credential: four URLs of the maximum length.
pub const RESOURCES_MAX: usize = 8 * 1024;

/// The number of templates of a credential.
pub const TEMPLATES_MAX: usize = 16;
/// One template.
pub const TEMPLATE_MAX: usize = 4 * 1024;
/// All templates of a credential with their keys.
pub const TEMPLATES_TOTAL_MAX: usize = 16 * 1024;
/// The rendered templates of a credential in total, if every value had its maximum length. The API server accepts a
/// Secret of 1 MiB, of which the standard keys need up to 75 KiB.
pub const RENDERED_MAX: usize = 768 * 1024;

/// The number of labels, and of annotations, of `secretTemplate`.
pub const LABELS_MAX: usize = 32;
/// The value of a label; the API server has the same limit.
pub const LABEL_VALUE_MAX: usize = 63;
/// The value of an annotation of `secretTemplate`, in characters.
pub const ANNOTATION_VALUE_MAX: usize = 4096;
/// All labels and annotations of `secretTemplate`, including their keys.
pub const LABELS_TOTAL_MAX: usize = 12 * 1024;

/// The value of the annotation `credentials.itwin.dev/renew`, in characters: a time or a UUID.
pub const RENEW_MAX: usize = 64;

/// A client identifier.
pub const CLIENT_ID_MAX: usize = 1024;
/// A client secret.
pub const CLIENT_SECRET_MAX: usize = 4 * 1024;
/// A private key in PEM: an RSA key of 4096 bits has 3.2 KiB, and certificates may precede it.
pub const PRIVATE_KEY_MAX: usize = 16 * 1024;
/// The identifier of a private key: a thumbprint has 43 characters, a UUID 36.
pub const KEY_ID_MAX: usize = 256;
/// A certificate in PEM, and those that follow it.
pub const CERTIFICATE_MAX: usize = 16 * 1024;
/// A user name or a password.
pub const USER_MAX: usize = 1024;

/// A duration.
pub const DURATION_MAX: usize = 32;
