//! The paths of objects. Names come from objects too, in which an older schema may have accepted anything.

use crate::problem::Problem;

/// The longest name of an object (RFC 1123 subdomain).
const NAME_MAX: usize = 253;

/// A name as one segment of a path, which leads nowhere else.
fn segment(name: &str) -> String {
    if name.bytes().all(|byte| byte == b'.') { name.replace('.', "%2E") } else { encoded(name) }
}

/// The credentials of a namespace, or of all.
#[must_use]
pub fn credentials(namespace: Option<&str>) -> String {
    namespaced("apis/credentials.itwin.dev/v1alpha1", namespace, "itwinservicecredentials")
}

/// A credential.
#[must_use]
pub fn credential(namespace: &str, name: &str) -> String {
    format!("{}/{}", credentials(Some(namespace)), segment(name))
}

/// An authority.
#[must_use]
pub fn authority(name: &str) -> String {
    format!("/apis/credentials.itwin.dev/v1alpha1/itwinauthorities/{}", segment(name))
}

/// A Namespace.
#[must_use]
pub fn namespace(name: &str) -> String {
    format!("/api/v1/namespaces/{}", segment(name))
}

/// A Secret.
#[must_use]
pub fn secret(namespace: &str, name: &str) -> String {
    named("api/v1", namespace, "secrets", name)
}

/// An object of a kind in a namespace.
#[must_use]
pub fn named(group: &str, namespace: &str, kind: &str, name: &str) -> String {
    format!("{}/{}", namespaced(group, Some(namespace), kind), segment(name))
}

/// Objects of a kind in a namespace, or in all.
#[must_use]
pub fn namespaced(group: &str, namespace: Option<&str>, kind: &str) -> String {
    match namespace {
        Some(namespace) => format!("/{group}/namespaces/{}/{kind}", segment(namespace)),
        None => format!("/{group}/{kind}"),
    }
}

/// A name of an object or a namespace that may be a part of a path.
///
/// # Errors
/// What a name consists of.
pub fn checked(name: &str) -> Result<&str, Problem> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_bounded = (1..=NAME_MAX).contains(&name.len());
    if is_bounded && name.chars().all(legal) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(name);
    }
    let shown: String = name.chars().take(NAME_MAX).collect();
    Err(Problem::new(format!(
        "\"{shown}\" is no name of an object: one consists of lowercase letters, digits, '-' and '.'"
    )))
}

/// A value of a query, percent-encoded (RFC 3986 section 2.1).
pub(super) fn encoded(value: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    value.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_to_another_path() {
        assert_eq!(secret("a", "b.c"), "/api/v1/namespaces/a/secrets/b.c");
        assert_eq!(secret("a", "../x?y"), "/api/v1/namespaces/a/secrets/..%2Fx%3Fy");
        assert_eq!(authority(".."), "/apis/credentials.itwin.dev/v1alpha1/itwinauthorities/%2E%2E");
        for name in ["a", "render-agent", "a.b", "0", &"a".repeat(253)] {
            assert!(checked(name).is_ok(), "{name}");
        }
        for name in ["", "../secrets/x", "a/b", "A", "a b", "a?b", "%2e", ".", "-a", "a\n", "é", &"a".repeat(254)] {
            assert!(checked(name).is_err(), "{name}");
        }
    }

    #[test]
    fn values_of_a_query_are_encoded() {
        assert_eq!(encoded("a=b,c in (d)&é"), "a%3Db%2Cc%20in%20%28d%29%26%C3%A9");
    }
}
