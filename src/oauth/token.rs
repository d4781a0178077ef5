//! The token request (RFC 6749 section 4.4) and the understanding of its answer.

use std::sync::Mutex;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope,
    TokenResponse, TokenUrl,
    basic::{BasicClient, BasicErrorResponseType, BasicTokenResponse},
};
use url::Url;

use super::{
    failure::Failure,
    http::{Http, TransportError},
};
use crate::{api::conditions::Reason, sensitive::Sensitive};

/// How the client shows who it is (RFC 6749 section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretPlacement {
    /// In the request body.
    Body,
    /// HTTP Basic, both halves form-encoded.
    Header,
}

/// Who asks.
pub struct ClientCredentials {
    /// Client identifier; not a secret.
    pub id: String,
    /// Client secret.
    pub secret: Sensitive,
}

/// One token request.
pub struct TokenRequest<'a> {
    /// Token endpoint.
    pub endpoint: &'a Url,
    /// How the client shows who it is.
    pub placement: SecretPlacement,
    /// Who asks.
    pub client: &'a ClientCredentials,
    /// Scopes asked for.
    pub scopes: &'a [String],
    /// Resource indicators (RFC 8707).
    pub resources: &'a [String],
    /// Names of the authority and of the client Secret, for messages.
    pub names: Names<'a>,
}

/// Names of objects, for messages.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// The ITwinAuthority.
    pub authority: &'a str,
    /// The client Secret, `namespace/name`.
    pub client_secret: &'a str,
    /// Its key with the client identifier.
    pub client_id_key: &'a str,
    /// Its key with the client secret.
    pub client_secret_key: &'a str,
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

/// Asks for a token.
///
/// # Errors
/// [`Failure`] with one of the reasons for answers and transport.
pub async fn ask(http: &Http, request: &TokenRequest<'_>) -> Result<TokenAnswer, Failure> {
    let client = BasicClient::new(ClientId::new(request.client.id.clone()))
        .set_client_secret(ClientSecret::new(request.client.secret.expose().to_owned()))
        .set_token_uri(TokenUrl::from_url(request.endpoint.clone()))
        .set_auth_type(match request.placement {
            SecretPlacement::Body => AuthType::RequestBody,
            SecretPlacement::Header => AuthType::BasicAuth,
        });
    let mut exchange = client.exchange_client_credentials().add_scopes(request.scopes.iter().cloned().map(Scope::new));
    for resource in request.resources {
        exchange = exchange.add_extra_param("resource", resource);
    }
    let carrier = Carrier { http, status: Mutex::new(None) };
    let asked_at = crate::clock::now();
    let result = exchange.request_async(&carrier).await;
    let status = carrier.status.into_inner().ok().flatten();
    match result {
        Ok(answer) => understand(&answer, asked_at, request.names),
        Err(error) => Err(classify(error, status, request.names)),
    }
}

/// Carries a request for oauth2 and keeps the status of its answer, which decides what an answer without a readable
/// `error` means, and which oauth2 does not hand out.
struct Carrier<'a> {
    http: &'a Http,
    status: Mutex<Option<u16>>,
}

impl<'c> AsyncHttpClient<'c> for Carrier<'_> {
    type Error = TransportError;
    type Future = BoxFuture<'c, Result<HttpResponse, TransportError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let response = self.http.send(request).await?;
            if let Ok(mut status) = self.status.lock() {
                *status = Some(response.status().as_u16());
            }
            Ok(response)
        })
    }
}

fn understand(answer: &BasicTokenResponse, asked_at: DateTime<Utc>, names: Names<'_>) -> Result<TokenAnswer, Failure> {
    let token = answer.access_token().secret();
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
fn classify(error: ExchangeError, status: Option<u16>, names: Names<'_>) -> Failure {
    let authority = names.authority;
    let Names { client_secret, client_id_key, client_secret_key, .. } = names;
    let answer = match error {
        RequestTokenError::Request(transport) => {
            return transport.into_failure(&format!("token endpoint of ITwinAuthority {authority}"));
        }
        RequestTokenError::ServerResponse(answer) => answer,
        // The parse error holds the whole body, which may hold a token: nothing of it is looked at.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            return match status {
                Some(status) if status != 200 => Failure::new(
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
        BasicErrorResponseType::InvalidClient => Failure::new(
            Reason::InvalidClient,
            format!(
                "ITwinAuthority {authority} answered invalid_client: check {client_id_key} and {client_secret_key} in \
                 Secret {client_secret}; a new registration can take ten minutes"
            ),
        ),
        BasicErrorResponseType::InvalidScope => Failure::new(
            Reason::InvalidScope,
            format!(
                "ITwinAuthority {authority} answered invalid_scope: check spec.scopes against what the client of Secret {client_secret} is registered for"
            ),
        ),
        BasicErrorResponseType::UnauthorizedClient => Failure::new(
            Reason::UnauthorizedClient,
            format!(
                "ITwinAuthority {authority} answered unauthorized_client: register the client of Secret {client_secret} as a service (client credentials)"
            ),
        ),
        BasicErrorResponseType::UnsupportedGrantType => Failure::new(
            Reason::UnsupportedGrantType,
            format!(
                "ITwinAuthority {authority} answered unsupported_grant_type: it does not offer spec.grantType, ask its administrator"
            ),
        ),
        BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::InvalidRequest => Failure::new(
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
fn extension(code: &str, names: Names<'_>) -> Failure {
    let authority = names.authority;
    match code {
        "server_error" => Failure::new(
            Reason::ServerError,
            format!("ITwinAuthority {authority} answered server_error: it is tried again"),
        ),
        "temporarily_unavailable" => Failure::new(
            Reason::ServerError,
            format!("ITwinAuthority {authority} answered temporarily_unavailable: it is tried again"),
        ),
        "invalid_target" => Failure::new(
            Reason::RequestRejected,
            format!("ITwinAuthority {authority} answered invalid_target (RFC 8707): check spec.resources"),
        ),
        _ => Failure::new(
            Reason::RequestRejected,
            format!("ITwinAuthority {authority} rejected the request with an error of its own: its logs tell which"),
        ),
    }
}

fn malformed(names: Names<'_>, what: &str) -> Failure {
    Failure::new(
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
    fn bearer_tokens_are_told_from_header_injections() {
        for good in ["a", "eyJ.a-b_c.~+/==", "0"] {
            assert!(is_bearer_token(good), "{good}");
        }
        for bad in ["", "=", "a b", "a\r\nX: y", "a\n", "ä", "a=b"] {
            assert!(!is_bearer_token(bad), "{bad}");
        }
    }
}
