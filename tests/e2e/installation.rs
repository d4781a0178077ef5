//! The operator's installation, as an administrator does and checks it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{
    INSTALLATION, Testbed, eventually,
    node::registry::Registry,
    process::{Process, bound_to_us},
};

use crate::{PATIENCE, release::Release};

/// The version of the release that follows that of the work tree.
const NEXT: &str = "99.0.0";
const SELECTOR: &str = "app.kubernetes.io/name=itwin-credential-operator";

pub struct Installation {
    pub testbed: Testbed,
    registry: Registry,
    archive: PathBuf,
    /// What is installed, or about to be.
    release: Release,
    /// A file with the values. They name no image: the charts of releases do.
    values: PathBuf,
    /// The processes that follow the pods' logs, which are scanned for secrets in the end.
    logs: BTreeMap<String, Process>,
}

impl Installation {
    /// Prepares a release in a registry, and a namespace for pods without privileges on the node.
    pub async fn prepare(testbed: &Testbed, archive: &Path) -> Result<Self> {
        let runtime = testbed.runtime.as_ref().context("there is no node: run this by `make e2e`")?;
        let registry = Registry::start(runtime).await?;
        let release = Release::publish(testbed, &registry, archive, &Release::current()?).await?;
        testbed.kubectl(&["create", "namespace", INSTALLATION]).await?;
        restrict(testbed, INSTALLATION).await?;
        let values = testbed.directory.join("values.json");
        // the default authority of credentials; it is limited to namespaces, as administrators do
        let authority = json!({
            "issuer": testbed.authority.issuer,
            "caBundle": testbed.authority.ca_bundle(),
            "allowedNamespaces": {"matchLabels": {"itwin": "allowed"}},
        });
        std::fs::write(&values, json!({"authorities": {"bentley-ims": authority}}).to_string())?;
        let (testbed, archive) = (testbed.clone(), archive.to_path_buf());
        Ok(Self { testbed, registry, archive, release, values, logs: BTreeMap::new() })
    }

    pub async fn install(&self) -> Result<()> {
        self.helm("install").await
    }

    /// Checks that the node, which had no part of the image before, pulled it from the registry by its digest.
    pub async fn image_was_pulled(&self) -> Result<()> {
        self.pull_is_reported().await?;
        self.release.was_sent(&self.registry).await
    }

    /// Waits until the kubelet reports that it pulled the image of this release.
    async fn pull_is_reported(&self) -> Result<()> {
        let events = ["get", "events", "--namespace", INSTALLATION, "--field-selector", "reason=Pulled"];
        let events = [&events[..], &["-o", "jsonpath={.items[*].message}"][..]].concat();
        let wanted = format!("Successfully pulled image \"{}\"", self.release.image());
        eventually("an event about the pull of the image", PATIENCE, async || {
            self.testbed.kubectl(&events).await.ok()?.contains(&wanted).then_some(())
        })
        .await
    }

    /// `helm test`, as an administrator runs it after an installation.
    pub async fn test(&self) -> Result<()> {
        let output = self.testbed.helm(&["test", INSTALLATION, "--namespace", INSTALLATION, "--timeout", "2m"]).await?;
        ensure!(output.contains("Succeeded"), "{output}");
        Ok(())
    }

    /// Publishes the next release, and upgrades to it with `helm upgrade`.
    pub async fn upgrade(&mut self) -> Result<()> {
        self.release = Release::publish(&self.testbed, &self.registry, &self.archive, NEXT).await?;
        self.helm("upgrade").await?;
        let wanted = self.release.image();
        eventually("pods of the new version alone", PATIENCE, async || {
            let pods = self.pods().await.ok()?;
            let new = |pod: &Value| pod["spec"]["containers"][0]["image"] == wanted.as_str();
            (!pods.is_empty() && pods.iter().all(new)).then_some(())
        })
        .await?;
        self.pull_is_reported().await
    }

    pub async fn uninstall(&self) -> Result<()> {
        self.testbed.helm(&["uninstall", INSTALLATION, "--namespace", INSTALLATION, "--wait"]).await?;
        eventually("the deletion of its pods", PATIENCE, async || self.pods().await.ok()?.is_empty().then_some(()))
            .await
    }

    async fn helm(&self, what: &str) -> Result<()> {
        let chart = self.release.chart();
        let chart: Vec<&str> = chart.iter().map(String::as_str).collect();
        let settings = ["--namespace", INSTALLATION, "--values", self.values.to_str().unwrap()];
        self.testbed.helm(&[&[what, INSTALLATION][..], &chart[..], &settings[..]].concat()).await.map(drop)
    }

    /// How many of our CRDs the API server has.
    pub async fn crds(&self) -> Result<usize> {
        let names = self.testbed.kubectl(&["get", "crd", "-o", "name"]).await?;
        Ok(names.lines().filter(|name| name.ends_with(".credentials.itwin.dev")).count())
    }

    /// The pods, including those that are terminating.
    async fn pods(&self) -> Result<Vec<Value>> {
        let arguments = ["get", "pods", "--namespace", INSTALLATION, "--selector", SELECTOR, "-o", "json"];
        let list: Value = serde_json::from_str(&self.testbed.kubectl(&arguments).await?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until as many pods as the Deployment asks for are Ready and no other pod exists; returns their names.
    pub async fn pods_ready(&mut self) -> Result<Vec<String>> {
        let replicas = "jsonpath={.items[0].spec.replicas}";
        let deployment = ["get", "deployment", "--namespace", INSTALLATION, "--selector", SELECTOR, "-o", replicas];
        let replicas: usize = self.testbed.kubectl(&deployment).await?.parse()?;
        let ready = eventually("pods that are Running and Ready", PATIENCE, async || {
            let pods = self.pods().await.ok()?;
            let names: Vec<String> = pods.iter().filter(|pod| is_ready(pod)).map(name).collect();
            (names.len() == replicas && pods.len() == replicas).then_some(names)
        });
        let names = match ready.await {
            Ok(names) => names,
            Err(error) => {
                let reported = self.testbed.kubectl(&["describe", "pods", "--namespace", INSTALLATION]).await?;
                return Err(error.context(reported));
            }
        };
        for name in &names {
            self.follow(name)?;
        }
        Ok(names)
    }

    fn follow(&mut self, pod: &str) -> Result<()> {
        if !self.logs.contains_key(pod) {
            let mut command = bound_to_us(&self.testbed.kubectl);
            command.arg("--kubeconfig").arg(&self.testbed.kubeconfig);
            command.args(["logs", "--follow", "--namespace", INSTALLATION, pod]);
            let process = Process::start(&format!("operator-{pod}"), command, &self.testbed.directory)?;
            self.logs.insert(pod.to_owned(), process);
        }
        Ok(())
    }

    /// Requests the metrics of the pod through the API server's proxy.
    async fn metrics(&self, pod: &Value) -> Result<String> {
        let ports = pod["spec"]["containers"][0]["ports"].as_array().cloned().unwrap_or_default();
        let port = ports.iter().find(|port| port["name"] == "metrics").context("no port for metrics")?;
        let path = format!(
            "/api/v1/namespaces/{INSTALLATION}/pods/{}:{}/proxy/metrics",
            name(pod),
            port["containerPort"].as_u64().unwrap_or_default()
        );
        // a pod that is gone does not respond, and the API server would wait for 30 s
        self.testbed.kubectl(&["get", "--raw", &path, "--request-timeout=2s"]).await
    }

    async fn metric(&self, pod: &Value, metric: &str) -> Result<i64> {
        let text = self.metrics(pod).await?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(metric));
        let value = line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no {metric}"))?;
        #[allow(clippy::cast_possible_truncation, reason = "bytes, and numbers as small as one")]
        Ok(value.parse::<f64>()? as i64)
    }

    /// Waits until exactly one of the pods reports that it leads; returns its name.
    pub async fn only_one_leads(&self) -> Result<String> {
        eventually("one pod that leads", PATIENCE, async || {
            let leaders = self.leaders().await.ok()?;
            assert!(leaders.len() < 2, "two lead: {leaders:?}");
            leaders.first().cloned()
        })
        .await
    }

    /// Waits until another pod than this one leads.
    pub async fn another_pod_leads(&self, than: &str) -> Result<()> {
        let what = "another pod that leads";
        eventually(what, PATIENCE, async || self.leaders().await.ok()?.iter().any(|name| name != than).then_some(()))
            .await
    }

    async fn leaders(&self) -> Result<Vec<String>> {
        let mut leaders = Vec::new();
        for pod in self.pods().await? {
            // a pod that terminates or starts may not respond
            if self.metric(&pod, "itwin_leader").await.is_ok_and(|leads| leads == 1) {
                leaders.push(name(&pod));
            }
        }
        Ok(leaders)
    }

    /// Deletes a pod without waiting for its end.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        self.testbed.kubectl(&["delete", "pod", pod, "--namespace", INSTALLATION, "--wait=false"]).await.map(drop)
    }

    /// Resident memory of each pod, in bytes.
    pub async fn memory(&self) -> Result<Vec<i64>> {
        let mut memory = Vec::new();
        for pod in self.pods().await? {
            memory.push(self.metric(&pod, "process_resident_memory_bytes").await?);
        }
        Ok(memory)
    }

    /// The service account of the pods.
    pub async fn account(&self) -> Result<String> {
        let pods = self.pods().await?;
        let account = pods.first().and_then(|pod| pod["spec"]["serviceAccountName"].as_str());
        account.map(str::to_owned).context("no pod")
    }
}

/// Enforces the restricted Pod Security Standard in this namespace.
pub async fn restrict(testbed: &Testbed, namespace: &str) -> Result<()> {
    let label = "pod-security.kubernetes.io/enforce=restricted";
    testbed.kubectl(&["label", "namespace", namespace, label]).await.map(drop)
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    ready && pod["status"]["phase"] == "Running"
}
