//! Who requests a token, and how the client authenticates.

use crate::{assertion::ClientKey, identifier::Identifier, sensitive::Sensitive};

/// The client of a token request.
#[derive(Clone)]
pub struct ClientCredentials {
    /// Client identifier (RFC 6749 section 2.2).
    pub id: Identifier,
    /// What authenticates the client.
    pub proof: Proof,
    /// The service user, for grant type `password`; without one the grant type is `client_credentials`.
    pub user: Option<User>,
}

/// How the client authenticates.
#[derive(Clone)]
pub enum Proof {
    /// The client secret in the request body (RFC 6749 section 2.3.1).
    SecretInBody(Sensitive),
    /// The client secret as HTTP Basic, both halves form-encoded (RFC 6749 section 2.3.1).
    SecretInHeader(Sensitive),
    /// A private key that signs a client assertion (RFC 7523 section 2.2).
    PrivateKey(ClientKey),
    /// Nothing: the client is public (RFC 6749 section 2.1).
    Nothing,
}

/// A service user (RFC 6749 section 4.3).
#[derive(Clone)]
pub struct User {
    /// Its name.
    pub name: Sensitive,
    /// Its password.
    pub password: Sensitive,
}
