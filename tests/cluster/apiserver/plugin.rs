//! `kubectl itcred` against a real API server and a real authorization server.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::objects;
use tokio::process::{Child, Command};

use crate::{
    fixture::{Fixture, NAME, PATIENCE},
    plugin_program::{COMMANDS, LIMIT, plugin},
};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }
}

pub fn command(fixture: &Fixture, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(plugin()?);
    command.args(arguments).args(["--request-timeout", "60s", "--namespace", &fixture.namespace.name]);
    command.env("KUBECONFIG", &fixture.namespace.testbed.kubeconfig);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

pub async fn finished(child: Child) -> Result<Ran> {
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.context("it takes too long")??;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("no UTF-8");
    let ran =
        Ran { code: output.status.code().context("a signal")?, out: text(output.stdout)?, err: text(output.stderr)? };
    ensure!(!ran.out.contains('\u{1b}'), "colors without a terminal: {ran:?}");
    Ok(ran)
}

pub async fn run(fixture: &Fixture, arguments: &[&str]) -> Result<Ran> {
    finished(command(fixture, arguments)?.spawn()?).await
}

async fn is_ready_with_a_leader(prefix: &str) -> Result<Fixture> {
    let namespace = testbed::namespace::Namespace::new(prefix).await?;
    let name = namespace.name.clone();
    namespace.allow_lease().await?;
    let fixture = Fixture::on(namespace, &["--leader-election=true", "--lease-namespace", &name]).await?;
    fixture.with_surroundings().await?;
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_ready().await?;
    Ok(fixture)
}

/// Lets a user do this with credentials. The server decides by what it has watched, which comes after the write.
async fn allow(fixture: &Fixture, user: &str, verbs: &[&str]) -> Result<()> {
    let (role, binding) = (format!("--role={user}"), format!("--user={user}"));
    let verb = format!("--verb={}", verbs.join(","));
    fixture.namespace.kubectl(&["create", "role", user, &verb, "--resource=itcred"]).await?;
    fixture.namespace.kubectl(&["create", "rolebinding", user, &role, &binding]).await?;
    for verb in verbs {
        let may = ["auth", "can-i", verb, "itcred", "--as", user];
        fixture.eventually("the permission", PATIENCE, async || fixture.namespace.kubectl(&may).await.ok()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn plugin_status_shows_whose_token_is_in_danger_first() -> Result<()> {
    let fixture = Fixture::ready("plugin-status").await?;
    let fine = run(&fixture, &["status"]).await?;
    assert_eq!(fine.code, 0, "{fine:?}");
    assert!(fine.out.starts_with("NAME    STATE") && fine.out.contains("agent   Ok"), "{fine:?}");

    let spec = json!({"clientCredentialsRef": {"name": "missing"}});
    fixture.namespace.apply(&fixture.namespace.credential("broken", &spec)).await?;
    fixture.wait_condition_of("broken", "Renewed", "False", "ClientCredentialsNotFound", PATIENCE).await?;
    let danger = run(&fixture, &["status", "-o", "json"]).await?;
    assert_eq!(danger.code, 1, "{danger:?}");
    let report = danger.json()?;
    let names: Vec<_> = report["items"].as_array().context("items")?.iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["broken", NAME]);
    assert_eq!(report["items"][0]["state"], "NoToken");
    assert_eq!(report["items"][0]["reason"], "ClientCredentialsNotFound");
    let wide = run(&fixture, &["status", "broken", "-o", "wide"]).await?;
    assert!(wide.out.contains("missing does not exist"), "{wide:?}");
    for ran in [run(&fixture, &["status"]).await?, run(&fixture, &["status", "--all-namespaces"]).await?] {
        assert!(ran.out.lines().all(|line| line.chars().count() <= 100), "{ran:?}");
        assert!(ran.err.contains("in danger"), "{ran:?}");
    }
    let unknown = run(&fixture, &["status", "missing"]).await?;
    assert!(unknown.code == 2 && unknown.err.contains("there is no ITwinServiceCredential missing"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn plugin_timeline_draws_the_token_and_its_last_failures() -> Result<()> {
    let mut fixture = Fixture::ready("plugin-timeline").await?;
    let fine = run(&fixture, &["timeline", NAME]).await?;
    assert_eq!(fine.code, 0, "{fine:?}");
    for part in ["now", "|=", "I   issued", "R   renewal", "M   minimum validity", "E   expiry"] {
        assert!(fine.out.contains(part), "{part}: {fine:?}");
    }
    fixture.client.client_secret = "wrong".to_owned();
    fixture.apply_client_secret().await?;
    fixture.wait_condition("Renewed", "False", "InvalidClient", PATIENCE).await?;
    let failed = fixture
        .eventually("the event in the timeline", PATIENCE, async || {
            run(&fixture, &["timeline", NAME]).await.ok().filter(|ran| ran.out.contains("RenewalFailed"))
        })
        .await?;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.out.contains("Last failure") && failed.out.contains("InvalidClient"), "{failed:?}");
    assert!(failed.out.lines().all(|line| line.chars().count() <= 100), "{failed:?}");
    Ok(())
}

#[tokio::test]
async fn plugin_renews_waits_and_says_what_happened() -> Result<()> {
    let mut fixture = Fixture::ready("plugin-renew").await?;
    let before = fixture.token().await?;
    let renewed = run(&fixture, &["renew", NAME]).await?;
    assert_eq!(renewed.code, 0, "{renewed:?}");
    assert!(renewed.out.contains("new token, it expires in"), "{renewed:?}");
    assert_ne!(fixture.token().await?, before);

    fixture.client.client_secret = "wrong".to_owned();
    fixture.apply_client_secret().await?;
    fixture.wait_condition("Renewed", "False", "InvalidClient", PATIENCE).await?;
    let failed = run(&fixture, &["renew", "--all"]).await?;
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.out.contains("InvalidClient") && failed.out.contains("the token that is there"), "{failed:?}");

    let suspended = run(&fixture, &["suspend", NAME]).await?;
    assert_eq!((suspended.code, suspended.out.contains("suspended")), (0, true), "{suspended:?}");
    let requests = fixture.token_requests().await?.len();
    let refused = run(&fixture, &["renew", NAME]).await?;
    assert!(refused.code == 1 && refused.out.contains("kubectl itcred resume"), "{refused:?}");
    assert_eq!(fixture.token_requests().await?.len(), requests);
    assert_eq!(run(&fixture, &["resume", "--all"]).await?.code, 0);
    let credential = fixture.namespace.get("itcred", NAME).await?.context("no credential")?;
    assert_eq!(credential["spec"]["suspend"], false);
    Ok(())
}

#[tokio::test]
async fn plugin_shows_claims_and_prints_the_token_only_if_it_is_asked_to() -> Result<()> {
    let fixture = Fixture::ready("plugin-token").await?;
    let token = fixture.token().await?;
    let signature = token.rsplit('.').next().context("a signature")?;
    for form in ["table", "wide", "json", "yaml"] {
        let shown = run(&fixture, &["token", NAME, "-o", form]).await?;
        assert_eq!(shown.code, 0, "{shown:?}");
        assert!(shown.out.contains(&fixture.client.client_id) && shown.out.contains("itwin-platform"), "{shown:?}");
        assert!(!shown.out.contains(signature) && !shown.err.contains(signature), "{form}");
    }
    let raw = run(&fixture, &["token", NAME, "--raw"]).await?;
    assert_eq!((raw.code, raw.out, raw.err), (0, format!("{token}\n"), String::new()));

    // a Secret of someone else under this name is not shown
    let other = objects::secret("other", &json!({"access_token": "of someone else"}));
    fixture.namespace.apply(&other).await?;
    fixture.namespace.apply(&fixture.namespace.credential("other", &json!({}))).await?;
    let refused = run(&fixture, &["token", "other", "--raw"]).await?;
    assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{refused:?}");
    Ok(())
}

/// The reasons of the problems that `check` found.
async fn reasons(fixture: &Fixture) -> Result<(i32, Vec<String>, Value)> {
    let namespace = &fixture.namespace.name;
    let ran = run(fixture, &["check", NAME, "-o", "json", "--operator-namespace", namespace]).await?;
    let report = ran.json()?;
    let sections = report["sections"].as_array().context("sections")?.iter();
    let findings = sections.flat_map(|section| section["findings"].as_array().into_iter().flatten());
    let problems = findings.filter(|finding| finding["level"] == "Problem");
    let reasons = problems.filter_map(|problem| problem["reason"].as_str().map(str::to_owned)).collect();
    Ok((ran.code, reasons, report))
}

#[tokio::test]
async fn plugin_check_verifies_a_credential_that_works() -> Result<()> {
    let fixture = is_ready_with_a_leader("plugin-check").await?;
    let check = async |more: &[&str]| {
        // other tests hold the Lease of the usual namespace, or let go of it
        run(&fixture, &[&["check", NAME, "--operator-namespace", &fixture.namespace.name], more].concat()).await
    };
    let page = check(&[]).await?;
    assert_eq!(page.code, 0, "{page:?}");
    for part in ["leads (Lease", "is Ready", "signature, issuer and audience are right", "No problem found."] {
        assert!(page.out.contains(part), "{part} is missing in:\n{}", page.out);
    }
    assert!(page.out.lines().all(|line| line.chars().count() <= 100), "{}", page.out);
    for secret in [&fixture.client.client_secret, &fixture.token().await?] {
        assert!(!page.out.contains(secret.as_str()) && !page.err.contains(secret.as_str()));
    }
    let offline = check(&["--offline"]).await?;
    assert!(offline.code == 0 && offline.out.contains("the signature is not checked"), "{offline:?}");
    // a user who may read nothing learns what could not be checked
    let stranger = check(&["--as", "stranger"]).await?;
    assert!(stranger.code == 2 && stranger.err.contains("forbidden"), "{stranger:?}");
    allow(&fixture, "reader", &["get"]).await?;
    let reader = check(&["--as", "reader"]).await?;
    assert!(reader.out.matches("unknown ").count() >= 4 && reader.out.contains("could not be checked"), "{reader:?}");
    assert_eq!(reader.code, 2, "what was not checked is not fine: {reader:?}");
    Ok(())
}

#[tokio::test]
async fn plugin_check_finds_what_is_wrong() -> Result<()> {
    let mut fixture = is_ready_with_a_leader("plugin-wrong").await?;
    let authority = fixture.namespace.name.clone();
    for (spec, reason) in [
        (json!({"allowedScopes": ["other"]}), "ScopeNotAllowed"),
        (json!({"allowedScopes": null, "allowedNamespaces": {"matchLabels": {"a": "b"}}}), "NamespaceNotAllowed"),
        (json!({"allowedNamespaces": null, "audiences": ["https://other.example.com"]}), "TokenRejected"),
        (json!({"audiences": []}), ""),
    ] {
        fixture.patch_authority(&authority, &spec).await?;
        // an operator may report the same a moment later
        let found = fixture
            .eventually(reason, PATIENCE, async || {
                let (code, reasons, report) = reasons(&fixture).await.ok()?;
                let is_found = if reason.is_empty() { code == 0 } else { reasons.iter().any(|found| found == reason) };
                is_found.then_some((code, report))
            })
            .await?;
        assert_eq!(found.0, i32::from(!reason.is_empty()), "{found:?}");
    }
    fixture.client.client_secret = "wrong".to_owned();
    fixture.apply_client_secret().await?;
    fixture.wait_condition("Renewed", "False", "InvalidClient", PATIENCE).await?;
    assert!(reasons(&fixture).await?.1.contains(&"InvalidClient".to_owned()));
    fixture.namespace.kubectl(&["delete", "secret", "agent-client"]).await?;
    assert!(reasons(&fixture).await?.1.contains(&"ClientCredentialsNotFound".to_owned()));
    fixture.delete_authority(&authority).await?;
    assert!(reasons(&fixture).await?.1.contains(&"AuthorityNotFound".to_owned()));
    Ok(())
}

#[tokio::test]
async fn plugin_ends_wrong_use_and_missing_permissions_with_one_line() -> Result<()> {
    let fixture = Fixture::ready("plugin-misuse").await?;
    let folder = tempfile::tempdir()?;
    let silent = folder.path().join("silent");
    testbed::control_plane::write_kubeconfig(&silent, "https://127.0.0.1:1", b"", "token")?;
    let silent = silent.display().to_string();
    for (arguments, text) in [
        (&["check", "../secrets/x"][..], "is no name of an object"),
        (&["token", "UPPER"], "is no name of an object"),
        (&["renew", "missing"], "there is no ITwinServiceCredential missing"),
        (&["suspend", "-l", "team=unknown"], "no ITwinServiceCredential is chosen"),
        (&["status", "-l", "a in b"], "ITwinServiceCredentials: "),
        (&["status", "--context", "unknown"], "unknown"),
        (&["status", "--kubeconfig", "/does/not/exist"], "/does/not/exist"),
        (&["status", "--kubeconfig", &silent], "no connection"),
        (&["lint", "-f", "/does/not/exist"], "/does/not/exist"),
        (&["rotate", NAME, "--expires-at", "tomorrow"], "RFC 3339"),
    ] {
        let ran = run(&fixture, arguments).await?;
        assert!(ran.code == 2 && ran.out.is_empty() && ran.err.contains(text), "{arguments:?}: {ran:?}");
    }
    // a server that is named needs no kubeconfig
    let mut alone = command(&fixture, &["status", "--server", "https://127.0.0.1:1", "--token", "token"])?;
    alone.env("KUBECONFIG", folder.path().join("none"));
    let alone = finished(alone.spawn()?).await?;
    assert!(alone.code == 2 && alone.out.is_empty() && alone.err.contains("no connection"), "{alone:?}");
    let requests = fixture.token_requests().await?.len();
    for arguments in COMMANDS {
        let ran = run(&fixture, &[arguments, &["--as", "stranger"]].concat()).await?;
        assert!(ran.code == 2 && ran.out.is_empty() && ran.err.contains("stranger"), "{arguments:?}: {ran:?}");
        assert_eq!(ran.err.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{ran:?}");
    }
    assert_eq!(fixture.token_requests().await?.len(), requests);
    // a user who may read credentials and no Secrets
    allow(&fixture, "viewer", &["get", "list"]).await?;
    let refused = run(&fixture, &["token", NAME, "--raw", "--as", "viewer"]).await?;
    assert!(refused.code == 2 && refused.out.is_empty() && refused.err.contains("secrets"), "{refused:?}");
    let linted = run(&fixture, &["lint", "--as", "viewer", "-o", "json"]).await?;
    let unread = linted.json()?["unread"].as_array().map_or(0, Vec::len);
    assert!(linted.code == 2 && unread >= 6, "what was not read is named, and not fine: {linted:?}");
    let empty = run(&fixture, &["status", "-l", "team=unknown"]).await?;
    assert!(empty.code == 0 && empty.out.is_empty() && empty.err.contains("No ITwinServiceCredentials"), "{empty:?}");
    if cfg!(target_os = "linux") {
        let full = std::fs::File::options().write(true).open("/dev/full")?;
        let lost = finished(command(&fixture, &["token", NAME, "--raw"])?.stdout(full).spawn()?).await?;
        assert!(lost.code == 2 && lost.err.contains("could not be written"), "{lost:?}");
    }
    // a rotation without a new secret writes nothing
    let before = fixture.namespace.get("secret", "agent-client").await?;
    let without = run(&fixture, &["rotate", NAME]).await?;
    assert!(without.code == 2 && without.err.contains("it is empty"), "{without:?}");
    assert_eq!(fixture.namespace.get("secret", "agent-client").await?, before);
    Ok(())
}

#[tokio::test]
async fn plugin_prints_nothing_that_a_terminal_obeys() -> Result<()> {
    let mut fixture = Fixture::ready("plugin-hostile").await?;
    fixture.stop();
    let hostile = "a\u{1b}[2Jb\u{202e}c\u{7}\nd";
    let failed = json!({"type": "Renewed", "status": "False", "reason": "ServerError", "message": hostile,
                        "lastTransitionTime": "2026-11-24T19:00:00Z"});
    let failure = json!({"time": "2026-11-24T19:00:00Z", "reason": "ServerError", "message": hostile});
    let patch =
        json!({"status": {"conditions": [failed], "lastFailure": failure, "consecutiveFailures": 1}}).to_string();
    let namespace = &fixture.namespace;
    namespace.kubectl(&["patch", "itcred", NAME, "--subresource=status", "--type=merge", "-p", &patch]).await?;
    for command in ["status", "timeline", "check"] {
        for form in ["table", "wide", "json", "yaml"] {
            // `run` looks for the escape character
            let ran = if command == "status" {
                run(&fixture, &[command, "-o", form]).await?
            } else {
                run(&fixture, &[command, NAME, "-o", form]).await?
            };
            for text in [&ran.out, &ran.err] {
                assert!(!text.contains(['\u{202e}', '\u{7}', '\u{1b}']) && !text.contains("\\u001b"), "{ran:?}");
            }
            let is_shown = ran.out.contains("a?[2Jb?c? d");
            assert!(is_shown || (command, form) == ("status", "table"), "{command} {form}: {ran:?}");
        }
    }
    Ok(())
}
