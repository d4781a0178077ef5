//! The watches of Secrets that fail: every credential of their namespaces says so, and until they work again, its Secrets
//! are read as often as where they are not watched.
//!
//! A watch also fails while the API server is restarted. Then everything fails, no status can be written, and thousands
//! of them, twice, are of no use afterwards. So a failure counts that the API server answered by refusing it, and any
//! other one only while it answers other calls or watches, or says itself why this one fails while other watches are
//! open.

use std::{sync::Arc, time::Duration};

use itwin_core::{messages, retry_state::Unwatched};
use kube::Resource;
use tokio::time::{Instant, sleep_until};

use super::context::Context;
use crate::{liveness::Interruption, observe::metadata::PartialSecret};

/// A watch that fails for so long is reported. It is made again several times by then, and the report is in the status
/// within 10 s of the first failure.
const GRACE: Duration = Duration::from_secs(5);
/// One failure alone is never reported: the first attempt after an outage of the API server may still meet its end.
const ENOUGH: u32 = 2;

/// What is concluded about one watch from its failures.
#[derive(Debug, Default)]
struct Suspicion {
    /// The progress before these failures.
    progress: u64,
    /// The failures that were taken in.
    failures: u32,
    /// How many of them, without a break, count.
    counted: u32,
    /// Since when it fails alone.
    since: Option<Instant>,
}

impl Suspicion {
    /// Takes in how the watch is interrupted, if it is, and whether the API server `answers` other calls. Returns whether
    /// the watch fails for long enough to be reported.
    fn observe(&mut self, interruption: Option<&Interruption>, answers: bool, now: Instant) -> bool {
        let Some(Interruption { failures, progress, trouble, .. }) = interruption else {
            *self = Self::default();
            return false;
        };
        if *progress != self.progress {
            *self = Self { progress: *progress, ..Self::default() };
        }
        let counts = trouble.is_forbidden || answers;
        if *failures != self.failures {
            self.failures = *failures;
            if counts {
                self.since = self.since.or(Some(now));
                self.counted = self.counted.saturating_add(1);
            } else {
                (self.since, self.counted) = (None, 0);
            }
        }
        let is_over = self.due().is_some_and(|due| due <= now);
        if is_over && !counts {
            // the next failure may begin another time
            (self.since, self.counted) = (None, 0);
        }
        is_over && counts && self.counted >= ENOUGH
    }

    /// When it is to be reported, unless it works again.
    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + GRACE)
    }
}

/// Follows the watches of Secrets of all watched namespaces.
pub async fn follow(context: Arc<Context>) {
    let all = &context.namespaces.all;
    let mut suspicions: Vec<Suspicion> = all.iter().map(|_| Suspicion::default()).collect();
    loop {
        let now = Instant::now();
        for (number, suspicion) in suspicions.iter_mut().enumerate() {
            assess(&context, number, suspicion, now);
        }
        let due = suspicions.iter().filter_map(Suspicion::due).filter(|due| *due > now).min();
        let is_due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = context.liveness.interruptions() => {}
            () = is_due => {}
        }
    }
}

/// Has the credentials of one watched namespace reconciled where its watch of Secrets turns out to fail, or works again.
fn assess(context: &Context, number: usize, suspicion: &mut Suspicion, now: Instant) {
    let watched = &context.namespaces.all[number];
    let path = PartialSecret::url_path(&(), watched.namespace.as_deref());
    let interruption = context.liveness.interruption(&path);
    let is_answer = interruption.as_ref().is_some_and(|interruption| interruption.is_answer);
    let answers = context.cluster.answers()
        || (is_answer && context.liveness.is_alone(&path))
        || context.liveness.fails_while_others_are_answered(&path, GRACE);
    let fails = suspicion.observe(interruption.as_ref(), answers, now);
    let is_reported = watched.unwatched.borrow().is_some();
    match interruption {
        Some(Interruption { trouble, .. }) if fails && !is_reported => {
            tracing::warn!(
                namespace = watched.namespace,
                "Secrets cannot be watched and are read: {}",
                trouble.message
            );
            let failure = messages::secrets_unwatched(&trouble.message, trouble.is_forbidden);
            let since = context.clock.now();
            watched.unwatched.send_replace(Some(Arc::new(Unwatched { since, read_from: since, failure })));
            watched.enqueue_all();
        }
        // what was reported stays until a watch works, whatever fails meanwhile
        None if is_reported => {
            tracing::info!(namespace = watched.namespace, "Secrets are watched again");
            watched.unwatched.send_replace(None);
            watched.enqueue_all();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::Trouble;

    const MOMENT: Duration = Duration::from_millis(1);

    fn failed(failures: u32, is_forbidden: bool) -> Interruption {
        let trouble = Trouble { message: "it failed".to_owned(), is_forbidden };
        Interruption { failures, progress: 0, trouble, is_answer: is_forbidden }
    }

    #[test]
    fn watch_that_keeps_failing_is_reported_and_one_that_is_made_again_is_not() {
        let (mut suspicion, start) = (Suspicion::default(), Instant::now());
        let first = failed(1, true);
        assert!(!suspicion.observe(Some(&first), false, start), "it is made again");
        assert_eq!(suspicion.due(), Some(start + GRACE));
        assert!(!suspicion.observe(Some(&failed(2, true)), false, start + GRACE - MOMENT));
        assert!(suspicion.observe(Some(&failed(2, true)), false, start + GRACE), "from the first failure on");
        assert!(!suspicion.observe(None, true, start + GRACE), "it is open");
        assert!(!suspicion.observe(Some(&first), false, start + GRACE * 2), "another time begins");
    }

    #[test]
    fn failure_of_the_whole_api_server_is_no_failure_of_a_watch() {
        let (mut suspicion, start) = (Suspicion::default(), Instant::now());
        assert!(!suspicion.observe(Some(&failed(1, false)), true, start));
        assert!(!suspicion.observe(Some(&failed(2, false)), false, start + MOMENT), "nothing is answered any more");
        assert_eq!(suspicion.due(), None);
        assert!(
            !suspicion.observe(Some(&failed(2, false)), true, start + GRACE * 2),
            "the watch is not made again yet"
        );
        let again = start + GRACE * 3;
        assert!(!suspicion.observe(Some(&failed(3, false)), true, again), "it fails while others are answered");
        assert!(!suspicion.observe(Some(&failed(3, false)), false, again + GRACE), "they are not any more");
        assert!(!suspicion.observe(Some(&failed(4, false)), true, again + GRACE));
        assert!(!suspicion.observe(Some(&failed(4, false)), true, again + GRACE * 2), "one failure alone");
        assert!(suspicion.observe(Some(&failed(5, false)), true, again + GRACE * 2));
    }

    #[test]
    fn one_failure_alone_is_never_reported_and_the_second_one_is() {
        let (mut suspicion, start) = (Suspicion::default(), Instant::now());
        assert!(!suspicion.observe(Some(&failed(1, true)), true, start));
        assert!(!suspicion.observe(Some(&failed(1, true)), true, start + GRACE * 10));
        assert!(suspicion.observe(Some(&failed(2, true)), true, start + GRACE * 10));
    }

    #[test]
    fn page_that_is_accepted_ends_the_failures_before_it() {
        let (mut suspicion, start) = (Suspicion::default(), Instant::now());
        let failed_after = |progress, failures| Interruption { progress, ..failed(failures, true) };
        for page in 0..20 {
            assert!(!suspicion.observe(Some(&failed_after(page, 1)), true, start + GRACE * 2));
            assert!(!suspicion.observe(Some(&failed_after(page + 1, 0)), true, start + GRACE * 3));
        }
        assert!(!suspicion.observe(Some(&failed_after(30, 1)), true, start), "one of another time");
        assert!(!suspicion.observe(Some(&failed_after(31, 1)), true, start + GRACE));
        assert!(suspicion.observe(Some(&failed_after(31, 2)), true, start + GRACE * 2));
    }
}
