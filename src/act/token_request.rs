//! One token request, from the permission of the authority to a token that is worth writing.

use std::collections::BTreeMap;

use itwin_api::credential::ITwinServiceCredential;
use itwin_core::{
    last_held::LastHeld,
    messages_oauth::token::Names,
    request_error::RequestError,
    token::{IssuedToken, TokenMetadata},
    validate::{self, Expected},
};
use itwin_oauth::token::{ClientCredentials, TokenRequest};

use crate::oauth::authority::Authority;

/// What a token is requested for.
pub struct Order<'a> {
    /// The credential.
    pub credential: &'a ITwinServiceCredential,
    /// Labels of its namespace, where the authority restricts namespaces by them.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The client.
    pub client: &'a ClientCredentials,
    /// The client Secret, `namespace/name`.
    pub client_secret: &'a str,
    /// The token in the Secret, if it is for this very request: a new one must not expire earlier.
    pub held: Option<&'a TokenMetadata>,
    /// The token that the Secret held last, as far as it is remembered.
    pub last_held: Option<&'a LastHeld>,
}

/// Requests a token of `authority`, verifies and validates it.
///
/// # Errors
/// [`RequestError`]: nothing may be written then.
pub async fn request_token(authority: &Authority, order: &Order<'_>) -> Result<IssuedToken, RequestError> {
    let spec = &order.credential.spec;
    let namespace = order.credential.metadata.namespace.as_deref().unwrap_or_default();
    authority
        .config
        .permits_namespace(&authority.name, namespace, order.namespace_labels)
        .map_err(RequestError::NotSent)?;
    let request = TokenRequest {
        client: order.client.clone(),
        scopes: spec.scopes.clone(),
        resources: spec.resources.clone(),
        audience: spec.audience.clone(),
    };
    let (response, claims) = authority.request_token(&request, &names(authority, order)).await?;
    let expected = Expected {
        scopes: &spec.scopes,
        scope_check: authority.config.scope_check,
        allowed_scopes: authority.config.allowed_scopes.as_deref(),
        default_lifetime: authority.config.default_token_lifetime,
        held: order.held,
        last_held: order.last_held,
        skew: authority.config.clock_skew,
        now: authority.clock.now(),
    };
    let issued = validate::validate(response, claims.as_ref(), expected)?;
    if !issued.unnamed_scopes.is_empty() {
        let (authority, scopes) = (&authority.name, issued.unnamed_scopes.join(" "));
        tracing::info!(authority, namespace, scopes, "the authority does not say that it granted these scopes");
    }
    Ok(issued)
}

/// The objects that messages about a token request name.
#[must_use]
pub fn names(authority: &Authority, order: &Order<'_>) -> Names {
    let spec = &order.credential.spec;
    Names {
        authority: authority.name.clone(),
        client_secret: order.client_secret.to_owned(),
        keys: spec.client_credentials_ref.clone(),
        grant_type: spec.grant_type,
        method: authority.config.client_authentication,
        is_endpoint_discovered: authority.config.token_endpoint.is_none(),
    }
}
