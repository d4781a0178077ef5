//! The loops over credentials and authorities: their queues, and how they end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use kube::runtime::{
    applier,
    controller::{Action, Config},
    reflector::ObjectRef,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    api::{authority::ITwinAuthority, credential::ITwinServiceCredential},
    controller::{
        authorities,
        reconcile::{self, Context},
    },
    progress::Progress,
};

/// Authorities that are looked at, at the same time.
const AUTHORITY_CONCURRENCY: u16 = 8;
/// A loop shows this often that it takes work; it has no object of this name, so that nothing is done.
const SIGN_OF_LIFE: (&str, Duration) = ("sign-of-life", Duration::from_secs(10));
/// A loop that took no work for so long stands still.
const LIMIT: Duration = Duration::from_secs(120);

/// What is to be looked at.
pub type Queue<K> = mpsc::UnboundedReceiver<ObjectRef<K>>;

/// A queue of objects to look at. Without a bound, since a watch must never wait for the work that it causes; what
/// waits is one small reference for each event, and the scheduler behind it joins those of one object.
#[expect(clippy::disallowed_methods, reason = "the scheduler behind it drains it at once")]
pub fn queue<K: kube::Resource<DynamicType = ()>>() -> (mpsc::UnboundedSender<ObjectRef<K>>, Queue<K>) {
    mpsc::unbounded_channel()
}

/// The queues of all loops.
pub struct Queues {
    /// One for each scope.
    pub credentials: Vec<Queue<ITwinServiceCredential>>,
    /// The one of the authorities.
    pub authorities: Queue<ITwinAuthority>,
}

/// Starts the loops. They end with `stop`, and finish what they are doing.
pub fn start(
    context: &Arc<Context>,
    queues: Queues,
    concurrency: u16,
    stop: &watch::Receiver<bool>,
) -> JoinSet<&'static str> {
    let mut loops = JoinSet::new();
    for (scope, receiver) in queues.credentials.into_iter().enumerate() {
        let scope = &context.scopes.all[scope];
        let part = format!("the loop over credentials {}", scope.namespace.as_deref().unwrap_or_default());
        let work = applier(
            look_at_credential,
            |_, error: &Infallible, _| match *error {},
            context.clone(),
            scope.credentials.store.clone(),
            until_stopped(receiver, stop.clone(), context.progress.clone(), part),
            Config::default().concurrency(concurrency),
        );
        loops.spawn(async move {
            work.for_each(|_| std::future::ready(())).await;
            "the loop over credentials"
        });
    }
    let part = "the loop over authorities".to_owned();
    let work = applier(
        look_at_authority,
        |_, error: &Infallible, _| match *error {},
        context.clone(),
        context.scopes.authorities.store.clone(),
        until_stopped(queues.authorities, stop.clone(), context.progress.clone(), part),
        Config::default().concurrency(AUTHORITY_CONCURRENCY),
    );
    loops.spawn(async move {
        work.for_each(|_| std::future::ready(())).await;
        "the loop over authorities"
    });
    loops
}

/// The queue of a loop; it ends with the signal, and the loop then finishes what it is doing. Whenever the loop takes
/// from it, that counts as progress.
fn until_stopped<K: kube::Resource<DynamicType = ()> + Send + 'static>(
    receiver: Queue<K>,
    mut stop: watch::Receiver<bool>,
    progress: Arc<Progress>,
    part: String,
) -> impl Stream<Item = Result<ObjectRef<K>, Infallible>> + Send {
    progress.expect(&part, LIMIT);
    let objects = stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|object| (object, receiver)));
    let signs = stream::unfold(tokio::time::interval(SIGN_OF_LIFE.1), async |mut interval| {
        interval.tick().await;
        Some((ObjectRef::new(SIGN_OF_LIFE.0), interval))
    });
    let stopped = Box::pin(async move {
        let _ = stop.wait_for(|stopped| *stopped).await;
    });
    let taken = stream::select(objects, signs).take_until(stopped);
    taken.inspect(move |_| progress.moved(&part)).map(Ok)
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
