//! The documentation matches the code: reasons, links, objects, flags, variables, metrics, values, tests, terms. No server
//! is needed; tests/documentation runs its commands.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod chart_values;
mod commands;
mod examples;
mod images;
mod markdown;
mod metrics;
mod promises;
mod reference;
mod resources;
mod rotation;
mod variables;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::CommandFactory;
use itwin_api::conditions::Reason;
use itwin_credential_operator::config::args::Cli;
use serde_json::Value;

/// The longest line of prose.
const WIDTH: usize = 120;

/// Flags of other programs that are alone in a code span.
const FLAGS_OF_OTHERS: [&str; 18] = [
    // kubectl
    "namespace",
    "all-namespaces",
    "dry-run",
    "from-file",
    "sort-by",
    // Helm
    "wait",
    "skip-tests",
    "take-ownership",
    "no-hooks",
    "server-side",
    "reset-then-reuse-values",
    "force-conflicts",
    "rollback-on-failure",
    // cosign
    "key",
    "insecure-ignore-tlog",
    // kube-state-metrics
    "custom-resource-state-config-file",
    // kind
    "name",
    // kube-apiserver
    "encryption-provider-config",
];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: impl AsRef<Path>) -> String {
    std::fs::read_to_string(file.as_ref()).expect("the file is there")
}

/// Every Markdown file, by its path in the project.
fn documents() -> BTreeMap<PathBuf, String> {
    let files = markdown::files(project()).into_iter();
    files.map(|file| (file.strip_prefix(project()).expect("within").to_path_buf(), read(&file))).collect()
}

/// Fails with all problems, not only with the first.
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn api_reference_is_current() {
    let file = project().join("docs/api-reference.md");
    let wanted = reference::document();
    if std::env::var_os("WRITE_API_REFERENCE").is_some() {
        std::fs::write(&file, &wanted).expect("written");
    }
    let is = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(is == wanted, "docs/api-reference.md is stale: run `make generate`");
}

#[test]
fn every_reason_is_explained_and_every_explanation_has_its_reason() {
    let text = read(project().join("docs/troubleshooting.md"));
    let section = text.split("\n## ").find(|section| section.starts_with("Reasons\n")).expect("## Reasons");
    let explained: Vec<String> =
        markdown::headings(section).into_iter().filter(|(level, _)| *level == 3).map(|(_, words)| words).collect();
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let documented: BTreeSet<&str> = explained.iter().map(String::as_str).collect();
    assert_eq!(documented, reasons);
    assert_eq!(explained.len(), documented.len(), "a reason is explained twice");
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let mut wrong = Vec::new();
    for (file, text) in &documents {
        for link in markdown::links(text).iter().filter(|link| !link.contains("://")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { file.clone() } else { normal(&file.parent().unwrap_or(Path::new("")).join(path)) };
            if !project().join(&target).exists() {
                wrong.push(format!("{}: {link} does not exist", file.display()));
            } else if !fragment.is_empty() {
                let text = documents.get(&target).map_or("", String::as_str);
                let anchors = markdown::headings(text).into_iter().map(|(_, words)| markdown::anchor(&words));
                if !anchors.into_iter().any(|anchor| anchor == fragment) {
                    wrong.push(format!("{}: {link} has no such heading", file.display()));
                }
            }
        }
    }
    none(&wrong);
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path {
        if part == ".." {
            normal.pop();
        } else if part != "." {
            normal.push(part);
        }
    }
    normal
}

#[test]
fn lines_of_prose_are_short() {
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        for (number, line) in markdown::prose(&text).lines().enumerate() {
            if line.chars().count() > WIDTH && !line.trim_start().starts_with('|') && !line.contains("](") {
                wrong.push(format!("{}:{} is longer than {WIDTH}", file.display(), number + 1));
            }
        }
    }
    none(&wrong);
}

/// The YAML of all documents: its place, and each object in it.
fn yaml() -> Vec<(String, String, Vec<Value>)> {
    let mut found = Vec::new();
    for (file, text) in documents() {
        let blocks = markdown::blocks(&text);
        let written = blocks.iter().filter(|block| block.language == "yaml").map(|block| (block.line, &block.text));
        let mut texts: Vec<(usize, String)> = written.map(|(line, text)| (line, text.clone())).collect();
        for block in blocks.iter().filter(|block| block.language == "console") {
            for command in markdown::commands(block) {
                let here = command.text.split_once("<<").and_then(|(_, rest)| rest.split_once('\n'));
                let here = here.and_then(|(_, rest)| rest.rsplit_once('\n'));
                texts.extend(here.map(|(text, _)| (command.line, text.to_owned())));
            }
        }
        for (line, text) in texts {
            let place = format!("{}:{line}", file.display());
            let objects = serde_saphyr::from_multiple(&text);
            let objects = objects.unwrap_or_else(|error| panic!("{place} is no YAML: {error}"));
            found.push((place, text, objects));
        }
    }
    found
}

#[test]
fn flags_and_variables_exist() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("run");
    let flags: BTreeSet<&str> = run.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let variables: BTreeSet<String> = run
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let mut wrong = Vec::new();
    // the page of the plugin names the plugin's flags: its own tests check them
    let of_plugin = std::path::Path::new("docs/kubectl-itcred.md");
    for (file, text) in documents().into_iter().filter(|(file, _)| file != of_plugin) {
        for span in markdown::code_spans(&text) {
            // a flag of the operator is alone or follows the name of the program; those of kubectl and Helm follow
            // theirs
            let is_alone = span.starts_with("--");
            if is_alone || span.starts_with("itwin-credential-operator run") {
                let named = span.split_whitespace().filter_map(|word| word.strip_prefix("--"));
                let named = named.map(|flag| flag.split('=').next().unwrap_or_default());
                let unknown =
                    named.filter(|flag| !flags.contains(flag) && *flag != "help" && !FLAGS_OF_OTHERS.contains(flag));
                wrong.extend(unknown.map(|flag| format!("{}: there is no flag --{flag}", file.display())));
            }
        }
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named = words.filter(|word| word.starts_with("ITWIN_OPERATOR_") && *word != "ITWIN_OPERATOR_");
        let unknown = named.filter(|word| !variables.contains(*word));
        wrong.extend(unknown.map(|name| format!("{}: there is no variable {name}", file.display())));
    }
    none(&wrong);
}
