//! An admission webhook that never answers for the token Secrets of one namespace.

use anyhow::Result;
use serde_json::json;
use testbed::{
    eventually,
    namespace::Namespace,
    webhook::{Answer, Webhook},
};

use crate::environment::PATIENCE;

const KIND: &str = "ValidatingWebhookConfiguration";

/// The webhook, which the API server calls until this is dropped.
pub struct HangingWebhook<'a> {
    namespace: &'a Namespace,
    webhook: Webhook,
}

impl Drop for HangingWebhook<'_> {
    fn drop(&mut self) {
        let testbed = &self.namespace.testbed;
        let mut kubectl = std::process::Command::new(&testbed.kubectl);
        kubectl.arg("--kubeconfig").arg(&testbed.kubeconfig).args(["delete", KIND, &self.namespace.name]);
        // a testbed that stops needs no cleanup
        let _ = kubectl.output();
    }
}

impl<'a> HangingWebhook<'a> {
    /// Registers the webhook, and waits until the API server calls it. From then on it does not answer.
    pub async fn register(namespace: &'a Namespace) -> Result<Self> {
        let name = &namespace.name;
        let hanging = Self { namespace, webhook: Webhook::start()? };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": KIND,
            "metadata": {"name": name},
            "webhooks": [{
                "name": "writes.webhooks.example.com",
                "clientConfig": {"url": hanging.webhook.url, "caBundle": hanging.webhook.ca_bundle},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "matchConditions": [{"name": "token", "expression": "!object.metadata.name.endsWith('-client')"}],
                "rules": [{
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["secrets"],
                }],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                // the longest that there is; the operator gives a call up before that
                "timeoutSeconds": 30,
                "admissionReviewVersions": ["v1"],
            }],
        });
        namespace.apply(&configuration).await?;
        let probe = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}}).to_string();
        let create = ["--namespace", name, "create", "--dry-run=server", "-f", "-"];
        eventually("a call of the webhook", PATIENCE, async || {
            namespace.testbed.kubectl_with(&create, Some(&probe)).await.ok()?;
            (hanging.calls() > 0).then_some(())
        })
        .await?;
        hanging.webhook.answers(|_| Answer::Nothing);
        Ok(hanging)
    }

    /// How often the API server called it.
    pub fn calls(&self) -> usize {
        self.webhook.requests().len()
    }
}
