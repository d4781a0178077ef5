//! The place where the commands run, with what a reader of a document has before its first command.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use serde_json::{Value, json};
use testbed::{Testbed, authority::Client, copy_directory, eventually, objects, project};
use tokio::process::Command;

use crate::{
    PROGRAM,
    documents::{BROKEN, Document, FROM_NOTHING, USER},
    markdown::{self, blocks},
    output::is_shown,
};

/// The production environment, which the chart names.
const ISSUER: &str = "https://ims.bentley.com";
/// The resource that the role `edit` includes once the API server has aggregated it.
const CREDENTIALS: &str = "itwinservicecredentials.credentials.itwin.dev";

/// Commands that only read. They are repeated until they print what the document shows.
const READING: [&str; 7] = [
    "kubectl get",
    "kubectl describe",
    "kubectl events",
    "kubectl wait",
    "kubectl auth",
    "kubectl itcred status",
    "kubectl itcred check",
];
/// The time limit for these repetitions.
const PATIENCE: Duration = Duration::from_secs(40);
/// The time limit of one command.
const LIMIT: Duration = Duration::from_secs(120);

/// Where commands run: a copy of the files that they read, with the authority of the testbed instead of real ones.
pub struct Place {
    pub testbed: Testbed,
    client: Client,
    folder: PathBuf,
}

impl Place {
    pub async fn new(testbed: Testbed) -> Result<Self> {
        let client = Client::new("service-abc");
        testbed.authority.register(&client).await?;
        let folder = testbed.directory.join("documentation");
        std::fs::create_dir_all(folder.join("bin"))?;
        for part in ["charts", "crds", "examples"] {
            copy_directory(&project().join(part), &folder.join(part))?;
        }
        std::os::unix::fs::symlink(&testbed.kubectl, folder.join("bin/kubectl"))?;
        std::os::unix::fs::symlink(&testbed.helm, folder.join("bin/helm"))?;
        let plugin = Path::new(PROGRAM).with_file_name("kubectl-itcred");
        ensure!(plugin.exists(), "{} does not exist: cargo build --workspace", plugin.display());
        std::os::unix::fs::symlink(plugin, folder.join("bin/kubectl-itcred"))?;
        std::fs::write(folder.join("client.key"), "the private key that a command of the documentation makes")?;
        // the same secret again: the authority has one for the client of all documents, and tests of their own use another
        std::fs::write(folder.join("new-client-secret"), &client.client_secret)?;
        let place = Self { testbed, client, folder };
        for file in [
            "examples/authority.yaml",
            "examples/authority-qa.yaml",
            "examples/single-namespace/authority.yaml",
            "charts/itwin-credential-operator/values.yaml",
        ] {
            let file = place.folder.join(file);
            let text = std::fs::read_to_string(&file)?;
            // no pod would run
            let text = text.replace("replicaCount: 2", "replicaCount: 0");
            let trust = format!(", caBundle: \"{}\"}}", place.testbed.authority.ca_bundle());
            let trusted = format!(
                "issuer: {}\n  caBundle: {}\n",
                place.testbed.authority.issuer,
                place.testbed.authority.ca_bundle()
            );
            let text = text.replace("issuer: https://ims.example.com\n", &trusted);
            let text = text.replace(r#"issuer: "https://ims.bentley.com"}"#, &format!("issuer: \"{ISSUER}\"{trust}"));
            std::fs::write(&file, place.replaced(&text))?;
        }
        Ok(place)
    }

    /// A text with the authority and client of the testbed instead of others.
    fn replaced(&self, text: &str) -> String {
        let issuer = &self.testbed.authority.issuer;
        text.replace(ISSUER, issuer)
            .replace("https://ims.example.com", issuer)
            .replace("https://qa-ims.bentley.com", issuer)
            .replace("client_secret=...", &format!("client_secret={}", self.client.client_secret))
    }

    /// The command that runs instead of the documented one.
    fn command(&self, document: &Document, text: &str) -> String {
        // the testbed has already installed the chart, with its own values
        let text = text.replace("helm install ", "helm upgrade --install --reset-values ");
        let text = text.replace("NAMESPACE ", &format!("{} ", document.namespace)).replace(" NAME ", " render-agent ");
        self.replaced(&text)
    }

    /// Runs a command in a shell, as the administrator or a user. Returns whether it succeeded, and its output.
    async fn run_as(&self, document: &Document, text: &str, user: Option<&str>) -> Result<(bool, String)> {
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("set -euo pipefail\n{text}")).current_dir(&self.folder).kill_on_drop(true);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.folder.join("bin").display()));
        command.env("KUBECONFIG", self.kubeconfig(&document.namespace, user)?);
        // do not read or write files of the user
        command.env("HOME", &self.folder).env("KUBECACHEDIR", self.testbed.directory.join("kubectl"));
        let output = tokio::time::timeout(LIMIT, command.output()).await.context("it takes too long")??;
        let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            printed.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        // `kubectl auth can-i` also reports "no" with its exit code
        Ok((output.status.success() || text.starts_with("kubectl auth can-i"), printed))
    }

    pub async fn run(&self, document: &Document, text: &str) -> Result<(bool, String)> {
        self.run_as(document, text, None).await
    }

    /// A kubeconfig whose context has this namespace, and impersonates a user.
    fn kubeconfig(&self, namespace: &str, user: Option<&str>) -> Result<PathBuf> {
        let file = self.folder.join(format!("{namespace}-{}.kubeconfig", user.unwrap_or("administrator")));
        if !file.exists() {
            let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&self.testbed.kubeconfig)?)?;
            objects::merge(&mut config["contexts"][0]["context"], &json!({"namespace": namespace}));
            if let Some(user) = user {
                objects::merge(&mut config["users"][0]["user"], &json!({"as": user}));
            }
            std::fs::write(&file, config.to_string())?;
        }
        Ok(file)
    }

    /// Gives the user the role `edit` in the namespace of a document.
    pub async fn bind(&self, document: &Document) -> Result<()> {
        let namespace = ["--namespace", &document.namespace];
        let user = format!("--user={USER}");
        let bind = [&namespace[..], &["create", "rolebinding", "team", "--clusterrole=edit", &user]].concat();
        self.testbed.kubectl(&bind).await?;
        let may = [&namespace[..], &["auth", "can-i", "create", CREDENTIALS, "--as", USER]].concat();
        eventually("the role of the user", PATIENCE, async || self.testbed.kubectl(&may).await.ok()).await.map(drop)
    }

    /// Creates what a reader of this document has before its first command.
    pub async fn prepare(&self, document: &Document) -> Result<()> {
        if FROM_NOTHING.contains(&document.name.as_str()) {
            return Ok(());
        }
        let secret = if document.name == BROKEN { "something wrong" } else { &self.client.client_secret };
        let spec = json!({"authorityRef": null, "secretName": "render-agent-token"});
        let items = [
            objects::client_secret("render-agent-client", &self.client.client_id, secret),
            objects::credential("render-agent", "", "render-agent-client", &spec),
        ];
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let namespace = ["--namespace", &document.namespace];
        let apply = [&namespace[..], &["create", "-f", "-"]].concat();
        self.testbed.kubectl_with(&apply, Some(&objects.to_string())).await?;
        let condition = if document.name == BROKEN { "condition=Ready=False" } else { "condition=Ready" };
        let wait = ["wait", &format!("--for={condition}"), "itcred/render-agent", "--timeout=30s"];
        self.testbed.kubectl(&[&namespace[..], &wait].concat()).await.map(drop)
    }

    /// Runs one command of a document and compares its output with the documented one.
    pub async fn try_command(
        &self,
        document: &Document,
        command: &markdown::Command,
        user: Option<&str>,
    ) -> Result<()> {
        let text = self.command(document, &command.text);
        let shown: Vec<String> = command
            .output
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| self.replaced(&line.replace("team-a", &document.namespace)))
            .collect();
        let started = Instant::now();
        loop {
            let (ended_well, printed) = self.run_as(document, &text, user).await?;
            let missing: Vec<&String> = shown.iter().filter(|line| !is_shown(line, &printed)).collect();
            if ended_well && missing.is_empty() {
                return Ok(());
            }
            let only_reads = READING.iter().any(|start| text.starts_with(start)) && !text.contains("| kubectl");
            if !only_reads || started.elapsed() > PATIENCE {
                bail!("it printed:\n{printed}\nmissing: {missing:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The documented commands copy no client secret into an annotation of the Secret that holds it.
    pub async fn no_client_secret_in_metadata(&self, documents: &[Document]) -> Result<()> {
        let encoded = base64::engine::general_purpose::STANDARD.encode(&self.client.client_secret);
        let mut checked = 0;
        for document in documents.iter().filter(|document| document.text.contains("kubectl create secret generic")) {
            let get = ["--namespace", &document.namespace, "get", "secrets", "--show-managed-fields", "-o", "json"];
            let list: Value = serde_json::from_str(&self.testbed.kubectl(&get).await?)?;
            for secret in list["items"].as_array().into_iter().flatten() {
                let metadata = secret["metadata"].to_string();
                let name = &secret["metadata"]["name"];
                ensure!(!metadata.contains(&encoded), "{}: the metadata of {name} hold a client secret", document.name);
                ensure!(!metadata.contains(&self.client.client_secret), "{}: {name}", document.name);
                checked += usize::from(secret["data"]["client_secret"] == encoded.as_str());
            }
        }
        ensure!(checked > 2, "only {checked} client Secrets");
        Ok(())
    }

    /// Checks that the API server accepts the objects, and the chart the values.
    pub async fn try_yaml(&self, document: &Document) -> Result<()> {
        for block in blocks(&document.text).iter().filter(|block| block.language == "yaml") {
            let place = || format!("{}:{} is rejected", document.name, block.line);
            let text = self.replaced(&block.text);
            if text.contains("apiVersion: ") {
                // the authority of the chart exists already
                let text = text.replace("name: bentley-ims\nspec", "name: another\nspec");
                let dry_run = ["--namespace", &document.namespace, "create", "--dry-run=server", "-f", "-"];
                self.testbed.kubectl_with(&dry_run, Some(&text)).await.with_context(place)?;
            } else if text.starts_with("# values") {
                std::fs::write(self.folder.join("values.yaml"), text)?;
                let render =
                    "helm template itwin-credential-operator charts/itwin-credential-operator --values values.yaml";
                let (accepted, said) = self.run(document, render).await?;
                ensure!(accepted, "{}: {said}", place());
            }
        }
        Ok(())
    }
}
