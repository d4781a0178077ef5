//! What is left to restart, over tokens, failures and processes.

use itwin_api::credential::WorkloadKind;
use proptest::prelude::*;

use super::*;

const DELAY: Duration = Duration::from_secs(10);

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

fn target(name: &str) -> RolloutRestartTarget {
    RolloutRestartTarget { kind: WorkloadKind::Deployment, name: name.to_owned() }
}

fn wanted(targets: &[RolloutRestartTarget]) -> Wanted<'_> {
    Wanted { targets, delay: DELAY }
}

fn recorded(restarted_for: Option<DateTime<Utc>>) -> Recorded<'static> {
    Recorded { restarted_for, targets: None }
}

fn obstructed(message: &str) -> Result<(), Obstructed> {
    Err(Obstructed { message: message.to_owned(), is_missing: true })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn restart_is_due_a_delay_after_the_write_and_recorded_then() {
    let (web, start) = ([target("web")], Instant::now());
    let mut state = Restarts::default();
    state.written(at(0), &wanted(&web), (start, at(1)));
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start), Restart::Due(DELAY));
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start + seconds(9)), Restart::Due(seconds(1)));
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start + DELAY), Restart::Due(Duration::ZERO));
    assert_eq!(state.written_at(), Some(at(1)));
    state.ended(vec![(target("web"), Ok(()))], "uid", start + DELAY);
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start + DELAY), Restart::Unrecorded(Duration::ZERO));
    state.recorded();
    // someone may remove the annotation
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start + DELAY), Restart::Done);
}

#[test]
fn restart_since_the_issue_of_a_token_that_is_written_again_was_made_for_it() {
    let (web, start) = ([target("web")], Instant::now());
    let mut state = Restarts::default();
    state.written(at(0), &wanted(&web), (start, at(1)));
    state.ended(vec![(target("web"), Ok(()))], "uid", start + DELAY);
    state.recorded();
    // the Secret was deleted, and its record with it
    state.rewritten(at(0), &wanted(&web), start + seconds(60));
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start + seconds(60)), Restart::Due(DELAY));
    assert_eq!(state.written_at(), Some(at(0)));
}

#[test]
fn new_process_restarts_what_the_secret_does_not_record_a_delay_after_it_found_it() {
    let (web, start) = ([target("web")], Instant::now());
    let observe = |recorded_for| Restarts::default().observe(at(60), recorded(recorded_for), &wanted(&web), start);
    assert_eq!(observe(None), Restart::Due(DELAY));
    assert_eq!(observe(Some(at(0))), Restart::Due(DELAY), "that was the token before");
    assert_eq!(observe(Some(at(60))), Restart::Done);
    let now =
        Restarts::default().observe(at(60), recorded(None), &Wanted { targets: &web, delay: Duration::ZERO }, start);
    assert_eq!(now, Restart::Due(Duration::ZERO));
}

#[test]
fn workload_that_failed_comes_after_those_that_were_not_tried() {
    let (targets, start) = ([target("a"), target("b"), target("c")], Instant::now());
    let mut state = Restarts::default();
    state.written(at(0), &wanted(&targets), (start, at(1)));
    state.ended(vec![(target("a"), obstructed("late")), (target("b"), obstructed("late"))], "uid", start + DELAY);
    let later = start + DELAY + seconds(60);
    state.ended(vec![(target("a"), obstructed("late"))], "uid", later);
    let orders = state.orders(later + seconds(60)).into_iter().map(|order| order.target.name);
    assert_eq!(orders.collect::<Vec<_>>(), ["c", "b", "a"]);
    state.record_failed("denied".to_owned(), "uid", later);
    assert!(state.failure().is_some_and(|failure| failure.contains("denied")));
    state.narrowed();
    assert!(state.failure().is_some_and(|failure| !failure.contains("denied")));
}

#[test]
fn delay_ends_before_the_next_token_is_written() {
    let targets = [target("web")];
    let within = |delay, lifetime| {
        Wanted { targets: &targets, delay: seconds(delay) }.within(chrono::TimeDelta::seconds(lifetime)).delay
    };
    assert_eq!(within(10, 3600), seconds(10));
    assert_eq!(within(3600, 3600), seconds(900));
    assert_eq!(within(10, 0), Duration::ZERO);
}

#[test]
fn workload_that_was_added_while_no_process_ran_waits_for_the_next_token() {
    let spec = |targets: &[&str]| -> CredentialSpec {
        let target = |name: &&str| serde_json::json!({"kind": "Deployment", "name": name});
        let targets: Vec<_> = targets.iter().map(target).collect();
        let spec = serde_json::json!({"clientCredentialsRef": {"name": "client"}, "rolloutRestartTargets": targets});
        serde_json::from_value(spec).expect("a spec")
    };
    assert_eq!(listed(&spec(&[])), None);
    let list = listed(&spec(&["web", "api"])).expect("a list");
    assert_eq!(list.len(), 17, "{list}");
    let start = Instant::now();
    let orders = |names: &[&str]| {
        let targets: Vec<_> = names.iter().map(|name| target(name)).collect();
        let mut state = Restarts::default();
        let recorded = Recorded { restarted_for: None, targets: Some(&list) };
        let restart = state.observe(at(0), recorded, &wanted(&targets), start);
        (restart, state.orders(start).into_iter().map(|order| order.target.name).collect::<Vec<_>>())
    };
    assert_eq!(orders(&["added", "api"]), (Restart::Due(DELAY), vec!["api".to_owned()]));
    assert_eq!(orders(&["added"]), (Restart::Unrecorded(Duration::ZERO), Vec::new()));
}

#[test]
fn workload_that_fails_is_tried_again_alone_with_a_growing_backoff() {
    let (both, start) = ([target("web"), target("missing")], Instant::now());
    let mut state = Restarts::default();
    state.written(at(0), &wanted(&both), (start, at(1)));
    let mut now = start + DELAY;
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&both), now), Restart::Due(Duration::ZERO));
    assert_eq!(state.orders(now).len(), 2);
    assert_eq!(state.obstructed(now), None, "both can be restarted");
    state.ended(vec![(target("missing"), obstructed("no")), (target("web"), Ok(()))], "uid", now);
    let left = state.obstructed(now).expect("one is left");
    let record = Recorded { restarted_for: None, targets: Some(&left) };
    let mut next_process = Restarts::default();
    assert_eq!(next_process.observe(at(0), record, &wanted(&both), now), Restart::Due(DELAY));
    let orders = next_process.orders(now + DELAY).into_iter().map(|order| order.target);
    assert_eq!(orders.collect::<Vec<_>>(), [target("missing")], "the other one is not restarted again");
    assert_eq!(state.failure().as_deref(), Some("no"));
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert_eq!(state.orders(now), []);
        let wait = state.observe(at(0), recorded(None), &wanted(&both), now).wait().expect("it is left");
        waits.push(wait);
        now += wait;
        assert_eq!(state.orders(now), [Order { target: target("missing"), was_missing: true }]);
        state.ended(vec![(target("missing"), obstructed("no"))], "uid", now);
    }
    assert!(waits[0] >= seconds(1) && waits[9] > seconds(29) && waits[9] <= seconds(60), "{waits:?}");
    // the user removes it from the spec
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&both[..1]), now), Restart::Unrecorded(Duration::ZERO));
    assert_eq!(state.failure(), None);
}

#[test]
fn workload_that_is_added_waits_for_the_next_token() {
    let (web, both, start) = ([target("web")], [target("web"), target("added")], Instant::now());
    let mut state = Restarts::default();
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&[]), start), Restart::Done);
    // a process that starts later must know
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start), Restart::Unrecorded(Duration::ZERO));
    state.recorded();
    assert_eq!(state.observe(at(0), recorded(Some(at(0))), &wanted(&web), start), Restart::Done);
    state.written(at(60), &wanted(&web), (start, at(60)));
    assert_eq!(state.observe(at(60), recorded(None), &wanted(&both), start), Restart::Due(DELAY));
    assert_eq!(state.orders(start), [Order { target: target("web"), was_missing: false }]);
    state.written(at(120), &wanted(&both), (start, at(120)));
    assert_eq!(state.orders(start).len(), 2);
}

#[test]
fn failure_is_reported_until_the_next_try_by_the_next_token_and_the_next_process() {
    let (web, start) = ([target("web")], Instant::now());
    let mut state = Restarts::recall(Some("an earlier failure".to_owned()));
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start), Restart::Due(DELAY));
    assert_eq!(state.failure().as_deref(), Some("an earlier failure"));
    state.ended(vec![(target("web"), obstructed("no"))], "uid", start);
    state.written(at(60), &wanted(&web), (start, at(60)));
    assert_eq!(state.failure().as_deref(), Some("no"));
    assert_eq!(state.orders(start), [Order { target: target("web"), was_missing: false }], "no backoff is left");
    state.ended(vec![(target("web"), Ok(()))], "uid", start);
    assert_eq!(state.failure(), None);
    let mut recalled = Restarts::recall(Some("an earlier failure".to_owned()));
    assert_eq!(recalled.observe(at(0), recorded(None), &wanted(&[]), start), Restart::Done);
    assert_eq!(recalled.failure(), None, "no workload is named any more");
}

#[test]
fn record_that_fails_is_written_later() {
    let (web, start) = ([target("web")], Instant::now());
    let mut state = Restarts::default();
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&[]), start), Restart::Done);
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start), Restart::Unrecorded(Duration::ZERO));
    state.record_failed("denied".to_owned(), "uid", start);
    assert_eq!(state.failure().as_deref(), Some("denied"));
    let wait = state.observe(at(0), recorded(None), &wanted(&web), start).wait().expect("it is unrecorded");
    assert!(wait >= seconds(1));
    assert_eq!(state.observe(at(0), recorded(None), &wanted(&web), start + wait), Restart::Unrecorded(Duration::ZERO));
}

#[test]
fn spec_that_is_older_than_the_schema_is_kept_within_its_limits() {
    let targets: Vec<_> = (0..20).map(|_| serde_json::json!({"kind": "Deployment", "name": "web"})).collect();
    let spec = serde_json::json!({
        "clientCredentialsRef": {"name": "client"}, "rolloutRestartTargets": targets, "rolloutRestartDelay": "9999h",
    });
    let spec: CredentialSpec = serde_json::from_value(spec).expect("a spec");
    let wanted = Wanted::new(&spec);
    assert_eq!((wanted.targets.len(), wanted.delay), (TARGETS_MAX, DELAY_MAX));
}

/// What can happen between two reconciles.
#[derive(Clone, Copy, Debug)]
enum Event {
    Write,
    /// The operator starts again, with what the Secret records.
    Start,
    /// Someone removes the record.
    Strip,
    Wait(u64),
    /// The targets that are due are tried: those of an even number fail if the bit of their number is set.
    Try(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Write),
        1 => Just(Event::Start),
        1 => Just(Event::Strip),
        3 => (0_u64..30).prop_map(Event::Wait),
        5 => any::<u8>().prop_map(Event::Try),
    ]
}

proptest! {
    /// However processes and failures follow each other, a workload is restarted at most once by each process for a token,
    /// and by no process that starts after the record.
    #[test]
    fn no_workload_is_restarted_twice_for_a_token(events in proptest::collection::vec(event(), 1..60)) {
        let targets = [target("0"), target("1"), target("2")];
        let (mut state, mut now, mut token) = (Restarts::default(), Instant::now(), 0);
        let (mut recorded, mut done, mut has_observed) = (None, Vec::new(), true);
        for event in events {
            match event {
                Event::Write => {
                    token += 1;
                    recorded = None;
                    done.clear();
                    state.written(at(token), &wanted(&targets), (now, at(token)));
                }
                Event::Start => (state, has_observed) = (Restarts::default(), false),
                Event::Strip => recorded = None,
                Event::Wait(wait) => now += seconds(wait),
                Event::Try(failing) => {
                    // a process that starts without the record reads the workloads
                    if !has_observed && recorded.is_none() {
                        done.clear();
                    }
                    has_observed = true;
                    match state.observe(at(token), Recorded { restarted_for: recorded, targets: None }, &wanted(&targets), now) {
                    Restart::Due(Duration::ZERO) => {
                        let orders = state.orders(now);
                        prop_assert!(!orders.is_empty(), "a decision without effect would be a hot loop");
                        let mut results = Vec::new();
                        for Order { target, .. } in orders {
                            let number: u8 = target.name.parse().expect("a number");
                            let fails = failing & (1 << number) != 0;
                            if !fails {
                                prop_assert!(!done.contains(&number), "{number} is restarted again");
                                done.push(number);
                            }
                            results.push((target, if fails { obstructed("no") } else { Ok(()) }));
                        }
                        state.ended(results, "uid", now);
                    }
                    Restart::Unrecorded(Duration::ZERO) => {
                        prop_assert_eq!(done.len(), targets.len());
                        recorded = Some(at(token));
                        state.recorded();
                    }
                    _ => {}
                    }
                }
            }
        }
    }
}
