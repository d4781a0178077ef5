//! Which client Secrets are read, and what is reported of those that are invalid.

use chrono::DateTime;

use super::*;

fn material(data: &[(&str, &[u8])]) -> ClientMaterial {
    let secret = Secret {
        data: Some(data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))).collect()),
        ..Secret::default()
    };
    let keys: ClientCredentialsRef = serde_json::from_value(serde_json::json!({"name": "client"})).expect("valid");
    ClientMaterial::new(secret, &keys, "team-a/client".to_owned())
}

fn rejected(data: &[(&str, &[u8])], method: ClientAuthentication, grant: GrantType) -> String {
    material(data).credentials(method, grant).err().map(|failure| failure.message).unwrap_or_default()
}

const POST: ClientAuthentication = ClientAuthentication::ClientSecretPost;
const SERVICE: GrantType = GrantType::ClientCredentials;

#[test]
fn values_are_read_without_their_trailing_newline() {
    let read = material(&[("client_id", b"id\n"), ("client_secret", b"a b=%\r\n")]).credentials(POST, SERVICE);
    let read = read.map_err(|failure| failure.message).expect("usable");
    assert_eq!(read.id.shown(), Some("id"));
    assert!(matches!(read.proof, Proof::SecretInBody(secret) if secret.expose() == "a b=%"));
}

#[test]
fn invalid_value_is_reported_with_secret_and_key() {
    for (value, reported) in [
        (None, "is missing"),
        (Some(&b""[..]), "is empty"),
        (Some(b"\n"), "is empty"),
        (Some(b"\xff\xfe"), "is not UTF-8"),
        (Some(b"two\n\n"), "white space"),
        (Some(b" two"), "white space"),
        (Some(b"two\t\n"), "white space"),
        (Some(b"two\r"), "white space"),
        (Some("two\u{a0}".as_bytes()), "white space"),
        (Some("\u{feff}two".as_bytes()), "byte order mark"),
        (Some(b"two\nlines"), "control characters"),
    ] {
        let mut data = vec![("client_id", &b"id"[..])];
        data.extend(value.map(|value| ("client_secret", value)));
        let message = rejected(&data, POST, SERVICE);
        assert!(
            message.starts_with("key client_secret of Secret team-a/client") && message.contains(reported),
            "{message}"
        );
    }
}

#[test]
fn length_of_every_value_is_limited_and_messages_do_not_reveal_it() {
    const JWT: ClientAuthentication = ClientAuthentication::PrivateKeyJwt;
    let names = ["client_id", "client_secret", "private_key", "username", "password"];
    for (name, longest, method) in [
        ("client_id", 1024, POST),
        ("client_secret", 4096, POST),
        ("private_key", 16_384, JWT),
        ("username", 1024, POST),
        ("password", 1024, POST),
    ] {
        let sized = |size: usize| {
            let long = [&vec![b'x'; size][..], b"\r\n"].concat();
            let data: Vec<(&str, &[u8])> =
                names.iter().map(|other| (*other, if *other == name { &long[..] } else { b"x" })).collect();
            rejected(&data, method, GrantType::Password)
        };
        assert_eq!(sized(longest), "", "{name}");
        let message = format!("key {name} of Secret team-a/client has more than {longest} bytes");
        assert!(sized(longest + 1).starts_with(&message));
        assert_eq!(sized(longest + 1), sized(longest + 1000), "{name}");
    }
}

#[test]
fn only_values_that_the_request_needs_must_exist() {
    let service: &[(&str, &[u8])] = &[("client_id", b"id"), ("client_secret", b"s")];
    assert_eq!(rejected(service, POST, SERVICE), "");
    assert!(rejected(service, ClientAuthentication::PrivateKeyJwt, SERVICE).contains("key private_key"));
    assert!(rejected(service, POST, GrantType::Password).contains("key username"));
    let pem: &[(&str, &[u8])] = &[("client_id", b"id"), ("private_key", b"-----BEGIN\nx\n-----END\n")];
    assert_eq!(rejected(pem, ClientAuthentication::PrivateKeyJwt, SERVICE), "");
}

#[test]
fn key_of_any_name_may_hold_any_value() {
    let read = |renamed: serde_json::Value, data: &[(&str, &[u8])], method, grant| {
        let mut keys = serde_json::json!({"name": "client"});
        let renamed = renamed.as_object().into_iter().flatten();
        renamed.for_each(|(field, key)| keys[field] = key.clone());
        let keys: ClientCredentialsRef = serde_json::from_value(keys).expect("valid");
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))).collect();
        let secret = Secret { data: Some(data), ..Secret::default() };
        let material = ClientMaterial::new(secret, &keys, "team-a/client".to_owned());
        material.credentials(method, grant).map_err(|failure| failure.message)
    };
    let id = read(
        serde_json::json!({"clientIdKey": "key_id"}),
        &[("key_id", b"id"), ("client_secret", b"s")],
        POST,
        SERVICE,
    );
    assert_eq!(id.expect("usable").id.sent(), "id");
    let user = read(
        serde_json::json!({"usernameKey": "client_id"}),
        &[("client_id", b"id"), ("client_secret", b"s"), ("password", b"p")],
        POST,
        GrantType::Password,
    );
    assert_eq!(user.expect("usable").user.map(|user| user.name.expose().to_owned()).as_deref(), Some("id"));
    let pem: &[(&str, &[u8])] = &[("client_id", b"id"), ("certificate", b"-----BEGIN\nx\n-----END\n")];
    let key =
        read(serde_json::json!({"privateKeyKey": "certificate"}), pem, ClientAuthentication::PrivateKeyJwt, SERVICE);
    assert!(matches!(key.expect("usable").proof, Proof::PrivateKey(key) if key.certificate.is_none()));
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    assert_eq!(
        rejected(&[("password", b"\n")], POST, GrantType::Password),
        "key client_id of Secret team-a/client is missing: add it; key client_secret is missing: add it; key username \
         is missing: add it; key password is empty: write its value"
    );
}

#[test]
fn time_of_expiry_is_optional_and_no_part_of_the_credentials_even_where_it_is_none() {
    let with = |value: Option<&[u8]>| {
        let mut data = vec![("client_id", &b"id"[..]), ("client_secret", b"s")];
        data.extend(value.map(|value| ("expires_at", value)));
        let material = material(&data);
        let message = material.credentials(POST, SERVICE).err().map(|failure| failure.message);
        (material.expires(), message, material.fingerprint(&Sensitive::new("token".to_owned())))
    };
    let (none, message, fingerprint) = with(None);
    assert_eq!((none, message), (None, None));
    for value in ["2027-01-31T00:00:00Z", "2027-01-31T01:00:00.000+01:00\n"] {
        let (expires, message, same) = with(Some(value.as_bytes()));
        let at = DateTime::from_timestamp(1_801_353_600, 0).map(Expires::At);
        assert_eq!((expires, message), (at, None), "{value}");
        assert_eq!(same, fingerprint, "{value}");
    }
    let invalid = ["", "\n", "2027-01-31", "1801353600", "soon", "2027-13-01T00:00:00Z", "2027-01-31T00:00:00"];
    for value in invalid.map(str::as_bytes).into_iter().chain([&b"\xff"[..], &[b'2'; 100_000]]) {
        let (expires, message, same) = with(Some(value));
        assert_eq!((expires, message), (Some(Expires::Invalid), None), "{value:?}");
        assert_eq!(same, fingerprint, "{value:?}");
    }
}

#[test]
fn key_id_and_certificate_are_read_where_there_are_any() {
    const JWT: ClientAuthentication = ClientAuthentication::PrivateKeyJwt;
    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let key = |extra: &[(&str, &[u8])]| {
        let data = [&[("client_id", &b"id"[..]), ("private_key", b"key")], extra].concat();
        let client = material(&data).credentials(JWT, SERVICE).map_err(|failure| failure.message)?;
        match client.proof {
            Proof::PrivateKey(key) => Ok((key.key_id.map(|key_id| key_id.sent().to_owned()), key.certificate)),
            _ => Err("another proof".to_owned()),
        }
    };
    assert_eq!(key(&[]), Ok((None, None)));
    let named = key(&[("key_id", b"first\n"), ("certificate", CERTIFICATE)]).expect("usable");
    assert_eq!(named.0.as_deref(), Some("first"));
    assert_eq!(named.1.map(|thumbprints| thumbprints.sha1.len()), Some(27));
    for (name, value, reported) in [
        ("key_id", &b" first"[..], "key key_id of Secret team-a/client begins or ends with white space"),
        ("certificate", b"no certificate", "key certificate of Secret team-a/client is no PEM certificate"),
    ] {
        assert!(key(&[(name, value)]).is_err_and(|message| message.starts_with(reported)), "{name}");
    }
    // who signs nothing needs neither
    let post: &[(&str, &[u8])] = &[("client_id", b"id"), ("client_secret", b"s"), ("certificate", b"x")];
    assert_eq!(rejected(post, POST, SERVICE), "");
}

#[test]
fn identifier_is_shown_only_if_the_name_of_its_key_says_that_it_is_one() {
    let read = |id_key: &str, key_id_key: &str| {
        let keys = serde_json::json!({"name": "client", "clientIdKey": id_key, "keyIdKey": key_id_key});
        let keys: ClientCredentialsRef = serde_json::from_value(keys).expect("valid");
        let data = [(id_key, "the id"), (key_id_key, "the kid"), ("private_key", "the key")];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        let material = ClientMaterial::new(secret, &keys, "team-a/client".to_owned());
        let client =
            material.credentials(ClientAuthentication::PrivateKeyJwt, SERVICE).map_err(|failure| failure.message);
        let client = client.expect("usable");
        let Proof::PrivateKey(key) = &client.proof else { unreachable!("the method of the client is private_key_jwt") };
        let key_id = key.key_id.as_ref().expect("a key ID");
        assert_eq!((client.id.sent(), key_id.sent()), ("the id", "the kid"), "they are sent in any case");
        (client.id.shown().map(str::to_owned), key_id.shown().map(str::to_owned))
    };
    let (id, key_id) = (Some("the id".to_owned()), Some("the kid".to_owned()));
    assert_eq!(read("client_id", "key_id"), (id.clone(), key_id));
    assert_eq!(read("clientId", "db"), (id, None));
    assert_eq!(read("username", "db"), (None, None));
}

#[test]
fn client_identifier_under_the_key_of_a_secret_is_no_client() {
    for (keys, reported) in [
        (serde_json::json!({"clientIdKey": "db", "clientSecretKey": "db"}), Some("clientSecretKey")),
        (serde_json::json!({"clientIdKey": "client_secret"}), Some("clientSecretKey")),
        (serde_json::json!({"clientIdKey": "password"}), Some("passwordKey")),
        (serde_json::json!({"clientIdKey": "id", "privateKeyKey": "id"}), Some("privateKeyKey")),
        (serde_json::json!({"clientIdKey": "username", "clientSecretKey": "password"}), None),
    ] {
        let mut reference = serde_json::json!({"name": "client"});
        keys.as_object().into_iter().flatten().for_each(|(field, key)| reference[field] = key.clone());
        let reference: ClientCredentialsRef = serde_json::from_value(reference).expect("valid");
        let data = ["db", "id", "username", "client_secret", "password"];
        let data = data.map(|key| (key.to_owned(), ByteString(b"a value".to_vec())));
        let secret = Secret { data: Some(data.into()), ..Secret::default() };
        let material = ClientMaterial::new(secret, &reference, "team-a/client".to_owned());
        let message = material.credentials(POST, SERVICE).err().map(|failure| failure.message);
        let expected = reported.map(|field| {
            let key = &reference.client_id_key;
            format!(
                "spec.clientCredentialsRef.clientIdKey names key {key} of Secret team-a/client, as {field} does: name the \
                 key of the client identifier"
            )
        });
        assert_eq!(message, expected, "{keys}");
    }
}

#[test]
fn secret_that_does_not_exist_is_to_be_created_with_the_keys_that_a_request_needs() {
    let keys: ClientCredentialsRef = serde_json::from_value(serde_json::json!({"name": "client"})).expect("valid");
    let message = |method, grant| not_found("team-a/client", &keys, method, grant).message;
    assert_eq!(
        message(POST, SERVICE),
        "Secret team-a/client does not exist: create it with the keys client_id and client_secret from the app \
         registration"
    );
    assert!(message(ClientAuthentication::PrivateKeyJwt, SERVICE).contains("keys client_id and private_key from"));
    let public = message(ClientAuthentication::None, GrantType::Password);
    assert!(public.contains("the keys client_id, username and password from"), "{public}");
    // and no request misses another key
    for method in [POST, ClientAuthentication::PrivateKeyJwt, ClientAuthentication::None] {
        for grant in [SERVICE, GrantType::Password] {
            let missing = rejected(&[], method, grant);
            for key in client_keys::required(&keys, method, grant) {
                assert!(missing.contains(&format!("key {key} ")), "{missing}");
            }
            assert_eq!(missing.matches(" is missing").count(), client_keys::required(&keys, method, grant).len());
        }
    }
}

#[test]
fn public_client_needs_no_secret() {
    let data: &[(&str, &[u8])] = &[("client_id", b"id"), ("username", b"u"), ("password", b"p")];
    let read = material(data).credentials(ClientAuthentication::None, GrantType::Password);
    assert!(read.is_ok_and(|client| matches!(client.proof, Proof::Nothing) && client.user.is_some()));
}

#[test]
fn every_value_is_in_the_fingerprint() {
    let token = Sensitive::new("token".to_owned());
    let digest = |data: &[(&str, &[u8])]| material(data).fingerprint(&token);
    let base = digest(&[("client_id", b"id"), ("client_secret", b"s")]);
    assert_eq!(base, digest(&[("client_id", b"id"), ("client_secret", b"s"), ("unrelated", b"x")]));
    for key in ["private_key", "username", "password", "key_id", "certificate"] {
        assert_ne!(base, digest(&[("client_id", b"id"), ("client_secret", b"s"), (key, b"x")]), "{key}");
    }
}
