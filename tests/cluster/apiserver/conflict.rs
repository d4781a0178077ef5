//! Another writer that keeps changing what the operator writes.

use anyhow::{Context, Result};
use serde_json::json;
use testbed::eventually;

use crate::{
    audit::{calls, calls_since},
    fixture::{Fixture, NAME, PATIENCE, SOON},
};

/// Changes the Secret whenever the change was reverted, under its own field manager, until `until` ends.
async fn keep_changing<T>(fixture: &Fixture, patch: &str, until: impl Future<Output = T>) -> T {
    let change = async {
        loop {
            let edit = ["patch", "secret", NAME, "--type=merge", "--field-manager=rival", "-p", patch];
            // the Secret may be missing for a moment
            let _ = fixture.namespace.kubectl(&edit).await;
        }
    };
    tokio::select! {
        result = until => result,
        () = change => unreachable!("it does not end"),
    }
}

#[tokio::test]
async fn key_that_is_added_is_removed_by_a_patch_and_costs_no_token() -> Result<()> {
    let fixture = Fixture::ready("added-key").await?;
    let token = fixture.token().await?;
    let patch = json!({"stringData": {"theirs": "value"}}).to_string();
    fixture.namespace.kubectl(&["patch", "secret", NAME, "--type=merge", "-p", &patch]).await?;
    eventually("the removal of the key", SOON, async || {
        fixture.data().await.ok().filter(|data| !data.contains_key("theirs"))
    })
    .await
    .with_context(|| fixture.operator.process.log_tail())?;
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn writer_that_keeps_adding_a_key_is_named_and_a_valid_token_stays_valid() -> Result<()> {
    let fixture = Fixture::ready("fight").await?;
    let token = fixture.token().await?;
    // one that wrote something else, and later, is not the rival
    let bystander = async || {
        let label = ["label", "secret", NAME, "--overwrite", "--field-manager=bystander", "theirs=1"];
        fixture.namespace.kubectl(&label).await
    };
    bystander().await?;
    let patch = json!({"stringData": {"theirs": "value"}}).to_string();
    let conflict = fixture.wait_condition("Renewed", "False", "SecretConflict", PATIENCE);
    let message = keep_changing(&fixture, &patch, conflict).await?;
    assert!(message.contains("field manager rival") && message.contains(NAME), "{message}");
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;

    // the operator reverts the change ever more slowly
    let before = calls(&fixture.namespace)?.len();
    // the first of these waits for at least one second, and the fifth for at least eight
    let patches = || -> Result<usize> {
        let calls = calls_since(&fixture.namespace, before)?;
        Ok(calls.iter().filter(|call| call.to_string() == format!("patch secrets {NAME}")).count())
    };
    let began = std::time::Instant::now();
    let five_rounds = eventually("five more reverts", PATIENCE * 2, async || (patches().ok()? >= 5).then_some(()));
    keep_changing(&fixture, &patch, five_rounds).await?;
    assert!(began.elapsed() > SOON, "the backoff grew");
    let status = fixture.status().await?;
    assert_eq!(
        (&status["consecutiveFailures"], &status["lastFailure"]["reason"]),
        (&json!(0), &json!("SecretConflict"))
    );
    assert_eq!(fixture.metric("itwin_credential_consecutive_failures{").await?, 0.0, "no renewal failed");
    assert_eq!(fixture.token().await?, token);
    assert_eq!(fixture.token_requests().await?.len(), 1, "not one more token");
    Ok(())
}

#[tokio::test]
async fn writer_that_keeps_tampering_with_the_token_costs_a_bounded_number_of_tokens() -> Result<()> {
    let fixture = Fixture::ready("damage").await?;
    let patch = json!({"stringData": {"access_token": "garbage"}}).to_string();
    let conflict = fixture.wait_condition("Renewed", "False", "SecretConflict", PATIENCE);
    keep_changing(&fixture, &patch, conflict).await?;
    let requests = fixture.token_requests().await?.len();
    assert!(requests <= 6, "{requests} tokens");
    Ok(())
}
