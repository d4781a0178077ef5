//! bitnami-labs/sealed-secrets: garbage collection of the wrong Secret, long passes after a restart.

use anyhow::Result;
use serde_json::json;
use testbed::eventually;

use crate::{
    apiserver::contention::recreated_again_and_again,
    fixture::{Fixture, SOON},
};

#[tokio::test]
async fn sealed_secrets_1599_garbage_collection_of_the_old_uid_spares_the_new_secret() -> Result<()> {
    recreated_again_and_again(&Fixture::ready("gc").await?, 1).await
}

/// A thousand of them, and what is read and written meanwhile, are among the tests with their own control plane.
#[tokio::test]
async fn sealed_secrets_1833_full_pass_after_a_restart_takes_seconds() -> Result<()> {
    const CREDENTIALS: usize = 100;
    let mut fixture = Fixture::ready("pass").await?;
    let client = json!({"clientCredentialsRef": {"name": "agent-client"}});
    fixture.create_credentials((1..CREDENTIALS).map(|number| format!("more-{number}")), &client).await?;
    let all_ready = async |fixture: &Fixture| {
        eventually("all of them Ready", 6 * SOON, async || {
            (fixture.metric("itwin_credential_ready{").await.ok()? as usize == CREDENTIALS).then_some(())
        })
        .await
    };
    all_ready(&fixture).await?;
    fixture.restart().await?;
    let started = std::time::Instant::now();
    all_ready(&fixture).await?;
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    Ok(())
}
