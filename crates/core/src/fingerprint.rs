//! Digests by which a restarted operator recognises its own work without keeping a secret anywhere.

use aws_lc_rs::{digest, hmac};
use itwin_api::{
    credential::CredentialSpec,
    digest::{framed, hex, sha256_hex},
};
use itwin_oauth::sensitive::Sensitive;

/// What a token is asked for, apart from who asks and whom. Order means nothing: scopes and resources are sets.
///
/// Only what changes the token belongs here; else a change of, say, `renewBefore` would ask for a new one
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
        .chain(resources.iter().map(String::as_str));
    sha256_hex(parts)
}

/// The value of the renew annotation: a user may write anything there, of any length.
#[must_use]
pub fn renewal(value: &str) -> String {
    sha256_hex([value])
}

/// The client's credentials, keyed by the token that they gave.
///
/// A plain digest of a weak password could be searched for by anyone who sees an annotation. The key makes it useless
/// without the token, which only readers of the Secret's data have.
#[must_use]
pub fn client<'a>(token: &Sensitive, material: impl IntoIterator<Item = &'a str>) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    framed(material, |bytes| context.update(bytes));
    hex(context.sign().as_ref())
}

/// The content of a Secret, in the order of its keys. It holds the token, so that the digest cannot be searched.
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
    fn renewals_are_distinct_and_short_whatever_the_user_wrote() {
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
    fn order_of_scopes_is_no_change() {
        assert_eq!(request(&spec(&["a", "b"])), request(&spec(&["b", "a"])));
    }

    #[test]
    fn joined_scopes_are_not_two_scopes() {
        assert_ne!(request(&spec(&["ab"])), request(&spec(&["a", "b"])));
    }

    #[test]
    fn renewal_policy_is_no_part_of_the_request() {
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
