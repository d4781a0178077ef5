//! The reads of one reconcile: which Secrets it reads and when, and what it notes of a read.

use std::time::Duration;

use futures::future::join_all;
use itwin_core::{
    action::Fetch,
    failure::Failure,
    last_held::LastHeld,
    messages,
    object::ObjectKey,
    observed::{Client, ObservedState},
    token::Content,
};

use super::{
    context::Context,
    fetched::{self, FetchedTarget},
    observation,
    reconciler::{Attempted, Reconciler},
    report::RESYNC_UNWATCHED,
};
use crate::{cluster::CallError, observe::watch::WATCH_SECONDS};

/// The resource whose watch shows Secrets.
const SECRETS: &str = "secrets";
/// The watch of Secrets is well where it worked within this: it is made again each minute, and a watch that shows nothing for
/// longer is given up.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);

impl Reconciler<'_> {
    /// Whether the Secrets are to be read where they are not watched: for a request that was admitted, for an attempt that
    /// is due, after an edit of the credential, and now and then. What only waits costs no call. What a watch showed just
    /// before it failed need not be read at once.
    pub(super) fn is_metadata_due(&self) -> bool {
        let renew_annotation = self.references.renew_annotation().map(String::as_str);
        let now = self.context.clock.now();
        let retries_now = self.retry_state.retries_now(now) && !self.context.authorities.requests.waits(self.key);
        let is_read = self.retry_state.has_metadata(renew_annotation, RESYNC_UNWATCHED, now);
        self.slot.is_some() || retries_now || !(is_read || self.shown_until(now).is_some())
    }

    /// Where Secrets are not watched, reads what a watch would have shown, unless the last reads failed and the next ones
    /// wait.
    pub(super) async fn fetch_secret_metadata(&mut self) {
        let Context { cluster, index, clock, .. } = self.context;
        let keys = [&self.references.target, &self.references.client].map(Clone::clone);
        let waits = self.retry_state.reads_not_before(clock.now());
        let due = [Fetch::Target, Fetch::Client].into_iter().zip(&keys).filter(|(what, _)| waits.of(*what).is_none());
        // at the same time: where both hang, that is known as soon as of one
        let reads = due.map(async |(what, key)| {
            index.invalidate(key);
            (what, fetched::read_metadata(cluster, index, key).await.map_err(|error| read_failed(key, &error)))
        });
        let results = join_all(reads).await;
        if results.len() == keys.len() && results.iter().all(|(_, result)| result.is_ok()) {
            self.retry_state.metadata_read(self.references.renew_annotation().map(String::as_str), clock.now());
        }
        for (what, result) in results {
            if let Err(failure) = &result {
                tracing::warn!(credential = %self.references.key, "{}", failure.message);
                self.outcome = Some(Attempted::Failed(failure.clone()));
            }
            let left = self.observe().left(clock.now());
            self.retry_state.read(what, result, left, &self.references.uid, clock.now());
        }
    }

    /// Reads what is missing. Where that fails, it is reported, and the next read of its kind waits.
    pub(super) async fn fetch(&mut self, what: Fetch, observed: &ObservedState) {
        let Context { cluster, index, clock, .. } = self.context;
        let result = match what {
            Fetch::Target if self.is_target_presumed_absent() => {
                self.fetched.target_is_presumed_absent = true;
                Ok(())
            }
            Fetch::Target => {
                let key = &self.references.target;
                fetched::read_metadata(cluster, index, key).await.map_err(|error| read_failed(key, &error))
            }
            Fetch::TargetData => self.read_target().await,
            Fetch::Client => self.read_client().await.map_err(|error| read_failed(&self.references.client, &error)),
        };
        let now = clock.now();
        if let Err(failure) = &result {
            tracing::warn!(credential = %self.references.key, "{}", failure.message);
            self.outcome = Some(Attempted::Failed(failure.clone()));
            if observed.is_asked_for(now) {
                self.retry_state.renewal_attempted(self.references.renew_annotation().map(String::as_str));
            }
        }
        self.retry_state.read(what, result, observed.left(now), &self.references.uid, now);
    }

    /// Reads the Secret to write, with its data. Where only the client Secret can show what it holds, and is not to be had,
    /// it stays unread.
    pub(super) async fn read_target(&mut self) -> Result<(), Failure> {
        let Context { cluster, index, .. } = self.context;
        let read = fetched::read_target(cluster, index, &self.references, self.retry_state.last_held()).await;
        let mut read = read.map_err(|error| read_failed(&self.references.target, &error))?;
        if let Some(read) = &mut read {
            self.retry_state.target_type_observed(&read.version, Some(&read.type_));
            if !read.is_token_intact {
                self.describe(read).await?;
            }
        }
        if let Some(read) = read.as_mut().filter(|read| read.is_ours) {
            self.retry_state.target_verified(read.version.clone());
            if let Some(held) = read.held.take() {
                self.retry_state.remember(held);
            }
        }
        // the client Secret may have been read first
        if let (Some(read), Some(client)) = (&read, &mut self.fetched.client) {
            client.same_as_held = read.is_of(&client.material);
            if client.same_as_held == Some(true) {
                self.retry_state.client_verified(client.version.clone());
            }
        }
        self.fetched.target = read;
        Ok(())
    }

    /// Finds out whether a token that seems to be tampered with is the one that was written, of which others removed
    /// annotations: after a start, nothing else is remembered of it. Without the client Secret, nothing is concluded.
    async fn describe(&mut self, read: &mut FetchedTarget) -> Result<(), Failure> {
        let is_known = self.retry_state.last_held().is_some_and(LastHeld::is_proof);
        let Some(undescribed) = read.undescribed.take().filter(|_| !is_known) else {
            self.retry_state.disprove(read.version.clone());
            return Ok(());
        };
        self.read_client_to_compare().await?;
        let changed = || read_failed(&self.references.client, &CallError::Conflict);
        let client = self.fetched.client.as_ref().ok_or_else(changed)?;
        let issued_at = self.retry_state.last_held().map(|last| last.token_metadata.issued_at);
        let client = (&client.material, &client.version);
        match undescribed.content(self.references.credential, client, issued_at) {
            Some(content) => {
                self.retry_state.remember(LastHeld::written(&content));
                read.describe(content);
            }
            None => self.retry_state.disprove(read.version.clone()),
        }
        Ok(())
    }

    /// Reads the client Secret, unless it was read or its last read failed and the next one waits. The failure says why it
    /// is not to be had.
    async fn read_client_to_compare(&mut self) -> Result<(), Failure> {
        match self.observe().client {
            Client::Usable { .. } => return Ok(()),
            Client::Unusable(failure) => return Err(failure),
            // an absence may be over
            Client::Missing | Client::Unread { .. } | Client::Verified { .. } => {}
        }
        if let Some(failure) = self.retry_state.read_that_waits(Fetch::Client, self.context.clock.now()) {
            return Err(failure.clone());
        }
        let read = self.read_client().await;
        read.map_err(|error| read_failed(&self.references.client, &error))?;
        match self.observe().client {
            Client::Usable { .. } => Ok(()),
            Client::Unusable(failure) => Err(failure),
            // it was changed since
            Client::Missing | Client::Unread { .. } | Client::Verified { .. } => {
                Err(read_failed(&self.references.client, &CallError::Conflict))
            }
        }
    }

    async fn read_client(&mut self) -> Result<(), CallError> {
        let Context { cluster, index, authorities, .. } = self.context;
        let authority = authorities.get(&self.references.credential.spec.authority_ref.name);
        // without an authority nothing is requested, and the method means nothing
        let method = authority.map(|authority| authority.config.client_authentication).unwrap_or_default();
        let held = (self.fetched.target.as_ref(), method);
        // in this order: an answer of the version that is asked for must not be older than what was known before
        let known = index.read_begins(&self.references.client);
        let known = (known, self.known_of_client());
        let read = fetched::read_client(cluster, index, &self.references, held, known).await?;
        if let Some(read) = read.as_ref().filter(|read| read.same_as_held == Some(true)) {
            self.retry_state.client_verified(read.version.clone());
        }
        if let Some(read) = &read {
            let digest = read.content.is_ok().then(|| read.material.digest(&self.references.uid));
            self.retry_state.client_read(read.version.clone(), digest);
            let is_same = |kept: &Content| read.material.fingerprint(&kept.token) == *kept.client_fingerprint;
            self.retry_state.unwritten_compared(&read.version, is_same);
        }
        self.retry_state.client_expiry_read(read.as_ref().and_then(|read| read.material.expires()));
        self.fetched.client_is_missing = read.is_none();
        self.fetched.client = read;
        Ok(())
    }

    /// Whether the Secret to write need not be read before the first token: nothing was ever reported of the credential, which
    /// was created while this process leads, and the watch is well and shows that there is no such Secret. The creation
    /// is refused if there is one after all.
    fn is_target_presumed_absent(&self) -> bool {
        observation::is_new(&self.references, &self.retry_state)
            && self.is_target_not_shown()
            && self.context.cluster.storage_answers()
            && self.is_watch_well()
    }

    /// Whether the watch still shows no Secret of the name of the one to write, and nothing else was learned of it.
    pub(super) fn is_target_not_shown(&self) -> bool {
        let Context { index, restores, .. } = self.context;
        index.is_presumed_absent(&self.references.target) && !restores.is_behind(SECRETS)
    }

    /// Whether each watch of Secrets worked lately and none failed since; false where they are not watched, or the one of
    /// this credential was reported to fail.
    fn is_watch_well(&self) -> bool {
        self.is_watched() && self.context.liveness.all_worked_within(SECRETS, SILENCE)
    }

    /// The version that the client Secret has at least, for a read of it from the watch cache of the API server; `None` where
    /// it is to be read as it is now. A cache that is late costs an attempt at most: it shows the change later, and what
    /// follows a failure is read again. A cache answers while the storage behind it is down, so that it is asked only where
    /// the storage lately answered: a token that cannot be written is not requested. Without a watch, nothing would
    /// show that the cluster was restored.
    fn known_of_client(&self) -> Option<u64> {
        let Context { cluster, index, restores, .. } = self.context;
        let was_read = self.fetched.client.is_some() || self.fetched.client_is_missing;
        // versions of before a restore may never come
        let is_certain = !was_read
            && !self.retry_state.is_retrying()
            && !restores.is_behind(SECRETS)
            && cluster.storage_answers()
            && self.is_watch_well();
        index.version_at_least(&self.references.client).filter(|_| is_certain)
    }
}

/// A Secret could not be read.
pub(super) fn read_failed(secret: &ObjectKey, error: &CallError) -> Failure {
    messages::secret_read_failed(&secret.to_string(), error, error.why())
}
