//! The configuration of the Kubernetes client: that of `KUBECONFIG`, or that of the cluster that the process runs in.
//!
//! `kube` reads a kubeconfig too, but takes the proxy of the environment for the API server whatever `NO_PROXY` says of
//! its host, and fails where `NO_PROXY` ends in a comma. So the file is turned into a configuration here.

use std::{net::IpAddr, path::PathBuf};

use kube::{
    Config,
    config::{Cluster, ExecAuthCluster, Kubeconfig, KubeconfigError},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::{Host, Url};

use crate::config::proxy::Proxies;

/// The configuration: a kubeconfig is tried first.
///
/// # Errors
/// A message that says what is missing.
pub fn infer(proxies: &Proxies) -> Result<Config, String> {
    match Kubeconfig::read() {
        Ok(kubeconfig) => from_kubeconfig(kubeconfig, proxies),
        Err(error) => Config::incluster().map_err(|_| unusable(&error)),
    }
    .map(|mut config| {
        config.apply_debug_overrides();
        config
    })
}

/// What a user chooses on a command line instead of what the kubeconfig says.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The file; otherwise those of `KUBECONFIG`, or `~/.kube/config`.
    pub file: Option<PathBuf>,
    /// The context.
    pub context: Option<String>,
    /// The cluster of the context.
    pub cluster: Option<String>,
    /// The user of the context.
    pub user: Option<String>,
    /// The URL of an API server that is named besides. With it, there need be no kubeconfig.
    pub server: Option<http::Uri>,
}

/// The configuration that a user chose.
///
/// # Errors
/// A message that says what is missing.
pub fn chosen(choice: &Choice, proxies: &Proxies) -> Result<Config, String> {
    let chosen = [&choice.context, &choice.cluster, &choice.user];
    let is_explicit = choice.file.is_some() || chosen.iter().any(|chosen| chosen.is_some());
    let read = choice.file.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let mut kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error) if is_explicit => return Err(unusable_file(&error)),
        Err(error) => {
            let server = choice.server.as_ref().filter(|_| is_missing(&error));
            return infer(proxies).or_else(|why| server.map_or(Err(why), |server| alone(server, proxies)));
        }
    };
    kubeconfig.current_context = choice.context.clone().or(kubeconfig.current_context);
    let current = kubeconfig.current_context.clone();
    let context = kubeconfig.contexts.iter_mut().find(|context| Some(&context.name) == current.as_ref());
    if let Some(context) = context.and_then(|context| context.context.as_mut()) {
        context.cluster = choice.cluster.clone().unwrap_or_else(|| context.cluster.clone());
        context.user = choice.user.clone().or_else(|| context.user.clone());
    }
    from_kubeconfig(kubeconfig, proxies)
}

/// Whether there is no kubeconfig at all, in contrast to one that cannot be used.
fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The configuration for a server without a kubeconfig, and without credentials.
fn alone(server: &http::Uri, proxies: &Proxies) -> Result<Config, String> {
    let mut config = Config::new(server.clone());
    config.proxy_url = proxy(&Cluster::default(), &server.to_string(), proxies)?;
    Ok(config)
}

/// Why there is no configuration, in one line. Nothing of a file's content is quoted: it may hold credentials.
fn unusable(error: &KubeconfigError) -> String {
    format!(
        "no service account, because the process runs in no pod, and no usable kubeconfig (KUBECONFIG): {}",
        unusable_file(error)
    )
}

fn unusable_file(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => format!("{} cannot be read: {error}", path.display()),
        KubeconfigError::Parse(_) => "it is not valid YAML of kind Config".to_owned(),
        _ => "it is not usable".to_owned(),
    }
}

fn from_kubeconfig(kubeconfig: Kubeconfig, proxies: &Proxies) -> Result<Config, String> {
    let current = kubeconfig.current_context.ok_or("kubeconfig: set current-context")?;
    let context = kubeconfig.contexts.into_iter().find(|context| context.name == current);
    let context = context
        .and_then(|context| context.context)
        .ok_or_else(|| format!("kubeconfig: there is no context {current:?}, which current-context names"))?;
    let cluster = kubeconfig.clusters.into_iter().find(|cluster| cluster.name == context.cluster);
    let cluster = cluster
        .and_then(|cluster| cluster.cluster)
        .ok_or_else(|| format!("kubeconfig: there is no cluster {}, which context {current} names", context.cluster))?;
    let users = kubeconfig.auth_infos.into_iter();
    let mut user = match &context.user {
        None => Default::default(),
        Some(name) => users
            .into_iter()
            .find(|user| user.name == *name)
            .and_then(|user| user.auth_info)
            .ok_or_else(|| format!("kubeconfig: there is no user {name}, which context {current} names"))?,
    };
    // an exec plugin that asks for it receives the cluster that its credentials are for
    if let Some(exec) = user.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        exec.cluster = Some(ExecAuthCluster::try_from(&cluster).map_err(|error| unusable(&error))?);
    }
    let server = cluster.server.clone().ok_or("kubeconfig: set the server of the cluster")?;
    let mut config = Config::new(server.parse().map_err(|_| "kubeconfig: the server of the cluster is no URL")?);
    config.root_cert = roots(&cluster)?;
    config.proxy_url = proxy(&cluster, &server, proxies)?;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
    config.tls_server_name = cluster.tls_server_name.filter(|name| !name.is_empty());
    config.default_namespace =
        context.namespace.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
    config.auth_info = user;
    Ok(config)
}

/// The certificates of the cluster's CA, in DER. What is empty is not there, as for kubectl.
fn roots(cluster: &Cluster) -> Result<Option<Vec<Vec<u8>>>, String> {
    let data =
        cluster.certificate_authority_data.as_deref().map(|data| data.split_ascii_whitespace().collect::<String>());
    let file = cluster.certificate_authority.as_deref().filter(|file| !file.is_empty());
    let pem = match (data.filter(|data| !data.is_empty()), file) {
        (Some(data), _) => {
            use base64::Engine;
            let decoded = base64::engine::general_purpose::STANDARD.decode(data);
            decoded.map_err(|_| "kubeconfig: the certificate authority of the cluster is no base64")?
        }
        (None, Some(file)) => {
            std::fs::read(file).map_err(|error| format!("kubeconfig: certificate-authority {file}: {error}"))?
        }
        (None, None) => return Ok(None),
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|_| "kubeconfig: the certificate authority of the cluster is no PEM")?;
    Ok(Some(certificates.into_iter().map(|certificate| certificate.to_vec()).collect()))
}

/// The proxy that the kubeconfig names, else that of the environment.
fn proxy(cluster: &Cluster, server: &str, proxies: &Proxies) -> Result<Option<http::Uri>, String> {
    if let Some(named) = cluster.proxy_url.as_deref().filter(|url| !url.is_empty()) {
        let what = "kubeconfig: proxy-url of the cluster";
        let url = Proxies::new(what, named, "")?.into_url();
        return url.map(|url| url.as_str().parse().map_err(|_| format!("{what} is no URL"))).transpose();
    }
    proxy_of_environment(server, proxies)
}

/// The proxy of the environment for a server. One on this machine is reached without it, as by kubectl.
///
/// # Errors
/// A message that names the variable.
pub fn proxy_of_environment(server: &str, proxies: &Proxies) -> Result<Option<http::Uri>, String> {
    let Some(url) = Url::parse(server).ok().filter(|url| !is_loopback(url)) else { return Ok(None) };
    let proxy = proxies.for_url(&url).map(|proxy| proxy.as_str().parse());
    proxy.transpose().map_err(|_| "HTTPS_PROXY: not the URL of a proxy".to_owned())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    fn config(server: &str, extra: &str, no_proxy: &str) -> Result<Config, String> {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(CERTIFICATE);
        let text = format!(
            "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u, namespace: team}}}}], \
             clusters: [{{name: k, cluster: {{server: '{server}', certificate-authority-data: {ca}{extra}}}}}], \
             users: [{{name: u, user: {{token: t}}}}]}}"
        );
        let proxies = Proxies::new("HTTPS_PROXY", "http://user:p@proxy.example.com:3128", no_proxy).expect("a proxy");
        from_kubeconfig(Kubeconfig::from_yaml(&text).expect("a kubeconfig"), &proxies)
    }

    fn proxy_of(server: &str, extra: &str, no_proxy: &str) -> Option<String> {
        config(server, extra, no_proxy).expect("usable").proxy_url.map(|url| url.host().unwrap_or_default().to_owned())
    }

    #[test]
    fn kubeconfig_is_read_as_it_is_written() {
        let config = config("https://api.example.com:6443", ", tls-server-name: other", "").expect("usable");
        assert_eq!(config.cluster_url.to_string(), "https://api.example.com:6443/");
        assert_eq!(config.default_namespace, "team");
        assert_eq!(config.root_cert, Some(vec![vec![0x30, 0]]));
        assert_eq!(config.tls_server_name.as_deref(), Some("other"));
        assert!(config.auth_info.token.is_some() && !config.accept_invalid_certs);
    }

    #[test]
    fn proxy_is_that_of_the_environment_unless_no_proxy_or_the_file_say_otherwise() {
        let api = "https://api.corp.example:6443";
        assert_eq!(proxy_of(api, "", "localhost,").as_deref(), Some("proxy.example.com"));
        assert_eq!(proxy_of(api, "", "*.corp.example,"), None);
        assert_eq!(proxy_of(api, "", "proxy.example.com").as_deref(), Some("proxy.example.com"));
        let without_scheme = ", proxy-url: 'named.example.com:3128'";
        assert_eq!(proxy_of(api, without_scheme, "*").as_deref(), Some("named.example.com"));
        let named = ", proxy-url: 'http://named.example.com:3128'";
        assert_eq!(proxy_of(api, named, "*").as_deref(), Some("named.example.com"));
        for server in ["https://127.0.0.1:6443", "https://localhost:6443", "https://[::1]:6443"] {
            assert_eq!(proxy_of(server, "", ""), None, "{server}");
        }
    }

    #[test]
    fn proxy_of_the_file_that_cannot_be_used_is_reported_without_its_value() {
        for scheme in ["socks5", "socks5h", "socks4"] {
            let named = format!(", proxy-url: '{scheme}://user:hunter2@proxy.example.com:1080'");
            let error = config("https://api.example.com", &named, "").err().unwrap_or_default();
            let expected = "kubeconfig: proxy-url of the cluster: SOCKS proxies are not supported; write the URL of an";
            assert!(error.starts_with(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn exec_plugin_that_asks_for_its_cluster_gets_it() {
        let with = |provide: bool| {
            let text = format!(
                "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
                 clusters: [{{name: k, cluster: {{server: 'https://api.example.com'}}}}], \
                 users: [{{name: u, user: {{exec: {{command: plugin, provideClusterInfo: {provide}}}}}}}]}}"
            );
            let kubeconfig = Kubeconfig::from_yaml(&text).expect("a kubeconfig");
            let config = from_kubeconfig(kubeconfig, &Proxies::default()).expect("usable");
            config.auth_info.exec.and_then(|exec| exec.cluster).and_then(|cluster| cluster.server)
        };
        assert_eq!(with(true).as_deref(), Some("https://api.example.com"));
        assert_eq!(with(false), None);
    }

    #[test]
    fn what_a_user_chooses_replaces_what_the_file_says() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "{current-context: a, contexts: [{name: a, context: {cluster: k, user: u, namespace: first}}, \
                    {name: b, context: {cluster: k, user: u, namespace: second}}], \
                    clusters: [{name: k, cluster: {server: 'https://127.0.0.1'}}, \
                    {name: l, cluster: {server: 'https://localhost'}}], users: [{name: u, user: {token: t}}]}";
        std::fs::write(file.path(), text).expect("written");
        let choose = |context: Option<&str>, cluster: Option<&str>| {
            let file = Some(file.path().to_owned());
            let (context, cluster) = (context.map(Into::into), cluster.map(Into::into));
            let choice = Choice { file, context, cluster, ..Choice::default() };
            chosen(&choice, &Proxies::default())
                .map(|config| format!("{} {}", config.default_namespace, config.cluster_url))
        };
        assert_eq!(choose(None, None).as_deref(), Ok("first https://127.0.0.1/"));
        assert_eq!(choose(Some("b"), Some("l")).as_deref(), Ok("second https://localhost/"));
        assert!(choose(Some("c"), None).is_err_and(|error| error.contains("there is no context \"c\"")));
        let missing = Choice { file: Some("/does/not/exist".into()), ..Choice::default() };
        assert!(chosen(&missing, &Proxies::default()).is_err_and(|error| error.contains("/does/not/exist")));
    }

    #[test]
    fn server_that_is_named_needs_no_kubeconfig_unless_there_is_one_that_cannot_be_used() {
        let proxies = Proxies::new("HTTPS_PROXY", "http://proxy.example.com:3128", "").expect("a proxy");
        let config = alone(&http::Uri::from_static("https://api.example.com:6443"), &proxies).expect("usable");
        assert_eq!(config.cluster_url.to_string(), "https://api.example.com:6443/");
        assert_eq!(config.proxy_url.as_ref().and_then(http::Uri::host), Some("proxy.example.com"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config");
        let of_file = || Kubeconfig::read_from(&file).err().map(|error| is_missing(&error));
        assert_eq!(of_file(), Some(true));
        std::fs::write(&file, "users: {").expect("written");
        assert_eq!(of_file(), Some(false));
        // a file that the user names must be there
        let server = Some(http::Uri::from_static("https://api.example.com"));
        let named = Choice { file: Some("/does/not/exist".into()), server, ..Choice::default() };
        assert!(chosen(&named, &proxies).is_err_and(|error| error.contains("/does/not/exist")));
    }

    #[test]
    fn certificate_authority_may_be_empty_or_in_several_lines() {
        use base64::Engine;
        let encoded = base64::engine::general_purpose::STANDARD.encode(CERTIFICATE);
        let (first, second) = encoded.split_at(20);
        let certificate = vec![vec![0x30, 0]];
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), CERTIFICATE).expect("written");
        let with = |data: &str, file: &str| {
            let cluster = serde_json::from_value(serde_json::json!({
                "server": "https://api.example.com",
                "certificate-authority-data": data,
                "certificate-authority": file,
            }));
            roots(&cluster.expect("a cluster"))
        };
        let path = file.path().to_str().expect("a path");
        assert_eq!(with(&format!("{first}\n{second}\r\n"), ""), Ok(Some(certificate.clone())));
        assert_eq!(with("", path), Ok(Some(certificate.clone())));
        assert_eq!(with(" \n", path), Ok(Some(certificate)));
        assert_eq!(with("", ""), Ok(None));
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = "{current-context: c, contexts: [{name: c, context: {cluster: k}}], clusters: []}";
        let error = from_kubeconfig(Kubeconfig::from_yaml(text).expect("YAML"), &Proxies::default()).err();
        assert_eq!(error.as_deref(), Some("kubeconfig: there is no cluster k, which context c names"));
        let error = from_kubeconfig(Kubeconfig::default(), &Proxies::default()).err();
        assert_eq!(error.as_deref(), Some("kubeconfig: set current-context"));
    }
}
