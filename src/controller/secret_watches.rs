//! The watches of Secrets that fail: every credential of their namespaces says so, and until they work again, its Secrets
//! are read as often as where they are not watched.
//!
//! A watch also fails while the API server is restarted. Then everything fails, no status can be written, and thousands
//! of them, twice, are of no use afterwards. So a failure counts that the API server answered by refusing it, and any
//! other one only while it answers other calls or watches, or says itself why this one fails while other watches are
//! open. A process that runs alone renews no Lease and may make no call for long. Where all of its watches fail, only
//! lists, and watches that are accepted before they break, show that the API server answers.

mod suspicion;

use std::sync::Arc;

use itwin_core::{failure::Failure, messages, retry_state::Unwatched};
use kube::Resource;
use tokio::time::Instant;

use self::suspicion::{GRACE, Suspicion, Verdict};
use super::{context::Context, namespaces::WatchedNamespace};
use crate::{clock::until, liveness::Trouble, observe::metadata::PartialSecret};

/// Follows the watches of Secrets of all watched namespaces.
pub async fn follow(context: Arc<Context>) {
    let all = &context.namespaces.all;
    let mut suspicions: Vec<Suspicion> = all.iter().map(|_| Suspicion::default()).collect();
    loop {
        let now = Instant::now();
        for (watched, suspicion) in all.iter().zip(&mut suspicions) {
            assess(&context, watched, suspicion, now);
        }
        let due = suspicions.iter().filter_map(|suspicion| suspicion.due(now)).min();
        tokio::select! {
            biased;
            () = context.liveness.interruptions() => {}
            () = until(due) => {}
        }
    }
}

/// Has the credentials of one watched namespace reconciled where its watch of Secrets turns out to fail, or to fail in
/// another way, or works again.
fn assess(context: &Context, watched: &WatchedNamespace, suspicion: &mut Suspicion, now: Instant) {
    let namespace = watched.namespace.as_deref();
    let path = PartialSecret::url_path(&(), namespace);
    let interruption = context.liveness.interruption(&path);
    let is_answer = interruption.as_ref().is_some_and(|interruption| interruption.is_answer);
    let answers = context.cluster.answers()
        || (is_answer && context.liveness.is_alone(&path))
        || context.liveness.fails_while_others_are_answered(&path, GRACE)
        || context.liveness.fails_while_requests_are_accepted(&path);
    match suspicion.observe(interruption.as_ref(), answers, now) {
        None => return,
        Some(Verdict::Fails(trouble)) => {
            tracing::warn!(namespace, "Secrets cannot be watched and are read: {}", trouble.message);
            let since = context.clock.now();
            let unwatched = Unwatched { since, read_from: since, failure: failure(&trouble) };
            watched.unwatched.send_replace(Some(Arc::new(unwatched)));
        }
        Some(Verdict::FailsOtherwise(trouble)) => {
            tracing::warn!(namespace, "Secrets cannot be watched for another reason: {}", trouble.message);
            // what was read since the first failure need not be read again
            watched.unwatched.send_modify(|unwatched| {
                if let Some(unwatched) = unwatched {
                    Arc::make_mut(unwatched).failure = failure(&trouble);
                }
            });
        }
        Some(Verdict::Works) => {
            tracing::info!(namespace, "Secrets are watched again");
            watched.unwatched.send_replace(None);
        }
    }
    watched.enqueue_all();
}

fn failure(trouble: &Trouble) -> Failure {
    messages::secrets_unwatched(&trouble.message, trouble.is_forbidden)
}
