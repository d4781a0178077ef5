//! One token request, from the permission to ask to a token that is worth writing.

use std::collections::BTreeMap;

use itwin_api::{credential::ITwinServiceCredential, failure::Failure};
use itwin_core::{
    observed::TokenMetadata,
    validate::{self, IssuedToken},
};
use itwin_oauth::{
    failure::{ExchangeStage, RequestFailure},
    token::{ClientCredentials, Names, TokenRequest},
};

use crate::oauth::authority::Authority;

/// What a token is asked for.
pub struct Order<'a> {
    /// The credential.
    pub credential: &'a ITwinServiceCredential,
    /// Labels of its namespace, where the authority selects by them.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Who asks.
    pub client: &'a ClientCredentials,
    /// The client Secret, `namespace/name`.
    pub client_secret: &'a str,
    /// The token in the Secret, if it is for this very request: a new one must not expire earlier.
    pub held: Option<&'a TokenMetadata>,
}

/// Requests a token of `authority` and validates the answer.
///
/// # Errors
/// [`RequestFailure`]: nothing may be written then.
pub async fn request_token(authority: &Authority, order: &Order<'_>) -> Result<IssuedToken, RequestFailure> {
    let spec = &order.credential.spec;
    let namespace = order.credential.metadata.namespace.as_deref().unwrap_or_default();
    authority.config.permits_namespace(&authority.name, namespace, order.namespace_labels).map_err(not_sent)?;
    let request = TokenRequest {
        client: order.client.clone(),
        scopes: spec.scopes.clone(),
        resources: spec.resources.clone(),
        names: Names {
            authority: authority.name.clone(),
            client_secret: order.client_secret.to_owned(),
            keys: spec.client_credentials_ref.clone(),
        },
    };
    let answer = authority.request_token(&request).await?;
    validate::validate(
        &authority.name,
        answer,
        &spec.scopes,
        order.held,
        authority.config.clock_skew,
        authority.clock.now(),
    )
    .map_err(RequestFailure::from)
}

fn not_sent(failure: Failure) -> RequestFailure {
    RequestFailure::from(failure).at(ExchangeStage::NotSent)
}
