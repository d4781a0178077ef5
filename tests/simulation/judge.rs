//! The invariants. The judge knows what is true, and works out by its own arithmetic what was needed.
//!
//! What is allowed beyond the letter, and why:
//! - A process acts on what it was told. Where its watch lags, a need counts that was real in the state that it knows;
//!   the guard of the write is what protects the Secret then, and that is checked on the true state.
//! - A token that was asked for and lost with its process is asked for again: nobody else knows it.
//! - A renewal on request is served twice where the process was killed after writing the Secret and before telling so
//!   in the status: nothing else remembers the request, and serving it twice is better than not at all.
//! - Two operators at once may serve one request each.
//! - A deposed process that does not know yet that its credential was deleted and made again takes the Secret of the
//!   new one for what a deleted credential left: names alone do not tell which of the two is gone.
//! - What a clock that is wrong makes of an expiry is tolerated up to the error of that clock.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{conditions::READY, credential::ITwinServiceCredential};
use itwin_core::{
    fingerprint,
    observed::{Policy, RenewBefore, TokenMetadata},
    retry_key::RetryKey,
    retry_state::RetryState,
    status,
};
use itwin_credential_operator::observe::{index::Known, target::SecretMetadata};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use crate::{process::Process, world::World};

/// At most this many looks in a row, by the timer alone, within a second.
const RECONCILES_IN_A_SECOND: usize = 8;

/// How a look went: when it began, that only a timer asked for it, and that nothing went wrong on the way.
pub type Manner = (DateTime<Utc>, bool, bool);

/// What an attempt depended on: the process, the credential by its UID, its retry key and the revision of the authority.
pub type Situation = (usize, String, RetryKey, u32);

/// Watches over one history.
#[derive(Default)]
pub struct Judge {
    /// The first violation.
    pub violation: Option<String>,
    /// Token requests, by what they were needed for.
    pub requests: HashMap<&'static str, usize>,
    pub writes: usize,
    pub reconciles: usize,
    /// What the server asked for at the last failure.
    pub retry_after: Option<TimeDelta>,
    /// Until when the server asked all its clients to wait, whatever failed since.
    pub asked_to_wait_until: Option<DateTime<Utc>>,
    /// Where an attempt ended at the breaker, while no request was sent since.
    pub paused: Option<Situation>,
    /// Values of the renew annotation that got a token, by the credential's UID, with the process that wrote it.
    served: HashMap<(String, String), usize>,
    last_request: HashMap<(usize, String), (DateTime<Utc>, TimeDelta)>,
    by_timer: Vec<DateTime<Utc>>,
}

impl Judge {
    /// Notes a violation; the first one counts.
    pub fn blame(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert(what.into());
    }

    pub fn request_count(&self) -> usize {
        self.requests.values().sum()
    }

    /// A process wrote a token when the credential of this UID had this value of the renew annotation.
    pub fn served(&mut self, process: usize, uid: &str, request: &str) {
        self.served.entry((uid.to_owned(), request.to_owned())).or_insert(process);
    }

    pub fn failed(&mut self, now: DateTime<Utc>, retry_after: Option<TimeDelta>) {
        // whatever is reported in between is news
        self.paused = None;
        self.retry_after = retry_after;
        let until = retry_after.map(|wait| now + wait.min(TimeDelta::hours(1)));
        self.asked_to_wait_until = self.asked_to_wait_until.max(until);
    }

    /// An attempt ended before a request was sent, since the authority fails again and again. To tell so again and again
    /// would be a storm of writes.
    pub fn was_paused(&mut self, situation: Situation, is_asked_for: bool) {
        if self.paused.as_ref() == Some(&situation) && !is_asked_for {
            self.blame("(8) one outage is told twice");
        }
        self.paused = Some(situation);
    }

    /// A token is about to be asked for with this content of the client Secret.
    pub fn asked(&mut self, world: &World, process: &Process, credential: &ITwinServiceCredential, client: &str) {
        // as the look saw it when it began: what is suspended while a request is under way is not asked again
        if credential.spec.suspend {
            self.blame("(3) a token is asked for while suspended");
        }
        let issue_reason = self.issue_reason(world, process, credential, client);
        if issue_reason.is_none() {
            self.blame("(4) a token is asked for that nobody needs");
        }
        let attempts_of = (process.number, credential.uid().unwrap_or_default());
        let before = self.last_request.insert(attempts_of, (world.now, world.clock_error));
        // a second cannot be told by a clock that was just set
        let too_soon = |(at, error)| error == world.clock_error && world.now - at < TimeDelta::seconds(1);
        if !self.is_requested(process, credential) && before.is_some_and(too_soon) {
            self.blame("(5) two attempts within a second");
        }
        *self.requests.entry(issue_reason.unwrap_or("nothing")).or_default() += 1;
    }

    /// Why a token is needed, by the state of the Secret that this process knows.
    fn issue_reason(
        &self,
        world: &World,
        process: &Process,
        credential: &ITwinServiceCredential,
        client: &str,
    ) -> Option<&'static str> {
        let secret = match process.known_target() {
            Known::Absent => return (world.target.is_none() || process.lags(world)).then_some("missing"),
            Known::Unknown => world.target.clone(),
            Known::Present(secret_metadata) => world.past.get(&secret_metadata.version.to_string()).cloned(),
        };
        let Some(secret) = secret else { return Some("missing") };
        if world.foreign.contains(&secret.uid().unwrap_or_default()) {
            return None;
        }
        let token_metadata = SecretMetadata::new(&secret.metadata).token_metadata;
        let (Some(token), Some(token_metadata)) = (world.token_in(&secret), token_metadata) else {
            return Some("damaged");
        };
        if !belongs_to(&secret, &credential.uid().unwrap_or_default()) {
            return Some("missing");
        }
        if token.request != fingerprint::request(&credential.spec) {
            return Some("spec changed");
        }
        if Some(token.issuer.as_str()) != process.authority.issuer() {
            return Some("issuer changed");
        }
        if token.client != client {
            return Some("client changed");
        }
        if self.is_requested(process, credential) {
            return Some("requested");
        }
        let due = earliest_renewal(&token_metadata, &Policy::new(&credential.spec));
        (world.clock() >= due).then_some("due")
    }

    fn is_requested(&self, process: &Process, credential: &ITwinServiceCredential) -> bool {
        let annotation = credential.annotations().get("credentials.itwin.dev/renew");
        let reported = credential.status.as_ref().and_then(|status| status.last_renew_request.as_ref());
        let uid = credential.uid().unwrap_or_default();
        annotation.is_some_and(|value| match self.served.get(&(uid, value.clone())) {
            None => true,
            Some(server) => *server != process.number && (process.deposed || reported != Some(value)),
        })
    }

    /// The operator wrote the Secret; `before` is what was there.
    pub fn wrote(
        &mut self,
        world: &World,
        process: &Process,
        credential: &ITwinServiceCredential,
        (before, is_patch): (Option<&Secret>, bool),
    ) {
        self.writes += 1;
        let Some(after) = world.target.as_deref() else { return self.blame("(1) a write left nothing") };
        if before.is_some_and(|before| world.foreign.contains(&before.uid().unwrap_or_default())) {
            self.blame("(2) a foreign Secret was written");
        }
        if before.is_some_and(|before| before.data == after.data) {
            let token_metadata = |secret: &Secret| SecretMetadata::new(&secret.metadata).token_metadata;
            if before.is_some_and(|before| !is_patch && token_metadata(before) == token_metadata(after)) {
                self.blame("(4) the token that is there was written again");
            }
            return;
        }
        let token_metadata = SecretMetadata::new(&after.metadata).token_metadata;
        let (Some(token), Some(token_metadata)) = (world.token_in(after), token_metadata) else {
            return self.blame("(1) something was written that is no token");
        };
        if !token.is_good || token.request != fingerprint::request(&credential.spec) {
            self.blame("(1) a token was written that the spec does not ask for");
        }
        let tolerance = TimeDelta::seconds(1) + token.clock_error.abs();
        if (token_metadata.expires_at - token.expires_at).abs() > tolerance {
            self.blame("(1) another expiry was written than the token has");
        }
        let Some(old) = before
            .filter(|before| is_known(before, &credential.uid().unwrap_or_default()))
            .and_then(|old| world.valid_in(old))
        else {
            return;
        };
        let is_current = credential.metadata.generation == world.credential.metadata.generation;
        if world.valid_in(after).is_none() && is_current && !process.lags_behind_spec(world) {
            self.blame("(1) a valid token was replaced by one that is not");
        }
        let tolerance = tolerance + old.clock_error.abs();
        if token.request == old.request && token.expires_at + tolerance < old.expires_at {
            self.blame("(1) a valid token was replaced by one that expires earlier");
        }
    }

    /// A look ended, and the next one is to come after `wait`.
    pub fn looked(
        &mut self,
        world: &World,
        process: &Process,
        retry_state: &RetryState,
        manner: Manner,
        wait: TimeDelta,
    ) {
        let (began, by_timer, undisturbed) = manner;
        self.reconciles += 1;
        if wait < TimeDelta::milliseconds(10) {
            self.blame("(6) the next look comes at once");
        }
        if !by_timer || !undisturbed {
            self.by_timer.clear();
        }
        self.by_timer.push(began);
        self.by_timer.retain(|reconcile| began - *reconcile < TimeDelta::seconds(1));
        if self.by_timer.len() > RECONCILES_IN_A_SECOND {
            self.blame("(6) a hot loop: nothing happens, and it looks again and again");
        }
        if undisturbed && !retry_state.is_api_failing() && !process.enqueued && !process.lags(world) {
            self.reported_the_truth(world, process);
        }
    }

    /// `Ready` is what the contract says it is.
    fn reported_the_truth(&mut self, world: &World, process: &Process) {
        let credential = &world.credential;
        let Some(reported) = &credential.status else { return self.blame("(7) no status was written") };
        let issuer = process.authority.issuer();
        let good = world.target.as_ref().filter(|target| belongs_to(target, &world.uid())).is_some_and(|target| {
            let (Some(token), Some(token_metadata)) =
                (world.token_in(target), SecretMetadata::new(&target.metadata).token_metadata)
            else {
                return false;
            };
            token.request == fingerprint::request(&credential.spec)
                && issuer.is_none_or(|issuer| issuer == token.issuer)
                && token_metadata.expires_at - world.clock() >= Policy::new(&credential.spec).minimum_validity
        });
        if status::holds(&reported.conditions, READY) != good {
            self.blame(format!("Ready is told as {} and is {good}", !good));
        }
    }
}

/// Whether this Secret was made by the credential of this UID.
pub fn belongs_to(secret: &Secret, uid: &str) -> bool {
    match secret.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        Some(controller) => controller.uid == uid,
        None => secret.annotations().get("credentials.itwin.dev/owner-uid").is_some_and(|owner| owner == uid),
    }
}

/// Whether this Secret is the credential's and says what is in it. Where somebody took the stamp off a token, nobody
/// knows what it is, and any other valid one replaces it.
fn is_known(secret: &Secret, uid: &str) -> bool {
    belongs_to(secret, uid) && SecretMetadata::new(&secret.metadata).token_metadata.is_some()
}

/// The earliest instant at which the contract lets a token be renewed: before it, nothing is due.
pub fn earliest_renewal(token_metadata: &TokenMetadata, policy: &Policy) -> DateTime<Utc> {
    let lifetime = token_metadata.expires_at - token_metadata.issued_at;
    let wished = match policy.renew_before {
        RenewBefore::Default => lifetime / 3,
        RenewBefore::Fixed(time) => time,
        RenewBefore::Percentage(percentage) => lifetime * percentage / 100,
    };
    token_metadata.expires_at - wished.max(policy.minimum_validity).min(lifetime / 2) - lifetime / 20
}
