//! The client Secret, and each way in which it can be of no use.

use k8s_openapi::api::core::v1::Secret;

use crate::{
    api::{conditions::Reason, credential::ClientCredentialsRef},
    decide::facts::Refusal,
    oauth::token::ClientCredentials,
    sensitive::Sensitive,
};

/// Takes the client's credentials out of a Secret. `secret_ref` is `namespace/name`, for messages.
///
/// One trailing newline is tolerated: `kubectl create secret --from-file` of an edited file leaves one.
///
/// # Errors
/// [`Reason::ClientCredentialsInvalid`] with the key that is at fault.
pub fn credentials(
    mut secret: Secret,
    keys: &ClientCredentialsRef,
    secret_ref: &str,
) -> Result<ClientCredentials, Refusal> {
    let mut take = |key: &str| {
        let bytes = secret
            .data
            .as_mut()
            .and_then(|data| data.remove(key))
            .ok_or_else(|| invalid(secret_ref, key, "is missing", "add it"))?;
        let text = String::from_utf8(bytes.0)
            .map_err(|_| invalid(secret_ref, key, "is not UTF-8 text", "write it again from a text file"))?;
        // from here on the text is wiped when it is dropped
        let text = Sensitive::new(text);
        let trimmed = text.expose();
        let trimmed = trimmed.strip_suffix('\n').unwrap_or(trimmed);
        let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Err(invalid(secret_ref, key, "is empty", "write its value"));
        }
        if trimmed.chars().any(char::is_control) {
            return Err(invalid(secret_ref, key, "holds control characters", "write it as one line"));
        }
        Ok(Sensitive::new(trimmed.to_owned()))
    };
    let id = take(&keys.client_id_key)?;
    let secret = take(&keys.client_secret_key)?;
    Ok(ClientCredentials { id: id.expose().to_owned(), secret })
}

/// The refusal where there is no such Secret.
#[must_use]
pub fn not_found(secret_ref: &str, keys: &ClientCredentialsRef) -> Refusal {
    Refusal::new(
        Reason::ClientCredentialsNotFound,
        format!(
            "Secret {secret_ref} does not exist: create it with the keys {} and {}, as the app registration gave them",
            keys.client_id_key, keys.client_secret_key
        ),
    )
}

fn invalid(secret_ref: &str, key: &str, what: &str, todo: &str) -> Refusal {
    Refusal::new(Reason::ClientCredentialsInvalid, format!("key {key} of Secret {secret_ref} {what}: {todo}"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn read(data: &[(&str, &[u8])]) -> Result<(String, String), String> {
        let secret = Secret {
            data: Some(data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))).collect()),
            ..Secret::default()
        };
        let keys: ClientCredentialsRef = serde_json::from_value(serde_json::json!({"name": "client"})).expect("valid");
        credentials(secret, &keys, "team-a/client")
            .map(|read| (read.id, read.secret.expose().to_owned()))
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn values_are_taken_without_their_trailing_newline() {
        let read = read(&[("client_id", b"id\n"), ("client_secret", b"a b=%\r\n")]);
        assert_eq!(read, Ok(("id".to_owned(), "a b=%".to_owned())));
    }

    #[test]
    fn whatever_is_wrong_is_told_with_secret_and_key() {
        for (value, told) in [
            (None, "is missing"),
            (Some(&b""[..]), "is empty"),
            (Some(b"\n"), "is empty"),
            (Some(b"\xff\xfe"), "is not UTF-8"),
            (Some(b"two\n\n"), "control characters"),
            (Some(b"two\nlines"), "control characters"),
        ] {
            let mut data = vec![("client_id", &b"id"[..])];
            data.extend(value.map(|value| ("client_secret", value)));
            let message = read(&data).expect_err("refused");
            assert!(
                message.starts_with("key client_secret of Secret team-a/client") && message.contains(told),
                "{message}"
            );
        }
    }
}
