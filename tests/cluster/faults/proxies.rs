//! The proxy of the environment, between an operator and the authorization server: through it a token is fetched, and
//! what it refuses is reported by its cause.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use testbed::{
    Testbed,
    control_plane::random_token,
    tunnels::{Behavior, Tunnels},
};

use crate::{
    environment::{TestEnvironment, condition},
    faults::row::RowFixture,
    fixture::Fixture,
};

const PATIENCE: Duration = Duration::from_secs(60);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// No host: all servers of the testbed are reached through the proxy.
const NO_HOST: &str = "unused.invalid";
/// Longer than the default of connectTimeout, and shorter than what a test sets.
const SLOW: Duration = Duration::from_secs(7);

/// A fixture whose operator has this proxy, and reaches these hosts without it.
async fn behind(prefix: &str, proxy: &str, no_proxy: &str) -> Result<RowFixture> {
    let environment = TestEnvironment::new(prefix).await?;
    let variables = [("HTTPS_PROXY", proxy), ("NO_PROXY", no_proxy)];
    let mut operator = environment.spawn_operator_of(&environment.namespace.name, &[], &variables)?;
    operator.wait_ready().await?;
    Ok(RowFixture::of(Fixture { client: environment.namespace.new_client(), operator, environment }))
}

/// Creates a credential, with an authority and a client of its own.
async fn create(fixture: &RowFixture, name: &str, spec: &Value) -> Result<String> {
    let authority = fixture.create_authority(name, spec).await?;
    fixture.create_client_secret(name).await?;
    fixture.create_credential(name, &authority, name, &json!({})).await?;
    Ok(authority)
}

/// An authority of which nothing is to be fetched but tokens.
fn opaque(endpoint: &str) -> Value {
    json!({"tokenEndpoint": endpoint, "accessTokenFormat": "opaque", "requestTimeout": "20s"})
}

fn endpoint() -> Result<String> {
    Ok(format!("{}/connect/token", Testbed::current()?.faults.issuer))
}

#[tokio::test]
async fn token_is_fetched_through_a_proxy_with_user_name_and_password() -> Result<()> {
    let password = format!("p@ss:{}", random_token());
    Testbed::current()?.keep_secret(&password)?;
    let in_url = password.replace('@', "%40").replace(':', "%3A");
    let user = Some(("user".to_owned(), password.clone()));
    let mut addresses = vec![V4];
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push(Ipv6Addr::LOCALHOST.into());
    }
    for address in addresses {
        let proxy = Tunnels::start(address, Behavior { user: user.clone(), ..Behavior::default() }).await?;
        let url = format!("http://user:{in_url}@{}", proxy.address);
        let fixture = behind("proxied", &url, &format!("*{NO_HOST},;,")).await?;
        create(&fixture, "agent", &json!({"requestTimeout": "20s"})).await?;
        fixture.wait("agent", "Ready", true, "TokenValid", PATIENCE).await?;
        let host = fixture.faults().issuer.trim_start_matches("https://").to_owned();
        let requests = proxy.requests();
        assert!(!requests.is_empty() && requests.iter().all(|request| *request == (host.clone(), 200)), "{requests:?}");

        let log = std::fs::read_to_string(fixture.operator.process.log())?;
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("NO_PROXY has entries")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains(&format!("*{NO_HOST} ;")), "{warnings:?}");
        assert!(!log.contains(&password) && !log.contains(&in_url));
    }
    Ok(())
}

#[tokio::test]
async fn proxy_that_makes_no_tunnel_is_reported_by_its_cause() -> Result<()> {
    let user = Some(("user".to_owned(), random_token()));
    let demanding = Tunnels::start(V4, Behavior { user, ..Behavior::default() }).await?;
    let refusing = Tunnels::start(V4, Behavior { refuses: Some(403), ..Behavior::default() }).await?;
    let failing = Tunnels::start(V4, Behavior { refuses: Some(502), ..Behavior::default() }).await?;
    let not_connected = "refused to connect to it, or could not reach it: have the proxy allow this host and port";
    for (prefix, proxy, expected) in [
        ("proxy-407", &demanding, "answered HTTP 407: write the user name and password"),
        ("proxy-403", &refusing, not_connected),
        // the HTTP client does not give out which of the two it is
        ("proxy-502", &failing, not_connected),
    ] {
        let fixture = behind(prefix, &format!("http://user:hunter2wrong@{}", proxy.address), NO_HOST).await?;
        create(&fixture, "agent", &opaque(&endpoint()?)).await?;
        let message = fixture.wait("agent", "Renewed", false, "ConnectionFailed", PATIENCE).await?;
        assert!(message.contains(expected) && !message.contains("hunter2"), "{message}");
        // the same for what is fetched for the authority
        let authority = create(&fixture, "verified", &json!({})).await?;
        let what = format!("Ready of {authority}");
        let message = fixture
            .eventually(&what, PATIENCE, async || {
                let object = fixture.namespace.get("itauth", &authority).await.ok()??;
                let (status, reason, message) = condition(&object["status"], "Ready")?;
                (status == "False" && reason == "ConnectionFailed").then_some(message)
            })
            .await?;
        assert!(message.contains(expected), "{message}");
        assert!(!std::fs::read_to_string(fixture.operator.process.log())?.contains("hunter2"));
    }
    Ok(())
}

#[tokio::test]
async fn proxy_with_a_certificate_of_another_ca_than_that_of_the_authority_is_reported_as_such() -> Result<()> {
    let testbed = Testbed::current()?;
    // a server over TLS, which a client that does not trust it sends nothing
    let fixture = behind("proxy-tls", &testbed.faults.issuer, NO_HOST).await?;
    let mut spec = opaque(&endpoint()?);
    spec["caBundle"] = json!(testbed.authority.ca_bundle());
    create(&fixture, "agent", &spec).await?;
    let message = fixture.wait("agent", "Renewed", false, "ConnectionFailed", PATIENCE).await?;
    for expected in ["the proxy on the way", "signed by no CA of spec.caBundle", "http:// URL"] {
        assert!(message.contains(expected), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn slow_proxy_counts_for_connect_timeout_and_an_ipv6_address_needs_no_proxy() -> Result<()> {
    let proxy = Tunnels::start(V4, Behavior { delay: SLOW, ..Behavior::default() }).await?;
    let fixture = behind("proxy-slow", &format!("http://{}", proxy.address), NO_HOST).await?;
    let endpoint = endpoint()?;
    let mut patient = opaque(&endpoint);
    patient["connectTimeout"] = json!("15s");
    create(&fixture, "patient", &patient).await?;
    create(&fixture, "default", &opaque(&endpoint)).await?;
    create(&fixture, "literal", &opaque("https://[::1]:8443/connect/token")).await?;
    let message = fixture.wait("default", "Renewed", false, "Timeout", PATIENCE).await?;
    assert!(message.contains("within 5s (connectTimeout)"), "{message}");
    let message = fixture.wait("literal", "Renewed", false, "ConnectionFailed", PATIENCE).await?;
    assert!(message.contains("IPv6 address") && message.contains("NO_PROXY"), "{message}");
    fixture.wait("patient", "Ready", true, "TokenValid", PATIENCE).await.map(drop)
}
