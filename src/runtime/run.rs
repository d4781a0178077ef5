//! Puts the parts together and runs them until SIGTERM, or until one of them ends, which ends the process: a part
//! that is missing while the pod looks healthy is the worst of all failures.
//!
//! Every replica watches, so that the one that is elected can act at once; only that one reconciles anything.

use std::{sync::Arc, time::Duration};

use itwin_api::authority::ITwinAuthority;
use kube::{
    Client,
    runtime::reflector::{store, store::Writer},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::Instant};

use super::{
    admin::{self, Probes},
    beginning::{all_listed, begin, report_authorities, unlisted},
    loops::{self, Queues, queue},
    parts::Parts,
};
use crate::{
    clock::Clock,
    cluster::Cluster,
    config::args::RunArgs,
    controller::{
        authorities::Authorities,
        context::Context,
        invalid_objects::InvalidObjects,
        namespace_labels::NamespaceLabels,
        namespaces::{WatchedNamespace, WatchedNamespaces, WorkQueue},
        registry::Registry,
    },
    journal::Journal,
    leadership::{
        elector::{self, Elector},
        fence::LeadershipFence,
        lease::LeaseApi,
    },
    liveness::Liveness,
    metrics::Metrics,
    oauth::authority::Connect,
    observe::index::SecretIndex,
    report::publisher::Events,
    restores::Restores,
    workers::Workers,
};

/// What is listed by now is acted upon while the rest is not: one namespace that cannot be listed stops no other one.
const FIRST_LISTING: Duration = Duration::from_secs(3);
/// A first listing of Secrets that takes longer than this is not waited for: work begins, with a read for each.
const FIRST_LISTING_OF_SECRETS: Duration = Duration::from_secs(30);
/// What is being done when SIGTERM comes is finished within this; giving up the Lease takes at most 3 s more. The
/// contract gives 10 s for both.
const FINISH: Duration = Duration::from_secs(6);
/// Events that are left then are published within this, or not at all.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// What one replica of the operator is given: the process has the real things, a simulation its own.
pub struct Surroundings {
    /// The client of the Kubernetes API.
    pub client: Client,
    /// Where the calls of that client show that they go on.
    pub liveness: Arc<Liveness>,
    /// The clocks.
    pub clock: Clock,
    /// Makes what carries requests to authorization servers.
    pub connect: Connect,
    /// A name that no other replica has.
    pub identity: String,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where the probes and the metrics are served; a simulation has none.
    pub listener: Option<TcpListener>,
    /// Becomes true when the process must stop.
    pub stop: watch::Receiver<bool>,
}

/// Runs one replica of the operator in `surroundings`, until it is stopped.
///
/// # Errors
/// One line that says why it could not start, or which part of it ended.
pub async fn operate(args: RunArgs, surroundings: Surroundings) -> Result<(), String> {
    let started = Instant::now();
    let clock = surroundings.clock.clone();
    let fence = if args.leader_election { elector::fence(clock) } else { LeadershipFence::unlimited() };
    let Assembled { context, queues, authority_writer } = assemble(&args, &surroundings, fence.clone());
    let Surroundings { client, identity, listener, stop, .. } = surroundings;

    let (ready_sender, ready) = watch::channel(false);
    let mut parts = Parts { tasks: JoinSet::new(), stop };
    if let Some(listener) = listener {
        parts.start("the server of probes and metrics", admin::serve(listener, probes(&context, ready)));
    }
    parts.watch(&context, authority_writer);
    let listings = if args.watch_secrets { parts.watch_secrets(&context) } else { Vec::new() };
    let all_listed = all_listed(context.clone(), listings.clone());
    if first_listing(&mut parts, &context).await?.is_none() {
        return Ok(());
    }
    let (namespaces, leader_election) = (args.namespaces, args.leader_election);
    parts.start("the wait for the first listings", async move {
        all_listed.await;
        ready_sender.send_replace(true);
        tracing::info!(?namespaces, leader_election, "listings are complete");
        std::future::pending().await
    });

    let mut leader = None;
    if leader_election {
        let Context { own_namespace, metrics, clock, restores, .. } = &*context;
        let lease = LeaseApi::new(client, own_namespace, metrics.clone(), clock.clone(), restores.clone());
        let Some(elector) = elected(&mut parts, Elector::start(lease, identity, fence)).await? else {
            return Ok(());
        };
        leader = Some(elector);
    }
    context.metrics.leading(true);
    tracing::info!("this process acts");
    let mut loops = loops::start(&context, queues, &parts.stop);
    context.namespaces.begin_with_authorities();
    parts.start("the start of work", begin(context.clone(), listings, started + FIRST_LISTING_OF_SECRETS));
    parts.start("the wait for authorities", report_authorities(context.clone()));
    context.invalid_objects.leads();
    let ended = work(&mut parts, &mut loops, leader.as_mut(), &context).await;
    if ended.is_ok() {
        tracing::info!("stopping");
        finish(&mut loops, &context).await;
    }
    let unpublished = context.events.waiting();
    if unpublished > 0 {
        tracing::warn!(count = unpublished, "events are not published, since the process ends");
    }
    ended?;
    if let Some(leader) = leader {
        leader.step_down().await;
    }
    Ok(())
}

/// What the parts of a replica share, and what one of them takes.
struct Assembled {
    context: Arc<Context>,
    queues: Queues,
    authority_writer: Writer<ITwinAuthority>,
}

/// Puts together what the parts of a replica share. Nothing is called yet.
fn assemble(args: &RunArgs, surroundings: &Surroundings, fence: LeadershipFence) -> Assembled {
    let Surroundings { client, liveness, clock, connect, identity, metrics, .. } = surroundings;
    let cluster = Cluster::new(client.clone(), fence, metrics.clone());
    let (credential_queue, credential_receiver) = queue();
    let all = watched_namespaces(&args.namespaces).map(|namespace| {
        let work_queue = WorkQueue::new(credential_queue.clone());
        let unwatched = watch::Sender::new(None);
        WatchedNamespace { namespace, credentials: Registry::default(), work_queue, unwatched }
    });
    let all: Vec<WatchedNamespace> = all.collect();
    let (authority_store, authority_writer) = store::<ITwinAuthority>();
    let (authority_queue, authority_receiver) = queue();
    let invalid_objects: Arc<InvalidObjects> = Arc::default();
    let workers = Arc::new(Workers::new(args.concurrency.into()));
    let context = Arc::new(Context {
        own_namespace: args.lease_namespace.as_deref().unwrap_or(client.default_namespace()).to_owned(),
        restores: Arc::new(Restores::new(clock.clone())),
        events: Events::new(cluster.clone(), identity.clone(), clock.clone(), metrics.clone(), workers.clone()),
        metrics: metrics.clone(),
        authorities: Authorities::new(
            metrics.clone(),
            clock.clone(),
            connect.clone(),
            invalid_objects.clone(),
            liveness.clone(),
        ),
        index: SecretIndex::default(),
        namespaces: WatchedNamespaces {
            all,
            authorities: authority_store,
            authorities_listed: watch::Sender::new(false),
            authority_queue: WorkQueue::new(authority_queue),
        },
        kept_tokens: Arc::default(),
        namespace_labels: NamespaceLabels::default(),
        invalid_objects,
        liveness: liveness.clone(),
        journal: Journal::open(args.state_dir.as_deref(), metrics),
        watch_secrets: args.watch_secrets,
        workers,
        cluster,
        clock: clock.clone(),
    });
    let queues = Queues { credentials: credential_receiver, authorities: authority_receiver };
    Assembled { context, queues, authority_writer }
}

/// What the probes report from.
fn probes(context: &Context, ready: watch::Receiver<bool>) -> Probes {
    let Context { metrics, liveness, clock, .. } = context;
    Probes { metrics: metrics.clone(), liveness: liveness.clone(), ready, clock: clock.clone() }
}

/// Waits for the first listings, which are not waited for long; `None` where the process is stopped before that.
async fn first_listing(parts: &mut Parts, context: &Context) -> Result<Option<()>, String> {
    let listing = async { tokio::time::timeout(FIRST_LISTING, context.namespaces.listed()).await };
    let listed = parts.alongside(listing).await?;
    if let Some(Err(_)) = listed {
        tracing::warn!(unlisted = ?unlisted(&context.liveness), "work begins with what is listed");
    }
    Ok(listed.map(drop))
}

/// Waits until this replica leads; `None` where the process is stopped before that.
async fn elected(parts: &mut Parts, mut elector: Elector) -> Result<Option<Elector>, String> {
    let Some(elected) = parts.alongside(elector.elected()).await? else {
        elector.step_down().await;
        return Ok(None);
    };
    elected.map(|()| Some(elector))
}

/// Waits until the process is stopped. A part that ends, and leadership that is lost, are errors.
async fn work(
    parts: &mut Parts,
    loops: &mut JoinSet<&'static str>,
    leader: Option<&mut Elector>,
    context: &Context,
) -> Result<(), String> {
    let mut stop = parts.stop.clone();
    let lost = async {
        match leader {
            Some(leader) => leader.lost().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stopped| *stopped) => Ok(()),
        ended = parts.tasks.join_next() => parts.ended(ended),
        ended = loops.join_next() => parts.ended(ended),
        // nothing is finished: another replica may act by now
        why = lost => {
            context.journal.close();
            Err(format!("{why}; the process ends, so that nothing of it acts any more"))
        }
    }
}

/// Finishes what is being done when the process is stopped.
async fn finish(loops: &mut JoinSet<&'static str>, context: &Context) {
    context.events.end();
    let finished = async {
        while loops.join_next().await.is_some() {}
        // events that hang do not hold up who follows
        let _ = tokio::time::timeout(LAST_EVENTS, context.events.published()).await;
    };
    if tokio::time::timeout(FINISH, finished).await.is_err() {
        tracing::warn!("some work could not be finished in time; it is decided again at the next start");
    }
}

fn watched_namespaces(namespaces: &[String]) -> impl Iterator<Item = Option<String>> {
    let mut names: Vec<Option<String>> = namespaces.iter().cloned().map(Some).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push(None);
    }
    names.into_iter()
}
