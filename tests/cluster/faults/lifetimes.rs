//! Renewal by the real authorization server: in time, indefinitely, exactly as often as the policy says. It takes a
//! minute and a half, so it runs in parallel with the faults, which take as long.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use itwin_credential_operator::clock::Clock;
use serde_json::json;
use testbed::api_proxy::fault::{Fault, Rule};

use crate::fixture::Fixture;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(60);

/// One token, as it was in the Secret.
struct TokenVersion {
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    renew_at: Option<DateTime<Utc>>,
}

fn time(value: &serde_json::Value) -> Result<DateTime<Utc>> {
    Ok(DateTime::parse_from_rfc3339(value.as_str().context("no time")?)?.to_utc())
}

#[tokio::test]
async fn short_lived_token_is_renewed_in_time_for_three_lifetimes() -> Result<()> {
    const LIFETIME: i64 = 30;
    let mut fixture = Fixture::new("renewal").await?;
    fixture.client.lifetime = 30;
    fixture.register().await?;
    fixture.apply_credential(&json!({"minimumValidity": "5s"})).await?;
    fixture.wait_ready().await?;

    let mut tokens: Vec<TokenVersion> = Vec::new();
    let started = Instant::now();
    // it ends well before the next renewal, so that none falls between the last reading and the count of requests
    let far_from_renewal = |tokens: &[TokenVersion]| {
        tokens.last().is_some_and(|last| (Clock::system().now() - last.issued_at).num_seconds() < LIFETIME / 3)
    };
    while started.elapsed() < Duration::from_secs(3 * 30) || !far_from_renewal(&tokens) {
        let secret = fixture.secret().await?.context("the Secret is gone")?;
        let now = Clock::system().now();
        let annotation = |key: &str| time(&secret["metadata"]["annotations"][format!("credentials.itwin.dev/{key}")]);
        let (issued_at, expires_at) = (annotation("issued-at")?, annotation("expires-at")?);
        assert!(expires_at > now, "the token in the Secret expired at {expires_at}, and it is {now}");
        if tokens.last().is_none_or(|last| last.issued_at != issued_at) {
            tokens.push(TokenVersion { issued_at, expires_at, renew_at: None });
        }
        let status = fixture.status().await?;
        if let Some(last) = tokens.last_mut()
            && time(&status["issuedAt"]).is_ok_and(|issued| issued == last.issued_at)
        {
            last.renew_at = Some(time(&status["renewAt"])?);
        }
        assert_eq!(status["conditions"][0]["status"], "True", "Ready all the time: {status}");
        // each reading starts a process; this only separates them
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    for pair in tokens.windows(2) {
        let due = pair[0].renew_at.context("renewAt was never set")?;
        let late = (pair[1].issued_at - due).num_seconds();
        assert!((0..=2).contains(&late), "due at {due}, renewed at {}", pair[1].issued_at);
        let left = (pair[0].expires_at - due).num_seconds();
        // a third, and up to a twentieth more
        assert!((LIFETIME / 3..=LIFETIME / 3 + 2).contains(&left), "due with {left} s left");
    }
    // 18.5 s to 20 s from one to the next: the first, and four to six within 90 to 102 s
    assert!((5..=7).contains(&tokens.len()), "{} tokens in three lifetimes", tokens.len());
    assert_eq!(fixture.token_requests().await?.len(), tokens.len(), "one token request for each token");
    Ok(())
}

/// A status that cannot be written is tried again at growing intervals, which become as long as the token lives.
#[tokio::test]
async fn status_that_cannot_be_written_delays_no_renewal() -> Result<()> {
    let mut fixture = Fixture::new("unreported").await?;
    fixture.client.lifetime = 30;
    fixture.register().await?;
    fixture.apply_credential(&json!({"minimumValidity": "5s"})).await?;
    fixture.wait_ready().await?;
    let [replaced, refused] = ["update", "patch"].map(|verb| {
        let call = format!("{verb} itwinservicecredentials/status");
        fixture.proxy().play(Rule::new(&call, Fault::Refused(403)).lasting(LONG))
    });
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(100) {
        let secret = fixture.secret().await?.context("the Secret is gone")?;
        let expires_at = time(&secret["metadata"]["annotations"]["credentials.itwin.dev/expires-at"])?;
        let now = Clock::system().now();
        assert!(expires_at > now, "the token in the Secret expired at {expires_at}, and it is {now}");
        // each reading starts a process; this only separates them
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(refused.times() >= 3, "the status was refused {} times", refused.times());
    [replaced, refused].iter().for_each(|rule| fixture.proxy().stop(rule));
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    Ok(())
}
