//! The commands of the documentation work: they run unchanged and in order, against their own cluster with a
//! running operator. They never call real authorities; the authority of the testbed replaces them.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

#[path = "../docs/markdown.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod markdown;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use serde_json::{Value, json};
use testbed::{INSTALLATION, Testbed, authority::Client, eventually, objects, operator::Operator, project, setup};
use tokio::process::Command;

use crate::markdown::{blocks, commands};

const PROGRAM: &str = env!("CARGO_BIN_EXE_itwin-credential-operator");

/// Commands that do not run, by their start, with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("docker push", "the testbed has no Docker"),
    ("kind load", "the testbed has no kind"),
    ("podman save", "the testbed has no Podman"),
    ("make ", "it would run this test, or build an image"),
    ("export RELEASE_REGISTRY", "the testbed has no registry"),
    ("cosign verify", "no release exists that could be verified"),
    ("helm pull oci:", "no release exists that could be verified"),
    ("helm install itwin-credential-operator oci:", "no release exists that could be installed"),
    ("cargo build", "it builds the operator again"),
    ("target/release/itwin-credential-operator run", "it would not end"),
    ("helm test", "the testbed runs no pod"),
    ("kubectl exec", "the testbed runs no pod"),
    ("kubectl --namespace itwin-credential-operator logs", "the testbed runs no pod"),
    ("openssl genpkey", "tests do not need OpenSSL; the file exists"),
    ("curl ", "it calls the iTwin Platform"),
    ("kubectl krew install", "no release exists; tests/cluster/apiserver/krew.rs installs an archive"),
    ("npx ", "it installs 600 packages"),
    ("openssl s_client -connect ims.bentley.com", "it calls a server of Bentley"),
];

/// The document that runs last, because it removes everything.
const LAST: &str = "docs/installation.md";
/// The documents that create the credential themselves.
const FROM_NOTHING: [&str; 2] = ["README.md", "docs/configuration.md"];
/// The document that starts with a wrong client Secret.
const BROKEN: &str = "docs/troubleshooting.md";
/// What a user with the role `edit` in the namespace runs, except what is for administrators: the sections of these
/// documents, or all of a document.
const OF_A_TEAM: [(&str, Option<&str>); 9] = [
    (BROKEN, None),
    ("README.md", Some("3. Create a credential")),
    ("README.md", Some("Check a credential")),
    ("docs/configuration.md", Some("The client Secret")),
    ("docs/configuration.md", Some("Credentials")),
    ("docs/configuration.md", Some("How workloads read the token")),
    ("docs/operating.md", Some("Renew now")),
    ("docs/operating.md", Some("Suspend")),
    ("docs/operating.md", Some("Rotate a client secret")),
];
/// The words of the sentence before commands for administrators.
const ADMINISTRATOR: &str = "s an administrator";
/// The resource that this role includes once the API server has aggregated it.
const CREDENTIALS: &str = "itwinservicecredentials.credentials.itwin.dev";
/// The user of [`OF_A_TEAM`].
const USER: &str = "someone-of-the-team";

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

/// One document with its own namespace.
struct Document {
    /// Its path in the project.
    name: String,
    text: String,
    namespace: String,
}

/// Where commands run: a copy of the files that they read, with the authority of the testbed instead of real ones.
struct Place {
    testbed: Testbed,
    client: Client,
    folder: PathBuf,
}

/// The documents that contain commands or objects, in the order in which they are tested.
fn documents() -> Vec<Document> {
    let mut documents: Vec<Document> = Vec::new();
    for file in markdown::files(&project()) {
        let text = std::fs::read_to_string(&file).expect("readable");
        if blocks(&text).iter().any(|block| matches!(block.language.as_str(), "console" | "yaml")) {
            let name = file.strip_prefix(project()).expect("within the project").display().to_string();
            let namespace = format!("docs-{}", documents.len());
            documents.push(Document { name, text, namespace });
        }
    }
    documents.sort_by_key(|document| document.name == LAST);
    documents
}

impl Place {
    async fn new(testbed: Testbed) -> Result<Self> {
        let client = Client::new("service-abc");
        testbed.authority.register(&client).await?;
        let folder = testbed.directory.join("documentation");
        std::fs::create_dir_all(folder.join("bin"))?;
        for part in ["charts", "crds", "examples"] {
            copy(&project().join(part), &folder.join(part))?;
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

    async fn run(&self, document: &Document, text: &str) -> Result<(bool, String)> {
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
    async fn bind(&self, document: &Document) -> Result<()> {
        let namespace = ["--namespace", &document.namespace];
        let user = format!("--user={USER}");
        let bind = [&namespace[..], &["create", "rolebinding", "team", "--clusterrole=edit", &user]].concat();
        self.testbed.kubectl(&bind).await?;
        let may = [&namespace[..], &["auth", "can-i", "create", CREDENTIALS, "--as", USER]].concat();
        eventually("the role of the user", PATIENCE, async || self.testbed.kubectl(&may).await.ok()).await.map(drop)
    }

    /// Creates what a reader of this document has before its first command.
    async fn prepare(&self, document: &Document) -> Result<()> {
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
    async fn try_command(&self, document: &Document, command: &markdown::Command, user: Option<&str>) -> Result<()> {
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
    async fn no_client_secret_in_metadata(&self, documents: &[Document]) -> Result<()> {
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
    async fn try_yaml(&self, document: &Document) -> Result<()> {
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

/// The production environment, which the chart names.
const ISSUER: &str = "https://ims.bentley.com";

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Whether a line is in the output. Words with a digit may differ: times, ages, numbers. A line of nothing but numbers
/// and durations is what the command is about, and may not.
fn is_shown(line: &str, printed: &str) -> bool {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = words(line);
    let is_exact = line.iter().all(|word| is_measure(word));
    let same = |shown: &String, is: &String| shown == is || (!is_exact && shown.contains(|c: char| c.is_ascii_digit()));
    printed
        .lines()
        .map(words)
        .any(|is| is.len() == line.len() && line.iter().zip(&is).all(|(shown, is)| same(shown, is)))
}

/// Whether a word is a number or a duration.
fn is_measure(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < word.len() && ["", "ms", "s", "m", "h"].contains(&unit)
}

/// Whether a user of the namespace runs the commands of a block, and the entry of [`OF_A_TEAM`] that says so.
fn of_a_team(document: &Document, block: &markdown::Block) -> Option<(&'static str, Option<&'static str>)> {
    // the line of a block is that after its fence
    let before: Vec<&str> = document.text.lines().take(block.line.saturating_sub(2)).collect();
    let (_, section) = markdown::headings(&before.join("\n")).pop()?;
    let of_it = |(name, of): &&(&str, Option<&str>)| *name == document.name && of.is_none_or(|of| of == section);
    OF_A_TEAM.iter().find(of_it).copied().filter(|_| !is_for_administrators(document, block))
}

/// Whether the sentence before a block says that it is for administrators.
fn is_for_administrators(document: &Document, block: &markdown::Block) -> bool {
    // the line of a block is that after its fence
    let before: Vec<&str> = document.text.lines().take(block.line.saturating_sub(2)).collect();
    let paragraph: Vec<&str> =
        before.iter().rev().skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).copied().collect();
    paragraph.into_iter().rev().collect::<Vec<_>>().join(" ").contains(ADMINISTRATOR)
}

fn reason_not_to_run(command: &str) -> Option<&'static str> {
    NOT_RUN.iter().map(|(begins, _)| *begins).find(|begins| command.starts_with(begins))
}

#[test]
fn output_is_compared_word_by_word_except_numbers() {
    assert!(is_shown("a  True 5s", "x\na True 17s\n"));
    assert!(!is_shown("a True 5s", "a False 5s"));
    assert!(!is_shown("a True", "a True 5s"));
    assert!(is_shown("300 8", "300 8"));
    for (shown, printed) in [("300 8", "300 9"), ("0", "1"), ("5s 10s", "5s 20s")] {
        assert!(!is_shown(shown, printed), "{shown}");
    }
}

#[tokio::test]
async fn documented_commands_work() -> Result<()> {
    let (_control_plane, testbed) = setup::own_control_plane(&Testbed::current()?, "documentation").await?;
    let place = Place::new(testbed).await?;
    let documents = documents();
    for document in &documents {
        place.testbed.kubectl(&["create", "namespace", &document.namespace]).await?;
    }
    let namespaces: Vec<&str> = documents.iter().map(|document| document.namespace.as_str()).collect();
    let election = ["--leader-election=true", "--lease-namespace", INSTALLATION];
    let _operator = Operator::start(&place.testbed, Path::new(PROGRAM), &namespaces.join(","), &election).await?;

    // as the first document does it, for documents that run before it
    let install = "helm upgrade --install --reset-values itwin-credential-operator charts/itwin-credential-operator \
                   --namespace itwin-credential-operator --wait";
    let (ended_well, printed) = place.run(&documents[0], install).await?;
    ensure!(ended_well, "{printed}");

    let mut left_out = BTreeSet::new();
    let (mut run, mut wrong) = (0, Vec::new());
    let mut as_user = Vec::new();
    for document in &documents {
        if OF_A_TEAM.iter().any(|(name, _)| *name == document.name) {
            place.bind(document).await.with_context(|| document.name.clone())?;
        }
        place.prepare(document).await.with_context(|| document.name.clone())?;
        place.try_yaml(document).await?;
        for block in blocks(&document.text).iter().filter(|block| block.language == "console") {
            let of_a_team = of_a_team(document, block);
            as_user.extend(of_a_team);
            let user = of_a_team.map(|_| USER);
            for command in commands(block) {
                if let Some(begins) = reason_not_to_run(&command.text) {
                    left_out.insert(begins);
                    continue;
                }
                run += 1;
                if let Err(error) = place.try_command(document, &command, user).await {
                    wrong.push(format!("{}:{}: {}\n{error:#}", document.name, command.line, command.text));
                }
            }
        }
    }
    eprintln!("{run} commands of {} documents ran, {} of them not as documented", documents.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(as_user.len() > 20, "the user of a namespace runs {as_user:?}");
    for part in &OF_A_TEAM {
        assert!(as_user.contains(part), "the user of a namespace runs nothing of {part:?}");
    }
    place.no_client_secret_in_metadata(&documents).await?;
    let stale: Vec<&str> = NOT_RUN.iter().map(|(begins, _)| *begins).filter(|name| !left_out.contains(name)).collect();
    assert!(stale.is_empty(), "no command starts with {stale:?}");
    Ok(())
}
