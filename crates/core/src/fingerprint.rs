//! Digests by which a restarted operator recognizes its own writes without storing a secret.

use aws_lc_rs::{digest, hmac};
use itwin_api::{
    credential::{ClientCredentialsRef, CredentialSpec},
    digest::{framed, hex, sha256_hex},
};
use itwin_oauth::sensitive::Sensitive;

/// Digest of a token request without client and authority. Order is irrelevant: scopes and resources are sets.
///
/// It covers only what affects the token. Otherwise a change of `renewBefore`, for example, would cause a token request
/// (hashicorp/vault-secrets-operator#1051).
#[must_use]
pub fn request(spec: &CredentialSpec) -> String {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let (scopes, resources) = (sorted(&spec.scopes), sorted(&spec.resources));
    let parts = [spec.grant_type.as_str(), "scopes"]
        .into_iter()
        .chain(scopes.iter().map(String::as_str))
        .chain(["resources"])
        .chain(resources.iter().map(String::as_str))
        // only where there is one, so that tokens of earlier versions stay those of their requests; no resource is this
        .chain(spec.audience.iter().flat_map(|audience| ["audience", audience]));
    sha256_hex(parts)
}

/// Digest of the client Secret's name with the keys that are read of it, as the token Secret records it.
#[must_use]
pub fn client_reference(keys: &ClientCredentialsRef) -> String {
    sha256_hex([client_reference_text(keys).as_str()])
}

/// The client Secret with the keys that are read of it: one Secret can hold several clients. When the credentials expire
/// is no part of them.
#[must_use]
pub fn client_reference_text(keys: &ClientCredentialsRef) -> String {
    let names = [&keys.client_id_key, &keys.client_secret_key, &keys.private_key_key, &keys.username_key];
    let names = names.into_iter().chain([&keys.password_key]).map(String::as_str);
    // named only where they differ from the default, so that the reference is that of earlier versions
    let defaults = [(&keys.key_id_key, "key_id"), (&keys.certificate_key, "certificate")];
    let renamed =
        defaults.iter().filter(|(key, default)| key != default).map(|(key, default)| format!(",{default}={key}"));
    // neither a name nor a key holds a slash, a comma or an equals sign
    let names = names.collect::<Vec<_>>().join(",");
    format!("{}/{names}{}", keys.name, renamed.collect::<String>())
}

/// Digest of the renew annotation, whose value users choose.
#[must_use]
pub fn renewal(value: &str) -> String {
    sha256_hex([value])
}

/// Digest of the client's credentials, keyed by the token that was issued for them.
///
/// Anyone who can read annotations could guess a weak password from a plain digest. The key makes the digest useless
/// without the token, which only readers of the Secret's data have.
#[must_use]
pub fn client<'a>(token: &Sensitive, material: impl IntoIterator<Item = &'a str>) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    framed(material, |bytes| context.update(bytes));
    hex(context.sign().as_ref())
}

/// Digest of a token, kept in memory alone.
#[must_use]
pub fn token(token: &Sensitive) -> String {
    sha256_hex(["token", token.expose()])
}

/// Digest of the content of a Secret, in the order of its keys. The content includes the token, so that it cannot be
/// guessed from the digest.
#[must_use]
pub fn content<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for (key, value) in data {
        context.update(&(key.len() as u64).to_be_bytes());
        context.update(key.as_bytes());
        context.update(&(value.len() as u64).to_be_bytes());
        context.update(value);
    }
    hex(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_renewals_are_distinct_and_short_for_any_value() {
        assert_eq!(renewal("1"), renewal("1"));
        assert_ne!(renewal("1"), renewal("2"));
        assert_eq!(renewal(&"x".repeat(100_000)).len(), renewal("1").len());
    }

    fn spec(scopes: &[&str]) -> CredentialSpec {
        serde_json::from_value(serde_json::json!({
            "clientCredentialsRef": {"name": "client"},
            "scopes": scopes,
        }))
        .expect("a valid spec")
    }

    #[test]
    fn order_of_scopes_does_not_change_the_digest() {
        assert_eq!(request(&spec(&["a", "b"])), request(&spec(&["b", "a"])));
    }

    #[test]
    fn one_joined_scope_differs_from_two_scopes() {
        assert_ne!(request(&spec(&["ab"])), request(&spec(&["a", "b"])));
    }

    #[test]
    fn audience_changes_the_digest_and_is_no_resource() {
        let with = |audience: Option<&str>, resources: &[&str]| {
            let mut spec = spec(&["a"]);
            spec.audience = audience.map(str::to_owned);
            spec.resources = resources.iter().map(|resource| (*resource).to_owned()).collect();
            request(&spec)
        };
        assert_ne!(with(None, &[]), with(Some("https://a"), &[]));
        assert_ne!(with(Some("https://b"), &[]), with(Some("https://a"), &[]));
        assert_ne!(with(None, &["https://a"]), with(Some("https://a"), &[]));
    }

    #[test]
    fn digest_of_a_request_is_that_of_earlier_versions() {
        let expected = "0a3a34267805d8b20ba7bf1efb4be308bd3a987f6a5802c8308a23992d1f36cc";
        assert_eq!(request(&spec(&["a"])), expected);
    }

    #[test]
    fn renewal_policy_does_not_change_the_digest() {
        let mut other = spec(&["a"]);
        other.renew_before_percentage = Some(10);
        assert_eq!(request(&spec(&["a"])), request(&other));
    }

    #[test]
    fn client_digest_depends_on_token_and_secret() {
        let token = Sensitive::new("token".into());
        let digest = client(&token, ["id", "secret"]);
        assert_eq!(digest, client(&token, ["id", "secret"]));
        assert_ne!(digest, client(&token, ["id", "other"]));
        assert_ne!(digest, client(&token, ["ids", "ecret"]));
        assert_ne!(digest, client(&Sensitive::new("other".into()), ["id", "secret"]));
    }
}
