//! Watches that fail each time, once, or after they worked.

use super::*;

impl Fixture {
    /// A client whose watches are all accepted and get this text, after which they end.
    fn with_watches_of(&self, text: &'static str) -> Client {
        self.with_watches_that_last(Duration::ZERO, text)
    }

    /// A client whose watches are all accepted, get this text after a while, and end.
    fn with_watches_that_last(&self, time: Duration, text: &'static str) -> Client {
        let server = self.server.client_service("operator");
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
            let answer = server.clone().call(request);
            async move {
                let (head, body) = answer.await?.into_parts();
                if is_watch && head.status.is_success() {
                    let frame = async move {
                        sleep(time).await;
                        Ok::<_, Infallible>(Frame::data(Bytes::from(text)))
                    };
                    let body = StreamBody::new(Box::pin(futures::stream::once(frame)));
                    return Ok::<_, tower::BoxError>(http::Response::new(Either::Left(body)));
                }
                Ok(http::Response::from_parts(head, Either::Right(body)))
            }
        });
        Client::new(service, "default")
    }

    /// For each watch that fails within this time, whether the API server is known to answer then.
    async fn answered_at_failures(&mut self, time: Duration) -> Vec<bool> {
        let liveness = self.liveness.clone();
        let failures = || liveness.interruption("/secrets").map(|interruption| interruption.watches);
        let observe = async {
            let (end, mut before, mut answered) = (Instant::now() + time, failures(), Vec::new());
            while Instant::now() < end {
                sleep(Duration::from_millis(100)).await;
                if failures() != before {
                    before = failures();
                    answered.push(liveness.fails_while_requests_are_accepted("/secrets"));
                }
            }
            answered
        };
        tokio::join!(observe, self.pass(time)).0
    }

    /// Another watch, of this client.
    pub(super) fn watch_of(&self, client: Client) -> Watch<PartialSecret> {
        let metrics = Arc::new(Metrics::new(true).expect("metrics"));
        let health = Health::new("/secrets", "secrets", self.liveness.clone(), metrics);
        Watch::new(Api::default_namespaced(client), "secrets", self.restores.clone(), health)
    }
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_refused_each_time_are_failures_and_no_sign_of_life_though_lists_are_answered() {
    let expired = || Fault::Answer(Box::new(Failure::expired("too old")));
    let refused = || Fault::Answer(Box::new(Failure::new(500, "InternalError", "it cannot be converted")));
    for fault in [expired(), refused(), Fault::Hang] {
        let mut fixture = Fixture::listed().await;
        fixture.server.plan(Rule::always(Match::any().verb(Verb::Watch), fault));
        fixture.pass(HOUR).await;
        assert!(fixture.requests("limit=") > 5, "lists are answered");
        assert!(fixture.liveness.silence()["secrets"] >= HOUR);
        assert!(!fixture.liveness.all_worked_within("secrets", HOUR));
        assert!(fixture.failures().is_some_and(|(_, watches)| watches > 10), "{:?}", fixture.failures());
        fixture.server.clear_faults();
        fixture.pass(GONE_RETRY + ANSWER + 2 * WORKS).await;
        assert_eq!(fixture.failures(), None);
        assert!(fixture.liveness.all_worked_within("secrets", ONE_CYCLE));
    }
}

#[tokio::test(start_paused = true)]
async fn watches_that_are_accepted_and_break_each_time_are_failures_and_cost_ever_fewer_lists() {
    for text in ["", "<html>a proxy</html>\n"] {
        let mut fixture = Fixture::listed().await;
        fixture.watch = fixture.watch_of(fixture.with_watches_of(text));
        fixture.pass(HOUR).await;
        assert!(fixture.liveness.silence()["secrets"] >= HOUR, "{text:?}");
        assert!(fixture.failures().is_some_and(|(_, watches)| watches > 1000), "{:?}", fixture.failures());
        let answered = fixture.liveness.interruption("/secrets").is_some_and(|interruption| interruption.is_answer);
        assert!(answered, "another resource may be well: {text:?}");
        let lists = fixture.requests("limit=");
        assert!((5..=20).contains(&lists), "{lists} lists");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_show_that_the_api_server_answers_at_two_failures_of_any_watch_and_not_for_long_in_an_outage() {
    let watches =
        |lasting: u64| move |fixture: &Fixture| fixture.with_watches_that_last(Duration::from_secs(lasting), "");
    let hanging = |fixture: &Fixture| {
        fixture.server.plan(Rule::always(Match::any().verb(Verb::Watch), Fault::Hang));
        Client::new(fixture.server.client_service("operator"), "default")
    };
    let each: [&dyn Fn(&Fixture) -> Client; 6] =
        [&watches(0), &watches(3), &watches(5), &watches(10), &watches(14), &hanging];
    for (number, client) in each.into_iter().enumerate() {
        let mut fixture = Fixture::listed().await;
        fixture.watch = fixture.watch_of(client(&fixture));
        let answered = fixture.answered_at_failures(HOUR / 6).await;
        assert!(answered.windows(2).any(|two| two == [true, true]), "watch {number}: {answered:?}");
        // an outage
        fixture.server.plan(Rule::always(Match::any(), Fault::Hang));
        fixture.pass(5 * ANSWER).await;
        let answered = fixture.answered_at_failures(HOUR).await;
        assert!(!answered.is_empty() && !answered.contains(&true), "watch {number}: {answered:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_watch_that_is_too_old_or_ends_after_it_worked_is_no_failure() {
    let mut fixture = Fixture::listed().await;
    fixture.pass(2 * WORKS).await;
    for disturbance in [Disturbance::Expire, Disturbance::End, Disturbance::Reset] {
        fixture.server.disturb(Match::any().verb(Verb::Watch), disturbance);
        fixture.pass(Duration::from_secs(1)).await;
        assert_eq!(fixture.failures(), None);
        fixture.pass(2 * WORKS).await;
    }
    fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    fixture.pass(Duration::from_secs(1)).await;
    fixture.server.disturb(Match::any().verb(Verb::Watch), Disturbance::End);
    fixture.pass(Duration::from_secs(1)).await;
    assert_eq!(fixture.failures(), Some((0, 1)), "it ended before it worked");
    fixture.pass(2 * WORKS).await;
    assert_eq!(fixture.failures(), None);
}

#[tokio::test(start_paused = true)]
async fn bookmark_without_a_version_does_not_change_where_the_watch_is_resumed() {
    let mut fixture = Fixture::listed().await;
    let bookmark = concat!(
        r#"{"type":"BOOKMARK","object":{"kind":"Secret","apiVersion":"v1","metadata":{"resourceVersion":""}}}"#,
        "\n"
    );
    fixture.watch = fixture.watch_of(fixture.with_watches_of(bookmark));
    fixture.pass(Duration::from_secs(10)).await;
    assert_eq!(fixture.failures(), None, "it showed something");
    let version = match &fixture.watch.state {
        State::Listed { version } | State::Watching { version, .. } => Some(version.clone()),
        State::Listing(_) => None,
    };
    assert_eq!(version, Some(fixture.server.revision().to_string()));
}
