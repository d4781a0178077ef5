//! The configuration of the Kubernetes client: that of `KUBECONFIG`, or that of the cluster that the process runs in.
//!
//! `kube` reads a kubeconfig too, but takes the proxy of the environment for the API server whatever `NO_PROXY` says of
//! its host, and fails where `NO_PROXY` ends in a comma. So the file is turned into a configuration here.

mod files;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use files::{Files, Unread};
use kube::{
    Config,
    config::{Cluster, ExecAuthCluster, Kubeconfig},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use url::{Host, Url};

use crate::config::proxy::Proxies;

/// The configuration: that of a kubeconfig, or of the service account where there is none. A kubeconfig that cannot be
/// used is an error: the service account may be of another cluster, and has other permissions.
///
/// # Errors
/// A message that says what is missing.
pub fn infer(proxies: &Proxies) -> Result<Config, String> {
    let mut config = inferred(proxies, &Sources::of_environment())?;
    config.apply_debug_overrides();
    Ok(config)
}

/// Where a configuration comes from that no flag chooses.
struct Sources {
    files: Files,
    /// The configuration of the pod that the process runs in.
    service_account: fn() -> Option<Config>,
}

impl Sources {
    fn of_environment() -> Self {
        Self { files: Files::of_environment(), service_account: || Config::incluster().ok() }
    }
}

fn inferred(proxies: &Proxies, sources: &Sources) -> Result<Config, String> {
    match sources.files.read() {
        Ok(kubeconfig) => from_kubeconfig(kubeconfig, proxies),
        Err(unread) => of_pod(unread, sources),
    }
}

/// The configuration of the pod, if no kubeconfig says otherwise.
fn of_pod(unread: Unread, sources: &Sources) -> Result<Config, String> {
    match unread {
        Unread::Absent(why) => (sources.service_account)().ok_or_else(|| {
            format!(
                "no kubeconfig (KUBECONFIG), since {why}, and no service account, because the process runs in no pod"
            )
        }),
        Unread::Missing(why) | Unread::Unusable(why) => Err(why),
    }
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
    chosen_from(choice, proxies, &Sources::of_environment())
}

fn chosen_from(choice: &Choice, proxies: &Proxies, sources: &Sources) -> Result<Config, String> {
    let chosen = [&choice.context, &choice.cluster, &choice.user];
    let is_explicit = choice.file.is_some() || chosen.iter().any(|chosen| chosen.is_some());
    let mut kubeconfig = match read_from(choice.file.as_deref(), &sources.files) {
        Ok(kubeconfig) => kubeconfig,
        Err(unread) if is_explicit => return Err(unread.into_reason()),
        Err(unread) => {
            // the service account is not for a server that the user names
            let server = choice.server.as_ref().filter(|_| !matches!(unread, Unread::Unusable(_)));
            return server.map_or_else(|| of_pod(unread, sources), |server| alone(server, proxies));
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

/// The kubeconfig of a file, or of those of `KUBECONFIG`, or `~/.kube/config`.
///
/// # Errors
/// Why there is none that can be used.
pub fn read(file: Option<&Path>) -> Result<Kubeconfig, String> {
    read_from(file, &Files::of_environment()).map_err(Unread::into_reason)
}

fn read_from(file: Option<&Path>, files: &Files) -> Result<Kubeconfig, Unread> {
    file.map_or_else(|| files.read(), files::read)
}

/// The configuration for a server without a kubeconfig, and without credentials.
fn alone(server: &http::Uri, proxies: &Proxies) -> Result<Config, String> {
    let mut config = Config::new(server.clone());
    config.proxy_url = proxy(&Cluster::default(), &server.to_string(), proxies)?;
    Ok(config)
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
        let info = ExecAuthCluster::try_from(&cluster);
        exec.cluster = Some(info.map_err(|_| "kubeconfig: the certificate authority of the cluster is not usable")?);
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
mod tests;
