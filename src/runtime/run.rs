//! Puts the parts together and runs them until SIGTERM, or until one of them ends, which ends the process: a part
//! that is missing while the pod looks healthy is the worst of all failures.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use kube::runtime::{
    applier,
    controller::{Action, Config},
    reflector::{ObjectRef, store},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    admin::{self, Probes},
    client,
};
use crate::{
    api::{authority::ITwinAuthority, credential::ITwinServiceCredential},
    cluster::Cluster,
    config::args::RunArgs,
    controller::{
        authorities::{self, Authorities},
        memory::Memories,
        reconcile::{self, Context},
        scopes::{Scope, Scopes},
        watches,
    },
    metrics::Metrics,
    observe::index::SecretIndex,
    report::events::Events,
};

/// A first listing of Secrets that takes longer than this is not waited for: work begins, with a read for each.
const FIRST_LISTING: Duration = Duration::from_secs(30);
/// What is being done when SIGTERM comes is finished within this: two calls to the API. The contract gives 10 s.
const FINISH: Duration = Duration::from_secs(9);
/// Authorities that are looked at, at the same time.
const AUTHORITY_CONCURRENCY: u16 = 8;

/// Runs the operator.
///
/// # Errors
/// One line that says why it could not start, or which part of it ended.
pub async fn run(args: RunArgs) -> Result<(), String> {
    let metrics = Arc::new(Metrics::new(args.per_credential_metrics).map_err(|error| error.to_string())?);
    let listener = admin::bind(args.metrics_address).await?;
    let cluster = Cluster::new(client::client().await?, metrics.clone());
    let mut stop = stop_signal()?;
    let stopped = stop.clone();

    let mut writers = Vec::new();
    let mut queues = Vec::new();
    let scopes = Scopes(
        scope_names(&args.namespaces)
            .map(|namespace| {
                let (store, writer) = store();
                let (queue, receiver) = queue();
                writers.push(writer);
                queues.push(receiver);
                Scope { namespace, store, queue }
            })
            .collect(),
    );
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "itwin-credential-operator".to_owned());
    let context = Arc::new(Context {
        events: Events::new(cluster.clone(), instance),
        metrics: metrics.clone(),
        authorities: Authorities::new(metrics.clone()),
        index: SecretIndex::default(),
        memories: Memories::default(),
        scopes,
        watch_secrets: args.watch_secrets,
        cluster,
    });

    let (ready_sender, ready) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut part = |name: &'static str, task: BoxFuture<'static, ()>| {
        tasks.spawn(async move {
            task.await;
            name
        });
    };
    part(
        "the server of probes and metrics",
        Box::pin(admin::serve(listener, Probes { metrics: metrics.clone(), ready })),
    );
    for (scope, writer) in writers.into_iter().enumerate() {
        part("the watch of credentials", Box::pin(watches::credentials(context.clone(), scope, writer)));
    }
    let (authority_store, authority_writer) = store::<ITwinAuthority>();
    let (authority_queue, authority_receiver) = queue();
    part(
        "the watch of authorities",
        Box::pin(watches::authorities(context.clone(), authority_writer, authority_queue)),
    );
    part(
        "the loop over authorities",
        Box::pin(
            applier(
                look_at_authority,
                |_, error: &Infallible, _| match *error {},
                context.clone(),
                authority_store.clone(),
                until_stopped(authority_receiver, stop.clone()),
                Config::default().concurrency(AUTHORITY_CONCURRENCY),
            )
            .for_each(|_| std::future::ready(())),
        ),
    );

    // Secrets are listed only once it is known who cares for which: the others are forgotten as they come.
    let prepare = async {
        context.scopes.ready().await;
        let _ = authority_store.wait_until_ready().await;
    };
    tokio::select! {
        () = prepare => {}
        _ = stop.wait_for(|stopped| *stopped) => return Ok(()),
        ended = tasks.join_next() => return unless_stopped(&stopped, what_ended(ended)),
    }
    if args.watch_secrets {
        let mut listings = Vec::new();
        for scope in 0..context.scopes.0.len() {
            let (listed, listing) = watch::channel(false);
            listings.push(listing);
            let task = watches::secrets(context.clone(), scope, listed);
            tasks.spawn(async move {
                task.await;
                "the watch of Secrets"
            });
        }
        let all_listed = async {
            for listing in &mut listings {
                let _ = listing.wait_for(|listed| *listed).await;
            }
        };
        tokio::select! {
            result = tokio::time::timeout(FIRST_LISTING, all_listed) => if result.is_err() {
                tracing::warn!("the first listing of Secrets takes long; work begins without it");
            },
            _ = stop.wait_for(|stopped| *stopped) => return Ok(()),
            ended = tasks.join_next() => return unless_stopped(&stopped, what_ended(ended)),
        }
    }
    ready_sender.send_replace(true);
    metrics.leading(true);
    tracing::info!(namespaces = ?args.namespaces, "started");

    let mut loops = JoinSet::new();
    for (scope, receiver) in queues.into_iter().enumerate() {
        let work = applier(
            look_at_credential,
            |_, error: &Infallible, _| match *error {},
            context.clone(),
            context.scopes.0[scope].store.clone(),
            until_stopped(receiver, stop.clone()),
            Config::default().concurrency(args.concurrency),
        );
        loops.spawn(work.for_each(|_| std::future::ready(())));
    }
    let ended = tokio::select! {
        _ = stop.wait_for(|stopped| *stopped) => None,
        ended = tasks.join_next() => Some(what_ended(ended)),
        ended = loops.join_next() => Some(what_ended(ended.map(|result| result.map(|()| "the loop over credentials")))),
    };
    if let Some(ended) = ended {
        unless_stopped(&stopped, ended)?;
    }
    tracing::info!("stopping");
    let finished = async { while loops.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, finished).await.is_err() {
        tracing::warn!("some work could not be finished in time; it is decided anew at the next start");
    }
    Ok(())
}

fn scope_names(namespaces: &[String]) -> impl Iterator<Item = Option<String>> {
    let mut names: Vec<Option<String>> = namespaces.iter().cloned().map(Some).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push(None);
    }
    names.into_iter()
}

fn what_ended(ended: Option<Result<&'static str, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(name)) => format!("{name} ended; the process ends with it"),
        Some(Err(error)) if error.is_panic() => "a part of the process panicked; the process ends with it".to_owned(),
        _ => "a part of the process ended; the process ends with it".to_owned(),
    }
}

/// The signal ends the loops too, and their end may be seen before it: then nothing is wrong.
fn unless_stopped(stopped: &watch::Receiver<bool>, ended: String) -> Result<(), String> {
    if *stopped.borrow() { Ok(()) } else { Err(ended) }
}

/// Becomes true with SIGTERM or SIGINT. The handlers are there before any work begins.
fn stop_signal() -> Result<watch::Receiver<bool>, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals cannot be handled: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        sender.send_replace(true);
        // kept so that receivers never see the channel closed
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

/// A queue of objects to look at. Without a bound, since a watch must never wait for the work that it causes; what
/// waits is one small reference for each event, and the scheduler behind it joins those of one object.
#[expect(clippy::disallowed_methods, reason = "the scheduler behind it drains it at once")]
fn queue<K: kube::Resource<DynamicType = ()>>()
-> (mpsc::UnboundedSender<ObjectRef<K>>, mpsc::UnboundedReceiver<ObjectRef<K>>) {
    mpsc::unbounded_channel()
}

/// The queue of a loop; it ends with the signal, and the loop then finishes what it is doing.
fn until_stopped<K: kube::Resource<DynamicType = ()> + Send + 'static>(
    receiver: mpsc::UnboundedReceiver<ObjectRef<K>>,
    mut stop: watch::Receiver<bool>,
) -> impl Stream<Item = Result<ObjectRef<K>, Infallible>> + Send {
    let queue =
        stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|object| (Ok(object), receiver)));
    queue.take_until(Box::pin(async move {
        let _ = stop.wait_for(|stopped| *stopped).await;
    }))
}

fn look_at_credential(
    credential: Arc<ITwinServiceCredential>,
    context: Arc<Context>,
) -> BoxFuture<'static, Result<Action, Infallible>> {
    Box::pin(reconcile::reconcile(credential, context))
}

fn look_at_authority(
    authority: Arc<ITwinAuthority>,
    context: Arc<Context>,
) -> BoxFuture<'static, Result<Action, Infallible>> {
    Box::pin(async move {
        Ok(authorities::reconcile(&authority, &context.authorities, &context.cluster, &context.scopes).await)
    })
}
