//! Each reason of the contract, found one by one.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{authority::ITwinAuthority, conditions::Reason, credential::ITwinServiceCredential, secret_keys, time};
use itwin_core::{desired_secret, failure::Failure, ownership::Named};
use itwin_oauth::key_set::KeySet;
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::{Lease, Level, Observed, Published, Report, Seen, report};
use crate::{
    table::WIDTH,
    view::tests::{credential, deleted, failed, merge, minutes, now},
    workloads::{Metadata, PodSpec},
};

const ISSUER: &str = "https://ims.example.com";
const CLIENT_SECRET: &str = "s3cr3t-of-the-client";

/// The key of the authority: how it signs, and what it publishes.
struct Signer {
    key: EncodingKey,
    jwk: Value,
}

fn signer() -> Signer {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a key")).expect("JSON");
    jwk["kid"] = json!("1");
    Signer { key, jwk }
}

impl Signer {
    fn token(&self, changes: &Value) -> String {
        let at = |minutes: i64| (now() + TimeDelta::minutes(minutes)).timestamp();
        let mut claims = json!({"iss": ISSUER, "exp": at(50), "iat": at(-10), "scope": ["itwin-platform"]});
        merge(&mut claims, changes);
        let header = Header { kid: Some("1".to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key).expect("signed")
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(json!({"keys": [self.jwk]}).to_string().as_bytes()).expect("a key set")
    }
}

fn authority(changes: &Value) -> ITwinAuthority {
    let mut value = json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinAuthority", "metadata": {"name": "bentley-ims"},
        "spec": {"issuer": ISSUER},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "AuthorityReachable", "message": "fine",
                                   "lastTransitionTime": minutes(-10)}]},
    });
    merge(&mut value, changes);
    serde_json::from_value(value).expect("an authority")
}

fn client() -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": "client", "namespace": "team-a", "uid": "uid-client", "resourceVersion": "1"},
        "data": {"client_id": STANDARD.encode("service-abc"), "client_secret": STANDARD.encode(CLIENT_SECRET)},
    }))
    .expect("a Secret")
}

/// What the operator writes for the credential.
fn token_secret(token: &str, issued: DateTime<Utc>, expires: DateTime<Utc>) -> Secret {
    let data = json!({
        "access_token": STANDARD.encode(token), "authorization": STANDARD.encode(format!("Bearer {token}")),
        "token_type": STANDARD.encode("Bearer"), "expires_at": STANDARD.encode(time::to_rfc3339(expires)),
        "scope": STANDARD.encode("itwin-platform"), "issuer": STANDARD.encode(ISSUER),
    });
    let mut secret: Secret = serde_json::from_value(json!({
        "type": "Opaque",
        "metadata": {
            "name": "agent", "namespace": "team-a", "uid": "uid-secret", "resourceVersion": "9",
            "annotations": {
                secret_keys::OWNER_UID: "uid-agent", secret_keys::OWNER: "team-a/agent", secret_keys::REQUEST: "r",
                secret_keys::ISSUER_ANNOTATION: ISSUER, secret_keys::CLIENT_VERSION: "uid-client/1",
                secret_keys::ISSUED_AT: time::to_rfc3339(issued),
                secret_keys::EXPIRES_AT_ANNOTATION: time::to_rfc3339(expires),
            },
            "ownerReferences": [{"apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential",
                                 "name": "agent", "uid": "uid-agent", "controller": true}],
        },
        "data": data,
    }))
    .expect("a Secret");
    sign(&mut secret);
    secret
}

/// The digest of what the Secret holds.
fn sign(secret: &mut Secret) {
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let digest = desired_secret::digest(secret.data.as_ref().expect("data"), annotations);
    annotations.insert(secret_keys::CONTENT.to_owned(), digest);
}

fn agent(changes: &Value) -> ITwinServiceCredential {
    credential("agent", changes)
}

/// Everything is fine.
fn fine() -> Observed {
    let signer = signer();
    let token = signer.token(&json!({}));
    let lease = Lease {
        namespace: "operator".into(),
        holder: Some("pod-1".into()),
        renewed: Some(now() - TimeDelta::seconds(2)),
        seconds: 15,
    };
    let pod: PodSpec = serde_json::from_value(json!({
        "volumes": [{"name": "t", "secret": {"secretName": "agent"}}],
        "containers": [{"name": "main", "volumeMounts": [{"name": "t", "mountPath": "/t"}]}],
    }))
    .expect("a pod");
    Observed {
        now: now(),
        credential: agent(&json!({})),
        other_owner: Seen::Known(None),
        leases: Seen::Known(vec![lease]),
        authority: Seen::Known(Some(authority(&json!({})))),
        ca_bundle: Seen::Known(Ok(None)),
        namespace_labels: Seen::Known([("team".to_owned(), "a".to_owned())].into()),
        server: Seen::Known(Ok(Published { keys: Some(signer.keys()), date: Some((now(), now())) })),
        is_offline: false,
        client: Seen::Known(Some(client())),
        target: Seen::Known(Some(token_secret(&token, now() - TimeDelta::minutes(10), now() + TimeDelta::minutes(50)))),
        pods: Seen::Known(vec![(Metadata { name: Some("app-1".into()), ..Metadata::default() }, pod)]),
    }
}

/// The same with another token of the same authority.
fn with_token(changes: &Value, issued: i64, expires: i64) -> Observed {
    let signer = signer();
    let at = |minutes: i64| now() + TimeDelta::minutes(minutes);
    Observed {
        server: Seen::Known(Ok(Published { keys: Some(signer.keys()), date: None })),
        target: Seen::Known(Some(token_secret(&signer.token(changes), at(issued), at(expires)))),
        ..fine()
    }
}

fn reasons(report: &Report) -> Vec<&'static str> {
    report.problems().filter_map(|problem| problem.reason).collect()
}

fn problems(observed: &Observed) -> Vec<String> {
    let report = report(observed);
    report.problems().map(|problem| format!("{} {}", problem.reason.unwrap_or_default(), problem.text)).collect()
}

#[test]
fn credential_that_works_has_no_problem_and_nothing_unknown() {
    let report = report(&fine());
    let levels: Vec<Level> = report.sections.iter().flat_map(|section| &section.findings).map(|f| f.level).collect();
    assert!(!levels.contains(&Level::Problem) && !levels.contains(&Level::Unknown), "{}", report.render(false));
    assert!(report.render(false).ends_with("No problem found.\n"));
}

#[test]
fn configuration_that_is_wrong_is_found_before_the_operator_reports_it() {
    let with = |change: &dyn Fn(&mut Observed)| {
        let mut observed = fine();
        change(&mut observed);
        observed
    };
    let spec = |spec: Value| agent(&json!({"spec": spec}));
    let of_authority = |spec: Value| Seen::Known(Some(authority(&json!({"spec": spec}))));
    let cases: Vec<(Reason, Observed)> = vec![
        (Reason::AuthorityNotFound, with(&|o| o.authority = Seen::Known(None))),
        (Reason::AuthorityNotReady, with(&|o| o.authority = of_authority(json!({"caBundle": "!"})))),
        (
            Reason::AuthorityNotReady,
            with(&|o| {
                o.authority = Seen::Known(Some(authority(&json!({"status": {"conditions": [
                    {"type": "Ready", "status": "False", "reason": "TLSFailed", "message": "m",
                     "lastTransitionTime": minutes(-1)}]}}))));
            }),
        ),
        (Reason::AuthorityNotReady, with(&|o| o.authority = Seen::Known(Some(authority(&json!({"status": null})))))),
        (Reason::AuthorityNotReady, with(&|o| o.ca_bundle = Seen::Known(Err("caBundleRef: gone".to_owned())))),
        (
            Reason::NamespaceNotAllowed,
            with(&|o| o.authority = of_authority(json!({"allowedNamespaces": {"matchLabels": {"team": "b"}}}))),
        ),
        (Reason::ScopeNotAllowed, with(&|o| o.authority = of_authority(json!({"allowedScopes": ["other"]})))),
        (
            Reason::AudienceNotAllowed,
            with(&|o| {
                o.authority = of_authority(json!({"allowedAudiences": ["https://a"]}));
                o.credential = spec(json!({"audience": "https://b"}));
            }),
        ),
        (Reason::GrantTypeNotAllowed, with(&|o| o.credential = spec(json!({"grantType": "password"})))),
        (Reason::ClientCredentialsNotFound, with(&|o| o.client = Seen::Known(None))),
        (
            Reason::ClientCredentialsInvalid,
            with(&|o| {
                let mut client = client();
                client.data.get_or_insert_default().remove("client_secret");
                o.client = Seen::Known(Some(client));
            }),
        ),
        (
            Reason::TemplateInvalid,
            with(&|o| o.credential = spec(json!({"secretTemplate": {"data": {"a": "{{ unknown }}"}}}))),
        ),
    ];
    for (reason, observed) in cases {
        let report = report(&observed);
        assert!(reasons(&report).contains(&reason.as_str()), "{}: {}", reason.as_str(), report.render(false));
    }
}

#[test]
fn secret_that_is_not_what_it_should_be_is_found() {
    let changed = |change: &dyn Fn(&mut Secret)| {
        let mut observed = fine();
        if let Seen::Known(Some(secret)) = &mut observed.target {
            change(secret);
        }
        observed
    };
    for (reason, observed) in [
        (Reason::SecretNotOwned, changed(&|secret| secret.metadata.owner_references = None).without_annotations()),
        (Reason::SecretImmutable, changed(&|secret| secret.immutable = Some(true))),
        (Reason::SecretTypeMismatch, changed(&|secret| secret.type_ = Some("kubernetes.io/tls".to_owned()))),
    ] {
        assert!(reasons(&report(&observed)).contains(&reason.as_str()), "{}", report(&observed).render(false));
    }
    let edited = changed(&|secret| {
        secret.data.get_or_insert_default().insert("scope".to_owned(), k8s_openapi::ByteString(b"x".to_vec()));
    });
    assert!(problems(&edited).iter().any(|problem| problem.contains("someone edited it")), "{:?}", problems(&edited));
    let extra = changed(&|secret| {
        secret.data.get_or_insert_default().insert("extra".to_owned(), k8s_openapi::ByteString(b"x".to_vec()));
    });
    assert_eq!(problems(&extra), Vec::<String>::new(), "other keys cost no token");
    let empty = changed(&|secret| secret.data = None);
    assert!(problems(&empty).iter().any(|problem| problem.contains("no usable key access_token")));
    let missing = Observed { target: Seen::Known(None), ..fine() };
    assert!(problems(&missing).iter().any(|problem| problem.contains("does not exist")));
}

#[test]
fn secret_of_another_credential_is_to_be_deleted_only_if_that_one_is_gone() {
    let found = |other_owner: Seen<Option<Named>>| {
        let mut observed = Observed { other_owner, ..fine() };
        if let Seen::Known(Some(secret)) = &mut observed.target {
            let owners = secret.metadata.owner_references.get_or_insert_default();
            owners.iter_mut().for_each(|owner| (owner.name, owner.uid) = ("older".to_owned(), "uid-older".to_owned()));
            let annotations = secret.metadata.annotations.get_or_insert_default();
            annotations.insert(secret_keys::OWNER.to_owned(), "team-a/older".to_owned());
            annotations.insert(secret_keys::OWNER_UID.to_owned(), "uid-older".to_owned());
        }
        problems(&observed).join(" ")
    };
    let exists = found(Seen::Known(Some(Named { namespace: "team-a".into(), name: "older".into() })));
    assert!(exists.contains("SecretNotOwned") && exists.contains("older, which exists"), "{exists}");
    let unknown = found(Seen::Unknown("forbidden".to_owned()));
    assert!(unknown.contains("SecretNotOwned") && unknown.contains("older"), "{unknown}");
    assert!(!unknown.contains("delete"), "{unknown}");
    assert!(found(Seen::Known(None)).contains("delete the Secret"));
}

impl Observed {
    fn without_annotations(mut self) -> Self {
        if let Seen::Known(Some(secret)) = &mut self.target {
            secret.metadata.annotations = None;
        }
        self
    }
}

#[test]
fn token_that_is_not_to_be_trusted_or_does_not_last_is_found() {
    let at = |minutes: i64| (now() + TimeDelta::minutes(minutes)).timestamp();
    for (observed, reason, text) in [
        (with_token(&json!({"iss": "https://other.example.com"}), -10, 50), "TokenRejected", "iss claim"),
        (with_token(&json!({"scope": ["other"]}), -10, 50), "ScopeReduced", "itwin-platform"),
        (with_token(&json!({"exp": at(-1)}), -60, -1), "TokenExpired", "expired 60s ago"),
        (with_token(&json!({"nbf": at(20)}), -10, 50), "TokenRejected", "not valid yet"),
        (with_token(&json!({"exp": at(4)}), -56, 4), "BelowMinimumValidity", "less than minimumValidity"),
    ] {
        let found = problems(&observed);
        assert!(found.iter().any(|problem| problem.starts_with(reason) && problem.contains(text)), "{text}: {found:?}");
    }
    let of_another_key =
        Observed { server: Seen::Known(Ok(Published { keys: Some(signer().keys()), date: None })), ..fine() };
    assert!(reasons(&report(&of_another_key)).contains(&"TokenRejected"), "another key");
    let demanding = Observed { credential: agent(&json!({"spec": {"minimumValidity": "55m"}})), ..fine() };
    assert!(reasons(&report(&demanding)).contains(&"LifetimeTooShort"), "{}", report(&demanding).render(false));
    let audience =
        Observed { authority: Seen::Known(Some(authority(&json!({"spec": {"audiences": ["api"]}})))), ..fine() };
    assert!(reasons(&report(&audience)).contains(&"TokenRejected"), "{}", report(&audience).render(false));
}

#[test]
fn difference_of_clocks_is_found_in_the_token_itself() {
    let at = |minutes: i64| (now() + TimeDelta::minutes(minutes)).timestamp();
    for iat in [5, -25] {
        let found = problems(&with_token(&json!({"iat": at(iat)}), -10, 50));
        assert!(found.iter().any(|problem| problem.contains("set the clocks of both right")), "{iat}: {found:?}");
    }
    let here = Observed {
        server: Seen::Known(Ok(Published { keys: None, date: Some((now() + TimeDelta::minutes(5), now())) })),
        ..fine()
    };
    assert!(report(&here).render(false).contains("differ by 5m"), "{}", report(&here).render(false));
}

#[test]
fn every_reason_that_the_operator_reports_is_found_with_its_message() {
    for reason in Reason::ALL.iter().map(|reason| reason.as_str()) {
        let message = format!("what to do about {reason}");
        let found = problems(&Observed { credential: agent(&failed(reason, &message)), ..fine() });
        let expected = format!("{reason} condition Renewed is False: {message}");
        assert_eq!(found, [expected]);
    }
    for reason in ["Pending", "BelowMinimumValidity", "TokenExpired", "LifetimeTooShort", "Suspended"] {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason,
                                                      "message": "m", "lastTransitionTime": minutes(-1)}]}});
        let report = report(&Observed { credential: agent(&ready), ..fine() });
        assert_eq!(reasons(&report), [reason], "{}", report.render(false));
    }
    let unknown = problems(&Observed { credential: agent(&failed("\u{1b}[2J", "m")), ..fine() });
    assert_eq!(unknown, [" condition Renewed is False (?[2J): m"]);
}

#[test]
fn operator_that_is_not_there_does_not_lead_or_does_not_work_is_found() {
    let lease = |holder: Option<&str>, seconds: i64| Lease {
        namespace: "operator".into(),
        holder: holder.map(str::to_owned),
        renewed: Some(now() - TimeDelta::seconds(seconds)),
        seconds: 15,
    };
    for (leases, text) in [(vec![lease(None, 2)], "has no holder"), (vec![lease(Some("pod-1"), 60)], "60s ago")] {
        let found = problems(&Observed { leases: Seen::Known(leases), ..fine() });
        assert!(found.len() == 1 && found[0].contains(text), "{found:?}");
    }
    let old = [lease(Some("pod-1"), 2), lease(Some("pod-0"), 6000)].to_vec();
    assert_eq!(problems(&Observed { leases: Seen::Known(old), ..fine() }), Vec::<String>::new());
    let without = |credential| Observed { leases: Seen::Known(Vec::new()), credential, ..fine() };
    assert_eq!(problems(&without(agent(&json!({})))), Vec::<String>::new(), "it may run without leader election");
    assert!(problems(&without(agent(&json!({"status": null}))))[0].contains("install the operator"));
    let overdue = agent(&json!({"status": {"renewAt": minutes(-5)}}));
    assert!(problems(&Observed { credential: overdue, ..fine() })[0].contains("no operator works"));
    // no one writes the status once the operator is gone
    let times = json!({"renewAt": minutes(-40), "usableUntil": minutes(-10), "expiresAt": minutes(-5)});
    let expired = problems(&Observed { credential: agent(&json!({"status": times})), ..fine() });
    assert!(expired[0].contains("the token expired") && expired[1].contains("no operator works"), "{expired:?}");
    let ahead = vec![lease(Some("pod-1"), -6000)];
    assert!(!problems(&Observed { leases: Seen::Known(ahead), ..fine() }).is_empty(), "it was renewed at no such time");
    let unhandled = agent(&json!({"metadata": {"generation": 2}}));
    assert_eq!(reasons(&report(&Observed { credential: unhandled, ..fine() })), ["Pending"]);
    let queued = json!({"status": {"renewAt": null}});
    let mut failing = failed("ServerError", "m");
    merge(&mut failing, &queued);
    let report = report(&Observed { credential: agent(&failing), ..fine() });
    let mut findings = report.sections.iter().flat_map(|section| &section.findings);
    let waits = findings.find(|finding| finding.text.contains("queue of the authority")).expect("a note");
    assert_eq!(waits.level, Level::Note);
    // it is what the status implies, and how old that is
    for part in ["by its status", "since the last failure, 2m ago", "not checked here"] {
        assert!(waits.text.contains(part), "{part} is not in {}", waits.text);
    }
}

#[test]
fn commands_that_are_recommended_name_the_namespace() {
    let mut observed = fine();
    observed.credential = agent(&json!({"metadata": {"namespace": "team-b"}, "spec": {"suspend": true}}));
    let pod: PodSpec = serde_json::from_value(json!({
        "containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "agent"}}]}],
    }))
    .expect("a pod");
    observed.pods = Seen::Known(vec![(Metadata { name: Some("app-1".into()), ..Metadata::default() }, pod)]);
    let report = report(&observed);
    let texts: Vec<&str> = report.sections.iter().flat_map(|s| &s.findings).map(|f| f.text.as_str()).collect();
    for command in ["'kubectl itcred resume agent -n team-b'", "'kubectl itcred lint -n team-b'"] {
        assert!(texts.iter().any(|text| text.contains(command)), "{command}: {texts:?}");
    }
}

#[test]
fn lease_that_an_operator_has_worked_without_is_no_problem() {
    let lease = |holder: Option<&str>, minutes: i64| Lease {
        namespace: "operator".into(),
        holder: holder.map(str::to_owned),
        renewed: Some(now() + TimeDelta::minutes(minutes)),
        seconds: 15,
    };
    let with = |leases: &[Lease]| Observed { leases: Seen::Known(leases.to_vec()), ..fine() };
    // the conditions changed 2 minutes ago, and the token was issued 10 minutes ago
    for holder in [None, Some("pod-0")] {
        let observed = with(&[lease(holder, -3)]);
        assert_eq!(problems(&observed), Vec::<String>::new());
        let text = report(&observed).render(false);
        assert!(text.contains("an operator worked 2m ago") && !text.contains("check the pods"), "{text}");
    }
    // it was held when they changed, or is held since
    for minutes in [-2, -1] {
        assert_eq!(problems(&with(&[lease(Some("pod-0"), minutes)])).len(), 1, "{minutes}");
    }
    // one of the two may have worked then
    assert_eq!(problems(&with(&[lease(Some("pod-0"), -3), lease(Some("pod-1"), -2)])).len(), 1);
    // one that is renewed elsewhere hides nothing
    assert_eq!(problems(&with(&[lease(Some("pod-0"), -2), lease(Some("pod-1"), 0)])).len(), 1);
    assert_eq!(problems(&with(&[lease(Some("pod-0"), -3), lease(Some("pod-1"), 0)])), Vec::<String>::new());
    // nor does a condition of another controller
    let mut audited = with(&[lease(None, -2)]);
    let mut credential = serde_json::to_value(&audited.credential).expect("JSON");
    let conditions = credential["status"]["conditions"].as_array_mut().expect("conditions");
    conditions.push(json!({
        "type": "Audited", "status": "True", "reason": "Seen", "message": "", "lastTransitionTime": minutes(-1),
    }));
    audited.credential = serde_json::from_value(credential).expect("a credential");
    assert_eq!(problems(&audited).len(), 1);
    // the authority was refreshed since
    let refreshed = authority(&json!({"status": {"lastRefreshTime": minutes(-1)}}));
    let mut observed = with(&[lease(None, -2)]);
    observed.authority = Seen::Known(Some(refreshed));
    assert_eq!(problems(&observed), Vec::<String>::new());
    // a renewal that is late is not attempted, by whichever operator
    let mut stopped = with(&[lease(None, -60)]);
    stopped.credential = agent(&json!({"status": {"renewAt": minutes(-5)}}));
    assert!(problems(&stopped)[0].contains("has no holder, so that no operator works"), "{:?}", problems(&stopped));
}

#[test]
fn deletion_is_a_problem_that_names_what_holds_the_credential() {
    for changes in [json!({}), json!({"spec": {"suspend": true}}), json!({"status": {"renewAt": minutes(-5)}})] {
        let mut all = deleted();
        merge(&mut all, &changes);
        let found = problems(&Observed { credential: agent(&all), ..fine() });
        assert!(found.len() == 1 && found[0].contains("held by finalizer example.com/hold"), "{found:?}");
        assert!(found[0].contains("The token expires in 50m"), "{found:?}");
    }
    let mut lost = deleted();
    merge(&mut lost, &json!({"status": null}));
    let found = problems(&Observed { credential: agent(&lost), ..fine() });
    assert!(found.iter().any(|problem| problem.contains("example.com/hold")), "{found:?}");
}

#[test]
fn expiry_of_the_client_is_found_two_weeks_before() {
    let says = |text: String| {
        let mut client = client();
        let value = k8s_openapi::ByteString(text.into_bytes());
        client.data.get_or_insert_default().insert("expires_at".to_owned(), value);
        problems(&Observed { client: Seen::Known(Some(client)), ..fine() })
    };
    let with = |days: i64| says(time::to_rfc3339(now() + TimeDelta::days(days)));
    assert!(with(-1).len() == 1 && with(13).len() == 1 && with(15).is_empty());
    let invalid = says("next-spring".to_owned());
    assert!(invalid.len() == 1 && invalid[0].contains("key expires_at of Secret team-a/client"), "{invalid:?}");
    assert!(!invalid[0].contains("next-spring"), "{invalid:?}");
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_fine() {
    let why = || "forbidden".to_owned();
    let observed = Observed {
        leases: Seen::Unknown(why()),
        authority: Seen::Unknown(why()),
        ca_bundle: Seen::Unknown(why()),
        namespace_labels: Seen::Unknown(why()),
        server: Seen::Unknown(why()),
        client: Seen::Unknown(why()),
        target: Seen::Unknown(why()),
        pods: Seen::Unknown(why()),
        other_owner: Seen::Unknown(why()),
        ..fine()
    };
    let report = report(&observed);
    let unknown = report.sections.iter().flat_map(|s| &s.findings).filter(|f| f.level == Level::Unknown).count();
    assert_eq!(unknown, 5, "{}", report.render(false));
    assert!(report.conclusion().contains("5 could not be checked"));
    assert!(!report.is_complete());
    let unreachable = Failure::new(Reason::ConnectionFailed, "no connection");
    let offline = super::report(&Observed { server: Seen::Known(Err(unreachable)), ..fine() }).render(false);
    assert!(offline.contains("unknown") && offline.contains("the signature is not checked"), "{offline}");
}

#[test]
fn check_is_incomplete_unless_the_user_left_out_what_is_unknown() {
    assert!(report(&fine()).is_complete());
    let not_asked = |is_offline| {
        let server = Seen::Unknown("not asked".to_owned());
        report(&Observed { server, is_offline, ..fine() })
    };
    assert!(!not_asked(false).is_complete());
    assert!(not_asked(true).is_complete(), "{}", not_asked(true).render(false));
    assert_eq!(not_asked(true).count(Level::Unknown), 2, "it is still said");
    let pods = Seen::Unknown("forbidden".to_owned());
    assert!(!report(&Observed { pods, is_offline: true, ..fine() }).is_complete(), "another part");
    let json = serde_json::to_string(&not_asked(true)).expect("JSON");
    assert!(!json.contains("is_left_out"), "{json}");
}

#[test]
fn no_value_is_shown_and_nothing_reaches_the_terminal() {
    let mut observed = fine();
    let token = match &observed.target {
        Seen::Known(Some(secret)) => secret.data.as_ref().map(|data| data["access_token"].0.clone()),
        _ => None,
    };
    let token = String::from_utf8(token.expect("a token")).expect("text");
    observed.credential = agent(&failed("InvalidClient", "a\u{1b}[2J\u{202e}b"));
    let report = report(&observed);
    let json = serde_json::to_string(&report).expect("JSON");
    for text in [report.render(false), json] {
        for secret in [CLIENT_SECRET, token.as_str(), token.rsplit('.').next().unwrap_or_default()] {
            assert!(!text.contains(secret) && !text.contains(&STANDARD.encode(secret)), "{text}");
        }
        assert!(text.contains("client_secret (20 bytes)") && !text.contains('\u{1b}') && !text.contains('\u{202e}'));
    }
    assert!(report.render(false).lines().all(|line| line.chars().count() <= WIDTH));
}

#[test]
fn page_reads_as_documented() {
    let observed = Observed { client: Seen::Known(None), ..fine() };
    assert_eq!(
        report(&observed).render(false),
        "ITwinServiceCredential team-a/agent

Operator
  ok       pod-1 leads (Lease operator/itwin-credential-operator, renewed 2s ago)

Authority
  ok       ITwinAuthority bentley-ims is Ready
  ok       grant type client_credentials, scopes and audience are allowed
  ok       it publishes 1 signing key
  ok       its clock and that of this machine differ by 0s

Client Secret
  PROBLEM  ClientCredentialsNotFound: Secret team-a/client does not exist: create it with the keys
           client_id and client_secret from the app registration

Secret and token
  ok       Secret team-a/agent belongs to this credential
  ok       the token is valid for 50m of 60m
  ok       signature, issuer and audience are right
  ok       type, times and scopes are right
  ok       the clocks of authority and operator differed by 0s at most

What the operator reports
  ok       TokenValid: condition Ready is True: fine
  ok       TokenIssued: condition Renewed is True: fine
  note     the next attempt is in 30m

Pods
  ok       Secret agent is mounted by app-1

1 problem found. Solve it first: Secret team-a/client does not exist: create it with the keys
client_id and client_secret from the app registration
"
    );
}
