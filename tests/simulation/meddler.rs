//! Others that write what the operator writes: a controller that fights over a Secret, and admission that rewrites or
//! denies the operator's writes for a time.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use itwin_api::secret_keys::{MANAGED_BY, TOKEN_METADATA};
use serde_json::{Map, Value, json};
use simulated_api::{
    ApiServer,
    admission::{Hook, denied},
    faults::Match,
    request::{Call, Verb},
};

use crate::clock::Clocks;

/// How often another controller does what it does.
pub const ROUND: Duration = Duration::from_secs(2);
/// And how many times.
pub const ROUNDS: usize = 30;
/// What a denial says.
pub const DENIAL: &str = "a label is required by the policy";

/// What another controller does to a Secret, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fight {
    AddKey,
    RewriteLabels,
    /// Those that describe the token; without the ones that prove its owner it would be someone else's.
    StripAnnotations,
    Delete,
}

impl Fight {
    pub const ALL: [Self; 4] = [Self::AddKey, Self::RewriteLabels, Self::Delete, Self::StripAnnotations];

    /// One round.
    pub fn strike(self, api: &ApiServer, namespace: &str, name: &str) {
        let user = api.as_user("meddler");
        let patch = |patch: Value| drop(user.patch("secrets", namespace, name, &patch));
        match self {
            Self::AddKey => patch(json!({"data": {"extra": STANDARD.encode("more")}})),
            Self::RewriteLabels => patch(json!({"metadata": {"labels": {MANAGED_BY: "meddler"}}})),
            Self::StripAnnotations => patch(json!({"metadata": {"annotations": without_token()}})),
            Self::Delete => drop(user.delete("secrets", namespace, name, &json!({}))),
        }
    }
}

/// A patch that removes all annotations about the token.
fn without_token() -> Value {
    Value::Object(TOKEN_METADATA.iter().map(|name| ((*name).to_owned(), Value::Null)).collect::<Map<_, _>>())
}

/// What admission does to writes of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It denies them with this code.
    Denies(u16),
    RewritesLabels,
    StripsAnnotations,
    AddsKey,
}

/// Admission acts on writes of the operator to a resource, in a namespace or in all, until then.
pub fn install(
    api: &ApiServer,
    clocks: &Clocks,
    (target, namespace): (&str, Option<&str>),
    admission: Admission,
    until: DateTime<Utc>,
) {
    let clocks = clocks.clone();
    let hook: Hook = Arc::new(move |call: &Call, new: &mut Value, _: Option<&Value>| {
        if !call.client.starts_with("replica-") || clocks.now() >= until {
            return Ok(());
        }
        match admission {
            Admission::Denies(code) => return Err(denied(code, "policy.example.com", DENIAL)),
            Admission::RewritesLabels => new["metadata"]["labels"][MANAGED_BY] = json!("policy"),
            Admission::AddsKey => new["data"]["extra"] = json!(STANDARD.encode("more")),
            Admission::StripsAnnotations => {
                if let Some(annotations) = new["metadata"]["annotations"].as_object_mut() {
                    annotations.retain(|name, _| !TOKEN_METADATA.contains(&name.as_str()));
                }
            }
        }
        Ok(())
    });
    for verb in [Verb::Create, Verb::Patch] {
        let matching = Match::any().verb(verb).target(target);
        api.admit(namespace.map_or(matching.clone(), |namespace| matching.namespace(namespace)), hook.clone());
    }
}
