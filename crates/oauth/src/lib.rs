//! OAuth 2.0 without input or output: discovery, key set, token request, client assertion, token verification.
//!
//! `oauth2` builds and reads the token exchange, `jsonwebtoken` does the cryptography; this crate bounds what a server
//! that cannot be trusted may do, and names what went wrong. A [`transport::Transport`] carries the requests.

pub mod answer;
pub mod assertion;
mod der;
pub mod discovery;
pub mod failure;
mod json;
pub mod jwt;
mod private_key;
pub mod sensitive;
pub mod token;
pub mod transport;
