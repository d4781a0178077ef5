//! As whom the API server is called: a token, a password or a certificate, and whom to impersonate.

use std::{collections::HashMap, convert::Infallible, path::Path};

use kube::{Config, config::AuthInfo};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{Connection, certificates, content, given, unusable};
use crate::problem::Problem;

/// Credentials with a bearer token alone; `None` if the text is none. They are not shown.
#[derive(Clone, Debug)]
pub struct Token(Option<AuthInfo>);

impl Token {
    /// The credentials with a token.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        Self(is_token.then(|| AuthInfo { token: Some(text.to_owned().into()), ..AuthInfo::default() }))
    }
}

/// Credentials with a password alone. They are not shown.
#[derive(Clone, Debug)]
pub struct Password(AuthInfo);

impl Password {
    /// The credentials with a password.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(AuthInfo { password: Some(text.to_owned().into()), ..AuthInfo::default() })
    }
}

/// Never fails: the parser of the command line would repeat the value.
#[allow(clippy::unnecessary_wraps, reason = "a parser of a value returns a result")]
pub(super) fn password(text: &str) -> Result<Password, Infallible> {
    Ok(Password::new(text))
}

/// An extra field of a user: a key, and one of its values.
pub(crate) fn extra(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "expected key=value".to_owned())
}

/// Never fails: the parser of the command line would repeat the value.
#[allow(clippy::unnecessary_wraps, reason = "a parser of a value returns a result")]
pub(super) fn token(text: &str) -> Result<Token, Infallible> {
    Ok(Token::new(text))
}

impl Connection {
    pub(super) fn identify(&self, config: &mut Config) -> Result<(), Problem> {
        let user = &mut config.auth_info;
        if let Some(own) = self.credentials()? {
            // no certificate and no plugin of the kubeconfig may say who the user is
            *user = AuthInfo {
                impersonate: user.impersonate.take(),
                impersonate_uid: user.impersonate_uid.take(),
                impersonate_groups: user.impersonate_groups.take(),
                impersonate_user_extra: user.impersonate_user_extra.take(),
                ..own
            };
        }
        self.certify(user)?;
        self.impersonate(user)
    }

    /// What replaces the credentials of the user of the kubeconfig.
    fn credentials(&self) -> Result<Option<AuthInfo>, Problem> {
        match (&self.token, given(self.username.as_ref()), &self.password) {
            (None, None, None) => Ok(None),
            (Some(Token(token)), None, None) => token.clone().map(Some).ok_or_else(|| {
                Problem::new("--token: this is no bearer token, which has ASCII characters alone and no spaces")
            }),
            (None, Some(name), Some(Password(password))) => {
                Ok(Some(AuthInfo { username: Some(name.to_owned()), ..password.clone() }))
            }
            (Some(_), ..) => Err(Problem::new("--token excludes --username and --password: leave one out")),
            (None, ..) => Err(Problem::new("--username and --password belong together: write both")),
        }
    }

    /// The certificate of the client. Its half that no flag names is that of the kubeconfig.
    fn certify(&self, user: &mut AuthInfo) -> Result<(), Problem> {
        if let Some(file) = &self.client_certificate {
            certificates("--client-certificate", file)?;
            user.client_certificate = Some(file.display().to_string());
            user.client_certificate_data = None;
        }
        if let Some(file) = &self.client_key {
            private_key(file)?;
            user.client_key = Some(file.display().to_string());
            user.client_key_data = None;
        }
        let has_certificate = user.client_certificate.is_some() || user.client_certificate_data.is_some();
        let has_key = user.client_key.is_some() || user.client_key_data.is_some();
        let is_given = self.client_certificate.is_some() || self.client_key.is_some();
        if is_given && !(has_certificate && has_key) {
            return Err(Problem::new("--client-certificate and --client-key belong together: write both"));
        }
        Ok(())
    }

    fn impersonate(&self, user: &mut AuthInfo) -> Result<(), Problem> {
        if let Some(name) = given(self.as_user.as_ref()) {
            // the rest is of the user whom the kubeconfig impersonates
            user.impersonate = Some(name.to_owned());
            user.impersonate_uid = None;
            user.impersonate_groups = None;
            user.impersonate_user_extra = None;
        }
        let uid = given(self.as_uid.as_ref());
        let is_given = [
            ("--as-group", !self.as_group.is_empty()),
            ("--as-uid", uid.is_some()),
            ("--as-user-extra", !self.as_user_extra.is_empty()),
        ];
        let of_no_user = is_given.iter().find(|(_, is_given)| *is_given && user.impersonate.is_none());
        if let Some((flag, _)) = of_no_user {
            return Err(Problem::new(format!("{flag} is of a user to impersonate: name that one with --as")));
        }
        if !self.as_group.is_empty() {
            user.impersonate_groups = Some(self.as_group.clone());
        }
        if let Some(uid) = uid {
            user.impersonate_uid = Some(uid.to_owned());
        }
        if !self.as_user_extra.is_empty() {
            let mut extra: HashMap<String, Vec<String>> = HashMap::new();
            for (key, value) in &self.as_user_extra {
                extra.entry(key.clone()).or_default().push(value.clone());
            }
            user.impersonate_user_extra = Some(extra);
        }
        Ok(())
    }
}

/// Fails where a file holds no private key in PEM.
fn private_key(file: &Path) -> Result<(), Problem> {
    const FLAG: &str = "--client-key";
    let pem = Zeroizing::new(content(FLAG, file)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable(FLAG, file, &"it holds no private key in PEM"))?;
    Ok(())
}
