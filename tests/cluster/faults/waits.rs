//! A server that refuses a client and asks it to wait.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::faults::row::RowFixture;

const PATIENCE: Duration = Duration::from_secs(60);
/// Much longer than the backoff after the first failures, and less than half of the lifetime of a token.
const WAIT: TimeDelta = TimeDelta::minutes(10);
/// Limit of the contract for a token of a client that changed.
const CORRECTED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn client_that_is_refused_waits_as_long_as_it_is_asked_to_and_others_do_not() -> Result<()> {
    let fixture = RowFixture::new("waits").await?;
    let authority = fixture.create_authority("refused", &json!({})).await?;
    for name in ["refused", "other"] {
        fixture.create_client_secret(name).await?;
        fixture.create_credential(name, &authority, name, &json!({})).await?;
        fixture.wait(name, "Ready", true, "TokenValid", PATIENCE).await?;
    }
    for (value, status, body, reason) in [
        ("1", 403, json!("forbidden"), "RequestRejected"),
        ("2", 401, json!({"error": "invalid_client"}), "InvalidClient"),
    ] {
        let headers = json!({"retry-after": WAIT.num_seconds().to_string()});
        let rejection = json!({"name": "status", "value": {"status": status, "body": body, "headers": headers}});
        fixture.faults().behave(&fixture.client_id("refused"), &rejection).await?;
        fixture.renew_now("refused", value).await?;
        fixture.wait("refused", "Renewed", false, reason, PATIENCE).await?;
        fixture
            .eventually("the wait that the server asks for", PATIENCE, async || {
                let status = fixture.status("refused").await.ok()?;
                let failed = status.last_failure.filter(|failure| failure.reason == reason)?;
                let failed_at = DateTime::parse_from_rfc3339(&failed.time).ok()?;
                let again = DateTime::parse_from_rfc3339(status.renew_at.as_deref()?).ok()?;
                // times are shown in whole seconds
                (again - failed_at >= WAIT - TimeDelta::seconds(1)).then_some(())
            })
            .await
            .context(reason)?;
    }
    let before = fixture.secrets().get("other").await?;
    fixture.renew_now("other", "1").await?;
    fixture
        .eventually("a token of the other client", PATIENCE, async || {
            (fixture.secrets().get("other").await.ok()?.data != before.data).then_some(())
        })
        .await?;
    // the wait was for the client that is refused
    let before = fixture.secrets().get("refused").await?;
    let patch = Patch::Merge(json!({"spec": {"clientCredentialsRef": {"name": "other-client"}}}));
    fixture.credentials().patch("refused", &PatchParams::default(), &patch).await?;
    fixture
        .eventually("a token of the client that is named instead", CORRECTED, async || {
            (fixture.secrets().get("refused").await.ok()?.data != before.data).then_some(())
        })
        .await?;
    fixture.delete_authority(&authority).await
}
