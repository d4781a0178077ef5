//! Credentials are kept and given back as they came, and retry state belongs to one incarnation of one object.

use std::time::Instant;

use itwin_api::secret_keys;
use itwin_core::revisions::Revisions;
use serde_json::json;

use super::*;

fn credential(uid: &str) -> ITwinServiceCredential {
    serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinServiceCredential",
        "metadata": {
            "name": "agent",
            "namespace": "team",
            "uid": uid,
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {secret_keys::RENEW: "now"},
        },
        "spec": {
            "authorityRef": {"name": "ims"},
            "clientCredentialsRef": {"name": "client"},
            "scopes": ["itwin-platform"],
            "renewBefore": "10m",
            "secretTemplate": {"data": {"a": "{{ token }}"}},
        },
        "status": {
            "observedGeneration": 2,
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "TokenValid",
                "message": "valid",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "lastFailure": {"time": "2026-01-01T00:00:00Z", "reason": "Timeout", "message": "late"},
        },
    }))
    .expect("a credential")
}

fn keep_retry_state(registry: &Registry, key: &ObjectKey, uid: &str) {
    let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
    let state = Box::new(RetryState::recall(&credential(uid), now));
    registry.put_retry_state(key, uid, state, registry.incarnation());
}

#[test]
fn credentials_that_may_wait_for_labels_are_found_by_their_namespace() {
    let registry = Registry::default();
    let (key, _) = registry.keep(credential("uid-1"));
    assert_eq!(registry.not_allowed("team"), std::slice::from_ref(&key), "an attempt may be under way");
    assert!(registry.not_allowed("other").is_empty());
    keep_retry_state(&registry, &key, "uid-1");
    assert!(registry.not_allowed("team").is_empty(), "the last attempt did not fail for that reason");
}

#[test]
fn credential_is_given_back_as_it_came() {
    let registry = Registry::default();
    let (key, before) = registry.keep(credential("uid-1"));
    assert!(before.is_none());
    let json = |credential: &ITwinServiceCredential| serde_json::to_value(credential).expect("JSON");
    assert_eq!(registry.get(&key).as_ref().map(json), Some(json(&credential("uid-1"))));
}

#[test]
fn every_duration_that_the_schema_allows_comes_back() {
    let registry = Registry::default();
    for text in ["0s", "1ms", "1.5s", "90s", "1m30s", "5m", "1h", "1h0m0.001s", "2562047h"] {
        let mut wanted = credential("uid-1");
        let duration = serde_json::from_value(json!(text)).expect("a duration");
        (wanted.spec.minimum_validity, wanted.spec.renew_before) = (Some(duration), Some(duration));
        let (key, _) = registry.keep(wanted);
        let spec = registry.get(&key).expect(text).spec;
        assert_eq!((spec.minimum_validity, spec.renew_before), (Some(duration), Some(duration)), "{text}");
    }
}

#[test]
fn retry_state_belongs_to_one_uid() {
    let registry = Registry::default();
    let (key, _) = registry.keep(credential("uid-1"));
    keep_retry_state(&registry, &key, "uid-2");
    assert!(registry.take_retry_state(&key, "uid-2").is_none(), "it is unknown");
    keep_retry_state(&registry, &key, "uid-1");
    registry.keep(credential("uid-1"));
    assert!(registry.take_retry_state(&key, "uid-1").is_some(), "an update keeps it");
    assert!(registry.take_retry_state(&key, "uid-1").is_none(), "it is taken once");
    keep_retry_state(&registry, &key, "uid-1");
    let (_, before) = registry.keep(credential("uid-2"));
    assert_eq!(before.and_then(|before| before.uid()), Some("uid-1".to_owned()));
    assert!(registry.take_retry_state(&key, "uid-2").is_none(), "it was of another");
    registry.forget(&key);
    keep_retry_state(&registry, &key, "uid-2");
    assert!(registry.get(&key).is_none(), "what is gone does not come back with its retry_state");
}

#[test]
fn restored_cluster_leaves_no_retry_state() {
    let registry = Registry::default();
    let (key, _) = registry.keep(credential("uid-1"));
    let mut revisions = Revisions::default();
    let mut relist = |registry: &Registry, is_restored: bool| {
        if is_restored {
            revisions = Revisions::default();
            revisions.notice(Instant::now());
        }
        registry.listing_began();
        registry.keep(credential("uid-1"));
        registry.listing_ended(revisions.incarnation());
    };
    keep_retry_state(&registry, &key, "uid-1");
    relist(&registry, false);
    let taken_in = registry.incarnation();
    let taken = registry.take_retry_state(&key, "uid-1").expect("a list alone changes nothing");
    relist(&registry, true);
    registry.put_retry_state(&key, "uid-1", taken, taken_in);
    assert!(registry.take_retry_state(&key, "uid-1").is_none(), "it was taken before the restore");
    keep_retry_state(&registry, &key, "uid-1");
    registry.listing_ended(Incarnation::default());
    assert!(registry.take_retry_state(&key, "uid-1").is_none(), "it was returned before the restore");
}

#[test]
fn older_version_is_recognized_by_its_number() {
    let registry = Registry::default();
    let mut newer = credential("uid-1");
    newer.metadata.resource_version = Some("10".to_owned());
    registry.keep(newer);
    assert!(registry.is_newer_than(&credential("uid-1")), "9 and 10 are compared as numbers");
    assert!(!registry.is_newer_than(&credential("uid-2")), "another object has another history");
    registry.keep(credential("uid-1"));
    assert!(!registry.is_newer_than(&credential("uid-1")));
}

#[test]
fn list_shows_what_is_gone() {
    let registry = Registry::default();
    let named = |name: &str| {
        let mut credential = credential(name);
        credential.metadata.name = Some(name.to_owned());
        credential
    };
    registry.keep(named("stays"));
    registry.keep(named("goes"));
    registry.listing_began();
    registry.keep(named("stays"));
    registry.keep(named("new"));
    let gone: Vec<String> = registry.listing_ended(Incarnation::default()).iter().map(ResourceExt::name_any).collect();
    assert_eq!(gone, ["goes"]);
    let mut left: Vec<String> = registry.keys().iter().map(|key| key.name.clone()).collect();
    left.sort();
    assert_eq!(left, ["new", "stays"]);
}

#[test]
fn credential_that_was_changed_deleted_or_created_again_is_not_current() {
    let registry = Registry::default();
    let (key, _) = registry.keep(credential("uid-1"));
    let currency = || registry.currency(&key, "uid-1", Some(2));
    assert_eq!(currency(), Currency::Current);
    let changed = |change: fn(&mut ITwinServiceCredential)| {
        let mut credential = credential("uid-1");
        change(&mut credential);
        registry.keep(credential);
    };
    changed(|credential| credential.metadata.generation = Some(3));
    assert_eq!(currency(), Currency::Changed);
    changed(|credential| credential.metadata.deletion_timestamp = credential.metadata.creation_timestamp.clone());
    assert_eq!(currency(), Currency::Gone);
    registry.keep(credential("uid-2"));
    assert_eq!(currency(), Currency::Gone, "another one of its name");
    registry.forget(&key);
    assert_eq!(currency(), Currency::Gone);
}

#[test]
fn users_of_an_authority_follow_the_spec() {
    let registry = Registry::default();
    registry.keep(credential("uid-1"));
    assert_eq!(registry.users_of("ims").len(), 1);
    let mut moved = credential("uid-1");
    moved.spec.authority_ref.name = "other".into();
    registry.keep(moved);
    assert_eq!((registry.users_of("ims").len(), registry.users_of("other").len()), (0, 1));
}

#[test]
fn credential_contends_until_it_is_being_deleted() {
    let registry = Registry::default();
    let (key, _) = registry.keep(credential("uid-1"));
    let created_at = Some("2026-01-01T00:00:00Z".parse().expect("a time"));
    let claim = Contender { created_at, uid: "uid-1".into(), name: "agent".into() };
    assert_eq!(registry.contender(&key), Some(claim));
    let mut going = credential("uid-1");
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    registry.keep(going);
    assert_eq!(registry.contender(&key), None);
    assert_eq!(registry.with_uid("uid-1"), Some(key), "it still exists");
    assert_eq!(registry.with_uid("uid-2"), None);
}
