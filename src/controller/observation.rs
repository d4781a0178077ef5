//! The observed state of one credential, put together from its object, the caches, the retry state and what was fetched.

mod target;

use chrono::{DateTime, Utc};
use itwin_core::{
    client_state::{self, ClientClues, KnownVersion, ReadClient},
    contenders,
    failure::Failure,
    fingerprint,
    observed::{Client, Desired, History, ObservedState, Reads, Target, Unwritten},
    policy::Policy,
    renewal::renewal_request,
    requests::Request,
    restart::Restart,
    retry_key::{AuthorityRevision, ClientKey, RetryKey, TargetKey},
    retry_state::RetryState,
    template,
};

use self::target::{contender, target};
use super::{
    authorities::Authorities,
    fetched::FetchedSecrets,
    others::Others,
    references::{References, requester},
};
use crate::observe::{
    client_secret,
    index::{Known, SecretIndex},
};

/// What is known without a call.
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

/// The observed state.
#[must_use]
pub fn observe(
    references: &References<'_>,
    retry_state: &RetryState,
    fetched: &FetchedSecrets,
    caches: &Caches<'_>,
    now: DateTime<Utc>,
) -> ObservedState {
    let Caches { index, others, authorities, is_admitted } = caches;
    let spec = &references.credential.spec;
    let (authority, revision) = authorities.observe(&spec.authority_ref.name, spec);
    let known_target = fetched.known_target(index, &references.target);
    let known_client = match index.get(&references.client) {
        // each attempt reads it, so that one is found which the watch is yet to show; a new credential often comes with it
        Known::Unknown if !is_new(references, retry_state) && index.is_not_shown(&references.client) => Known::Absent,
        known => known,
    };
    let desired = desired(references);
    let target = match &known_target {
        Known::Unknown if is_new(references, retry_state) => Target::Presumed,
        known => target(references, retry_state, fetched, known, *others, (&desired, &authority)),
    };
    let written_by = writer_of_client(references, &known_client, *others);
    let retry_key = retry_key(retry_state, revision, (&known_client, written_by.as_ref()), &target);
    let renewed_for = match &known_target {
        Known::Present(secret_metadata) => secret_metadata.renewed_for.as_deref(),
        Known::Absent | Known::Unknown => None,
    };
    let held = match &target {
        Target::Ours(held) => held.token_metadata.as_ref(),
        _ => None,
    };
    let renew_not_before = retry_state.renew_not_before(held, now);
    let annotation = references.renew_annotation().map(String::as_str);
    let client = match written_by {
        Some(failure) => Client::Unusable(failure),
        None => client(references, retry_state, (fetched, &known_client), authorities),
    };
    // of a read of another version nothing is concluded
    let read_client = fetched.client.as_ref().filter(|_| matches!(client, Client::Usable { .. }));
    let unwritten = retry_state.unwritten().map(|content| Unwritten {
        token_metadata: content.token_metadata.clone(),
        is_of_client: match read_client {
            Some(read) => Some(read.material.fingerprint(&content.token) == *content.client_fingerprint),
            None => client.version().and_then(|version| retry_state.is_unwritten_of(version)),
        },
        is_checked: authorities.is_checked(spec, content) != Some(false),
    });
    ObservedState {
        uid: references.uid.clone(),
        desired,
        suspend: spec.suspend,
        renewal_request: renewal_request(&retry_state.renewal_clues(annotation, renewed_for), now),
        authority,
        client,
        target,
        history: History {
            not_before: retry_state.backoff_until(&retry_key, now),
            change_not_before: retry_state.change_not_before(&retry_key, now),
            requested_at: retry_state.requested_at(),
            reads: reads_not_before(retry_state, &known_target, now),
            revert_not_before: retry_state.reverts().not_before(now),
            restore_not_before: retry_state.reverts().restore_not_before(now),
            renew_not_before,
            withheld: retry_state.reverts().withheld(),
            is_refused_as_immutable: retry_state.reverts().is_refused_as_immutable(),
            is_token_unknown: retry_state.last_held().is_none_or(|held| held.record.is_none()),
            is_client_expiry_unread: retry_state.is_client_expiry_unread(),
            is_check_due: retry_state.check_at().is_some_and(|at| at <= now),
            has_data_read_failed: retry_state.has_data_read_failed(),
            has_failed_for_client: retry_state.has_failed_for_client(),
            // these depend on the monotonic clock
            is_gone: false,
            is_known_absent: false,
        },
        retry_key,
        is_admitted: *is_admitted,
        unwritten,
        // what is left to do depends on the token that this finds
        restart: Restart::Done,
    }
}

/// When Secrets may be read again after reads that failed. Where only the client Secret can show what the Secret to write
/// holds, its data waits for that one.
fn reads_not_before(retry_state: &RetryState, known_target: &Known, now: DateTime<Utc>) -> Reads<DateTime<Utc>> {
    let mut waits = retry_state.reads_not_before(now);
    let is_undescribed = match known_target {
        Known::Present(secret_metadata) => secret_metadata.token_metadata.is_none(),
        Known::Unknown | Known::Absent => false,
    };
    if is_undescribed && retry_state.last_held().is_some_and(|last| !last.is_proof()) {
        waits.target_data = waits.target_data.max(waits.client);
    }
    waits
}

fn desired(references: &References<'_>) -> Desired {
    let spec = &references.credential.spec;
    Desired {
        request: fingerprint::request(spec),
        authority: spec.authority_ref.name.clone(),
        client_reference: fingerprint::client_reference(&spec.client_credentials_ref),
        secret: references.target.to_string(),
        template_failure: template::check(spec.secret_template.as_ref()).err(),
        policy: Policy::new(spec),
    }
}

/// Whether nothing was ever reported of a credential.
#[must_use]
pub fn is_new(references: &References<'_>, retry_state: &RetryState) -> bool {
    references.credential.status.is_none() && retry_state.written_status().is_none()
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
        is_retry: retry_state.is_retrying(),
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
        Known::Absent => None,
        // it is read first
        Known::Unknown => return None,
    };
    contenders::writer_of_client(&references.client.to_string(), &contender(references.credential), &writers, ownership)
}

fn client(
    references: &References<'_>,
    retry_state: &RetryState,
    (fetched, known): (&FetchedSecrets, &Known),
    authorities: &Authorities,
) -> Client {
    let clues = ClientClues {
        known: match known {
            Known::Unknown => KnownVersion::Unknown,
            Known::Absent => KnownVersion::Absent,
            Known::Present(secret_metadata) => KnownVersion::Present(&secret_metadata.version),
        },
        read: fetched.client.as_ref().map(|read| ReadClient {
            version: &read.version,
            failure: read.content.as_ref().err(),
            same_as_held: read.same_as_held,
        }),
        is_missing: fetched.client_is_missing,
        verified: retry_state.verified_client(),
    };
    client_state::client(&clues, || {
        let spec = &references.credential.spec;
        let authority = authorities.get(&spec.authority_ref.name);
        let method = authority.map(|authority| authority.config.client_authentication).unwrap_or_default();
        let (secret, keys) = (references.client.to_string(), &spec.client_credentials_ref);
        client_secret::not_found(&secret, keys, method, spec.grant_type)
    })
}

fn retry_key(
    retry_state: &RetryState,
    authority: AuthorityRevision,
    client: (&Known, Option<&Failure>),
    target: &Target,
) -> RetryKey {
    RetryKey {
        authority,
        client: match client {
            (_, Some(failure)) => ClientKey::NotAllowed(failure.message.clone()),
            (Known::Unknown, None) => ClientKey::Unknown,
            (Known::Absent, None) => ClientKey::Absent,
            (Known::Present(secret_metadata), None) => retry_state.client_key(&secret_metadata.version),
        },
        target: match target {
            Target::Unread { .. } | Target::Presumed | Target::Absent => TargetKey::Absent,
            Target::NotOwned(failure) => TargetKey::NotOwned(failure.message.clone()),
            Target::Ours(_) | Target::Adoptable(_) => TargetKey::Writable,
        },
    }
}
