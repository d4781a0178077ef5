//! The watches: credentials, authorities, and the metadata of Secrets. Each is a task of its own, so that a back-off
//! of one never holds up another (stackabletech/trino-operator#936).

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use itwin_core::object::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{Status, error_boundary::InvalidObject},
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, store::Writer},
        utils::Backoff,
        watcher::{self, Config, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{context::Context, guarded::Guarded, invalid_objects::InvalidObjects, namespaces::WatchedNamespace};
use crate::{
    cluster::CallError,
    observe::{metadata::PartialSecret, target::SecretMetadata},
};

/// A watch ends and goes on anew after this, in seconds: load balancers drop silent connections without a word
/// (Azure/kars#456), and a connection that brings nothing for longer is known to be dead.
pub const WATCH_SECONDS: u32 = 60;
/// A watch that was neither answered nor failed for so long has died without a word.
pub const WATCH_LIMIT: Duration = Duration::from_secs(180);
/// Objects of one page of a list, of which the client makes fewer where they are fat ([`crate::runtime::client`]).
const PAGE: u32 = 100;
/// Waits between attempts to watch: from a blink to 10 s, less than the time in which faults must be told.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

struct Doubling(Duration);

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (self.0 * 2).min(RETRY.1);
        Some(wait)
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.0 = RETRY.0;
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The events of one watch, indefinitely; errors are logged, counted and waited out. The client records heartbeats for
/// its requests.
fn events<K>(api: Api<K>, what: &'static str, context: &Context) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let path = api.resource_url().to_owned();
    let (liveness, metrics) = (context.liveness.clone(), context.metrics.clone());
    liveness.expect(&path, WATCH_LIMIT);
    liveness.expect_watch(&path, what);
    watcher::watcher(api, Config::default().timeout(WATCH_SECONDS).page_size(PAGE))
        .inspect_ok(move |event| {
            // the first event of a list comes before the API server has answered
            if !matches!(event, Event::Init) {
                liveness.sign_of_life(&path);
            }
        })
        .inspect_err(move |error| {
            tracing::warn!(what, "watch failed, it is made again: {}", explain(error));
            let (verb, result) = failed(error);
            metrics.kubernetes_request(verb, what, result);
        })
        .backoff(Doubling(RETRY.0))
        .filter_map(|event| std::future::ready(event.ok()))
}

/// The error without the content of objects.
fn explain(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => format!("HTTP {}: {}", status.code, status.message),
        watcher::Error::WatchError(status) => format!("{}: {}", status.code, status.message),
        _ => "no connection, or no readable answer".to_owned(),
    }
}

/// Which request of a watch failed, and how, as labels of the metric.
fn failed(error: &watcher::Error) -> (&'static str, &'static str) {
    let label = |status: &Status| match status.code {
        // the API server no longer has the events since the last one, and all objects are listed again
        410 => "expired",
        _ => CallError::from(kube::Error::Api(Box::new(status.clone()))).label(),
    };
    let of_call = |error: &kube::Error| match error {
        kube::Error::Api(status) => label(status),
        _ => CallError::Transport.label(),
    };
    match error {
        watcher::Error::InitialListFailed(error) => ("list", of_call(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => ("watch", of_call(error)),
        watcher::Error::WatchError(status) => ("watch", label(status)),
        watcher::Error::NoResourceVersion => ("list", CallError::Transport.label()),
    }
}

/// The event with its object, of which it held the text.
fn opened<K: Resource + DeserializeOwned>(event: Event<Guarded<K>>) -> Event<Result<K, InvalidObject>> {
    match event {
        Event::Apply(object) => Event::Apply(object.open()),
        Event::Delete(object) => Event::Delete(object.open()),
        Event::InitApply(object) => Event::InitApply(object.open()),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

/// The object that an event is about.
fn object_of<K>(event: &Event<K>) -> Option<&K> {
    match event {
        Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) => Some(object),
        Event::Init | Event::InitDone => None,
    }
}

/// An event without what this version cannot understand. Such an object concerns nobody else, is told, and as long as
/// it was understood before, that version of it stands.
fn understood<K>(
    event: Event<Guarded<K>>,
    known: &dyn Fn(&ObjectMeta) -> Option<K>,
    invalid_objects: &InvalidObjects,
    watched: Option<&str>,
) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned,
{
    let before =
        |invalid: &InvalidObject| known(&invalid.metadata).filter(|known| known.meta().uid == invalid.metadata.uid);
    match opened(event) {
        Event::Apply(Ok(object)) => {
            invalid_objects.forget::<K>(object.meta());
            Some(Event::Apply(object))
        }
        Event::Apply(Err(invalid)) => {
            invalid_objects.add::<K>(invalid);
            None
        }
        Event::InitApply(Ok(object)) => {
            invalid_objects.forget::<K>(object.meta());
            Some(Event::InitApply(object))
        }
        Event::InitApply(Err(invalid)) => {
            let before = before(&invalid);
            invalid_objects.add::<K>(invalid);
            before.map(Event::InitApply)
        }
        Event::Delete(Ok(object)) => {
            invalid_objects.forget::<K>(object.meta());
            Some(Event::Delete(object))
        }
        Event::Delete(Err(invalid)) => {
            invalid_objects.forget::<K>(&invalid.metadata);
            before(&invalid).map(Event::Delete)
        }
        Event::Init => {
            invalid_objects.listing_began::<K>(watched);
            Some(Event::Init)
        }
        Event::InitDone => {
            invalid_objects.listing_ended::<K>(watched);
            Some(Event::InitDone)
        }
    }
}

/// Watches the credentials of one watched: keeps them, says which Secrets each cares for, and wakes it.
pub async fn credentials(context: Arc<Context>, watched: usize) {
    let watched: &WatchedNamespace = &context.namespaces.all[watched];
    let api: Api<Guarded<ITwinServiceCredential>> = api(&context.cluster.client, watched.namespace.as_deref());
    let known = |metadata: &ObjectMeta| {
        watched.credentials.get(&ObjectKey::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        ))
    };
    let keep = |credential: ITwinServiceCredential| {
        let secrets = [credential.target_name().to_owned(), credential.spec.client_credentials_ref.name.clone()];
        let series = (credential.uid().unwrap_or_default(), credential.metadata.deletion_timestamp.is_some());
        let (key, before) = watched.credentials.keep(credential);
        if let Some(gone) = before {
            forget(&context, &gone);
        }
        match series {
            (uid, false) => context.metrics.expect_credential(&key.namespace, &key.name, &uid),
            (uid, true) => context.metrics.forget_credential(&key.namespace, &key.name, &uid),
        }
        context.enqueue_credentials(context.index.register(&key, secrets.each_ref().map(String::as_str)));
        key
    };
    let mut events = std::pin::pin!(events(api, "itwinservicecredentials", &context));
    while let Some(event) = events.next().await {
        let event = understood(event, &known, &context.invalid_objects, watched.namespace.as_deref());
        context.metrics.invalid_objects(context.invalid_objects.count());
        match event {
            None => {}
            Some(Event::Apply(credential)) => watched.work_queue.enqueue(keep(credential)),
            Some(Event::InitApply(credential)) => drop(keep(credential)),
            Some(Event::Delete(credential)) => {
                let key = ObjectKey::new(credential.namespace().unwrap_or_default(), credential.name_any());
                watched.credentials.forget(&key);
                forget(&context, &credential);
            }
            Some(Event::Init) => watched.credentials.listing_began(),
            Some(Event::InitDone) => {
                for gone in watched.credentials.listing_ended() {
                    forget(&context, &gone);
                }
                watched.enqueue_all();
            }
        }
    }
}

/// Forgets what was known around a credential that is gone.
fn forget(context: &Context, credential: &ITwinServiceCredential) {
    let key = ObjectKey::new(credential.namespace().unwrap_or_default(), credential.name_any());
    context.enqueue_credentials(context.index.unregister(&key));
    context.authorities.requests.forget_credential(&key);
    context.metrics.forget_credential(&key.namespace, &key.name, &credential.uid().unwrap_or_default());
}

/// Watches the authorities: keeps their store and wakes them.
pub async fn authorities(context: Arc<Context>, mut writer: Writer<ITwinAuthority>) {
    let api: Api<Guarded<ITwinAuthority>> = Api::all(context.cluster.client.clone());
    let store = &context.namespaces.authorities;
    let known = |metadata: &ObjectMeta| {
        let known = store.get(&ObjectRef::new(metadata.name.as_deref().unwrap_or_default()));
        known.map(|known| ITwinAuthority::clone(&known))
    };
    let mut events = std::pin::pin!(events(api, "itwinauthorities", &context));
    while let Some(event) = events.next().await {
        let name = object_of(&event).and_then(|object| object.meta().name.clone()).unwrap_or_default();
        let event = understood(event, &known, &context.invalid_objects, None);
        context.metrics.invalid_objects(context.invalid_objects.count());
        let Some(event) = event else {
            // credentials report why they cannot use it
            context.namespaces.enqueue_users_of(&name);
            continue;
        };
        let before = matches!(event, Event::InitDone).then(|| store.state());
        writer.apply_watcher_event(&event);
        let forget = |authority: &ITwinAuthority| {
            context.authorities.forget(&authority.name_any());
            context.namespaces.enqueue_users_of(&authority.name_any());
        };
        match &event {
            Event::Apply(authority) => {
                context.authorities.announce(&authority.name_any());
                context.namespaces.authority_queue.enqueue(authority.name_any());
            }
            Event::InitApply(authority) => context.authorities.announce(&authority.name_any()),
            Event::Delete(authority) => forget(authority),
            Event::Init => {}
            Event::InitDone => {
                let is_gone = |old: &ITwinAuthority| store.get(&ObjectRef::from_obj(old)).is_none();
                for gone in before.into_iter().flatten().filter(|old| is_gone(old)) {
                    forget(&gone);
                }
                context.namespaces.enqueue_authorities();
            }
        }
    }
}

/// Watches the metadata of the Secrets of one watched: what nobody cares for is dropped at once, what somebody cares for
/// wakes him. `listed` becomes true with the first complete listing.
pub async fn secrets(context: Arc<Context>, watched: usize, listed: watch::Sender<bool>) {
    let namespace = context.namespaces.all[watched].namespace.clone();
    let api: Api<PartialSecret> = api(&context.cluster.client, namespace.as_deref());
    let mut events = std::pin::pin!(events(api, "secrets", &context));
    while let Some(event) = events.next().await {
        let enqueued = match event {
            Event::Apply(secret) | Event::InitApply(secret) => {
                let key = ObjectKey::new(secret.namespace().unwrap_or_default(), secret.name_any());
                if !context.index.is_referenced(&key) {
                    continue;
                }
                context.index.observe(&key, SecretMetadata::new(&secret.read()))
            }
            Event::Delete(secret) => {
                let key = ObjectKey::new(secret.namespace().unwrap_or_default(), secret.name_any());
                context.index.observe_absence(&key, secret.resource_version().as_deref())
            }
            Event::Init => {
                context.index.listing_began(namespace.as_deref());
                continue;
            }
            Event::InitDone => {
                listed.send_replace(true);
                context.index.listing_ended(namespace.as_deref())
            }
        };
        for credential in enqueued {
            context.namespaces.enqueue(&credential);
        }
    }
}
