//! The kinds of noise.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::{
    neighbour,
    world::{World, client_secret, credentials},
};

/// Between two changes of the annotation.
const ANNOTATED: Duration = Duration::from_millis(200);

#[tokio::test]
async fn renew_annotation_that_changes_in_a_loop_costs_the_neighbour_nothing() -> Result<()> {
    let world = World::new("renew-loop").await?;
    let authority = world.authority("ims", &json!({"requestsPerMinute": 60})).await?;
    neighbour::settle(&world, &authority).await?;
    world.behave(&world.noisy, "loop", &json!({"name": "good", "lifetime": 3600})).await?;
    client_secret(&world.noisy, "loop").await?;
    credentials(&world.noisy, &authority, "loop", 1).await?;
    let noise = async {
        let mut ticks = tokio::time::interval(ANNOTATED);
        for value in 0.. {
            ticks.tick().await;
            let annotation = format!("credentials.itwin.dev/renew={value}");
            // it may not be there yet
            let _ = world.noisy.kubectl(&["annotate", "itcred", "loop-0", &annotation, "--overwrite"]).await;
        }
    };
    tokio::select! {
        kept = neighbour::keeps_its_token(&world) => kept?,
        () = noise => {}
    }
    let requests = world.requests(&world.noisy, "loop").await?;
    assert!((5..=12).contains(&requests), "one in 10 s: {requests} in 90 s");
    Ok(())
}

#[tokio::test]
async fn four_hundred_credentials_with_a_wrong_secret_cost_the_neighbour_nothing() -> Result<()> {
    let world = World::new("broken").await?;
    let authority = world.authority("ims", &json!({"requestsPerMinute": 60})).await?;
    neighbour::settle(&world, &authority).await?;
    // of one client, and of a hundred
    let wrong = json!({"name": "oauthError", "value": {"status": 401, "error": "invalid_client"}});
    for number in 0..101 {
        let client = format!("broken-{number}");
        world.behave(&world.noisy, &client, &wrong).await?;
        client_secret(&world.noisy, &client).await?;
        credentials(&world.noisy, &authority, &client, if number == 0 { 200 } else { 2 }).await?;
    }
    neighbour::keeps_its_token(&world).await
}

#[tokio::test]
async fn client_that_gets_500_costs_the_neighbour_nothing() -> Result<()> {
    let world = World::new("fails").await?;
    let authority = world.authority("ims", &json!({"requestsPerMinute": 300})).await?;
    neighbour::settle(&world, &authority).await?;
    for client in ["one", "two"] {
        world.behave(&world.noisy, client, &json!({"name": "status", "value": {"status": 500}})).await?;
        client_secret(&world.noisy, client).await?;
        credentials(&world.noisy, &authority, client, 40).await?;
    }
    neighbour::keeps_its_token(&world).await?;
    let circuit = world.metric("itwin_authority_circuit_open{").await?;
    assert!(circuit < 1.0, "the circuit of the server is closed");
    Ok(())
}

#[tokio::test]
async fn client_whose_requests_hang_leaves_room_for_the_neighbour() -> Result<()> {
    let world = World::new("hangs").await?;
    let authority = world.authority("ims", &json!({"requestsPerMinute": 600})).await?;
    neighbour::settle(&world, &authority).await?;
    world.behave(&world.noisy, "hung", &json!({"name": "slowHeader"})).await?;
    client_secret(&world.noisy, "hung").await?;
    credentials(&world.noisy, &authority, "hung", 100).await?;
    neighbour::keeps_its_token(&world).await
}

#[tokio::test]
async fn slow_authority_with_hundreds_of_due_credentials_takes_no_worker_from_a_fast_one() -> Result<()> {
    let world = World::new("slow").await?;
    let fast = world.authority("fast", &json!({})).await?;
    let slow = world.authority("slow", &json!({"requestTimeout": "30s", "maxConcurrentRequests": 64})).await?;
    neighbour::settle(&world, &fast).await?;
    world.behave(&world.noisy, "slow", &json!({"name": "slowGood", "value": 8000, "lifetime": 60})).await?;
    client_secret(&world.noisy, "slow").await?;
    credentials(&world.noisy, &slow, "slow", 300).await?;
    neighbour::keeps_its_token(&world).await
}

#[tokio::test]
async fn thousand_credentials_that_wait_cost_the_neighbour_nothing() -> Result<()> {
    let world = World::new("crowd").await?;
    let authority = world.authority("ims", &json!({"requestsPerMinute": 60})).await?;
    neighbour::settle(&world, &authority).await?;
    world.behave(&world.noisy, "crowd", &json!({"name": "good", "lifetime": 3600})).await?;
    client_secret(&world.noisy, "crowd").await?;
    credentials(&world.noisy, &authority, "crowd", 1000).await?;
    neighbour::keeps_its_token(&world).await
}
