//! Names in the token Secret: data keys, labels and annotations.

/// The raw access token.
pub const ACCESS_TOKEN: &str = "access_token";
/// `Bearer <token>`: the value of an `Authorization` header.
pub const AUTHORIZATION: &str = "authorization";
/// The token's type as returned by the authority (RFC 6749 section 7.1).
pub const TOKEN_TYPE: &str = "token_type";
/// When the token expires, RFC 3339 in UTC.
pub const EXPIRES_AT: &str = "expires_at";
/// Granted scopes, separated by spaces.
pub const SCOPE: &str = "scope";
/// The authority's issuer identifier.
pub const ISSUER: &str = "issuer";
/// The keys of every token Secret.
pub const DATA_KEYS: [&str; 6] = [ACCESS_TOKEN, AUTHORIZATION, TOKEN_TYPE, EXPIRES_AT, SCOPE, ISSUER];

/// Label with the operator's name, for listing token Secrets.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label with the credential's name, or with a prefix and a digest of a name that is too long for a label. It is for
/// users who list Secrets. The operator never decides by it, since another credential's name may equal the digest.
pub const CREDENTIAL: &str = "credentials.itwin.dev/credential";

/// UID of the credential that owns the Secret.
pub const OWNER_UID: &str = "credentials.itwin.dev/owner-uid";
/// `<namespace>/<name>` of the credential that owns the Secret. It identifies a copy in another namespace, and the
/// Secret that a deleted credential of this name left behind.
pub const OWNER: &str = "credentials.itwin.dev/owner";
/// Digest of the token request.
pub const REQUEST: &str = "credentials.itwin.dev/request-fingerprint";
/// Digest of the client's credentials, keyed by the token: without the token it reveals nothing.
pub const CLIENT: &str = "credentials.itwin.dev/client-fingerprint";
/// `<uid>/<resourceVersion>` of the client Secret that the token was requested with.
pub const CLIENT_VERSION: &str = "credentials.itwin.dev/client-version";
/// Digest of the name of the client Secret and of the keys that were read of it.
pub const CLIENT_REFERENCE: &str = "credentials.itwin.dev/client-reference";
/// The name of the ITwinAuthority that the token came from.
pub const AUTHORITY: &str = "credentials.itwin.dev/authority";
/// Digest of the templates of the rendered keys; absent if there are none.
pub const TEMPLATE: &str = "credentials.itwin.dev/template-fingerprint";
/// When the token was issued for which every workload was restarted. On a pod template, with a suffix, see
/// [`restarted_for`].
pub const RESTARTED_FOR: &str = "credentials.itwin.dev/restarted-for";
/// The workloads that are left to be restarted for the token: first those of the spec when it was written, later those
/// that could not be restarted. Short digests, separated by commas. Those that were added to the spec since wait for the
/// next token. Absent where there were none.
pub const RESTART_TARGETS: &str = "credentials.itwin.dev/restart-targets";
/// On the pod template of a workload that an earlier version restarted: when the token was issued, of whichever
/// credential.
pub const RESTARTED_FOR_ANY: &str = "credentials.itwin.dev/restarted-for-token-of";
/// Digest of `data` and of the token metadata as written by the operator; it detects manual edits.
pub const CONTENT: &str = "credentials.itwin.dev/content-fingerprint";
/// The issuer of the token.
pub const ISSUER_ANNOTATION: &str = "credentials.itwin.dev/issuer";
/// The identifier of the client that the token was issued to; empty if it may be a secret.
pub const CLIENT_ID: &str = "credentials.itwin.dev/client-id";
/// The scopes that the token was granted, separated by spaces.
pub const GRANTED: &str = "credentials.itwin.dev/scope";
/// When the request for the token was sent.
pub const ISSUED_AT: &str = "credentials.itwin.dev/issued-at";
/// When the token expires.
pub const EXPIRES_AT_ANNOTATION: &str = "credentials.itwin.dev/expires-at";
/// Digest of the value of [`RENEW`] that the credential had when the token was written. It keeps another process from
/// repeating a renewal on request that the status does not show yet.
pub const RENEWED_FOR: &str = "credentials.itwin.dev/renewed-for";
/// The annotations that describe the token.
pub const TOKEN_METADATA: [&str; 10] = [
    REQUEST,
    CLIENT,
    CLIENT_VERSION,
    CLIENT_REFERENCE,
    AUTHORITY,
    CLIENT_ID,
    GRANTED,
    ISSUER_ANNOTATION,
    ISSUED_AT,
    EXPIRES_AT_ANNOTATION,
];
/// Set on an existing Secret by a user: the credential with this name may adopt it.
pub const ADOPT: &str = "credentials.itwin.dev/adopt";

/// Set on a credential by a user: a new value requests a renewal.
pub const RENEW: &str = "credentials.itwin.dev/renew";
/// In memory only, on a credential whose [`RENEW`] is too long to be kept.
pub const RENEW_TOO_LONG: &str = "credentials.itwin.dev/renew-too-long";

/// All labels and annotations above. They are read regardless of how many others a Secret has.
pub const OUR_OWN: [&str; 21] = [
    MANAGED_BY,
    CREDENTIAL,
    OWNER,
    OWNER_UID,
    REQUEST,
    CLIENT,
    CLIENT_VERSION,
    CLIENT_REFERENCE,
    AUTHORITY,
    TEMPLATE,
    RESTARTED_FOR,
    RESTART_TARGETS,
    RESTARTED_FOR_ANY,
    CONTENT,
    ISSUER_ANNOTATION,
    CLIENT_ID,
    GRANTED,
    ISSUED_AT,
    EXPIRES_AT_ANNOTATION,
    RENEWED_FOR,
    ADOPT,
];

/// Whether a label is reserved for the operator: no template may set it.
#[must_use]
pub fn is_our_own_label(key: &str) -> bool {
    key == MANAGED_BY || is_our_own_annotation(key)
}

/// Whether an annotation is reserved for the operator: no template may set it.
#[must_use]
pub fn is_our_own_annotation(key: &str) -> bool {
    key.starts_with("credentials.itwin.dev/")
}

/// The annotation of a pod template: when the token of the credential with this UID was issued for which the workload was
/// restarted last. Each credential has its own, so that two of them can restart the same workload.
#[must_use]
pub fn restarted_for(uid: &str) -> String {
    format!("{RESTARTED_FOR}.{:08x}", crate::digest::short([uid]))
}

/// The maximum length of a label value, in characters.
const LABEL_VALUE_MAX: usize = 63;

/// The value of the [`CREDENTIAL`] label for a credential of this name.
///
/// A name that is too long is truncated and gets a digest, so that two long names never have the same value.
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
            values.filter(|value| is_our_own_label(value) && ![RENEW, RENEW_TOO_LONG].contains(value)).collect();
        let mut listed = OUR_OWN.to_vec();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed);
    }

    #[test]
    fn each_credential_has_an_annotation_of_its_own_on_a_workload() {
        let (a, b) = (restarted_for("a"), restarted_for("b"));
        assert_ne!(a, b);
        let (_, name) = a.split_once('/').expect("a prefix");
        assert!(name.len() == "restarted-for.".len() + 8 && is_our_own_annotation(&a), "{a}");
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
