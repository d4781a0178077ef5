//! When work begins: what is listed by now is acted upon, whatever else is not.

use std::{sync::Arc, time::Duration};

use itwin_api::authority::ITwinAuthority;
use kube::Resource;
use tokio::{sync::watch, time::Instant};

use crate::{
    controller::{authorities::LISTING, context::Context},
    liveness::{Liveness, Trouble},
    observe::metadata::PartialSecret,
};

/// How often the limit of the first list of authorities is checked.
const LATE_LIST_CHECK: Duration = Duration::from_millis(100);

/// After the first list of Secrets, a watch of them is waited for at most this long. One that is refused is reported by
/// then.
const OPENED: Duration = Duration::from_secs(10);

/// Waits for the first listing of each watch.
pub(super) async fn all_listed(context: Arc<Context>, mut listings: Vec<watch::Receiver<bool>>) {
    context.namespaces.listed().await;
    for listing in &mut listings {
        // an error says that the watch has ended, and with it the process
        let _ = listing.wait_for(|listed| *listed).await;
    }
}

/// The watches whose first listing is not complete, with how they fail.
pub(super) fn unlisted(liveness: &Liveness) -> Vec<String> {
    let why =
        |trouble: Option<Trouble>| trouble.map_or_else(|| "no response yet".to_owned(), |trouble| trouble.message);
    liveness.unlisted().into_iter().map(|(path, trouble)| format!("{path} ({})", why(trouble))).collect()
}

/// Acts for the credentials of each watched namespace once they are listed, and its Secrets too unless that takes long.
pub(super) async fn begin(context: Arc<Context>, listings: Vec<watch::Receiver<bool>>, limit: Instant) {
    let mut listings = listings.into_iter();
    let all = context.namespaces.all.iter().map(|watched| {
        let listing = listings.next();
        let context = &context;
        async move {
            watched.credentials.ready().await;
            // they are listed after the credentials that name them
            let limit = limit.max(Instant::now() + LISTING);
            if let Some(mut listing) = listing {
                // what cannot be listed is reported, and read meanwhile
                let mut unwatched = watched.unwatched.subscribe();
                let fails = async { drop(unwatched.wait_for(Option::is_some).await) };
                let path = PartialSecret::url_path(&(), watched.namespace.as_deref());
                let listed = async {
                    drop(listing.wait_for(|listed| *listed).await);
                    // what is listed and cannot be watched is reported before anything is said to be well, except for
                    // watches that are accepted and break
                    let _ = tokio::time::timeout(OPENED, context.liveness.opened(&path)).await;
                };
                let known = async {
                    tokio::select! {
                        biased;
                        () = listed => {}
                        () = fails => {}
                    }
                };
                if tokio::time::timeout_at(limit, known).await.is_err() {
                    tracing::warn!(
                        namespace = watched.namespace,
                        "the first listing of Secrets takes long; work begins without it"
                    );
                }
            }
            watched.read_from(context.clock.now());
            context.journal.leads(watched.credentials.keys().into_iter(), |key| watched.holds(key));
            watched.begin();
        }
    });
    futures::future::join_all(all).await;
    std::future::pending().await
}

/// Has every credential reconciled if the authorities are not listed in time, so that each says why it waits; and each time
/// that they are watched again after lists alone were not trusted, so that those that wait for one that does not exist say
/// that.
pub(super) async fn report_authorities(context: Arc<Context>) {
    let late = async {
        // the limit counts from when the watch began
        while context.authorities.may_be_listed_in_time() {
            tokio::time::sleep(LATE_LIST_CHECK).await;
        }
    };
    let enqueue = || context.namespaces.enqueue_users_of_none_of(|name| context.authorities.is_announced(name));
    tokio::select! {
        () = context.namespaces.authorities_listed() => {}
        () = late => enqueue(),
    }
    if let Some(mut recoveries) = context.liveness.recoveries(&ITwinAuthority::url_path(&(), None)) {
        // the sender lives as long as the context
        while recoveries.changed().await.is_ok() {
            enqueue();
        }
    }
    std::future::pending().await
}
