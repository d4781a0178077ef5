//! Objects that failed to decode: kept separate, so that they concern no other object, and reported.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, core::error_boundary::InvalidObject};

/// The longest part of a parser's complaint that is repeated.
const COMPLAINT_MAX: usize = 200;

/// Events that are published in one go, since the watch waits for them; the rest follows with its next event.
const AT_ONCE: usize = 20;

/// The objects that failed to decode, by kind, namespace and name.
#[derive(Default)]
pub struct InvalidObjects(Mutex<BTreeMap<Id, Complaint>>);

type Id = (String, Option<String>, String);

struct Complaint {
    about: ObjectReference,
    what: String,
    reported: bool,
}

impl InvalidObjects {
    /// This object failed to decode.
    pub fn add<K: Resource<DynamicType = ()>>(&self, invalid: InvalidObject) {
        let what: String = invalid.error.chars().take(COMPLAINT_MAX).collect();
        let metadata = invalid.metadata;
        tracing::error!(
            kind = %K::kind(&()),
            namespace = metadata.namespace,
            name = metadata.name,
            "object cannot be understood: {what}"
        );
        let about = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: None,
        };
        self.complaints().insert(id::<K>(&metadata), Complaint { about, what, reported: false });
    }

    /// This object was decoded, or is gone.
    pub fn forget<K: Resource<DynamicType = ()>>(&self, metadata: &ObjectMeta) {
        self.complaints().remove(&id::<K>(metadata));
    }

    /// All objects of a kind, in a namespace or everywhere, are listed again.
    pub fn forget_all<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>) {
        self.complaints().retain(|(kind, within, _), _| {
            *kind != K::kind(&()) || namespace.is_some_and(|namespace| within.as_deref() != Some(namespace))
        });
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.complaints().len()
    }

    /// What was not reported yet.
    pub(super) fn unreported(&self) -> Vec<(ObjectReference, String)> {
        let mut complaints = self.complaints();
        let unreported = complaints.values_mut().filter(|complaint| !complaint.reported).take(AT_ONCE);
        unreported
            .map(|complaint| {
                complaint.reported = true;
                (complaint.about.clone(), complaint.what.clone())
            })
            .collect()
    }

    fn complaints(&self) -> MutexGuard<'_, BTreeMap<Id, Complaint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id<K: Resource<DynamicType = ()>>(metadata: &ObjectMeta) -> Id {
    (K::kind(&()).into_owned(), metadata.namespace.clone(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use itwin_api::credential::ITwinServiceCredential as Credential;

    use super::*;

    fn metadata(namespace: &str, name: &str) -> ObjectMeta {
        ObjectMeta { namespace: Some(namespace.into()), name: Some(name.into()), ..ObjectMeta::default() }
    }

    fn add(invalid_objects: &InvalidObjects, namespace: &str, name: &str) {
        invalid_objects
            .add::<Credential>(InvalidObject { error: "no number".into(), metadata: metadata(namespace, name) });
    }

    #[test]
    fn each_is_reported_once() {
        let invalid_objects = InvalidObjects::default();
        add(&invalid_objects, "a", "x");
        assert_eq!(invalid_objects.unreported().len(), 1);
        assert!(invalid_objects.unreported().is_empty());
        assert_eq!(invalid_objects.count(), 1);
    }

    #[test]
    fn what_is_fixed_or_gone_is_forgotten_and_a_listing_concerns_its_namespace() {
        let invalid_objects = InvalidObjects::default();
        add(&invalid_objects, "a", "x");
        add(&invalid_objects, "a", "y");
        add(&invalid_objects, "b", "x");
        invalid_objects.forget::<Credential>(&metadata("a", "x"));
        invalid_objects.forget_all::<Credential>(Some("a"));
        assert_eq!(invalid_objects.count(), 1);
        invalid_objects.forget_all::<Credential>(None);
        assert_eq!(invalid_objects.count(), 0);
    }
}
