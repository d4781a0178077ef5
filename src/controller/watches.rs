//! The watches: credentials, authorities, and the metadata of Secrets. Each is a task of its own, so that a backoff
//! of one never holds up another (stackabletech/trino-operator#936).

use std::sync::Arc;

use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential};
use itwin_core::object::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::error_boundary::InvalidObject,
    runtime::{
        reflector::{ObjectRef, store::Writer},
        watcher::Event,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    context::Context, guarded::Guarded, invalid_objects::InvalidObjects, namespaces::WatchedNamespace,
    references::References,
};
use crate::observe::{
    index::SecretIndex,
    metadata::PartialSecret,
    target::SecretMetadata,
    watch::{WATCH_LIMIT, Watch, health::Health},
};

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Why a list is taken for one of a restored cluster: what the watch brought before cannot be newer otherwise.
const OLDER_OBJECT: &str = "a list with an older object";

/// The events of one watch. Each answer is a heartbeat, which the client records.
fn events<K>(api: Api<K>, resource: &'static str, context: &Context) -> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let path = api.resource_url();
    context.liveness.expect(path, WATCH_LIMIT);
    context.liveness.expect_watch(path, resource);
    let health = Health::new(path, resource, context.liveness.clone(), context.metrics.clone());
    Watch::new(api, resource, context.restores.clone(), health)
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

/// An event without an object that could not be decoded. Such an object is reported and concerns no other one, and where
/// an earlier version of it was decoded, that version is kept.
fn decoded<K>(
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

/// Watches the credentials of one watched namespace: keeps them, registers which Secrets each references, and enqueues it.
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
        let uid = credential.uid().unwrap_or_default();
        let (key, before) = watched.credentials.keep(credential);
        if let Some(gone) = before {
            forget(&context, &gone);
        }
        // also while it is being deleted: a finalizer may hold it until after its token has expired
        context.metrics.expect_credential(&key.namespace, &key.name, &uid);
        context.enqueue_credentials(context.index.register(&key, secrets.each_ref().map(String::as_str)));
        key
    };
    // a standby may have missed what the leader wrote for it, and so may a list
    let is_created = |credential: &ITwinServiceCredential| {
        credential.status.is_none() && context.cluster.fence.holds() && known(&credential.metadata).is_none()
    };
    let mut events = events(api, "itwinservicecredentials", &context);
    let mut incarnation = context.restores.incarnation();
    loop {
        let event = events.next().await;
        let event = decoded(event, &known, &context.invalid_objects, watched.namespace.as_deref());
        context.metrics.invalid_objects(context.invalid_objects.count());
        match event {
            None => {}
            // a list that failed after this page showed what the watch shows only now
            Some(Event::Apply(credential)) if watched.credentials.is_newer_than(&credential) => {}
            Some(Event::Apply(credential)) => {
                let created = is_created(&credential).then(|| References::new(&credential).target);
                let key = keep(credential);
                created.into_iter().for_each(|secret| context.index.credential_was_created(&secret));
                watched.work_queue.enqueue(key);
            }
            Some(Event::InitApply(credential)) => {
                if watched.credentials.is_newer_than(&credential) {
                    context.restores.notice(OLDER_OBJECT);
                }
                keep(credential);
            }
            Some(Event::Delete(credential)) => {
                let key = ObjectKey::new(credential.namespace().unwrap_or_default(), credential.name_any());
                watched.credentials.forget(&key);
                forget(&context, &credential);
            }
            Some(Event::Init) => {
                context.follow_restore();
                incarnation = context.restores.incarnation();
                watched.credentials.listing_began();
            }
            Some(Event::InitDone) => {
                for gone in watched.credentials.listing_ended(incarnation) {
                    forget(&context, &gone);
                }
                events.listed();
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

/// Watches the authorities: keeps their store and enqueues them.
pub async fn authorities(context: Arc<Context>, mut writer: Writer<ITwinAuthority>) {
    let api: Api<Guarded<ITwinAuthority>> = Api::all(context.cluster.client.clone());
    let store = &context.namespaces.authorities;
    let known = |metadata: &ObjectMeta| {
        let known = store.get(&ObjectRef::new(metadata.name.as_deref().unwrap_or_default()));
        known.map(|known| ITwinAuthority::clone(&known))
    };
    let mut events = events(api, "itwinauthorities", &context);
    loop {
        let event = events.next().await;
        let name = object_of(&event).and_then(|object| object.meta().name.clone()).unwrap_or_default();
        let event = decoded(event, &known, &context.invalid_objects, None);
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
                context.authorities.show();
                context.namespaces.authority_queue.enqueue(authority.name_any());
            }
            Event::InitApply(authority) => context.authorities.announce(&authority.name_any()),
            Event::Delete(authority) => forget(authority),
            Event::Init => context.follow_restore(),
            Event::InitDone => {
                let is_gone = |old: &ITwinAuthority| store.get(&ObjectRef::from_obj(old)).is_none();
                let mut gone: Vec<_> = before.into_iter().flatten().filter(|old| is_gone(old)).collect();
                // the store has an order of its own in each process
                gone.sort_by_key(|old| old.name_any());
                gone.iter().for_each(|old| forget(old));
                events.listed();
                context.authorities.show();
                context.namespaces.authorities_listed.send_replace(true);
                context.namespaces.enqueue_authorities();
                // credentials that name none of them wait, or report that it is not known; while watches fail, they go on
                // to report that
                if context.authorities.are_complete() {
                    context.namespaces.enqueue_users_of_none_of(|name| context.authorities.is_announced(name));
                }
            }
        }
    }
}

/// Watches the metadata of the Secrets of one watched namespace: that of a Secret that no credential references is dropped
/// immediately, and others enqueue their credentials. `listed` becomes true with the first complete list.
pub async fn secrets(context: Arc<Context>, watched: usize, listed: watch::Sender<bool>) {
    let namespace = context.namespaces.all[watched].namespace.clone();
    let api: Api<PartialSecret> = api(&context.cluster.client, namespace.as_deref());
    let mut events = events(api, "secrets", &context);
    loop {
        let event = events.next().await;
        let enqueued = match event {
            Event::Apply(secret) => shown(&context.index, &secret, SecretIndex::observe),
            Event::InitApply(secret) => shown(&context.index, &secret, SecretIndex::observe_listed),
            Event::Delete(secret) => {
                let key = ObjectKey::new(secret.namespace().unwrap_or_default(), secret.name_any());
                context.index.observe_absence(&key, secret.resource_version().as_deref())
            }
            Event::Init => {
                context.follow_restore();
                context.index.listing_began(namespace.as_deref());
                continue;
            }
            Event::InitDone => {
                events.listed();
                listed.send_replace(true);
                context.index.listing_ended(namespace.as_deref())
            }
        };
        for credential in enqueued {
            context.namespaces.enqueue(&credential);
        }
    }
}

/// Has the index `observe` a Secret, whose metadata is decoded only where a credential references it and this version of
/// it is not known. Returns the credentials to enqueue.
fn shown(
    index: &SecretIndex,
    secret: &PartialSecret,
    observe: impl FnOnce(&SecretIndex, &ObjectKey, SecretMetadata) -> Vec<Arc<ObjectKey>>,
) -> Vec<Arc<ObjectKey>> {
    let key = ObjectKey::new(secret.namespace().unwrap_or_default(), secret.name_any());
    let (uid, version) = (secret.uid(), secret.resource_version());
    if !index.is_shown(&key, version.as_deref()) {
        return Vec::new();
    }
    let known = index.observe_known(&key, uid.as_deref(), version.as_deref());
    known.unwrap_or_else(|| observe(index, &key, SecretMetadata::new(&secret.read())))
}

/// Voids what was concluded before the cluster was restored, each time that this is noticed. The watches list again by
/// themselves, after which every credential is reconciled.
pub async fn follow_restores(context: Arc<Context>) {
    let mut incarnation = context.restores.subscribe();
    loop {
        tokio::select! {
            biased;
            // the sender lives as long as the context
            _ = incarnation.changed() => context.follow_restore(),
            () = context.index.older_read() => context.restores.notice("a read of an older Secret"),
        }
    }
}
