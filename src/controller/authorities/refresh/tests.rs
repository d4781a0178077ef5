//! When authorities are asked again: after failures, waits that they ask for, edits, and tokens that show a change.

use std::sync::Mutex;

use futures::future::BoxFuture;
use itwin_api::{authority::ITwinAuthority, conditions::Reason};
use itwin_core::{
    object::ObjectKey,
    requests::{Outcome, Request, Requester},
};
use itwin_oauth::transport::{Transport, TransportError};
use serde_json::{Value, json};

use super::*;
use crate::{clock::Clock, metrics::Metrics, oauth::authority::Connect};

const HOUR: Duration = Duration::from_secs(3600);

const ISSUER: &str = "https://ims.example.com";

/// A discovery document that names this path of the token endpoint.
struct Discovery(Mutex<&'static str>);

impl Transport for Discovery {
    fn send(&self, _: http::Request<Vec<u8>>) -> BoxFuture<'_, Result<http::Response<Vec<u8>>, TransportError>> {
        let path = *self.0.lock().expect("no panic");
        let document = json!({"issuer": ISSUER, "token_endpoint": format!("{ISSUER}/{path}")});
        Box::pin(async move { Ok(http::Response::new(document.to_string().into_bytes())) })
    }
}

/// An object of this generation and spec.
fn object(generation: i64, spec: &Value) -> ITwinAuthority {
    serde_json::from_value(json!({
        "apiVersion": "credentials.itwin.dev/v1alpha1",
        "kind": "ITwinAuthority",
        "metadata": {"name": "ims", "uid": "uid", "generation": generation},
        "spec": spec,
    }))
    .expect("a valid authority")
}

/// The authorities with one of this spec, which was not asked yet.
fn not_asked(document: &Arc<Discovery>, spec: &Value) -> (Authorities, Arc<Authority>) {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let document = document.clone();
    let connect: Connect = Arc::new(move |_| Ok(document.clone()));
    let authorities = Authorities::new(metrics, Clock::system(), connect, Arc::default(), Arc::default());
    authorities.announce("ims");
    let authority = ensured(&authorities, &object(1, spec));
    (authorities, authority)
}

/// The authority of this object.
fn ensured(authorities: &Authorities, object: &ITwinAuthority) -> Arc<Authority> {
    authorities.ensure(object, &Ok(None)).expect("it is there").0.expect("a valid spec")
}

/// The authorities with one of this spec, whose endpoints were asked for.
async fn asked(document: &Arc<Discovery>, spec: &Value) -> (Authorities, Arc<Authority>) {
    let (authorities, authority) = not_asked(document, spec);
    authority.refresh().await.expect("endpoints");
    assert!(authorities.note(&authority, Ok(())), "it is the first answer");
    (authorities, authority)
}

/// A spec whose endpoints are discovered, and whose tokens are not verified.
fn opaque() -> Value {
    json!({"issuer": ISSUER, "accessTokenFormat": "opaque"})
}

/// The authority answered 429, and asked for this wait.
fn limited(wait: TimeDelta) -> Failure {
    Failure { retry_after: Some(wait), ..Failure::new(Reason::RateLimited, "wait") }
}

#[test]
fn wait_that_an_authority_asks_for_is_obeyed_for_at_most_an_hour() {
    let wait = |asked| retry_wait(20, &limited(asked), "ims", true);
    assert_eq!(wait(TimeDelta::minutes(10)), Duration::from_secs(600));
    assert_eq!(wait(TimeDelta::days(400)), HOUR);
    assert!(retry_wait(20, &Failure::new(Reason::RateLimited, "wait"), "ims", true) <= RETRY_CEILING);
    let rejected = Failure::new(Reason::ConfigurationInvalid, "it cannot be read");
    assert!(retry_wait(20, &rejected, "ims", true) <= RETRY_CEILING, "others do not ask for a wait");
}

#[tokio::test(start_paused = true)]
async fn authority_of_which_nothing_is_known_is_asked_again_within_a_minute_whatever_wait_it_asks_for() {
    let document = Arc::new(Discovery(Mutex::new("token")));
    let (authorities, authority) = not_asked(&document, &opaque());
    authorities.note(&authority, Err(limited(TimeDelta::hours(1))));
    assert_eq!(authorities.wait("ims"), RETRY_CEILING);
    authority.refresh().await.expect("endpoints");
    authorities.note(&authority, Ok(()));
    authorities.note(&authority, Err(limited(TimeDelta::hours(1))));
    assert_eq!(authorities.wait("ims"), HOUR, "tokens are requested with what is known");
}

#[tokio::test(start_paused = true)]
async fn edit_ends_the_wait_after_a_failure_and_asks_for_nothing_after_a_success() {
    let document = Arc::new(Discovery(Mutex::new("token")));
    let (authorities, authority) = asked(&document, &opaque()).await;
    let edited = |generation| {
        let mut spec = opaque();
        spec["requestsPerMinute"] = json!(100 + generation);
        ensured(&authorities, &object(generation, &spec))
    };
    edited(2);
    assert!(!authorities.wait("ims").is_zero(), "it was asked just now");
    authorities.note(&authority, Err(limited(TimeDelta::hours(1))));
    assert!(authorities.failure("ims").is_none(), "the answer is about the spec of before");
    let authority = edited(3);
    authorities.note(&authority, Err(limited(TimeDelta::hours(1))));
    assert_eq!(authorities.wait("ims"), HOUR);
    edited(4);
    assert!(authorities.wait("ims").is_zero());
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_were_fetched_for_a_token_end_a_failure() {
    let document = Arc::new(Discovery(Mutex::new("old")));
    let (authorities, authority) = asked(&document, &opaque()).await;
    tokio::time::advance(RETRY_CEILING).await;
    authorities.note(&authority, Err(limited(TimeDelta::hours(1))));
    assert_eq!(authorities.note_fetched(&authority), None);
    assert!(authorities.failure("ims").is_some(), "nothing was fetched since");
    *document.0.lock().expect("no panic") = "new";
    tokio::time::advance(RETRY_CEILING).await;
    authority.refresh().await.expect("endpoints");
    assert_eq!(authorities.note_fetched(&authority), Some(true), "the token endpoint has moved");
    assert!(authorities.failure("ims").is_none());
    assert_eq!(authorities.wait("ims"), REFRESH_INTERVAL);
    assert_eq!(authorities.note_fetched(&authority), None, "it is noted");
}

#[tokio::test(start_paused = true)]
async fn discovered_endpoint_that_may_have_moved_is_asked_for_early_once_a_minute() {
    let document = Arc::new(Discovery(Mutex::new("old")));
    let (authorities, authority) = asked(&document, &opaque()).await;
    assert!(!authorities.wait("ims").is_zero());
    assert!(authorities.ask_early(&authority));
    assert!(authorities.wait("ims").is_zero());
    assert!(!authorities.ask_early(&authority), "every request to it fails");
    authority.refresh().await.expect("endpoints");
    assert!(!authorities.note(&authority, Ok(())), "it has not moved");
    assert!(!authorities.ask_early(&authority) && !authorities.wait("ims").is_zero(), "it was asked just now");

    *document.0.lock().expect("no panic") = "new";
    tokio::time::advance(EARLY_INTERVAL).await;
    assert!(authorities.ask_early(&authority));
    authority.refresh().await.expect("endpoints");
    assert!(authorities.note(&authority, Ok(())), "its credentials have a reason to try again");

    // also where it failed, at most as often
    authorities.note(&authority, Err(Failure::new(Reason::ConnectionFailed, "no connection")));
    assert!(!authorities.ask_early(&authority) && !authorities.wait("ims").is_zero());
    tokio::time::advance(EARLY_INTERVAL).await;
    authorities.note(&authority, Err(Failure::new(Reason::ConnectionFailed, "no connection")));
    assert!(authorities.ask_early(&authority) && authorities.wait("ims").is_zero());

    // one that asked for a wait is asked again when that ends
    authorities.note(&authority, Err(limited(TimeDelta::minutes(10))));
    tokio::time::advance(EARLY_INTERVAL).await;
    assert!(!authorities.ask_early(&authority) && !authorities.wait("ims").is_zero());
}

/// A token request of the authority ends with 429 and this wait.
async fn token_request_is_limited(authorities: &Authorities, wait: TimeDelta) {
    let key = Arc::new(ObjectKey::new("team", "agent"));
    let request = Request {
        requester: Requester { namespace: "team".into(), secret: "client".into() },
        client_version: Some("1".into()),
        content: "request".into(),
        expires_at: None,
        is_retry: false,
    };
    let requester = request.requester.clone();
    authorities.requests.enqueue("ims", &key, request);
    let dispatched = authorities.requests.dispatch(|_| true, |_| {});
    assert!(tokio::time::timeout(Duration::from_secs(1), dispatched).await.is_err(), "it goes on");
    let slot = authorities.requests.take_up("ims", &key, &requester).expect("it was admitted");
    let failure = Failure::new(Reason::RateLimited, "wait");
    slot.end(Outcome::Failed { failure, server_wait: Some(wait), is_outage: false }, "1".into(), None);
}

#[tokio::test(start_paused = true)]
async fn wait_that_a_token_request_is_answered_with_delays_what_is_known_once_and_no_search_for_a_moved_endpoint() {
    let document = Arc::new(Discovery(Mutex::new("token")));
    let (authorities, authority) = not_asked(&document, &opaque());
    token_request_is_limited(&authorities, TimeDelta::minutes(30)).await;
    assert!(authorities.wait("ims").is_zero(), "without endpoints no token can be requested");
    authority.refresh().await.expect("endpoints");
    authorities.note(&authority, Ok(()));
    assert_eq!(authorities.wait("ims"), REFRESH_INTERVAL * 2, "keys may be rotated meanwhile");
    let minute = Duration::from_secs(60);
    tokio::time::advance(minute * 5).await;
    assert_eq!(authorities.wait("ims"), REFRESH_INTERVAL * 2 - minute * 5);

    assert!(authorities.ask_early(&authority), "it may have moved");
    assert!(authorities.wait("ims").is_zero(), "tokens would expire before the wait ends");
    authorities.note(&authority, Err(Failure::new(Reason::ConnectionFailed, "no connection")));
    let left = authorities.wait("ims");
    assert!(!left.is_zero() && left <= RETRY_CEILING, "where it is now is still not known: {left:?}");
    authority.refresh().await.expect("endpoints");
    authorities.note(&authority, Ok(()));
    assert_eq!(authorities.wait("ims"), REFRESH_INTERVAL * 2, "it has not moved");
    tokio::time::advance(minute * 15).await;
    assert_eq!(authorities.wait("ims"), minute * 5, "one interval after it was due, and before the wait ends");
    tokio::time::advance(minute * 10).await;
    authority.refresh().await.expect("endpoints");
    authorities.note(&authority, Ok(()));
    assert_eq!(authorities.wait("ims"), REFRESH_INTERVAL, "the wait is over");

    token_request_is_limited(&authorities, TimeDelta::days(400)).await;
    assert!(authorities.wait("ims") > REFRESH_INTERVAL);
    assert!(authorities.wait("ims") <= REFRESH_INTERVAL * 2, "a longer one delays it no further");
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_the_administrator_named_is_not_asked_for() {
    let document = Arc::new(Discovery(Mutex::new("discovered")));
    let spec = json!({"issuer": ISSUER, "accessTokenFormat": "opaque", "tokenEndpoint": format!("{ISSUER}/named")});
    let (authorities, authority) = asked(&document, &spec).await;
    assert!(!authorities.ask_early(&authority) && !authorities.wait("ims").is_zero());
}
