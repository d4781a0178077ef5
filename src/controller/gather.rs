//! The facts about one credential, put together from its object, the index, the memory and what was read.

use chrono::{DateTime, TimeDelta, Utc};
use kube::ResourceExt;

use super::{
    authorities::Authorities,
    memory::Memory,
    others::Others,
    reading::{ReadClient, Reading},
};
use crate::{
    act::{secret_writer, template},
    api::{
        credential::{DeletionPolicy, ITwinServiceCredential},
        secret_keys,
    },
    clock,
    decide::{
        backoff,
        contenders::{self, Claim},
        facts::{
            Authority, Client, Desired, Facts, Held, History, Integrity, Policy, Refusal, RenewBefore, RenewalRequest,
            Restart, Target,
        },
        fingerprint, ownership,
        requests::{Request, Requester},
    },
    digest,
    observe::{
        client_secret,
        index::{Key, Known, SecretIndex},
        intern::intern,
        target::Seen,
    },
};

/// No duration of a policy is longer: it is subtracted from the expiry of a token, and no date is before the calendar's.
const LONGEST_POLICY: TimeDelta = TimeDelta::days(3650);

/// One credential with the names of its surroundings.
pub struct Subject<'a> {
    /// The credential.
    pub credential: &'a ITwinServiceCredential,
    /// Its namespace and name.
    pub key: Key,
    /// Its UID.
    pub uid: String,
    /// The Secret to write.
    pub target: Key,
    /// The client Secret.
    pub client: Key,
}

impl<'a> Subject<'a> {
    /// Names the surroundings of a credential.
    #[must_use]
    pub fn new(credential: &'a ITwinServiceCredential) -> Self {
        let namespace = credential.namespace().unwrap_or_default();
        Self {
            key: Key::new(&namespace, credential.name_any()),
            uid: credential.uid().unwrap_or_default(),
            target: Key::new(&namespace, credential.target_name()),
            client: Key::new(&namespace, &credential.spec.client_credentials_ref.name),
            credential,
        }
    }

    /// The value of the renew annotation.
    #[must_use]
    pub fn renew_annotation(&self) -> Option<&String> {
        self.credential.annotations().get(secret_keys::RENEW)
    }
}

fn claim(credential: &ITwinServiceCredential) -> Claim {
    Claim {
        created_at: credential.metadata.creation_timestamp.as_ref().and_then(clock::from_kubernetes),
        uid: credential.uid().unwrap_or_default(),
        name: credential.name_any(),
    }
}

/// What is known without asking.
pub struct Sources<'a> {
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
pub fn facts(
    subject: &Subject<'_>,
    memory: &Memory,
    reading: &Reading,
    sources: &Sources<'_>,
    now: DateTime<Utc>,
) -> (Facts, u32) {
    let Sources { index, others, authorities, is_admitted } = sources;
    let spec = &subject.credential.spec;
    let (authority, epoch) = authorities.facts(&spec.authority_ref.name, spec);
    let (known_target, known_client) = (index.get(&subject.target), index.get(&subject.client));
    let target = match &known_target {
        Known::Unknown if is_new(subject, memory) => Target::Presumed,
        known => target(subject, memory, reading, known, *others),
    };
    let written_by = writer_of_client(subject, &known_client, *others);
    let inputs = inputs(subject, epoch, (&known_client, written_by.as_ref()), &target);
    let client = match written_by {
        Some(refusal) => Client::Unusable(refusal),
        None => client(subject, memory, reading, &known_client, &target),
    };
    let facts = Facts {
        uid: subject.uid.clone(),
        desired: Desired { request: fingerprint::request(spec), policy: policy(subject.credential) },
        suspend: spec.suspend,
        renewal_request: renewal_request(subject, memory, &known_target, now),
        authority,
        client,
        target,
        history: History { not_before: not_before(memory, inputs, now) },
        is_admitted: *is_admitted,
        has_unwritten: memory.unwritten.is_some(),
        restart: restart(subject, memory),
    };
    (facts, inputs)
}

/// Whether nothing was ever reported of a credential.
#[must_use]
pub fn is_new(subject: &Subject<'_>, memory: &Memory) -> bool {
    subject.credential.status.is_none() && memory.written_status.is_none()
}

fn restart(subject: &Subject<'_>, memory: &Memory) -> Option<Restart> {
    let wanted = !subject.credential.spec.rollout_restart_targets.is_empty();
    wanted.then_some(Restart { done_for: memory.restarted_for, not_before: memory.restart_not_before })
}

/// The end of the back-off, as long as nothing relevant changed. A failure that was noted later than now was noted
/// before the clock was set back: its back-off binds nobody, else attempts would cease for as long.
fn not_before(memory: &Memory, inputs: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let unchanged = memory.inputs.is_none_or(|before| before == inputs);
    let failed_at = memory.attempts.last_failure.as_ref().map(|(time, _)| *time);
    memory.not_before.filter(|_| unchanged && failed_at.is_none_or(|time| time <= now))
}

fn renewal_request(
    subject: &Subject<'_>,
    memory: &Memory,
    target: &Known,
    now: DateTime<Utc>,
) -> Option<RenewalRequest> {
    // the Secret knows before the status, or the memory of a process whose write was not answered, does
    let open = |value: &String| match target {
        Known::Present(seen) => seen.renewed_for.as_deref() != Some(&*fingerprint::renewal(value)),
        _ => true,
    };
    let fresh = |value: &String| memory.attempts.renew_request.as_ref() != Some(value) && open(value);
    let fresh = subject.renew_annotation().is_some_and(fresh);
    let unfulfilled = memory.unfulfilled_request.as_ref().is_some_and(open);
    // a time to come is of a clock that was ahead
    let requested_at = memory.requested_at.filter(|at| *at <= now);
    let not_before = requested_at.map(|at| at + backoff::ON_REQUEST_FLOOR).filter(|until| *until > now);
    (fresh || unfulfilled).then_some(RenewalRequest { fresh, not_before })
}

/// The token request of a credential, as it waits in the queue of its authority.
#[must_use]
pub fn request(subject: &Subject<'_>, memory: &Memory, facts: &Facts, index: &SecretIndex) -> Request {
    let version = match index.get(&subject.client) {
        Known::Present(seen) => Some(seen.version.clone()),
        Known::Absent | Known::Unknown => None,
    };
    Request {
        requester: requester(subject),
        client_version: version,
        content: facts.desired.request.as_str().into(),
        expires_at: facts.held_until(),
        is_retry: memory.attempts.failures > 0 && !memory.failed_by_others,
    }
}

/// The client of a credential, as the queue knows it.
#[must_use]
pub fn requester(subject: &Subject<'_>) -> Requester {
    Requester { namespace: intern(&subject.client.namespace), secret: intern(&client_reference(subject)) }
}

/// The client Secret with the keys that are read of it: one Secret can hold several clients.
#[must_use]
pub fn client_reference(subject: &Subject<'_>) -> String {
    let keys = &subject.credential.spec.client_credentials_ref;
    let names = [&keys.client_id_key, &keys.client_secret_key, &keys.private_key_key, &keys.username_key];
    let names = names.into_iter().chain([&keys.password_key]).map(String::as_str);
    // neither a name nor a key holds a slash or a comma
    format!("{}/{}", subject.client.name, names.collect::<Vec<_>>().join(","))
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

fn target(subject: &Subject<'_>, memory: &Memory, reading: &Reading, known: &Known, others: &dyn Others) -> Target {
    let (ours, secret) = (claim(subject.credential), &subject.target.name);
    let older_reader = || contenders::older_reader(secret, &ours, &others.readers(&subject.target));
    let seen = match known {
        Known::Unknown => return Target::Unread,
        Known::Absent => {
            let refusal = contenders::elder(secret, &ours, &others.writers(&subject.target)).or_else(older_reader);
            return refusal.map_or(Target::Absent, Target::Foreign);
        }
        Known::Present(seen) => seen,
    };
    let Key { namespace, name } = &subject.key;
    let writer = ownership::Writer { namespace, name, uid: &subject.uid };
    match ownership::owner(&seen.marks, secret, &writer, &|uid| others.living(uid)) {
        ownership::Owner::Us => Target::Ours(Held {
            stamp: seen.stamp.clone(),
            data: integrity(subject.credential, memory, reading, seen),
            metadata_intact: !has_foreign_keys(reading, seen) && metadata_intact(subject.credential, seen),
        }),
        ownership::Owner::Vacant => {
            let held = Held { stamp: None, data: Integrity::Proven, metadata_intact: false };
            older_reader().map_or(Target::Ours(held), Target::Foreign)
        }
        ownership::Owner::Other(refusal) => Target::Foreign(older_reader().unwrap_or(refusal)),
    }
}

/// Why the client Secret may not be read: another credential writes it.
fn writer_of_client(subject: &Subject<'_>, known: &Known, others: &dyn Others) -> Option<Refusal> {
    let writers = others.writers(&subject.client);
    // nearly always, and asked of every credential at each step
    if writers.is_empty() {
        return None;
    }
    let marks = match known {
        Known::Present(seen) => Some(&seen.marks),
        Known::Unknown | Known::Absent => None,
    };
    contenders::writer_of_client(&subject.client.to_string(), &claim(subject.credential), &writers, marks)
}

fn integrity(credential: &ITwinServiceCredential, memory: &Memory, reading: &Reading, seen: &Seen) -> Integrity {
    if let Some(read) = reading.target.as_ref().filter(|read| read.version == seen.version) {
        // keys that were added cost a patch, not a token
        return if read.is_ours || read.has_foreign_keys { Integrity::Proven } else { Integrity::Damaged };
    }
    let template_keys = credential.spec.secret_template.as_ref().map_or(0, |template| template.data.len());
    let proven = memory.proven_target.as_ref() == Some(&seen.version)
        || seen.sole_writer_of == Some(secret_keys::DATA_KEYS.len() + template_keys);
    if proven { Integrity::Proven } else { Integrity::Unproven }
}

fn has_foreign_keys(reading: &Reading, seen: &Seen) -> bool {
    reading.target.as_ref().is_some_and(|read| read.version == seen.version && read.has_foreign_keys)
}

fn metadata_intact(credential: &ITwinServiceCredential, seen: &Seen) -> bool {
    let has_owner = seen.marks.controller.is_some();
    let wants_owner = credential.spec.deletion_policy == DeletionPolicy::Delete;
    let (labels, annotations) = (secret_writer::labels(credential), secret_writer::annotations(credential));
    has_owner == wants_owner
        && template::is_current(seen.template.as_deref(), credential.spec.secret_template.as_ref())
        && seen.carries(&labels, &annotations)
        && seen.leftovers(&labels, &annotations).is_empty()
}

fn client(subject: &Subject<'_>, memory: &Memory, reading: &Reading, known: &Known, target: &Target) -> Client {
    // one that was changed while a request was under way is read again before the next
    let is_current = |read: &&ReadClient| match known {
        Known::Present(seen) => seen.version == read.version,
        Known::Absent => false,
        Known::Unknown => true,
    };
    if let Some(read) = reading.client.as_ref().filter(is_current) {
        return match &read.content {
            Ok(_) => Client::Usable { version: read.version.clone(), same_as_held: read.same_as_held },
            Err(refusal) => Client::Unusable(refusal.clone()),
        };
    }
    match known {
        Known::Unknown => Client::Unread { version: None },
        Known::Absent if !reading.client_is_missing => Client::Missing,
        Known::Absent => Client::Unusable(client_secret::not_found(
            &subject.client.to_string(),
            &subject.credential.spec.client_credentials_ref,
        )),
        Known::Present(seen) if memory.proven_client.as_ref() == Some(&seen.version) => Client::Unread {
            version: match target {
                Target::Ours(Held { stamp: Some(stamp), .. }) => Some(stamp.client_version.clone()),
                _ => None,
            },
        },
        Known::Present(seen) => Client::Unread { version: Some(seen.version.clone()) },
    }
}

fn inputs(subject: &Subject<'_>, epoch: u32, client: (&Known, Option<&Refusal>), target: &Target) -> u32 {
    let client = match client {
        (_, Some(refusal)) => &refusal.message,
        (Known::Unknown, None) => "unknown",
        (Known::Absent, None) => "absent",
        (Known::Present(seen), None) => &seen.version,
    };
    let target = match target {
        // that it was read since is no reason for another attempt
        Target::Unread | Target::Presumed | Target::Absent => "absent",
        Target::Foreign(refusal) => &refusal.message,
        Target::Ours(_) => "ours",
    };
    let generation = subject.credential.metadata.generation.unwrap_or_default().to_string();
    digest::short([&generation, &epoch.to_string(), client, target])
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
pub fn next_change(facts: &Facts, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let stamp = facts.held_for_spec()?;
    // a token with exactly the minimum validity left is still good: look a moment later
    let restart = facts.restart.as_ref().and_then(|restart| restart.not_before);
    let falls_below = stamp.expires_at - facts.desired.policy.minimum_validity + TimeDelta::milliseconds(1);
    [Some(falls_below), Some(stamp.expires_at), restart].into_iter().flatten().filter(|at| *at > now).min()
}
