//! The annotations that describe a token, where others removed some before a process began: nothing that it remembers
//! verifies the token then.
//!
//! The digest in the annotations covers the data and what describes it. What was removed can be guessed from the spec, the
//! client Secret and the data, and the time of issue from the status, which anyone may have edited: a guess counts only if
//! its digest is the one that is there. Where that digest is what was removed, the token must be the key of the digest of
//! the client's credentials, and the data must repeat what the annotations say.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use itwin_api::{credential::ITwinServiceCredential, secret_keys, time};

use crate::{
    desired_secret::{self, Data},
    fingerprint,
    object::ObjectVersion,
    token::BEARER,
};

/// The annotations of a Secret.
pub type Annotations = BTreeMap<String, String>;

/// What the annotations may have said.
#[derive(Clone, Copy)]
pub struct Guess<'a> {
    /// The credential.
    pub credential: &'a ITwinServiceCredential,
    /// Digest of the client's credentials as they are now, keyed by the token.
    pub client_fingerprint: &'a str,
    /// The version that the client Secret has now.
    pub client_version: &'a ObjectVersion,
    /// Client identifier, if it may be shown.
    pub client_id: Option<&'a str>,
    /// When the token was issued.
    pub issued_at: Option<DateTime<Utc>>,
}

/// Whether annotations are missing that [`restored`] may restore: either what describes the token, or its digest.
#[must_use]
pub fn may_be_restored(annotations: &Annotations) -> bool {
    let is_described = secret_keys::TOKEN_METADATA.iter().all(|key| annotations.contains_key(*key));
    annotations.contains_key(secret_keys::CONTENT) != is_described
}

/// The annotations with what described the token of this data; `None` where that cannot be verified.
#[must_use]
pub fn restored(data: &Data, annotations: &Annotations, guess: &Guess<'_>) -> Option<Annotations> {
    let Some(digest) = annotations.get(secret_keys::CONTENT) else {
        let is_of_client =
            annotations.get(secret_keys::CLIENT).is_some_and(|client| client == guess.client_fingerprint);
        return (is_of_client && repeats(data, annotations)).then(|| annotations.clone());
    };
    let mut guessed = annotations.clone();
    for (key, value) in guesses(data, guess) {
        guessed.entry(key.to_owned()).or_insert(value);
    }
    let data = desired_secret::without_extra_keys(data, guess.credential.spec.secret_template.as_ref());
    (desired_secret::digest(&data, &guessed) == *digest).then_some(guessed)
}

/// What each annotation may have been, as far as that is known.
fn guesses(data: &Data, guess: &Guess<'_>) -> impl Iterator<Item = (&'static str, String)> {
    let spec = &guess.credential.spec;
    let text = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok());
    let guesses = [
        (secret_keys::REQUEST, Some(fingerprint::request(spec))),
        (secret_keys::CLIENT, Some(guess.client_fingerprint.to_owned())),
        (secret_keys::CLIENT_VERSION, Some(guess.client_version.to_string())),
        (secret_keys::CLIENT_REFERENCE, Some(fingerprint::client_reference(&spec.client_credentials_ref))),
        (secret_keys::AUTHORITY, Some(spec.authority_ref.name.clone())),
        (secret_keys::CLIENT_ID, Some(guess.client_id.unwrap_or_default().to_owned())),
        (secret_keys::GRANTED, text(secret_keys::SCOPE)),
        (secret_keys::ISSUER_ANNOTATION, text(secret_keys::ISSUER)),
        (secret_keys::ISSUED_AT, guess.issued_at.map(time::to_rfc3339)),
        (secret_keys::EXPIRES_AT_ANNOTATION, text(secret_keys::EXPIRES_AT)),
    ];
    guesses.into_iter().filter_map(|(key, value)| Some((key, value?)))
}

/// Whether the data says of its token what the annotations say.
fn repeats(data: &Data, annotations: &Annotations) -> bool {
    let is = |key: &str, text: &[u8]| data.get(key).is_some_and(|value| value.0 == text);
    let is_same =
        |key: &str, annotation: &str| annotations.get(annotation).is_some_and(|text| is(key, text.as_bytes()));
    let token = data.get(secret_keys::ACCESS_TOKEN).map_or(&[][..], |token| token.0.as_slice());
    let header = [BEARER.as_bytes(), &b" "[..], token].concat();
    is(secret_keys::AUTHORIZATION, &header)
        && is(secret_keys::TOKEN_TYPE, BEARER.as_bytes())
        && is_same(secret_keys::EXPIRES_AT, secret_keys::EXPIRES_AT_ANNOTATION)
        && is_same(secret_keys::SCOPE, secret_keys::GRANTED)
        && is_same(secret_keys::ISSUER, secret_keys::ISSUER_ANNOTATION)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use k8s_openapi::ByteString;

    use super::*;
    use crate::{samples, token::Content};

    /// A token that was issued for the credential.
    fn content(credential: &ITwinServiceCredential) -> Content {
        let mut content = samples::content();
        let spec = &credential.spec;
        content.token_metadata.request = fingerprint::request(spec).into();
        content.token_metadata.authority = Some(spec.authority_ref.name.as_str().into());
        content.token_metadata.client_reference =
            Some(fingerprint::client_reference(&spec.client_credentials_ref).into());
        content
    }

    /// Data and annotations as they were written.
    fn written(credential: &ITwinServiceCredential) -> (Data, Annotations) {
        let content = content(credential);
        let data = desired_secret::data(credential, &content).expect("a valid template");
        let annotations = desired_secret::all_annotations(credential, &content, &data);
        (data, annotations)
    }

    fn set(data: &mut Data, key: &str, value: &str) {
        data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
    }

    #[test]
    fn annotations_that_were_removed_before_a_start_are_restored_where_the_digest_verifies_them() {
        let credential = samples::templated("token {{ access_token }}");
        let (mut data, annotations) = written(&credential);
        let content = content(&credential);
        let guess = Guess {
            credential: &credential,
            client_fingerprint: &content.client_fingerprint,
            client_version: &content.token_metadata.client_version,
            client_id: content.description.client_id.as_deref(),
            issued_at: Some(content.token_metadata.issued_at),
        };
        let mut stripped = annotations.clone();
        stripped.retain(|key, _| !secret_keys::TOKEN_METADATA.contains(&key.as_str()));
        assert!(may_be_restored(&stripped) && !may_be_restored(&annotations));
        set(&mut data, "added", "by others");
        assert_eq!(restored(&data, &stripped, &guess).as_ref(), Some(&annotations));
        let mut one = annotations.clone();
        one.remove(secret_keys::ISSUED_AT);
        assert_eq!(restored(&data, &one, &guess).as_ref(), Some(&annotations));

        let other_version = ObjectVersion::new("uid", "2");
        let later = guess.issued_at.map(|at| at + TimeDelta::seconds(1));
        for (number, wrong) in [
            Guess { issued_at: later, ..guess },
            Guess { issued_at: None, ..guess },
            Guess { client_fingerprint: "rotated", ..guess },
            Guess { client_version: &other_version, ..guess },
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(restored(&data, &stripped, &wrong), None, "row {number}");
        }
        let mut edited = stripped.clone();
        edited.insert(secret_keys::EXPIRES_AT_ANNOTATION.to_owned(), "2099-01-01T00:00:00Z".to_owned());
        assert_eq!(restored(&data, &edited, &guess), None, "what was changed is not restored");
        set(&mut data, secret_keys::ACCESS_TOKEN, "another");
        assert_eq!(restored(&data, &stripped, &guess), None);
        let mut all = stripped;
        all.remove(secret_keys::CONTENT);
        assert!(!may_be_restored(&all), "nothing is left that verifies anything");
    }

    #[test]
    fn token_whose_digest_alone_was_removed_before_a_start_is_verified_by_its_client_and_its_data() {
        let credential = samples::templated("token {{ access_token }}");
        let (data, mut annotations) = written(&credential);
        let content = content(&credential);
        let guess = Guess {
            credential: &credential,
            client_fingerprint: &content.client_fingerprint,
            client_version: &ObjectVersion::new("uid", "2"),
            client_id: None,
            issued_at: None,
        };
        annotations.remove(secret_keys::CONTENT);
        assert!(may_be_restored(&annotations));
        assert_eq!(restored(&data, &annotations, &guess).as_ref(), Some(&annotations));
        let rotated = Guess { client_fingerprint: "rotated", ..guess };
        assert_eq!(restored(&data, &annotations, &rotated), None);
        for key in secret_keys::DATA_KEYS {
            let mut tampered = data.clone();
            set(&mut tampered, key, "another");
            assert_eq!(restored(&tampered, &annotations, &guess), None, "{key}");
        }
        annotations.insert(secret_keys::EXPIRES_AT_ANNOTATION.to_owned(), "2099-01-01T00:00:00Z".to_owned());
        assert_eq!(restored(&data, &annotations, &guess), None, "the data says another time");
    }
}
