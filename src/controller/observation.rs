//! The facts about one credential, put together from its object, the index, the memory and what was read.

use chrono::{DateTime, TimeDelta, Utc};
use itwin_api::{
    credential::{DeletionPolicy, ITwinServiceCredential},
    digest,
    failure::Failure,
    secret_keys, time,
};
use itwin_core::{
    backoff,
    contenders::{self, Contender},
    fingerprint,
    observed::{
        Authority, Client, Desired, Held, History, Integrity, ObservedState, Policy, RenewBefore, RenewalRequest,
        Restart, Target,
    },
    ownership,
    requests::Request,
    template,
};
use kube::ResourceExt;

use super::{
    authorities::Authorities,
    fetched::{FetchedClient, FetchedSecrets},
    others::Others,
    references::{References, requester},
    retry_state::RetryState,
};
use crate::{
    act::secret_writer,
    observe::{
        client_secret,
        index::{Key, Known, SecretIndex},
        target::SecretMetadata,
    },
};

/// No duration of a policy is longer: it is subtracted from the expiry of a token, and no date is before the calendar's.
const LONGEST_POLICY: TimeDelta = TimeDelta::days(3650);

fn contender(credential: &ITwinServiceCredential) -> Contender {
    Contender {
        created_at: credential.metadata.creation_timestamp.as_ref().and_then(time::from_kubernetes),
        uid: credential.uid().unwrap_or_default(),
        name: credential.name_any(),
    }
}

/// What is known without asking.
pub struct Caches<'a> {
    /// Secrets.
    pub index: &'a SecretIndex,
    /// The other credentials.
    pub others: &'a dyn Others,
    /// Authorities.
    pub authorities: &'a Authorities,
    /// The queue of the authority admitted a request of this credential.
    pub is_admitted: bool,
}

/// The facts, and a number that moves with everything that may make a new attempt worth while.
#[must_use]
pub fn observe(
    references: &References<'_>,
    retry_state: &RetryState,
    fetched: &FetchedSecrets,
    caches: &Caches<'_>,
    now: DateTime<Utc>,
) -> (ObservedState, u32) {
    let Caches { index, others, authorities, is_admitted } = caches;
    let spec = &references.credential.spec;
    let (authority, revision) = authorities.observe(&spec.authority_ref.name, spec);
    let (known_target, known_client) = (index.get(&references.target), index.get(&references.client));
    let target = match &known_target {
        Known::Unknown if is_new(references, retry_state) => Target::Presumed,
        known => target(references, retry_state, fetched, known, *others),
    };
    let written_by = writer_of_client(references, &known_client, *others);
    let inputs = inputs(references, revision, (&known_client, written_by.as_ref()), &target);
    let client = match written_by {
        Some(failure) => Client::Unusable(failure),
        None => client(references, retry_state, fetched, &known_client, &target),
    };
    let observed = ObservedState {
        uid: references.uid.clone(),
        desired: Desired { request: fingerprint::request(spec), policy: policy(references.credential) },
        suspend: spec.suspend,
        renewal_request: renewal_request(references, retry_state, &known_target, now),
        authority,
        client,
        target,
        history: History { not_before: not_before(retry_state, inputs, now) },
        is_admitted: *is_admitted,
        has_unwritten: retry_state.unwritten.is_some(),
        restart: restart(references, retry_state),
    };
    (observed, inputs)
}

/// Whether nothing was ever reported of a credential.
#[must_use]
pub fn is_new(references: &References<'_>, retry_state: &RetryState) -> bool {
    references.credential.status.is_none() && retry_state.written_status.is_none()
}

fn restart(references: &References<'_>, retry_state: &RetryState) -> Option<Restart> {
    let wanted = !references.credential.spec.rollout_restart_targets.is_empty();
    wanted.then_some(Restart { done_for: retry_state.restarted_for, not_before: retry_state.restart_not_before })
}

/// The end of the back-off, as long as nothing relevant changed. A failure that was noted later than now was noted
/// before the clock was set back: its back-off binds nobody, else attempts would cease for as long.
fn not_before(retry_state: &RetryState, inputs: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let unchanged = retry_state.inputs.is_none_or(|before| before == inputs);
    let failed_at = retry_state.attempts.last_failure.as_ref().map(|(time, _)| *time);
    retry_state.not_before.filter(|_| unchanged && failed_at.is_none_or(|time| time <= now))
}

fn renewal_request(
    references: &References<'_>,
    retry_state: &RetryState,
    target: &Known,
    now: DateTime<Utc>,
) -> Option<RenewalRequest> {
    // the Secret knows before the status, or the memory of a process whose write was not answered, does
    let open = |value: &String| match target {
        Known::Present(secret_metadata) => {
            secret_metadata.renewed_for.as_deref() != Some(&*fingerprint::renewal(value))
        }
        _ => true,
    };
    let fresh = |value: &String| retry_state.attempts.renew_request.as_ref() != Some(value) && open(value);
    let fresh = references.renew_annotation().is_some_and(fresh);
    let unfulfilled = retry_state.unfulfilled_request.as_ref().is_some_and(open);
    // a time to come is of a clock that was ahead
    let requested_at = retry_state.requested_at.filter(|at| *at <= now);
    let not_before = requested_at.map(|at| at + backoff::ON_REQUEST_FLOOR).filter(|until| *until > now);
    (fresh || unfulfilled).then_some(RenewalRequest { fresh, not_before })
}

/// The token request of a credential, as it waits in the queue of its authority.
#[must_use]
pub fn request(
    references: &References<'_>,
    retry_state: &RetryState,
    observed: &ObservedState,
    index: &SecretIndex,
) -> Request {
    let version = match index.get(&references.client) {
        Known::Present(secret_metadata) => Some(secret_metadata.version.clone()),
        Known::Absent | Known::Unknown => None,
    };
    Request {
        requester: requester(references),
        client_version: version,
        content: observed.desired.request.as_str().into(),
        expires_at: observed.held_until(),
        is_retry: retry_state.attempts.failures > 0 && !retry_state.failed_by_others,
    }
}

/// The renewal policy of a spec.
#[must_use]
pub fn policy(credential: &ITwinServiceCredential) -> Policy {
    let spec = &credential.spec;
    let delta = |duration: kube::core::Duration| {
        TimeDelta::from_std(duration.into()).map_or(LONGEST_POLICY, |duration| duration.min(LONGEST_POLICY))
    };
    Policy {
        renew_before: match (spec.renew_before, spec.renew_before_percentage) {
            (Some(duration), _) => RenewBefore::Fixed(delta(duration)),
            (None, Some(percentage)) => RenewBefore::Percentage(percentage),
            (None, None) => RenewBefore::Default,
        },
        minimum_validity: delta(spec.minimum_validity),
    }
}

fn target(
    references: &References<'_>,
    retry_state: &RetryState,
    fetched: &FetchedSecrets,
    known: &Known,
    others: &dyn Others,
) -> Target {
    let (ours, secret) = (contender(references.credential), &references.target.name);
    let older_reader = || contenders::older_reader(secret, &ours, &others.readers(&references.target));
    let secret_metadata = match known {
        Known::Unknown => return Target::Unread,
        Known::Absent => {
            let failure =
                contenders::oldest_contender(secret, &ours, &others.writers(&references.target)).or_else(older_reader);
            return failure.map_or(Target::Absent, Target::NotOwned);
        }
        Known::Present(secret_metadata) => secret_metadata,
    };
    let Key { namespace, name } = &references.key;
    let writer = ownership::Writer { namespace, name, uid: &references.uid };
    match ownership::owner(&secret_metadata.ownership, secret, &writer, &|uid| others.living(uid)) {
        ownership::Owner::Us => Target::Ours(Held {
            token_metadata: secret_metadata.token_metadata.clone(),
            data: integrity(references.credential, retry_state, fetched, secret_metadata),
            metadata_intact: !has_extra_keys(fetched, secret_metadata)
                && metadata_intact(references.credential, secret_metadata),
        }),
        ownership::Owner::Adoptable => {
            let held = Held { token_metadata: None, data: Integrity::Verified, metadata_intact: false };
            older_reader().map_or(Target::Ours(held), Target::NotOwned)
        }
        ownership::Owner::Other(failure) => Target::NotOwned(older_reader().unwrap_or(failure)),
    }
}

/// Why the client Secret may not be read: another credential writes it.
fn writer_of_client(references: &References<'_>, known: &Known, others: &dyn Others) -> Option<Failure> {
    let writers = others.writers(&references.client);
    // nearly always, and asked of every credential at each step
    if writers.is_empty() {
        return None;
    }
    let ownership = match known {
        Known::Present(secret_metadata) => Some(&secret_metadata.ownership),
        Known::Unknown | Known::Absent => None,
    };
    contenders::writer_of_client(&references.client.to_string(), &contender(references.credential), &writers, ownership)
}

fn integrity(
    credential: &ITwinServiceCredential,
    retry_state: &RetryState,
    fetched: &FetchedSecrets,
    secret_metadata: &SecretMetadata,
) -> Integrity {
    if let Some(read) = fetched.target.as_ref().filter(|read| read.version == secret_metadata.version) {
        // keys that were added cost a patch, not a token
        return if read.is_ours || read.has_extra_keys { Integrity::Verified } else { Integrity::Tampered };
    }
    let template_keys = credential.spec.secret_template.as_ref().map_or(0, |template| template.data.len());
    let verified = retry_state.verified_target.as_ref() == Some(&secret_metadata.version)
        || secret_metadata.sole_writer_of == Some(secret_keys::DATA_KEYS.len() + template_keys);
    if verified { Integrity::Verified } else { Integrity::Unverified }
}

fn has_extra_keys(fetched: &FetchedSecrets, secret_metadata: &SecretMetadata) -> bool {
    fetched.target.as_ref().is_some_and(|read| read.version == secret_metadata.version && read.has_extra_keys)
}

fn metadata_intact(credential: &ITwinServiceCredential, secret_metadata: &SecretMetadata) -> bool {
    let has_owner = secret_metadata.ownership.controller.is_some();
    let wants_owner = credential.spec.deletion_policy == DeletionPolicy::Delete;
    let (labels, annotations) = (secret_writer::labels(credential), secret_writer::annotations(credential));
    has_owner == wants_owner
        && template::is_current(secret_metadata.template.as_deref(), credential.spec.secret_template.as_ref())
        && secret_metadata.carries(&labels, &annotations)
        && secret_metadata.leftovers(&labels, &annotations).is_empty()
}

fn client(
    references: &References<'_>,
    retry_state: &RetryState,
    fetched: &FetchedSecrets,
    known: &Known,
    target: &Target,
) -> Client {
    // one that was changed while a request was under way is read again before the next
    let is_current = |read: &&FetchedClient| match known {
        Known::Present(secret_metadata) => secret_metadata.version == read.version,
        Known::Absent => false,
        Known::Unknown => true,
    };
    if let Some(read) = fetched.client.as_ref().filter(is_current) {
        return match &read.content {
            Ok(_) => Client::Usable { version: read.version.clone(), same_as_held: read.same_as_held },
            Err(failure) => Client::Unusable(failure.clone()),
        };
    }
    match known {
        Known::Unknown => Client::Unread { version: None },
        Known::Absent if !fetched.client_is_missing => Client::Missing,
        Known::Absent => Client::Unusable(client_secret::not_found(
            &references.client.to_string(),
            &references.credential.spec.client_credentials_ref,
        )),
        Known::Present(secret_metadata) if retry_state.verified_client.as_ref() == Some(&secret_metadata.version) => {
            Client::Unread {
                version: match target {
                    Target::Ours(Held { token_metadata: Some(token_metadata), .. }) => {
                        Some(token_metadata.client_version.clone())
                    }
                    _ => None,
                },
            }
        }
        Known::Present(secret_metadata) => Client::Unread { version: Some(secret_metadata.version.clone()) },
    }
}

fn inputs(references: &References<'_>, revision: u32, client: (&Known, Option<&Failure>), target: &Target) -> u32 {
    let client = match client {
        (_, Some(failure)) => &failure.message,
        (Known::Unknown, None) => "unknown",
        (Known::Absent, None) => "absent",
        (Known::Present(secret_metadata), None) => &secret_metadata.version,
    };
    let target = match target {
        // that it was read since is no reason for another attempt
        Target::Unread | Target::Presumed | Target::Absent => "absent",
        Target::NotOwned(failure) => &failure.message,
        Target::Ours(_) => "ours",
    };
    let generation = references.credential.metadata.generation.unwrap_or_default().to_string();
    digest::short([&generation, &revision.to_string(), client, target])
}

/// Whether the authority can be asked.
#[must_use]
pub fn issuer(authority: &Authority) -> Option<&str> {
    match authority {
        Authority::Ready { issuer } => Some(issuer),
        _ => None,
    }
}

/// The instant after which, by the clock alone, the credential stands otherwise.
#[must_use]
pub fn next_change(observed: &ObservedState, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let token_metadata = observed.held_for_spec()?;
    // a token with exactly the minimum validity left is still good: look a moment later
    let restart = observed.restart.as_ref().and_then(|restart| restart.not_before);
    let falls_below = token_metadata.expires_at - observed.desired.policy.minimum_validity + TimeDelta::milliseconds(1);
    [Some(falls_below), Some(token_metadata.expires_at), restart].into_iter().flatten().filter(|at| *at > now).min()
}
