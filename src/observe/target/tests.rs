//! What is read of a Secret, also of one that users filled.

use itwin_api::{
    MANAGER,
    credential::{ITwinServiceCredential, SecretTemplate},
    limits::ACCESS_TOKEN_MAX,
};
use itwin_core::{desired_secret, last_held::LastHeld, samples, token::Content};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde_json::Value;

use super::{
    managed_fields::{MANAGER_MAX, OWNED_KEYS_MAX, TEMPLATE_KEYS_MAX},
    *,
};
use crate::observe::reduced::{FIELDS_MAX, MANAGERS_MAX};

fn metadata(value: serde_json::Value) -> ObjectMeta {
    serde_json::from_value(value).expect("metadata")
}

fn written_by(entries: &[(&str, &[&str])]) -> Option<usize> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(manager, keys)| {
            let keys: serde_json::Map<_, _> =
                keys.iter().map(|key| (format!("f:{key}"), serde_json::json!({}))).collect();
            serde_json::json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:data": keys}})
        })
        .collect();
    SecretMetadata::new(&metadata(serde_json::json!({"managedFields": entries}))).sole_writer_of
}

#[test]
fn data_is_ours_only_if_no_one_else_wrote_any_of_it() {
    assert_eq!(written_by(&[(MANAGER, &["a", "b"])]), Some(2));
    assert_eq!(written_by(&[(MANAGER, &["a"]), ("kubectl-edit", &["b"])]), None);
    assert_eq!(written_by(&[]), Some(0));
}

#[test]
fn token_metadata_written_by_another_manager_makes_the_data_unverified() {
    let written = |key: &str| {
        let annotations = serde_json::json!({format!("f:{key}"): {}});
        let theirs = serde_json::json!({"f:metadata": {"f:annotations": annotations}});
        let ours = serde_json::json!({"f:data": {"f:a": {}}});
        let entry = |manager: &str, fields| serde_json::json!({"manager": manager, "fieldsV1": fields});
        let fields = [entry(MANAGER, ours), entry("kubectl-annotate", theirs)];
        SecretMetadata::new(&metadata(serde_json::json!({"managedFields": fields}))).sole_writer_of
    };
    assert_eq!(written(secret_keys::EXPIRES_AT_ANNOTATION), None);
    assert_eq!(written(secret_keys::CONTENT), None);
    assert_eq!(written(secret_keys::ADOPT), Some(1), "an offer is always written by someone else");
    assert_eq!(written("example.com/theirs"), Some(1));
}

#[test]
fn digest_covers_data_and_token_metadata() {
    let with_token = |size: usize, change: fn(&mut Secret)| {
        let mut secret = Secret {
            data: Some([("access_token".to_owned(), ByteString(vec![b't'; size]))].into()),
            metadata: metadata(serde_json::json!({"annotations": {secret_keys::EXPIRES_AT_ANNOTATION: "then"}})),
            ..Secret::default()
        };
        let annotations = secret.metadata.annotations.clone().unwrap_or_default();
        let digest = desired_secret::digest(secret.data.as_ref().expect("data"), &annotations);
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(secret_keys::CONTENT.to_owned(), digest);
        change(&mut secret);
        is_what_we_wrote(&secret)
    };
    let sealed = |change: fn(&mut Secret)| with_token(5, change);
    assert!(sealed(|_| {}));
    assert!(with_token(ACCESS_TOKEN_MAX, |_| {}) && !with_token(ACCESS_TOKEN_MAX + 1, |_| {}));
    assert!(!sealed(|secret| secret.data.get_or_insert_default().clear()));
    assert!(!sealed(|secret| {
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(secret_keys::EXPIRES_AT_ANNOTATION.to_owned(), "later".to_owned());
    }));
}

#[test]
fn token_that_could_end_a_header_is_no_token_even_if_the_digest_matches() {
    let usable = |token: &str, extra: bool| {
        let mut data = BTreeMap::from([("access_token".to_owned(), ByteString(token.as_bytes().to_vec()))]);
        let digest = desired_secret::digest(&data, &BTreeMap::new());
        if extra {
            data.insert("extra".to_owned(), ByteString(vec![1]));
        }
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.annotations = Some([(secret_keys::CONTENT.to_owned(), digest)].into());
        let is_ours = if extra { is_ours_except_for_extra_keys(&secret, None) } else { is_what_we_wrote(&secret) };
        (super::token(&secret).is_some(), is_ours)
    };
    for extra in [false, true] {
        assert_eq!(usable("eyJ.a-b_c|~+/==", extra), (true, true));
        for wrong in ["a\u{1b}]52;c;aGk=\u{7}", "a\r\nX: y", "a\n", "a b", "a\u{202e}", "ä", ""] {
            assert_eq!(usable(wrong, extra), (false, false), "{wrong:?}");
        }
        assert_eq!(usable(&"t".repeat(ACCESS_TOKEN_MAX + 1), extra), (false, false));
    }
}

#[test]
fn field_immutable_is_observed_from_any_manager() {
    let fields = |fields: serde_json::Value| {
        let entry = serde_json::json!({"manager": "kubectl", "operation": "Update", "fieldsV1": fields});
        SecretMetadata::new(&metadata(serde_json::json!({"managedFields": [entry]}))).may_be_immutable
    };
    assert!(fields(serde_json::json!({"f:immutable": {}})));
    assert!(!fields(serde_json::json!({"f:data": {"f:immutable": {}}})));
}

#[test]
fn owner_is_read_only_in_the_format_of_the_operator() {
    let owner = |text: &str| {
        let annotations = serde_json::json!({secret_keys::OWNER: text});
        let owner = SecretMetadata::new(&metadata(serde_json::json!({"annotations": annotations}))).ownership.owner;
        owner.map(|Named { namespace, name }| format!("{namespace} {name}"))
    };
    assert_eq!(owner("team-a/my.agent-1").as_deref(), Some("team-a my.agent-1"));
    let long = format!("team-a/{}", "a".repeat(254));
    for wrong in ["", "agent", "/agent", "team-a/", "team-a/a/b", "Team/agent", "team-a/a b", &long] {
        assert_eq!(owner(wrong), None, "{wrong}");
    }
}

#[test]
fn token_metadata_requires_every_part() {
    let whole = serde_json::json!({
        secret_keys::REQUEST: "r",
        secret_keys::ISSUER_ANNOTATION: "https://ims",
        secret_keys::CLIENT_VERSION: "u/1",
        secret_keys::ISSUED_AT: "2026-01-01T00:00:00Z",
        secret_keys::EXPIRES_AT_ANNOTATION: "2026-01-01T01:00:00Z",
    });
    assert!(SecretMetadata::new(&metadata(serde_json::json!({"annotations": whole}))).token_metadata.is_some());
    for key in whole.as_object().expect("an object").keys() {
        let mut part = whole.clone();
        part.as_object_mut().expect("an object").remove(key);
        assert!(
            SecretMetadata::new(&metadata(serde_json::json!({"annotations": part}))).token_metadata.is_none(),
            "{key}"
        );
    }
}

#[test]
fn desired_labels_are_found_among_others() {
    let secret_metadata =
        SecretMetadata::new(&metadata(serde_json::json!({"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}})));
    let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    assert!(secret_metadata.carries(&map("a", "1"), &map("c", "3")));
    assert!(!secret_metadata.carries(&map("a", "2"), &BTreeMap::new()));
    assert!(!secret_metadata.carries(&map("c", "3"), &BTreeMap::new()), "an annotation is not a label");
}

#[test]
fn only_keys_that_no_other_manager_owns_are_leftovers() {
    let entry = |manager: &str, labels: serde_json::Value| serde_json::json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": labels}}});
    let ours = serde_json::json!({
        ".": {},
        "f:team": {},
        "f:stage": {},
        "f:shared": {},
        "f:app.kubernetes.io/managed-by": {},
        "f:credentials.itwin.dev/credential": {},
    });
    let theirs = serde_json::json!({"f:shared": {}, "f:theirs": {}});
    let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({
        "labels": {"team": "1", "stage": "2", "shared": "3", "theirs": "4"},
        "managedFields": [entry(MANAGER, ours), entry("kubectl-label", theirs)],
    })));
    let desired = BTreeMap::from([("team".to_owned(), "another value is not a leftover".to_owned())]);
    assert_eq!(
        secret_metadata.leftovers(&desired, &BTreeMap::new()),
        Leftovers { labels: vec!["stage"], annotations: vec![] }
    );
}

#[test]
fn annotation_that_a_template_may_set_is_a_leftover_under_the_name_of_our_label_too() {
    let keys = serde_json::json!({"f:app.kubernetes.io/managed-by": {}, "f:credentials.itwin.dev/owner": {}});
    let pairs = serde_json::json!({secret_keys::MANAGED_BY: "x", secret_keys::OWNER: "team/agent"});
    let fields = serde_json::json!({"f:metadata": {"f:labels": keys, "f:annotations": keys}});
    let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({
        "labels": pairs,
        "annotations": pairs,
        "managedFields": [{"manager": MANAGER, "operation": "Update", "fieldsV1": fields}],
    })));
    assert_eq!(
        secret_metadata.leftovers(&BTreeMap::new(), &BTreeMap::new()),
        Leftovers { labels: vec![], annotations: vec![secret_keys::MANAGED_BY] }
    );
}

/// Metadata with an annotation of this length.
fn with_annotation(key: &str, length: usize) -> SecretMetadata {
    SecretMetadata::new(&metadata(serde_json::json!({"annotations": {key: "x".repeat(length)}})))
}

#[test]
fn annotation_that_is_too_long_counts_as_absent() {
    type Part = fn(&SecretMetadata) -> Option<&str>;
    let parts: [(&str, usize, Part); 6] = [
        (secret_keys::OWNER_UID, NAME_MAX, |secret_metadata| secret_metadata.ownership.owner_uid.as_deref()),
        (secret_keys::ADOPT, NAME_MAX, |secret_metadata| secret_metadata.ownership.adopt.as_deref()),
        (secret_keys::TEMPLATE, NAME_MAX, |secret_metadata| secret_metadata.template.as_deref()),
        (secret_keys::RENEWED_FOR, NAME_MAX, |secret_metadata| secret_metadata.renewed_for.as_deref()),
        (secret_keys::CLIENT_ID, CLIENT_ID_MAX, |secret_metadata| secret_metadata.description.client_id.as_deref()),
        (secret_keys::GRANTED, SCOPES_MAX, |secret_metadata| secret_metadata.description.scopes.as_deref()),
    ];
    for (key, most, part) in parts {
        assert_eq!(part(&with_annotation(key, most)).map(str::len), Some(most), "{key}");
        assert_eq!(part(&with_annotation(key, most + 1)), None, "{key}");
    }
}

#[test]
fn what_other_field_managers_own_is_remembered_within_limits() {
    let entry = |manager: &str, fields: Value| serde_json::json!({"manager": manager, "fieldsV1": fields});
    let labels = |count: usize| -> Value {
        let keys: serde_json::Map<_, _> = (0..count).map(|key| (format!("f:a{key}"), serde_json::json!({}))).collect();
        serde_json::json!({"f:metadata": {"f:labels": keys}})
    };
    let owners = |entries: Vec<Value>| {
        SecretMetadata::new(&metadata(serde_json::json!({"managedFields": entries}))).field_owners
    };
    let expires_at = format!("f:{}", secret_keys::EXPIRES_AT_ANNOTATION);
    let all = owners(vec![
        entry("first", labels(1)),
        entry("many", labels(20_000)),
        entry("editor", serde_json::json!({"f:data": {"f:a": {}}})),
        entry(MANAGER, serde_json::json!({"f:data": {"f:a": {}}})),
        entry("annotator", serde_json::json!({"f:metadata": {"f:annotations": {expires_at: {}}}})),
        entry(&"x".repeat(MANAGER_MAX + 1), labels(1)),
        entry("owner", serde_json::json!({"f:metadata": {"f:ownerReferences": {}}})),
    ]);
    let names: Vec<&str> = all.iter().map(|owner| &*owner.manager).collect();
    assert_eq!(names, ["many", "editor", "annotator", "owner"], "the last ones");
    assert_eq!(all.iter().map(|owner| owner.data).collect::<Vec<_>>(), [false, true, true, false]);
    assert!(all[3].owner_references && all[0].keys.len() == OWNED_KEYS_MAX);

    let own = owners(vec![entry("labels", labels(1))]);
    let desired = BTreeMap::from([("a0".to_owned(), "ours".to_owned())]);
    let theirs = SecretMetadata::new(&metadata(serde_json::json!({"labels": {"a0": "theirs"}})));
    assert_eq!(theirs.missing(&desired, &BTreeMap::new()), own[0].keys.to_vec());
}

#[test]
fn added_keys_are_distinguished_from_a_tampered_token() {
    let template =
        SecretTemplate { data: [("extra".to_owned(), "text".to_owned())].into(), ..SecretTemplate::default() };
    let changed = |change: fn(&mut Secret)| {
        let data = [("access_token", "token"), ("extra", "text")];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
        let digest = desired_secret::digest(secret.data.as_ref().expect("data"), &BTreeMap::new());
        secret.metadata.annotations = Some([(secret_keys::CONTENT.to_owned(), digest)].into());
        change(&mut secret);
        is_ours_except_for_extra_keys(&secret, Some(&template))
    };
    assert!(changed(|secret| drop(secret.data.get_or_insert_default().insert("other".into(), ByteString(vec![1])))));
    assert!(!changed(|secret| drop(secret.data.get_or_insert_default().insert("extra".into(), ByteString(vec![1])))));
    assert!(!changed(|secret| drop(secret.data.get_or_insert_default().remove("access_token"))));
}

#[test]
fn added_keys_are_distinguished_from_those_of_an_earlier_template_by_their_field_managers() {
    let fields = |manager: &str, keys: &[&str]| {
        let keys: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), serde_json::json!({}))).collect();
        serde_json::json!({"manager": manager, "fieldsV1": {"f:data": keys}})
    };
    let is_ours_with = |theirs: &[&str], changed: Option<&str>| {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = [("access_token", "token"), ("earlier", "text")];
        let mut data: BTreeMap<_, _> = data.map(|(key, value)| (key.to_owned(), bytes(value))).into();
        let digest = desired_secret::digest(&data, &BTreeMap::new());
        data.insert("theirs".to_owned(), bytes("1"));
        data.extend(changed.map(|key| (key.to_owned(), bytes("2"))));
        let metadata = metadata(serde_json::json!({
            "annotations": {secret_keys::CONTENT: digest},
            "managedFields": [fields(MANAGER, &["access_token", "earlier"]), fields("kubectl-patch", theirs)],
        }));
        is_ours_except_for_extra_keys(&Secret { data: Some(data), metadata, ..Secret::default() }, None)
    };
    assert!(is_ours_with(&["theirs"], None));
    assert!(!is_ours_with(&[], None), "no one else is shown as its writer");
    assert!(!is_ours_with(&["theirs", "earlier"], None), "they may have written another value");
    assert!(!is_ours_with(&["theirs", "access_token"], Some("access_token")), "it counts although others own it");
}

#[test]
fn token_metadata_with_a_part_that_is_too_long_is_absent() {
    let token_metadata = |key: &str, length: usize| {
        let mut annotations = serde_json::json!({
            secret_keys::REQUEST: "r",
            secret_keys::ISSUER_ANNOTATION: "https://ims",
            secret_keys::CLIENT_VERSION: "u/1",
            secret_keys::ISSUED_AT: "2026-01-01T00:00:00Z",
            secret_keys::EXPIRES_AT_ANNOTATION: "2026-01-01T01:00:00Z",
        });
        annotations[key] = "x".repeat(length).into();
        SecretMetadata::new(&metadata(serde_json::json!({"annotations": annotations}))).token_metadata
    };
    let parts = [
        (secret_keys::REQUEST, NAME_MAX),
        (secret_keys::ISSUER_ANNOTATION, ISSUER_MAX),
        (secret_keys::CLIENT_VERSION, NAME_MAX),
    ];
    for (key, most) in parts {
        assert!(token_metadata(key, most).is_some() && token_metadata(key, most + 1).is_none(), "{key}");
    }
}

#[test]
fn owner_with_long_strings_is_an_unknown_owner() {
    let long = "x".repeat(10 * NAME_MAX);
    let owner = serde_json::json!({
        "apiVersion": format!("{long}/v1"), "kind": long, "name": long, "uid": long, "controller": true,
    });
    let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({"ownerReferences": [owner]})));
    let controller = secret_metadata.ownership.controller.expect("an owner");
    for text in [controller.kind, controller.name, controller.uid] {
        assert_eq!(text.len(), NAME_MAX);
    }
}

fn many(count: usize) -> serde_json::Map<String, Value> {
    (0..count).map(|number| (format!("a{number:05}"), "1".into())).collect()
}

#[test]
fn own_labels_and_annotations_and_a_limited_number_of_others_are_stored() {
    let mut annotations = many(20_000);
    annotations.insert(secret_keys::OWNER_UID.to_owned(), "uid".into());
    let labels = serde_json::json!({secret_keys::MANAGED_BY: MANAGER, "team": "a"});
    let secret_metadata =
        SecretMetadata::new(&metadata(serde_json::json!({"labels": labels, "annotations": annotations})));
    assert_eq!(secret_metadata.pairs.len(), PAIRS_MAX + 2);
    let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let none = BTreeMap::new();
    assert!(secret_metadata.carries(&map("team", "a"), &map(secret_keys::OWNER_UID, "uid")));
    assert!(secret_metadata.carries(&none, &map("a19999", "1")), "it is not stored");
    assert!(secret_metadata.carries(&none, &map("a19999", "2")), "its value is unknown");
    assert!(
        !secret_metadata.carries(&none, &map(secret_keys::OWNER_UID, "another")),
        "the operator's own are always stored"
    );
    assert!(!secret_metadata.carries(&map(secret_keys::CREDENTIAL, "agent"), &none));
}

#[test]
fn missing_label_is_detected_if_all_are_stored() {
    let secret_metadata = SecretMetadata::new(&metadata(serde_json::json!({"annotations": many(PAIRS_MAX)})));
    assert!(!secret_metadata.carries(&BTreeMap::from([("team".to_owned(), "a".to_owned())]), &BTreeMap::new()));
}

#[test]
fn more_managed_fields_than_are_read_leave_the_data_unverified() {
    let entry = |manager: &str, fields: Value| serde_json::json!({"manager": manager, "fieldsV1": fields});
    let keys = |count: usize| -> serde_json::Map<String, Value> {
        (0..count).map(|number| (format!("f:a{number:05}"), serde_json::json!({}))).collect()
    };
    let ours = entry(MANAGER, serde_json::json!({"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:team": {}}}}));
    let secret_metadata = |others: Vec<Value>| {
        let entries: Vec<Value> = [ours.clone()].into_iter().chain(others).collect();
        SecretMetadata::new(&metadata(serde_json::json!({"labels": {"team": "a"}, "managedFields": entries})))
    };
    let observed = |secret_metadata: &SecretMetadata| {
        (secret_metadata.sole_writer_of, secret_metadata.may_be_immutable, secret_metadata.template_labels.len())
    };
    let others = |count: usize| (1..count).map(|_| entry("m", serde_json::json!({}))).collect();
    assert_eq!(observed(&secret_metadata(others(MANAGERS_MAX))), (Some(1), false, 1));
    assert_eq!(observed(&secret_metadata(others(MANAGERS_MAX + 1))), (None, true, 0));
    let annotations = |count| vec![entry("m", serde_json::json!({"f:metadata": {"f:annotations": keys(count)}}))];
    assert_eq!(observed(&secret_metadata(annotations(FIELDS_MAX))), (Some(1), false, 1));
    assert_eq!(observed(&secret_metadata(annotations(FIELDS_MAX + 1))), (None, false, 1));
    let labels = |count| vec![entry("m", serde_json::json!({"f:metadata": {"f:labels": keys(count)}}))];
    assert_eq!(observed(&secret_metadata(labels(FIELDS_MAX + 1))), (Some(1), false, 0));
}

#[test]
fn owned_keys_are_stored_if_they_exist_and_up_to_the_limit() {
    let label = |number: usize| format!("example.com/{number:05}-{}", "x".repeat(45));
    let fields: serde_json::Map<_, _> =
        (0..5000).map(|number| (format!("f:{}", label(number)), serde_json::json!({}))).collect();
    let labels: BTreeMap<String, String> = (0..1000).map(|number| (label(number), "1".to_owned())).collect();
    let secret_metadata = |labels: &BTreeMap<String, String>| {
        SecretMetadata::new(&metadata(serde_json::json!({
            "labels": labels,
            "managedFields": [{"manager": MANAGER, "fieldsV1": {"f:metadata": {"f:labels": fields}}}],
        })))
    };
    let kept: usize = secret_metadata(&labels).template_labels.iter().map(|key| key.len()).sum();
    assert!((TEMPLATE_KEYS_MAX - 100..=TEMPLATE_KEYS_MAX).contains(&kept), "{kept}");
    let none = BTreeMap::new();
    assert!(secret_metadata(&none).leftovers(&none, &none).is_empty(), "a missing key cannot be removed");
}

#[test]
fn annotations_that_were_read_prove_the_token_without_them() {
    let credential: ITwinServiceCredential = serde_json::from_value(serde_json::json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinServiceCredential",
        "metadata": {"name": "agent", "namespace": "team", "uid": "uid"},
        "spec": {"clientCredentialsRef": {"name": "client"}},
    }))
    .expect("a credential");
    let content = Content { client_fingerprint: "0f".repeat(32).into(), ..samples::content() };
    let data = desired_secret::data(&credential, &content).expect("no template");
    let annotations = desired_secret::all_annotations(&credential, &content, &data);
    let secret_metadata = SecretMetadata::new(&ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() });
    let token_metadata = secret_metadata.token_metadata.clone().expect("token metadata");
    let sealed = secret_metadata.sealed().map(Box::new);
    let held = LastHeld { token_metadata, record: None, sealed };
    let again = held.sealed_content(&content.token, &credential).expect("the same token");
    assert_eq!(LastHeld::written(&again), LastHeld::written(&content));
}

#[test]
fn one_digest_of_two_seals_nothing() {
    let annotations = [(secret_keys::CLIENT.to_owned(), "0f".repeat(32))].into();
    let metadata = ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() };
    assert!(SecretMetadata::new(&metadata).sealed().is_none());
}
