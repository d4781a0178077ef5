//! Names inside the Secret that the operator writes: data keys, labels and annotations.

/// The raw access token.
pub const ACCESS_TOKEN: &str = "access_token";
/// `Bearer <token>`: the value of an `Authorization` header.
pub const AUTHORIZATION: &str = "authorization";
/// The token's type as the authority named it (RFC 6749 section 7.1).
pub const TOKEN_TYPE: &str = "token_type";
/// When the token expires, RFC 3339 in UTC.
pub const EXPIRES_AT: &str = "expires_at";
/// Granted scopes, separated by spaces.
pub const SCOPE: &str = "scope";
/// The authority's issuer identifier.
pub const ISSUER: &str = "issuer";
/// Every key that each generated Secret holds.
pub const DATA_KEYS: [&str; 6] = [ACCESS_TOKEN, AUTHORIZATION, TOKEN_TYPE, EXPIRES_AT, SCOPE, ISSUER];

/// Label with the operator's name, by which generated Secrets can be listed.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label with the credential's name, or a digest of it where the name is longer than a label may be. For people who list
/// Secrets: no decision rests on it, since another credential's name may equal the digest.
pub const CREDENTIAL: &str = "credentials.itwin.dev/credential";

/// UID of the credential that owns the Secret.
pub const OWNER_UID: &str = "credentials.itwin.dev/owner-uid";
/// `<namespace>/<name>` of the credential that owns the Secret: by it a copy elsewhere is known as one, and a credential
/// that was created again knows what the one before it left behind.
pub const OWNER: &str = "credentials.itwin.dev/owner";
/// Digest of what the token was asked for.
pub const REQUEST: &str = "credentials.itwin.dev/request-fingerprint";
/// Digest of the client's credentials, keyed by the token, so that it tells nothing to who cannot read the token.
pub const CLIENT: &str = "credentials.itwin.dev/client-fingerprint";
/// `<uid>/<resourceVersion>` of the client Secret that the token was asked with.
pub const CLIENT_VERSION: &str = "credentials.itwin.dev/client-version";
/// Digest of the templates by which keys were rendered; absent where there were none.
pub const TEMPLATE: &str = "credentials.itwin.dev/template-fingerprint";
/// On the pod template of a workload that was restarted: when the token was issued for which it was.
pub const RESTARTED_FOR: &str = "credentials.itwin.dev/restarted-for-token-of";
/// Digest of the written `data` and of what the annotations tell of it, by which a hand edit is told from our own
/// content.
pub const CONTENT: &str = "credentials.itwin.dev/content-fingerprint";
/// The issuer that the token came from.
pub const ISSUER_ANNOTATION: &str = "credentials.itwin.dev/issuer";
/// The client that the token was issued to; an identifier, not a secret.
pub const CLIENT_ID: &str = "credentials.itwin.dev/client-id";
/// The scopes that the token was granted, separated by spaces.
pub const GRANTED: &str = "credentials.itwin.dev/scope";
/// When the request for the token was sent.
pub const ISSUED_AT: &str = "credentials.itwin.dev/issued-at";
/// When the token expires.
pub const EXPIRES_AT_ANNOTATION: &str = "credentials.itwin.dev/expires-at";
/// Digest of the value of [`RENEW`] that the credential had when the token was written: a renewal on request that was
/// carried out is not carried out again by who starts before the status tells of it.
pub const RENEWED_FOR: &str = "credentials.itwin.dev/renewed-for";
/// The annotations that are written with a token, and tell of it.
pub const TOKEN_METADATA: [&str; 8] =
    [REQUEST, CLIENT, CLIENT_VERSION, CLIENT_ID, GRANTED, ISSUER_ANNOTATION, ISSUED_AT, EXPIRES_AT_ANNOTATION];
/// Put on an existing Secret by its owner: the credential of this name may take it over.
pub const ADOPT: &str = "credentials.itwin.dev/adopt";

/// Put on a credential by a user: a new value asks for a new token now.
pub const RENEW: &str = "credentials.itwin.dev/renew";
/// In memory only, on a credential whose [`RENEW`] was too long to be kept.
pub const RENEW_TOO_LONG: &str = "credentials.itwin.dev/renew-too-long";

/// All labels and annotations above: however many others a Secret has, these are read.
pub const OUR_OWN: [&str; 17] = [
    MANAGED_BY,
    CREDENTIAL,
    OWNER,
    OWNER_UID,
    REQUEST,
    CLIENT,
    CLIENT_VERSION,
    TEMPLATE,
    RESTARTED_FOR,
    CONTENT,
    ISSUER_ANNOTATION,
    CLIENT_ID,
    GRANTED,
    ISSUED_AT,
    EXPIRES_AT_ANNOTATION,
    RENEWED_FOR,
    ADOPT,
];

/// Whether a label or annotation is the operator's own, which no template may name.
#[must_use]
pub fn is_our_own(key: &str) -> bool {
    key == MANAGED_BY || key.starts_with("credentials.itwin.dev/")
}

/// The longest value a label may have.
const LABEL_VALUE_MAX: usize = 63;

/// The value of the [`CREDENTIAL`] label for a credential of this name.
///
/// A name that is too long is cut and given a digest, so that two long names never share one value.
#[must_use]
pub fn credential_label(name: &str) -> String {
    if name.len() <= LABEL_VALUE_MAX {
        return name.to_owned();
    }
    let digest = crate::digest::sha256_hex([name]);
    format!("{}-{}", name[..46].trim_end_matches(['-', '.']), &digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_and_annotation_of_a_secret_is_listed() {
        let code = include_str!("secret_keys.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let values = code.lines().filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1));
        let mut named: Vec<&str> =
            values.filter(|value| is_our_own(value) && ![RENEW, RENEW_TOO_LONG].contains(value)).collect();
        let mut listed = OUR_OWN.to_vec();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed);
    }

    #[test]
    fn short_name_is_its_own_label() {
        assert_eq!(credential_label("render-agent"), "render-agent");
    }

    #[test]
    fn long_names_that_share_a_prefix_get_different_labels_of_legal_length() {
        let (a, b) = (credential_label(&"a".repeat(253)), credential_label(&"a".repeat(252)));
        assert_ne!(a, b);
        assert!(a.len() <= LABEL_VALUE_MAX && b.len() <= LABEL_VALUE_MAX);
    }
}
