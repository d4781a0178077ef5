//! The flags of kubectl that say which cluster and namespace, and as whom, and the configuration that they lead to.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http::Uri;
use itwin_credential_operator::{
    config::proxy::Proxies,
    runtime::kubeconfig::{self, Choice},
};
use kube::{Config, config::AuthInfo};
use rustls::pki_types::{CertificateDer, pem::PemObject};

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

/// Never fails: the parser of the command line would repeat the value.
#[allow(clippy::unnecessary_wraps, reason = "a parser of a value returns a result")]
fn token(text: &str) -> Result<Token, Infallible> {
    Ok(Token::new(text))
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
        let choice = Choice {
            file: self.kubeconfig.clone(),
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let mut config = kubeconfig::chosen(&choice, proxies)?;
        if let Some(server) = given(self.server.as_ref()) {
            reach(&mut config, server, proxies)?;
        }
        if let Some(name) = given(self.tls_server_name.as_ref()) {
            config.tls_server_name = Some(name.to_owned());
        }
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
            config.root_cert = Some(certificates(file)?);
            config.root_cert_file = None;
            config.accept_invalid_certs = false;
        }
        Ok(())
    }

    fn identify(&self, config: &mut Config) -> Result<(), Problem> {
        let user = &mut config.auth_info;
        if let Some(Token(token)) = &self.token {
            let token = token.clone().ok_or_else(|| {
                Problem::new("--token: this is no bearer token, which has ASCII characters alone and no spaces")
            })?;
            // no certificate and no plugin of the kubeconfig may say who the user is
            *user = AuthInfo {
                impersonate: user.impersonate.take(),
                impersonate_uid: user.impersonate_uid.take(),
                impersonate_groups: user.impersonate_groups.take(),
                impersonate_user_extra: user.impersonate_user_extra.take(),
                ..token
            };
        }
        if let Some(name) = &self.as_user {
            // the rest is of the user whom the kubeconfig impersonates
            user.impersonate = Some(name.clone());
            user.impersonate_uid = None;
            user.impersonate_groups = None;
            user.impersonate_user_extra = None;
        }
        if !self.as_group.is_empty() {
            user.impersonate_groups = Some(self.as_group.clone());
        }
        if let Some(uid) = given(self.as_uid.as_ref()) {
            if user.impersonate.is_none() {
                return Err(Problem::new("--as-uid is of a user to impersonate: name that one with --as"));
            }
            user.impersonate_uid = Some(uid.to_owned());
        }
        Ok(())
    }
}

/// For kubectl, an empty value is none.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

/// Another server than that of the cluster. It has a name of its own, and may be reached through another proxy.
fn reach(config: &mut Config, server: &str, proxies: &Proxies) -> Result<(), Problem> {
    let is_url = server.starts_with("https://") || server.starts_with("http://");
    let url = server.parse::<Uri>().ok().filter(|url| is_url && url.host().is_some());
    let url = url.ok_or_else(|| Problem::new("--server: write a URL such as https://api.example.com:6443"))?;
    // a proxy that the kubeconfig names for the cluster stays
    if config.proxy_url == proxy(&config.cluster_url, proxies)? {
        config.proxy_url = proxy(&url, proxies)?;
    }
    config.tls_server_name = None;
    config.cluster_url = url;
    Ok(())
}

/// The proxy of the environment for a server. One on this machine is reached without it, as by kubectl.
fn proxy(server: &Uri, proxies: &Proxies) -> Result<Option<Uri>, Problem> {
    let Ok(url) = server.to_string().parse() else { return Ok(None) };
    let is_local = server.host().is_some_and(is_loopback);
    let proxy = proxies.for_url(&url).filter(|_| !is_local).map(|proxy| proxy.as_str().parse::<Uri>());
    proxy.transpose().map_err(|_| Problem::new("HTTPS_PROXY: not the URL of a proxy"))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The certificates of a PEM file, in DER.
fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, Problem> {
    let failed =
        |why: &dyn std::fmt::Display| Problem::new(format!("--certificate-authority {}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| failed(&error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = read.map_err(|_| failed(&"it is no PEM"))?;
    if certificates.is_empty() {
        return Err(failed(&"it holds no certificate"));
    }
    Ok(certificates.into_iter().map(|certificate| certificate.to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;
    use crate::{args::Cli, fake};

    const TOKEN: &str = "s3cr3t-of-the-user";

    fn flags(arguments: &[&str]) -> Connection {
        Cli::try_parse_from([&["kubectl-itcred", "status"], arguments].concat()).expect("valid").connection
    }

    /// The configuration with these flags, and a kubeconfig.
    fn config(arguments: &[&str], proxies: &Proxies) -> Result<Config, Problem> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let kubeconfig = "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], \
                          clusters: [{name: k, cluster: {server: 'https://api.example.com', tls-server-name: other}}], \
                          users: [{name: u, user: {token: t, client-certificate: /c.pem, client-key: /k.pem}}]}";
        std::fs::write(file.path(), kubeconfig).expect("written");
        Connection { kubeconfig: Some(file.path().to_owned()), ..flags(arguments) }.config(proxies)
    }

    #[tokio::test]
    async fn flags_of_kubectl_say_which_server_and_as_whom() {
        let server = fake::server(|asked| fake::object(&Value::String(asked.head.to_ascii_lowercase())));
        let arguments = ["-s", &server, "--token", TOKEN, "--as", "other", "--as-uid", "uid-1", "--as-group", "team"];
        // the server of the file does not answer
        let session = fake::session_with("http://127.0.0.1:1", flags(&arguments));
        let head: String = session.get("/api/v1/namespaces").await.expect("answered");
        let token = format!("authorization: bearer {TOKEN}");
        for line in [&*token, "impersonate-user: other", "impersonate-uid: uid-1", "impersonate-group: team"] {
            assert!(head.contains(line), "{line} is not in {head}");
        }
        assert!(!head.contains("of-the-file"), "{head}");
    }

    #[test]
    fn token_of_the_command_line_is_not_shown() {
        let connection = flags(&["--token", TOKEN]);
        assert!(!format!("{connection:?}").contains(TOKEN), "{connection:?}");
        let config = config(&["--token", TOKEN], &Proxies::default()).expect("usable");
        assert!(config.auth_info.token.is_some() && config.auth_info.client_certificate.is_none());
        for wrong in ["s3cr3t with spaces", "s3cr3t\n", "s3cr3té"] {
            let problem = super::tests::config(&["--token", wrong], &Proxies::default()).err();
            let problem = problem.map(|problem| problem.to_string()).unwrap_or_default();
            assert!(problem.starts_with("--token: ") && !problem.contains("s3cr3t"), "{problem}");
        }
    }

    #[test]
    fn another_server_has_its_own_name_and_proxy() {
        let proxies = Proxies::new("HTTPS_PROXY", "http://proxy.example.com:3128", ".corp.example").expect("a proxy");
        let proxy_of = |server: &str| {
            let config = config(&["--server", server], &proxies).expect("usable");
            assert_eq!(config.tls_server_name, None);
            config.proxy_url.and_then(|proxy| proxy.host().map(str::to_owned))
        };
        assert_eq!(proxy_of("https://10.0.0.1:6443/k8s").as_deref(), Some("proxy.example.com"));
        for direct in ["https://api.corp.example", "https://[::1]:6443", "https://localhost", "http://10.0.0.1"] {
            assert_eq!(proxy_of(direct), None, "{direct}");
        }
        let named = config(&["--server=https://10.0.0.1", "--tls-server-name", "name"], &proxies).expect("usable");
        assert_eq!(named.tls_server_name.as_deref(), Some("name"));
        for wrong in ["api.example.com:6443", "https://", "nonsense"] {
            assert!(config(&["-s", wrong], &proxies).is_err(), "{wrong}");
        }
    }

    #[test]
    fn certificates_of_the_server_are_those_of_the_file_or_not_verified() {
        let proxies = Proxies::default();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display().to_string();
        let with = ["--certificate-authority", &path];
        assert!(config(&with, &proxies).is_err_and(|problem| problem.to_string().contains("holds no certificate")));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").expect("written");
        let trusting = config(&with, &proxies).expect("usable");
        assert_eq!((trusting.root_cert, trusting.accept_invalid_certs), (Some(vec![vec![0x30, 0]]), false));
        for (flag, expected) in [("--insecure-skip-tls-verify", true), ("--insecure-skip-tls-verify=false", false)] {
            assert_eq!(config(&[flag], &proxies).expect("usable").accept_invalid_certs, expected, "{flag}");
        }
        let both = [&with[..], &["--insecure-skip-tls-verify"]].concat();
        assert!(config(&both, &proxies).is_err());
        assert!(config(&["--as-uid", "uid-1"], &proxies).is_err_and(|problem| problem.to_string().contains("--as")));
    }

    #[test]
    fn deadlines_are_durations_or_seconds_and_never_none() {
        let parse = |text: &str| {
            let cli = Cli::try_parse_from(["kubectl-itcred", "status", "--request-timeout", text]);
            cli.map(|cli| cli.connection.request_timeout).ok().flatten()
        };
        assert_eq!(parse("5"), Some(Duration::from_secs(5)));
        assert_eq!(parse("1m"), Some(Duration::from_secs(60)));
        assert_eq!(parse("999999h"), Some(crate::args::LONGEST));
        // what kubectl takes for no deadline
        assert_eq!((parse("0"), parse("0s")), (Some(DEADLINE), Some(DEADLINE)));
        for text in ["", "soon", "-1s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
