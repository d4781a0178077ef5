//! Reconciles one authority: fetches its endpoints and keys if that is due, and reports how it stands.

use std::{sync::Arc, time::Duration};

use itwin_api::{
    MANAGER,
    authority::{AuthoritySpec, AuthorityStatus, ITwinAuthority},
};
use itwin_core::{
    authority_status::{self, Inputs, Known, UnreadBundle},
    failure::Failure,
    messages_oauth,
    request_error::MetadataError,
};
use itwin_oauth::{
    discovery::{self, Endpoints},
    key_set::KeySet,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use serde_json::json;
use tokio::time::Instant;
use url::Url;

use super::{RequeueAfter, authorities::KnownStatus, ca_bundle, context::Context};
use crate::{
    cluster::{CallError, Cluster, Step, identified},
    config::authority::AuthorityConfig,
    oauth::authority::{Authority, Metadata},
};

/// Wait after a status that could not be written.
const STATUS_RETRY: Duration = Duration::from_secs(5);
/// The longest wait for an authority whose spec is of no use; an edit enqueues it before that.
const INVALID_RETRY: Duration = Duration::from_secs(60);
/// No authority is reconciled again sooner than this.
const REQUEUE_FLOOR: Duration = Duration::from_millis(10);

/// Reconciles one authority.
pub async fn reconcile(object: &ITwinAuthority, context: &Context) -> RequeueAfter {
    let Context { authorities, namespaces, .. } = context;
    let name = object.name_any();
    // one that is being deleted serves its users until it is gone: a finalizer of others may hold it for long
    let bundle = match &object.spec.ca_bundle_ref {
        None => Ok(None),
        Some(reference) => ca_bundle::read(&context.cluster, &context.own_namespace, reference).await.map(Some),
    };
    let (authority, is_edited) = authorities.ensure(object, &bundle)?;
    if is_edited {
        namespaces.enqueue_users_of(&name);
    }
    let authority = match authority {
        Ok(authority) => authority,
        Err(failure) => {
            let wait = if bundle.is_err() { ca_bundle::INTERVAL } else { INVALID_RETRY };
            return report(object, (None, Some(&failure), None), context, wait).await;
        }
    };
    if let Err(failure) = &bundle {
        // those that were read before are good for a while, so that all goes on with them
        tracing::warn!(authority = name, "CA certificates could not be read: {}", failure.message);
    }
    let unread = authorities.note_bundle(&name, bundle.err());
    if authorities.wait(&name).is_zero() {
        tokio::select! {
            biased;
            // it may take minutes, and what an administrator forbids meanwhile is to take effect at once
            () = authorities.until_edited(|| is_edited_since(object, context)) => return Some(REQUEUE_FLOOR),
            () = refresh(&authority, context) => {}
        }
    }
    let known = authority.metadata().map(|metadata| known(&metadata, &authority.config, context.clock.monotonic()));
    let failure = authorities.failure(&name);
    let wait = authorities.wait(&name);
    let wait = if object.spec.ca_bundle_ref.is_some() { wait.min(ca_bundle::INTERVAL) } else { wait };
    // Ready changes with time alone then
    let wait = authority_status::stale_in(known.as_ref(), failure.as_ref()).map_or(wait, |stale| wait.min(stale));
    report(object, (known.as_ref(), failure.as_ref(), unread.as_ref()), context, wait).await
}

/// Whether the watch has shown another spec of this authority. One that is gone is forgotten elsewhere.
fn is_edited_since(object: &ITwinAuthority, context: &Context) -> bool {
    let known = context.namespaces.authorities.get(&ObjectRef::from_obj(object));
    known.is_some_and(|known| is_another_spec(&known, object))
}

fn is_another_spec(known: &ITwinAuthority, object: &ITwinAuthority) -> bool {
    made_from(known) != made_from(object)
}

/// A cluster that was restored from a backup gives out a generation a second time.
fn made_from(object: &ITwinAuthority) -> (Option<&str>, Option<i64>, &AuthoritySpec) {
    (object.metadata.uid.as_deref(), object.metadata.generation, &object.spec)
}

/// Fetches endpoints and keys, and enqueues the credentials for which the result changes something.
async fn refresh(authority: &Arc<Authority>, context: &Context) {
    let result = authority.refresh().await.map(drop);
    let result = result.map_err(|error| failed(&error, &authority.name));
    if let Err(failure) = &result {
        let reason = failure.reason.as_str();
        tracing::warn!(authority = authority.name, reason, "authority could not be asked: {}", failure.message);
    }
    if context.authorities.note(authority, result) {
        context.namespaces.enqueue_users_of(&authority.name);
    }
}

/// Why an authority could not be asked. Its documents serve all clients: only a wait that concerns all delays them.
fn failed(error: &MetadataError, name: &str) -> Failure {
    Failure { retry_after: error.server_wait(), ..messages_oauth::authority::unavailable(error, name) }
}

/// Writes the status if it changed, publishes a change of Ready, and says when to reconcile again.
async fn report(
    object: &ITwinAuthority,
    (known, failure, unread_bundle): (Option<&Known>, Option<&Failure>, Option<&UnreadBundle>),
    context: &Context,
    wait: Duration,
) -> RequeueAfter {
    let (authorities, name) = (&context.authorities, object.name_any());
    let wait = wait.max(REQUEUE_FLOOR);
    let KnownStatus { status: previous, guard } = authorities.known_status(object);
    let now = context.clock.now();
    let generation = object.metadata.generation;
    let inputs = Inputs { known, failure, unread_bundle, generation, previous: &previous, now };
    let Some(status) = authority_status::status(&inputs) else { return Some(STATUS_RETRY) };
    let is_ready = authority_status::is_ready(&status).unwrap_or_default();
    authorities.gauge(&name, is_ready, authority_status::last_refresh(&inputs));
    let transition = authorities.transition(object, &status);
    let again = match authorities.reported_lately(&name, &status) {
        _ if status == previous => wait,
        Some(left) => left.min(wait).max(REQUEUE_FLOOR),
        None => match write_status(&context.cluster, object, &status, guard).await {
            Ok(written) => {
                authorities.note_reported(object, status, written);
                wait
            }
            Err(error) => {
                // after a conflict the watch brings the newer object, mostly before this
                if matches!(error, CallError::Conflict) {
                    authorities.note_conflict(object);
                }
                tracing::warn!(authority = name, %error, "status could not be written");
                STATUS_RETRY.min(wait)
            }
        },
    };
    if let Some(transition) = transition {
        context.events.publish(object.object_ref(&()), transition);
    }
    Some(again)
}

/// Endpoints that the administrator named are shown in full. What the server names may hold a secret.
fn known(metadata: &Metadata, config: &AuthorityConfig, now: Instant) -> Known {
    let Endpoints { token, jwks } = &metadata.endpoints;
    let shown =
        |url: &Url, is_named: bool| if is_named { url.to_string() } else { discovery::shown(url, &config.issuer) };
    Known {
        token_endpoint: shown(&token.url, config.token_endpoint.is_some()),
        jwks_uri: jwks.as_ref().map(|url| shown(url, config.jwks_uri.is_some())),
        signing_keys: metadata.keys.as_ref().map(KeySet::len),
        refreshed_at: metadata.refreshed_at,
        age: now.saturating_duration_since(metadata.refreshed),
    }
}

/// Writes the whole status, over the one that the object has at the version that guards it: conditions of others in it
/// are a list, and would be lost. Returns the resourceVersion that the object then has.
async fn write_status(
    cluster: &Cluster,
    object: &ITwinAuthority,
    status: &AuthorityStatus,
    guard: Option<String>,
) -> Result<Option<String>, CallError> {
    // null takes a field away
    let mut patch = json!({
        "metadata": {"uid": object.uid()},
        "status": {
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "tokenEndpoint": status.token_endpoint,
            "jwksUri": status.jwks_uri,
            "signingKeys": status.signing_keys,
            "lastRefreshTime": status.last_refresh_time,
        },
    });
    if let Some(version) = guard {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    let api: Api<ITwinAuthority> = Api::all(cluster.client.clone());
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let name = object.name_any();
    let patch = Patch::Merge(&patch);
    let write =
        async { identified(api.patch_status(&name, &params, &patch).await?, ITwinAuthority::meta, None, &name) };
    let written = cluster.call(Step::PatchAuthorityStatus, write).await?;
    Ok(written.resource_version())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use itwin_core::request_error::Document;
    use itwin_oauth::transport::TransportError;

    use super::*;

    #[test]
    fn edit_ends_a_refresh_also_where_a_restored_cluster_gives_out_its_generation_again() {
        let object = |uid: &str, generation: i64, issuer: &str, status: &serde_json::Value| -> ITwinAuthority {
            let metadata = json!({"name": "ims", "uid": uid, "generation": generation});
            let spec = json!({"issuer": issuer});
            let (version, kind) = ("credentials.itwin.dev/v1alpha1", "ITwinAuthority");
            let object =
                json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "status": status});
            serde_json::from_value(object).expect("a valid authority")
        };
        let (issuer, other) = ("https://ims.example.com", "https://other.example.com");
        let before = object("uid", 2, issuer, &json!({}));
        for (now, is_edited) in [
            (object("uid", 2, issuer, &json!({"observedGeneration": 2})), false),
            (object("uid", 3, issuer, &json!({})), true),
            (object("again", 2, issuer, &json!({})), true),
            (object("uid", 2, other, &json!({})), true),
        ] {
            assert_eq!(is_another_spec(&now, &before), is_edited, "{now:?}");
        }
    }

    #[test]
    fn documents_are_delayed_only_by_a_wait_that_concerns_all_clients() {
        let asked = Some(TimeDelta::minutes(10));
        for (error, wait) in [
            (TransportError::RateLimited(asked, Vec::new()), asked),
            (TransportError::Server(503, asked, Vec::new()), asked),
            (TransportError::Server(500, asked, Vec::new()), None),
            (TransportError::Server(502, asked, Vec::new()), None),
        ] {
            let failure = failed(&MetadataError::Transport(Document::Discovery, error), "ims");
            assert_eq!(failure.retry_after, wait, "{}", failure.message);
        }
    }

    #[test]
    fn endpoint_is_shown_in_full_only_where_the_administrator_named_it() {
        let url = |path: &str| format!("https://ims.example.com/{path}");
        let shown = |named: serde_json::Value| {
            let mut spec = json!({"issuer": url("")});
            spec.as_object_mut().expect("an object").extend(named.as_object().expect("an object").clone());
            let spec = serde_json::from_value(spec).expect("a spec");
            let config = AuthorityConfig::new(&spec).expect("a valid spec");
            let parsed = |path: &str| Url::parse(&url(path)).expect("a URL");
            let endpoints = Endpoints { token: parsed("hunter2/token").into(), jwks: Some(parsed("hunter2/keys")) };
            let now = Instant::now();
            let metadata = Metadata { endpoints, keys: None, refreshed_at: DateTime::UNIX_EPOCH, refreshed: now };
            let known = known(&metadata, &config, now);
            (known.token_endpoint, known.jwks_uri)
        };
        let discovered = (url("[redacted]/token"), Some(url("[redacted]/keys")));
        assert_eq!(shown(json!({})), discovered);
        let token = json!({"tokenEndpoint": url("hunter2/token")});
        assert_eq!(shown(token), (url("hunter2/token"), discovered.1));
        let keys = json!({"jwksUri": url("hunter2/keys")});
        assert_eq!(shown(keys), (discovered.0, Some(url("hunter2/keys"))));
    }
}
