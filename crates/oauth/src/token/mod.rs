//! The token request (RFC 6749 sections 4.3 and 4.4) and its response.

mod client;
mod error;
mod exchange;
mod response;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
pub use client::{ClientCredentials, Proof, User};
pub use error::{MalformedResponse, TokenError};
use exchange::{Carrier, OAuthClient};
use oauth2::{AuthType, ClientId, ClientSecret, ResourceOwnerPassword, ResourceOwnerUsername, Scope, TokenUrl};
pub use response::{TokenResponse, fits_a_header};
use url::Url;

pub use crate::error_code::ErrorCode;
use crate::{
    assertion::{self, Assertion, AssertionAudience, AssertionId, AssertionRules, ClientKeyError},
    sensitive::Sensitive,
    shown::{REDACTED, UsualWords},
    transport::Transport,
};

/// One token request.
#[derive(Clone)]
pub struct TokenRequest {
    /// The client.
    pub client: ClientCredentials,
    /// Requested scopes (RFC 6749 section 3.3); none sends no `scope`.
    pub scopes: Vec<String>,
    /// Resource indicators (RFC 8707 section 2).
    pub resources: Vec<String>,
    /// `audience`, a parameter of no standard, by which some servers choose the API that the token is for.
    pub audience: Option<String>,
}

/// The authorization server of a token request.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Its token endpoint.
    pub token_endpoint: &'a Url,
    /// The same as it is written in the ITwinAuthority or the discovery document: servers compare it to the letter.
    pub written_token_endpoint: &'a str,
    /// Its issuer identifier, as the administrator wrote it: servers compare it to the letter.
    pub issuer: &'a str,
    /// What it demands of client assertions.
    pub assertion: &'a AssertionRules,
}

/// Requests a token. `sent_at` is the time now, from which lifetimes count; `assertion_id` is used where the client
/// signs an assertion.
///
/// # Errors
/// [`TokenError`].
pub async fn request<T: Transport + ?Sized>(
    transport: &T,
    server: Server<'_>,
    request: &TokenRequest,
    sent_at: DateTime<Utc>,
    assertion_id: &AssertionId,
) -> Result<TokenResponse, TokenError> {
    let mut parameters: Vec<_> = request.resources.iter().map(|resource| ("resource", resource.clone())).collect();
    parameters.extend(request.audience.iter().map(|audience| ("audience", audience.clone())));
    parameters.extend(assertion_parameters(&request.client, server, sent_at, assertion_id)?);
    let client = oauth_client(&request.client).set_token_uri(TokenUrl::from_url(server.token_endpoint.clone()));
    let scopes = request.scopes.iter().cloned().map(Scope::new);
    let carrier = Carrier::new(transport);
    let result = match &request.client.user {
        None => {
            let exchange = client.exchange_client_credentials().add_scopes(scopes);
            let exchange =
                parameters.into_iter().fold(exchange, |exchange, (name, value)| exchange.add_extra_param(name, value));
            exchange.request_async(&carrier).await
        }
        Some(user) => {
            let name = ResourceOwnerUsername::new(user.name.expose().to_owned());
            let password = ResourceOwnerPassword::new(user.password.expose().to_owned());
            let exchange = client.exchange_password(&name, &password).add_scopes(scopes);
            let exchange =
                parameters.into_iter().fold(exchange, |exchange, (name, value)| exchange.add_extra_param(name, value));
            exchange.request_async(&carrier).await
        }
    };
    match result {
        Ok(response) => Ok(TokenResponse::read(response, sent_at)?),
        Err(error) => Err(carrier.error(error)),
    }
}

/// Granted scopes as they may be shown: each that is not expected and does not consist of usual words is replaced, since
/// a server may name the secrets that it was sent.
#[must_use]
pub fn shown_scopes(granted: &[String], is_expected: impl Fn(&str) -> bool) -> Vec<String> {
    let usual = UsualWords::with([]);
    let shown = |scope: &String| {
        let is_known = is_expected(scope) || usual.make_up(scope);
        if is_known { scope.clone() } else { REDACTED.to_owned() }
    };
    let mut shown: Vec<String> = granted.iter().map(shown).collect();
    shown.dedup_by(|scope, before| scope.as_str() == REDACTED && before.as_str() == REDACTED);
    shown
}

/// The client with its secret where it has one.
fn oauth_client(client: &ClientCredentials) -> OAuthClient {
    let secret = |secret: &Sensitive| ClientSecret::new(secret.expose().to_owned());
    let named = OAuthClient::new(ClientId::new(client.id.sent().to_owned())).set_auth_type(AuthType::RequestBody);
    match &client.proof {
        Proof::SecretInBody(text) => named.set_client_secret(secret(text)),
        Proof::SecretInHeader(text) => named.set_client_secret(secret(text)).set_auth_type(AuthType::BasicAuth),
        Proof::PrivateKey(_) | Proof::Nothing => named,
    }
}

/// The parameters of a client that authenticates with an assertion (RFC 7523 section 2.2).
fn assertion_parameters(
    client: &ClientCredentials,
    server: Server<'_>,
    now: DateTime<Utc>,
    id: &AssertionId,
) -> Result<Vec<(&'static str, String)>, ClientKeyError> {
    let Proof::PrivateKey(key) = &client.proof else { return Ok(Vec::new()) };
    let audience = match &server.assertion.audience {
        AssertionAudience::Issuer => server.issuer,
        AssertionAudience::TokenEndpoint => server.written_token_endpoint,
        AssertionAudience::Text(text) => text,
    };
    let AssertionRules { algorithm, clock_skew, .. } = *server.assertion;
    let content = Assertion { client_id: client.id.sent(), audience, algorithm, now, clock_skew, id };
    let assertion = assertion::sign(key, &content)?;
    Ok(vec![("client_assertion_type", assertion::TYPE.to_owned()), ("client_assertion", assertion)])
}
