//! One token request, from the permission to ask to a token that is worth writing.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use crate::{
    api::credential::ITwinServiceCredential,
    clock,
    decide::{
        facts::{Refusal, Stamp},
        grant::{self, Grant},
    },
    metrics::Metrics,
    oauth::{
        authority::{Authority, NoToken},
        token::{ClientCredentials, Names, TokenRequest},
    },
};

/// What a token is asked for.
pub struct Order<'a> {
    /// The credential.
    pub credential: &'a ITwinServiceCredential,
    /// Labels of its namespace, where the authority looks at them.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Who asks.
    pub client: &'a ClientCredentials,
    /// The client Secret, `namespace/name`.
    pub client_secret: &'a str,
    /// The token in the Secret, if it is for this very request: a new one must not expire earlier.
    pub held: Option<&'a Stamp>,
}

/// Asks `authority` for a token and weighs the answer.
///
/// # Errors
/// [`NoToken`]: nothing may be written then.
pub async fn mint(authority: &Arc<Authority>, order: &Order<'_>, metrics: &Metrics) -> Result<Grant, NoToken> {
    let spec = &order.credential.spec;
    let namespace = order.credential.metadata.namespace.as_deref().unwrap_or_default();
    authority.config.permits_namespace(&authority.name, namespace, order.namespace_labels).map_err(failed)?;
    let Some(metadata) = authority.metadata() else {
        return Err(failed(Refusal::new(
            crate::api::conditions::Reason::AuthorityNotReady,
            format!("ITwinAuthority {} is not ready: look at its condition Ready", authority.name),
        )));
    };
    let keys = &spec.client_credentials_ref;
    let request = TokenRequest {
        endpoint: &metadata.endpoints.token,
        placement: authority.config.placement,
        client: order.client,
        scopes: &spec.scopes,
        resources: &spec.resources,
        names: Names {
            authority: &authority.name,
            client_secret: order.client_secret,
            client_id_key: &keys.client_id_key,
            client_secret_key: &keys.client_secret_key,
        },
    };
    let started = Instant::now();
    let result = match authority.ask(&request).await {
        Ok(answer) => {
            grant::weigh(answer, &spec.scopes, order.held, authority.config.clock_skew, clock::now()).map_err(failed)
        }
        Err(no_token) => Err(no_token),
    };
    let label = match &result {
        Ok(_) => "success",
        // nothing was sent
        Err(NoToken::NotYet(_)) => return result,
        Err(NoToken::Failed(failure)) => failure.refusal.reason.as_str(),
    };
    metrics.token_request(&authority.name, label, started.elapsed());
    result
}

fn failed(refusal: Refusal) -> NoToken {
    NoToken::Failed(refusal.into())
}
