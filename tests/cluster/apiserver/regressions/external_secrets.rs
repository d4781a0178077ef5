//! external-secrets/external-secrets: intervals that ignore the token's lifetime, double requests, wiped Secrets, stuck
//! namespaces. Its silent stop at 3000 objects (#6053) is among the tests with their own control plane.

use anyhow::{Context, Result};
use chrono::TimeDelta;
use itwin_api::conditions::Reason;
use itwin_core::{backoff, policy::RenewBefore, schedule};
use serde_json::json;
use testbed::{eventually, namespace::COLLECTED};

use super::{at, policy, token_metadata};
use crate::fixture::{Fixture, NAME, PATIENCE, SOON};

#[test]
fn external_secrets_6690_token_is_renewed_before_it_expires_with_any_interval() {
    for lifetime in [60, 600, 3600, 86_400] {
        // a policy that was chosen for another token
        let requested = policy(RenewBefore::Fixed(TimeDelta::seconds(1)));
        let renew_at = schedule::renew_at(&token_metadata(lifetime), &requested, "2a9f4d3e");
        assert!(renew_at < at(lifetime), "a token of {lifetime} s is renewed at {renew_at}");
        let whole = TimeDelta::seconds(lifetime);
        let minimum = schedule::minimum_validity(&requested, whole).min(whole / 2);
        assert!(at(lifetime) - renew_at >= minimum, "with less than workloads need");
    }
}

#[tokio::test]
async fn external_secrets_6743_token_shorter_than_expected_is_renewed_by_its_own_lifetime() -> Result<()> {
    let mut fixture = Fixture::new("short-life").await?;
    fixture.client.lifetime = 10;
    fixture.register().await?;
    fixture.apply_credential(&json!({"renewBefore": "1h", "minimumValidity": "1s"})).await?;
    let mut token = String::new();
    for _ in 0..3 {
        token = eventually("a token that is valid", PATIENCE, async || {
            let data = fixture.data().await.ok()?;
            let expires_at = chrono::DateTime::parse_from_rfc3339(&data["expires_at"]).ok()?;
            assert!(
                expires_at > itwin_credential_operator::clock::Clock::system().now(),
                "an expired token stood in the Secret"
            );
            (data["access_token"] != token).then(|| data["access_token"].clone())
        })
        .await?;
    }
    let requests = fixture.token_requests().await?;
    let gaps: Vec<i64> = requests.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    // half of its lifetime, less a twentieth of jitter, and instants are truncated to seconds
    assert!(gaps.iter().all(|gap| *gap >= 3400), "{gaps:?} ms between two");
    Ok(())
}

#[tokio::test]
async fn external_secrets_2184_stale_read_requests_one_token() -> Result<()> {
    let fixture = Fixture::bare("stale-read").await?;
    let faults = fixture.namespace.testbed.faults.clone();
    fixture.apply_authority(&faults.spec()).await?;
    faults.behave(&fixture.client.client_id, &json!({"name": "slowGood", "value": 1500})).await?;
    fixture.apply_client_secret().await?;
    fixture.apply_credential(&json!({})).await?;
    // any event while the token request is under way, and right after the token was written
    let mut round = 0;
    eventually("a written token", PATIENCE, async || {
        round += 1;
        let touch = format!("touched={round}");
        for object in [["itcred", NAME], ["secret", "agent-client"], ["secret", NAME]] {
            let _ = fixture.namespace.kubectl(&["label", object[0], object[1], "--overwrite", &touch]).await;
        }
        (round > 5 && fixture.token().await.is_ok()).then_some(())
    })
    .await?;
    fixture.wait_ready().await?;
    assert_eq!(faults.requests(&fixture.client.client_id).await?.len(), 1);
    Ok(())
}

#[test]
fn external_secrets_6728_failing_issuer_is_not_hammered() {
    for reason in [Reason::ServerError, Reason::InvalidClient, Reason::ConnectionFailed] {
        let (mut elapsed, mut tries) = (TimeDelta::zero(), 0);
        while elapsed < TimeDelta::hours(1) {
            tries += 1;
            elapsed += backoff::delay(tries, TimeDelta::zero(), reason, None, "2a9f4d3e");
        }
        assert!((12..=130).contains(&tries), "{tries} tries in an hour after {reason:?}");
    }
}

#[tokio::test]
async fn external_secrets_2416_secret_is_never_wiped() -> Result<()> {
    let fixture = Fixture::ready("wiped").await?;
    let before = fixture.secret().await?.context("no Secret")?;
    // everything that a token depends on is deleted
    fixture.namespace.kubectl(&["delete", "itauth", &fixture.namespace.name]).await?;
    fixture.namespace.kubectl(&["delete", "secret", "agent-client"]).await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", SOON).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.secret().await?.context("no Secret")?, before);
    Ok(())
}

#[tokio::test]
async fn external_secrets_6773_nothing_of_ours_holds_a_namespace() -> Result<()> {
    let mut fixture = Fixture::ready("wedged").await?;
    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    assert!(credential["metadata"]["finalizers"].is_null(), "garbage collection does the cleanup");
    // no operator runs that could clean up
    fixture.stop();
    let (name, limit) = (fixture.namespace.name.clone(), format!("--timeout={}s", COLLECTED.as_secs()));
    fixture.namespace.testbed.kubectl(&["delete", "namespace", &name, &limit]).await?;
    Ok(())
}
