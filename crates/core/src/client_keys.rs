//! The keys that a client Secret must have. They follow from the authentication method of the authority and from the
//! grant type of the credential: advice that names others would have the wrong values written.

use itwin_api::{
    authority::ClientAuthentication,
    credential::{ClientCredentialsRef, GrantType},
};

/// The keys with which a client proves who it is.
#[must_use]
pub fn of_client(keys: &ClientCredentialsRef, method: ClientAuthentication) -> Vec<&str> {
    let proof = match method {
        ClientAuthentication::ClientSecretPost | ClientAuthentication::ClientSecretBasic => {
            Some(&*keys.client_secret_key)
        }
        ClientAuthentication::PrivateKeyJwt => Some(&*keys.private_key_key),
        ClientAuthentication::None => None,
    };
    [&*keys.client_id_key].into_iter().chain(proof).collect()
}

/// All keys that a token request needs.
#[must_use]
pub fn required(keys: &ClientCredentialsRef, method: ClientAuthentication, grant: GrantType) -> Vec<&str> {
    let user = match grant {
        GrantType::ClientCredentials => vec![],
        GrantType::Password => vec![&*keys.username_key, &*keys.password_key],
    };
    [of_client(keys, method), user].concat()
}

/// Keys as a sentence names them: `a`, `a and b`, `a, b and c`.
#[must_use]
pub fn enumerated(keys: &[&str]) -> String {
    match keys {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => keys.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_authentication_method_and_the_grant_type() {
        let keys: ClientCredentialsRef =
            serde_json::from_value(serde_json::json!({"name": "client", "clientIdKey": "id"})).expect("keys");
        let named = |method, grant| enumerated(&required(&keys, method, grant));
        for (method, service, user) in [
            (
                ClientAuthentication::ClientSecretPost,
                "id and client_secret",
                "id, client_secret, username and password",
            ),
            (
                ClientAuthentication::ClientSecretBasic,
                "id and client_secret",
                "id, client_secret, username and password",
            ),
            (ClientAuthentication::PrivateKeyJwt, "id and private_key", "id, private_key, username and password"),
            (ClientAuthentication::None, "id", "id, username and password"),
        ] {
            assert_eq!(named(method, GrantType::ClientCredentials), service);
            assert_eq!(named(method, GrantType::Password), user);
        }
    }
}
