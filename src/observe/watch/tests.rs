//! The watch on a simulated API server, in paused time.

use chrono::{DateTime, TimeDelta, Utc};
use kube::Client;
use serde_json::{Value, json};
use simulated_api::{
    ApiServer, Config,
    faults::{Disturbance, Fault, Match, Rule},
    request::Verb,
};

use super::*;
use crate::{clock::Clock, metrics::Metrics, observe::metadata::PartialSecret};

/// A watch ends within this, is found to show nothing, and everything is listed again.
const ONE_CYCLE: Duration = Duration::from_secs(60 + 5 + 5);

struct Fixture {
    server: ApiServer,
    restores: Arc<Restores>,
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
        let api = Api::default_namespaced(Client::new(server.client_service("operator"), "default"));
        let restores = Arc::new(Restores::new(Clock::new(wall)));
        let health = Health::new("/secrets", "secrets", Arc::default(), Arc::new(Metrics::new(true).expect("metrics")));
        let watch = Watch::new(api, "secrets", restores.clone(), health);
        let mut fixture = Self { server, restores, watch };
        assert_eq!(fixture.list(Duration::from_secs(1)).await.as_deref(), Some(&["first".to_owned()][..]));
        fixture
    }

    /// The objects of the next list, if it comes within this time.
    async fn list(&mut self, limit: Duration) -> Option<Vec<String>> {
        let next = async {
            let mut names = None;
            loop {
                match (self.watch.next().await, &mut names) {
                    (Event::Init, names) => *names = Some(Vec::new()),
                    (Event::InitApply(secret), Some(names)) => names.push(secret.name_any()),
                    (Event::InitDone, Some(names)) => return std::mem::take(names),
                    _ => {}
                }
            }
        };
        timeout(limit, next).await.ok()
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
    assert!(fixture.requests("limit=") > 3, "lists were tried");
    fixture.server.clear_faults();
    assert_eq!(fixture.list(LIST_INTERVAL.1 + SPREAD).await.map(|names| names.len()), Some(21));
}

#[tokio::test(start_paused = true)]
async fn watches_that_keep_ending_early_cost_ever_fewer_lists() {
    const HOUR: Duration = Duration::from_secs(3600);
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
