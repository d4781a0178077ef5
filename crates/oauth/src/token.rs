//! The token request (RFC 6749 section 4.4) and the understanding of its answer.

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use itwin_api::{conditions::Reason, credential::ClientCredentialsRef, limits::ACCESS_TOKEN_MAX};
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError,
    ResourceOwnerPassword, ResourceOwnerUsername, Scope, TokenResponse, TokenUrl,
    basic::{BasicClient, BasicErrorResponseType, BasicTokenResponse},
};
use url::Url;

use super::{
    assertion,
    failure::{ExchangeStage, RequestFailure},
    json,
    transport::{Transport, TransportError, UNAVAILABLE},
};
use crate::sensitive::Sensitive;

/// Who asks.
#[derive(Clone)]
pub struct ClientCredentials {
    /// Client identifier; not a secret.
    pub id: String,
    /// What shows that it is the client.
    pub proof: Proof,
    /// The service user, for grant type `password`.
    pub user: Option<User>,
}

/// How the client shows who it is.
#[derive(Clone)]
pub enum Proof {
    /// The client secret in the request body (RFC 6749 section 2.3.1).
    SecretInBody(Sensitive),
    /// The client secret as HTTP Basic, both halves form-encoded (RFC 6749 section 2.3.1).
    SecretInHeader(Sensitive),
    /// A PEM private key that signs an assertion (RFC 7523 section 2.2).
    PrivateKey(Sensitive),
}

/// A service user (RFC 6749 section 4.3).
#[derive(Clone)]
pub struct User {
    /// Its name.
    pub name: Sensitive,
    /// Its password.
    pub password: Sensitive,
}

/// One token request.
#[derive(Clone)]
pub struct TokenRequest {
    /// Who asks.
    pub client: ClientCredentials,
    /// Scopes asked for.
    pub scopes: Vec<String>,
    /// Resource indicators (RFC 8707).
    pub resources: Vec<String>,
    /// Names of the authority and of the client Secret, for messages.
    pub names: Names,
}

/// Names of objects, for messages.
#[derive(Clone)]
pub struct Names {
    /// The ITwinAuthority.
    pub authority: String,
    /// The client Secret, `namespace/name`.
    pub client_secret: String,
    /// Its keys.
    pub keys: ClientCredentialsRef,
}

/// A successful answer, nothing in it verified.
pub struct TokenAnswer {
    /// The access token.
    pub token: Sensitive,
    /// Its type.
    pub token_type: String,
    /// `expires_in`, in seconds.
    pub expires_in: Option<u64>,
    /// `scope`, if the answer has one.
    pub scope: Option<Vec<String>>,
    /// When the request was sent.
    pub asked_at: DateTime<Utc>,
}

/// Asks for a token. `issuer` is the authority's identifier to the letter, the audience of an assertion;
/// `asked_at` is the time now, from which lifetimes count.
///
/// # Errors
/// [`RequestFailure`] with one of the reasons for answers and transport.
pub async fn ask<T: Transport + ?Sized>(
    http: &T,
    endpoint: &Url,
    issuer: &str,
    request: &TokenRequest,
    asked_at: DateTime<Utc>,
) -> Result<TokenAnswer, RequestFailure> {
    let mut client =
        BasicClient::new(ClientId::new(request.client.id.clone())).set_token_uri(TokenUrl::from_url(endpoint.clone()));
    let mut parameters: Vec<(&str, String)> =
        request.resources.iter().map(|resource| ("resource", resource.clone())).collect();
    client = client.set_auth_type(AuthType::RequestBody);
    match &request.client.proof {
        Proof::SecretInBody(secret) => {
            client = client.set_client_secret(ClientSecret::new(secret.expose().to_owned()));
        }
        Proof::SecretInHeader(secret) => {
            client = client
                .set_client_secret(ClientSecret::new(secret.expose().to_owned()))
                .set_auth_type(AuthType::BasicAuth);
        }
        Proof::PrivateKey(pem) => {
            let assertion = assertion::sign(pem, &request.client.id, issuer, asked_at)
                .map_err(|why| invalid_private_key(&request.names, why))?;
            parameters.push(("client_assertion_type", assertion::TYPE.to_owned()));
            parameters.push(("client_assertion", assertion));
        }
    }
    let scopes = request.scopes.iter().cloned().map(Scope::new);
    let carrier = Carrier { http, answer: Mutex::default() };
    let result = match &request.client.user {
        None => {
            let mut exchange = client.exchange_client_credentials().add_scopes(scopes);
            for (name, value) in parameters {
                exchange = exchange.add_extra_param(name, value);
            }
            exchange.request_async(&carrier).await
        }
        Some(user) => {
            let name = ResourceOwnerUsername::new(user.name.expose().to_owned());
            let password = ResourceOwnerPassword::new(user.password.expose().to_owned());
            let mut exchange = client.exchange_password(&name, &password).add_scopes(scopes);
            for (name, value) in parameters {
                exchange = exchange.add_extra_param(name, value);
            }
            exchange.request_async(&carrier).await
        }
    };
    let CarriedAnswer { status, retry_after, server_wait } = carrier.answer.into_inner().unwrap_or_default();
    match result {
        Ok(answer) => understand(&answer, asked_at, &request.names),
        Err(error) => {
            let failure = classify(error, status, &request.names, request.client.user.is_some());
            Err(RequestFailure {
                retry_after: failure.retry_after.or(retry_after),
                server_wait: failure.server_wait.or(server_wait),
                ..failure
            })
        }
    }
}

fn invalid_private_key(names: &Names, why: &str) -> RequestFailure {
    RequestFailure::new(
        Reason::ClientCredentialsInvalid,
        format!("key {} of Secret {} {why}", names.keys.private_key_key, names.client_secret),
    )
    .at(ExchangeStage::NotSent)
}

/// Carries a request for oauth2 and keeps of its answer what oauth2 does not hand out.
struct Carrier<'a, T: ?Sized> {
    http: &'a T,
    answer: Mutex<CarriedAnswer>,
}

#[derive(Default)]
struct CarriedAnswer {
    /// It decides what an answer without a readable `error` means.
    status: Option<u16>,
    /// The wait that a 5xx with an OAuth `error` asks for.
    retry_after: Option<TimeDelta>,
    /// The same, for all clients.
    server_wait: Option<TimeDelta>,
}

impl<'c, T: Transport + ?Sized> AsyncHttpClient<'c> for Carrier<'_, T> {
    type Error = TransportError;
    type Future = BoxFuture<'c, Result<HttpResponse, TransportError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let (response, retry_after, server_wait) = match self.http.send(request).await {
                Ok(response) => (with_error(response), None, None),
                // an OAuth `error` says what happened, whatever the status is
                Err(TransportError::Server(status, retry_after, body)) => {
                    match json::error_code(&body).filter(|code| ERRORS.contains(&code.as_str())) {
                        Some(code) => {
                            (error_response(&code), retry_after, retry_after.filter(|_| status == UNAVAILABLE))
                        }
                        None => return Err(TransportError::Server(status, retry_after, body)),
                    }
                }
                Err(error) => return Err(error),
            };
            if let Ok(mut answer) = self.answer.lock() {
                *answer = CarriedAnswer { status: Some(response.status().as_u16()), retry_after, server_wait };
            }
            if !json::is_shallow(response.body()) {
                return Err(TransportError::Malformed("JSON that is nested too deeply".to_owned()));
            }
            Ok(response)
        })
    }
}

/// OAuth errors with a meaning of their own (RFC 6749 section 5.2, RFC 8707 section 2). With a 5xx any other says no more
/// than the status does.
const ERRORS: [&str; 9] = [
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// An answer with another status than 200 whose OAuth error stands where oauth2 reads it.
fn with_error(response: HttpResponse) -> HttpResponse {
    if response.status().is_success() {
        return response;
    }
    match json::error_code(response.body()) {
        Some(code) => {
            let status = response.status();
            let mut answer = error_response(&code);
            *answer.status_mut() = status;
            answer
        }
        None => response,
    }
}

fn error_response(code: &str) -> HttpResponse {
    let mut response = HttpResponse::new(serde_json::json!({"error": code}).to_string().into_bytes());
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

fn understand(
    answer: &BasicTokenResponse,
    asked_at: DateTime<Utc>,
    names: &Names,
) -> Result<TokenAnswer, RequestFailure> {
    let token = answer.access_token().secret();
    if token.len() > ACCESS_TOKEN_MAX {
        return Err(malformed(names, &format!("access_token has more than {ACCESS_TOKEN_MAX} bytes")));
    }
    if !is_bearer_token(token) {
        return Err(malformed(
            names,
            "access_token is empty or holds characters that no HTTP header may carry (RFC 6750 section 2.1)",
        ));
    }
    Ok(TokenAnswer {
        token: Sensitive::new(token.clone()),
        token_type: answer.token_type().as_ref().to_owned(),
        expires_in: answer.expires_in().map(|lifetime| lifetime.as_secs()),
        scope: answer.scopes().map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect()),
        asked_at,
    })
}

/// `b64token` of RFC 6750 section 2.1. Anything else could end the header it is put into and begin another.
fn is_bearer_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

type ExchangeError = RequestTokenError<TransportError, oauth2::basic::BasicErrorResponse>;

/// Names the failure. By the OAuth `error`, not by the status: some servers answer each error with 400, others with
/// 401. The error's own texts stay out of the message: `error_description` is in the hands of whoever answers.
fn classify(error: ExchangeError, status: Option<u16>, names: &Names, has_user: bool) -> RequestFailure {
    let Names { authority, client_secret, keys } = names;
    let (client_id_key, client_secret_key) = (&keys.client_id_key, &keys.client_secret_key);
    let answer = match error {
        RequestTokenError::Request(transport) => {
            return transport.into_failure(&format!("token endpoint of ITwinAuthority {authority}"));
        }
        RequestTokenError::ServerResponse(answer) => answer,
        // The parse error holds the whole body, which may hold a token: nothing of it is looked at.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            return match status {
                Some(status) if status != 200 => RequestFailure::new(
                    Reason::RequestRejected,
                    format!(
                        "ITwinAuthority {authority} answered HTTP {status} without an OAuth error: check its tokenEndpoint"
                    ),
                ),
                _ => malformed(
                    names,
                    "not the JSON of a token answer with access_token, token_type and a sane expires_in (RFC 6749 section 5.1)",
                ),
            };
        }
    };
    match answer.error() {
        BasicErrorResponseType::InvalidClient => RequestFailure::new(
            Reason::InvalidClient,
            format!(
                "ITwinAuthority {authority} answered invalid_client: check {client_id_key} and {client_secret_key} in \
                 Secret {client_secret}; a new registration can take ten minutes"
            ),
        ),
        BasicErrorResponseType::InvalidScope => RequestFailure::new(
            Reason::InvalidScope,
            format!(
                "ITwinAuthority {authority} answered invalid_scope: check spec.scopes against what the client of Secret {client_secret} is registered for"
            ),
        ),
        BasicErrorResponseType::UnauthorizedClient => RequestFailure::new(
            Reason::UnauthorizedClient,
            format!(
                "ITwinAuthority {authority} answered unauthorized_client: register the client of Secret {client_secret} as a service (client credentials)"
            ),
        ),
        BasicErrorResponseType::UnsupportedGrantType => RequestFailure::new(
            Reason::UnsupportedGrantType,
            format!(
                "ITwinAuthority {authority} answered unsupported_grant_type: it does not offer spec.grantType, ask its administrator"
            ),
        ),
        BasicErrorResponseType::InvalidGrant if has_user => RequestFailure::new(
            Reason::RequestRejected,
            format!(
                "ITwinAuthority {authority} answered invalid_grant: check {} and {} in Secret {client_secret}",
                keys.username_key, keys.password_key
            ),
        ),
        BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::InvalidRequest => RequestFailure::new(
            Reason::RequestRejected,
            format!(
                "ITwinAuthority {authority} rejected the request ({}): check spec.scopes and spec.resources",
                answer.error().as_ref()
            ),
        ),
        BasicErrorResponseType::Extension(code) => extension(code, names),
    }
}

/// OAuth errors beyond RFC 6749 section 5.2 that have a meaning of their own.
fn extension(code: &str, names: &Names) -> RequestFailure {
    let authority = &names.authority;
    match code {
        "server_error" => RequestFailure::new(
            Reason::ServerError,
            format!("ITwinAuthority {authority} answered server_error: it is tried again"),
        ),
        "temporarily_unavailable" => RequestFailure::new(
            Reason::ServerError,
            format!("ITwinAuthority {authority} answered temporarily_unavailable: it is tried again"),
        ),
        "invalid_target" => RequestFailure::new(
            Reason::RequestRejected,
            format!("ITwinAuthority {authority} answered invalid_target (RFC 8707): check spec.resources"),
        ),
        _ => RequestFailure::new(
            Reason::RequestRejected,
            format!("ITwinAuthority {authority} rejected the request with an error of its own: its logs tell which"),
        ),
    }
}

fn malformed(names: &Names, what: &str) -> RequestFailure {
    RequestFailure::new(
        Reason::MalformedResponse,
        format!(
            "ITwinAuthority {} gave an answer that cannot be used ({what}): check its tokenEndpoint",
            names.authority
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens_are_distinguished_from_header_injections() {
        for good in ["a", "eyJ.a-b_c.~+/==", "0"] {
            assert!(is_bearer_token(good), "{good}");
        }
        for bad in ["", "=", "a b", "a\r\nX: y", "a\n", "ä", "a=b"] {
            assert!(!is_bearer_token(bad), "{bad}");
        }
    }
}
