//! The documents with commands: in which order they are tested, which commands run, and as whom.

use testbed::project;

use crate::markdown::{self, blocks};

/// Commands that do not run, by their start, with the reason.
pub const NOT_RUN: &[(&str, &str)] = &[
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
pub const FROM_NOTHING: [&str; 2] = ["README.md", "docs/configuration.md"];
/// The document that starts with a wrong client Secret.
pub const BROKEN: &str = "docs/troubleshooting.md";
/// What a user with the role `edit` in the namespace runs, except what is for administrators: the sections of these
/// documents, or all of a document.
pub const OF_A_TEAM: [(&str, Option<&str>); 9] = [
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
/// The user of [`OF_A_TEAM`].
pub const USER: &str = "someone-of-the-team";

/// One document with its own namespace.
pub struct Document {
    /// Its path in the project.
    pub name: String,
    pub text: String,
    pub namespace: String,
}

/// The documents that contain commands or objects, in the order in which they are tested.
pub fn documents() -> Vec<Document> {
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

/// Whether a user of the namespace runs the commands of a block, and the entry of [`OF_A_TEAM`] that says so.
pub fn of_a_team(document: &Document, block: &markdown::Block) -> Option<(&'static str, Option<&'static str>)> {
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

pub fn reason_not_to_run(command: &str) -> Option<&'static str> {
    NOT_RUN.iter().map(|(begins, _)| *begins).find(|begins| command.starts_with(begins))
}
