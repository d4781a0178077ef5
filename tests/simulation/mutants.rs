//! Broken operators: each breaks one promise at the seam between the operator and its servers, so that the oracle must
//! find it. An oracle that finds none of them proves nothing.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use simulated_api::{
    ApiServer,
    faults::Match,
    request::{Call, Verb},
};

use crate::authority::Servers;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The token is written without its last character.
    CutsToken,
    /// A token that had to be rejected is written: what the server answers is not checked.
    AcceptsAll,
    /// Statuses say Ready whatever the token.
    AlwaysReady,
    /// The token is in an annotation.
    LeaksToken,
    /// The client secret is in a status.
    LeaksClientSecret,
    /// Statuses keep the generation of the first one.
    KeepsObservedGeneration,
    /// Labels of the Secret are not written.
    ForgetsLabels,
    /// Every write of a Secret loses its token.
    RemovesToken,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CutsToken,
        Self::AcceptsAll,
        Self::AlwaysReady,
        Self::LeaksToken,
        Self::LeaksClientSecret,
        Self::KeepsObservedGeneration,
        Self::ForgetsLabels,
        Self::RemovesToken,
    ];

    /// Breaks what passes between the operator and its servers.
    pub fn install(self, api: &ApiServer, servers: &Servers) {
        let on = |verb: Verb, target: &str, change: fn(&mut Value)| {
            let hook = move |call: &Call, new: &mut Value, _: Option<&Value>| {
                if call.client.starts_with("replica-") {
                    change(new);
                }
                Ok(())
            };
            api.admit(Match::any().verb(verb).target(target), Arc::new(hook));
        };
        let secrets = |change: fn(&mut Value)| [Verb::Create, Verb::Patch].map(|verb| on(verb, "secrets", change));
        let status = |change: fn(&mut Value)| on(Verb::Patch, "itwinservicecredentials/status", change);
        match self {
            Self::CutsToken => drop(secrets(cut_token)),
            Self::RemovesToken => drop(secrets(|secret| {
                drop(secret["data"].as_object_mut().and_then(|data| data.remove("access_token")))
            })),
            Self::LeaksToken => drop(secrets(|secret| {
                let token = crate::oracle::token_of_data(secret).unwrap_or_default();
                secret["metadata"]["annotations"]["example.com/debug"] = json!(token);
            })),
            Self::ForgetsLabels => drop(secrets(|secret| secret["metadata"]["labels"] = json!({}))),
            Self::AlwaysReady => status(|credential| {
                for condition in credential["status"]["conditions"].as_array_mut().into_iter().flatten() {
                    condition["status"] = json!("True");
                }
            }),
            Self::LeaksClientSecret => {
                status(|credential| credential["status"]["secretName"] = json!("client-password-alpha"))
            }
            Self::KeepsObservedGeneration => status(|credential| credential["status"]["observedGeneration"] = json!(1)),
            Self::AcceptsAll => servers.accept_all(),
        }
    }
}

fn cut_token(secret: &mut Value) {
    if let Some(token) = crate::oracle::token_of_data(secret) {
        secret["data"]["access_token"] = json!(STANDARD.encode(&token[..token.len() - 1]));
    }
}
