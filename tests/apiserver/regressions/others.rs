//! openfga/java-sdk and SlinkyProject/slurm-operator: buffers that do not fit the token, hot loops.

use anyhow::Result;
use chrono::TimeDelta;
use itwin_credential_operator::decide::{
    facts::{Policy, RenewBefore},
    schedule,
};
use serde_json::json;
use stage::eventually;

use super::{at, stamp};
use crate::fixture::{Fixture, PATIENCE};

#[test]
fn openfga_java_sdk_388_buffer_and_jitter_are_fractions_of_the_lifetime() {
    let wished = Policy { renew_before: RenewBefore::Default, minimum_validity: TimeDelta::zero() };
    for lifetime in [12, 60, 3600, 86_400, 2_592_000] {
        for uid in ["a", "b", "c", "d"] {
            let left = (at(lifetime) - schedule::renew_at(&stamp(lifetime), &wished, uid)).num_milliseconds();
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
    assert!(gaps.iter().all(|gap| *gap >= 950), "never more than one a second: {gaps:?} ms");
    // each token makes a handful: it falls due, it is written, the status is written, the watch tells it, it expires
    let looks = fixture.metric("itwin_reconciles_total").await?;
    let allowed = 20.0 * (fixture.token_requests().await?.len() as f64);
    assert!(looks <= allowed, "{looks} looks where {allowed} are many");
    Ok(())
}
