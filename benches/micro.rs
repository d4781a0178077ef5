//! The costs of one decision, one signature, one template, and one observation of a Secret's metadata: `cargo bench`.

#![allow(missing_docs)]

use std::{collections::BTreeMap, hint::black_box};

use chrono::{DateTime, Utc};
use criterion::{Criterion, criterion_group, criterion_main};
use itwin_api::{credential::SecretTemplate, secret_keys};
use itwin_core::{
    decide,
    observed::{Authority, Client, Drift, Form, Held, Integrity, ObservedState, Target},
    samples,
    template::Templates,
    token::TokenMetadata,
};
use itwin_credential_operator::observe::target::SecretMetadata;
use itwin_oauth::{key_set::KeySet, sensitive::Sensitive};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use serde_json::json;

const ISSUER: &str = "https://ims.example.com";
const UID: &str = "0b5c3f6e-6d0e-4f5e-9d5c-8b7a3f1d2c4e";

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

/// A credential with a valid token of an hour.
fn up_to_date() -> ObservedState {
    let token_metadata = TokenMetadata {
        request: "request".into(),
        issuer: ISSUER.into(),
        authority: Some("ims".into()),
        client_reference: Some("client/keys".into()),
        client_version: "client/1".into(),
        issued_at: at(0),
        expires_at: at(3600),
    };
    ObservedState {
        uid: UID.to_owned(),
        authority: Authority::Ready { issuer: ISSUER.into() },
        client: Client::Usable { version: "client/1".into(), same_as_held: Some(true) },
        target: Target::Ours(Held {
            token_metadata: Some(token_metadata),
            data: Integrity::Verified,
            drift: Drift::None,
            form: Form::Presumed,
        }),
        is_admitted: true,
        ..samples::observed_state()
    }
}

fn decide(criterion: &mut Criterion) {
    let observed = up_to_date();
    let mut group = criterion.benchmark_group("decide");
    group.bench_function("nothing to do", |bencher| bencher.iter(|| decide::decide(black_box(&observed), at(60))));
    group.bench_function("renewal is due", |bencher| bencher.iter(|| decide::decide(black_box(&observed), at(2500))));
    group.finish();
}

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    for (algorithm, kind) in [(Algorithm::RS256, &PKCS_RSA_SHA256), (Algorithm::ES256, &PKCS_ECDSA_P256_SHA256)] {
        let pem = KeyPair::generate_for(kind).expect("a key").serialize_pem();
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let key = key.expect("a key");
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).expect("a key")).expect("JSON");
        jwk["kid"] = json!("key");
        jwk["use"] = json!("sig");
        let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).expect("a key set");
        let claims = json!({"iss": ISSUER, "exp": 4_000_000_000_u64, "client_id": "client", "scope": ["a", "b"]});
        let header = Header { kid: Some("key".to_owned()), ..Header::new(algorithm) };
        let token = Sensitive::new(jsonwebtoken::encode(&header, &claims, &key).expect("signed"));
        group.bench_function(format!("{algorithm:?}"), |bencher| {
            bencher.iter(|| keys.verify(black_box(&token), ISSUER, &[]).is_ok());
        });
    }
    group.finish();
}

fn render(criterion: &mut Criterion) {
    let data: BTreeMap<String, ByteString> = [
        (secret_keys::ACCESS_TOKEN, "x".repeat(1024)),
        (secret_keys::TOKEN_TYPE, "Bearer".to_owned()),
        (secret_keys::EXPIRES_AT, "2027-01-15T08:00:00Z".to_owned()),
        (secret_keys::SCOPE, "itwin-platform".to_owned()),
        (secret_keys::ISSUER, ISSUER.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
    .into();
    let template = |text: &str| {
        let data = BTreeMap::from([("file".to_owned(), text.to_owned())]);
        SecretTemplate { data, ..SecretTemplate::default() }
    };
    let mut group = criterion.benchmark_group("template");
    for (name, text) in [
        ("a header", "Authorization: {{ token_type }} {{ access_token }}"),
        ("JSON with a filter", r#"{"token": "{{ access_token | b64encode }}", "until": "{{ expires_at }}"}"#),
    ] {
        let template = template(text);
        Templates::new(Some(&template)).expect("a good template");
        group.bench_function(name, |bencher| {
            bencher.iter(|| Templates::new(black_box(Some(&template))).map(|templates| templates.render(&data)).ok());
        });
    }
    group.finish();
}

fn observe(criterion: &mut Criterion) {
    let annotations: BTreeMap<String, String> =
        secret_keys::TOKEN_METADATA.iter().map(|key| ((*key).to_owned(), "2027-01-15T08:00:00Z".to_owned())).collect();
    let metadata: ObjectMeta = serde_json::from_value(json!({
        "name": "agent", "namespace": "team", "uid": UID, "resourceVersion": "123456",
        "labels": {secret_keys::MANAGED_BY: "itwin-credential-operator"},
        "annotations": annotations,
        "managedFields": [{
            "manager": "itwin-credential-operator", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {".": {}, "f:access_token": {}}, "f:metadata": {"f:annotations": {".": {}}}},
        }],
    }))
    .expect("metadata");
    criterion.bench_function("observe the metadata of a Secret", |bencher| {
        bencher.iter(|| SecretMetadata::new(black_box(&metadata)));
    });
}

criterion_group!(benches, decide, verify, render, observe);
criterion_main!(benches);
