//! openfga/java-sdk, SlinkyProject/slurm-operator and kaniop: buffers that do not fit the token, hot loops, status
//! loops.

use anyhow::Result;
use chrono::TimeDelta;
use itwin_core::{
    policy::{Policy, RenewBefore},
    schedule,
};
use serde_json::json;
use testbed::eventually;

use super::{at, token_metadata};
use crate::{
    audit::calls,
    fixture::{Fixture, PATIENCE},
};

#[test]
fn openfga_java_sdk_388_buffer_and_jitter_are_fractions_of_the_lifetime() {
    let requested = Policy { renew_before: RenewBefore::Default, minimum_validity: Some(TimeDelta::zero()) };
    for lifetime in [12, 60, 3600, 86_400, 2_592_000] {
        for uid in ["a", "b", "c", "d"] {
            let left =
                (at(lifetime) - schedule::renew_at(&token_metadata(lifetime), &requested, uid)).num_milliseconds();
            let third = lifetime * 1000 / 3;
            // a third, and a twentieth of jitter at most, of a minute as of a month
            assert!((third..=third + lifetime * 50 + 1).contains(&left), "{left} ms left of {lifetime} s");
        }
    }
}

#[tokio::test]
async fn slurm_operator_241_tokens_of_seconds_make_no_hot_loop() -> Result<()> {
    let mut fixture = Fixture::new("hot-loop").await?;
    fixture.client.lifetime = 1;
    fixture.register().await?;
    fixture.apply_credential(&json!({})).await?;
    eventually("six tokens", PATIENCE, async || (fixture.token_requests().await.ok()?.len() >= 6).then_some(()))
        .await?;
    let requests = fixture.token_requests().await?;
    let gaps: Vec<i64> = requests.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    // at least a second is between them where they are sent; the first one comes later by its handshake
    assert!(gaps.iter().all(|gap| *gap >= 850), "never more than one a second: {gaps:?} ms");
    // each token causes a handful: it falls due, it is written, the status is written, the watch reports it, it expires
    let reconciles = fixture.metric("itwin_reconciles_total").await?;
    let allowed = 20.0 * (fixture.token_requests().await?.len() as f64);
    assert!(reconciles <= allowed, "{reconciles} reconciliations, more than {allowed}");
    Ok(())
}

/// The status writes of a credential until nothing changes any more.
async fn status_writes_at_rest(prefix: &str, spec: &serde_json::Value, reason: &str) -> Result<usize> {
    let fixture = Fixture::new(prefix).await?;
    fixture.apply_credential(spec).await?;
    fixture.wait_condition("Renewed", if reason == "TokenIssued" { "True" } else { "False" }, reason, PATIENCE).await?;
    // each write of the status enqueues the credential again; a loop would write in each of these reconciliations
    let reconciles = fixture.metric("itwin_reconciles_total").await?;
    for touch in ["1", "2", "3"] {
        let label = format!("touched={touch}");
        fixture.namespace.kubectl(&["label", "itcred", crate::fixture::NAME, &label, "--overwrite"]).await?;
        let seen = reconciles + touch.parse::<f64>()?;
        eventually("another reconciliation", PATIENCE, async || {
            fixture.metric("itwin_reconciles_total").await.ok().filter(|now| *now >= seen).map(drop)
        })
        .await?;
    }
    Ok(calls(&fixture.namespace)?.iter().filter(|call| call.resource.ends_with("/status")).count())
}

#[tokio::test]
async fn kaniop_830_status_that_says_the_same_is_not_written_again() -> Result<()> {
    let writes = status_writes_at_rest("status-loop", &json!({}), "TokenIssued").await?;
    // Pending or not ready at first on a busy machine, then issued
    assert!(writes <= 3, "{writes} status writes");
    Ok(())
}

#[tokio::test]
async fn kaniop_835_status_of_a_suspended_credential_is_written_once() -> Result<()> {
    let fixture = Fixture::new("status-suspended").await?;
    fixture.apply_credential(&json!({"suspend": true})).await?;
    fixture.wait_condition("Ready", "False", "Suspended", PATIENCE).await?;
    for touch in ["1", "2", "3"] {
        let label = format!("touched={touch}");
        fixture.namespace.kubectl(&["label", "itcred", crate::fixture::NAME, &label, "--overwrite"]).await?;
    }
    eventually("four reconciliations", PATIENCE, async || {
        fixture.metric("itwin_reconciles_total").await.ok().filter(|reconciles| *reconciles >= 4.0).map(drop)
    })
    .await?;
    let writes = calls(&fixture.namespace)?.iter().filter(|call| call.resource.ends_with("/status")).count();
    assert_eq!(writes, 1);
    Ok(())
}
