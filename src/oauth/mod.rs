//! The authority's protocol: discovery, key set, token request, signature check.
//!
//! `oauth2` builds and reads the token exchange, `jsonwebtoken` does the cryptography; this module bounds what a
//! server that cannot be trusted may do to us, and names what went wrong in the words of the contract. Nothing here
//! knows Kubernetes.

pub mod assertion;
pub mod authority;
mod der;
pub mod discovery;
pub mod failure;
pub mod http;
mod json;
pub mod jwt;
mod private_key;
pub mod token;
