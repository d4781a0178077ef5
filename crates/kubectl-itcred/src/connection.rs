//! The flags of kubectl that say which cluster and namespace, and as whom, and the configuration that they lead to.

mod user;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http::Uri;
use itwin_credential_operator::{
    config::proxy::Proxies,
    runtime::kubeconfig::{self, Choice, proxy_of_environment},
};
use kube::Config;
use rustls::pki_types::{CertificateDer, pem::PemObject};
pub(crate) use user::extra;
pub use user::{Password, Token};
use user::{password, token};

use crate::{args::seconds, problem::Problem};

/// The deadline of each request, unless the user names another.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The flags of kubectl that say which cluster and namespace, and as whom.
#[derive(Args, Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Connection {
    /// The kubeconfig file.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub context: Option<String>,
    /// The cluster of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub cluster: Option<String>,
    /// The user of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub user: Option<String>,
    /// The namespace. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub namespace: Option<String>,
    /// The URL of the API server, in place of that of the cluster.
    #[arg(short, long, global = true, value_name = "URL", help_heading = "Connection")]
    pub server: Option<String>,
    /// The file with the CA certificates of the API server.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub certificate_authority: Option<PathBuf>,
    /// Do not verify the certificate of the API server: others can then read all calls.
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        help_heading = "Connection"
    )]
    pub insecure_skip_tls_verify: Option<bool>,
    /// The name that the certificate of the API server is for.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub tls_server_name: Option<String>,
    /// The URL of an HTTP proxy to the API server.
    #[arg(long, global = true, value_name = "URL", help_heading = "Connection")]
    pub proxy_url: Option<String>,
    /// Do not ask for compressed answers. None is asked for anyway.
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        help_heading = "Connection"
    )]
    pub disable_compression: Option<bool>,
    /// The file with the certificate of the client.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub client_certificate: Option<PathBuf>,
    /// The file with the private key of that certificate.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub client_key: Option<PathBuf>,
    /// A user name for basic authentication, with --password.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub username: Option<String>,
    /// The password of that user. It is a secret.
    #[arg(long, global = true, value_name = "PASSWORD", value_parser = password, help_heading = "Connection")]
    pub password: Option<Password>,
    /// A bearer token, in place of the user's credentials. It is a secret.
    #[arg(long, global = true, value_name = "TOKEN", value_parser = token, help_heading = "Connection")]
    pub token: Option<Token>,
    /// The user to impersonate.
    #[arg(long = "as", global = true, value_name = "USER", help_heading = "Connection")]
    pub as_user: Option<String>,
    /// A group to impersonate; may be repeated.
    #[arg(long = "as-group", global = true, value_name = "GROUP", help_heading = "Connection")]
    pub as_group: Vec<String>,
    /// The UID to impersonate, with --as.
    #[arg(long = "as-uid", global = true, value_name = "UID", help_heading = "Connection")]
    pub as_uid: Option<String>,
    /// An extra field of the user to impersonate, with --as; may be repeated.
    #[arg(
        long = "as-user-extra",
        global = true,
        value_name = "KEY=VALUE",
        value_parser = extra,
        help_heading = "Connection"
    )]
    pub as_user_extra: Vec<(String, String)>,
    /// The deadline of each request to the API server; 0 is the default.
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = deadline,
        help_heading = "Connection"
    )]
    pub request_timeout: Option<Duration>,
}

/// A deadline. 0 is kubectl's default, for none at all; here each call has one.
fn deadline(text: &str) -> Result<Duration, String> {
    seconds(text).map(|deadline| if deadline.is_zero() { DEADLINE } else { deadline })
}

impl Connection {
    /// The configuration of the client: that of the kubeconfig, with what the flags say instead.
    ///
    /// # Errors
    /// What is wrong with the kubeconfig or a flag.
    pub fn config(&self, proxies: &Proxies) -> Result<Config, Problem> {
        let server = given(self.server.as_ref()).map(server_url).transpose()?;
        let choice = Choice {
            file: self.kubeconfig.clone(),
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
            server: server.clone(),
        };
        let mut config = kubeconfig::chosen(&choice, proxies)?;
        if let Some(server) = server {
            reach(&mut config, server, proxies)?;
        }
        if let Some(name) = given(self.tls_server_name.as_ref()) {
            config.tls_server_name = Some(name.to_owned());
        }
        if let Some(url) = given(self.proxy_url.as_ref()) {
            config.proxy_url = named_proxy(url)?;
        }
        config.disable_compression = self.disable_compression.unwrap_or(config.disable_compression);
        self.trust(&mut config)?;
        self.identify(&mut config)?;
        Ok(config)
    }

    fn trust(&self, config: &mut Config) -> Result<(), Problem> {
        if self.certificate_authority.is_some() && self.insecure_skip_tls_verify == Some(true) {
            return Err(Problem::new(
                "--certificate-authority and --insecure-skip-tls-verify exclude each other: leave one out",
            ));
        }
        if let Some(is_insecure) = self.insecure_skip_tls_verify {
            config.accept_invalid_certs = is_insecure;
        }
        if let Some(file) = &self.certificate_authority {
            config.root_cert = Some(certificates("--certificate-authority", file)?);
            config.root_cert_file = None;
            config.accept_invalid_certs = false;
        }
        Ok(())
    }
}

/// For kubectl, an empty value is none.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

fn server_url(server: &str) -> Result<Uri, Problem> {
    let is_url = server.starts_with("https://") || server.starts_with("http://");
    let url = server.parse::<Uri>().ok().filter(|url| is_url && url.host().is_some());
    url.ok_or_else(|| Problem::new("--server: write a URL such as https://api.example.com:6443"))
}

/// Another server than that of the cluster. It has a name of its own, and may be reached through another proxy.
fn reach(config: &mut Config, url: Uri, proxies: &Proxies) -> Result<(), Problem> {
    let proxy_of = |server: &Uri| proxy_of_environment(&server.to_string(), proxies);
    // a proxy that the kubeconfig names for the cluster stays
    if config.proxy_url == proxy_of(&config.cluster_url)? {
        config.proxy_url = proxy_of(&url)?;
    }
    config.tls_server_name = None;
    config.cluster_url = url;
    Ok(())
}

/// The proxy that a flag names, also for a server on this machine.
fn named_proxy(url: &str) -> Result<Option<Uri>, Problem> {
    let proxy = Proxies::new("--proxy-url", url, "")?.into_url();
    let proxy = proxy.map(|proxy| proxy.as_str().parse::<Uri>()).transpose();
    proxy.map_err(|_| Problem::new("--proxy-url: not the URL of a proxy"))
}

/// The content of the file that a flag names.
fn content(flag: &str, file: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(file).map_err(|error| unusable(flag, file, &error))
}

fn unusable(flag: &str, file: &Path, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(format!("{flag} {}: {why}", file.display()))
}

/// The certificates of a PEM file, in DER.
fn certificates(flag: &str, file: &Path) -> Result<Vec<Vec<u8>>, Problem> {
    let pem = content(flag, file)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = read.map_err(|_| unusable(flag, file, &"it is no PEM"))?;
    if certificates.is_empty() {
        return Err(unusable(flag, file, &"it holds no certificate"));
    }
    Ok(certificates.into_iter().map(|certificate| certificate.to_vec()).collect())
}

#[cfg(test)]
mod tests;
