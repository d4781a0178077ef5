//! Admission webhooks that deny, fail, refuse connections, hang or rewrite: the cause is reported as the API server says
//! it, no secret is in it, and neither the token in the Secret nor the one that was just issued is lost.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use serde_json::{Value, json};
use testbed::{
    eventually,
    webhook::{Answer, Webhook},
};

use super::restarts::workload;
use crate::fixture::{Fixture, NAME, PATIENCE, SOON, condition};

/// Within this a failure must be reported, and a busy machine takes as long again.
const REPORTED: Duration = Duration::from_secs(20);
/// What a busy machine takes longer.
const MARGIN: Duration = Duration::from_secs(6);
/// Waits of the backoff are added.
const CONVERGED: Duration = Duration::from_secs(90);
/// The longest quotation of what the API server says, and the sentence around it.
const LONGEST_MESSAGE: usize = 300 + 400;

/// A resource by group, version and name.
type Resource = (&'static str, &'static str, &'static str);
const SECRETS: Resource = ("", "v1", "secrets");

/// A webhook that the API server calls for the writes of one namespace: its Secrets without the client Secret, the
/// statuses of its credentials, and its events.
struct Registered<'a> {
    fixture: &'a Fixture,
    kind: &'static str,
    webhook: Webhook,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let testbed = &self.fixture.namespace.testbed;
        let mut kubectl = std::process::Command::new(&testbed.kubectl);
        kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).args(["delete", self.kind, &self.fixture.namespace.name]);
        let _ = kubectl.output();
    }
}

impl<'a> Registered<'a> {
    /// Registers a webhook that allows everything, and waits until the API server calls it.
    async fn new(fixture: &'a Fixture, kind: &'static str, timeout: u32) -> Result<Self> {
        let status = ("credentials.itwin.dev", "v1alpha1", "itwinservicecredentials/status");
        Self::of(fixture, kind, timeout, &[SECRETS, status, ("events.k8s.io", "v1", "events")]).await
    }

    /// The same for writes of these resources, by group, version and name.
    async fn of(fixture: &'a Fixture, kind: &'static str, timeout: u32, resources: &[Resource]) -> Result<Self> {
        let webhook = Webhook::start()?;
        let name = &fixture.namespace.name;
        let rule = |(group, version, resource): &Resource| {
            json!({
                "apiGroups": [group],
                "apiVersions": [version],
                "operations": ["CREATE", "UPDATE"],
                "resources": [resource],
            })
        };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": [{
                "name": "writes.webhooks.example.com",
                "clientConfig": {"url": webhook.url, "caBundle": webhook.ca_bundle},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "matchConditions":
                    [{"name": "written", "expression": format!("object.metadata.name != '{NAME}-client'")}],
                "rules": resources.iter().map(rule).collect::<Vec<_>>(),
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "timeoutSeconds": timeout,
                "admissionReviewVersions": ["v1"],
            }],
        });
        let registered = Self { fixture, kind, webhook };
        fixture.namespace.apply(&configuration).await?;
        let probe = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}}).to_string();
        let create = ["--namespace", name, "create", "--dry-run=server", "-f", "-"];
        eventually("a call of the webhook", PATIENCE, async || {
            fixture.namespace.testbed.kubectl_with(&create, Some(&probe)).await.ok()?;
            registered.webhook.requests().iter().any(|request| request["name"] == "probe").then_some(())
        })
        .await?;
        Ok(registered)
    }

    /// Answers the writes of this resource in this way, and allows all others.
    fn answers(&self, resource: &'static str, answer: impl Fn(&Value) -> Answer + Send + Sync + 'static) {
        self.webhook.answers(move |request| {
            if request["resource"]["resource"] == resource { answer(request) } else { Answer::Allowed }
        });
    }

    /// The tokens that were sent to it.
    fn tokens(&self) -> BTreeSet<String> {
        self.webhook.requests().iter().filter_map(|request| token(&request["object"])).collect()
    }
}

fn token(secret: &Value) -> Option<String> {
    let token = base64::engine::general_purpose::STANDARD.decode(secret["data"]["access_token"].as_str()?).ok()?;
    String::from_utf8(token).ok()
}

/// Fails where a text holds a token, its base64, or a part of either.
fn check_no_secret(place: &str, text: &str, tokens: &BTreeSet<String>) -> Result<()> {
    ensure!(!tokens.is_empty(), "the webhook received no token: the check proves nothing");
    for token in tokens {
        let encoded = base64::engine::general_purpose::STANDARD.encode(token);
        for value in [token, &encoded] {
            // the header is the same in all tokens of a server
            let parts = value.as_bytes()[60..].chunks(20).filter_map(|part| std::str::from_utf8(part).ok());
            let leaked = parts.filter(|part| part.len() == 20).find(|part| text.contains(part));
            ensure!(leaked.is_none(), "a part of a token is in {place}: {text}");
        }
    }
    Ok(())
}

/// Where the operator may not put a secret.
async fn check_no_secret_anywhere(fixture: &Fixture, tokens: &BTreeSet<String>) -> Result<()> {
    let log = std::fs::read_to_string(fixture.operator.process.log())?;
    ensure!(!log.is_empty(), "there is no log");
    check_no_secret("the log", &log, tokens)?;
    for kind in ["itcred", "events.events.k8s.io"] {
        check_no_secret(kind, &fixture.namespace.kubectl(&["get", kind, "-o", "json"]).await?, tokens)?;
    }
    check_no_secret("the metrics", &fixture.operator.get("/metrics").await?, tokens)
}

/// A fault of a webhook, from its begin to its end: the message of the condition must contain all of `texts`.
async fn play(registered: &Registered<'_>, name: &str, fault: impl FnOnce(&Webhook), texts: &[&str]) -> Result<()> {
    let Registered { fixture, webhook, .. } = registered;
    let (first, requests) = (fixture.token().await?, fixture.token_requests().await?.len());
    fault(webhook);
    fixture.renew_now(NAME, name).await?;
    let message =
        fixture.wait_condition("Renewed", "False", "SecretWriteFailed", REPORTED).await.context(name.to_owned())?;
    for text in texts {
        ensure!(message.contains(text), "{name}: {text:?} is not in: {message}");
    }
    ensure!(message.chars().count() < LONGEST_MESSAGE, "{name}: {} characters", message.chars().count());
    eventually("another attempt", CONVERGED, async || {
        (fixture.status().await.ok()?["consecutiveFailures"].as_i64()? >= 2).then_some(())
    })
    .await
    .with_context(|| name.to_owned())?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    ensure!(fixture.token().await? == first, "{name}: the Secret was written");
    webhook.answers(|_| Answer::Allowed);
    webhook.set_up(true);
    let second = fixture.wait_token_other_than(&first, CONVERGED).await.with_context(|| name.to_owned())?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    let now = fixture.token_requests().await?.len();
    ensure!(now == requests + 1, "{name}: {} requests for one token", now - requests);
    let mut tokens = registered.tokens();
    tokens.insert(second);
    check_no_secret_anywhere(fixture, &tokens).await.with_context(|| name.to_owned())
}

#[tokio::test]
async fn denial_of_a_webhook_is_quoted_without_values_and_the_issued_token_is_kept() -> Result<()> {
    let fixture = Fixture::ready("denying").await?;
    let registered = Registered::new(&fixture, "ValidatingWebhookConfiguration", 5).await?;
    for code in [400_u16, 403, 409, 422, 503] {
        let deny = move |webhook: &Webhook| {
            webhook.answers(move |request| {
                let Some(token) = token(&request["object"]) else { return Answer::Allowed };
                let encoded = request["object"]["data"]["authorization"].as_str().unwrap_or_default().to_owned();
                let part = &token[80..120];
                let said = format!(
                    "Secrets like this one are not welcome: got {token}, {encoded}, token={part}, {{\"a\":\"{part}\"}} {}",
                    "and so on ".repeat(100)
                );
                Answer::Denied(code, said)
            });
        };
        let texts = ["denied the request: Secrets like this one are not welcome", "webhook", "[redacted]"];
        play(&registered, &format!("denied-{code}"), deny, &texts).await?;
    }
    Ok(())
}

/// What a condition quotes of a webhook that denies a renewal and repeats the label `owner`, which the spec names.
async fn quoted_denial(registered: &Registered<'_>, owner: &str, renewal: &str) -> Result<String> {
    let Registered { fixture, webhook, .. } = registered;
    webhook.answers(|_| Answer::Allowed);
    fixture.apply_credential(&json!({"secretTemplate": {"labels": {"owner": owner}}})).await?;
    let labelled = async || {
        let secret = fixture.secret().await.ok()??;
        (secret["metadata"]["labels"]["owner"] == owner).then_some(())
    };
    fixture.eventually("the label", CONVERGED, labelled).await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", CONVERGED).await?;
    registered.answers("secrets", |request| {
        let owner = request["object"]["metadata"]["labels"]["owner"].as_str().unwrap_or_default();
        Answer::Denied(403, format!("Label <owner: {owner}> does not satisfy allowed regex"))
    });
    fixture.renew_now(NAME, renewal).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", REPORTED).await?;
    let (_, quoted) = message.split_once("denied the request: ").context("no denial")?;
    Ok(quoted.split_once(')').context("no end of the quotation")?.0.to_owned())
}

#[tokio::test]
async fn guess_of_a_part_of_the_token_in_a_label_is_answered_neither_way() -> Result<()> {
    let fixture = Fixture::ready("guessing").await?;
    let registered = Registered::of(&fixture, "ValidatingWebhookConfiguration", 5, &[SECRETS]).await?;
    // the header of the next tokens is that of the first
    let right = fixture.token().await?[..12].to_owned();
    let wrong = format!("{}{}", &right[..11], if right.ends_with('X') { 'Y' } else { 'X' });
    for (renewal, guess) in [("1", &right), ("2", &wrong)] {
        let quoted = quoted_denial(&registered, guess, renewal).await?;
        assert_eq!(quoted, "Label <owner: [redacted]> does not satisfy allowed regex", "{guess}");
    }
    let tokens = registered.tokens();
    assert!(tokens.iter().all(|token| token.starts_with(&right)), "the first guess is right");
    check_no_secret_anywhere(&fixture, &tokens).await
}

#[tokio::test]
async fn webhook_that_fails_is_down_or_hangs_is_named_and_the_issued_token_is_kept() -> Result<()> {
    let fixture = Fixture::ready("failing").await?;
    // less than the operator's own deadline
    let registered = Registered::new(&fixture, "ValidatingWebhookConfiguration", 3).await?;
    let fails = |webhook: &Webhook| webhook.answers(|request| of_secrets(request, Answer::Status(500)));
    let named = ["writes.webhooks.example.com", "contact those who run that admission webhook"];
    play(&registered, "failing", fails, &named).await?;
    let hangs = |webhook: &Webhook| webhook.answers(|request| of_secrets(request, Answer::Nothing));
    play(&registered, "hanging", hangs, &named).await?;
    drop(registered);
    let registered = Registered::of(&fixture, "ValidatingWebhookConfiguration", 3, &[SECRETS]).await?;
    play(&registered, "down", |webhook: &Webhook| webhook.set_up(false), &named).await
}

#[tokio::test]
async fn webhook_that_hangs_longer_than_a_call_may_take_is_reported_and_the_issued_token_is_kept() -> Result<()> {
    let fixture = Fixture::ready("hanging").await?;
    let registered = Registered::new(&fixture, "ValidatingWebhookConfiguration", 30).await?;
    let hangs = |webhook: &Webhook| webhook.answers(|request| of_secrets(request, Answer::Nothing));
    play(&registered, "hanging", hangs, &["no response from the API server within 8 s", "admission webhook"]).await
}

fn of_secrets(request: &Value, answer: Answer) -> Answer {
    if request["resource"]["resource"] == "secrets" { answer } else { Answer::Allowed }
}

#[tokio::test]
async fn secret_that_a_webhook_does_not_let_be_created_is_created_later_with_the_same_token() -> Result<()> {
    let fixture = Fixture::new("creating").await?;
    let registered = Registered::new(&fixture, "ValidatingWebhookConfiguration", 5).await?;
    registered.answers("secrets", |request| {
        let token = token(&request["object"]).unwrap_or_default();
        Answer::Denied(400, format!("no Secrets today, and not {token}"))
    });
    fixture.apply_credential(&json!({})).await?;
    fixture.wait_condition("Ready", "False", "SecretWriteFailed", PATIENCE).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", SOON).await?;
    assert!(message.contains("no Secrets today, and not [redacted]"), "{message}");
    registered.answers("secrets", |_| Answer::Status(500));
    let failed = async || {
        let status = fixture.status().await.ok()?;
        status["lastFailure"]["message"].as_str()?.contains("failed calling webhook").then_some(())
    };
    fixture.eventually("another cause", CONVERGED, failed).await?;
    registered.webhook.answers(|_| Answer::Allowed);
    fixture.wait_condition("Ready", "True", "TokenValid", CONVERGED).await?;
    assert_eq!(fixture.token_requests().await?.len(), 1, "the token was kept");
    let mut tokens = registered.tokens();
    tokens.insert(fixture.token().await?);
    assert_eq!(tokens.len(), 1, "it is the same in each attempt");
    check_no_secret_anywhere(&fixture, &tokens).await
}

#[tokio::test]
async fn webhook_that_denies_status_and_events_stops_no_renewal() -> Result<()> {
    let fixture = Fixture::ready("silenced").await?;
    let registered = Registered::new(&fixture, "ValidatingWebhookConfiguration", 5).await?;
    registered.webhook.answers(|request| match request["resource"]["resource"].as_str() {
        Some("secrets") => Answer::Allowed,
        _ => Answer::Denied(403, "nothing is reported here".to_owned()),
    });
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    let second = fixture.wait_token_other_than(&first, PATIENCE).await?;
    let denied = async |resource: &str| {
        let text = fixture.operator.get("/metrics").await.ok()?;
        let is_counted = |line: &str| {
            line.starts_with("itwin_kubernetes_requests_total")
                && line.contains(&format!("resource=\"{resource}\""))
                && line.contains("result=\"forbidden\"")
        };
        text.lines().any(is_counted).then_some(())
    };
    fixture.eventually("the denied status", PATIENCE, async || denied("itwinservicecredentials/status").await).await?;
    fixture.eventually("the denied event", PATIENCE, async || denied("events").await).await?;
    let log = std::fs::read_to_string(fixture.operator.process.log())?;
    assert!(log.contains("nothing is reported here"), "what the API server said is in the log: {log}");
    // several attempts to write the status: no token is requested for them
    fixture
        .eventually("more attempts", CONVERGED, async || {
            let requests = registered.webhook.requests();
            let statuses = requests.iter().filter(|request| request["subResource"] == "status");
            (statuses.count() >= 3).then_some(())
        })
        .await?;
    assert_eq!((fixture.token().await?, fixture.token_requests().await?.len()), (second, 2));
    registered.webhook.answers(|_| Answer::Allowed);
    fixture
        .eventually("the status of the renewal", CONVERGED, async || {
            fixture.status().await.ok().filter(|status| status["lastRenewRequest"] == "1")
        })
        .await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn webhook_that_rewrites_labels_and_data_is_a_conflict_and_costs_no_token() -> Result<()> {
    let fixture = Fixture::ready("rewriting").await?;
    let registered = Registered::new(&fixture, "MutatingWebhookConfiguration", 5).await?;
    registered.answers("secrets", |_| {
        Answer::Patched(json!([
            {"op": "add", "path": "/data/injected", "value": "aW5qZWN0ZWQ="},
            {"op": "add", "path": "/metadata/labels/credentials.itwin.dev~1credential", "value": "theirs"},
        ]))
    });
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    fixture.wait_condition("Renewed", "False", "SecretConflict", CONVERGED).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2, "the first, and the one that was asked for");
    Ok(())
}

/// A value of a workload that a webhook quotes.
const QUOTED: &str = "0f8fad5bd9cb469fa16570867728950e";
const DEPLOYMENTS: Resource = ("apps", "v1", "deployments");

#[tokio::test]
async fn webhook_that_denies_the_restart_of_a_workload_is_named_and_no_permission_is_advised() -> Result<()> {
    let fixture = Fixture::new("denied-restart").await?;
    fixture.namespace.apply(&workload("Deployment", "reader")).await?;
    let targets = json!([{"kind": "Deployment", "name": "reader"}]);
    fixture.apply_credential(&json!({"rolloutRestartTargets": targets, "rolloutRestartDelay": "0s"})).await?;
    fixture.wait_ready().await?;
    let resources = [SECRETS, DEPLOYMENTS];
    let registered = Registered::of(&fixture, "ValidatingWebhookConfiguration", 5, &resources).await?;
    // as a webhook may that quotes the environment of the workload
    let said = format!("no restarts today: API_KEY={QUOTED}");
    registered.answers("deployments", move |_| Answer::Denied(403, said.clone()));
    fixture.renew(NAME, "1").await?;
    let denied = async || {
        let (status, _, message) = condition(&fixture.status().await.ok()?, "Renewed")?;
        (status == "True" && message.contains("no restarts today")).then_some(message)
    };
    let message = fixture.eventually("the denial", PATIENCE, denied).await?;
    assert!(message.contains("writes.webhooks.example.com"), "{message}");
    assert!(message.contains("contact those who run that admission webhook"), "{message}");
    assert!(!message.contains("rolloutRestart.enabled"), "no permission is missing: {message}");
    assert!(message.contains("no restarts today: [redacted]"), "{message}");
    let log = std::fs::read_to_string(fixture.operator.process.log())?;
    let events = fixture.namespace.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).await?;
    for text in [message, log, events] {
        assert!(!text.contains(QUOTED), "a value of a workload is in: {text}");
    }
    registered.webhook.answers(|_| Answer::Allowed);
    let over = async || {
        let (_, _, message) = condition(&fixture.status().await.ok()?, "Renewed")?;
        (!message.contains("restarts of workloads")).then_some(())
    };
    fixture.eventually("the restart", CONVERGED, over).await
}

/// A webhook hangs for what the template adds: the token is written without it after the first try.
async fn token_gets_through(prefix: &str, timeout: u32, arguments: &[&str]) -> Result<()> {
    let fixture = Fixture::bare_with(prefix, arguments).await?;
    fixture.with_surroundings().await?;
    let registered = Registered::new(&fixture, "ValidatingWebhookConfiguration", timeout).await?;
    registered.answers("secrets", |request| {
        let has_part = request["object"]["metadata"]["labels"]["team"].is_string()
            || request["object"]["metadata"]["annotations"]["team"].is_string()
            || request["object"]["data"]["header"].is_string();
        if has_part { Answer::Nothing } else { Answer::Allowed }
    });
    let template =
        json!({"labels": {"team": "a"}, "annotations": {"team": "a"}, "data": {"header": "{{ access_token }}"}});
    fixture.apply_credential(&json!({"secretTemplate": template})).await?;
    let hung = fixture.eventually("the first write", PATIENCE, async || {
        let requests = registered.webhook.requests();
        requests.iter().any(|request| request["name"] == NAME).then(std::time::Instant::now)
    });
    let hung = hung.await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", PATIENCE).await?;
    ensure!(hung.elapsed() <= Duration::from_secs(10) + MARGIN, "reported after {:?}", hung.elapsed());
    ensure!(message.contains("webhook"), "{message}");
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    ensure!(hung.elapsed() <= Duration::from_secs(10) + MARGIN, "written after {:?}", hung.elapsed());
    let first = fixture.token().await?;
    // nor does a renewal wait for the webhook again
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, Duration::from_secs(10) + MARGIN).await?;
    ensure!(fixture.token_requests().await?.len() == 2, "each token is kept");
    registered.webhook.answers(|_| Answer::Allowed);
    fixture
        .eventually("the whole template", CONVERGED, async || {
            let secret = fixture.secret().await.ok()??;
            let is_whole = secret["metadata"]["labels"]["team"] == "a" && secret["data"]["header"].is_string();
            is_whole.then_some(())
        })
        .await?;
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    ensure!(fixture.token_requests().await?.len() == 2, "the template costs no token");
    Ok(())
}

#[tokio::test]
async fn token_is_written_without_a_template_for_which_a_webhook_hangs_longer_than_a_call_may_take() -> Result<()> {
    token_gets_through("hung-template", 30, &[]).await
}

#[tokio::test]
async fn token_is_written_without_a_template_for_which_a_webhook_hangs_up_to_its_timeout() -> Result<()> {
    token_gets_through("slow-template", 5, &["--watch-secrets=false"]).await
}

#[tokio::test]
async fn key_that_a_webhook_added_is_removed_once_the_webhook_is_gone() -> Result<()> {
    for (prefix, arguments) in [("injected", &[][..]), ("injected-un", &["--watch-secrets=false"])] {
        let fixture = Fixture::bare_with(prefix, arguments).await?;
        fixture.with_surroundings().await?;
        fixture.apply_credential(&json!({})).await?;
        fixture.wait_ready().await?;
        let registered = Registered::new(&fixture, "MutatingWebhookConfiguration", 5).await?;
        registered.answers("secrets", |_| {
            Answer::Patched(json!([{"op": "add", "path": "/data/injected", "value": "aW5qZWN0ZWQ="}]))
        });
        let first = fixture.token().await?;
        fixture.renew_now(NAME, "1").await?;
        fixture.wait_token_other_than(&first, PATIENCE).await?;
        fixture.wait_condition("Renewed", "False", "SecretConflict", CONVERGED).await?;
        let second = fixture.token().await?;
        drop(registered);
        let gone = async || fixture.data().await.ok().filter(|data| !data.contains_key("injected")).map(drop);
        // at the end of the backoff at the latest
        fixture.eventually("the end of the key", CONVERGED, gone).await?;
        fixture.wait_condition("Renewed", "True", "TokenIssued", CONVERGED).await?;
        ensure!(
            fixture.token().await? == second && fixture.token_requests().await?.len() == 2,
            "a token was requested"
        );
    }
    Ok(())
}
