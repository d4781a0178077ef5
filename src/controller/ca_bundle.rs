//! The CA certificates that an authority refers to: a key of a ConfigMap or a Secret in the operator's own namespace.
//!
//! It is read with each reconcile of the authority, of which there is one at least every [`INTERVAL`], so that a renewed
//! certificate is followed without a watch, and without a permission to list anything.

use std::time::Duration;

use itwin_api::{
    authority::{CaBundleKind, CaBundleRef},
    conditions::Reason,
};
use itwin_core::{failure::Failure, object::ObjectKey};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Resource};

use super::secret_reads::read_whole;
use crate::{
    cluster::{CallError, Cluster, Step, identified},
    config::authority::roots,
    oauth::tls,
};

/// How often a bundle is read: certificates are renewed days before the old ones end, and a new one should not be waited
/// for much longer than for the volumes of a pod.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// Reads the bundle in this namespace.
///
/// # Errors
/// [`Reason::ConfigurationInvalid`], with the object and what to do.
pub async fn read(cluster: &Cluster, namespace: &str, reference: &CaBundleRef) -> Result<Vec<u8>, Failure> {
    let object = format!("{} {namespace}/{}", reference.kind.as_str(), reference.name);
    let failed = |what: String| Failure::new(Reason::ConfigurationInvalid, format!("spec.caBundleRef: {what}"));
    let content = match reference.kind {
        CaBundleKind::ConfigMap => config_map(cluster, namespace, reference).await,
        CaBundleKind::Secret => secret(cluster, namespace, reference).await,
    };
    match content {
        // what cannot be used replaces nothing that can
        Ok(Some(content)) => {
            let usable = roots("caBundleRef", &content).and_then(|roots| tls::config(Some(&roots)));
            let invalid = |error| format!("spec.{error} (key {} of {object})", reference.key);
            usable.map(|_| content).map_err(|error| Failure::new(Reason::ConfigurationInvalid, invalid(error)))
        }
        Ok(None) => {
            Err(failed(format!("{object} has no key {}: write the PEM certificates of the CA there", reference.key)))
        }
        Err(CallError::NotFound) => {
            Err(failed(format!("{object} does not exist: create it, with the PEM certificates of the CA")))
        }
        Err(CallError::Forbidden(_)) => Err(failed(format!(
            "the operator may not read {object}: name it in the value caBundles of the chart, or in its value authorities"
        ))),
        Err(error) => Err(failed(format!("{object} could not be read ({error}): it is tried again"))),
    }
}

async fn config_map(cluster: &Cluster, namespace: &str, reference: &CaBundleRef) -> Result<Option<Vec<u8>>, CallError> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let read = async { identified(api.get(&reference.name).await?, ConfigMap::meta, Some(namespace), &reference.name) };
    let mut found = cluster.call(Step::GetCaBundle(reference.kind), read).await?;
    let binary = found.binary_data.as_mut().and_then(|data| data.remove(&reference.key)).map(|value| value.0);
    let text = found.data.and_then(|mut data| data.remove(&reference.key)).map(String::into_bytes);
    Ok(text.or(binary))
}

async fn secret(cluster: &Cluster, namespace: &str, reference: &CaBundleRef) -> Result<Option<Vec<u8>>, CallError> {
    let key = ObjectKey::new(namespace, &reference.name);
    let found = read_whole(cluster, Step::GetCaBundle(reference.kind), &key).await?;
    Ok(found.data.and_then(|mut data| data.remove(&reference.key)).map(|value| value.0))
}
