//! The kinds of load.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    environment::{PATIENCE, SOON, condition},
    neighbour,
    tenants::{Fixture, credentials, requests},
    webhook::HangingWebhook,
};

/// Time between two changes of the annotation.
const ANNOTATED: Duration = Duration::from_millis(200);
/// Whether the circuit of an authority is open.
const CIRCUIT: &str = "itwin_authority_circuit_open{";
/// Writes that hang in 90 s, at the least: each takes 8 s, and most of 16 workers do nothing else.
const HUNG: usize = 60;

#[tokio::test]
async fn renew_annotation_that_changes_in_a_loop_costs_the_neighbour_nothing() -> Result<()> {
    let fixture = Fixture::new("renew-loop").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 60})).await?;
    neighbour::settle(&fixture, &authority).await?;
    credentials(&fixture.noisy, &authority, "loop", &json!({"name": "good", "lifetime": 3600}), 1).await?;
    let noise = async {
        let mut ticks = tokio::time::interval(ANNOTATED);
        for value in 0.. {
            ticks.tick().await;
            let annotation = format!("credentials.itwin.dev/renew={value}");
            // it may not exist yet
            let _ = fixture.noisy.kubectl(&["annotate", "itcred", "loop-0", &annotation, "--overwrite"]).await;
        }
    };
    tokio::select! {
        kept = neighbour::keeps_its_token(&fixture) => kept?,
        () = noise => {}
    }
    let requests = requests(&fixture.noisy, "loop").await?;
    assert!((5..=12).contains(&requests), "one in 10 s: {requests} in 90 s");
    Ok(())
}

#[tokio::test]
async fn four_hundred_credentials_with_a_wrong_secret_cost_the_neighbour_nothing() -> Result<()> {
    let fixture = Fixture::new("broken").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 60})).await?;
    neighbour::settle(&fixture, &authority).await?;
    // of one client, and of a hundred clients
    let wrong = json!({"name": "oauthError", "value": {"status": 401, "error": "invalid_client"}});
    for number in 0..101 {
        let client = format!("broken-{number}");
        credentials(&fixture.noisy, &authority, &client, &wrong, if number == 0 { 200 } else { 2 }).await?;
    }
    neighbour::keeps_its_token(&fixture).await
}

#[tokio::test]
async fn client_that_gets_500_costs_the_neighbour_nothing() -> Result<()> {
    let fixture = Fixture::new("fails").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 300})).await?;
    neighbour::settle(&fixture, &authority).await?;
    for client in ["one", "two"] {
        let fails = json!({"name": "status", "value": {"status": 500}});
        credentials(&fixture.noisy, &authority, client, &fails, 40).await?;
    }
    neighbour::keeps_its_token(&fixture).await?;
    let circuit = fixture.metric(CIRCUIT).await?;
    assert!(circuit < 1.0, "the circuit of the server is closed");
    Ok(())
}

#[tokio::test]
async fn client_that_gets_500_after_a_start_costs_the_neighbour_nothing() -> Result<()> {
    let mut fixture = Fixture::new("starts").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 300})).await?;
    let good = json!({"name": "good", "lifetime": 3600});
    credentials(&fixture.namespace, &authority, "before", &good, 1).await?;
    let first = async || fixture.secret_of("before-0").await.ok().flatten();
    fixture.eventually("the neighbour's first token", PATIENCE, first).await?;
    fixture.restart().await?;
    // the neighbour's token is not due, so the process knows no client that works
    let fails = json!({"name": "status", "value": {"status": 500}});
    credentials(&fixture.noisy, &authority, "fails", &fails, 40).await?;
    let open = async || fixture.metric(CIRCUIT).await.ok().filter(|circuit| *circuit >= 1.0);
    fixture.eventually("an open circuit", PATIENCE, open).await?;
    credentials(&fixture.namespace, &authority, "after", &good, 1).await?;
    let mut failed = None;
    let ready = async || {
        let status = fixture.status_of("after-0").await.ok()?;
        failed = failed.take().or(condition(&status, "Renewed").filter(|(renewed, ..)| renewed == "False"));
        (condition(&status, "Ready")?.0 == "True").then_some(())
    };
    fixture.eventually("the neighbour's next token", SOON * 2, ready).await?;
    ensure!(failed.is_none(), "the neighbour was held up: {failed:?}");
    ensure!(fixture.metric(CIRCUIT).await? < 1.0, "the circuit of the server is closed");
    Ok(())
}

#[tokio::test]
async fn client_whose_requests_hang_leaves_room_for_the_neighbour() -> Result<()> {
    let fixture = Fixture::new("hangs").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 600})).await?;
    neighbour::settle(&fixture, &authority).await?;
    credentials(&fixture.noisy, &authority, "hung", &json!({"name": "slowHeader"}), 100).await?;
    neighbour::keeps_its_token(&fixture).await
}

#[tokio::test]
async fn webhook_that_hangs_for_one_namespace_costs_the_neighbour_nothing() -> Result<()> {
    let fixture = Fixture::new("webhook").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 600})).await?;
    neighbour::settle(&fixture, &authority).await?;
    let webhook = HangingWebhook::register(&fixture.noisy).await?;
    credentials(&fixture.noisy, &authority, "hung", &json!({"name": "good", "lifetime": 3600}), 300).await?;
    neighbour::keeps_its_token(&fixture).await?;
    ensure!(webhook.calls() >= HUNG, "{} writes hung: the workers were not busy", webhook.calls());
    Ok(())
}

#[tokio::test]
async fn slow_authority_with_hundreds_of_due_credentials_takes_no_worker_from_a_fast_one() -> Result<()> {
    let fixture = Fixture::new("slow").await?;
    let fast = fixture.create_authority("fast", &json!({})).await?;
    let slow = fixture.create_authority("slow", &json!({"requestTimeout": "30s", "maxConcurrentRequests": 64})).await?;
    neighbour::settle(&fixture, &fast).await?;
    credentials(&fixture.noisy, &slow, "slow", &json!({"name": "slowGood", "value": 8000, "lifetime": 60}), 300)
        .await?;
    neighbour::keeps_its_token(&fixture).await
}

#[tokio::test]
async fn thousand_credentials_that_wait_cost_the_neighbour_nothing() -> Result<()> {
    let fixture = Fixture::new("crowd").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 60})).await?;
    neighbour::settle(&fixture, &authority).await?;
    credentials(&fixture.noisy, &authority, "crowd", &json!({"name": "good", "lifetime": 3600}), 1000).await?;
    neighbour::keeps_its_token(&fixture).await
}

#[tokio::test]
async fn first_tokens_of_a_namespace_cost_its_valid_token_nothing() -> Result<()> {
    let fixture = Fixture::new("first").await?;
    let authority = fixture.create_authority("ims", &json!({"requestsPerMinute": 60})).await?;
    neighbour::settle(&fixture, &authority).await?;
    // of the same namespace, so that both have its turns
    credentials(&fixture.namespace, &authority, "crowd", &json!({"name": "good", "lifetime": 3600}), 150).await?;
    neighbour::keeps_its_token(&fixture).await
}
