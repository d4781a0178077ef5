//! What a kubeconfig leads to, and what its absence does.

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

/// In a pod with a service account, where these files are the kubeconfig.
fn in_a_pod(named: &[&Path], default: &Path) -> Sources {
    let list = std::env::join_paths(named).expect("a list");
    let service_account = || {
        let mut config = Config::new(http::Uri::from_static("https://pod.example.com"));
        config.auth_info.token_file = Some("/of/the/pod".to_owned());
        Some(config)
    };
    Sources { files: Files::new(Some(list.as_os_str()), Some(default.to_owned())), service_account }
}

/// The server, and whether it is called as the service account.
fn reached(config: Result<Config, String>) -> Result<(String, bool), String> {
    config.map(|config| (config.cluster_url.to_string(), config.auth_info.token_file.is_some()))
}

/// A folder with files of several kinds.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    file("broken", "users: {");
    file("entries", "{contexts: [{name: c, context: {cluster: k, user: u}}], users: [{name: u, user: {token: t}}]}");
    file(
        "whole",
        "{current-context: '', clusters: [{name: k, cluster: {server: 'https://api.example.com'}}], \
         contexts: [{name: c, context: {cluster: k}}]}",
    );
    file("current", "current-context: c");
    std::fs::create_dir(folder.path().join("directory")).expect("a folder");
    folder
}

#[test]
fn kubeconfig_that_cannot_be_used_is_not_replaced_by_the_service_account() {
    let (folder, proxies) = (folder(), Proxies::default());
    let path = |name: &str| folder.path().join(name);
    let ends = |sources: &Sources, says: &str| {
        let server = Some(http::Uri::from_static("https://other.example.com"));
        let choice = Choice { server, ..Choice::default() };
        let ended = [
            inferred(&proxies, sources),
            chosen_from(&Choice::default(), &proxies, sources),
            chosen_from(&choice, &proxies, sources),
        ];
        for ended in ended {
            let why = reached(ended).expect_err("no configuration");
            assert!(why.contains(says), "{why}");
        }
    };
    for unusable in ["broken", "directory"] {
        ends(&in_a_pod(&[&path(unusable)], &path("none")), unusable);
        ends(&in_a_pod(&[], &path(unusable)), unusable);
        ends(&in_a_pod(&[&path("whole"), &path(unusable)], &path("none")), unusable);
    }
    // what is named must be there, except where a server is named besides
    let missing = in_a_pod(&[&path("none")], &path("whole"));
    for ended in [inferred(&proxies, &missing), chosen_from(&Choice::default(), &proxies, &missing)] {
        assert!(reached(ended).is_err_and(|why| why.starts_with("KUBECONFIG: ") && why.contains("does not exist")));
    }
}

#[test]
fn service_account_is_that_of_a_pod_without_a_kubeconfig_and_for_no_other_server() {
    let (folder, proxies) =
        (folder(), Proxies::new("HTTPS_PROXY", "http://proxy.example.com:3128", "").expect("a proxy"));
    let path = |name: &str| folder.path().join(name);
    let pod = Ok(("https://pod.example.com/".to_owned(), true));
    // no folder is in a file
    for default in [path("none"), path("whole").join("none")] {
        let sources = in_a_pod(&[], &default);
        assert_eq!(reached(inferred(&proxies, &sources)), pod);
        assert_eq!(reached(chosen_from(&Choice::default(), &proxies, &sources)), pod);
    }
    let server = Some(http::Uri::from_static("https://other.example.com"));
    let choice = Choice { server, ..Choice::default() };
    for sources in [in_a_pod(&[], &path("none")), in_a_pod(&[&path("none")], &path("whole"))] {
        let config = chosen_from(&choice, &proxies, &sources).expect("usable");
        assert_eq!(config.proxy_url.as_ref().and_then(http::Uri::host), Some("proxy.example.com"));
        assert_eq!(reached(Ok(config)), Ok(("https://other.example.com/".to_owned(), false)));
    }
    // what is chosen must be there, and so must a file that is named
    let sources = in_a_pod(&[], &path("none"));
    let server = choice.server;
    for choice in [
        Choice { context: Some("c".to_owned()), server: server.clone(), ..Choice::default() },
        Choice { file: Some(path("none")), server, ..Choice::default() },
    ] {
        assert!(reached(chosen_from(&choice, &proxies, &sources)).is_err_and(|why| why.contains("does not exist")));
    }
}

#[test]
fn file_of_the_list_that_does_not_exist_is_left_out_and_the_first_entry_counts() {
    let (folder, proxies) = (folder(), Proxies::default());
    let path = |name: &str| folder.path().join(name);
    let (entries, whole, current, none) = (path("entries"), path("whole"), path("current"), path("none"));
    let api = "https://api.example.com/".to_owned();
    let rows: [(&[&Path], bool); 3] = [
        (&[&entries, &none, &whole, &current], true),
        (&[&none, &whole, &entries, &current], false),
        (&[&whole, &current, &none], false),
    ];
    for (named, has_token) in rows {
        let config = inferred(&proxies, &in_a_pod(named, &none)).expect("usable");
        assert_eq!(config.auth_info.token.is_some(), has_token, "{named:?}");
        assert_eq!(reached(Ok(config)), Ok((api.clone(), false)), "{named:?}");
    }
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
