//! Objects with hostile texts in them: custom resources, and the metadata of Secrets.

use chrono::TimeDelta;
use itwin_api::{
    authority::{AuthoritySpec, ITwinAuthority},
    credential::ITwinServiceCredential,
    secret_keys,
};
use itwin_core::{desired_secret, policy::Policy, samples, schedule, token::Content};
use itwin_credential_operator::{
    config::authority::AuthorityConfig, controller::guarded::Guarded, observe::target::SecretMetadata,
};
use itwin_oauth::sensitive::Sensitive;
use serde_json::{Value, json};

use crate::{
    corpus::{self, corpus},
    is_bounded, now, on_small_stack, shown,
};

/// A credential with one replaced value, as the API server would send it.
fn credential(pointer: &str, value: &Value) -> Guarded<ITwinServiceCredential> {
    let mut object = json!({
        "metadata": {"name": "agent", "annotations": {secret_keys::RENEW: null}},
        "spec": {
            "clientCredentialsRef": {"name": "client"},
            "minimumValidity": null,
            "renewBefore": null,
            "grantType": null,
            "suspend": null,
            "scopes": [],
            "secretTemplate": {"data": {}},
        },
        "status": null,
    });
    for field in ["minimumValidity", "grantType", "suspend"] {
        object["spec"].as_object_mut().expect("a spec").remove(field);
    }
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("a parent")[field] = value.clone();
    serde_json::from_slice(object.to_string().as_bytes()).expect("no object ends the watch")
}

#[test]
fn custom_resources() {
    on_small_stack(|| {
        for text in corpus() {
            // these are not even JSON
            assert!(serde_json::from_slice::<Guarded<ITwinServiceCredential>>(&text).is_err(), "{}", shown(&text));
            assert!(serde_json::from_slice::<Guarded<ITwinAuthority>>(&text).is_err(), "{}", shown(&text));
            let text = json!(String::from_utf8_lossy(&text));
            for field in ["minimumValidity", "renewBefore", "grantType", "suspend", "scopes", "secretTemplate/data"] {
                let Err(invalid) = credential(&format!("/spec/{field}"), &text).open() else {
                    panic!("accepted as {field}")
                };
                assert!(invalid.error.len() <= 1024, "{}", invalid.error);
            }
            let kept = credential(&format!("/metadata/annotations/{}", secret_keys::RENEW.replace('/', "~1")), &text);
            let kept = kept.open().map(|credential| credential.metadata.annotations.unwrap_or_default());
            assert!(kept.is_ok_and(|kept| kept.values().all(|value| value.chars().count() <= 64)));
        }
    });
}

#[test]
fn longest_durations_overflow_nothing() {
    on_small_stack(|| {
        for text in ["999999999h".repeat(3), "999999999999999h999999999999999h".to_owned()] {
            let credential = credential("/spec/minimumValidity", &json!(text)).open().expect("a credential");
            let policy = Policy::new(&credential.spec);
            assert!(now() - schedule::minimum_validity(&policy, TimeDelta::hours(1)) < now() - TimeDelta::days(365));
        }
    });
}

fn authority(change: &Value) -> Result<AuthorityConfig, String> {
    let mut spec = json!({"issuer": "https://ims.example.com"});
    spec.as_object_mut().expect("a spec").extend(change.as_object().expect("fields").clone());
    let spec: AuthoritySpec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
    AuthorityConfig::new(&spec)
}

#[test]
fn urls_and_label_selectors_of_an_authority() {
    on_small_stack(|| {
        for text in corpus() {
            let value = String::from_utf8_lossy(&text);
            for field in ["issuer", "tokenEndpoint", "jwksUri", "caBundle"] {
                is_bounded(&authority(&json!({field: value})).expect_err(&shown(&text)), &text);
            }
            let expression = json!({"key": value, "operator": value, "values": [value, value]});
            let selector = json!({"allowedNamespaces": {"matchExpressions": [expression]}});
            is_bounded(&authority(&selector).expect_err(&shown(&text)), &text);
        }
        // as many as an object can hold
        let expression = json!({"key": "k", "operator": "NotIn", "values": vec!["v"; 100]});
        let selector = json!({"allowedNamespaces": {"matchExpressions": vec![expression; 2000]}});
        let config = authority(&selector).expect("a selector");
        let permitted = config.permits_namespace("ims", "team", &[("k".to_owned(), "v".to_owned())].into());
        is_bounded(&permitted.expect_err("not permitted").message, b"");
    });
}

#[test]
fn metadata_of_secrets() {
    on_small_stack(|| {
        for text in corpus() {
            let value = json!(String::from_utf8_lossy(&text));
            let annotations: serde_json::Map<String, Value> =
                secret_keys::TOKEN_METADATA.iter().map(|key| ((*key).to_owned(), value.clone())).collect();
            let metadata = json!({
                "uid": value,
                "resourceVersion": value,
                "annotations": annotations,
                "labels": {secret_keys::CREDENTIAL: value},
                "managedFields": [{"manager": value, "fieldsV1": {"f:metadata": value, "f:data": value}}],
            });
            let metadata = serde_json::from_value(metadata).expect("metadata");
            assert!(SecretMetadata::new(&metadata).token_metadata.is_none(), "{}", shown(&text));
        }
    });
}

fn content(token: &str) -> Content {
    Content { token: Sensitive::new(token.to_owned()), ..samples::content() }
}

#[test]
fn verdict_on_a_template_does_not_depend_on_the_token() {
    let tokens = ["e", "f", "eeeeeeeeee", &"e".repeat(32 * 1024)];
    for text in corpus::templates() {
        let credential = credential("/spec/secretTemplate/data/key", &json!(text)).open().expect("a credential");
        let verdicts = tokens.map(|token| desired_secret::data(&credential, &content(token)));
        let messages = verdicts.map(|verdict| verdict.expect_err(&text).message);
        assert!(messages.iter().all(|message| *message == messages[0]), "{messages:?}");
    }
    // and a template that is too long with the longest token is rejected with the shortest one
    let longest = json!("{{ access_token | tojson }}".repeat(12));
    let credential = credential("/spec/secretTemplate/data/key", &longest).open().expect("a credential");
    assert!(desired_secret::data(&credential, &content("e")).is_err());
}
