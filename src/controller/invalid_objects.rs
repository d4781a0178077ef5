//! Objects that failed to decode: kept separate, so that they concern no other object, and reported.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use itwin_core::events::{EventReason, Transition};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, core::error_boundary::InvalidObject};
use tokio::sync::Notify;

use crate::{leadership::fence::LeadershipFence, report::publisher::Events};

/// The longest part of a parser's error that is repeated, in characters.
const ERROR_MAX: usize = 200;
/// Events that are published before the objects are read again.
const AT_ONCE: usize = 20;
/// Wait after events that could not be published.
const RETRY: Duration = Duration::from_secs(10);

/// The objects that failed to decode, by kind, namespace and name.
#[derive(Default)]
pub struct InvalidObjects {
    all: Mutex<BTreeMap<Id, Invalid>>,
    /// There may be something to report.
    changed: Notify,
}

type Id = (String, Option<String>, String);

struct Invalid {
    about: ObjectReference,
    error: String,
    is_reported: bool,
    /// How often that failed.
    failures: u32,
    /// Seen in the listing that is under way.
    is_listed: bool,
}

/// An object that was not reported yet.
struct Unreported {
    id: Id,
    about: ObjectReference,
    error: String,
}

impl InvalidObjects {
    /// This object failed to decode. One that failed in the same way before is not reported again.
    pub fn add<K: Resource<DynamicType = ()>>(&self, invalid: InvalidObject) {
        let error: String = invalid.error.chars().take(ERROR_MAX).collect();
        let metadata = invalid.metadata;
        let id = id::<K>(&metadata);
        let mut all = self.all();
        if let Some(known) = all.get_mut(&id)
            && known.about.uid == metadata.uid
            && known.error == error
        {
            known.about.resource_version = metadata.resource_version;
            known.is_listed = true;
            return;
        }
        tracing::error!(
            kind = %K::kind(&()),
            namespace = metadata.namespace,
            name = metadata.name,
            "object could not be decoded: {error}"
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
        all.insert(id, Invalid { about, error, is_reported: false, failures: 0, is_listed: true });
        drop(all);
        self.changed.notify_one();
    }

    /// This object was decoded, or is gone.
    pub fn forget<K: Resource<DynamicType = ()>>(&self, metadata: &ObjectMeta) {
        self.all().remove(&id::<K>(metadata));
    }

    /// A listing of all objects of a kind begins, in a namespace or everywhere.
    pub fn listing_began<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>) {
        let mut all = self.all();
        let listed = all.iter_mut().filter(|(id, _)| is_within::<K>(id, namespace));
        listed.for_each(|(_, invalid)| invalid.is_listed = false);
    }

    /// That listing ended: what it did not hold is gone.
    pub fn listing_ended<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>) {
        self.all().retain(|id, invalid| invalid.is_listed || !is_within::<K>(id, namespace));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// Why the object of this name failed to decode, if it did.
    #[must_use]
    pub fn error<K: Resource<DynamicType = ()>>(&self, namespace: Option<&str>, name: &str) -> Option<String> {
        let id = (K::kind(&()).into_owned(), namespace.map(str::to_owned), name.to_owned());
        self.all().get(&id).map(|invalid| invalid.error.clone())
    }

    /// This process leads from now on, and reports what was found before.
    pub fn leads(&self) {
        self.changed.notify_one();
    }

    /// Publishes one event for each object, indefinitely, while this process leads. It is a task of its own, so that no
    /// watch waits for it.
    pub async fn report(&self, events: &Events, fence: &LeadershipFence) {
        loop {
            let mut failed = false;
            while fence.holds() && !failed {
                let unreported = self.unreported();
                if unreported.is_empty() {
                    break;
                }
                for Unreported { id, about, error } in unreported {
                    let published = events.try_publish(&about, &transition(&error)).await;
                    match published {
                        Ok(()) => self.reported(&id, about.uid.as_deref(), &error),
                        Err(problem) => {
                            tracing::warn!(about = about.name, error = %problem, "event could not be published");
                            self.failed(&id);
                            failed = true;
                        }
                    }
                }
            }
            // a Lease that was not renewed in time may be renewed again
            if self.unreported().is_empty() {
                self.changed.notified().await;
            } else {
                // an error means that nothing changed meanwhile
                let _ = tokio::time::timeout(RETRY, self.changed.notified()).await;
            }
        }
    }

    fn unreported(&self) -> Vec<Unreported> {
        let all = self.all();
        let mut unreported: Vec<_> = all.iter().filter(|(_, invalid)| !invalid.is_reported).collect();
        // those that fail must not hold up the others
        unreported.sort_by_key(|(_, invalid)| invalid.failures);
        unreported
            .into_iter()
            .take(AT_ONCE)
            .map(|(id, invalid)| Unreported {
                id: id.clone(),
                about: invalid.about.clone(),
                error: invalid.error.clone(),
            })
            .collect()
    }

    /// Notes an event that could not be published.
    fn failed(&self, id: &Id) {
        if let Some(invalid) = self.all().get_mut(id) {
            invalid.failures = invalid.failures.saturating_add(1);
        }
    }

    /// Notes an event that was published, unless the object failed in another way meanwhile.
    fn reported(&self, id: &Id, uid: Option<&str>, error: &str) {
        if let Some(invalid) = self.all().get_mut(id)
            && invalid.about.uid.as_deref() == uid
            && invalid.error == error
        {
            invalid.is_reported = true;
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Id, Invalid>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn transition(error: &str) -> Transition {
    let note = format!(
        "this object could not be decoded and is left as it was: {error}; apply it again with the CRDs of this version"
    );
    Transition::warning(EventReason::InvalidObject, note)
}

fn id<K: Resource<DynamicType = ()>>(metadata: &ObjectMeta) -> Id {
    (K::kind(&()).into_owned(), metadata.namespace.clone(), metadata.name.clone().unwrap_or_default())
}

fn is_within<K: Resource<DynamicType = ()>>((kind, within, _): &Id, namespace: Option<&str>) -> bool {
    *kind == K::kind(&()) && namespace.is_none_or(|namespace| within.as_deref() == Some(namespace))
}

#[cfg(test)]
mod tests {
    use itwin_api::{authority::ITwinAuthority as Authority, credential::ITwinServiceCredential as Credential};

    use super::*;

    fn metadata(namespace: &str, name: &str) -> ObjectMeta {
        ObjectMeta { namespace: Some(namespace.into()), name: Some(name.into()), ..ObjectMeta::default() }
    }

    fn add(invalid_objects: &InvalidObjects, namespace: &str, name: &str) {
        invalid_objects
            .add::<Credential>(InvalidObject { error: "no number".into(), metadata: metadata(namespace, name) });
    }

    /// Takes all events for published.
    fn report(invalid_objects: &InvalidObjects) -> usize {
        let unreported = invalid_objects.unreported();
        unreported.iter().for_each(|one| invalid_objects.reported(&one.id, one.about.uid.as_deref(), &one.error));
        unreported.len()
    }

    #[test]
    fn each_is_reported_until_its_event_was_published() {
        let invalid_objects = InvalidObjects::default();
        add(&invalid_objects, "a", "x");
        assert_eq!(invalid_objects.unreported().len(), 1);
        assert_eq!(invalid_objects.unreported().len(), 1, "nothing was published yet");
        assert_eq!(report(&invalid_objects), 1);
        assert_eq!((report(&invalid_objects), invalid_objects.count()), (0, 1));
    }

    #[test]
    fn events_that_cannot_be_published_hold_up_no_others() {
        let invalid_objects = InvalidObjects::default();
        (0..AT_ONCE).for_each(|number| add(&invalid_objects, "a", &format!("x{number}")));
        add(&invalid_objects, "b", "y");
        invalid_objects.unreported().iter().for_each(|one| invalid_objects.failed(&one.id));
        assert!(invalid_objects.unreported().iter().any(|one| one.about.namespace.as_deref() == Some("b")));
    }

    #[test]
    fn only_another_object_or_another_error_is_reported_again() {
        let invalid_objects = InvalidObjects::default();
        add(&invalid_objects, "a", "x");
        report(&invalid_objects);
        add(&invalid_objects, "a", "x");
        assert_eq!(report(&invalid_objects), 0);
        let other = InvalidObject { error: "no text".into(), metadata: metadata("a", "x") };
        invalid_objects.add::<Credential>(other);
        assert_eq!(report(&invalid_objects), 1);
        let mut recreated = metadata("a", "x");
        recreated.uid = Some("other".into());
        invalid_objects.add::<Credential>(InvalidObject { error: "no text".into(), metadata: recreated });
        assert_eq!(report(&invalid_objects), 1);
    }

    #[test]
    fn listing_reports_nothing_again_and_forgets_what_it_did_not_hold() {
        let invalid_objects = InvalidObjects::default();
        for (namespace, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
            add(&invalid_objects, namespace, name);
        }
        let mut authority = metadata("", "ims");
        authority.namespace = None;
        invalid_objects.add::<Authority>(InvalidObject { error: "no number".into(), metadata: authority });
        assert_eq!(report(&invalid_objects), 4);
        invalid_objects.listing_began::<Credential>(Some("a"));
        assert_eq!(invalid_objects.count(), 4, "nothing is forgotten before the listing ends");
        add(&invalid_objects, "a", "x");
        invalid_objects.listing_ended::<Credential>(Some("a"));
        assert_eq!((invalid_objects.count(), report(&invalid_objects)), (3, 0));
        invalid_objects.listing_began::<Credential>(None);
        invalid_objects.listing_ended::<Credential>(None);
        assert_eq!(invalid_objects.count(), 1);
        assert_eq!(invalid_objects.error::<Authority>(None, "ims").as_deref(), Some("no number"));
        invalid_objects.forget::<Authority>(&ObjectMeta { name: Some("ims".into()), ..ObjectMeta::default() });
        assert_eq!(invalid_objects.count(), 0);
    }
}
