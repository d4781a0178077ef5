//! A server that returns one opaque token again and again, each time with the full lifetime.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::faults::row::RowFixture;

const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "agent";

#[tokio::test]
async fn opaque_token_that_is_returned_again_is_not_extended_and_a_new_one_is_fetched_in_time() -> Result<()> {
    let fixture = RowFixture::new("same-token").await?;
    let client_id = fixture.client_id(NAME);
    let stated = json!({"name": "sameToken", "value": {"expires_in": 40}});
    fixture.faults().behave(&client_id, &stated).await?;
    let spec = json!({"accessTokenFormat": "opaque", "requestTimeout": "10s"});
    let authority = fixture.create_authority(NAME, &spec).await?;
    fixture.create_client_secret(NAME).await?;
    fixture.create_credential(NAME, &authority, NAME, &json!({"minimumValidity": "5s"})).await?;
    fixture.wait(NAME, "Ready", true, "TokenValid", PATIENCE).await?;
    let written = fixture.secrets().get(NAME).await?;
    let first = fixture.status(NAME).await?.expires_at.context("expiresAt")?;

    // asked for, and by itself as its expiry comes nearer
    fixture.renew_now(NAME, "1").await?;
    fixture
        .eventually("several requests that return the token", PATIENCE, async || {
            (fixture.faulty_requests(NAME).await.ok()? >= 4).then_some(())
        })
        .await?;
    assert_eq!(fixture.secrets().get(NAME).await?, written, "nothing is written");
    let status = fixture.status(NAME).await?;
    assert_eq!(status.expires_at, Some(first), "it expires when it was said to first");

    fixture.faults().behave(&client_id, &json!({"name": "good"})).await?;
    fixture
        .eventually("the new token", PATIENCE, async || {
            (fixture.secrets().get(NAME).await.ok()?.data != written.data).then_some(())
        })
        .await?;
    let renewed = fixture.status(NAME).await?;
    assert_eq!(renewed.consecutive_failures, 0, "{renewed:?}");
    fixture.delete_authority(&authority).await
}

#[tokio::test]
async fn opaque_token_that_is_returned_after_its_expiry_is_reported() -> Result<()> {
    let fixture = RowFixture::new("same-expired").await?;
    let client_id = fixture.client_id(NAME);
    let stated = json!({"name": "sameToken", "value": {"expires_in": 15}});
    fixture.faults().behave(&client_id, &stated).await?;
    let authority = fixture.create_authority(NAME, &json!({"accessTokenFormat": "opaque"})).await?;
    fixture.create_client_secret(NAME).await?;
    fixture.create_credential(NAME, &authority, NAME, &json!({"minimumValidity": "2s"})).await?;
    fixture.wait(NAME, "Ready", true, "TokenValid", PATIENCE).await?;
    let written = fixture.secrets().get(NAME).await?;
    let message = fixture.wait(NAME, "Renewed", false, "TokenRejected", PATIENCE).await?;
    assert!(message.contains("expired"), "{message}");
    fixture.wait(NAME, "Ready", false, "TokenExpired", PATIENCE).await?;
    assert_eq!(fixture.secrets().get(NAME).await?, written, "an expired token is not made valid");
    fixture.faults().behave(&client_id, &json!({"name": "good"})).await?;
    fixture.wait(NAME, "Ready", true, "TokenValid", PATIENCE * 2).await?;
    fixture.delete_authority(&authority).await
}
