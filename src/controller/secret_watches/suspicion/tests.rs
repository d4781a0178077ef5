//! Failures that are reported and those that are not, and the end of reports.

use super::*;

const MOMENT: Duration = Duration::from_millis(1);

/// How often to play what must not repeat a report without end.
const OFTEN: u32 = 200;

fn trouble(message: &str, is_forbidden: bool) -> Trouble {
    Trouble { message: message.to_owned(), is_forbidden }
}

/// So many watches failed.
fn failed(watches: u32, is_forbidden: bool) -> Interruption {
    let trouble = trouble("it failed", is_forbidden);
    Interruption { number: 0, lists: 0, watches, progress: 0, trouble, is_answer: is_forbidden, is_open: false }
}

/// Takes this in and says whether it is reported.
fn is_reported(suspicion: &mut Suspicion, interruption: &Interruption, answers: bool, now: Instant) -> bool {
    matches!(suspicion.observe(Some(interruption), answers, now), Some(Verdict::Fails(_)))
}

#[test]
fn watch_that_keeps_failing_is_reported_and_one_that_is_made_again_is_not() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    let first = failed(1, true);
    assert!(!is_reported(&mut suspicion, &first, false, start), "it is made again");
    assert_eq!(suspicion.due(start), Some(start + GRACE));
    assert!(!is_reported(&mut suspicion, &failed(2, true), false, start + GRACE - MOMENT));
    assert!(is_reported(&mut suspicion, &failed(2, true), false, start + GRACE), "from the first failure on");
    assert!(!is_reported(&mut suspicion, &failed(3, true), false, start + GRACE), "once");
    assert_eq!(suspicion.observe(None, true, start + GRACE), Some(Verdict::Works));
    assert_eq!(suspicion.observe(None, true, start + GRACE), None);
    assert!(!is_reported(&mut suspicion, &first, false, start + GRACE * 2), "another time begins");
}

#[test]
fn failure_of_the_whole_api_server_is_no_failure_of_a_watch() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    let mut observe = |failures, answers, now| is_reported(&mut suspicion, &failed(failures, false), answers, now);
    assert!(!observe(1, true, start));
    assert!(!observe(2, false, start + MOMENT), "nothing is answered any more");
    assert!(!observe(2, true, start + GRACE * 2), "the watch is not made again yet");
    let again = start + GRACE * 3;
    assert!(!observe(3, true, again), "it fails while others are answered");
    assert!(!observe(3, false, again + GRACE), "they are not any more");
    assert!(!observe(4, true, again + GRACE));
    assert!(!observe(4, true, again + GRACE * 2), "one failure alone");
    assert!(observe(5, true, again + GRACE * 2));
}

#[test]
fn one_failure_alone_is_never_reported_and_the_second_one_is() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    assert!(!is_reported(&mut suspicion, &failed(1, true), true, start));
    assert!(!is_reported(&mut suspicion, &failed(1, true), true, start + GRACE * 10));
    assert!(is_reported(&mut suspicion, &failed(2, true), true, start + GRACE * 10));
}

#[test]
fn watch_that_is_open_is_not_reported_for_those_before_it_unless_it_breaks() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    let open = |watches| Interruption { is_open: true, ..failed(watches, true) };
    assert!(!is_reported(&mut suspicion, &failed(1, true), true, start));
    assert!(!is_reported(&mut suspicion, &failed(2, true), true, start + MOMENT));
    assert!(!is_reported(&mut suspicion, &open(2), true, start + GRACE * 2));
    assert_eq!(suspicion.due(start + GRACE * 2), None, "nothing more is known until it breaks or works");
    assert!(is_reported(&mut suspicion, &failed(3, true), true, start + GRACE * 2));
}

#[test]
fn one_failure_of_a_watch_and_one_of_a_list_are_no_two_failures() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    let both = |lists, watches| Interruption { lists, ..failed(watches, true) };
    assert!(!is_reported(&mut suspicion, &both(0, 1), true, start));
    assert!(!is_reported(&mut suspicion, &both(1, 1), true, start + MOMENT));
    assert!(!is_reported(&mut suspicion, &both(1, 1), true, start + GRACE * 2));
    assert!(is_reported(&mut suspicion, &both(1, 2), true, start + GRACE * 2));
}

#[test]
fn failures_of_two_interruptions_do_not_belong_together() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    for number in 0..10_u32 {
        // the end of each was not seen, since another one began at once
        let one = Interruption { number: number.into(), ..failed(1, true) };
        assert!(!is_reported(&mut suspicion, &one, true, start + GRACE * number));
    }
}

#[test]
fn page_that_is_accepted_ends_the_failures_of_lists_before_it_and_none_of_watches() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    let after = |progress, lists, watches| Interruption { progress, lists, ..failed(watches, true) };
    for page in 0..20 {
        assert!(!is_reported(&mut suspicion, &after(page, 1, 0), true, start + GRACE * 2));
        assert!(!is_reported(&mut suspicion, &after(page + 1, 0, 0), true, start + GRACE * 3));
    }
    assert!(!is_reported(&mut suspicion, &after(30, 1, 0), true, start), "one of another time");
    assert!(!is_reported(&mut suspicion, &after(31, 1, 0), true, start + GRACE));
    assert!(is_reported(&mut suspicion, &after(31, 2, 0), true, start + GRACE * 2));

    let mut suspicion = Suspicion::default();
    assert!(!is_reported(&mut suspicion, &after(0, 0, 1), true, start));
    assert!(!is_reported(&mut suspicion, &after(1, 0, 1), true, start + MOMENT));
    assert!(is_reported(&mut suspicion, &after(2, 0, 2), true, start + GRACE));
}

#[test]
fn watch_that_fails_and_works_in_turn_is_reported_ever_more_seldom() {
    let (mut suspicion, mut now) = (Suspicion::default(), Instant::now());
    let (began, mut reports) = (now, 0);
    for number in 0..OFTEN {
        let fails = |watches| Interruption { number: number.into(), ..failed(watches, true) };
        suspicion.observe(Some(&fails(1)), true, now);
        now += GRACE;
        reports += u32::from(is_reported(&mut suspicion, &fails(2), true, now));
        // an event, and then it breaks again
        suspicion.observe(None, true, now);
        assert!(number == 0 || suspicion.due(now).is_some(), "it is said to work once it has rested");
        now += MOMENT;
    }
    assert_eq!(reports, 2, "once, and once more after it worked for a moment");
    // now it works for 20 s each time
    for number in OFTEN..OFTEN * 2 {
        let fails = |watches| Interruption { number: number.into(), ..failed(watches, true) };
        suspicion.observe(Some(&fails(1)), true, now);
        now += GRACE;
        reports += u32::from(is_reported(&mut suspicion, &fails(2), true, now));
        suspicion.observe(None, true, now);
        now += GRACE * 4;
        suspicion.observe(None, true, now);
    }
    assert!(reports <= 2, "{reports} reports in {:?}", now - began);
    let rested = now + REST.0;
    assert_eq!(suspicion.observe(None, true, rested), Some(Verdict::Works), "it does work in the end");
    let later = rested + AGAIN;
    let fails = |watches| Interruption { number: 1000, ..failed(watches, true) };
    suspicion.observe(Some(&fails(1)), true, later);
    assert!(is_reported(&mut suspicion, &fails(2), true, later + GRACE));
    assert_eq!(suspicion.observe(None, true, later + GRACE), Some(Verdict::Works), "what was is forgotten");
}

#[test]
fn list_that_keeps_failing_while_a_watch_works_prolongs_no_report_of_watches() {
    for (lists, watches) in [(0, 2), (2, 0)] {
        let (mut suspicion, mut now) = (Suspicion::default(), Instant::now());
        for number in 0..2 {
            let fails =
                |count: u32| Interruption { number, lists: count.min(lists), ..failed(count.min(watches), true) };
            suspicion.observe(Some(&fails(1)), true, now);
            now += GRACE;
            assert!(is_reported(&mut suspicion, &fails(2), true, now), "{lists} lists, {watches} watches");
            if number == 0 {
                assert_eq!(suspicion.observe(None, true, now), Some(Verdict::Works));
            }
        }
        // the rest is as long as the time between two lists
        let list = |number| Interruption { number, lists: 1, ..failed(0, true) };
        let mut ends = 0;
        for number in 2..22 {
            assert!(!is_reported(&mut suspicion, &list(number), true, now), "one failure alone");
            now += REST.0 / 2;
            ends += u32::from(suspicion.observe(None, true, now) == Some(Verdict::Works));
            now += REST.0 / 2;
        }
        assert_eq!(ends, u32::from(watches > 0), "{lists} lists, {watches} watches");
    }
}

#[test]
fn lists_that_fail_again_and_again_prolong_a_report_of_watches() {
    let (mut suspicion, mut now) = (Suspicion::default(), Instant::now());
    for number in 0..2 {
        let fails = |watches| Interruption { number, ..failed(watches, true) };
        suspicion.observe(Some(&fails(1)), true, now);
        now += GRACE;
        assert!(is_reported(&mut suspicion, &fails(2), true, now));
        suspicion.observe(None, true, now);
    }
    for lists in 1..=2 {
        now += REST.0 / 2;
        suspicion.observe(Some(&Interruption { number: 2, lists, ..failed(0, true) }), true, now);
    }
    assert_eq!(suspicion.observe(None, true, now), None, "no watch was open in between");
    assert_eq!(suspicion.observe(None, true, now + REST.0), Some(Verdict::Works));
}

#[test]
fn report_follows_a_cause_that_lasts_and_not_each_of_several() {
    let (mut suspicion, start) = (Suspicion::default(), Instant::now());
    let by = |watches, message: &str| Interruption { trouble: trouble(message, true), ..failed(watches, true) };
    let observe =
        |suspicion: &mut Suspicion, interruption: &Interruption, now| suspicion.observe(Some(interruption), true, now);
    observe(&mut suspicion, &by(1, "HTTP 403"), start);
    let reported = start + GRACE;
    let first = observe(&mut suspicion, &by(2, "HTTP 403"), reported);
    assert_eq!(first, Some(Verdict::Fails(trouble("HTTP 403", true))));
    assert_eq!(observe(&mut suspicion, &by(3, "HTTP 500"), reported + MOMENT), None);
    assert_eq!(observe(&mut suspicion, &by(4, "HTTP 500"), reported + MOMENT * 2), None, "not so soon");
    assert_eq!(suspicion.due(reported + MOMENT * 2), Some(reported + REPLACED));
    let second = observe(&mut suspicion, &by(4, "HTTP 500"), reported + REPLACED);
    assert_eq!(second, Some(Verdict::FailsOtherwise(trouble("HTTP 500", true))));
    let mut now = reported + REPLACED * 2;
    for failures in 5..OFTEN {
        now += REPLACED;
        let message = if failures % 2 == 0 { "HTTP 500" } else { "HTTP 503" };
        assert_eq!(observe(&mut suspicion, &by(failures, message), now), None, "causes that alternate");
    }
}
