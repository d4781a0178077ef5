//! What users read when a token request gives no token response.

#[cfg(test)]
mod tests;

use itwin_api::{
    authority::ClientAuthentication,
    conditions::Reason,
    credential::{ClientCredentialsRef, GrantType},
};
use itwin_oauth::{
    assertion::{ClientKeyError, SigningAlgorithm},
    limits::ACCESS_TOKEN_MAX,
    token::{ErrorCode, MalformedResponse, TokenError},
};

use super::transport;
use crate::{client_keys, failure::Failure, request_error};

/// Names of objects, for messages.
#[derive(Clone)]
pub struct Names {
    /// The ITwinAuthority.
    pub authority: String,
    /// The client Secret, `namespace/name`.
    pub client_secret: String,
    /// Its keys.
    pub keys: ClientCredentialsRef,
    /// The grant type of the credential.
    pub grant_type: GrantType,
    /// How the client authenticates.
    pub method: ClientAuthentication,
    /// Whether the token endpoint comes from the discovery document, not from the ITwinAuthority.
    pub is_endpoint_discovered: bool,
}

/// A token request without a token response.
#[must_use]
pub fn not_issued(error: &TokenError, names: &Names) -> Failure {
    let authority = &names.authority;
    let endpoint = format!("token endpoint of ITwinAuthority {authority}");
    match error {
        TokenError::ClientKey(error) => invalid_key(*error, names),
        TokenError::Transport(error) => transport::failed(error, &endpoint, moved(names)),
        TokenError::Malformed(MalformedResponse::TooDeep) => {
            transport::malformed("JSON that is nested too deeply", &endpoint)
        }
        TokenError::Malformed(rule) => malformed(*rule, names),
        TokenError::Status { status, is_certificate_asked, is_body_unread, .. } => {
            let message = status_alone(*status, *is_certificate_asked, *is_body_unread, names);
            asking_to_wait(error, Failure::new(Reason::RequestRejected, message))
        }
        TokenError::Response { code, status, .. } => asking_to_wait(error, error_response(*code, *status, names)),
    }
}

/// The failure with the waits that the answer asks for.
fn asking_to_wait(error: &TokenError, failure: Failure) -> Failure {
    Failure { retry_after: error.retry_after(), server_wait: error.server_wait(), ..failure }
}

/// What to do where the token endpoint has another URL.
fn moved(names: &Names) -> &'static str {
    if names.is_endpoint_discovered {
        "its discovery document, which names this URL, is read again within a minute, unless the authority asked for a \
         longer wait; if that does not help, contact the operators of the authorization server, or have the administrator \
         set tokenEndpoint to the final URL"
    } else {
        "have the administrator set tokenEndpoint of the ITwinAuthority to the final URL"
    }
}

/// Where the URL of the token endpoint is corrected.
fn endpoint(names: &Names) -> &'static str {
    if names.is_endpoint_discovered { "token_endpoint in its discovery document" } else { "its tokenEndpoint" }
}

/// An answer that only its status explains. A server that asks for a client certificate may accept clients without one.
fn status_alone(status: u16, is_certificate_asked: bool, is_body_unread: bool, names: &Names) -> String {
    let body = if is_body_unread { ", and its body could not be read" } else { " without a known OAuth error" };
    let hint = if is_certificate_asked {
        "; it asked for a client certificate, which this operator does not have: if it requires one, name an endpoint \
         that does not"
    } else {
        ""
    };
    let again = if names.is_endpoint_discovered && request_error::means_moved(status) {
        ", which is read again within a minute, unless the authority asked for a longer wait"
    } else {
        ""
    };
    // some servers, and gateways before them, say no more than this to a client that they do not know
    let client = if status == UNAUTHORIZED {
        let named = client_keys::enumerated(&client_keys::of_client(&names.keys, names.method));
        format!("check {named} in Secret {}; if the client is right, ", names.client_secret)
    } else {
        String::new()
    };
    let (authority, endpoint) = (&names.authority, endpoint(names));
    format!("ITwinAuthority {authority} answered HTTP {status}{body}: {client}check {endpoint}{again}{hint}")
}

/// A private key that signs no client assertion. What is wrong with it depends on its value, and is not said.
fn invalid_key(ClientKeyError { algorithm }: ClientKeyError, names: &Names) -> Failure {
    let kind = match algorithm {
        None => "an RSA (2048 to 4096 bits), EC P-256, EC P-384 or Ed25519 key",
        Some(SigningAlgorithm::Rs256 | SigningAlgorithm::Ps256) => "an RSA key (2048 to 4096 bits)",
        Some(SigningAlgorithm::Es256) => "an EC P-256 key",
        Some(SigningAlgorithm::Es384) => "an EC P-384 key",
        Some(SigningAlgorithm::EdDsa) => "an Ed25519 key",
    };
    let purpose = algorithm.map_or_else(String::new, |algorithm| {
        let authority = &names.authority;
        format!(" for {} (clientAssertion.algorithm of ITwinAuthority {authority})", algorithm.as_str())
    });
    let message = format!(
        "key {} of Secret {} is no PEM private key that can be used{purpose}: write {kind}, unencrypted, of at most 16 \
         KiB",
        names.keys.private_key_key, names.client_secret
    );
    Failure::new(Reason::ClientCredentialsInvalid, message)
}

/// The system gives no random numbers, without which there are no client assertions.
#[must_use]
pub fn no_randomness(names: &Names) -> Failure {
    let message = format!(
        "key {} of Secret {} cannot be used: there is no randomness on this machine",
        names.keys.private_key_key, names.client_secret
    );
    Failure::new(Reason::ClientCredentialsInvalid, message)
}

fn malformed(rule: MalformedResponse, names: &Names) -> Failure {
    let what = match rule {
        MalformedResponse::NotATokenResponse | MalformedResponse::TooDeep => {
            "not the JSON of a token answer with access_token, token_type and a sane expires_in (RFC 6749 section 5.1)"
                .to_owned()
        }
        MalformedResponse::ContentType => {
            "JSON, but its Content-Type is not application/json (RFC 6749 section 5.1)".to_owned()
        }
        MalformedResponse::TokenTooLong => format!("access_token has more than {ACCESS_TOKEN_MAX} bytes"),
        MalformedResponse::NotVisibleAscii => {
            "access_token is empty or holds other characters than visible ASCII (RFC 6749 appendix A.12)".to_owned()
        }
    };
    let (authority, endpoint) = (&names.authority, endpoint(names));
    let message = format!("ITwinAuthority {authority} gave an answer that cannot be used ({what}): check {endpoint}");
    Failure::new(Reason::MalformedResponse, message)
}

/// The status of a server that does not know who asks (RFC 9110 section 15.5.2).
const UNAUTHORIZED: u16 = 401;

/// An error response. The reason follows the OAuth error, not the status: some servers answer each error with 400,
/// others with 401. But `access_denied` is about the client where the status is that of authentication: Auth0 answers
/// so to a wrong client secret.
fn error_response(code: ErrorCode, status: u16, names: &Names) -> Failure {
    if (code, status) == (ErrorCode::AccessDenied, UNAUTHORIZED) {
        return Failure::new(Reason::UnauthorizedClient, denied_client(names));
    }
    let reason = match code {
        ErrorCode::InvalidClient => Reason::InvalidClient,
        ErrorCode::InvalidScope => Reason::InvalidScope,
        ErrorCode::UnauthorizedClient => Reason::UnauthorizedClient,
        ErrorCode::UnsupportedGrantType => Reason::UnsupportedGrantType,
        ErrorCode::ServerError | ErrorCode::TemporarilyUnavailable => Reason::ServerError,
        ErrorCode::AccessDenied
        | ErrorCode::InvalidGrant
        | ErrorCode::InvalidRequest
        | ErrorCode::InvalidTarget
        | ErrorCode::Other => Reason::RequestRejected,
    };
    Failure::new(reason, format!("ITwinAuthority {} {}", names.authority, answered(code, status, names)))
}

/// What the server answered, and what to do about it.
fn answered(code: ErrorCode, status: u16, names: &Names) -> String {
    let Names { client_secret, keys, grant_type, method, .. } = names;
    match code {
        ErrorCode::InvalidClient => invalid_client(names),
        ErrorCode::InvalidScope => format!(
            "answered invalid_scope: check spec.scopes against what the client of Secret {client_secret} is registered \
             for"
        ),
        ErrorCode::UnauthorizedClient => {
            let grant = match grant_type {
                GrantType::ClientCredentials => "as a service (client credentials)",
                GrantType::Password => "for the grant type password (resource owner password credentials)",
            };
            // Keycloak answers so where the client secret is wrong
            let named = client_keys::enumerated(&client_keys::of_client(keys, *method));
            format!(
                "answered unauthorized_client: register the client of Secret {client_secret} {grant}, and check {named} \
                 there, for which some servers answer so too"
            )
        }
        ErrorCode::UnsupportedGrantType => {
            "answered unsupported_grant_type: it does not offer spec.grantType, ask its administrator".to_owned()
        }
        ErrorCode::ServerError | ErrorCode::TemporarilyUnavailable => format!("answered {code}: it is tried again"),
        ErrorCode::InvalidGrant if *grant_type == GrantType::Password => format!(
            "answered invalid_grant: check {} and {} in Secret {client_secret}",
            keys.username_key, keys.password_key
        ),
        ErrorCode::InvalidGrant | ErrorCode::InvalidRequest => {
            format!("rejected the request ({code}): check spec.scopes, spec.resources and spec.audience")
        }
        ErrorCode::AccessDenied => format!(
            "answered access_denied: have the client of Secret {client_secret} allowed for spec.audience, \
             spec.resources and spec.scopes; a realm that is switched off answers so too"
        ),
        ErrorCode::InvalidTarget => {
            "answered invalid_target (RFC 8707): check spec.resources and spec.audience".to_owned()
        }
        ErrorCode::Other => {
            format!("rejected the request (HTTP {status}) with an error of its own: its logs show which")
        }
    }
}

/// `access_denied` where client authentication fails.
fn denied_client(Names { authority, client_secret, keys, method, .. }: &Names) -> String {
    let named = client_keys::enumerated(&client_keys::of_client(keys, *method));
    format!(
        "ITwinAuthority {authority} answered access_denied with HTTP 401, as for a client that it does not know: check \
         {named} in Secret {client_secret}, and that the client is allowed for spec.audience, spec.resources and \
         spec.scopes"
    )
}

/// The server does not accept the client: advice by what it authenticates with.
fn invalid_client(Names { authority, client_secret, keys, method, .. }: &Names) -> String {
    let named = client_keys::enumerated(&client_keys::of_client(keys, *method));
    let registered = match method {
        ClientAuthentication::ClientSecretPost | ClientAuthentication::ClientSecretBasic => String::new(),
        ClientAuthentication::PrivateKeyJwt => format!(
            ", that the public key is registered for the client, clientAssertion of ITwinAuthority {authority}, and that \
             the clocks of this cluster and of the authority agree"
        ),
        ClientAuthentication::None => ", and that the client is registered as a public client".to_owned(),
    };
    format!(
        "answered invalid_client: check {named} in Secret {client_secret}{registered}; a new registration can take ten \
         minutes"
    )
}
