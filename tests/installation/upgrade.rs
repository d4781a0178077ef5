//! The upgrade from the last release to the working tree and the rollback, while tokens are renewed. Operators run
//! outside the cluster with the permissions, arguments and variables of the installed chart, and replace each other as
//! the pods of a rolling update do.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{
    INSTALLATION, Testbed, control_plane::ControlPlane, eventually, operator::Operator, project, setup,
    version::has_selectable_fields,
};

use crate::{
    PATIENCE, PROGRAM,
    fleet::{AUTHORITY, Fleet},
    last_release::LastRelease,
    observer::Observer,
};

/// The contract: an operator ends within 10 s of a SIGTERM; on a busy machine.
const ENDED: Duration = Duration::from_secs(15);
/// Arguments of the Deployment that the testbed sets for a process outside a pod.
const OF_A_POD: [&str; 5] = ["run", "--metrics-address=", "--log-format=", "--log-level=", "--state-dir="];
/// What the API server stores of a version of a CRD.
const PARTS: [&str; 4] = ["schema", "additionalPrinterColumns", "subresources", "selectableFields"];

/// A cluster with the chart, an operator and credentials.
struct Cluster {
    // stopped in this order
    operator: Operator,
    observer: Observer,
    fleet: Fleet,
    testbed: Testbed,
    /// The file with the values of the installation.
    values: String,
    _control_plane: ControlPlane,
}

/// Runs Helm for the release in its namespace, and waits.
async fn helm(testbed: &Testbed, arguments: &[&str]) -> Result<()> {
    let place = ["--namespace", INSTALLATION, "--wait", "--timeout", "60s"];
    testbed.helm(&[arguments, &place[..]].concat()).await.map(drop)
}

/// The chart in a source.
fn chart(source: &Path) -> String {
    source.join("charts").join(INSTALLATION).display().to_string()
}

/// The values of the installation: without pods, and with the authority of the testbed in place of the real one, which
/// no test may ever call.
fn write_values(testbed: &Testbed) -> Result<PathBuf> {
    let mut authority = testbed.authority.spec();
    // more than all credentials need
    authority["requestsPerMinute"] = json!(6000);
    let values = json!({"replicaCount": 0, "authorities": {"bentley-ims": null, AUTHORITY: authority}});
    let file = testbed.directory.join("values.json");
    std::fs::write(&file, values.to_string())?;
    Ok(file)
}

/// Starts an operator as a pod of the Deployment would run it, and waits until it is ready.
async fn start(testbed: &Testbed, program: &Path) -> Result<Operator> {
    let text = testbed.kubectl(&["--namespace", INSTALLATION, "get", "deployment", INSTALLATION, "-o", "json"]).await?;
    let deployment: Value = serde_json::from_str(&text)?;
    let pod = &deployment["spec"]["template"]["spec"];
    let account = pod["serviceAccountName"].as_str().context("no service account")?;
    setup::account_kubeconfig(testbed, INSTALLATION, account, &testbed.operator_kubeconfig).await?;
    let container = &pod["containers"][0];
    let arguments = container["args"].as_array().context("no arguments")?.iter().filter_map(Value::as_str);
    let mut arguments: Vec<&str> =
        arguments.filter(|argument| !OF_A_POD.iter().any(|start| argument.starts_with(start))).collect();
    ensure!(arguments.contains(&"--leader-election=true"), "{arguments:?}");
    // a pod has both: the namespace that it runs in, and a volume
    let lease = format!("--lease-namespace={INSTALLATION}");
    let journal = tempfile::tempdir_in(&testbed.directory)?.keep();
    let journal = format!("--state-dir={}", journal.display());
    arguments.extend([lease.as_str(), journal.as_str()]);
    let variables = container["env"].as_array().into_iter().flatten();
    let variables: Vec<(&str, &str)> =
        variables.filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?))).collect();
    Operator::start_with(testbed, program, "", &arguments, &variables).await
}

async fn leads(operator: &Operator) -> Result<()> {
    let leads = eventually("the Lease", PATIENCE, async || {
        operator.get("/metrics").await.ok().filter(|metrics| metrics.contains("itwin_leader 1\n")).map(drop)
    });
    leads.await.with_context(|| operator.process.log_tail())
}

/// A value in which equal numbers are equal, however they are written.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(canonical).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), canonical(value))).collect(),
        other => other.clone(),
    }
}

impl Cluster {
    /// Installs a release with credentials whose Secrets it has written.
    async fn new(release: &LastRelease) -> Result<Self> {
        let (control_plane, testbed) = setup::empty_control_plane(&Testbed::current()?, "upgrade").await?;
        let values = write_values(&testbed)?.display().to_string();
        let chart = chart(&release.source());
        helm(&testbed, &["install", INSTALLATION, &chart, "--create-namespace", "--values", &values]).await?;
        let operator = start(&testbed, &release.program()).await?;
        leads(&operator).await?;
        let observer = Observer::start(testbed.client().await?);
        let fleet = Fleet::new(&testbed, &observer).await.with_context(|| operator.process.log_tail())?;
        Ok(Self { operator, observer, fleet, testbed, values, _control_plane: control_plane })
    }

    async fn upgrade(&self, source: &Path) -> Result<()> {
        let chart = chart(source);
        helm(&self.testbed, &["upgrade", INSTALLATION, &chart, "--values", &self.values]).await.context("helm upgrade")
    }

    async fn roll_back(&self) -> Result<()> {
        helm(&self.testbed, &["rollback", INSTALLATION]).await.context("helm rollback")
    }

    /// Replaces the operator as a rolling update does: the new one becomes ready, then the old one has to end.
    async fn roll_out(&mut self, program: &Path) -> Result<()> {
        let next = start(&self.testbed, program).await?;
        let mut old = std::mem::replace(&mut self.operator, next);
        old.process.signal(Signal::SIGTERM);
        let ended = eventually("its end", ENDED, async || (!old.process.is_running()).then_some(())).await;
        ended.with_context(|| old.process.log_tail())?;
        let code = old.process.wait(ENDED);
        ensure!(code == Some(0), "it ended with {code:?}; {}", old.process.log_tail());
        leads(&self.operator).await
    }

    /// Fails unless the API server has the CRDs of a source.
    async fn check_crds(&self, source: &Path) -> Result<()> {
        let file = source.join("crds/credentials.itwin.dev.yaml");
        let crds: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(file)?)?;
        ensure!(crds.len() == 2, "{} CRDs", crds.len());
        let has_selectable_fields = has_selectable_fields(&self.testbed).await?;
        for crd in crds {
            let name = crd["metadata"]["name"].as_str().context("a CRD without a name")?;
            let live: Value = serde_json::from_str(&self.testbed.kubectl(&["get", "crd", name, "-o", "json"]).await?)?;
            let (live, wanted) = (&live["spec"]["versions"], &crd["spec"]["versions"]);
            let count = |versions: &Value| versions.as_array().map(Vec::len);
            ensure!(count(live) == Some(1) && count(wanted) == Some(1), "{name} has several versions");
            for part in PARTS.iter().filter(|part| has_selectable_fields || **part != "selectableFields") {
                let (live, wanted) = (canonical(&live[0][part]), canonical(&wanted[0][part]));
                ensure!(live == wanted, "{name}: {part} is not that of {}: {live}", source.display());
            }
        }
        Ok(())
    }

    /// Waits until this operator has renewed every short-lived token. Fails if any token was requested before it was
    /// due, or a Secret was without a valid one at any time.
    async fn check_credentials(&self) -> Result<()> {
        let log = || self.operator.process.log_tail();
        self.fleet.wait_renewed(&self.observer).await.with_context(log)?;
        self.fleet.wait_ready().await.with_context(log)?;
        self.fleet.requested_what_was_due().await?;
        self.observer.check()
    }
}

#[tokio::test]
async fn upgrade_from_the_last_release_and_rollback_keep_every_token() -> Result<()> {
    let Some(last) = LastRelease::find()? else {
        let why = "it is not built: `make last-release` needs the history of git";
        return Testbed::current()?.skip("the upgrade from the last release", why);
    };
    let mut cluster = Cluster::new(&last).await?;
    cluster.check_crds(&last.source()).await.context("after the installation")?;

    cluster.upgrade(&project()).await?;
    cluster.check_crds(&project()).await.context("after the upgrade")?;
    cluster.roll_out(Path::new(PROGRAM)).await.context("the upgrade")?;
    cluster.check_credentials().await.context("after the upgrade")?;

    // what users do under the new version
    cluster.fleet.add_later(&cluster.observer).await?;
    cluster.fleet.edit().await?;

    cluster.roll_back().await?;
    cluster.check_crds(&last.source()).await.context("after the rollback")?;
    cluster.roll_out(&last.program()).await.with_context(|| format!("the rollback to {}", last.version))?;
    cluster.check_credentials().await.context("after the rollback")?;
    ensure!(cluster.fleet.is_edited().await?, "an edit that was made under the new version is lost");
    Ok(())
}
