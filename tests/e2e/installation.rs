//! The operator's installation, as an administrator does and checks it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{
    INSTALLATION, Testbed, eventually,
    node::runtime::Runtime,
    process::{Process, bound_to_us},
    project,
};

use crate::PATIENCE;

/// The image, under a name that no registry serves.
const IMAGE: &str = "localhost/itwin-credential-operator";
/// The version after this one, which is released: its chart names the image by its digest alone.
const NEXT: &str = "99.0.0";
const SELECTOR: &str = "app.kubernetes.io/name=itwin-credential-operator";

pub struct Installation {
    pub testbed: Testbed,
    charts: PathBuf,
    current: PathBuf,
    values: PathBuf,
    /// The values that a released chart needs, which names its image itself.
    settings: Value,
    /// The processes that follow the pods' logs, which are scanned for secrets in the end.
    logs: BTreeMap<String, Process>,
}

impl Installation {
    /// Prepares two versions of chart and image, and a namespace for pods without privileges on the node.
    pub async fn prepare(testbed: &Testbed, archive: &Path) -> Result<Self> {
        let runtime = testbed.runtime.as_ref().context("there is no node: run this by `make e2e`")?;
        runtime.import(archive).await?;
        let current = project().join("charts").join(INSTALLATION);
        tag(runtime, &chart_field(&current, "appVersion")?).await?;
        testbed.kubectl(&["create", "namespace", INSTALLATION]).await?;
        restrict(testbed, INSTALLATION).await?;
        let values = testbed.directory.join("values.json");
        // the default authority of credentials; it is limited to namespaces, as administrators do
        let authority = json!({
            "issuer": testbed.authority.issuer,
            "caBundle": testbed.authority.ca_bundle(),
            "allowedNamespaces": {"matchLabels": {"itwin": "allowed"}},
        });
        let settings = json!({"authorities": {"bentley-ims": authority}});
        let mut first = settings.clone();
        first["image"] = json!({"repository": IMAGE});
        std::fs::write(&values, first.to_string())?;
        let charts = testbed.directory.join("next");
        Ok(Self { testbed: testbed.clone(), charts, current, values, settings, logs: BTreeMap::new() })
    }

    pub async fn install(&self) -> Result<()> {
        self.helm("install").await
    }

    /// `helm test`, as an administrator runs it after an installation.
    pub async fn test(&self) -> Result<()> {
        let output = self.testbed.helm(&["test", INSTALLATION, "--namespace", INSTALLATION, "--timeout", "2m"]).await?;
        ensure!(output.contains("Succeeded"), "{output}");
        Ok(())
    }

    /// Upgrades to the next version of the chart, made as for a release, with `helm upgrade`.
    pub async fn upgrade(&mut self) -> Result<()> {
        let runtime = self.testbed.runtime.as_ref().context("there is no node")?;
        let digest = tag_by_digest(runtime).await?;
        let next = self.charts.join(INSTALLATION);
        copy(&self.current, &next)?;
        let text = std::fs::read_to_string(next.join("Chart.yaml"))?;
        let newer = |line: &str| match line.split_once(':') {
            Some((field @ ("version" | "appVersion"), _)) => format!("{field}: {NEXT}\n"),
            _ => format!("{line}\n"),
        };
        std::fs::write(next.join("Chart.yaml"), text.lines().map(newer).collect::<String>())?;
        release(&next, &digest).await?;
        std::fs::write(&self.values, self.settings.to_string())?;
        self.current = next;
        self.helm("upgrade").await?;
        // only the name of the image shows the version of a pod
        let wanted = format!("{IMAGE}@{digest}");
        eventually("pods of the new version alone", PATIENCE, async || {
            let pods = self.pods().await.ok()?;
            let new = |pod: &Value| pod["spec"]["containers"][0]["image"] == wanted.as_str();
            (!pods.is_empty() && pods.iter().all(new)).then_some(())
        })
        .await
    }

    pub async fn uninstall(&self) -> Result<()> {
        self.testbed.helm(&["uninstall", INSTALLATION, "--namespace", INSTALLATION, "--wait"]).await?;
        eventually("the deletion of its pods", PATIENCE, async || self.pods().await.ok()?.is_empty().then_some(()))
            .await
    }

    async fn helm(&self, what: &str) -> Result<()> {
        let [chart, values] = [&self.current, &self.values].map(|path| path.to_str().unwrap());
        let arguments = [what, INSTALLATION, chart, "--namespace", INSTALLATION, "--values", values];
        self.testbed.helm(&arguments).await.map(drop)
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

/// Gives the imported image the tag of this version.
async fn tag(runtime: &Runtime, version: &str) -> Result<()> {
    let (imported, _) = imported(runtime).await?;
    let wanted = format!("{IMAGE}:{version}");
    if imported == wanted { Ok(()) } else { runtime.tag(&imported, &wanted).await }
}

/// Gives the imported image its digest as a name, as a pull by digest does, and returns the digest.
async fn tag_by_digest(runtime: &Runtime) -> Result<String> {
    let (imported, digest) = imported(runtime).await?;
    runtime.tag(&imported, &format!("{IMAGE}@{digest}")).await?;
    Ok(digest)
}

/// The name and the digest of the imported image.
async fn imported(runtime: &Runtime) -> Result<(String, String)> {
    let table = runtime.ctr(&["images", "list"]).await?;
    let line = table.lines().find(|line| line.starts_with(IMAGE)).context("no image was imported")?;
    let mut columns = line.split_whitespace();
    let name = columns.next().context("no name")?;
    let digest = columns.find(|column| column.starts_with("sha256:")).with_context(|| format!("no digest: {line}"))?;
    Ok((name.to_owned(), digest.to_owned()))
}

/// Makes a copy of the chart that of a release, by the script of releases.
async fn release(chart: &Path, digest: &str) -> Result<()> {
    let mut command = tokio::process::Command::new("node");
    command.arg(project().join("charts/release-chart.mjs")).arg(chart).args([IMAGE, NEXT, digest, "amd64"]);
    let done = command.output().await?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

fn chart_field(chart: &Path, field: &str) -> Result<String> {
    let text = std::fs::read_to_string(chart.join("Chart.yaml"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = value.with_context(|| format!("the chart has no {field}"))?;
    Ok(value.trim().trim_matches('"').to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    ensure!(from != to, "a folder cannot be copied to itself");
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    ready && pod["status"]["phase"] == "Running"
}
