//! A server that moves its token endpoint: the discovery document names the new one, and the old one is gone.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::faults::row::RowFixture;

const PATIENCE: Duration = Duration::from_secs(60);
/// Much less than the ten minutes after which the document is read anyway, on a busy machine.
const NOTICED: Duration = Duration::from_secs(40);
const NAME: &str = "agent";

#[tokio::test]
async fn discovered_token_endpoint_that_moved_is_used_within_seconds() -> Result<()> {
    let fixture = RowFixture::new("moved").await?;
    let client_id = fixture.client_id(NAME);
    let issuer = format!("{}/moving/{client_id}", fixture.faults().issuer);
    let authority = fixture.create_authority(NAME, &json!({"issuer": issuer, "accessTokenFormat": "opaque"})).await?;
    fixture.create_client_secret(NAME).await?;
    fixture.create_credential(NAME, &authority, NAME, &json!({})).await?;
    fixture.wait(NAME, "Ready", true, "TokenValid", PATIENCE).await?;
    let before = fixture.secrets().get(NAME).await?;

    fixture.faults().behave(&client_id, &json!({"name": "good", "moves": 1})).await?;
    fixture.renew_now(NAME, "1").await?;
    fixture
        .eventually("a token of the new endpoint", NOTICED, async || {
            let now = fixture.secrets().get(NAME).await.ok()?;
            (now.data != before.data).then_some(())
        })
        .await?;
    fixture.wait(NAME, "Renewed", true, "TokenIssued", PATIENCE).await?;
    fixture.delete_authority(&authority).await
}
