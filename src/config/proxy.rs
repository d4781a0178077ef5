//! The proxy for https, and the hosts that are reached without it, from the environment: `HTTPS_PROXY` or `ALL_PROXY`,
//! and `NO_PROXY`, each in lower case too.
//!
//! The HTTP client and the Kubernetes client read these variables with rules of their own, which differ. The rules here
//! hold for both, and take what administrators write for other programs of the cluster.

use std::net::IpAddr;

use url::{Host, Url};

/// The variables that name the proxy, in the order of their precedence.
const PROXY: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// The variables that name what is reached without it.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The proxy for https, if there is one, and the hosts that are reached without it.
#[derive(Clone, Default)]
pub struct Proxies {
    proxy: Option<Url>,
    direct: Vec<Direct>,
}

/// Hosts that are reached without the proxy, at one port or at all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Direct {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// `*`: all.
    All,
    /// Addresses whose first bits are these.
    Network(IpAddr, u8),
    /// A domain and those below it, or only those below it.
    Domain { name: String, itself: bool },
}

impl Proxies {
    /// What the environment of the process says.
    ///
    /// # Errors
    /// One line that names the variable and says what to write.
    pub fn from_env() -> Result<Self, String> {
        let first = |names: &[&'static str]| {
            let values = names.iter().map(|name| (*name, std::env::var(name).unwrap_or_default()));
            values.into_iter().find(|(_, value)| !value.trim().is_empty())
        };
        let no_proxy = first(&NO_PROXY).map(|(_, value)| value).unwrap_or_default();
        match first(&PROXY) {
            Some((name, value)) => Self::new(name, &value, &no_proxy),
            None => Ok(Self::default()),
        }
    }

    /// The proxy that a variable of this name holds, and what `NO_PROXY` holds.
    ///
    /// # Errors
    /// As [`Self::from_env`]. The value is not repeated: it may hold a password.
    pub fn new(name: &str, value: &str, no_proxy: &str) -> Result<Self, String> {
        let value = value.trim();
        let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let advice = "write the URL of an HTTP proxy, such as http://proxy.example.com:3128";
        let proxy = Url::parse(&with_scheme).ok().filter(Url::has_host);
        let proxy = proxy.ok_or_else(|| format!("{name}: not the URL of a proxy; {advice}"))?;
        if proxy.scheme().starts_with("socks") {
            return Err(format!("{name}: SOCKS proxies are not supported; {advice}"));
        }
        if !["http", "https"].contains(&proxy.scheme()) {
            return Err(format!("{name}: not an HTTP proxy; {advice}"));
        }
        let entries = no_proxy.split([',', ' ', '\t', '\n']).map(str::trim);
        Ok(Self { proxy: Some(proxy), direct: entries.filter_map(Direct::parse).collect() })
    }

    /// The proxy, whatever is reached without it.
    #[must_use]
    pub fn into_url(self) -> Option<Url> {
        self.proxy
    }

    /// The proxy for a URL of scheme https; `None` where it is reached without one.
    #[must_use]
    pub fn for_url(&self, url: &Url) -> Option<&Url> {
        let host = url.host()?;
        let port = url.port_or_known_default();
        let is_direct =
            |direct: &Direct| direct.port.is_none_or(|own| Some(own) == port) && direct.hosts.contains(&host);
        self.proxy.as_ref().filter(|_| url.scheme() == "https" && !self.direct.iter().any(is_direct))
    }
}

impl Direct {
    /// One entry of `NO_PROXY`; `None` where it is empty, as after a comma at the end.
    fn parse(entry: &str) -> Option<Self> {
        if let Some(network) = network(entry) {
            return Some(Self { hosts: network, port: None });
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (entry, None),
            },
            None => (entry, None),
        };
        let hosts = match host {
            "*" => Hosts::All,
            _ => network(host).or_else(|| domain(host))?,
        };
        Some(Self { hosts, port })
    }
}

/// An address, with or without brackets, or a network in CIDR notation.
fn network(text: &str) -> Option<Hosts> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= longest)?,
        None => longest,
    };
    Some(Hosts::Network(address, prefix))
}

/// A domain: `example.com` and `.example.com` are it and those below it, `*.example.com` only those below it.
fn domain(text: &str) -> Option<Hosts> {
    let (name, itself) = match text.strip_prefix("*.") {
        Some(name) => (name, false),
        None => (text.strip_prefix('.').unwrap_or(text), true),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty()).then_some(Hosts::Domain { name, itself })
}

impl Hosts {
    fn contains(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network(network, prefix), Host::Ipv4(address)) => is_within(IpAddr::V4(*address), *network, *prefix),
            (Self::Network(network, prefix), Host::Ipv6(address)) => is_within(IpAddr::V6(*address), *network, *prefix),
            (Self::Domain { name, itself }, Host::Domain(host)) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                below || *itself && host == *name
            }
            _ => false,
        }
    }
}

/// Whether the first bits of both addresses are equal.
fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (address, network, longest) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (address.to_bits().into(), network.to_bits().into(), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    // all bits are shifted out where the prefix is 0
    let rest = u32::from(longest - prefix);
    u128::checked_shr(address ^ network, rest).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_proxied(no_proxy: &str, url: &str) -> bool {
        let proxies = Proxies::new("HTTPS_PROXY", "http://proxy.example.com:3128", no_proxy).expect("a proxy");
        proxies.for_url(&Url::parse(url).expect("a URL")).is_some()
    }

    #[test]
    fn hosts_of_no_proxy_are_reached_without_it() {
        for (no_proxy, url) in [
            ("ims.corp.example", "https://ims.corp.example/token"),
            ("corp.example", "https://ims.corp.example"),
            ("corp.example", "https://corp.example"),
            (".corp.example", "https://ims.corp.example"),
            (".corp.example", "https://corp.example"),
            ("*.corp.example", "https://ims.corp.example"),
            ("*.corp.example", "https://a.b.corp.example:8443"),
            ("CORP.example.", "https://ims.corp.EXAMPLE"),
            ("corp.example:8443", "https://ims.corp.example:8443"),
            ("corp.example:443", "https://ims.corp.example"),
            ("other, corp.example,", "https://ims.corp.example"),
            (",,corp.example , ", "https://ims.corp.example"),
            ("other corp.example", "https://ims.corp.example"),
            ("10.0.0.0/8", "https://10.1.2.3"),
            ("10.1.2.3", "https://10.1.2.3:8443"),
            ("10.1.2.3:8443", "https://10.1.2.3:8443"),
            ("0.0.0.0/0", "https://10.1.2.3"),
            ("fd00::/8", "https://[fd12::1]"),
            ("fd12::1", "https://[fd12::1]:8443"),
            ("[fd12::1]:8443", "https://[fd12::1]:8443"),
            ("::/0", "https://[fd12::1]"),
            ("*", "https://ims.example.com"),
        ] {
            assert!(!is_proxied(no_proxy, url), "{no_proxy} {url}");
        }
    }

    #[test]
    fn other_hosts_are_reached_through_the_proxy() {
        for (no_proxy, url) in [
            ("", "https://ims.corp.example"),
            (",", "https://ims.corp.example"),
            ("corp.example", "https://notcorp.example"),
            ("*.corp.example", "https://corp.example"),
            ("*.corp.example", "https://xcorp.example"),
            ("corp.example:8443", "https://ims.corp.example"),
            ("10.0.0.0/8", "https://11.1.2.3"),
            ("10.0.0.0/8", "https://10.example.com"),
            ("10.0.0.0/33", "https://10.1.2.3"),
            ("10.1.2.3", "https://10.1.2.4"),
            ("10.0.0.0/8", "https://[fd12::1]"),
            ("fd00::/8", "https://[fe00::1]"),
            ("[fd12::1]:8443", "https://[fd12::1]"),
        ] {
            assert!(is_proxied(no_proxy, url), "{no_proxy} {url}");
        }
        assert!(!is_proxied("", "http://ims.corp.example"), "it is a proxy for https");
    }

    #[test]
    fn proxy_that_is_none_is_reported_with_its_variable_and_without_its_value() {
        for (value, says) in [
            ("socks5://user:hunter2@proxy:1080", "SOCKS proxies are not supported"),
            ("socks5h://user:hunter2@proxy:1080", "SOCKS proxies are not supported"),
            ("ftp://user:hunter2@proxy", "not an HTTP proxy"),
            ("http://", "not the URL of a proxy"),
            ("user:hunter2@", "not the URL of a proxy"),
        ] {
            let error = Proxies::new("HTTPS_PROXY", value, "").err().unwrap_or_default();
            assert!(error.starts_with("HTTPS_PROXY: ") && error.contains(says), "{value}: {error}");
            assert!(error.contains("http://proxy.example.com:3128") && !error.contains("hunter2"), "{error}");
        }
        for value in
            ["proxy.example.com:3128", "http://user:password@proxy.example.com:3128", "https://proxy.example.com"]
        {
            let proxies = Proxies::new("HTTPS_PROXY", value, "").expect("a proxy");
            let url = Url::parse("https://ims.example.com").expect("a URL");
            assert_eq!(proxies.for_url(&url).and_then(Url::host_str), Some("proxy.example.com"));
        }
    }
}
