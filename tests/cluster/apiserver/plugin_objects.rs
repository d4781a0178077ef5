//! What the plugin prints for programs: one object on standard output, and its progress elsewhere.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::plugin::run;
use crate::fixture::{Fixture, NAME, PATIENCE};

/// The object that a command prints, and its exit code.
async fn object(fixture: &Fixture, arguments: &[&str]) -> Result<(i32, Value)> {
    let ran = run(fixture, &[arguments, &["-o", "json"]].concat()).await?;
    let object = ran.json()?;
    assert_eq!(object["apiVersion"], "itcred.credentials.itwin.dev/v1", "{ran:?}");
    Ok((ran.code, object))
}

#[tokio::test]
async fn plugin_prints_one_object_where_programs_read_it() -> Result<()> {
    let mut fixture = Fixture::ready("plugin-objects").await?;
    let (code, renewed) = object(&fixture, &["renew", NAME]).await?;
    assert_eq!((code, &renewed["kind"]), (0, &json!("RenewalList")));
    assert_eq!(renewed["items"].as_array().map(Vec::len), Some(1), "{renewed}");
    assert_eq!((&renewed["items"][0]["name"], &renewed["items"][0]["result"]), (&json!(NAME), &json!("Issued")));
    let status = object(&fixture, &["status"]).await?.1;
    assert_eq!(renewed["items"][0]["expiresAt"], status["items"][0]["expiresAt"], "{status}");

    fixture.client.client_secret = "wrong".to_owned();
    fixture.apply_client_secret().await?;
    fixture.wait_condition("Renewed", "False", "InvalidClient", PATIENCE).await?;
    let (code, failed) = object(&fixture, &["renew", "--all"]).await?;
    let item = &failed["items"][0];
    assert_eq!((code, &item["result"], &item["reason"]), (1, &json!("Failed"), &json!("InvalidClient")), "{failed}");
    item["usableUntil"].as_str().context("until when the old token can be used")?;

    for (command, suspended, changed) in [("suspend", true, true), ("suspend", true, false), ("resume", false, true)] {
        let (code, set) = object(&fixture, &[command, NAME]).await?;
        let item = &set["items"][0];
        assert_eq!((code, &item["suspended"], &item["changed"]), (0, &json!(suspended), &json!(changed)), "{set}");
    }
    // the others print nothing but their object either
    for (command, kind) in
        [(&["timeline", NAME][..], "Timeline"), (&["token", NAME], "Token"), (&["lint"], "LintReport")]
    {
        assert_eq!(object(&fixture, command).await?.1["kind"], kind);
    }
    Ok(())
}
