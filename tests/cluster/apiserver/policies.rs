//! Admission policies that change or deny what the operator writes: a good token stays good.

mod first_token;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{Testbed, eventually};

use crate::{
    audit::{calls, calls_since},
    fixture::{Fixture, NAME, PATIENCE, SOON},
};

/// A policy of the cluster, which is deleted at the end of its test.
struct Policy {
    name: String,
    kind: &'static str,
}

impl Drop for Policy {
    fn drop(&mut self) {
        let Ok(testbed) = Testbed::current() else { return };
        for kind in [self.kind.to_owned(), format!("{}binding", self.kind)] {
            let mut kubectl = std::process::Command::new(&testbed.kubectl);
            kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).args(["delete", &kind, &self.name]);
            let _ = kubectl.output();
        }
    }
}

/// Applies a policy to the Secrets of the namespace, without the client Secret.
async fn apply_policy(fixture: &Fixture, kind: &'static str, spec: Value) -> Result<Policy> {
    let name = &fixture.namespace.name;
    let mut spec = spec;
    spec["matchConstraints"] = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
        "resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]},
        ],
    });
    spec["matchConditions"] =
        json!([{"name": "token", "expression": format!("object.metadata.name != '{NAME}-client'")}]);
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        })
    };
    let mut binding = json!({"policyName": name});
    if kind == "ValidatingAdmissionPolicy" {
        binding["validationActions"] = json!(["Deny"]);
    }
    let policy = Policy { name: name.clone(), kind };
    fixture.namespace.apply(&object(kind, spec)).await?;
    fixture.namespace.apply(&object(&format!("{kind}Binding"), binding)).await?;
    Ok(policy)
}

/// Whether the API server has MutatingAdmissionPolicies; older versions have not (KEP-3962).
fn serves_mutating_policies() -> Result<bool> {
    let testbed = Testbed::current()?;
    let resources = ["api-resources", "--api-group=admissionregistration.k8s.io", "-o", "name"];
    let mut kubectl = std::process::Command::new(&testbed.kubectl);
    kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).args(resources);
    let found = String::from_utf8(kubectl.output()?.stdout)?;
    let is_served = found.lines().any(|line| line.starts_with("mutatingadmissionpolicies."));
    if !is_served {
        testbed.skip("policies that change Secrets", "the API server has no MutatingAdmissionPolicy")?;
    }
    Ok(is_served)
}

/// Waits until a Secret that is created is not as it was sent, or not accepted.
async fn wait_effective(fixture: &Fixture) -> Result<()> {
    let probe = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "probe",
            "labels": {"credentials.itwin.dev/credential": "probe", "team": "probe"},
            "annotations": {"probe": "1"},
        },
        "data": {"header": "eA==", "scope": "eA==", "access_token": "eA=="},
    });
    let (object, namespace) = (probe.to_string(), &fixture.namespace.name);
    let create = ["--namespace", namespace, "create", "--dry-run=server", "-o", "json", "-f", "-"];
    eventually("the policy", PATIENCE, async || {
        let Ok(text) = fixture.namespace.testbed.kubectl_with(&create, Some(&object)).await else { return Some(()) };
        let secret: Value = serde_json::from_str(&text).ok()?;
        let metadata = &secret["metadata"];
        let is_same = metadata["labels"]["credentials.itwin.dev/credential"] == "probe"
            && metadata["annotations"]["probe"] == "1"
            && secret["data"] == probe["data"];
        (!is_same).then_some(())
    })
    .await
}

/// The spec of a policy that changes each Secret.
fn mutating(mutation: Value) -> Value {
    json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [mutation]})
}

/// Has the token renewed while a policy changes what is written: that is reported, and the token is good.
async fn renew_under_a_policy(fixture: &Fixture) -> Result<()> {
    let first = fixture.token().await?;
    fixture.renew_now(NAME, "1").await?;
    fixture.wait_token_other_than(&first, PATIENCE).await?;
    let message = fixture.wait_condition("Renewed", "False", "SecretConflict", PATIENCE).await?;
    assert!(message.contains("admission policy"), "{message}");
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    Ok(())
}

/// The spec of a policy that removes all annotations.
fn stripping() -> Value {
    mutating(json!({
        "patchType": "JSONPatch",
        "jsonPatch": {
            "expression": "has(object.metadata.annotations) ? \
                           [JSONPatch{op: 'remove', path: '/metadata/annotations'}] : []",
        },
    }))
}

#[tokio::test]
async fn policy_that_strips_annotations_is_reported_and_costs_no_token() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::ready("stripped").await?;
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", stripping()).await?;
    wait_effective(&fixture).await?;
    renew_under_a_policy(&fixture).await?;
    let before = calls(&fixture.namespace)?.len();
    eventually("more rounds", PATIENCE, async || {
        let calls = calls_since(&fixture.namespace, before).ok()?;
        (calls.iter().filter(|call| call.to_string() == format!("patch secrets {NAME}")).count() >= 2).then_some(())
    })
    .await
    .with_context(|| fixture.operator.process.log_tail())?;
    fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2, "the first, and the one that was asked for");
    Ok(())
}

/// From its first write on, nothing in the Secret describes a token.
#[tokio::test]
async fn tokens_are_renewed_in_time_under_a_policy_that_has_always_stripped_annotations() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let mut fixture = Fixture::bare("never-described").await?;
    fixture.client.lifetime = 30;
    fixture.with_surroundings().await?;
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", stripping()).await?;
    wait_effective(&fixture).await?;
    fixture.apply_credential(&json!({"minimumValidity": "2s"})).await?;
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
    for _ in 0..2 {
        let token = fixture.token().await?;
        fixture.wait_token_other_than(&token, Duration::from_secs(30)).await?;
        fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    }
    let requests = fixture.token_requests().await?.len();
    assert!((3..=5).contains(&requests), "{requests} token requests");
    Ok(())
}

#[tokio::test]
async fn policy_that_overrides_a_label_is_reported_and_costs_no_token() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::ready("relabelled").await?;
    let relabel = mutating(json!({
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {
            "expression":
                "Object{metadata: Object.metadata{labels: {'credentials.itwin.dev/credential': 'theirs'}}}",
        },
    }));
    let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", relabel).await?;
    wait_effective(&fixture).await?;
    renew_under_a_policy(&fixture).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn denial_of_a_policy_is_quoted_and_the_token_is_kept() -> Result<()> {
    let fixture = Fixture::ready("denied").await?;
    let deny = json!({
        "failurePolicy": "Fail",
        "validations": [{
            "expression": "false",
            "messageExpression": "'labels are immutable here; it begins with ' + string(object.data['access_token']).substring(0, 40)",
        }],
    });
    let first = fixture.token().await?;
    {
        let _policy = apply_policy(&fixture, "ValidatingAdmissionPolicy", deny).await?;
        wait_effective(&fixture).await?;
        fixture.renew_now(NAME, "1").await?;
        let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", PATIENCE).await?;
        assert!(message.contains("labels are immutable here") && message.contains("admission policy"), "{message}");
        // the header of the next token is that of the first
        let secret = fixture.secret().await?.context("no Secret")?;
        let beginning = secret["data"]["access_token"].as_str().context("no token")?[..40].to_owned();
        assert!(message.contains("[redacted]") && !message.contains(&beginning), "{message}");
        fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
    }
    fixture.wait_token_other_than(&first, PATIENCE * 2).await?;
    assert_eq!(fixture.token_requests().await?.len(), 2, "the token was kept");
    Ok(())
}

/// A policy that denies a Secret unless the expression holds.
async fn deny_unless(fixture: &Fixture, expression: &str, message: &str) -> Result<Policy> {
    let deny = json!({"failurePolicy": "Fail", "validations": [{"expression": expression, "message": message}]});
    let policy = apply_policy(fixture, "ValidatingAdmissionPolicy", deny).await?;
    wait_effective(fixture).await?;
    Ok(policy)
}

#[tokio::test]
async fn label_that_a_policy_denies_holds_up_neither_a_token_nor_the_deletion_policy() -> Result<()> {
    let fixture = Fixture::ready("denied-label").await?;
    let first = fixture.token().await?;
    let owned = async |expected: bool| {
        let is_owned = async || {
            let secret = fixture.secret().await.ok()??;
            (secret["metadata"]["ownerReferences"].is_array() == expected).then_some(())
        };
        fixture.eventually("the owner reference of the deletion policy", PATIENCE, is_owned).await
    };
    let with_label = |policy: &str| {
        json!({
            "clientCredentialsRef": {"name": format!("{NAME}-client")},
            "deletionPolicy": policy,
            "secretTemplate": {"labels": {"team": "a"}},
        })
    };
    {
        let expression = "!has(object.metadata.labels) || !('team' in object.metadata.labels)";
        let _policy = deny_unless(&fixture, expression, "no label team here").await?;
        fixture.apply_credential(&with_label("Retain")).await?;
        let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", PATIENCE).await?;
        assert!(message.contains("no label team here"), "{message}");
        owned(false).await?;
        fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
        fixture.renew_now(NAME, "1").await?;
        fixture.wait_token_other_than(&first, PATIENCE).await?;
        fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
        fixture.wait_condition("Renewed", "False", "SecretWriteFailed", SOON).await?;
        fixture.apply_credential(&with_label("Delete")).await?;
        owned(true).await?;

        // a Secret that does not exist yet
        fixture.namespace.apply(&fixture.namespace.credential("second", &with_label("Delete"))).await?;
        let message = fixture.wait_condition_of("second", "Renewed", "False", "SecretWriteFailed", PATIENCE).await?;
        assert!(message.contains("no label team here") && message.contains("labels and annotations"), "{message}");
        fixture.wait_condition_of("second", "Ready", "True", "TokenValid", SOON).await?;
    }
    for name in [NAME, "second"] {
        fixture.wait_condition_of(name, "Renewed", "True", "TokenIssued", PATIENCE * 3).await?;
        let secret = fixture.secret_of(name).await?.context("no Secret")?;
        assert_eq!(secret["metadata"]["labels"]["team"], "a");
    }
    assert_eq!(fixture.token_requests().await?.len(), 3, "no token was lost, and none requested again");
    Ok(())
}

#[tokio::test]
async fn key_of_a_template_that_a_policy_denies_holds_up_neither_the_token_nor_labels() -> Result<()> {
    let fixture = Fixture::new("denied-key").await?;
    let template = json!({"labels": {"app": "a"}, "data": {"header": "token {{ access_token }}"}});
    let first = {
        let expression = "!has(object.data) || !('header' in object.data)";
        let _policy = deny_unless(&fixture, expression, "no key header here").await?;
        fixture.apply_credential(&json!({"secretTemplate": template})).await?;
        let message = fixture.wait_condition("Renewed", "False", "SecretWriteFailed", PATIENCE).await?;
        assert!(message.contains("no key header here"), "{message}");
        fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE).await?;
        let first = fixture.token().await?;
        fixture.renew_now(NAME, "1").await?;
        let second = fixture.wait_token_other_than(&first, PATIENCE).await?;
        let secret = fixture.secret().await?.context("no Secret")?;
        assert_eq!(secret["metadata"]["labels"]["app"], "a");
        assert!(secret["data"].get("header").is_none());
        second
    };
    fixture.wait_condition("Renewed", "True", "TokenIssued", PATIENCE * 3).await?;
    assert_eq!(fixture.data().await?["header"], format!("token {first}"));
    assert_eq!(fixture.token_requests().await?.len(), 2);
    Ok(())
}

/// The spec of a policy that replaces this key of the data, wherever there is one.
fn replacing(key: &str) -> Value {
    let expression = format!(
        "has(object.data) && '{key}' in object.data ? \
         [JSONPatch{{op: 'replace', path: '/data/{key}', value: 'b3RoZXI='}}] : []"
    );
    mutating(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}))
}

#[tokio::test]
async fn policy_that_changes_the_data_is_reported_and_costs_no_tokens() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::ready("changed-data").await?;
    {
        let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("scope")).await?;
        wait_effective(&fixture).await?;
        renew_under_a_policy(&fixture).await?;
        assert_eq!(fixture.data().await?["scope"], "other");
    }
    fixture
        .eventually("the scope", PATIENCE * 3, async || {
            (fixture.data().await.ok()?["scope"] == "itwin-platform").then_some(())
        })
        .await?;
    assert_eq!(fixture.token_requests().await?.len(), 2, "the first, and the one that was asked for");
    Ok(())
}

/// Asserts that a conflict over the token was reported before it cost many tokens, and that the next ones are requested
/// at growing intervals.
async fn assert_requests_slow_down(fixture: &Fixture) -> Result<()> {
    let requests = async || Some(fixture.token_requests().await.ok()?.len());
    let before = requests().await.context("no requests")?;
    assert!(before <= 8, "{before} token requests before it was reported");
    // at one request a second five took less: these wait for 1, 2, 4, 8 and 16 s, and for half of it at least
    let began = std::time::Instant::now();
    eventually("five more token requests", PATIENCE * 3, async || {
        requests().await.filter(|count| *count >= before + 5)
    })
    .await?;
    assert!(began.elapsed() > SOON, "five requests in {:?}", began.elapsed());
    Ok(())
}

/// Waits until the token is good after a policy was deleted: it is restored after a backoff of at most a minute.
async fn wait_restored(fixture: &Fixture) -> Result<()> {
    fixture.wait_condition("Ready", "True", "TokenValid", PATIENCE * 3).await?;
    assert_ne!(fixture.token().await?, "other");
    Ok(())
}

#[tokio::test]
async fn policy_that_rewrites_the_token_is_reported_and_costs_a_bounded_number_of_tokens() -> Result<()> {
    if !serves_mutating_policies()? {
        return Ok(());
    }
    let fixture = Fixture::ready("rewritten-token").await?;
    let first = fixture.token().await?;
    {
        let _policy = apply_policy(&fixture, "MutatingAdmissionPolicy", replacing("access_token")).await?;
        wait_effective(&fixture).await?;
        fixture.wait_condition("Ready", "True", "TokenValid", SOON).await?;
        assert_eq!(fixture.token().await?, first, "what is not written stays as it is");
        fixture.renew_now(NAME, "1").await?;
        let message = fixture.wait_condition("Renewed", "False", "SecretConflict", PATIENCE).await?;
        assert!(message.contains("admission policy"), "{message}");
        fixture.wait_condition("Ready", "False", "SecretConflict", SOON).await?;
        assert_requests_slow_down(&fixture).await?;
    }
    wait_restored(&fixture).await
}
