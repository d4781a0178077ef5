//! Requests that are wrong, or seldom.

use simulated_api::random::Random;

use crate::operations::Action;

/// A request that is wrong, or seldom.
pub fn odd(random: &mut Random, namespace: &str) -> Action {
    const JSON: &str = "application/json";
    const MERGE: &str = "application/merge-patch+json";
    const SECRETS: &str = "/api/v1/namespaces/NS/secrets";
    const CREDENTIALS: &str = "/apis/credentials.itwin.dev/v1alpha1/namespaces/NS/itwinservicecredentials";
    let partial = |list: bool| {
        if list {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        } else {
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        }
    };
    let (method, path, accept, media, body) = random
        .pick(&[
            ("GET", format!("{SECRETS}?limit=1&continue=garbage"), JSON, "", ""),
            ("GET", format!("{SECRETS}?resourceVersion=garbage"), JSON, "", ""),
            ("GET", format!("{SECRETS}?fieldSelector=metadata.name%3Da"), JSON, "", ""),
            ("GET", SECRETS.to_owned(), partial(false), "", ""),
            ("GET", format!("{SECRETS}/a"), partial(true), "", ""),
            ("GET", "/api/v1/namespaces/NS/widgets/a".to_owned(), JSON, "", ""),
            ("GET", format!("{CREDENTIALS}/a/scale"), JSON, "", ""),
            ("GET", format!("{CREDENTIALS}/a/status"), JSON, "", ""),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"kind\":\"Lease\",\"apiVersion\":\"coordination.k8s.io/v1\"}"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"other\"}}"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"metadata\":{\"name\":\"Not_A_Name\"}}"),
            ("POST", SECRETS.to_owned(), JSON, JSON, "{\"metadata\":{}}"),
            ("POST", CREDENTIALS.to_owned(), JSON, JSON, "{\"metadata\":{\"name\":\"a\"}}"),
            ("PUT", format!("{SECRETS}/a"), JSON, JSON, "{\"metadata\":{\"name\":\"b\"}}"),
            ("PATCH", format!("{SECRETS}/a"), JSON, JSON, "{}"),
            ("PATCH", format!("{SECRETS}/a"), JSON, MERGE, "[1]"),
            ("PATCH", format!("{SECRETS}/a"), JSON, MERGE, "{"),
            ("PATCH", format!("{SECRETS}/a"), JSON, MERGE, "{\"metadata\":{\"name\":\"b\"}}"),
            ("PATCH", format!("{CREDENTIALS}/a"), JSON, MERGE, "{\"metadata\":{\"namespace\":\"b\"}}"),
            ("POST", format!("{SECRETS}/a"), JSON, JSON, "{}"),
        ])
        .clone();
    Action::Odd { method, path: path.replace("NS", namespace), accept, media, body }
}
