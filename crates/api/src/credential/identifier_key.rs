//! Whether the name of a key of a Secret says that its value is an identifier, which is no secret.
//!
//! A credential may name any key of any Secret of its namespace, and users who may read credentials need not be allowed
//! to read Secrets. What is read from a key of another name is therefore never shown.

/// Words in the name of a key whose value may be a secret although the name ends in `id`, such as `secret_id`.
const SECRETS: [&str; 4] = ["secret", "token", "pass", "session"];

/// Whether the name of a key ends in the word `id`, in any spelling, and names no secret.
pub(super) fn names_an_identifier(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    let Some(before) = lower.strip_suffix("id") else { return false };
    if SECRETS.iter().any(|word| lower.contains(word)) {
        return false;
    }
    let (stem, id) = key.split_at(before.len());
    let is_word = stem.is_empty() || stem.ends_with(['_', '-', '.']);
    let is_camel_case = id.starts_with('I') && !stem.ends_with(|c: char| c.is_ascii_uppercase());
    is_word || is_camel_case || before.ends_with("client") || before.ends_with("app")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_ends_in_id_names_an_identifier_unless_it_names_a_secret() {
        for key in [
            "client_id",
            "CLIENT_ID",
            "client-id",
            "clientId",
            "clientID",
            "ClientId",
            "CLIENTID",
            "clientid",
            "appid",
            "id",
            "ID",
            "Id",
            "key_id",
            "tenant.client.id",
            "other_id",
            "oauth2Id",
        ] {
            assert!(names_an_identifier(key), "{key}");
        }
        for key in [
            "",
            "password",
            "client_secret",
            "username",
            "user",
            "paid",
            "PAID",
            "valid",
            "kid",
            "client_id_2",
            "id_token",
            "secret_id",
            "SecretId",
            "token-id",
            "session_id",
            "passId",
            "client_ids",
            "d",
            "client\u{131}d",
        ] {
            assert!(!names_an_identifier(key), "{key}");
        }
    }
}
