//! The real operator in a simulated cluster: hundreds of scenarios with faults, edits, crashes, failovers, clocks that
//! are set and restored backups, each fixed by its seed. What must hold always is asserted at every step.
//!
//! `SIMULATION_SEED=7` plays one scenario and prints it, with `SIMULATION_LOG=1` the requests too;
//! `SIMULATION_SCENARIOS=100000` plays more of them. The seeds in `regressions.rs` are always played.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

use std::{
    sync::OnceLock,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

mod assess;
mod authority;
mod calm;
mod cheap;
mod clock;
mod cluster;
mod failover;
mod gone;
mod kept;
mod meddler;
mod moved;
mod mutants;
mod oracle;
mod play;
mod regressions;
mod replica;
mod restored;
mod scenario;
mod slots;
mod slow;
mod stale;
mod tenant;
mod typed;
mod undescribed;
mod untrusted;
mod unwritten;

use mutants::Mutant;
use play::{End, play};
use scenario::Scenario;

/// Scenarios that `make test` plays.
const SCENARIOS: u64 = 500;
/// Every so many scenarios are played without what goes wrong, too: they must end in the same state.
const TWINS: u64 = 8;
/// Scenarios that are played twice.
const REPEATED: u64 = 12;
/// A broken operator is found within this many.
const FOUND_WITHIN: u64 = 40;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Plays on a thread of its own, where the order of hash maps follows from the seed, with a clock that waits for nothing.
fn run(seed: u64, scenario: &Scenario, mutant: Option<Mutant>) -> End {
    WARM.get_or_init(|| drop(std::thread::scope(|scope| scope.spawn(|| alone(0, &Scenario::shortest(), None)).join())));
    let on_thread = || {
        repeatable::seed_thread(seed);
        alone(seed, scenario, mutant)
    };
    std::thread::scope(|scope| scope.spawn(on_thread).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What the process makes once was made: a hash map more on the thread that comes first would be in the way of repeating.
static WARM: OnceLock<()> = OnceLock::new();

fn alone(seed: u64, scenario: &Scenario, mutant: Option<Mutant>) -> End {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(seed, scenario, mutant))
}

/// Does something for each item, on all cores; the results are in the order of the items.
fn on_all_cores<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some((place, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?)))
        {
            done.push((place, work(item)));
        }
        done
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// What is wrong with the scenario of a seed.
fn violations(seed: u64) -> Vec<String> {
    let scenario = Scenario::new(seed);
    let end = run(seed, &scenario, None);
    if variable("SIMULATION_LOG").is_some() {
        end.log.iter().for_each(|line| println!("{line}"));
    }
    let mut violations = end.violations;
    if seed.is_multiple_of(TWINS) && !scenario.restores() {
        let undisturbed = run(seed, &scenario.without_trouble(), None);
        if undisturbed.state != end.state {
            violations.push(format!("it ends in {:#?}, undisturbed in {:#?}", end.state, undisturbed.state));
        }
    }
    if !violations.is_empty() {
        println!("SIMULATION_SEED={seed}:\n  {}", violations.join("\n  "));
    }
    violations
}

#[test]
fn every_scenario_keeps_the_promises() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        println!("{:#?}", Scenario::new(seed));
    }
    if variable("SIMULATION_LOG").is_some() {
        let _ = tracing_subscriber::fmt().with_test_writer().without_time().try_init();
    }
    let seeds = regressions::played(variable("SIMULATION_SEED"), variable("SIMULATION_SCENARIOS").unwrap_or(SCENARIOS));
    let began = Instant::now();
    let violations = on_all_cores(&seeds, |seed| violations(*seed));
    let broken: Vec<u64> =
        seeds.iter().zip(&violations).filter(|(_, found)| !found.is_empty()).map(|(seed, _)| *seed).collect();
    let seconds = began.elapsed().as_secs_f64();
    println!("{} scenarios, {:.1} a second", seeds.len(), seeds.len() as f64 / seconds);
    assert!(broken.is_empty(), "{}", regressions::advice(&broken));
}

#[test]
fn seed_repeats_the_end_of_a_scenario() {
    let seeds: Vec<u64> = (0..REPEATED).collect();
    on_all_cores(&seeds, |seed| {
        let scenario = Scenario::new(*seed);
        let (first, second) = (run(*seed, &scenario, None), run(*seed, &scenario, None));
        assert_eq!((first.violations, first.state), (second.violations, second.state), "SIMULATION_SEED={seed}");
    });
}

/// A failing seed is worth something only if it fails again: every request repeats itself, with its body, its simulated
/// time and its answer.
#[test]
#[ignore = "of 150 seeds one does not: two requests of the same instant change places (decision 0018)"]
fn seed_repeats_every_request() {
    let seeds: Vec<u64> = (0..REPEATED).collect();
    on_all_cores(&seeds, |seed| {
        let scenario = Scenario::new(*seed);
        let (first, second) = (run(*seed, &scenario, None), run(*seed, &scenario, None));
        if let Some((one, other)) = first.log.iter().zip(&second.log).find(|(one, other)| one != other) {
            panic!("SIMULATION_SEED={seed} does not repeat itself:\n  {one}\n  {other}");
        }
        assert_eq!(first, second, "SIMULATION_SEED={seed}");
    });
}

/// Plays what has no seed.
fn in_paused_time(play: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(play);
    runtime.shutdown_background();
}

#[test]
fn authority_that_cannot_be_refreshed_for_an_hour_is_not_ready_and_its_tokens_go_on() {
    in_paused_time(stale::play());
}

#[test]
fn token_endpoint_that_moves_during_a_wait_is_found_before_a_token_expires() {
    in_paused_time(moved::play());
}

#[test]
fn failures_and_their_end_are_one_event_each_while_statuses_are_refused() {
    in_paused_time(unwritten::play_refused());
}

#[test]
fn tokens_that_are_too_short_are_an_event_also_where_the_write_of_the_status_is_not_answered() {
    in_paused_time(unwritten::play_unanswered());
}

#[test]
fn field_of_the_status_that_the_crd_does_not_know_costs_no_write_at_each_reconcile() {
    in_paused_time(unwritten::play_pruned());
}

#[test]
fn credential_that_is_deleted_while_it_cannot_be_watched_costs_no_tokens() {
    in_paused_time(gone::play());
}

#[test]
fn secret_that_outlives_its_credential_is_renewed_no_more_once_a_list_lacks_that_one() {
    in_paused_time(gone::play_retained());
}

#[test]
fn credential_that_is_there_keeps_its_token_although_statuses_are_answered_not_found() {
    in_paused_time(gone::play_wrong());
}

#[test]
fn first_token_and_each_renewal_read_the_client_secret_once_from_the_cache() {
    in_paused_time(cheap::play());
}

#[test]
fn failover_after_a_silent_watch_of_secrets_requests_no_token() {
    in_paused_time(failover::play());
}

#[test]
fn replicas_elect_a_leader_that_works_while_every_call_about_the_lease_takes_three_seconds() {
    in_paused_time(slow::play());
}

#[test]
fn token_that_could_not_be_written_is_written_until_it_expires_although_no_other_one_can_be_requested() {
    in_paused_time(kept::play());
}

#[test]
fn client_secret_is_read_once_for_each_request_although_a_token_of_an_earlier_client_is_at_hand() {
    in_paused_time(kept::play_rotated());
}

#[test]
fn status_says_what_a_secret_held_while_it_cannot_be_read_and_its_annotations_are_gone() {
    in_paused_time(undescribed::play_unread());
}

#[test]
fn status_says_what_a_token_was_issued_for_while_its_annotations_cannot_be_restored() {
    in_paused_time(undescribed::play_known());
}

#[test]
fn token_whose_annotations_were_removed_before_a_start_is_not_replaced_by_one_that_expires_earlier() {
    in_paused_time(undescribed::play_stripped());
}

#[test]
fn token_whose_digest_was_removed_before_a_start_is_not_replaced_by_one_that_expires_earlier() {
    in_paused_time(undescribed::play_without_digest());
}

#[test]
fn token_whose_annotations_were_removed_is_not_replaced_while_reads_of_the_client_secret_fail() {
    in_paused_time(undescribed::play_client_unread());
}

#[test]
fn status_of_a_suspended_credential_keeps_its_token_while_a_read_of_the_client_secret_fails() {
    in_paused_time(undescribed::play_suspended());
}

#[test]
fn token_whose_client_secret_could_not_be_read_until_a_crash_is_restored_after_it() {
    in_paused_time(undescribed::play_client_unread_until_a_crash());
}

#[test]
fn token_that_only_a_missing_client_secret_can_verify_is_kept_until_it_is_there() {
    in_paused_time(undescribed::play_without_client());
}

#[test]
fn secret_of_a_held_credential_whose_annotations_were_removed_is_read_once_and_its_status_is_true() {
    in_paused_time(undescribed::play_held());
}

#[test]
fn token_that_is_known_not_to_be_stored_does_not_count_while_the_secret_cannot_be_read() {
    in_paused_time(untrusted::play_unread());
}

#[test]
fn reads_of_a_secret_of_a_held_credential_that_fail_wait_ever_longer_and_are_reported_once() {
    in_paused_time(untrusted::play_held());
}

#[test]
fn secret_of_another_spec_is_not_read_at_a_start_before_its_time() {
    in_paused_time(untrusted::play_suspended());
}

#[test]
fn attempt_that_is_not_allowed_holds_up_no_other_one_while_it_is_reported() {
    in_paused_time(slots::play_not_allowed());
}

#[test]
fn attempt_without_a_usable_client_secret_holds_up_no_other_one_while_it_is_reported() {
    in_paused_time(slots::play_of_no_use());
}

#[test]
fn token_at_hand_that_is_written_instead_of_a_request_holds_up_no_other_one() {
    in_paused_time(slots::play_write());
}

#[test]
fn token_at_hand_is_not_written_for_a_namespace_that_is_not_allowed_any_more() {
    in_paused_time(slots::play_withdrawal());
}

#[test]
fn secret_that_a_policy_creates_with_another_type_is_reported_and_not_written_again() {
    in_paused_time(typed::play());
}

#[test]
fn broken_operators_are_detected() {
    let undetected = on_all_cores(&Mutant::ALL, |mutant| {
        let is_found = |seed: u64| !run(seed, &Scenario::new(seed), Some(*mutant)).violations.is_empty();
        (!(0..FOUND_WITHIN).any(is_found)).then_some(*mutant)
    });
    let undetected: Vec<Mutant> = undetected.into_iter().flatten().collect();
    assert!(undetected.is_empty(), "{undetected:?} were not detected");
}
