//! Authorities across lists, changed certificates and deletions.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::liveness::Trouble;

#[tokio::test(start_paused = true)]
async fn only_what_a_complete_list_does_not_show_is_missing() {
    let path = ITwinAuthority::url_path(&(), None);
    let liveness = Arc::new(Liveness::default());
    let authorities = Authorities::new(
        Arc::new(Metrics::new(true).expect("metrics")),
        Clock::system(),
        crate::oauth::http::Http::connect(Clock::system(), Default::default()),
        Arc::default(),
        liveness.clone(),
    );
    let spec: CredentialSpec =
        serde_json::from_value(json!({"clientCredentialsRef": {"name": "client"}})).expect("a valid spec");
    let state = || authorities.observe("ims", &spec).0;
    let failure = || match state() {
        observed::Authority::Unlisted(failure) | observed::Authority::Unavailable(failure) => {
            Some((failure.reason, failure.message))
        }
        _ => None,
    };
    liveness.expect_watch(&path, "itwinauthorities");
    assert!(matches!(state(), observed::Authority::Pending), "the watch began only now");
    let trouble = Trouble { message: "HTTP 403: no".to_owned(), is_forbidden: true };
    liveness.list_failed(&path, trouble.clone(), true);
    tokio::time::advance(LISTING).await;
    let (reason, message) = failure().expect("a failure");
    assert_eq!(reason, Reason::AuthorityNotReady);
    assert!(message.contains("HTTP 403: no") && message.contains("to list and watch"), "{message}");
    liveness.list_accepted(&path);
    liveness.listed(&path);
    assert_eq!(failure().map(|(reason, _)| reason), Some(Reason::AuthorityNotFound));
    liveness.watch_failed(&path, trouble, true);
    assert!(authorities.are_complete(), "it is made again");
    tokio::time::advance(LISTING).await;
    liveness.list_accepted(&path);
    assert!(!authorities.are_complete());
    assert_eq!(failure().map(|(reason, _)| reason), Some(Reason::AuthorityNotReady), "lists alone are late");
    liveness.watch_works(&path);
    assert_eq!(failure().map(|(reason, _)| reason), Some(Reason::AuthorityNotFound));
    authorities.announce("ims");
    assert!(matches!(state(), observed::Authority::Pending));
    authorities.forget("ims");
    assert!(matches!(state(), observed::Authority::Unavailable(_)));
}

#[tokio::test(start_paused = true)]
async fn issuer_of_an_authority_that_has_not_answered_is_known_and_so_is_what_it_forbids() {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let connect = crate::oauth::http::Http::connect(Clock::system(), Default::default());
    let authorities = Authorities::new(metrics, Clock::system(), connect, Arc::default(), Arc::default());
    let object: ITwinAuthority = serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinAuthority",
        "metadata": {"name": "ims", "uid": "uid", "generation": 1},
        "spec": {"issuer": "https://ims.example.com", "allowedScopes": ["itwin-platform"]},
    }))
    .expect("a valid authority");
    authorities.announce("ims");
    let (authority, _) = authorities.ensure(&object, &Ok(None)).expect("it is there");
    let authority = authority.expect("a valid spec");
    let observe = |scope: &str| {
        let spec = json!({"clientCredentialsRef": {"name": "client"}, "scopes": [scope]});
        let spec: CredentialSpec = serde_json::from_value(spec).expect("a valid spec");
        authorities.observe("ims", &spec).0
    };
    let unanswered = || match observe("itwin-platform") {
        observed::Authority::Unanswered { issuer, failure } => Some((issuer, failure.map(|failure| failure.reason))),
        _ => None,
    };
    let issuer = || "https://ims.example.com".to_owned();
    assert_eq!(unanswered(), Some((issuer(), None)));
    authorities.note(&authority, Err(Failure::new(Reason::ConnectionFailed, "no connection")));
    assert_eq!(unanswered(), Some((issuer(), Some(Reason::AuthorityNotReady))));
    assert!(matches!(observe("other"), observed::Authority::Forbids(_)), "whether it answers or not");
}

#[test]
fn certificates_that_change_are_taken_over_and_those_that_cannot_be_read_stay() {
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let connect: Connect = Arc::new(|config| Err(format!("{} roots", config.roots.as_ref().map_or(0, Vec::len))));
    let authorities = Authorities::new(metrics, Clock::system(), connect, Arc::default(), Arc::default());
    let object: ITwinAuthority = serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinAuthority",
        "metadata": {"name": "ims", "uid": "uid", "generation": 1},
        "spec": {
            "issuer": "https://ims.example.com",
            "caBundleRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"},
        },
    }))
    .expect("a valid authority");
    authorities.announce("ims");
    let ensured = |bundle| {
        let (authority, is_edited) = authorities.ensure(&object, &bundle).expect("it is there");
        (authority.err().map(|failure| failure.message).unwrap_or_default(), is_edited)
    };
    let failure = || Failure::new(Reason::ConfigurationInvalid, "it cannot be read");
    let pem = |certificates| Ok(Some(CERTIFICATE.repeat(certificates).into_bytes()));
    assert_eq!(ensured(Err(failure())), ("it cannot be read".to_owned(), true), "nothing is sent before it is read");
    assert_eq!(ensured(Err(failure())), ("it cannot be read".to_owned(), false), "the same failure is no edit");
    assert_eq!(ensured(pem(1)), ("spec.1 roots".to_owned(), true));
    assert_eq!(ensured(pem(1)), ("spec.1 roots".to_owned(), false));
    assert_eq!(ensured(Err(failure())), ("spec.1 roots".to_owned(), false));
    assert_eq!(ensured(pem(2)), ("spec.2 roots".to_owned(), true));
}

#[tokio::test]
async fn wait_for_an_edit_lasts_until_the_watch_shows_it_and_no_other_one_ends_it() {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let connect: Connect = Arc::new(|_| Err("no connection is made".to_owned()));
    let authorities = Authorities::new(metrics, Clock::system(), connect, Arc::default(), Arc::default());
    let is_edited = AtomicBool::new(false);
    let mut edited = pin!(authorities.until_edited(|| is_edited.load(Ordering::Relaxed)));
    assert!(edited.as_mut().now_or_never().is_none());
    authorities.show();
    assert!(edited.as_mut().now_or_never().is_none(), "it was another one");
    is_edited.store(true, Ordering::Relaxed);
    authorities.show();
    assert!(edited.as_mut().now_or_never().is_some());
    let before = authorities.until_edited(|| is_edited.load(Ordering::Relaxed));
    assert!(before.now_or_never().is_some(), "it was edited before the wait began");
}

#[test]
fn reconcile_that_ends_after_the_deletion_leaves_no_series() {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let connect: Connect = Arc::new(|_| Err("no connection is made".to_owned()));
    let authorities = Authorities::new(metrics.clone(), Clock::system(), connect, Arc::default(), Arc::default());
    let object: ITwinAuthority = serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinAuthority",
        "metadata": {"name": "ims", "uid": "uid", "generation": 1},
        "spec": {"issuer": "https://ims.example.com"},
    }))
    .expect("a valid authority");
    let shown = || metrics.pages().expect("text").any(|page| page.contains("\"ims\""));
    authorities.announce("ims");
    assert!(authorities.ensure(&object, &Ok(None)).is_some());
    authorities.gauge("ims", true, Some(DateTime::UNIX_EPOCH));
    assert!(shown());
    authorities.forget("ims");
    assert!(!shown());
    assert!(authorities.ensure(&object, &Ok(None)).is_none());
    authorities.gauge("ims", true, Some(DateTime::UNIX_EPOCH));
    assert!(!shown() && authorities.entries().is_empty());
}

/// An authority as a watch shows it, with these conditions.
fn shown(version: &str, kinds: &[&str]) -> ITwinAuthority {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Reason", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let conditions: Vec<_> = kinds.iter().copied().map(condition).collect();
    serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinAuthority",
        "metadata": {"name": "ims", "uid": "uid", "generation": 1, "resourceVersion": version},
        "spec": {"issuer": "https://ims.example.com"},
        "status": {"conditions": conditions},
    }))
    .expect("a valid authority")
}

#[tokio::test(start_paused = true)]
async fn status_that_was_written_before_a_restore_is_not_that_of_an_object_with_the_same_version() {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let connect: Connect = Arc::new(|_| Err("no connection is made".to_owned()));
    let authorities = Authorities::new(metrics, Clock::system(), connect, Arc::default(), Arc::default());
    let object = shown("5", &["Ready"]);
    authorities.announce("ims");
    assert!(authorities.ensure(&object, &Ok(None)).is_some());
    let status = AuthorityStatus { signing_keys: Some(2), ..AuthorityStatus::default() };
    authorities.note_reported(&object, status, Some("7".to_owned()));
    authorities.note_conflict(&object);
    tokio::time::advance(Duration::from_secs(5)).await;
    let known = || {
        let KnownStatus { status, guard } = authorities.known_status(&object);
        (status.signing_keys, guard, authorities.reported_lately("ims", &status).is_some())
    };
    assert_eq!(known(), (Some(2), None, true));
    authorities.forget_reported();
    assert_eq!(known(), (None, Some("5".to_owned()), false), "the restored object has its own status");
}

#[tokio::test(start_paused = true)]
async fn status_that_was_written_counts_until_the_watch_shows_the_object_and_then_only_others_guard_it() {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let connect: Connect = Arc::new(|_| Err("no connection is made".to_owned()));
    let authorities = Authorities::new(metrics, Clock::system(), connect, Arc::default(), Arc::default());
    let known = |object: &ITwinAuthority| {
        let KnownStatus { status, guard } = authorities.known_status(object);
        (status.signing_keys, guard)
    };
    let at = |version: &str| Some(version.to_owned());
    let first = shown("5", &["Ready"]);
    authorities.announce("ims");
    assert!(authorities.ensure(&first, &Ok(None)).is_some());
    assert_eq!(known(&first), (None, at("5")));
    let status = AuthorityStatus { signing_keys: Some(2), ..AuthorityStatus::default() };
    authorities.note_reported(&first, status, at("7"));
    assert_eq!(known(&first), (Some(2), at("7")), "the watch has shown nothing since");
    authorities.note_conflict(&first);
    assert_eq!(known(&first).1, at("7"), "the watch may show what changed");
    tokio::time::advance(Duration::from_secs(5)).await;
    authorities.note_conflict(&first);
    assert_eq!(known(&first), (Some(2), None), "it did not");
    // it did at last, also where that is a version of before a restore
    let second = shown("3", &["Ready", "Audited"]);
    assert_eq!(known(&second), (None, at("3")));
    authorities.note_conflict(&second);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(known(&second).1, at("3"), "a condition of others would be lost");
}
