//! One process of the operator: what it was told by its watches and what it remembers. All of it dies with it.

use std::{rc::Rc, sync::Arc, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::credential::ITwinServiceCredential;
use itwin_core::{
    observed,
    requests::{Now, RequestQueue},
    retry_state::RetryState,
};
use itwin_credential_operator::observe::{
    index::{Known, SecretIndex},
    target::SecretMetadata,
};
use kube::ResourceExt;

use crate::world::{CLIENT, NAME, World, key};

/// One process of the operator.
pub struct Process {
    pub number: usize,
    pub index: SecretIndex,
    /// The credential as the watch brought it last.
    pub credential: Rc<ITwinServiceCredential>,
    pub retry_state: Option<RetryState>,
    /// The authority as far as this process knows it, with a number that moves with it.
    pub authority: observed::Authority,
    pub revision: u32,
    /// The queue of the authority, in which nothing but this credential waits.
    pub queue: RequestQueue<()>,
    /// An instant of the monotonic and what the world's time was then.
    clock: (Instant, DateTime<Utc>),
    /// What `revision` was when an attempt failed last.
    pub failed_revision: Option<u32>,
    pub watches_secrets: bool,
    /// It lost the lease without noticing: no watch tells it anything any more.
    pub deposed: bool,
    /// Something happened that it must look at.
    pub enqueued: bool,
    /// When it looks again anyway, in the world's time: timers do not follow a clock that is set.
    pub wake_at: DateTime<Utc>,
    observed_secrets: usize,
    observed_credentials: usize,
    observed_authorities: usize,
}

impl Process {
    /// A process that has listed everything, and has not heard of the authority yet.
    pub fn start(number: usize, watches_secrets: bool, world: &World) -> Self {
        let mut process = Self {
            number,
            index: SecretIndex::default(),
            credential: world.credential.clone(),
            retry_state: None,
            authority: observed::Authority::Pending,
            revision: 0,
            queue: RequestQueue::new(8, 6000),
            clock: (Instant::now(), world.now),
            failed_revision: None,
            watches_secrets,
            deposed: false,
            enqueued: true,
            wake_at: world.now,
            observed_secrets: world.secrets.len(),
            observed_credentials: world.credentials.len(),
            observed_authorities: world.authorities.len() - 1,
        };
        process.index.register(&Arc::new(key(NAME)), [NAME, CLIENT]);
        process.list(world);
        process
    }

    /// The time on both clocks; only the wall clock is ever set.
    pub fn time(&self, world: &World) -> Now {
        let passed = (world.now - self.clock.1).to_std().unwrap_or_default();
        Now { wall: world.clock(), monotonic: self.clock.0 + passed }
    }

    /// The watch of Secrets begins anew with a listing, as after 410 Gone.
    pub fn list(&mut self, world: &World) {
        if !self.watches_secrets || self.deposed {
            return;
        }
        self.index.listing_began(None);
        for secret in [&world.target, &world.client].into_iter().flatten() {
            self.index.observe(&key(&secret.name_any()), SecretMetadata::new(&secret.metadata));
        }
        self.index.listing_ended(None);
        self.observed_secrets = world.secrets.len();
        self.enqueued = true;
    }

    /// Whether a watch has still to tell something.
    pub fn lags(&self, world: &World) -> bool {
        let secrets = !self.watches_secrets || self.observed_secrets < world.secrets.len();
        secrets || self.lags_behind_spec(world)
    }

    /// Whether the spec or the authority that it knows may be an old one.
    pub fn lags_behind_spec(&self, world: &World) -> bool {
        self.deposed
            || self.observed_credentials < world.credentials.len()
            || self.observed_authorities < world.authorities.len()
    }

    /// The watches tell all that happened.
    pub fn hear_all(&mut self, world: &World) {
        while !self.deposed && self.hear_one(world) {}
    }

    /// The watches tell one change each, the oldest. Returns whether there was any.
    pub fn hear_one(&mut self, world: &World) -> bool {
        let (secret, credential) = (self.hear_of_secret(world), self.hear_of_credential(world));
        self.hear_of_authority(world) || credential || secret
    }

    fn hear_of_secret(&mut self, world: &World) -> bool {
        let Some(change) = world.secrets.get(self.observed_secrets) else { return false };
        self.observed_secrets += 1;
        if self.watches_secrets {
            let enqueued = match &change.secret_metadata {
                Some(secret_metadata) => self.index.observe(&change.key, secret_metadata.clone()),
                None => self.index.observe_absence(&change.key, Some(&change.version.to_string())),
            };
            self.enqueued |= !enqueued.is_empty();
        }
        true
    }

    fn hear_of_credential(&mut self, world: &World) -> bool {
        let Some(credential) = world.credentials.get(self.observed_credentials) else { return false };
        self.observed_credentials += 1;
        if credential.uid() != self.credential.uid() {
            // deleted and created again under its name
            self.retry_state = None;
            self.index.unregister(&key(NAME));
            self.index.register(&Arc::new(key(NAME)), [NAME, CLIENT]);
        }
        self.credential = credential.clone();
        self.enqueued = true;
        true
    }

    fn hear_of_authority(&mut self, world: &World) -> bool {
        let Some(authority) = world.authorities.get(self.observed_authorities) else { return false };
        self.observed_authorities += 1;
        self.authority = authority.fact();
        self.revision += 1;
        self.enqueued = true;
        true
    }

    /// The version of the Secret to write that it knows.
    pub fn known_target(&self) -> Known {
        self.index.get(&key(NAME))
    }

    /// When it looks next.
    pub fn next_reconcile(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        if self.enqueued { now } else { self.wake_at.max(now) }
    }

    pub fn sleep(&mut self, now: DateTime<Utc>, wait: TimeDelta) {
        // heard while it looked: the queue holds it, and it looks again at once
        self.wake_at = now + wait;
    }
}
