//! Lists of several pages, of which some fail.

use std::sync::atomic::AtomicBool;

use super::*;

impl Fixture {
    /// A server with so many pages of Secrets, of which nothing is shown yet.
    async fn of_pages(pages: u32) -> Self {
        let mut fixture = Self::listed().await;
        for number in 1..pages * PAGE_LIMIT {
            fixture.server.as_user("user").create(&secret(&format!("other-{number}"))).expect("created");
        }
        fixture.watch.state = State::first_page(None);
        fixture
    }

    /// A client whose lists fail after their first page where `refuses` says so of the query.
    fn with_pages_refused(&self, refuses: impl Fn(&str) -> bool + Send + Sync + 'static) -> Client {
        let (server, refuses) = (self.server.client_service("operator"), Arc::new(refuses));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let query = request.uri().query().unwrap_or_default();
            let is_refused = query.contains("continue=") && refuses(query);
            let answer = server.clone().call(request);
            async move {
                if is_refused {
                    let message = "unable to transform the key of one Secret";
                    let status = json!({"kind": "Status", "status": "Failure", "message": message, "code": 500});
                    let body = Either::Left(Full::new(Bytes::from(status.to_string())));
                    return Ok::<_, tower::BoxError>(http::Response::builder().status(500).body(body)?);
                }
                let (head, body) = answer.await?.into_parts();
                Ok(http::Response::from_parts(head, Either::Right(body)))
            }
        });
        Client::new(service, "default")
    }

    /// How many lists were begun so far.
    fn lists_begun(&self) -> usize {
        self.requests("limit=100") - self.requests("continue=")
    }

    /// Whether the watch shows this Secret within a time; what lists show does not count.
    async fn shows(&mut self, name: &str, limit: Duration) -> bool {
        let shown = async {
            loop {
                if matches!(self.watch.next().await, Event::Apply(secret) if secret.name_any() == name) {
                    return;
                }
            }
        };
        timeout(limit, shown).await.is_ok()
    }
}

fn lists() -> Match {
    Match::any().verb(Verb::List)
}

#[tokio::test(start_paused = true)]
async fn page_that_fails_each_time_keeps_failing_though_the_pages_before_it_are_accepted() {
    let mut fixture = Fixture::of_pages(2).await;
    let mut names = None;
    for count in 1..4 {
        let failure = Failure::new(500, "InternalError", "it cannot be decrypted");
        // the first page is requested only once
        let passed = usize::from(count == 1);
        fixture.server.plan(Rule::once(lists(), Fault::Answer(Box::new(failure))).after(passed));
        // less than the wait between attempts
        assert!(timeout(RETRY.0 / 2, fixture.rest_of_list(&mut names)).await.is_err());
        assert_eq!(fixture.failures(), Some((count, 0)));
    }
    let names = timeout(RETRY.0 / 2, fixture.rest_of_list(&mut names)).await.map(|names| names.len()).ok();
    assert_eq!((names, fixture.failures()), (Some(2 * PAGE_LIMIT as usize), Some((0, 0))));
}

#[tokio::test(start_paused = true)]
async fn list_whose_pages_are_each_refused_once_goes_on_and_waits_ever_longer() {
    let mut fixture = Fixture::of_pages(10).await;
    for passed in 0..10 {
        let busy = Failure::new(429, "TooManyRequests", "too many requests");
        fixture.server.plan(Rule::once(lists(), Fault::Answer(Box::new(busy))).after(passed));
    }
    let (before, began) = (fixture.requests("limit="), Instant::now());
    let names = fixture.list(HOUR).await.map(|names| names.len());
    assert_eq!(names, Some(10 * PAGE_LIMIT as usize));
    assert_eq!(fixture.requests("limit=") - before, 20);
    assert!(began.elapsed() > Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn list_that_is_refused_waits_as_long_as_the_api_server_asks_for() {
    for (asked, waits) in [(0, 1), (7, 7), (3600, 30)] {
        let mut fixture = Fixture::of_pages(1).await;
        let mut busy = Failure::new(429, "TooManyRequests", "too many requests");
        busy.details = Some(json!({"retryAfterSeconds": asked}));
        fixture.server.plan(Rule::once(lists(), Fault::Answer(Box::new(busy))));
        let began = Instant::now();
        assert!(fixture.list(HOUR).await.is_some());
        assert_eq!(began.elapsed().as_secs(), waits);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_fail_in_turn_so_that_no_list_ends_are_failures_that_follow_each_other() {
    let mut fixture = Fixture::of_pages(5).await;
    let before = fixture.requests("limit=");
    // in turn the second page and the fourth; a list begins again after it
    for passed in [1, 4, 5, 8] {
        let expired = Fault::Answer(Box::new(Failure::expired("the token is too old")));
        fixture.server.plan(Rule::once(lists(), expired).after(passed));
    }
    // the waits are 250 ms, 500 ms and 1 s
    fixture.pass(Duration::from_secs(3)).await;
    assert_eq!(fixture.requests("limit=") - before, 2 + 4 + 2 + 4);
    assert_eq!(fixture.failures(), Some((3, 0)));
    assert_eq!(fixture.list(HOUR).await.map(|names| names.len()), Some(5 * PAGE_LIMIT as usize));
    assert_eq!(fixture.failures(), Some((0, 0)));
}

#[tokio::test(start_paused = true)]
async fn list_does_not_go_on_without_end_with_a_token_that_is_never_accepted() {
    let mut fixture = Fixture::of_pages(2).await;
    let busy = Fault::Answer(Box::new(Failure::new(429, "TooManyRequests", "too many requests")));
    fixture.server.plan(Rule::always(lists(), busy).after(1));
    fixture.pass(CONTINUES - Duration::from_secs(10)).await;
    assert_eq!(fixture.lists_begun(), 2, "it was listed before, and goes on");
    fixture.pass(Duration::from_secs(20)).await;
    assert!(fixture.lists_begun() > 2, "it begins again");
}

#[tokio::test(start_paused = true)]
async fn list_that_fails_after_its_first_page_ends_no_watch() {
    let mut fixture = Fixture::of_pages(2).await;
    let refuses = Arc::new(AtomicBool::new(false));
    let refused = refuses.clone();
    fixture.watch = fixture.watch_of(fixture.with_pages_refused(move |_| refused.load(Ordering::SeqCst)));
    assert_eq!(fixture.list(Duration::from_secs(1)).await.map(|names| names.len()), Some(2 * PAGE_LIMIT as usize));
    assert_eq!(fixture.list(Duration::from_secs(1)).await, None, "the watch is open");
    refuses.store(true, Ordering::SeqCst);
    fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    let before = fixture.lists_begun();
    for number in 0..20 {
        assert_eq!(fixture.list(LIST_INTERVAL.0).await, None, "no list ends");
        let name = format!("later-{number}");
        fixture.server.as_user("user").create(&secret(&name)).expect("created");
        assert!(fixture.shows(&name, Duration::from_secs(5)).await, "{name}");
    }
    let lists = fixture.lists_begun() - before;
    assert!((3..=8).contains(&lists), "{lists} lists were tried");
    for _ in 0..10 {
        if matches!(fixture.watch.state, State::Listing(_)) {
            let _ = timeout(RETRY.0, fixture.watch.next()).await;
        }
    }
    refuses.store(false, Ordering::SeqCst);
    let names = fixture.list(LIST_INTERVAL.1 + SPREAD).await;
    assert_eq!(names.map(|names| names.len()), Some(2 * PAGE_LIMIT as usize + 20));
}

#[tokio::test(start_paused = true)]
async fn list_whose_snapshot_cannot_be_read_begins_again_soon() {
    let mut fixture = Fixture::of_pages(2).await;
    let first = Mutex::new(None);
    let is_of_first_list = move |query: &str| {
        let token = query.split('&').find(|part| part.starts_with("continue=")).map(str::to_owned);
        *first.lock().expect("no panic").get_or_insert_with(|| token.clone()) == token
    };
    fixture.watch = fixture.watch_of(fixture.with_pages_refused(is_of_first_list));
    let mut names = None;
    assert!(timeout(RETRY.0 / 2, fixture.rest_of_list(&mut names)).await.is_err(), "the second page is refused");
    // what could not be decrypted is no longer there, but in the list that began before
    fixture.server.as_user("user").delete("secrets", "default", "other-150", &json!({})).expect("it is there");
    let names = timeout(Duration::from_secs(15), fixture.rest_of_list(&mut names)).await;
    assert_eq!(names.map(|names| names.len()).ok(), Some(2 * PAGE_LIMIT as usize - 1));
}

#[tokio::test(start_paused = true)]
async fn lists_whose_later_page_is_refused_each_time_begin_again_ever_later() {
    let mut fixture = Fixture::of_pages(2).await;
    fixture.watch = fixture.watch_of(fixture.with_pages_refused(|_| true));
    let before = fixture.lists_begun();
    fixture.pass(HOUR / 6).await;
    let lists = fixture.lists_begun() - before;
    assert!((5..=15).contains(&lists), "{lists} lists in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn list_of_a_revision_that_a_restore_takes_away_begins_again_soon() {
    let mut fixture = Fixture::of_pages(2).await;
    let backup = fixture.server.revision();
    fixture.server.as_user("user").create(&secret("lost")).expect("created");
    let failure = Failure::new(500, "InternalError", "no leader");
    fixture.server.plan(Rule::once(lists(), Fault::Answer(Box::new(failure))).after(1));
    let mut names = None;
    assert!(timeout(RETRY.0 / 2, fixture.rest_of_list(&mut names)).await.is_err(), "the second page is refused");
    assert!(fixture.server.restore(backup));
    let names = timeout(Duration::from_secs(15), fixture.rest_of_list(&mut names)).await;
    assert_eq!(names.map(|names| names.len()).ok(), Some(2 * PAGE_LIMIT as usize));
}

#[tokio::test(start_paused = true)]
async fn list_that_goes_on_after_the_cluster_was_restored_begins_again_at_its_first_failure() {
    let mut fixture = Fixture::of_pages(2).await;
    let busy = || Fault::Answer(Box::new(Failure::new(429, "TooManyRequests", "too many requests")));
    fixture.server.plan(Rule::once(lists(), busy()).after(1));
    let mut names = None;
    assert!(timeout(RETRY.0 / 2, fixture.rest_of_list(&mut names)).await.is_err(), "the second page is refused");
    let before = fixture.lists_begun();
    fixture.restores.notice("another resource");
    fixture.server.plan(Rule::once(lists(), busy()));
    let names = timeout(Duration::from_secs(15), fixture.rest_of_list(&mut names)).await;
    assert_eq!(names.map(|names| names.len()).ok(), Some(2 * PAGE_LIMIT as usize));
    assert_eq!(fixture.lists_begun() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn watch_waits_only_once_for_all_pages_of_a_list_that_are_refused() {
    let mut fixture = Fixture::of_pages(10).await;
    assert!(fixture.list(Duration::from_secs(1)).await.is_some());
    assert_eq!(fixture.list(Duration::from_secs(1)).await, None, "the watch is open");
    for passed in 1..10 {
        let busy = Failure::new(429, "TooManyRequests", "too many requests");
        fixture.server.plan(Rule::once(lists(), Fault::Answer(Box::new(busy))).after(passed));
    }
    let before = fixture.requests("continue=");
    fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    let end = Instant::now() + LIST_INTERVAL.0 + SPREAD;
    while fixture.requests("continue=") == before {
        assert!(Instant::now() < end, "a list begins");
        let _ = timeout(RETRY.0 / 2, fixture.watch.next()).await;
    }
    fixture.server.as_user("user").create(&secret("later")).expect("created");
    assert!(fixture.shows("later", Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn watch_goes_on_after_a_refused_list_no_sooner_than_the_api_server_asks_for_within_bounds() {
    for (asked, waits) in [(1, 1000), (60, 2500)] {
        let mut fixture = Fixture::listed().await;
        assert_eq!(fixture.list(Duration::from_secs(1)).await, None, "the watch is open");
        let mut busy = Failure::new(429, "TooManyRequests", "too many requests");
        busy.details = Some(json!({"retryAfterSeconds": asked}));
        fixture.server.plan(Rule::once(lists(), Fault::Answer(Box::new(busy))));
        fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
        let server = fixture.server.clone();
        let requests = |text: &str| server.requests().iter().filter(|entry| entry.path.contains(text)).count();
        let observe = async {
            let lists = requests("limit=");
            while requests("limit=") == lists {
                sleep(Duration::from_millis(10)).await;
            }
            let (watches, refused) = (requests("watch="), Instant::now());
            while requests("watch=") == watches {
                sleep(Duration::from_millis(10)).await;
            }
            refused.elapsed().as_millis()
        };
        let (waited, ()) = tokio::join!(timeout(HOUR, observe), fixture.pass(2 * LIST_INTERVAL.0));
        let waited = waited.expect("the watch is requested");
        assert!((waits - 20..=waits + 20).contains(&waited), "{waited} ms");
    }
}
