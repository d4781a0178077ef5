//! `kubectl itcred rotate` against a real API server and a real authorization server.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::plugin::{Ran, command, finished};
use crate::{
    fixture::{Fixture, NAME, PATIENCE},
    plugin_program::LIMIT,
};

#[tokio::test]
async fn plugin_rotates_a_client_secret_and_no_token_is_lost() -> Result<()> {
    let mut fixture = Fixture::ready("plugin-rotate").await?;
    let spec = json!({"clientCredentialsRef": {"name": "agent-client"}});
    fixture.namespace.apply(&fixture.namespace.credential("sibling", &spec)).await?;
    fixture.wait_condition_of("sibling", "Ready", "True", "TokenValid", PATIENCE).await?;
    let first = fixture.token().await?;

    // a secret that the authority does not accept: the token stays
    let wrong = rotate(&mut fixture, "not the right secret", false).await?;
    assert_eq!(wrong.code, 1, "{wrong:?}");
    assert!(wrong.err.contains("InvalidClient") && wrong.out.contains("no token with the new secret"), "{wrong:?}");
    assert_ne!(fixture.token().await?, first, "it was renewed before");
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;

    let right = rotate(&mut fixture, "the right secret", true).await?;
    assert_eq!(right.code, 0, "{right:?}");
    assert_eq!(right.out.matches("new token with the new secret").count(), 2, "the sibling too: {right:?}");
    assert!(right.out.contains("there was time until"), "{right:?}");
    let secret = fixture.namespace.get("secret", "agent-client").await?.context("no client Secret")?;
    assert_eq!(testbed::namespace::data(&secret)?["client_secret"], "the right secret");
    let metadata = secret["metadata"].to_string();
    assert!(!metadata.contains("the right secret") && !metadata.contains("dGhlIHJpZ2h0"), "{metadata}");
    for ran in [&wrong, &right] {
        for text in [&ran.out, &ran.err] {
            assert!(!text.contains("right secret"), "{ran:?}");
        }
    }
    // for a program: the same secret again, with its expiry
    let arguments = ["rotate", NAME, "-o", "json", "--expires-at", "2099-01-31T00:00:00Z"];
    let mut again = command(&fixture, &arguments)?.stdin(Stdio::piped()).spawn()?;
    let mut input = again.stdin.take().context("standard input")?;
    input.write_all(b"the right secret").await?;
    drop(input);
    let again = finished(again).await?;
    let object = again.json()?;
    assert_eq!((again.code, &object["kind"]), (0, &json!("Rotation")), "{again:?}");
    assert_eq!(object["items"].as_array().map(Vec::len), Some(2), "{object}");
    assert!(object["items"][0]["expiresAt"].is_string(), "{object}");
    assert!(!again.out.contains("right secret") && !again.err.contains("right secret"), "{again:?}");
    let secret = fixture.namespace.get("secret", "agent-client").await?.context("no client Secret")?;
    let data = testbed::namespace::data(&secret)?;
    let held = (data["client_secret"].as_str(), data["expires_at"].as_str());
    assert_eq!(held, ("the right secret", "2099-01-31T00:00:00Z"));
    // what cannot be a secret is not written
    let spaces = rotate(&mut fixture, " with spaces ", false).await?;
    assert!(spaces.code == 2 && spaces.err.contains("nothing was written"), "{spaces:?}");
    Ok(())
}

/// Rotates as a user does: waits for the second step, regenerates the secret at the server, and writes it.
async fn rotate(fixture: &mut Fixture, secret: &str, is_registered: bool) -> Result<Ran> {
    let mut command = command(fixture, &["rotate", NAME, "--timeout", "30s"])?;
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("standard error")?).lines();
    let mut said = String::new();
    let step = tokio::time::timeout(LIMIT, async {
        while let Some(line) = lines.next_line().await? {
            let is_second = line.starts_with("Step 2");
            said.push_str(&format!("{line}\n"));
            if is_second {
                break;
            }
        }
        anyhow::Ok(())
    });
    step.await.context("no second step")??;
    if is_registered {
        fixture.client.client_secret = secret.to_owned();
        fixture.register().await?;
    }
    let mut input = child.stdin.take().context("standard input")?;
    input.write_all(format!("{secret}\n").as_bytes()).await?;
    drop(input);
    let rest = async {
        let mut rest = String::new();
        while let Some(line) = lines.next_line().await? {
            rest.push_str(&format!("{line}\n"));
        }
        anyhow::Ok(rest)
    };
    let (ran, rest) = tokio::join!(finished(child), rest);
    let ran = ran?;
    Ok(Ran { err: said + &rest?, ..ran })
}
