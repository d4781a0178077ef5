//! What the flags of the connection lead to.

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

#[test]
fn certificate_and_key_of_the_client_are_those_of_the_files() {
    let proxies = Proxies::default();
    let pair = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(Vec::<String>::new()).and_then(|params| params.self_signed(&pair));
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate_file, key_file) = (path("tls.crt"), path("tls.key"));
    std::fs::write(&certificate_file, certificate.expect("a certificate").pem()).expect("written");
    std::fs::write(&key_file, pair.serialize_pem()).expect("written");
    let both = ["--client-certificate", &certificate_file, "--client-key", &key_file];
    let user = config(&both, &proxies).expect("usable").auth_info;
    assert_eq!(user.client_certificate.as_deref(), Some(certificate_file.as_str()));
    assert_eq!(user.client_key.as_deref(), Some(key_file.as_str()));
    assert!(user.token.is_some(), "that of the kubeconfig, as with kubectl");
    // the other half is that of the kubeconfig, which --token leaves out
    assert!(config(&both[..2], &proxies).is_ok());
    let problem = |arguments: &[&str]| config(arguments, &proxies).err().map(|problem| problem.to_string());
    let half = problem(&[&both[..2], &["--token", TOKEN]].concat()).expect("a half");
    assert!(half.contains("belong together") && !half.contains(TOKEN), "{half}");
    let swapped = problem(&["--client-key", &certificate_file]).expect("no key");
    assert!(swapped.starts_with("--client-key ") && swapped.ends_with("it holds no private key in PEM"), "{swapped}");
    let missing = problem(&["--client-certificate", "/does/not/exist"]).expect("no file");
    assert!(missing.starts_with("--client-certificate /does/not/exist: "), "{missing}");
}

#[tokio::test]
async fn user_to_impersonate_has_extra_fields_and_a_password_is_sent_and_not_shown() {
    let server = fake::server(|asked| fake::object(&Value::String(asked.head.to_ascii_lowercase())));
    let extra = ["--as", "other", "--as-user-extra", "scopes=a", "--as-user-extra", "scopes=b=c"];
    let arguments = [&extra[..], &["-s", &server, "--username", "someone", "--password", TOKEN]].concat();
    assert!(!format!("{:?}", flags(&arguments)).contains(TOKEN));
    let session = fake::session_with("http://127.0.0.1:1", flags(&arguments));
    let head: String = session.get("/api/v1/namespaces").await.expect("answered");
    for line in ["impersonate-extra-scopes: a", "impersonate-extra-scopes: b=c", "authorization: basic "] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    for (wrong, text) in [
        (&["--as-user-extra", "a=b"][..], "--as-user-extra is of a user"),
        (&["--as-group", "a"], "--as-group is of a user"),
        (&["--username", "a"], "belong together"),
        (&["--password", TOKEN], "belong together"),
        (&["--username", "a", "--password", "b", "--token", TOKEN], "leave one out"),
    ] {
        let problem = config(wrong, &Proxies::default()).err().map(|problem| problem.to_string()).unwrap_or_default();
        assert!(problem.contains(text) && !problem.contains(TOKEN), "{wrong:?}: {problem}");
    }
    assert!(Cli::try_parse_from(["kubectl-itcred", "status", "--as-user-extra", "scopes"]).is_err());
}

#[test]
fn empty_user_to_impersonate_leaves_the_one_of_the_kubeconfig() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let kubeconfig = "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], \
                      clusters: [{name: k, cluster: {server: 'https://api.example.com'}}], \
                      users: [{name: u, user: {token: t, as: limited, as-groups: [few]}}]}";
    std::fs::write(file.path(), kubeconfig).expect("written");
    let impersonated = |arguments: &[&str]| {
        let connection = Connection { kubeconfig: Some(file.path().to_owned()), ..flags(arguments) };
        let user = connection.config(&Proxies::default()).expect("usable").auth_info;
        (user.impersonate.unwrap_or_default(), user.impersonate_groups.unwrap_or_default())
    };
    let limited = ("limited".to_owned(), vec!["few".to_owned()]);
    assert_eq!((impersonated(&[]), impersonated(&["--as", ""])), (limited.clone(), limited));
    assert_eq!(impersonated(&["--as", "other"]), ("other".to_owned(), vec![]));
}

#[test]
fn proxy_of_the_flag_is_used_for_every_server() {
    let proxies = Proxies::new("HTTPS_PROXY", "http://proxy.example.com:3128", "").expect("a proxy");
    for server in ["https://api.example.com", "https://localhost:6443"] {
        let arguments = ["-s", server, "--proxy-url", "http://other.example.com:8080"];
        let proxy = config(&arguments, &proxies).expect("usable").proxy_url;
        assert_eq!(proxy.as_ref().and_then(Uri::host), Some("other.example.com"), "{server}");
    }
    let wrong =
        config(&["--proxy-url", "socks5://user:s3cr3t@proxy"], &proxies).expect_err("a SOCKS proxy").to_string();
    assert!(wrong.starts_with("--proxy-url: ") && !wrong.contains("s3cr3t"), "{wrong}");
}
