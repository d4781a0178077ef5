//! What is read of Secrets during one reconcile.

use std::collections::BTreeMap;

use itwin_api::{authority::ClientAuthentication, credential::ITwinServiceCredential, secret_keys};
use itwin_core::{
    desired_secret,
    failure::Failure,
    last_held::LastHeld,
    object::{ObjectKey, ObjectVersion},
    token::Content,
};
use itwin_oauth::{sensitive::Sensitive, token::ClientCredentials};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Resource};

use super::{
    references::References,
    secret_reads::{read_not_older, read_whole},
    undescribed::Undescribed,
};
use crate::{
    cluster::{CallError, Cluster, Step, identified},
    observe::{
        client_secret::ClientMaterial,
        index::{Known, KnownAtRead, SecretIndex},
        metadata::PartialSecret,
        target::{self, SecretMetadata},
    },
};

/// What was read during one reconcile.
#[derive(Default)]
pub struct FetchedSecrets {
    /// The client Secret.
    pub client: Option<FetchedClient>,
    /// The client Secret was to be read, and there is none.
    pub client_is_missing: bool,
    /// The Secret to write.
    pub target: Option<FetchedTarget>,
    /// The Secret to write was not read, since the watch shows that there is none ([`SecretIndex::is_presumed_absent`]).
    pub target_is_presumed_absent: bool,
}

impl FetchedSecrets {
    /// What is known of the Secret to write. What is presumed counts in one reconcile, and only as long as nothing is known.
    #[must_use]
    pub fn known_target(&self, index: &SecretIndex, target: &ObjectKey) -> Known {
        match index.get(target) {
            Known::Unknown if self.target_is_presumed_absent => Known::Absent,
            known => known,
        }
    }
}

/// The client Secret as it was read.
pub struct FetchedClient {
    /// Its version.
    pub version: ObjectVersion,
    /// What a request needs of its content, or why it is of no use.
    pub content: Result<ClientCredentials, Failure>,
    /// All of its content.
    pub material: ClientMaterial,
    /// Whether the token in the Secret was requested with the same content.
    pub same_as_held: Option<bool>,
}

/// The Secret to write as it was read.
pub struct FetchedTarget {
    /// Its version.
    pub version: ObjectVersion,
    /// Its data is what we wrote.
    pub is_ours: bool,
    /// Its token at least is the one that we wrote, whatever else was changed.
    pub is_token_intact: bool,
    /// All that we are to write again for that token, where that is known.
    pub content: Option<Box<Content>>,
    /// It is known from memory, and the annotations do not count.
    pub is_remembered: bool,
    /// What is to be remembered of it.
    pub held: Option<LastHeld>,
    /// Its data; where it is what we wrote, with the values of the keys that every Secret has, and with no others.
    pub data: desired_secret::Data,
    /// The operator's own annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its type.
    pub type_: String,
    /// It cannot be changed.
    pub immutable: bool,
    /// The client's fingerprint that stands in it, and the token that is its key.
    pub client_fingerprint: Option<(String, Sensitive)>,
    /// What may verify its token together with the client Secret, where annotations were removed.
    pub undescribed: Option<Box<Undescribed>>,
}

impl FetchedTarget {
    /// Whether its token was requested with these client's credentials; `None` if it does not record with which.
    #[must_use]
    pub fn is_of(&self, client: &ClientMaterial) -> Option<bool> {
        self.client_fingerprint.as_ref().map(|(fingerprint, token)| *fingerprint == client.fingerprint(token))
    }

    /// Its token was written with this content, whatever its annotations say.
    pub fn describe(&mut self, content: Content) {
        self.client_fingerprint = Some((content.client_fingerprint.to_string(), content.token.clone()));
        (self.is_token_intact, self.is_remembered) = (true, true);
        self.content = Some(Box::new(content));
    }
}

/// Reads the metadata of a Secret into the index.
///
/// # Errors
/// Those of the call, except for a missing Secret.
pub async fn read_metadata(cluster: &Cluster, index: &SecretIndex, key: &ObjectKey) -> Result<(), CallError> {
    let api: Api<PartialSecret> = Api::namespaced(cluster.client.clone(), &key.namespace);
    let known = index.read_begins(key);
    let read = async { identified(api.get(&key.name).await?, PartialSecret::meta, Some(&key.namespace), &key.name) };
    match cluster.call(Step::GetSecretMetadata, read).await {
        Ok(secret) => index.observe_read(key, SecretMetadata::new(&secret.read()), known),
        Err(CallError::NotFound) => drop(index.observe_absence(key, None)),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Reads the Secret to write, with its data.
///
/// # Errors
/// Those of the call, except for a missing Secret.
pub async fn read_target(
    cluster: &Cluster,
    index: &SecretIndex,
    references: &References<'_>,
    last: Option<&LastHeld>,
) -> Result<Option<FetchedTarget>, CallError> {
    let known = index.read_begins(&references.target);
    let mut secret = match read_whole(cluster, Step::GetTarget, &references.target).await {
        Ok(secret) => secret,
        Err(CallError::NotFound) => {
            index.observe_absence(&references.target, None);
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let secret_metadata = SecretMetadata::new(&secret.metadata);
    let version = secret_metadata.version.clone();
    let is_ours = target::is_what_we_wrote(&secret);
    let token = target::token(&secret);
    let recorded = target::last_held(&secret_metadata, &secret, token.as_ref());
    index.observe_read(&references.target, secret_metadata, known);
    let template = references.credential.spec.secret_template.as_ref();
    let tampered = token.filter(|_| !is_ours);
    let remembered = tampered
        .as_ref()
        .zip(last)
        .and_then(|(token, last)| last.content(token).or_else(|| last.sealed_content(token, references.credential)));
    let is_remembered = remembered.is_some();
    let content = remembered.or_else(|| {
        let content = recorded.as_ref()?.content(tampered.as_ref()?)?;
        is_recorded(references.credential, &content, &secret).then_some(content)
    });
    let is_token_intact = is_ours || content.is_some() || target::is_ours_except_for_extra_keys(&secret, template);
    let held = recorded.filter(|_| is_ours);
    let undescribed = tampered.as_ref().filter(|_| !is_token_intact);
    let undescribed = undescribed.and_then(|token| Undescribed::new(&secret, token)).map(Box::new);
    let mut annotations = secret.metadata.annotations.take().unwrap_or_default();
    annotations.retain(|key, _| secret_keys::OUR_OWN.contains(&key.as_str()));
    // what is remembered counts where others removed the annotations
    let of_content = content.as_ref().filter(|_| is_remembered).map(|content| content.client_fingerprint.to_string());
    let fingerprint = of_content.or_else(|| annotations.get(secret_keys::CLIENT).cloned());
    let mut data = secret.data.take().unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok());
    let client_fingerprint = fingerprint.zip(text(secret_keys::ACCESS_TOKEN).map(Sensitive::new));
    // while a token is requested it is enough to know of the others that they are there
    for (_, value) in
        data.iter_mut().filter(|(key, _)| !is_token_intact || !secret_keys::DATA_KEYS.contains(&key.as_str()))
    {
        *value = ByteString::default();
    }
    Ok(Some(FetchedTarget {
        version,
        is_ours,
        is_token_intact,
        content: content.map(Box::new),
        is_remembered,
        held,
        data,
        annotations,
        type_: secret.type_.unwrap_or_default(),
        immutable: secret.immutable == Some(true),
        client_fingerprint,
        undescribed,
    }))
}

/// Whether the annotations of a Secret are those that were written with this content, which was read from them. Then
/// its token is the one that was written, whatever became of its other keys.
fn is_recorded(credential: &ITwinServiceCredential, content: &Content, secret: &Secret) -> bool {
    let Some(annotations) = &secret.metadata.annotations else { return false };
    let written = desired_secret::data(credential, content).ok();
    let digest = written.map(|data| desired_secret::digest(&data, annotations));
    digest.is_some() && digest.as_ref() == annotations.get(secret_keys::CONTENT)
}

/// Reads the client Secret for the authority's `method`, and compares it with what the held token was requested with. It is
/// read as it is now, or not older than a version that is known; `known` is what was known before that was looked up.
///
/// # Errors
/// Those of the call, except for a missing Secret.
pub async fn read_client(
    cluster: &Cluster,
    index: &SecretIndex,
    references: &References<'_>,
    (held, method): (Option<&FetchedTarget>, ClientAuthentication),
    (known, not_older_than): (KnownAtRead, Option<u64>),
) -> Result<Option<FetchedClient>, CallError> {
    let (step, key) = (Step::GetClientSecret, &references.client);
    let read = match not_older_than {
        Some(version) => read_not_older(cluster, step, key, version).await,
        None => read_whole(cluster, step, key).await,
    };
    let secret = match read {
        Ok(secret) => secret,
        Err(CallError::NotFound) => {
            index.observe_absence(&references.client, None);
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let secret_metadata = SecretMetadata::new(&secret.metadata);
    let version = secret_metadata.version.clone();
    index.observe_read(&references.client, secret_metadata, known);
    let spec = &references.credential.spec;
    let material = ClientMaterial::new(secret, &spec.client_credentials_ref, references.client.to_string());
    let content = material.credentials(method, spec.grant_type);
    let same_as_held = held.and_then(|held| held.is_of(&material));
    Ok(Some(FetchedClient { version, content, material, same_as_held }))
}

#[cfg(test)]
mod tests {
    use itwin_core::samples::{content, templated};

    use super::*;

    /// Whether the token counts as the one that was written, after this change of the Secret.
    fn is_recorded_after(change: fn(&mut Secret), template: &str) -> bool {
        let (written_for, content) = (templated("token {{ access_token }}"), content());
        let data = desired_secret::data(&written_for, &content).expect("a valid template");
        let annotations = desired_secret::all_annotations(&written_for, &content, &data);
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.annotations = Some(annotations);
        change(&mut secret);
        let token = target::token(&secret);
        let recorded = target::last_held(&SecretMetadata::new(&secret.metadata), &secret, token.as_ref());
        let content = recorded.zip(token).and_then(|(recorded, token)| recorded.content(&token));
        content.is_some_and(|content| is_recorded(&templated(template), &content, &secret))
    }

    #[test]
    fn token_is_recognized_by_intact_annotations_whatever_became_of_other_keys() {
        let template = "token {{ access_token }}";
        let harmless: [fn(&mut Secret); 4] = [
            |_| {},
            |secret| drop(secret.data.get_or_insert_default().insert("scope".into(), ByteString(b"all".to_vec()))),
            |secret| drop(secret.data.get_or_insert_default().remove("authorization")),
            |secret| drop(secret.data.get_or_insert_default().insert("header".into(), ByteString(b"none".to_vec()))),
        ];
        for (number, change) in harmless.into_iter().enumerate() {
            assert!(is_recorded_after(change, template), "row {number}");
        }
        let harmful: [fn(&mut Secret); 4] = [
            |secret| drop(secret.data.get_or_insert_default().insert("access_token".into(), ByteString(b"x".to_vec()))),
            |secret| drop(secret.data.get_or_insert_default().remove("access_token")),
            |secret| {
                let annotations = secret.metadata.annotations.get_or_insert_default();
                let later = "2099-01-01T00:00:00Z".to_owned();
                annotations.insert(secret_keys::EXPIRES_AT_ANNOTATION.to_owned(), later);
            },
            |secret| drop(secret.metadata.annotations.get_or_insert_default().remove(secret_keys::ISSUED_AT)),
        ];
        for (number, change) in harmful.into_iter().enumerate() {
            assert!(!is_recorded_after(change, template), "row {number}");
        }
        assert!(!is_recorded_after(|_| {}, "another"), "it was written for another template");
    }
}
