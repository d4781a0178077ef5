//! Whether an answer is the object that a call is about.
//!
//! A proxy, or an API server that fails, can answer 200 with what is no object, and a `Status` decodes as an object without
//! any metadata. Taken for a Secret, it would be one that belongs to someone else, for as long as nothing newer is known.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The answer, where it is the stored object of this namespace and name; any other one is a call that failed.
///
/// # Errors
/// Where it is not.
pub fn identified<T>(
    answer: T,
    metadata: impl FnOnce(&T) -> &ObjectMeta,
    namespace: Option<&str>,
    name: &str,
) -> kube::Result<T> {
    if is_stored(metadata(&answer), namespace, name) { Ok(answer) } else { Err(unidentified()) }
}

/// The error of an answer that is not the object that the call is about.
pub(super) fn unidentified() -> kube::Error {
    kube::Error::Service("the answer is not the object that was asked for".into())
}

/// Whether this is the metadata of the object of this namespace and name, as the API server stores it.
fn is_stored(metadata: &ObjectMeta, namespace: Option<&str>, name: &str) -> bool {
    let ObjectMeta { name: named, namespace: within, uid, resource_version, .. } = metadata;
    let has_identity = [uid, resource_version].iter().all(|part| part.as_deref().is_some_and(|part| !part.is_empty()));
    has_identity && named.as_deref() == Some(name) && within.as_deref() == namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(name: &str, namespace: Option<&str>, uid: Option<&str>, version: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: namespace.map(str::to_owned),
            uid: uid.map(str::to_owned),
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn only_the_stored_object_of_that_name_is_an_answer() {
        let (team, uid, version) = (Some("team"), Some("uid"), Some("7"));
        let is_answer = |answer: ObjectMeta| identified(answer, |answer| answer, team, "agent").is_ok();
        assert!(is_answer(metadata("agent", team, uid, version)));
        for other in [
            ObjectMeta::default(),
            metadata("other", team, uid, version),
            metadata("agent", Some("other"), uid, version),
            metadata("agent", None, uid, version),
            metadata("agent", team, None, version),
            metadata("agent", team, Some(""), version),
            metadata("agent", team, uid, None),
            metadata("agent", team, uid, Some("")),
        ] {
            assert!(!is_answer(other.clone()), "{other:?}");
        }
        let cluster_scoped = metadata("team", None, uid, version);
        assert!(identified(cluster_scoped, |answer| answer, None, "team").is_ok());
    }
}
