//! The longest of everything that this crate reads of a client or a server, in bytes.
//!
//! Users of this crate that bound the same values elsewhere, in a schema for instance, assert that both agree.

/// An access token: web servers take 8 to 16 KiB of headers by default, and the largest tokens known have 20 KiB.
pub const ACCESS_TOKEN_MAX: usize = 32 * 1024;
/// A private key in PEM: an RSA key of 4096 bits has 3.2 KiB, and certificates may stand before it.
pub const PRIVATE_KEY_MAX: usize = 16 * 1024;
/// A URL: what browsers and proxies take.
pub const URL_MAX: usize = 2048;
/// A `Retry-After` or `Date` header: the longest date of HTTP has 33 (RFC 9110 section 5.6.7).
pub const RETRY_AFTER_MAX: usize = 64;
/// An OAuth error code in the answer of a failed server; those of RFC 6749 have 22 at most.
pub const ERROR_CODE_MAX: usize = 64;
/// The identifier of a client's key; a thumbprint has 43.
pub const KEY_ID_MAX: usize = 256;
