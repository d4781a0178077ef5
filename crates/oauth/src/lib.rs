//! OAuth 2.0 without input or output: discovery, key set, token request, client assertion, token verification.
//!
//! `oauth2` builds and reads the token exchange, `jsonwebtoken` does the cryptography; this crate bounds what a server
//! that cannot be trusted may do. Bytes come in; typed results and typed errors go out, none of which repeats the text
//! of an answer, except for issuers and audiences ([`shown`]). A [`transport::Transport`] carries the requests; the time
//! and random numbers are arguments.

pub mod assertion;
mod der;
pub mod discovery;
mod error_code;
pub mod identifier;
mod json;
pub mod jwt;
pub mod key_set;
pub mod limits;
mod private_key;
mod public_key;
mod scope;
pub mod sensitive;
pub mod shown;
pub mod tls;
pub mod token;
pub mod transport;
