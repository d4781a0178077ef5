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
    /// A Secret changes hands.
    ChangesOwner,
    /// Conditions stay as they were first.
    FreezesConditions,
    /// A condition has a reason that is not documented.
    InventsReason,
    /// Statuses claim a generation that there is not.
    RunsAhead,
    /// The token is said to be usable until it expires.
    ForgetsMinimumValidity,
    /// Every token request is sent twice.
    SendsTwice,
    /// A failure stays in the status after the spec was changed.
    KeepsFailure,
    /// No status says that others keep changing the Secret.
    HidesConflict,
    /// What the API server says about a denied write is in no status.
    HidesDenial,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::CutsToken,
        Self::AcceptsAll,
        Self::AlwaysReady,
        Self::LeaksToken,
        Self::LeaksClientSecret,
        Self::KeepsObservedGeneration,
        Self::ForgetsLabels,
        Self::RemovesToken,
        Self::ChangesOwner,
        Self::FreezesConditions,
        Self::InventsReason,
        Self::RunsAhead,
        Self::ForgetsMinimumValidity,
        Self::SendsTwice,
        Self::KeepsFailure,
        Self::HidesConflict,
        Self::HidesDenial,
    ];

    /// Breaks what passes between the operator and its servers.
    pub fn install(self, api: &ApiServer, servers: &Servers) {
        let on = |matching: Match, change: fn(&mut Value)| {
            let hook = move |call: &Call, new: &mut Value, _: Option<&Value>| {
                if call.client.starts_with("replica-") {
                    change(new);
                }
                Ok(())
            };
            api.admit(matching, Arc::new(hook));
        };
        let secrets = |change: fn(&mut Value)| {
            [Verb::Create, Verb::Patch].map(|verb| on(Match::any().verb(verb).target("secrets"), change))
        };
        let status = |change: fn(&mut Value)| on(Match::any().target("itwinservicecredentials/status"), change);
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
            Self::SendsTwice => servers.send_twice(),
            Self::ChangesOwner => drop(secrets(|secret| {
                secret["metadata"]["annotations"]["credentials.itwin.dev/owner-uid"] = json!("another");
                secret["metadata"]["ownerReferences"] = json!([]);
            })),
            Self::InventsReason => {
                status(|credential| credential["status"]["conditions"][0]["reason"] = json!("Broken"))
            }
            Self::RunsAhead => status(|credential| {
                let observed = credential["status"]["observedGeneration"].as_i64().unwrap_or_default();
                credential["status"]["observedGeneration"] = json!(observed + 1);
            }),
            Self::ForgetsMinimumValidity => {
                status(|credential| credential["status"]["usableUntil"] = credential["status"]["expiresAt"].clone());
            }
            Self::FreezesConditions => freeze_conditions(api),
            Self::KeepsFailure => keep_failure(api),
            Self::HidesConflict => {
                status(|credential| replace_failure(credential, "SecretConflict", "SecretWriteFailed"))
            }
            Self::HidesDenial => status(|credential| replace_message(credential, "SecretWriteFailed")),
        }
    }
}

fn keep_failure(api: &ApiServer) {
    let hook = |call: &Call, new: &mut Value, old: Option<&Value>| {
        let failure = old.map(|old| old["status"]["lastFailure"].clone()).filter(|failure| !failure.is_null());
        if let Some(failure) = failure.filter(|_| call.client.starts_with("replica-")) {
            new["status"]["lastFailure"] = failure;
        }
        Ok(())
    };
    api.admit(Match::any().target("itwinservicecredentials/status"), Arc::new(hook));
}

fn conditions_with<'a>(credential: &'a mut Value, reason: &'a str) -> impl Iterator<Item = &'a mut Value> {
    let conditions = credential["status"]["conditions"].as_array_mut().into_iter().flatten();
    conditions.filter(move |condition| condition["reason"] == reason)
}

fn replace_failure(credential: &mut Value, reason: &str, by: &str) {
    conditions_with(credential, reason).for_each(|condition| condition["reason"] = json!(by));
}

fn replace_message(credential: &mut Value, reason: &str) {
    conditions_with(credential, reason).for_each(|condition| condition["message"] = json!("it failed"));
}

fn freeze_conditions(api: &ApiServer) {
    let hook = |call: &Call, new: &mut Value, old: Option<&Value>| {
        let before = old.map(|old| &old["status"]["conditions"]).filter(|before| before[0]["status"] == "True");
        if let Some(before) = before.filter(|_| call.client.starts_with("replica-")) {
            new["status"]["conditions"] = before.clone();
        }
        Ok(())
    };
    api.admit(Match::any().target("itwinservicecredentials/status"), Arc::new(hook));
}

fn cut_token(secret: &mut Value) {
    if let Some(token) = crate::oracle::token_of_data(secret) {
        secret["data"]["access_token"] = json!(STANDARD.encode(&token[..token.len() - 1]));
    }
}
