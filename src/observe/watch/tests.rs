//! The watch on a simulated API server, in paused time.

mod failing;
mod pages;

use std::{
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::{Client, ResourceExt, client::Body};
use serde_json::{Value, json};
use simulated_api::{
    ApiServer, Config,
    faults::{Disturbance, Fault, Match, Rule},
    request::Verb,
    status::Failure,
};
use tokio::time::timeout_at;
use tower::Service;

use super::{open::WORKS, *};
use crate::{
    clock::Clock,
    liveness::{Liveness, Trouble},
    metrics::Metrics,
    observe::metadata::PartialSecret,
};

const HOUR: Duration = Duration::from_secs(3600);
/// A watch ends within this, is found to show nothing, and everything is listed again.
const ONE_CYCLE: Duration = Duration::from_secs(60 + 5 + 5);

/// Lists that are answered with the very first one, as by an API server whose cache is behind.
#[derive(Clone, Default)]
struct OldLists(Arc<AtomicUsize>);

impl OldLists {
    fn client(&self, server: &ApiServer) -> Client {
        let (old, first, server) = (self.0.clone(), Arc::new(Mutex::new(None)), server.client_service("operator"));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let is_list = request.uri().query().is_some_and(|query| query.contains("limit=100"));
            let (old, first, answer) = (old.clone(), first.clone(), server.clone().call(request));
            async move {
                let (head, body) = answer.await?.into_parts();
                if !is_list {
                    return Ok::<_, tower::BoxError>(http::Response::from_parts(head, Either::Right(body)));
                }
                let body = body.collect().await?.to_bytes();
                let first = first.lock().expect("no panic").get_or_insert_with(|| body.clone()).clone();
                let is_old = old.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                Ok(http::Response::from_parts(head, Either::Left(Full::new(if is_old { first } else { body }))))
            }
        });
        Client::new(service, "default")
    }
}

struct Fixture {
    server: ApiServer,
    old_lists: OldLists,
    restores: Arc<Restores>,
    liveness: Arc<Liveness>,
    watch: Watch<PartialSecret>,
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}})
}

impl Fixture {
    /// A server with one Secret, which was listed.
    async fn listed() -> Self {
        let began = Instant::now();
        let wall = move || DateTime::<Utc>::UNIX_EPOCH + TimeDelta::from_std(began.elapsed()).expect("in range");
        let server = ApiServer::new(Config::new(1, Arc::new(wall)));
        server.as_user("user").create(&secret("first")).expect("created");
        let old_lists = OldLists::default();
        let api = Api::default_namespaced(old_lists.client(&server));
        let restores = Arc::new(Restores::new(Clock::new(wall)));
        let liveness: Arc<Liveness> = Arc::default();
        liveness.expect_watch("/secrets", "secrets");
        let metrics = Arc::new(Metrics::new(true).expect("metrics"));
        let health = Health::new("/secrets", "secrets", liveness.clone(), metrics);
        let watch = Watch::new(api, "secrets", restores.clone(), health);
        let mut fixture = Self { server, old_lists, restores, liveness, watch };
        assert_eq!(fixture.list(Duration::from_secs(1)).await.as_deref(), Some(&["first".to_owned()][..]));
        fixture
    }

    /// The objects of the next list, if it comes within this time.
    async fn list(&mut self, limit: Duration) -> Option<Vec<String>> {
        timeout(limit, self.rest_of_list(&mut None)).await.ok()
    }

    /// The objects of the list of which these `names` were shown, or of the next one.
    async fn rest_of_list(&mut self, names: &mut Option<Vec<String>>) -> Vec<String> {
        loop {
            match (self.watch.next().await, &mut *names) {
                (Event::Init, names) => *names = Some(Vec::new()),
                (Event::InitApply(secret), Some(names)) => names.push(secret.name_any()),
                (Event::InitDone, Some(names)) => return std::mem::take(names),
                _ => {}
            }
        }
    }

    /// How many lists failed without progress, and how many watches, if none works since.
    fn failures(&self) -> Option<(u32, u32)> {
        self.liveness.interruption("/secrets").map(|interruption| (interruption.lists, interruption.watches))
    }

    /// Lets so much time pass, and drops the events.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while timeout_at(end, self.watch.next()).await.is_ok() {}
    }

    /// The paths of the requests so far that contain this text.
    fn requests(&self, text: &str) -> usize {
        self.server.requests().iter().filter(|entry| entry.path.contains(text)).count()
    }
}

#[tokio::test(start_paused = true)]
async fn watch_that_ends_by_its_own_timeout_is_resumed_without_a_list() {
    let mut fixture = Fixture::listed().await;
    assert_eq!(fixture.list(10 * ONE_CYCLE).await, None);
    assert_eq!(fixture.requests("limit="), 1);
    assert!(fixture.requests("watch=") > 5);
}

#[tokio::test(start_paused = true)]
async fn watch_that_is_accepted_works_once_it_shows_anything_or_was_open_for_a_while() {
    let trouble = Trouble { message: "HTTP 403".to_owned(), is_forbidden: true };

    let mut silent = Fixture::listed().await;
    silent.liveness.list_failed("/secrets", trouble.clone(), true);
    silent.liveness.watch_failed("/secrets", trouble.clone(), true);
    assert_eq!(silent.failures(), Some((1, 1)));
    assert_eq!(silent.list(WORKS - Duration::from_secs(1)).await, None);
    assert_eq!(silent.failures(), Some((0, 1)), "it is open, but may break");
    assert_eq!(silent.list(Duration::from_secs(2)).await, None);
    assert_eq!(silent.failures(), None);

    let mut showing = Fixture::listed().await;
    showing.liveness.watch_failed("/secrets", trouble, true);
    showing.server.as_user("user").create(&secret("second")).expect("created");
    let event = timeout(Duration::from_secs(1), showing.watch.next()).await;
    assert!(matches!(event, Ok(Event::Apply(secret)) if secret.name_any() == "second"));
    assert_eq!(showing.failures(), None);
}

#[tokio::test(start_paused = true)]
async fn watch_that_ends_early_is_resumed_at_once_and_listed_again_once_in_a_while() {
    let mut fixture = Fixture::listed().await;
    for name in ["second", "third"] {
        fixture.server.as_user("user").create(&secret(name)).expect("created");
        let event = timeout(Duration::from_secs(1), fixture.watch.next()).await;
        assert!(matches!(event, Ok(Event::Apply(secret)) if secret.name_any() == name));
        fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    }
    let names = fixture.list(LIST_INTERVAL.0 + SPREAD).await;
    assert_eq!(names.map(|names| names.len()), Some(3));
    assert_eq!(fixture.list(10 * ONE_CYCLE).await, None);
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_refused_with_410_after_each_list_cost_ever_fewer_lists() {
    let mut fixture = Fixture::listed().await;
    let gone = Fault::Answer(Box::new(Failure::expired("too old")));
    fixture.server.plan(Rule::always(Match::any().verb(Verb::Watch), gone));
    assert_eq!(fixture.list(600 * ONE_CYCLE).await.map(|names| names.len()), Some(1), "the first comes at once");
    let (began, mut lists) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(600) {
        lists += usize::from(fixture.list(2 * GONE_RETRY).await.is_some());
    }
    assert!((8..=24).contains(&lists), "{lists} lists in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn watch_that_shows_nothing_is_not_trusted_without_end() {
    let fixture = Fixture::listed().await;
    let server = fixture.server.client_service("operator");
    let without_events = tower::service_fn(move |request: http::Request<Body>| {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
        let answer = server.clone().call(request);
        async move {
            if !is_watch {
                let (head, body) = answer.await?.into_parts();
                return Ok::<_, tower::BoxError>(http::Response::from_parts(head, Either::Right(body)));
            }
            let end = futures::stream::once(sleep(Duration::from_secs(WATCH_SECONDS.into())));
            let nothing = end.filter_map(async |()| None::<Result<Frame<Bytes>, Infallible>>);
            Ok(http::Response::new(Either::Left(StreamBody::new(Box::pin(nothing)))))
        }
    });
    let api = Api::default_namespaced(Client::new(without_events, "default"));
    let health = Health::new("/secrets", "secrets", Arc::default(), Arc::new(Metrics::new(true).expect("metrics")));
    let watch = Watch::new(api, "secrets", fixture.restores.clone(), health);
    let mut fixture = Fixture { watch, ..fixture };
    assert_eq!(fixture.list(Duration::from_secs(1)).await.map(|names| names.len()), Some(1));
    fixture.server.as_user("user").create(&secret("second")).expect("created");
    let names = fixture.list(LIST_INTERVAL.1 + 2 * ONE_CYCLE).await;
    assert_eq!(names.map(|names| names.len()), Some(2));
}

#[tokio::test(start_paused = true)]
async fn watch_that_goes_back_shows_nothing_and_everything_is_listed_again() {
    let mut fixture = Fixture::listed().await;
    fixture.server.as_user("user").create(&secret("second")).expect("created");
    assert!(matches!(fixture.watch.next().await, Event::Apply(_)));
    fixture.server.as_user("user").delete("secrets", "default", "second", &json!({})).expect("deleted");
    assert!(matches!(fixture.watch.next().await, Event::Delete(_)));
    fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::Replay);
    let next = timeout(LIST_INTERVAL.0 + SPREAD, fixture.watch.next()).await;
    assert!(matches!(next, Ok(Event::Init)), "{next:?}");
    assert_eq!(fixture.list(10 * ONE_CYCLE).await, None, "once");
}

#[tokio::test(start_paused = true)]
async fn watch_from_a_version_that_is_yet_to_come_is_noticed_within_one_cycle() {
    let mut fixture = Fixture::listed().await;
    let backup = fixture.server.revision();
    fixture.server.as_user("user").create(&secret("lost")).expect("created");
    assert!(matches!(fixture.watch.next().await, Event::Apply(_)));
    let before = fixture.restores.incarnation();
    assert!(fixture.server.restore(backup));
    assert_eq!(fixture.list(ONE_CYCLE).await.as_deref(), Some(&["first".to_owned()][..]));
    assert_ne!(fixture.restores.incarnation(), before);
}

#[tokio::test(start_paused = true)]
async fn restore_that_is_noticed_elsewhere_makes_a_list() {
    let mut fixture = Fixture::listed().await;
    fixture.restores.notice("another resource");
    assert!(fixture.list(SPREAD + Duration::from_secs(1)).await.is_some());
    assert!(fixture.list(10 * ONE_CYCLE).await.is_none(), "once");
}

impl Fixture {
    /// A second Secret, which the watch has shown; then the next lists are so often the one of before.
    async fn behind(lists: usize) -> Self {
        let mut fixture = Self::listed().await;
        fixture.server.as_user("user").create(&secret("second")).expect("created");
        let event = timeout(Duration::from_secs(1), fixture.watch.next()).await;
        assert!(matches!(event, Ok(Event::Apply(secret)) if secret.name_any() == "second"));
        fixture.old_lists.0.store(lists, Ordering::SeqCst);
        fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::Expire);
        fixture
    }
}

#[tokio::test(start_paused = true)]
async fn list_that_is_older_once_is_made_again_and_shows_nothing() {
    let mut fixture = Fixture::behind(1).await;
    let before = fixture.restores.incarnation();
    let names = fixture.list(ONE_CYCLE).await.expect("a list");
    assert_eq!(names, ["first", "second"]);
    assert_eq!(fixture.restores.incarnation(), before);
    assert_eq!(fixture.requests("limit=100"), 3, "the first, the older one, and the one after it");
}

#[tokio::test(start_paused = true)]
async fn list_that_is_older_twice_is_one_of_a_restored_cluster() {
    let mut fixture = Fixture::behind(2).await;
    let before = fixture.restores.incarnation();
    assert_eq!(fixture.list(ONE_CYCLE).await.as_deref(), Some(&["first".to_owned()][..]));
    assert_ne!(fixture.restores.incarnation(), before);
}

#[tokio::test(start_paused = true)]
async fn watch_is_not_trusted_at_its_end_until_the_revisions_of_before_a_restore_have_passed() {
    let mut fixture = Fixture::listed().await;
    let backup = fixture.server.revision();
    for name in ["lost", "lost-too"] {
        fixture.server.as_user("user").create(&secret(name)).expect("created");
        assert!(matches!(fixture.watch.next().await, Event::Apply(_)));
    }
    assert!(fixture.server.restore(backup));
    fixture.restores.notice("another resource");
    assert_eq!(fixture.list(ONE_CYCLE).await.map(|names| names.len()), Some(1));
    assert!(fixture.restores.is_behind("secrets"));
    for _ in 0..3 {
        assert!(fixture.list(ONE_CYCLE).await.is_some(), "the watch may show nothing");
    }
    for name in ["later", "later-still", "latest"] {
        fixture.server.as_user("user").create(&secret(name)).expect("created");
    }
    while fixture.list(2 * ONE_CYCLE).await.is_some() {}
    assert!(!fixture.restores.is_behind("secrets"), "lists end only with it");
    let lists = fixture.requests("limit=100");
    assert_eq!(fixture.list(10 * ONE_CYCLE).await, None);
    assert_eq!(fixture.requests("limit=100"), lists);
}

#[tokio::test(start_paused = true)]
async fn list_that_fails_ends_no_watch() {
    let mut fixture = Fixture::listed().await;
    assert!(timeout(Duration::from_secs(1), fixture.watch.next()).await.is_err(), "the watch is open");
    fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    fixture.server.plan(Rule::always(Match::any().verb(Verb::List), Fault::Refuse));
    for number in 0..20 {
        let quiet = timeout(LIST_INTERVAL.0, fixture.watch.next()).await;
        assert!(quiet.is_err(), "nothing happened");
        let name = format!("later-{number}");
        fixture.server.as_user("user").create(&secret(&name)).expect("created");
        let event = timeout(Duration::from_secs(5), fixture.watch.next()).await;
        assert!(matches!(event, Ok(Event::Apply(secret)) if secret.name_any() == name), "{name}");
    }
    let lists = fixture.requests("limit=");
    assert!((4..=8).contains(&lists), "{lists} lists, of which the first succeeded");
    fixture.server.clear_faults();
    assert_eq!(fixture.list(LIST_INTERVAL.1 + SPREAD).await.map(|names| names.len()), Some(21));
}

#[tokio::test(start_paused = true)]
async fn watches_that_keep_ending_early_cost_ever_fewer_lists() {
    let mut fixture = Fixture::listed().await;
    let began = Instant::now();
    while began.elapsed() < HOUR {
        // such as a proxy that cuts idle connections
        let _ = timeout(Duration::from_secs(30), fixture.watch.next()).await;
        fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    }
    let lists = fixture.requests("limit=");
    assert!((5..=15).contains(&lists), "{lists} lists");
}

#[tokio::test(start_paused = true)]
async fn list_that_is_never_answered_is_made_again_and_is_no_stall_of_the_process() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let hangs = tower::service_fn(move |_: http::Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<http::Response<Full<hyper::body::Bytes>>, tower::BoxError>>()
    });
    let wall = || DateTime::<Utc>::UNIX_EPOCH;
    let liveness: Arc<Liveness> = Arc::default();
    liveness.expect("/secrets", WATCH_LIMIT);
    liveness.expect_watch("/secrets", "secrets");
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let health = Health::new("/secrets", "secrets", liveness.clone(), metrics);
    let api: Api<PartialSecret> = Api::default_namespaced(Client::new(hangs, "default"));
    let mut watch = Watch::new(api, "secrets", Arc::new(Restores::new(Clock::new(wall))), health);
    assert!(timeout(10 * ANSWER, watch.next()).await.is_err(), "there is nothing to show");
    assert!(requests.load(Ordering::SeqCst) > 5);
    assert_eq!(liveness.stalled(), None, "a restart helps against nothing here");
    let unlisted = liveness.unlisted();
    assert!(unlisted.iter().all(|(_, trouble)| trouble.as_ref().is_some_and(|it| it.message.contains("30 s"))));
    assert_eq!(unlisted.len(), 1);
}
