//! Servers with which TLS fails: the message names the real cause and what to change, in the credential and in the
//! ITwinAuthority.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use testbed::{eventually, faults::Faults};

use crate::faults::{
    row::{ATTACKER, Row, RowFixture},
    rows::play,
};

const PATIENCE: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 6;

/// A server: its name, its port, and what the message says.
type Case = (&'static str, u16, &'static str);

/// It answers over HTTP, and may mean that it wants a client certificate.
const OVER_HTTP: &str = "client-certificate-http";

fn cases(faults: &Faults) -> Vec<Case> {
    let tls = &faults.tls;
    let wants_a_certificate = "wants a client certificate, which this operator does not have, and refused";
    vec![
        ("expired", tls.expired, "expired at 2020-02-01T00:00:00Z: renew that certificate"),
        ("not-yet-valid", tls.not_yet_valid, "is valid only from 2100-01-01T00:00:00Z: compare the clocks"),
        (
            "self-signed",
            tls.self_signed,
            "signed by no CA of spec.caBundle: put the CA that signed it into spec.caBundle",
        ),
        ("wrong-name", tls.wrong_name, "a certificate for elsewhere.example.com, not for localhost: set tokenEndpoint"),
        ("ca-as-server", tls.ca_as_server, "uses a CA certificate as its own: issue it a server certificate"),
        ("old-version", tls.old_version, "refused the TLS handshake: configure it for TLS 1.2 or later"),
        ("old-cipher", tls.old_cipher, "refused the TLS handshake: configure it for TLS 1.2 or later"),
        ("client-certificate-tls12", tls.client_certificate_tls12, wants_a_certificate),
        ("client-certificate-tls13", tls.client_certificate_tls13, wants_a_certificate),
        (OVER_HTTP, tls.client_certificate_http, "HTTP 400, after it asked for a client certificate"),
        ("plain-http", tls.plain_http, "does not speak TLS: correct host and port in tokenEndpoint or jwksUri"),
        ("closing", tls.closing, "was closed during the TLS handshake"),
    ]
}

/// The CA of the good server, and the certificate of the CA that serves.
fn bundle(faults: &Faults) -> Value {
    json!(faults.tls.ca_bundle(&faults.ca))
}

#[tokio::test]
async fn failed_handshake_is_reported_by_its_cause() -> Result<()> {
    let faults = &testbed::Testbed::current()?.faults;
    let played = ["expired", "self-signed", "wrong-name", "ca-as-server", "client-certificate-tls13"];
    let row = |(name, port, text): Case| {
        let mut spec = json!({
            "tokenEndpoint": format!("https://localhost:{port}/connect/token"),
            "jwksUri": format!("{}/keys", faults.issuer),
        });
        if name == "ca-as-server" {
            spec["caBundle"] = bundle(faults);
        }
        Row::way(name, spec, "TLSFailed").with_text(text)
    };
    let rows = cases(faults).into_iter().filter(|(name, ..)| played.contains(name)).map(row);
    play("handshakes", rows.collect()).await
}

#[tokio::test]
async fn authority_reports_the_cause_of_a_failed_handshake() -> Result<()> {
    let fixture = RowFixture::new("tls-authority").await?;
    let faults = fixture.faults();
    let cases = cases(faults);
    let report = async |case: &Case| reported(&fixture, case).await;
    stream::iter(&cases).map(report).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

#[tokio::test]
async fn http_answer_of_a_server_that_asks_for_a_client_certificate_is_what_it_is() -> Result<()> {
    let faults = &testbed::Testbed::current()?.faults;
    let spec = |port: u16| {
        json!({
            "tokenEndpoint": format!("https://localhost:{port}/connect/token"),
            "jwksUri": format!("{}/keys", faults.issuer),
        })
    };
    let tls = &faults.tls;
    let asked = "HTTP 400 without a known OAuth error: check its tokenEndpoint; it asked for a client certificate";
    let mut harmless = Row::harmless("certificate-optional", json!({"name": "good"}));
    harmless.authority = spec(tls.client_certificate_optional);
    let named = |name, behaviour: Value, reason| {
        let mut row = Row::new(name, behaviour, reason);
        row.authority = spec(tls.client_certificate_optional);
        row
    };
    play(
        "certificate-asked",
        vec![
            harmless,
            Row::way("certificate-http", spec(tls.client_certificate_http), "RequestRejected").with_text(asked),
            named(
                "certificate-optional-401",
                json!({"name": "oauthError", "value": {"status": 401, "error": "invalid_client"}}),
                "InvalidClient",
            ),
            named("certificate-optional-500", json!({"name": "status", "value": {"status": 500}}), "ServerError"),
        ],
    )
    .await
}

/// Discovery at this port fails, and `Ready` of the ITwinAuthority says why.
async fn reported(fixture: &RowFixture, (name, port, text): &Case) -> Result<()> {
    let spec = json!({"issuer": format!("https://localhost:{port}"), "caBundle": bundle(fixture.faults())});
    let authority = fixture.create_authority(name, &spec).await?;
    // an operator connects to the authorities that credentials use
    fixture.create_client_secret(name).await?;
    fixture.create_credential(name, &authority, name, &json!({})).await?;
    let mut last = String::new();
    let message = eventually(&format!("the cause at {name}"), PATIENCE, async || {
        let status = fixture.authorities().get_status(&authority).await.ok()?.status?;
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready")?;
        last = format!("{} {}: {}", ready.status, ready.reason, ready.message);
        let reason = if *name == OVER_HTTP { "MalformedResponse" } else { "TLSFailed" };
        (ready.status == "False" && ready.reason == reason).then_some(ready.message)
    })
    .await
    .with_context(|| format!("last: {last}"))?;
    ensure!(message.contains(text), "{name}: {text:?} is not in: {message}");
    ensure!(message.contains(&authority), "{name}: no object is named in: {message}");
    ensure!(!message.contains(ATTACKER), "the server's own words are in: {message}");
    let of_trust = ["self-signed", "ca-as-server"].contains(name);
    ensure!(message.contains("caBundle") == of_trust, "{name}: {message}");
    fixture.delete_authority(&authority).await
}
