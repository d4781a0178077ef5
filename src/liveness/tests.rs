//! Heartbeats of parts, and what is concluded from the requests of watches.

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn trouble(message: &str, is_forbidden: bool) -> Trouble {
    Trouble { message: message.to_owned(), is_forbidden }
}

#[test]
fn stalled_part_is_named() {
    let liveness = Liveness::default();
    liveness.expect("the watch", LIMIT);
    let now = Instant::now();
    assert_eq!(liveness.stalled_at(now + LIMIT / 2), None);
    let reported = liveness.stalled_at(now + LIMIT * 2).unwrap_or_default();
    assert!(reported.starts_with("the watch has had no heartbeat for 1"), "{reported}");
}

#[tokio::test(start_paused = true)]
async fn silence_of_a_resource_is_that_of_its_most_silent_watch() {
    let liveness = Liveness::default();
    for path in ["/a/secrets", "/b/secrets"] {
        liveness.expect_watch(path, "secrets");
    }
    liveness.expect_watch("/authorities", "itwinauthorities");
    tokio::time::advance(LIMIT).await;
    liveness.watch_works("/a/secrets");
    liveness.watch_works("/authorities");
    liveness.watch_works("/c/secrets");
    let silence = [("itwinauthorities", Duration::ZERO), ("secrets", LIMIT)];
    assert_eq!(liveness.silence(), BTreeMap::from(silence), "a watch that never worked counts from its start");
    liveness.watch_works("/b/secrets");
    assert_eq!(liveness.silence()["secrets"], Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn lists_and_watches_that_are_merely_accepted_are_no_sign_of_life() {
    let liveness = Liveness::default();
    assert!(!liveness.all_worked_within("secrets", LIMIT), "they are not watched");
    liveness.expect_watch("/a", "secrets");
    liveness.expect_watch("/b", "secrets");
    assert!(liveness.all_worked_within("secrets", LIMIT), "they began only now");
    tokio::time::advance(LIMIT * 2).await;
    liveness.watch_works("/b");
    liveness.list_accepted("/a");
    liveness.list_progressed("/a");
    liveness.listed("/a");
    liveness.watch_opened("/a");
    assert_eq!(liveness.silence()["secrets"], LIMIT * 2);
    assert!(!liveness.all_worked_within("secrets", LIMIT), "one is silent");
    liveness.watch_works("/a");
    assert!(liveness.all_worked_within("secrets", LIMIT));
    liveness.list_failed("/a", trouble("HTTP 500", false), true);
    assert!(liveness.all_worked_within("secrets", LIMIT), "a watch goes on without a list");
    liveness.watch_failed("/a", trouble("HTTP 500", false), true);
    liveness.watch_opened("/a");
    assert!(!liveness.all_worked_within("secrets", LIMIT), "it may break again");
    liveness.watch_works("/a");
    assert!(liveness.all_worked_within("secrets", LIMIT));
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_has_not_listed_or_lost_is_not_complete_after_a_while() {
    let liveness = Liveness::default();
    let trouble = trouble("HTTP 403", true);
    let listing = || liveness.listing("/a", LIMIT);
    assert_eq!(listing(), Listing::Pending, "it was not even begun");
    liveness.expect_watch("/a", "secrets");
    assert_eq!(listing(), Listing::Pending);
    tokio::time::advance(LIMIT).await;
    assert_eq!(listing(), Listing::Incomplete(None), "there was no answer");
    liveness.list_failed("/a", trouble.clone(), true);
    assert_eq!(listing(), Listing::Incomplete(Some(trouble.clone())));
    assert_eq!(liveness.unlisted(), [("/a".to_owned(), Some(trouble.clone()))]);
    liveness.list_accepted("/a");
    assert_eq!(listing(), Listing::Incomplete(None), "a page is no list");
    liveness.listed("/a");
    assert_eq!((listing(), liveness.unlisted()), (Listing::Complete, Vec::new()));
    liveness.watch_failed("/a", trouble.clone(), true);
    tokio::time::advance(LIMIT / 2).await;
    assert_eq!(listing(), Listing::Complete, "a watch that fails is made again");
    liveness.watch_failed("/a", trouble.clone(), true);
    tokio::time::advance(LIMIT / 2).await;
    assert_eq!(listing(), Listing::Incomplete(Some(trouble)));
}

#[tokio::test(start_paused = true)]
async fn lists_are_not_complete_for_long_while_each_watch_is_refused_and_are_once_one_is_accepted() {
    let liveness = Liveness::default();
    let listing = || liveness.listing("/a", LIMIT);
    liveness.expect_watch("/a", "itwinauthorities");
    liveness.listed("/a");
    liveness.watch_works("/a");
    let mut recoveries = liveness.recoveries("/a").expect("it is watched");
    liveness.watch_failed("/a", trouble("HTTP 500", false), true);
    assert_eq!(listing(), Listing::Complete, "it is made again");
    for _ in 0..10 {
        tokio::time::advance(LIMIT).await;
        liveness.list_accepted("/a");
        assert_eq!(listing(), Listing::Incomplete(Some(trouble("HTTP 500", false))));
        liveness.watch_failed("/a", trouble("HTTP 500", false), true);
    }
    assert!(!recoveries.has_changed().expect("it is watched"));
    liveness.watch_opened("/a");
    assert!(recoveries.has_changed().expect("it is watched"), "so that what depends on it is found out");
    recoveries.mark_unchanged();
    tokio::time::advance(LIMIT).await;
    assert_eq!(listing(), Listing::Complete, "it does not break");
    liveness.watch_works("/a");
    assert!(!recoveries.has_changed().expect("it is watched"), "nothing else is known now");
}

#[tokio::test(start_paused = true)]
async fn who_called_a_list_incomplete_before_a_late_watch_was_accepted_finds_that_out() {
    let liveness = Liveness::default();
    let listing = || liveness.listing("/a", LIMIT);
    liveness.expect_watch("/a", "itwinauthorities");
    liveness.listed("/a");
    liveness.watch_works("/a");
    let mut recoveries = liveness.recoveries("/a").expect("it is watched");
    let mut has_changed = || {
        let has_changed = recoveries.has_changed().expect("it is watched");
        recoveries.mark_unchanged();
        has_changed
    };
    for is_asked in [true, false] {
        // the watch goes on without the list, but is accepted late
        liveness.list_failed("/a", trouble("HTTP 500", false), true);
        tokio::time::advance(LIMIT).await;
        if is_asked {
            assert_eq!(listing(), Listing::Incomplete(Some(trouble("HTTP 500", false))));
        }
        assert!(!has_changed());
        liveness.watch_opened("/a");
        assert_eq!(listing(), Listing::Complete);
        assert_eq!(has_changed(), is_asked, "no one else needs to know");
        liveness.watch_works("/a");
        assert!(!has_changed(), "once");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_are_not_complete_for_long_while_each_watch_is_accepted_and_breaks() {
    let liveness = Liveness::default();
    let listing = || liveness.listing("/a", LIMIT);
    liveness.expect_watch("/a", "itwinauthorities");
    liveness.listed("/a");
    liveness.watch_works("/a");
    liveness.watch_failed("/a", trouble("it ended", false), true);
    liveness.watch_opened("/a");
    tokio::time::advance(LIMIT).await;
    assert_eq!(listing(), Listing::Complete, "one failure alone");
    liveness.watch_failed("/a", trouble("it ended", false), true);
    assert_eq!(listing(), Listing::Complete);
    let recoveries = liveness.recoveries("/a").expect("it is watched");
    for _ in 0..10 {
        liveness.watch_opened("/a");
        liveness.list_accepted("/a");
        tokio::time::advance(LIMIT).await;
        assert_eq!(listing(), Listing::Incomplete(Some(trouble("it ended", false))));
        liveness.watch_failed("/a", trouble("it ended", false), true);
    }
    assert!(!recoveries.has_changed().expect("it is watched"));
    liveness.watch_works("/a");
    assert_eq!(listing(), Listing::Complete);
    assert!(recoveries.has_changed().expect("it is watched"), "so that what depends on it is found out");
}

#[tokio::test(start_paused = true)]
async fn sign_of_life_of_another_watch_shows_that_the_api_server_answers_while_one_fails() {
    let liveness = Liveness::default();
    for path in ["/a", "/b"] {
        liveness.expect_watch(path, "secrets");
    }
    let fails_alone = || liveness.fails_while_others_are_answered("/a", LIMIT);
    tokio::time::advance(LIMIT * 2).await;
    liveness.watch_works("/b");
    assert!(!fails_alone(), "it does not fail");
    liveness.watch_failed("/a", trouble("no connection", false), false);
    assert!(!fails_alone(), "the sign was before");
    tokio::time::advance(LIMIT / 2).await;
    liveness.watch_works("/b");
    assert!(!fails_alone(), "the other one may fail a moment later");
    tokio::time::advance(LIMIT).await;
    liveness.list_accepted("/b");
    assert!(!fails_alone(), "a list is no sign of life");
    liveness.watch_works("/b");
    assert!(fails_alone());
    liveness.watch_opened("/a");
    assert!(!fails_alone());
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_accepted_show_that_the_api_server_answers_though_every_watch_fails() {
    let liveness = Liveness::default();
    for (path, resource) in [("/a", "secrets"), ("/b", "itwinauthorities")] {
        liveness.expect_watch(path, resource);
    }
    let answers = |path| liveness.fails_while_requests_are_accepted(path);
    for path in ["/a", "/b"] {
        liveness.watch_failed(path, trouble("no connection", false), false);
        assert!(!answers(path), "nothing is accepted");
    }
    liveness.watch_opened("/a");
    liveness.watch_failed("/a", trouble("it ended", false), true);
    assert!(answers("/a") && !answers("/b"), "another one may be served by a cache");
    tokio::time::advance(ACCEPTED).await;
    assert!(!answers("/a"), "an outage may have begun");
    liveness.watch_works("/a");
    liveness.watch_failed("/a", trouble("no connection", false), false);
    liveness.list_accepted("/b");
    assert!(answers("/a") && answers("/b"));
    tokio::time::advance(ACCEPTED).await;
    assert!(!answers("/a"), "and when that was accepted, the watch had just failed");
    liveness.list_accepted("/b");
    tokio::time::advance(ACCEPTED).await;
    assert!(answers("/a"), "it had failed for a while");
    tokio::time::advance(LISTED - ACCEPTED).await;
    assert!(!answers("/a"), "an outage may have begun since");
    liveness.list_accepted("/b");
    tokio::time::advance(ACCEPTED).await;
    assert!(answers("/a"));
    liveness.watch_works("/a");
    assert!(!answers("/a"));
}

#[tokio::test(start_paused = true)]
async fn list_shows_that_the_api_server_answers_until_a_watch_that_takes_long_to_fail_failed_twice_after_it() {
    const SLOW: Duration = Duration::from_secs(30);
    for is_accepted in [false, true] {
        let liveness = Liveness::default();
        liveness.expect_watch("/a", "secrets");
        let answers = || liveness.fails_while_requests_are_accepted("/a");
        let fails = async || {
            liveness.watch_requested("/a");
            if is_accepted {
                liveness.watch_opened("/a");
            }
            tokio::time::advance(SLOW).await;
            liveness.watch_failed("/a", trouble("no response within 30 s", false), false);
        };
        fails().await;
        fails().await;
        tokio::time::advance(MOMENT * 2).await;
        liveness.list_accepted("/a");
        fails().await;
        assert!(answers());
        fails().await;
        assert!(answers(), "the second one is reported");
        fails().await;
        assert!(!answers(), "an outage may have begun since");
    }
}

#[tokio::test]
async fn watch_is_interrupted_until_it_works_and_each_change_is_announced() {
    let liveness = Liveness::default();
    let trouble = trouble("HTTP 403", true);
    liveness.watch_failed("/a", trouble.clone(), true);
    assert_eq!(liveness.interruption("/a"), None, "it is not expected");
    for (path, resource) in [("/a", "secrets"), ("/b", "secrets"), ("/authorities", "itwinauthorities")] {
        liveness.expect_watch(path, resource);
    }
    liveness.list_failed("/a", trouble.clone(), false);
    liveness.interruptions().await;
    liveness.list_failed("/a", trouble.clone(), true);
    liveness.interruptions().await;
    liveness.list_failed("/b", trouble.clone(), true);
    assert!(liveness.is_alone("/a"), "the other one shows the same resource");
    liveness.list_failed("/authorities", trouble.clone(), true);
    assert!(!liveness.is_alone("/a"));
    let interruption = |number, lists, watches, progress| {
        let trouble = trouble.clone();
        Some(Interruption { number, lists, watches, progress, trouble, is_answer: true, is_open: false })
    };
    assert_eq!(liveness.interruption("/a"), interruption(0, 2, 0, 0));
    liveness.list_progressed("/a");
    liveness.interruptions().await;
    assert_eq!(liveness.interruption("/a"), interruption(0, 0, 0, 1), "a list is no watch, but no failure either");
    liveness.watch_failed("/a", trouble.clone(), true);
    liveness.interruptions().await;
    liveness.list_progressed("/a");
    assert_eq!(liveness.interruption("/a"), interruption(0, 0, 1, 2), "that does not show that watches work");
    liveness.watch_opened("/a");
    assert!(liveness.interruption("/a").is_some_and(|interruption| interruption.is_open), "nor does this");
    liveness.list_accepted("/authorities");
    assert!(liveness.is_alone("/a"), "the other resource is answered");
    liveness.watch_works("/a");
    liveness.interruptions().await;
    assert_eq!(liveness.interruption("/a"), None);
    liveness.watch_failed("/a", trouble.clone(), true);
    assert_eq!(liveness.interruption("/a"), interruption(1, 0, 1, 2), "another interruption begins");
}

#[test]
fn part_with_heartbeats_is_never_stalled() {
    let liveness = Liveness::default();
    liveness.expect("the watch", Duration::ZERO);
    std::thread::sleep(Duration::from_millis(2));
    assert!(liveness.stalled().is_some());
    liveness.expect("the watch", LIMIT);
    liveness.heartbeat("the watch");
    liveness.heartbeat("an unexpected part");
    assert_eq!(liveness.stalled(), None);
}
