//! What cannot be listed or watched, at a start and later: what is listed is acted upon, and the rest is reported.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{
    api_proxy::fault::{Fault, Played, Rule},
    eventually,
    namespace::Namespace,
    objects,
    operator::Operator,
};

use crate::fixture::{Fixture, NAME, PATIENCE, SOON, condition};

/// Within this a failure is reported, ...
const REPORTED: Duration = Duration::from_secs(10);
/// ... and a busy machine takes so much longer.
const MARGIN: Duration = Duration::from_secs(3);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

const CREDENTIALS: &str = "list itwinservicecredentials";
const WATCHED_CREDENTIALS: &str = "watch itwinservicecredentials";
const AUTHORITIES: &str = "list itwinauthorities";
const WATCHED_AUTHORITIES: &str = "watch itwinauthorities";
const SECRETS: &str = "list secrets";
const WATCHED_SECRETS: &str = "watch secrets";

/// Starts an operator of these namespaces that is not awaited, in place of the one before.
fn start(fixture: &mut Fixture, namespaces: &str, arguments: &[&str]) -> Result<()> {
    fixture.operator = fixture.environment.spawn_operator_of(namespaces, arguments, &[])?;
    Ok(())
}

/// What the readiness probe says of a replica that is not ready.
async fn unready(operator: &Operator) -> Option<String> {
    let (status, text) = operator.answer("/readyz").await.ok()?;
    (status == 503).then_some(text)
}

async fn namespace_that_cannot_be_listed(prefix: &str, arguments: &[&str]) -> Result<()> {
    let mut fixture = Fixture::ready(prefix).await?;
    let other = Namespace::new(&format!("{prefix}-other")).await?;
    other.apply(&fixture.namespace.client_secret(NAME, &fixture.client)).await?;
    let credential = objects::credential(NAME, &fixture.namespace.name, "agent-client", &json!({}));
    other.apply(&credential).await?;
    let first = fixture.token().await?;
    fixture.stop();
    let rule = Rule::new(CREDENTIALS, Fault::Refused(403)).within(&other.name).lasting(LONG);
    let rule = fixture.proxy().play(rule);
    let namespaces = format!("{},{}", fixture.namespace.name, other.name);
    start(&mut fixture, &namespaces, arguments)?;

    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    ensure!(rule.times() > 0, "the other namespace was listed");
    let text = unready(&fixture.operator).await.context("it is ready without a list")?;
    ensure!(text.contains(&other.name) && text.contains("HTTP 403"), "{text}");
    ensure!(!text.contains(&format!("/{}/", fixture.namespace.name)), "what is listed is named: {text}");
    let failed =
        "itwin_kubernetes_requests_total{resource=\"itwinservicecredentials\",result=\"forbidden\",verb=\"list\"}";
    ensure!(fixture.metric(failed).await? >= 1.0, "the metric of failed requests");
    // the longest silence of a watch of this resource
    let last_sign = async || fixture.metric("itwin_watch_last_event_timestamp_seconds{resource=\"itwinserv").await.ok();
    let before = last_sign().await.context("no metric of watches")?;
    fixture.reconcile().await?;
    let silent = last_sign().await.context("no metric of watches")?;
    ensure!((silent - before).abs() <= 1.0, "a watch that was never accepted has no signs of life: {before}, {silent}");
    ensure!(other.get("secret", NAME).await?.is_none(), "it was not listed");

    fixture.proxy().stop(&rule);
    fixture
        .eventually("a token in the other namespace", PATIENCE, async || other.get("secret", NAME).await.ok()?)
        .await?;
    fixture.operator.wait_ready().await?;
    ensure!(fixture.token_requests().await?.len() == 3, "one token each, and the renewal");
    Ok(())
}

#[tokio::test]
async fn namespace_that_cannot_be_listed_holds_up_no_other_one() -> Result<()> {
    namespace_that_cannot_be_listed("unlisted", &[]).await
}

#[tokio::test]
async fn namespace_that_cannot_be_listed_holds_up_no_other_one_where_secrets_are_not_watched() -> Result<()> {
    namespace_that_cannot_be_listed("unlisted-unwatched", &["--watch-secrets=false"]).await
}

/// Waits until `Renewed` has this reason. Fails if that comes later than 10 s after the first request with the fault.
async fn reported_in_time(fixture: &Fixture, fault: &Played, reason: &str) -> Result<String> {
    let message = fixture.wait_condition("Renewed", "False", reason, PATIENCE).await?;
    let late = fault.first().context("there was no fault")?.elapsed();
    ensure!(late <= REPORTED + MARGIN, "reported after {late:?}");
    Ok(message)
}

async fn authorities_that_cannot_be_listed(
    prefix: &str,
    arguments: &[&str],
    fault: Fault,
    texts: &[&str],
) -> Result<()> {
    let mut fixture = Fixture::ready(prefix).await?;
    let token = fixture.token().await?;
    fixture.stop();
    let rule = fixture.proxy().play(Rule::new(AUTHORITIES, fault).lasting(LONG));
    let namespaces = fixture.namespace.name.clone();
    start(&mut fixture, &namespaces, arguments)?;
    let message = reported_in_time(&fixture, &rule, "AuthorityNotReady").await?;
    for text in texts {
        ensure!(message.contains(text), "{text:?} is not in: {message}");
    }
    let status = fixture.status().await?;
    let ready = condition(&status, "Ready").context("no condition Ready")?;
    ensure!(ready.0 == "True", "the token is good: {ready:?}");
    ensure!(unready(&fixture.operator).await.is_some(), "it is ready without the list");
    // so does a new credential, and it does not report that the authority does not exist
    fixture.namespace.apply(&fixture.namespace.credential("another", &json!({}))).await?;
    fixture.wait_condition_of("another", "Renewed", "False", "AuthorityNotReady", SOON).await?;

    fixture.proxy().stop(&rule);
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    fixture.operator.wait_ready().await?;
    ensure!(fixture.token().await? == token, "another token");
    fixture.wait_condition_of("another", "Renewed", "False", "ClientCredentialsNotFound", PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn authorities_that_may_not_be_listed_are_reported_with_the_permission_to_give() -> Result<()> {
    let texts = ["HTTP 403", "allow the operator's service account to list and watch itwinauthorities"];
    authorities_that_cannot_be_listed("auth-403", &[], Fault::Refused(403), &texts).await
}

#[tokio::test]
async fn list_of_authorities_that_fails_is_reported() -> Result<()> {
    let texts = ["HTTP 500", "contact the administrator"];
    authorities_that_cannot_be_listed("auth-500", &["--watch-secrets=false"], Fault::Refused(500), &texts).await
}

#[tokio::test]
async fn list_of_authorities_that_hangs_is_reported() -> Result<()> {
    let texts = ["no response", "contact the administrator"];
    authorities_that_cannot_be_listed("auth-hang", &[], Fault::BlackHole(LONG), &texts).await
}

/// The watch of authorities fails, and so do lists where that is among the `kinds`.
async fn watch_of_authorities_that_fails(prefix: &str, kinds: &[&str], fault: Fault) -> Result<()> {
    let fixture = Fixture::ready(prefix).await?;
    let play = |kind: &&str| fixture.proxy().play(Rule::new(kind, fault).lasting(LONG));
    let rules: Vec<Played> = kinds.iter().map(play).collect();
    let expired = async || (fixture.proxy().expire("watch itwinauthorities") > 0).then_some(());
    eventually("the end of the watch", PATIENCE, expired).await?;
    // the first one may be too old, and lists are made again after it
    let fails = async || (rules.iter().map(Played::times).sum::<u32>() > 3).then_some(());
    eventually("a watch that fails", PATIENCE, fails).await?;
    let first = Instant::now();
    // until then a new watch may succeed
    eventually("a while", PATIENCE, async || (first.elapsed() > SOON).then_some(())).await?;
    fixture.apply_credential(&json!({"authorityRef": {"name": "there-is-none"}})).await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotReady", PATIENCE).await?;
    let lists = || fixture.proxy().records().iter().filter(|record| record.call.kind == AUTHORITIES).count();
    let before = lists();
    eventually("another list", PATIENCE * 4, async || (lists() > before).then_some(())).await?;
    fixture.reconcile().await?;
    let (_, reason, _) = condition(&fixture.status().await?, "Renewed").context("no condition Renewed")?;
    ensure!(reason == "AuthorityNotReady", "a list alone changes nothing: {reason}");
    for rule in &rules {
        fixture.proxy().stop(rule);
    }
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", PATIENCE * 2).await?;
    Ok(())
}

#[tokio::test]
async fn authority_is_not_called_missing_while_the_watch_of_authorities_fails() -> Result<()> {
    watch_of_authorities_that_fails("auth-watch", &[AUTHORITIES, WATCHED_AUTHORITIES], Fault::Refused(403)).await
}

#[tokio::test]
async fn authority_is_not_called_missing_while_only_watches_of_authorities_fail() -> Result<()> {
    watch_of_authorities_that_fails("auth-watch-500", &[WATCHED_AUTHORITIES], Fault::Refused(500)).await
}

#[tokio::test]
async fn authority_is_not_called_missing_while_watches_of_authorities_are_accepted_and_end() -> Result<()> {
    watch_of_authorities_that_fails("auth-watch-cut", &[WATCHED_AUTHORITIES], Fault::Answered("")).await
}

async fn secrets_that_cannot_be_watched(prefix: &str, kinds: &[&str], fault: Fault, texts: &[&str]) -> Result<()> {
    let fixture = Fixture::ready(prefix).await?;
    let first = fixture.token().await?;
    let play = |kind: &&str| fixture.proxy().play(Rule::new(kind, fault).lasting(LONG));
    let rules: Vec<Played> = kinds.iter().map(play).collect();
    let expired = async || (fixture.proxy().expire("watch secrets") > 0).then_some(());
    eventually("the end of the watch", PATIENCE, expired).await?;
    // everything is listed after a watch that ended so
    let message = reported_in_time(&fixture, &rules[0], "SecretReadFailed").await?;
    for text in texts {
        ensure!(message.contains(text), "{text:?} is not in: {message}");
    }
    let status = fixture.status().await?;
    ensure!(status["consecutiveFailures"].as_i64().unwrap_or_default() == 0, "no attempt failed: {status}");
    let (ready, _, message) = condition(&status, "Ready").context("no condition Ready")?;
    ensure!(ready == "True" && message.contains("held a valid token when it was read last"), "{ready}: {message}");
    // a request reads as if nothing was ever watched
    fixture.renew_now(NAME, "1").await?;
    let second = fixture.wait_token_other_than(&first, PATIENCE).await?;
    fixture.wait_condition("Renewed", "False", "SecretReadFailed", SOON).await?;
    fixture.namespace.kubectl(&["delete", "secret", NAME]).await?;
    for rule in &rules {
        fixture.proxy().stop(rule);
    }
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    let restored = async || fixture.token().await.ok().filter(|token| *token != second);
    fixture.eventually("what was missed is noticed", PATIENCE, restored).await?;
    let is_current = |(_, _, message): &(String, String, String)| message.contains("holds a valid token");
    let claimed = async || condition(&fixture.status().await.ok()?, "Ready").filter(is_current);
    fixture.eventually("a claim about the Secret as it is", PATIENCE, claimed).await?;
    Ok(())
}

#[tokio::test]
async fn watch_of_secrets_that_fails_is_reported_in_time_and_nothing_is_claimed_that_was_not_read() -> Result<()> {
    let texts = ["cannot be watched (HTTP 403", "allow the operator's service account to list and watch Secrets"];
    secrets_that_cannot_be_watched("secrets-403", &[SECRETS, WATCHED_SECRETS], Fault::Refused(403), &texts).await
}

#[tokio::test]
async fn watch_of_secrets_that_the_api_server_fails_to_make_is_reported_in_time() -> Result<()> {
    let texts = ["cannot be watched (HTTP 500", "contact the administrator of the cluster"];
    secrets_that_cannot_be_watched("secrets-500", &[SECRETS, WATCHED_SECRETS], Fault::Refused(500), &texts).await
}

#[tokio::test]
async fn watch_of_secrets_that_is_refused_while_lists_are_answered_is_reported_in_time() -> Result<()> {
    let texts = ["cannot be watched (HTTP 500", "contact the administrator of the cluster"];
    secrets_that_cannot_be_watched("secrets-watch-500", &[WATCHED_SECRETS], Fault::Refused(500), &texts).await
}

#[tokio::test]
async fn watch_of_secrets_that_is_too_old_each_time_is_reported_in_time() -> Result<()> {
    let texts = ["cannot be watched (HTTP 410"];
    secrets_that_cannot_be_watched("secrets-watch-410", &[WATCHED_SECRETS], Fault::Refused(410), &texts).await
}

#[tokio::test]
async fn watch_of_secrets_that_is_accepted_and_ends_each_time_is_reported_in_time() -> Result<()> {
    let texts = ["cannot be watched (it was accepted and ended before it showed anything)"];
    secrets_that_cannot_be_watched("secrets-watch-cut", &[WATCHED_SECRETS], Fault::Answered(""), &texts).await
}

#[tokio::test]
async fn watch_of_secrets_that_shows_no_events_but_a_page_of_a_proxy_is_reported_in_time() -> Result<()> {
    let texts = ["cannot be watched (no connection, or no readable answer)"];
    let fault = Fault::Answered("<html><body>sign in</body></html>\n");
    secrets_that_cannot_be_watched("secrets-watch-html", &[WATCHED_SECRETS], fault, &texts).await
}

/// No Lease shows that the API server answers: operators of tests run alone.
#[tokio::test]
async fn watches_that_are_all_accepted_and_end_each_time_are_reported_in_time_without_leader_election() -> Result<()> {
    let fixture = Fixture::ready("watches-cut").await?;
    let kinds = [WATCHED_AUTHORITIES, WATCHED_CREDENTIALS, WATCHED_SECRETS];
    let rules = kinds.map(|kind| fixture.proxy().play(Rule::new(kind, Fault::Answered("")).lasting(LONG)));
    for (kind, rule) in kinds.iter().zip(&rules) {
        let expired = async || (fixture.proxy().expire(kind) > 0).then_some(());
        eventually("the end of the watch", PATIENCE, expired).await?;
        // so that none of the others works when that of Secrets, the last one, fails
        let fails = async || (rule.times() > 1).then_some(());
        eventually("a watch that fails", PATIENCE, fails).await?;
    }
    let message = reported_in_time(&fixture, &rules[2], "SecretReadFailed").await?;
    ensure!(message.contains("it was accepted and ended before it showed anything"), "{message}");
    for rule in &rules {
        fixture.proxy().stop(rule);
    }
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn watch_of_secrets_that_fails_in_one_namespace_is_no_matter_of_another() -> Result<()> {
    let mut fixture = Fixture::ready("secrets-one").await?;
    let other = Namespace::new("secrets-other").await?;
    other.apply(&fixture.namespace.client_secret(NAME, &fixture.client)).await?;
    let credential = objects::credential(NAME, &fixture.namespace.name, "agent-client", &json!({}));
    other.apply(&credential).await?;
    fixture.stop();
    let rules = ["list secrets", "watch secrets"]
        .map(|kind| fixture.proxy().play(Rule::new(kind, Fault::Refused(403)).within(&other.name).lasting(LONG)));
    let namespaces = format!("{},{}", fixture.namespace.name, other.name);
    start(&mut fixture, &namespaces, &[])?;
    let is_reported = |object: &serde_json::Value| {
        condition(&object["status"], "Renewed").is_some_and(|(_, reason, _)| reason == "SecretReadFailed")
    };
    let reported = async || other.get("itcred", NAME).await.ok()?.filter(is_reported);
    fixture.eventually("a report in the other namespace", PATIENCE, reported).await?;
    let late = rules[0].first().context("there was no fault")?.elapsed();
    ensure!(late <= REPORTED + MARGIN, "a start waits for no list that is refused: {late:?}");
    fixture.reconcile().await?;
    let (status, reason, _) = condition(&fixture.status().await?, "Renewed").context("no condition Renewed")?;
    ensure!((&*status, &*reason) == ("True", "TokenIssued"), "{status} {reason}");
    Ok(())
}

/// When `Renewed` became what it is.
async fn renewed_since(fixture: &Fixture) -> Result<String> {
    let status = fixture.status().await?;
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let renewed = conditions.rfind(|condition| condition["type"] == "Renewed");
    Ok(renewed.context("no condition Renewed")?["lastTransitionTime"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn authority_that_is_missing_stays_reported_while_the_list_of_authorities_is_late() -> Result<()> {
    let mut fixture = Fixture::ready("auth-gone").await?;
    fixture.namespace.kubectl(&["delete", "itauth", &fixture.namespace.name]).await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", SOON).await?;
    let since = renewed_since(&fixture).await?;
    fixture.stop();
    // work begins before it
    let rule = fixture.proxy().play(Rule::new(AUTHORITIES, Fault::Delay(Duration::from_secs(7))));
    let namespaces = fixture.namespace.name.clone();
    start(&mut fixture, &namespaces, &[])?;
    fixture.operator.wait_ready().await?;
    ensure!(rule.times() == 1, "the list is late");
    fixture.reconcile().await?;
    fixture.wait_condition("Renewed", "False", "AuthorityNotFound", PATIENCE).await?;
    ensure!(renewed_since(&fixture).await? == since, "Renewed was True for a while");
    Ok(())
}
