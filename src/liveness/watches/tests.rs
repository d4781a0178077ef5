//! What the watches show of the API server.

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn silence_of_a_resource_is_that_of_its_most_silent_watch() {
    let liveness = Liveness::default();
    for path in ["/a/secrets", "/b/secrets"] {
        liveness.expect_watch(path, "secrets");
    }
    liveness.expect_watch("/authorities", "itwinauthorities");
    tokio::time::advance(LIMIT).await;
    liveness.sign_of_life("/a/secrets");
    liveness.sign_of_life("/authorities");
    liveness.sign_of_life("/c/secrets");
    let silence = [("itwinauthorities", Duration::ZERO), ("secrets", LIMIT)];
    assert_eq!(liveness.silence(), BTreeMap::from(silence), "a watch that never answered counts from its start");
    liveness.sign_of_life("/b/secrets");
    assert_eq!(liveness.silence()["secrets"], Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_has_not_listed_or_lost_is_not_complete_after_a_while() {
    let liveness = Liveness::default();
    let trouble = Trouble { message: "HTTP 403".to_owned(), is_forbidden: true };
    let listing = || liveness.listing("/a", LIMIT);
    assert_eq!(listing(), Listing::Pending, "it was not even begun");
    liveness.expect_watch("/a", "secrets");
    assert_eq!(listing(), Listing::Pending);
    tokio::time::advance(LIMIT).await;
    assert_eq!(listing(), Listing::Incomplete(None), "there was no answer");
    liveness.watch_failed("/a", trouble.clone());
    assert_eq!(listing(), Listing::Incomplete(Some(trouble.clone())));
    assert_eq!(liveness.unlisted(), [("/a".to_owned(), Some(trouble.clone()))]);
    liveness.watch_accepted("/a");
    assert_eq!(listing(), Listing::Incomplete(None), "a page is no list");
    liveness.listed("/a");
    assert_eq!((listing(), liveness.unlisted()), (Listing::Complete, Vec::new()));
    liveness.watch_failed("/a", trouble.clone());
    tokio::time::advance(LIMIT / 2).await;
    assert_eq!(listing(), Listing::Complete, "a watch that fails is made again");
    liveness.watch_failed("/a", trouble.clone());
    tokio::time::advance(LIMIT / 2).await;
    assert_eq!(listing(), Listing::Incomplete(Some(trouble)));
}

#[tokio::test(start_paused = true)]
async fn sign_of_life_of_another_watch_shows_that_the_api_server_answers_while_one_fails() {
    let liveness = Liveness::default();
    for path in ["/a", "/b"] {
        liveness.expect_watch(path, "secrets");
    }
    let fails_alone = || liveness.fails_while_others_are_answered("/a", LIMIT);
    tokio::time::advance(LIMIT * 2).await;
    liveness.sign_of_life("/b");
    assert!(!fails_alone(), "it does not fail");
    liveness.watch_failed("/a", Trouble { message: "no connection".to_owned(), is_forbidden: false });
    assert!(!fails_alone(), "the sign was before");
    tokio::time::advance(LIMIT / 2).await;
    liveness.sign_of_life("/b");
    assert!(!fails_alone(), "the other one may fail a moment later");
    tokio::time::advance(LIMIT).await;
    liveness.sign_of_life("/a");
    assert!(!fails_alone(), "it is its own");
    liveness.sign_of_life("/b");
    assert!(fails_alone());
    liveness.watch_accepted("/a");
    assert!(!fails_alone());
}

#[tokio::test]
async fn watch_is_interrupted_until_it_is_open_and_each_change_is_announced() {
    let liveness = Liveness::default();
    let trouble = Trouble { message: "HTTP 403".to_owned(), is_forbidden: true };
    liveness.watch_interrupted("/a", trouble.clone(), true);
    assert_eq!(liveness.interruption("/a"), None, "it is not expected");
    for (path, resource) in [("/a", "secrets"), ("/b", "secrets"), ("/authorities", "itwinauthorities")] {
        liveness.expect_watch(path, resource);
    }
    liveness.watch_interrupted("/a", trouble.clone(), false);
    liveness.interruptions().await;
    liveness.watch_interrupted("/a", trouble.clone(), true);
    liveness.interruptions().await;
    liveness.watch_interrupted("/b", trouble.clone(), true);
    assert!(liveness.is_alone("/a"), "the other one shows the same resource");
    liveness.watch_interrupted("/authorities", trouble.clone(), true);
    assert!(!liveness.is_alone("/a"));
    let interruption =
        |failures, progress| Some(Interruption { failures, progress, trouble: trouble.clone(), is_answer: true });
    assert_eq!(liveness.interruption("/a"), interruption(2, 0));
    liveness.watch_progressed("/a");
    liveness.interruptions().await;
    assert_eq!(liveness.interruption("/a"), interruption(0, 1), "a list is no watch, but no failure either");
    liveness.watch_interrupted("/a", trouble.clone(), true);
    liveness.interruptions().await;
    assert_eq!(liveness.interruption("/a"), interruption(1, 1), "another time begins");
    liveness.watch_progressed("/authorities");
    assert!(liveness.is_alone("/a"), "the other resource is answered");
    liveness.watch_resumed("/a");
    liveness.interruptions().await;
    assert_eq!(liveness.interruption("/a"), None);
}
