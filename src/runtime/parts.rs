//! The tasks that a replica consists of: the end of any of them ends the process.

use std::sync::Arc;

use itwin_api::authority::ITwinAuthority;
use kube::runtime::reflector::store::Writer;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use crate::controller::{context::Context, secret_watches, watches};

/// The tasks that must not end before the process does.
pub(super) struct Parts {
    pub(super) tasks: JoinSet<&'static str>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Parts {
    pub(super) fn start(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits for `work` while the parts run; `None` where the signal came first.
    pub(super) async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, String> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            result = work => Ok(Some(result)),
            _ = stop.wait_for(|stopped| *stopped) => Ok(None),
            ended = self.tasks.join_next() => self.ended(ended).map(|()| None),
        }
    }

    /// Starts the watches of credentials and authorities, and what reports what they bring.
    pub(super) fn watch(&mut self, context: &Arc<Context>, authority_writer: Writer<ITwinAuthority>) {
        self.start("the watch for restores of the cluster", watches::follow_restores(context.clone()));
        for watched in 0..context.namespaces.all.len() {
            self.start("the watch of credentials", watches::credentials(context.clone(), watched));
        }
        self.start("the watch of authorities", watches::authorities(context.clone(), authority_writer));
        let publisher = context.clone();
        self.start("the publisher of events", async move { match publisher.events.run().await {} });
        let reporter = context.clone();
        self.start("the reporter of invalid objects", async move {
            reporter.invalid_objects.report(&reporter.events, &reporter.cluster.fence).await;
        });
    }

    /// Starts the watches of Secrets. Each returned channel holds `true` after the first listing of one of them. Secrets are
    /// listed only once it is known which of them credentials reference: the others are dropped as they come. A task of
    /// its own reports those that fail.
    pub(super) fn watch_secrets(&mut self, context: &Arc<Context>) -> Vec<watch::Receiver<bool>> {
        self.start("the report of watches of Secrets", secret_watches::follow(context.clone()));
        let watches = 0..context.namespaces.all.len();
        watches
            .map(|watched| {
                let (listed, listing) = watch::channel(false);
                let context = context.clone();
                self.start("the watch of Secrets", async move {
                    context.namespaces.all[watched].credentials.ready().await;
                    watches::secrets(context, watched, listed).await;
                });
                listing
            })
            .collect()
    }

    /// A part has ended. The signal ends them too, and that may be seen before the signal is: then nothing is wrong.
    pub(super) fn ended(&self, ended: Option<Result<&'static str, JoinError>>) -> Result<(), String> {
        if *self.stop.borrow() {
            return Ok(());
        }
        Err(match ended {
            Some(Ok(name)) => format!("{name} ended; the process ends with it"),
            Some(Err(error)) if error.is_panic() => {
                "a part of the process panicked; the process ends with it".to_owned()
            }
            _ => "a part of the process ended; the process ends with it".to_owned(),
        })
    }
}
