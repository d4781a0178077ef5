//! Reads of whole Secrets: as they are now, or from the watch cache of the API server.

use std::time::Duration;

use itwin_core::object::ObjectKey;
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, api::GetParams, core::Request};
use tokio::time::Instant;

use crate::{
    cluster::{CallError, Cluster, DEADLINE, Step, identified},
    observe::metadata::WholeSecret,
};

/// How long a read may take that the API server answers from its watch cache, which is a matter of milliseconds. A cache
/// that is late makes it wait for 3 s before it answers 504 ("Too large resource version"): storage is faster.
const CACHED_DEADLINE: Duration = Duration::from_secs(1);

/// Reads a Secret with its data, as it is now.
pub(super) async fn read_whole(cluster: &Cluster, step: Step, key: &ObjectKey) -> Result<Secret, CallError> {
    read_as(cluster, step, key, &GetParams::default(), Instant::now() + DEADLINE).await
}

/// Reads a Secret with its data, not older than a version that is known. The API server answers that from its watch cache,
/// without a read of etcd. What the cache does not answer is read as it is now: after a restore the version may never come,
/// a cache may be broken or not ready, and that there is no Secret is not concluded from a cache. Only a permission that is
/// missing would be missing again. A cache that failed is not asked for a while, by whatever credential.
pub(super) async fn read_not_older(
    cluster: &Cluster,
    step: Step,
    key: &ObjectKey,
    version: u64,
) -> Result<Secret, CallError> {
    let deadline = Instant::now() + DEADLINE;
    if cluster.may_ask_cache() {
        let cached = GetParams::at(&version.to_string());
        let answer = read_as(cluster, step, key, &cached, Instant::now() + CACHED_DEADLINE).await;
        // who asks is checked before the cache is
        let is_forbidden = matches!(answer, Err(CallError::Forbidden(_)));
        if !is_forbidden {
            cluster.cache_answered(matches!(answer, Ok(_) | Err(CallError::NotFound)));
        }
        if is_forbidden || answer.is_ok() {
            return answer;
        }
    }
    read_as(cluster, step, key, &GetParams::default(), deadline).await
}

async fn read_as(
    cluster: &Cluster,
    step: Step,
    key: &ObjectKey,
    params: &GetParams,
    deadline: Instant,
) -> Result<Secret, CallError> {
    let url = Secret::url_path(&(), Some(&key.namespace));
    let read = async {
        let request = Request::new(url).get(&key.name, params).map_err(kube::Error::BuildRequest)?;
        let answer = cluster.client.request::<WholeSecret>(request).await?;
        identified(answer, WholeSecret::identity, Some(&key.namespace), &key.name)
    };
    let secret = match params.resource_version {
        Some(_) => cluster.call_cached_until(deadline, step, read).await,
        None => cluster.call_until(deadline, step, read).await,
    };
    secret.map(WholeSecret::read)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::ready,
        sync::{Arc, Mutex},
    };

    use http::Response;
    use kube::{Client, client::Body};
    use serde_json::json;

    use super::*;
    use crate::{leadership::fence::LeadershipFence, metrics::Metrics};

    const CACHED: &str = "&resourceVersion=7";

    /// The queries of the requests that a server received.
    type Queries = Arc<Mutex<Vec<String>>>;

    /// A server whose cache answers with this status.
    fn cluster(cached: (u16, &'static str)) -> (Cluster, Queries) {
        let queries = Queries::default();
        let received = queries.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (code, reason) = if query.is_empty() { (200, "") } else { cached };
            let version = if query.is_empty() { "9" } else { "7" };
            received.lock().expect("no panic").push(query);
            let body = match code {
                200 => {
                    json!({"metadata": {"name": "client", "namespace": "team", "uid": "uid", "resourceVersion": version}})
                }
                _ => json!({"kind": "Status", "code": code, "reason": reason}),
            };
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            ready(Ok::<_, Infallible>(response.expect("a response")))
        });
        let metrics = Arc::new(Metrics::new(false).expect("metrics"));
        (Cluster::new(Client::new(service, "team"), LeadershipFence::unlimited(), metrics), queries)
    }

    /// Reads a Secret, not older than version 7. Returns the version that was read.
    async fn read_of(cluster: &Cluster) -> Result<Option<String>, CallError> {
        let secret = read_not_older(cluster, Step::GetClientSecret, &ObjectKey::new("team", "client"), 7).await;
        secret.map(|secret| secret.metadata.resource_version)
    }

    /// The same, of a server whose cache answers with this status, and the queries of the requests.
    async fn read(cached: (u16, &'static str)) -> (Result<Option<String>, CallError>, Vec<String>) {
        let (cluster, queries) = cluster(cached);
        let version = read_of(&cluster).await;
        let queries = queries.lock().expect("no panic").clone();
        (version, queries)
    }

    #[tokio::test]
    async fn cache_answers_what_it_has_and_is_not_believed_otherwise() {
        let version = |version: &str| Ok(Some(version.to_owned()));
        assert_eq!(read((200, "")).await, (version("7"), vec![CACHED.to_owned()]));
        for cached in [(404, "NotFound"), (504, "Timeout"), (500, "InternalError"), (503, ""), (429, "")] {
            assert_eq!(read(cached).await, (version("9"), vec![CACHED.to_owned(), String::new()]), "{cached:?}");
        }
        let (refused, queries) = read((403, "Forbidden")).await;
        assert!(matches!(refused, Err(CallError::Forbidden(_))) && queries.len() == 1, "it is forbidden");
    }

    #[tokio::test]
    async fn answer_that_is_not_the_secret_is_a_call_that_failed() {
        let metadata = |name: &str, namespace: &str| json!({"name": name, "namespace": namespace, "uid": "uid"});
        let mut other = metadata("other", "team");
        other["resourceVersion"] = json!("7");
        for metadata in [json!({}), metadata("client", "team"), other] {
            let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Success"});
            let text = body.to_string().into_bytes();
            let service = tower::service_fn(move |_: http::Request<Body>| {
                ready(Ok::<_, Infallible>(Response::new(Body::from(text.clone()))))
            });
            let metrics = Arc::new(Metrics::new(false).expect("metrics"));
            let cluster = Cluster::new(Client::new(service, "team"), LeadershipFence::unlimited(), metrics);
            assert_eq!(read_of(&cluster).await, Err(CallError::Transport), "{body}");
            assert!(!cluster.storage_answers(), "it shows nothing of the storage");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cache_that_fails_costs_one_read_a_minute_and_one_that_lacks_a_secret_is_asked_again() {
        let queries_of = async |cached| {
            let (cluster, queries) = cluster(cached);
            for _ in 0..3 {
                read_of(&cluster).await.expect("it is read as it is now");
            }
            tokio::time::advance(Duration::from_secs(60)).await;
            read_of(&cluster).await.expect("it is read as it is now");
            let queries = queries.lock().expect("no panic").clone();
            queries.iter().filter(|query| **query == CACHED).count()
        };
        assert_eq!(queries_of((504, "Timeout")).await, 2, "once, and after a minute");
        assert_eq!(queries_of((404, "NotFound")).await, 4, "a Secret may be created");
    }
}
