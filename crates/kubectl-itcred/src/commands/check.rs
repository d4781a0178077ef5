//! `check`: reads what the operator would read, and says what is wrong.

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use chrono::{DateTime, Utc};
use futures::{FutureExt, future::BoxFuture};
use itwin_api::{
    authority::{AuthoritySpec, CaBundleKind, ITwinAuthority},
    credential::ITwinServiceCredential,
};
use itwin_core::{
    failure::Failure,
    messages_oauth::authority::unavailable,
    ownership::{Named, Writer},
    request_error::{Document, MetadataError},
};
use itwin_credential_operator::{
    config::authority::AuthorityConfig,
    oauth::http::{Deadlines, Http},
    observe::target::SecretMetadata,
};
use itwin_oauth::{
    discovery::{self, DiscoveryError, Endpoint},
    key_set::KeySet,
    transport::{self, Transport, TransportError},
};
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::common;
use crate::{
    check::{self, Lease, Observed, Published, Seen},
    output::{self, Form, Structured},
    plain::without_values,
    problem::{Outcome, Problem},
    session::{CallFailed, Session, checked, path},
    workloads::{Metadata, PodSpec},
};

/// The name of the operator's Lease.
const LEASE: &str = "itwin-credential-operator";

/// Checks a credential.
///
/// # Errors
/// Why it could not be read.
pub async fn run(
    session: &Session,
    name: &str,
    operator_namespace: &str,
    is_offline: bool,
    form: Form,
) -> Result<Outcome, Problem> {
    checked(operator_namespace)?;
    output::progress(&format!("checking {}/{name} ...", session.namespace));
    let observed = observe(session, name, operator_namespace, is_offline).await?;
    let report = check::report(&observed);
    match form {
        Form::Json | Form::Yaml => report.print(form)?,
        Form::Table | Form::Wide => output::print(&report.render(output::is_colored())),
    }
    Ok(Outcome::checked(report.problems().next().is_some(), report.is_complete()))
}

async fn observe(session: &Session, name: &str, operator: &str, is_offline: bool) -> Result<Observed, Problem> {
    let credential = common::credential(session, name).await?;
    let namespace = &session.namespace;
    let spec = &credential.spec;
    let pods_path = path::namespaced("api/v1", Some(namespace), "pods");
    let (leases, authority, labels, client, target, pods) = tokio::join!(
        leases(session, operator),
        object::<Value>(session, path::authority(&spec.authority_ref.name)),
        object::<Labeled>(session, path::namespace(namespace)),
        object::<Secret>(session, path::secret(namespace, &spec.client_credentials_ref.name)),
        object::<Secret>(session, path::secret(namespace, credential.target_name())),
        session.list::<Pod>(&pods_path, &[]),
    );
    let authority = match authority {
        Seen::Known(Some(value)) => match serde_json::from_value::<ITwinAuthority>(value) {
            Ok(authority) => Seen::Known(Some(authority)),
            Err(error) => Seen::Unknown(format!("it could not be decoded ({})", without_values(&error))),
        },
        Seen::Known(None) => Seen::Known(None),
        Seen::Unknown(why) => Seen::Unknown(why),
    };
    let is_there = leases.known().is_some_and(|leases| leases.iter().any(|lease| lease.namespace == operator));
    let ca_bundle = match authority.known().and_then(Option::as_ref) {
        // anyone may create a Lease: what it says where the user did not name it decides nothing about trust
        Some(authority) if authority.spec.ca_bundle_ref.is_some() && !is_there => {
            Seen::Unknown("the namespace of the operator is not known: name it with --operator-namespace".to_owned())
        }
        Some(authority) => ca_bundle(session, &authority.spec, operator).await,
        None => Seen::Known(Ok(None)),
    };
    let mut observed = Observed {
        now: session.now(),
        other_owner: other_owner(session, &credential, &target).await,
        leases,
        authority,
        ca_bundle,
        namespace_labels: match labels {
            Seen::Known(labels) => Seen::Known(labels.unwrap_or_default().metadata.labels),
            Seen::Unknown(why) => Seen::Unknown(why),
        },
        server: Seen::Unknown("there is no usable ITwinAuthority".to_owned()),
        is_offline,
        client,
        target,
        pods: seen(pods.map(|pods| pods.into_iter().map(|pod| (pod.metadata, pod.spec)).collect())),
        credential,
    };
    observed.server = match (is_offline, observed.config(), &observed.ca_bundle) {
        (true, ..) => Seen::Unknown("--offline is set".to_owned()),
        (_, _, Seen::Unknown(_)) => Seen::Unknown("its CA certificates are not known".to_owned()),
        (_, Some(config), _) => Seen::Known(server(session, observed.authority_name(), &config).await),
        (_, None, _) => observed.server,
    };
    observed.now = session.now();
    Ok(observed)
}

/// The other credential that the Secret belongs to, if it does.
async fn other_owner(
    session: &Session,
    credential: &ITwinServiceCredential,
    target: &Seen<Option<Secret>>,
) -> Seen<Option<Named>> {
    let Some(secret) = target.known().and_then(Option::as_ref) else { return Seen::Known(None) };
    let key = common::key(credential);
    let uid = credential.metadata.uid.as_deref().unwrap_or_default();
    let ours = Writer { namespace: &key.namespace, name: &key.name, uid };
    common::other_owner(session, &SecretMetadata::new(&secret.metadata), &ours).await
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Labeled {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    spec: PodSpec,
}

fn seen<T>(result: Result<T, CallFailed>) -> Seen<T> {
    result.map_or_else(|error| Seen::Unknown(error.to_string()), Seen::Known)
}

async fn object<T: DeserializeOwned>(session: &Session, path: String) -> Seen<Option<T>> {
    seen(session.get_if_any(&path).await)
}

/// The Lease of the operator in the namespace that the user named; where it has none that leads, also those of all
/// namespaces: one that an earlier installation left says nothing about the operator.
async fn leases(session: &Session, namespace: &str) -> Seen<Vec<Lease>> {
    const GROUP: &str = "apis/coordination.k8s.io/v1";
    let named = session.get_if_any::<Value>(&path::named(GROUP, namespace, "leases", LEASE)).await;
    let named = named.map(|found| found.as_ref().map(lease));
    if let Ok(Some(lease)) = &named
        && lease.leads(session.now())
    {
        return Seen::Known(vec![lease.clone()]);
    }
    let selector = format!("metadata.name={LEASE}");
    let all = session.list::<Value>(&path::namespaced(GROUP, None, "leases"), &[("fieldSelector", &selector)]).await;
    if let Ok(all) = all {
        // the one that was named, as it was read, and the others
        let read = named.ok().flatten();
        let is_read = |other: &Lease| read.as_ref().is_some_and(|read| read.namespace == other.namespace);
        let others: Vec<Lease> = all.iter().map(lease).filter(|other| !is_read(other)).collect();
        return Seen::Known(read.into_iter().chain(others).collect());
    }
    match named {
        Ok(Some(lease)) => Seen::Known(vec![lease]),
        Ok(None) => Seen::Unknown(format!(
            "namespace {namespace} has no Lease {LEASE}, and those of other namespaces may not be listed: name the \
             operator's with --operator-namespace"
        )),
        Err(error) => Seen::Unknown(error.to_string()),
    }
}

fn lease(value: &Value) -> Lease {
    let spec = &value["spec"];
    Lease {
        namespace: value["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
        holder: spec["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned),
        renewed: spec["renewTime"]
            .as_str()
            .and_then(|time| DateTime::parse_from_rfc3339(time).ok())
            .map(|time| time.with_timezone(&Utc)),
        seconds: spec["leaseDurationSeconds"].as_i64().unwrap_or(15),
    }
}

/// The CA certificates that an authority refers to.
async fn ca_bundle(session: &Session, spec: &AuthoritySpec, namespace: &str) -> Seen<Result<Option<Vec<u8>>, String>> {
    let Some(reference) = &spec.ca_bundle_ref else { return Seen::Known(Ok(None)) };
    let (kind, name, key) = (reference.kind.as_str(), &reference.name, &reference.key);
    let resource = match reference.kind {
        CaBundleKind::ConfigMap => "configmaps",
        CaBundleKind::Secret => "secrets",
    };
    let path = path::named("api/v1", namespace, resource, name);
    let object = match session.get_if_any::<Value>(&path).await {
        Ok(Some(object)) => object,
        Ok(None) => {
            return Seen::Known(Err(format!("caBundleRef: {kind} {namespace}/{name} does not exist: create it")));
        }
        Err(error) => return Seen::Unknown(error.to_string()),
    };
    let text = |field: &str| object[field][key].as_str();
    let decoded = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let pem = match reference.kind {
        CaBundleKind::ConfigMap => {
            text("data").map(|text| text.as_bytes().to_vec()).or_else(|| text("binaryData").and_then(decoded))
        }
        CaBundleKind::Secret => text("data").and_then(decoded),
    };
    match pem {
        Some(pem) => Seen::Known(Ok(Some(pem))),
        None => Seen::Known(Err(format!("caBundleRef: {kind} {namespace}/{name} has no key {key}: add it"))),
    }
}

/// What an authorization server publishes, as seen from this machine.
async fn server(session: &Session, name: &str, config: &AuthorityConfig) -> Result<Published, Failure> {
    let deadlines = Deadlines { request: config.request_timeout, connect: config.connect_timeout };
    let roots = (config.roots.as_deref(), config.roots_from);
    let http = Http::new(roots, deadlines, session.proxies.clone(), session.clock.clone())
        .map_err(|error| Failure::new(itwin_api::conditions::Reason::TLSFailed, error))?;
    let transport = Dated { inner: http, date: Mutex::new(None), session };
    let keys = keys(&transport, config).await.map_err(|error| unavailable(&error, name))?;
    let date = *transport.date.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Published { keys, date })
}

async fn keys(transport: &dyn Transport, config: &AuthorityConfig) -> Result<Option<KeySet>, MetadataError> {
    let get = |url: String, document: Document| async move {
        transport::get(transport, &url).await.map_err(|error| MetadataError::Transport(document, error))
    };
    let jwks = match &config.jwks_uri {
        Some(jwks) => Some(jwks.clone()),
        None => {
            let body = get(discovery::document_url(&config.issuer), Document::Discovery).await?;
            let (token, jwks) = (config.token_endpoint.as_ref(), config.jwks_uri.as_ref());
            discovery::endpoints(&body, &config.issuer, token, jwks, config.verify)?.jwks
        }
    };
    if !config.verify {
        return Ok(None);
    }
    let url = jwks.ok_or(DiscoveryError::Missing(Endpoint::Jwks))?;
    Ok(Some(KeySet::parse(&get(url.to_string(), Document::KeySet).await?)?))
}

/// Remembers the time of the server (RFC 9110 section 6.6.1), and that of this machine.
struct Dated<'a> {
    inner: Http,
    date: Mutex<Option<(DateTime<Utc>, DateTime<Utc>)>>,
    session: &'a Session,
}

impl Transport for Dated<'_> {
    fn send(&self, request: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        async move {
            let response = self.inner.send(request).await?;
            let date = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
            if let Some(date) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) {
                let read = Some((date.with_timezone(&Utc), self.session.now()));
                *self.date.lock().unwrap_or_else(PoisonError::into_inner) = read;
            }
            Ok(response)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
