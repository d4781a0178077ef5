//! The watches: credentials, authorities, and the metadata of Secrets. Each is a task of its own, so that a back-off
//! of one never holds up another (stackabletech/trino-operator#936).

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, store::Writer},
        utils::Backoff,
        watcher::{self, Config, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::{reconcile::Context, scopes::Scope};
use crate::{
    api::{authority::ITwinAuthority, credential::ITwinServiceCredential},
    metrics::CredentialLabels,
    observe::{index::Key, target::Seen},
};

/// A watch is made anew after this, in seconds: load balancers drop silent connections without a word
/// (Azure/kars#456), and this bounds for how long that goes unnoticed.
const WATCH_SECONDS: u32 = 200;
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

/// The events of one watch for ever; errors are logged and waited out.
fn events<K>(api: Api<K>, what: &'static str) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher::watcher(api, Config::default().timeout(WATCH_SECONDS))
        .inspect_err(move |error| tracing::warn!(what, "watch failed, it is made again: {}", explain(error)))
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

/// An event without the objects that cannot be understood: they are told, and concern nobody else.
fn understood<K>(event: Event<DeserializeGuard<K>>, what: &'static str) -> Option<Event<K>> {
    let check = |guard: DeserializeGuard<K>| match guard.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            tracing::error!(
                what,
                namespace = invalid.metadata.namespace,
                name = invalid.metadata.name,
                "object cannot be understood and is left alone: apply it again with the CRDs of this version"
            );
            None
        }
    };
    match event {
        Event::Apply(object) => check(object).map(Event::Apply),
        Event::Delete(object) => check(object).map(Event::Delete),
        Event::InitApply(object) => check(object).map(Event::InitApply),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

/// Watches the credentials of one scope: keeps its store, says which Secrets each cares for, and wakes it.
pub async fn credentials(context: Arc<Context>, scope: usize, mut writer: Writer<ITwinServiceCredential>) {
    let scope: &Scope = &context.scopes.0[scope];
    let api: Api<DeserializeGuard<ITwinServiceCredential>> = api(&context.cluster.client, scope.namespace.as_deref());
    let mut events = std::pin::pin!(events(api, "itwinservicecredentials"));
    while let Some(event) = events.next().await {
        let Some(event) = understood(event, "itwinservicecredentials") else { continue };
        let event = event.modify(|credential| credential.managed_fields_mut().clear());
        let before = matches!(event, Event::InitDone).then(|| scope.store.state());
        writer.apply_watcher_event(&event);
        match &event {
            Event::Apply(credential) => {
                register(&context, credential);
                scope.wake(ObjectRef::from_obj(credential));
            }
            Event::InitApply(credential) => register(&context, credential),
            Event::Delete(credential) => forget(&context, credential),
            Event::Init => {}
            Event::InitDone => {
                for gone in before.into_iter().flatten().filter(|old| is_gone(scope, old)) {
                    forget(&context, &gone);
                }
                for credential in scope.store.state() {
                    scope.wake(ObjectRef::from_obj(&*credential));
                }
            }
        }
    }
}

fn is_gone(scope: &Scope, old: &ITwinServiceCredential) -> bool {
    scope.store.get(&ObjectRef::from_obj(old)).is_none_or(|new| new.uid() != old.uid())
}

fn register(context: &Context, credential: &ITwinServiceCredential) {
    let key = Key::new(credential.namespace().unwrap_or_default(), credential.name_any());
    context.index.register(&key, [credential.target_name(), &credential.spec.client_credentials_ref.name]);
}

fn forget(context: &Context, credential: &ITwinServiceCredential) {
    let key = Key::new(credential.namespace().unwrap_or_default(), credential.name_any());
    context.index.unregister(&key);
    drop(context.memories.take(&credential.uid().unwrap_or_default()));
    context.metrics.forget_credential(CredentialLabels {
        namespace: &key.namespace,
        name: &key.name,
        authority: &credential.spec.authority_ref.name,
    });
}

/// Watches the authorities: keeps their store and wakes them.
pub async fn authorities(
    context: Arc<Context>,
    mut writer: Writer<ITwinAuthority>,
    queue: UnboundedSender<ObjectRef<ITwinAuthority>>,
) {
    let api: Api<DeserializeGuard<ITwinAuthority>> = Api::all(context.cluster.client.clone());
    let store = writer.as_reader();
    let mut events = std::pin::pin!(events(api, "itwinauthorities"));
    while let Some(event) = events.next().await {
        let Some(event) = understood(event, "itwinauthorities") else { continue };
        let before = matches!(event, Event::InitDone).then(|| store.state());
        writer.apply_watcher_event(&event);
        let forget = |authority: &ITwinAuthority| {
            context.authorities.forget(&authority.name_any());
            context.scopes.wake_users_of(&authority.name_any());
        };
        match &event {
            Event::Apply(authority) => drop(queue.send(ObjectRef::from_obj(authority))),
            Event::Delete(authority) => forget(authority),
            Event::Init | Event::InitApply(_) => {}
            Event::InitDone => {
                for gone in before.into_iter().flatten().filter(|old| store.get(&ObjectRef::from_obj(&**old)).is_none())
                {
                    forget(&gone);
                }
                for authority in store.state() {
                    drop(queue.send(ObjectRef::from_obj(&*authority)));
                }
            }
        }
    }
}

/// Watches the metadata of the Secrets of one scope: what nobody cares for is dropped at once, what somebody cares for
/// wakes him. `listed` becomes true with the first complete listing.
pub async fn secrets(context: Arc<Context>, scope: usize, listed: watch::Sender<bool>) {
    let namespace = context.scopes.0[scope].namespace.clone();
    let api: Api<PartialObjectMeta<Secret>> = api(&context.cluster.client, namespace.as_deref());
    let mut events = std::pin::pin!(events(api, "secrets"));
    while let Some(event) = events.next().await {
        let woken = match event {
            Event::Apply(secret) | Event::InitApply(secret) => {
                let key = Key::new(secret.namespace().unwrap_or_default(), secret.name_any());
                if !context.index.cares_for(&key) {
                    continue;
                }
                context.index.saw(&key, Seen::new(&secret.metadata))
            }
            Event::Delete(secret) => {
                let key = Key::new(secret.namespace().unwrap_or_default(), secret.name_any());
                context.index.saw_none(&key, secret.metadata.resource_version.as_deref())
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
        for credential in woken {
            context.scopes.wake(&credential);
        }
    }
}
