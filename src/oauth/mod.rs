//! The authorization servers as the operator uses them: bounded HTTPS, endpoints, keys and token requests of each.
//!
//! The protocol itself is in the crate `itwin-oauth`, which sends nothing by itself.

pub mod authority;
mod cause;
mod handshake;
pub mod http;
mod key_refetch;
pub(crate) mod tls;
