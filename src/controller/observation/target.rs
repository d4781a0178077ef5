//! The observed state of the Secret that a credential writes.

use itwin_api::{
    credential::{DeletionPolicy, ITwinServiceCredential},
    secret_keys, time,
};
use itwin_core::{
    contenders::{self, Contender},
    desired_secret,
    object::ObjectKey,
    observed::{Authority, Desired, Held, Target},
    ownership,
    retry_state::RetryState,
    secret_state::{self, DataClues, MetadataClues, ReadData, TokenClues},
    template,
    token::TokenMetadata,
};
use kube::ResourceExt;

use crate::{
    controller::{fetched::FetchedSecrets, others::Others, references::References},
    observe::{index::Known, target::SecretMetadata},
};

/// The credential as one of those that name the same Secret.
pub(super) fn contender(credential: &ITwinServiceCredential) -> Contender {
    Contender {
        created_at: credential.metadata.creation_timestamp.as_ref().and_then(time::from_kubernetes),
        uid: credential.uid().unwrap_or_default(),
        name: credential.name_any(),
    }
}

/// What is known of the Secret that a credential writes, which wants this of an authority.
pub(super) fn target(
    references: &References<'_>,
    retry_state: &RetryState,
    fetched: &FetchedSecrets,
    known: &Known,
    others: &dyn Others,
    (desired, authority): (&Desired, &Authority),
) -> Target {
    let (ours, secret) = (contender(references.credential), &references.target.name);
    let older_reader = || contenders::older_reader(secret, &ours, &others.readers(&references.target));
    let secret_metadata = match known {
        Known::Unknown => {
            let last = retry_state.held_unread().cloned();
            return Target::Unread { last };
        }
        Known::Absent => {
            let failure =
                contenders::oldest_contender(secret, &ours, &others.writers(&references.target)).or_else(older_reader);
            return failure.map_or(Target::Absent, Target::NotOwned);
        }
        Known::Present(secret_metadata) => secret_metadata,
    };
    let read = read_data(fetched, secret_metadata);
    let token_clues = TokenClues {
        recorded: secret_metadata.token_metadata.as_ref(),
        remembered: retry_state.last_held().map(|held| &held.token_metadata),
        is_remembered: retry_state.holds_remembered(&secret_metadata.version),
    };
    let token = secret_state::token(read, &token_clues);
    let (token_metadata, _) = token;
    // one of an earlier spec counts for nothing, so that nothing is to be found out about it
    let counting = token_metadata.filter(|&token_metadata| desired.is_answered_by(token_metadata, authority));
    let clues = data_clues(references.credential, retry_state, secret_metadata, token, counting);
    let ObjectKey { namespace, name } = &references.key;
    let writer = ownership::Writer { namespace, name, uid: &references.uid };
    match ownership::owner(&secret_metadata.ownership, secret, &writer, &|uid| others.living(uid)) {
        ownership::Owner::Us => Target::Ours(Held {
            form: secret_state::form(read, &clues),
            token_metadata: token_metadata.cloned(),
            data: secret_state::integrity(read, &clues),
            drift: secret_state::drift(&metadata_clues(references.credential, secret_metadata, read)),
        }),
        ownership::Owner::Adoptable => {
            let clues = DataClues { has_token_metadata: false, ..clues };
            older_reader().map_or_else(|| Target::Adoptable(secret_state::form(read, &clues)), Target::NotOwned)
        }
        ownership::Owner::Other(failure) => Target::NotOwned(older_reader().unwrap_or(failure)),
    }
}

/// The Secret as it was read, if that was the version that is known of it.
fn read_data<'a>(fetched: &'a FetchedSecrets, secret_metadata: &SecretMetadata) -> Option<ReadData<'a>> {
    let read = fetched.target.as_ref().filter(|read| read.version == secret_metadata.version)?;
    Some(ReadData {
        is_ours: read.is_ours,
        is_token_intact: read.is_token_intact,
        is_remembered: read.is_remembered,
        is_immutable: read.immutable,
        type_: &read.type_,
    })
}

fn data_clues<'a>(
    credential: &ITwinServiceCredential,
    retry_state: &'a RetryState,
    secret_metadata: &SecretMetadata,
    (token_metadata, is_undescribed): (Option<&TokenMetadata>, bool),
    counting: Option<&TokenMetadata>,
) -> DataClues<'a> {
    let template = credential.spec.secret_template.as_ref();
    DataClues {
        is_verified_version: retry_state.is_target_verified(&secret_metadata.version),
        // with fewer than these keys, others took some away
        sole_writer_of: secret_metadata
            .sole_writer_of
            .filter(|written| *written >= secret_keys::DATA_KEYS.len() && retry_state.vouches_for(counting)),
        keys_written: secret_keys::DATA_KEYS.len() + template.map_or(0, |template| template.data.len()),
        may_be_immutable: secret_metadata.may_be_immutable,
        is_template_current: template::is_current(secret_metadata.template.as_deref(), template),
        has_token_metadata: token_metadata.is_some() && !is_undescribed,
        is_disproved: retry_state.is_disproved(&secret_metadata.version),
        is_token_untrusted: retry_state.distrusts_token(counting),
        is_undescribed,
        type_: retry_state.target_type(&secret_metadata.version),
    }
}

fn metadata_clues(
    credential: &ITwinServiceCredential,
    secret_metadata: &SecretMetadata,
    read: Option<ReadData<'_>>,
) -> MetadataClues {
    let (labels, annotations) = (desired_secret::labels(credential), desired_secret::annotations(credential));
    let template = credential.spec.secret_template.as_ref();
    let wants_owner = credential.spec.deletion_policy == DeletionPolicy::Delete;
    MetadataClues {
        has_owner: if wants_owner {
            let (name, uid) = (credential.name_any(), credential.uid().unwrap_or_default());
            secret_metadata.ownership.controller.as_ref().is_some_and(|owner| owner.is_credential(&name, &uid))
        } else {
            // garbage collection waits for an owner that is no controller too
            secret_metadata.ownership.is_referenced_by(&credential.uid().unwrap_or_default())
        },
        wants_owner,
        is_template_current: template::is_current(secret_metadata.template.as_deref(), template),
        carries_desired: secret_metadata.carries(&labels, &annotations),
        has_leftovers: !secret_metadata.leftovers(&labels, &annotations).is_empty(),
        is_data_tampered: read.is_some_and(|read| read.is_token_intact && !read.is_ours),
    }
}

#[cfg(test)]
mod tests;
