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

    /// A client whose lists fail after their first page while `refuses` says so.
    fn with_first_pages_alone(&self, refuses: Arc<AtomicBool>) -> Client {
        let server = self.server.client_service("operator");
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let is_later = request.uri().query().is_some_and(|query| query.contains("continue="));
            let is_refused = is_later && refuses.load(Ordering::SeqCst);
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
    let failure = Fault::Answer(Box::new(Failure::new(500, "InternalError", "no such token")));
    fixture.server.plan(Rule::always(lists(), failure).after(1));
    fixture.pass(CONTINUES + Duration::from_secs(10)).await;
    let first_pages = fixture.requests("limit=100") - fixture.requests("continue=");
    assert!(first_pages > 2, "it was listed before, and begins again");
}

#[tokio::test(start_paused = true)]
async fn list_that_fails_after_its_first_page_ends_no_watch() {
    let mut fixture = Fixture::of_pages(2).await;
    let refuses = Arc::new(AtomicBool::new(false));
    fixture.watch = fixture.watch_of(fixture.with_first_pages_alone(refuses.clone()));
    assert_eq!(fixture.list(Duration::from_secs(1)).await.map(|names| names.len()), Some(2 * PAGE_LIMIT as usize));
    assert_eq!(fixture.list(Duration::from_secs(1)).await, None, "the watch is open");
    refuses.store(true, Ordering::SeqCst);
    fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    let before = fixture.requests("limit=");
    for number in 0..20 {
        assert_eq!(fixture.list(LIST_INTERVAL.0).await, None, "no list ends");
        let name = format!("later-{number}");
        fixture.server.as_user("user").create(&secret(&name)).expect("created");
        assert!(fixture.shows(&name, Duration::from_secs(5)).await, "{name}");
    }
    assert!(fixture.requests("limit=") - before > 3, "lists were tried");
    for _ in 0..10 {
        if matches!(fixture.watch.state, State::Listing(_)) {
            let _ = timeout(RETRY.0, fixture.watch.next()).await;
        }
    }
    refuses.store(false, Ordering::SeqCst);
    let names = fixture.list(LIST_INTERVAL.1 + SPREAD).await;
    assert_eq!(names.map(|names| names.len()), Some(2 * PAGE_LIMIT as usize + 20));
}
