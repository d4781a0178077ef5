//! The client Secret and its validation.

use std::borrow::Cow;

use itwin_api::{
    authority::ClientAuthentication,
    conditions::Reason,
    credential::{ClientCredentialsRef, GrantType},
    limits::{CERTIFICATE_MAX, CLIENT_ID_MAX, CLIENT_SECRET_MAX, KEY_ID_MAX, PRIVATE_KEY_MAX, USER_MAX},
    time,
};
use itwin_core::{client_expiry::Expires, client_keys, failure::Failure, fingerprint};
use itwin_oauth::{
    assertion::{ClientKey, Thumbprints},
    identifier::Identifier,
    sensitive::Sensitive,
    token::{ClientCredentials, Proof, User},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use zeroize::Zeroize;

/// The values of a client Secret under the keys that the credential names.
pub struct ClientMaterial {
    /// `namespace/name`, for messages.
    secret: String,
    keys: ClientCredentialsRef,
    id: Value,
    client_secret: Value,
    private_key: Value,
    username: Value,
    password: Value,
    /// When the credentials expire, if the Secret says so. It is no part of them, and need not be readable.
    expires: Option<Expires>,
    /// The values that a Secret need not have.
    key_id: Option<Value>,
    certificate: Option<Value>,
}

/// A value, or why it is invalid.
type Value = Result<Sensitive, Cow<'static, str>>;

/// A byte order mark, which some editors write at the start of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';

impl ClientMaterial {
    /// Reads the values of a Secret; `secret_ref` is its `namespace/name`.
    ///
    /// One trailing newline is ignored: `kubectl create secret --from-file` of an edited file leaves one.
    #[must_use]
    pub fn new(mut secret: Secret, keys: &ClientCredentialsRef, secret_ref: String) -> Self {
        let mut data = secret.data.take().unwrap_or_default();
        let read = |bytes: &ByteString, longest: usize, may_have_lines: bool| -> Value {
            // before anything else reads the value
            if without_newline(&bytes.0).len() > longest {
                return Err(format!("has more than {longest} bytes: write the value from the app registration").into());
            }
            let text = std::str::from_utf8(&bytes.0);
            // the copy is zeroed when it is dropped
            let text = text
                .map(|text| Sensitive::new(text.to_owned()))
                .map_err(|_| "is not UTF-8 text: write it again from a text file")?;
            value(&text, may_have_lines).map_err(Cow::Borrowed)
        };
        // a key that another field names too is no optional value
        let required = [
            &keys.client_id_key,
            &keys.client_secret_key,
            &keys.private_key_key,
            &keys.username_key,
            &keys.password_key,
        ];
        let optional = |key: &String, longest: usize, may_have_lines: bool| {
            let bytes = data.get(key).filter(|_| !required.contains(&key))?;
            Some(read(bytes, longest, may_have_lines))
        };
        // two fields may name the same key
        let take = |key: &String, longest: usize, may_have_lines: bool| {
            data.get(key).map_or(Err("is missing: add it".into()), |bytes| read(bytes, longest, may_have_lines))
        };
        let material = Self {
            expires: optional(&keys.expires_at_key, TIME_MAX, false).map(|text| read_time(text.ok().as_ref())),
            id: take(&keys.client_id_key, CLIENT_ID_MAX, false),
            client_secret: take(&keys.client_secret_key, CLIENT_SECRET_MAX, false),
            private_key: take(&keys.private_key_key, PRIVATE_KEY_MAX, true),
            username: take(&keys.username_key, USER_MAX, false),
            password: take(&keys.password_key, USER_MAX, false),
            key_id: optional(&keys.key_id_key, KEY_ID_MAX, false),
            certificate: optional(&keys.certificate_key, CERTIFICATE_MAX, true),
            keys: keys.clone(),
            secret: secret_ref,
        };
        data.values_mut().for_each(|bytes| bytes.0.zeroize());
        material
    }

    /// The credentials that a token request with this authentication method and grant type needs.
    ///
    /// # Errors
    /// [`Reason::ClientCredentialsInvalid`] with all keys that are missing or invalid.
    pub fn credentials(&self, method: ClientAuthentication, grant: GrantType) -> Result<ClientCredentials, Failure> {
        if let Some(field) = self.keys.secret_named_as_client_id() {
            return Err(self.client_id_is_a_secret(field));
        }
        let mut wrong = Vec::new();
        let mut required = |value: &Value, key: &str| match value {
            Ok(value) => Some(value.clone()),
            Err(why) => {
                wrong.push((key.to_owned(), why.clone()));
                None
            }
        };
        let id = required(&self.id, &self.keys.client_id_key);
        let proof = match method {
            ClientAuthentication::PrivateKeyJwt => self.client_key(&mut required).map(Proof::PrivateKey),
            ClientAuthentication::None => Some(Proof::Nothing),
            ClientAuthentication::ClientSecretPost => {
                required(&self.client_secret, &self.keys.client_secret_key).map(Proof::SecretInBody)
            }
            ClientAuthentication::ClientSecretBasic => {
                required(&self.client_secret, &self.keys.client_secret_key).map(Proof::SecretInHeader)
            }
        };
        let user = match grant {
            GrantType::ClientCredentials => None,
            GrantType::Password => {
                let name = required(&self.username, &self.keys.username_key);
                let password = required(&self.password, &self.keys.password_key);
                name.zip(password).map(|(name, password)| User { name, password })
            }
        };
        match (id, proof) {
            (Some(id), Some(proof)) if wrong.is_empty() => {
                Ok(ClientCredentials { id: identifier(&id, self.keys.shows_client_id()), proof, user })
            }
            _ => Err(self.invalid(&wrong)),
        }
    }

    /// The client identifier, if it may be shown.
    #[must_use]
    pub fn shown_id(&self) -> Option<&str> {
        self.id.as_ref().ok().filter(|_| self.keys.shows_client_id()).map(Sensitive::expose)
    }

    /// When the credentials expire, if the Secret says so.
    #[must_use]
    pub fn expires(&self) -> Option<Expires> {
        self.expires
    }

    /// The private key, with what names it.
    fn client_key(&self, required: &mut impl FnMut(&Value, &str) -> Option<Sensitive>) -> Option<ClientKey> {
        let pem = required(&self.private_key, &self.keys.private_key_key);
        let key_id = self.key_id.as_ref().map(|value| {
            required(value, &self.keys.key_id_key).map(|key_id| identifier(&key_id, self.keys.shows_key_id()))
        });
        let certificate = self.certificate.as_ref().map(|value| {
            let pem = required(value, &self.keys.certificate_key)?;
            let thumbprints = Thumbprints::from_pem(pem.expose());
            if thumbprints.is_none() {
                required(&Err(NOT_A_CERTIFICATE.into()), &self.keys.certificate_key);
            }
            thumbprints
        });
        Some(ClientKey {
            pem: pem?,
            key_id: key_id.map_or(Some(None), |key_id| key_id.map(Some))?,
            certificate: certificate.map_or(Some(None), |thumbprints| thumbprints.map(Some))?,
        })
    }

    /// The digest of all values, even of those that a request does not need, keyed by the token that was issued for
    /// them.
    #[must_use]
    pub fn fingerprint<'a>(&'a self, token: &Sensitive) -> String {
        fn text(value: &Value) -> &str {
            value.as_ref().map_or("", |value| value.expose())
        }
        let values = [&self.id, &self.client_secret, &self.private_key, &self.username, &self.password].map(text);
        // only where there are any, so that tokens of earlier versions stay those of their clients
        let named =
            |name: &'static str, value: &'a Option<Value>| value.iter().flat_map(move |value| [name, text(value)]);
        let optional = named("key_id", &self.key_id).chain(named("certificate", &self.certificate));
        fingerprint::client(token, values.into_iter().chain(optional))
    }

    /// A digest of all values that is kept in memory alone: whether they are still the same.
    #[must_use]
    pub fn digest(&self, uid: &str) -> String {
        self.fingerprint(&Sensitive::new(uid.to_owned()))
    }

    /// The spec is wrong, and was stored before the schema refused it: no value is read as an identifier and as a secret.
    fn client_id_is_a_secret(&self, field: &str) -> Failure {
        let message = format!(
            "spec.clientCredentialsRef.clientIdKey names key {} of Secret {}, as {field} does: name the key of the client \
             identifier",
            self.keys.client_id_key, self.secret
        );
        Failure::new(Reason::ClientCredentialsInvalid, message)
    }

    /// All that is wrong at once, so that one edit of the Secret fixes all of it.
    fn invalid(&self, wrong: &[(String, Cow<'static, str>)]) -> Failure {
        let one = |(number, (key, why)): (usize, &(String, Cow<'static, str>))| match number {
            0 => format!("key {key} of Secret {} {why}", self.secret),
            _ => format!("key {key} {why}"),
        };
        let all: Vec<String> = wrong.iter().enumerate().map(one).collect();
        Failure::new(Reason::ClientCredentialsInvalid, all.join("; "))
    }
}

/// What is wrong with a certificate.
const NOT_A_CERTIFICATE: &str =
    "is no PEM certificate: write the one that is registered for the private key, or remove the key";
/// The length of such a time, with fractions of a second and an offset.
const TIME_MAX: usize = 64;

fn read_time(text: Option<&Sensitive>) -> Expires {
    text.and_then(|text| time::from_rfc3339(text.expose())).map_or(Expires::Invalid, Expires::At)
}

fn identifier(text: &Sensitive, is_shown: bool) -> Identifier {
    if is_shown { Identifier::Public(text.expose().to_owned()) } else { Identifier::Secret(text.clone()) }
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes)
}

fn value(text: &Sensitive, may_have_lines: bool) -> Result<Sensitive, &'static str> {
    let text = text.expose();
    // a newline is ASCII, so the end is at a character boundary
    let trimmed = &text[..without_newline(text.as_bytes()).len()];
    if trimmed.is_empty() {
        return Err("is empty: write its value");
    }
    let is_stray = |c: char| c.is_whitespace() || c == BYTE_ORDER_MARK;
    if trimmed.starts_with(is_stray) || trimmed.ends_with(is_stray) {
        return Err("begins or ends with white space or a byte order mark: write it again without them");
    }
    if trimmed.chars().any(|c| c.is_control() && !(may_have_lines && (c == '\n' || c == '\r'))) {
        return Err("contains control characters: write it as one line");
    }
    Ok(Sensitive::new(trimmed.to_owned()))
}

/// The failure if the client Secret does not exist.
#[must_use]
pub fn not_found(
    secret_ref: &str,
    keys: &ClientCredentialsRef,
    method: ClientAuthentication,
    grant: GrantType,
) -> Failure {
    let required = client_keys::required(keys, method, grant);
    let noun = if required.len() == 1 { "key" } else { "keys" };
    Failure::new(
        Reason::ClientCredentialsNotFound,
        format!(
            "Secret {secret_ref} does not exist: create it with the {noun} {} from the app registration",
            client_keys::enumerated(&required)
        ),
    )
}

#[cfg(test)]
mod tests;
