//! The patch of an existing Secret's metadata.
//!
//! It is a strategic merge patch: labels and annotations of others stay, and so do their owner references, which are
//! merged by UID. Only the reference of this credential, and that of the deleted credential whose Secret it adopts, are
//! added and removed. UID and resourceVersion guard it: it fails with a conflict unless the Secret is still the one
//! that was observed, unchanged.

use std::collections::BTreeMap;

use itwin_api::{credential::ITwinServiceCredential, secret_keys};
use serde_json::{Value, json};

use crate::{
    desired_secret::{labels, own_annotations, own_labels, owner},
    ownership::OwnershipMetadata,
    withheld::Withheld,
};

/// Labels and annotations that were set by a template and are no longer desired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers<'a> {
    /// Keys of labels.
    pub labels: Vec<&'a str>,
    /// Keys of annotations.
    pub annotations: Vec<&'a str>,
}

impl Leftovers<'_> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// The Secret that is patched, as it was observed.
pub struct Existing<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// Its resourceVersion.
    pub resource_version: &'a str,
    /// Its ownership metadata.
    pub ownership: &'a OwnershipMetadata,
}

/// The patch of the metadata for `credential`, whose template is without what is `withheld`, with all the annotations
/// that are to be written.
#[must_use]
pub fn metadata(
    credential: &ITwinServiceCredential,
    existing: &Existing<'_>,
    annotations: BTreeMap<String, String>,
    leftovers: Leftovers<'_>,
    withheld: Withheld,
) -> Value {
    // what is withheld stays as it is, removals included
    let leftovers = if withheld.has_metadata() { Leftovers::default() } else { leftovers };
    let labels = with_removals(labels(credential), leftovers.labels);
    let mut annotations = with_removals(annotations, leftovers.annotations);
    annotations.entry(secret_keys::TEMPLATE.to_owned()).or_insert(Value::Null);
    guarded(credential, existing, labels, annotations)
}

/// The same without anything of the template.
#[must_use]
pub fn own_metadata(credential: &ITwinServiceCredential, existing: &Existing<'_>) -> Value {
    let labels = with_removals(own_labels(credential), Vec::new());
    guarded(credential, existing, labels, with_removals(own_annotations(credential), Vec::new()))
}

fn with_removals(wished: BTreeMap<String, String>, removed: Vec<&str>) -> BTreeMap<String, Value> {
    let removed = removed.into_iter().map(|key| (key.to_owned(), Value::Null));
    removed.chain(wished.into_iter().map(|(key, value)| (key, json!(value)))).collect()
}

fn guarded(
    credential: &ITwinServiceCredential,
    existing: &Existing<'_>,
    labels: BTreeMap<String, Value>,
    mut annotations: BTreeMap<String, Value>,
) -> Value {
    // an offer that was taken is taken off: it must not be taken twice
    annotations.insert(secret_keys::ADOPT.to_owned(), Value::Null);
    let mut patch = json!({
        "metadata": {
            "uid": existing.uid,
            "resourceVersion": existing.resource_version,
            "labels": labels,
            "annotations": annotations,
        },
    });
    let references = owner_references(credential, existing.ownership);
    if !references.is_empty() {
        patch["metadata"]["ownerReferences"] = json!(references);
    }
    patch
}

/// The owner references to add and to remove.
fn owner_references(credential: &ITwinServiceCredential, ownership: &OwnershipMetadata) -> Vec<Value> {
    let ours = credential.metadata.uid.as_deref().unwrap_or_default();
    let owner = owner(credential);
    let controller = ownership.controller.as_ref().map(|controller| &*controller.uid);
    let mut references = Vec::new();
    // a Secret has one controller: that of a Secret that is adopted is a credential which is gone
    let is_wrong = |uid: &&str| *uid != ours || owner.is_none();
    let referenced = ownership.is_referenced_by(ours).then_some(ours);
    let gone = controller.into_iter().chain(referenced.filter(|uid| controller != Some(*uid))).filter(is_wrong);
    references.extend(gone.map(|uid| json!({"$patch": "delete", "uid": uid})));
    let name = credential.metadata.name.as_deref().unwrap_or_default();
    let is_whole = ownership.controller.as_ref().is_some_and(|controller| controller.is_credential(name, ours));
    references.extend(owner.filter(|_| !is_whole).map(|owner| json!(owner)));
    references
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::{Controller, OUR_KIND};

    fn credential(policy: &str) -> ITwinServiceCredential {
        serde_json::from_value(json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": "agent", "namespace": "team", "uid": "ours"},
            "spec": {
                "clientCredentialsRef": {"name": "client"},
                "deletionPolicy": policy,
                "secretTemplate": {"labels": {"app": "a"}, "annotations": {"note": "b"}},
            },
        }))
        .expect("a credential")
    }

    fn owned_by(controller: Option<&str>, references: &[&str]) -> OwnershipMetadata {
        let controller =
            controller.map(|uid| Controller { kind: OUR_KIND.into(), name: "agent".into(), uid: uid.into() });
        let references = references.iter().map(|uid| (*uid).into()).collect();
        OwnershipMetadata { controller, references, ..OwnershipMetadata::default() }
    }

    #[test]
    fn only_the_reference_of_this_credential_is_added_and_removed() {
        let ours = json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "name": "agent",
            "uid": "ours",
            "controller": true,
        });
        let gone = |uid: &str| json!({"$patch": "delete", "uid": uid});
        let edited = |edit: fn(&mut Controller)| {
            let mut ownership = owned_by(Some("ours"), &[]);
            ownership.controller.iter_mut().for_each(edit);
            ownership
        };
        let table = [
            ("Delete", owned_by(None, &[]), vec![ours.clone()]),
            ("Delete", owned_by(None, &["ours"]), vec![ours.clone()]),
            ("Delete", owned_by(Some("ours"), &["theirs"]), vec![]),
            ("Delete", owned_by(Some("before"), &[]), vec![gone("before"), ours.clone()]),
            ("Delete", edited(|controller| controller.name = "other".into()), vec![ours.clone()]),
            ("Delete", edited(|controller| controller.kind = "apps/Deployment".into()), vec![ours]),
            ("Retain", owned_by(None, &["theirs"]), vec![]),
            ("Retain", owned_by(Some("ours"), &["theirs"]), vec![gone("ours")]),
            ("Retain", owned_by(None, &["theirs", "ours"]), vec![gone("ours")]),
            ("Retain", owned_by(Some("before"), &[]), vec![gone("before")]),
        ];
        for (number, (policy, ownership, expected)) in table.into_iter().enumerate() {
            assert_eq!(owner_references(&credential(policy), &ownership), expected, "row {number}");
        }
    }

    #[test]
    fn patch_sets_what_is_wanted_and_removes_what_is_left_over_unless_that_is_withheld() {
        let credential = credential("Delete");
        let ownership = owned_by(Some("ours"), &[]);
        let existing = Existing { uid: "uid", resource_version: "7", ownership: &ownership };
        let patch = |withheld: Withheld| {
            let leftovers = Leftovers { labels: vec!["stage"], annotations: vec!["before"] };
            let credential = withheld.applied(&credential, |_| false);
            let annotations = crate::desired_secret::annotations(&credential);
            metadata(&credential, &existing, annotations, leftovers, withheld)["metadata"].take()
        };
        let full = patch(Withheld::Nothing);
        assert_eq!((&full["uid"], &full["resourceVersion"]), (&json!("uid"), &json!("7")));
        assert_eq!((&full["labels"]["app"], &full["annotations"]["note"]), (&json!("a"), &json!("b")));
        let removed = |part: &Value, key: &str| part.as_object().and_then(|part| part.get(key)) == Some(&Value::Null);
        assert!(removed(&full["labels"], "stage") && removed(&full["annotations"], "before"));
        assert!(removed(&full["annotations"], secret_keys::ADOPT), "{full}");
        assert!(removed(&full["annotations"], secret_keys::TEMPLATE), "{full}");
        assert!(full.get("ownerReferences").is_none(), "it is right, and those of others stay");

        let withheld = patch(Withheld::Metadata);
        let own = own_metadata(&credential, &existing)["metadata"].take();
        for patch in [&withheld, &own] {
            assert_eq!(patch["labels"][secret_keys::CREDENTIAL], "agent");
            assert_eq!(patch["annotations"][secret_keys::OWNER], "team/agent");
            assert!(["app", "stage"].iter().all(|key| patch["labels"].get(*key).is_none()), "{patch}");
            assert!(["note", "before"].iter().all(|key| patch["annotations"].get(*key).is_none()), "{patch}");
        }
        assert!(own["annotations"].get(secret_keys::TEMPLATE).is_none(), "the data is not written: {own}");
    }
}
