//! The words that this project does not use do not come back. The list, with the replacements, is that of the prose
//! linter: `tools/vale/styles/Project/Words.yml`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{markdown, none, project, read};

/// The list.
const WORDS: &str = "tools/vale/styles/Project/Words.yml";

/// Words that are ambiguous in prose and not in code, each with its replacement.
const WORDS_OF_CODE: &[(&str, &str)] = &[
    ("subject", "credential, or what exactly is meant (`sub` is in a JWT, subjects are those of RBAC)"),
    ("epoch", "revision"),
    ("gather", "observe"),
    ("doubt", "invalidate"),
    ("wake", "enqueue"),
    ("proven", "verified"),
    ("damaged", "tampered"),
];
/// Phrases of the list that are matters of style, so code may use them.
const STYLE: &[&str] = &["at once", "whatever", "listing", "listings", "by hand", "hand edit", "hand edits"];

/// Documentation and configuration: files and folders that are checked as prose.
const PROSE: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "ADOPTERS.md",
    "CODE_OF_CONDUCT.md",
    "GOVERNANCE.md",
    "MAINTAINERS.md",
    "RELEASING.md",
    "ROADMAP.md",
    "security-insights.yml",
    ".github",
    "docs",
    "examples",
    "charts/itwin-credential-operator",
    "tests/alerts",
    "Makefile",
    "scripts",
];
/// Generated from code, so checked with it.
const GENERATED: &[&str] = &["docs/api-reference.md", "charts/itwin-credential-operator/files/crds.yaml"];

/// Code: files and folders in which comments, texts and the parts of identifiers are checked. Once all code is clean:
/// `&["src", "crates", "tests", "benches", "fuzz/fuzz_targets", "fuzz/src", "crds", "docs/api-reference.md",
/// "CHANGELOG.md"]`. Of the tests, `tests/disruption/crds.rs` waits for a message of the operator that it compares with.
const CODE: &[&str] = &[
    "benches",
    "crates/api",
    "crates/core/src/backoff.rs",
    "crates/core/src/conflict.rs",
    "crates/core/src/contenders.rs",
    "crates/core/src/fingerprint.rs",
    "crates/core/src/ownership",
    "crates/core/src/ownership.rs",
    "crates/core/src/requests",
    "crates/core/src/schedule.rs",
    "crates/core/src/suspects.rs",
    "crates/core/src/template",
    "crates/core/src/template.rs",
    "crds",
    "docs/api-reference.md",
    "fuzz/fuzz_targets",
    "fuzz/src",
    "src/clock.rs",
    "src/cluster.rs",
    "src/config",
    "src/journal",
    "src/journal.rs",
    "src/lib.rs",
    "src/liveness.rs",
    "src/main.rs",
    "src/metrics",
    "src/observe",
    "src/restores.rs",
    "src/runtime/admin.rs",
    "src/runtime/bodies.rs",
    "src/runtime/client.rs",
    "src/runtime/loops.rs",
    "src/runtime/mod.rs",
    "src/runtime/pages.rs",
    "src/runtime/ready.rs",
    "tests/chart",
    "tests/chart.rs",
    "tests/cluster/account.rs",
    "tests/cluster/apiserver",
    "tests/cluster/audit.rs",
    "tests/cluster/converge",
    "tests/cluster/faults",
    "tests/cluster/fixture.rs",
    "tests/cluster/main.rs",
    "tests/cluster/plugin_program.rs",
    "tests/cluster/world.rs",
    "tests/crds.rs",
    "tests/disruption/cluster.rs",
    "tests/disruption/large.rs",
    "tests/disruption/lint.rs",
    "tests/disruption/main.rs",
    "tests/disruption/many.rs",
    "tests/disruption/memory.rs",
    "tests/disruption/outage.rs",
    "tests/docs",
    "tests/documentation.rs",
    "tests/e2e",
    "tests/gitops.rs",
    "tests/hostile",
    "tests/monitoring.rs",
    "tests/packaging",
    "crates/kubectl-itcred",
    "crates/simulated-api",
    "tests/simulation",
    "crates/testbed",
    "tests/tenants",
    "tests/tidy.rs",
];
/// Names of others.
const NAMES: &[&str] = &["subject_alt_names", "registry.gather", "SelfSubjectRulesReview", "UNIX_EPOCH"];
/// Files that must name the words.
const EXEMPT: &[&str] = &["tests/docs/words.rs"];

/// A word of a text, in lower case, and its line, from 1.
type Word = (String, usize);

/// The banned phrases, as words, with their replacements.
fn banned() -> BTreeMap<Vec<String>, String> {
    let rule: Value = serde_saphyr::from_str(&read(project().join(WORDS))).expect("YAML");
    let swap = rule["swap"].as_object().expect("swap is a map");
    let mut banned = BTreeMap::new();
    for (alternatives, replacement) in swap {
        for phrase in alternatives.split('|') {
            let words = phrase.split(' ').map(str::to_owned).collect();
            banned.insert(words, replacement.as_str().expect("a replacement").to_owned());
        }
    }
    banned
}

/// The words of a text; names with underscores are one word.
fn words(text: &str) -> Vec<Word> {
    let is_inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '\'');
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(number, line)| line.split(|c| !is_inside(c)).map(move |word| (word, number + 1)))
        .map(|(word, line)| (word.trim_matches(['-', '\'']).to_lowercase(), line))
        .filter(|(word, _)| !word.is_empty())
        .collect()
}

/// A text in which the parts of identifiers are words: `authorityIsGone` and `authority_is_gone` are three.
fn split_identifiers(text: &str) -> String {
    let mut split = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            split.push(' ');
        }
        split.push(if c == '_' { ' ' } else { c });
        before = c;
    }
    split
}

/// The prose of a Markdown text: no blocks, no code spans; lines keep their numbers.
fn without_code(text: &str) -> String {
    let prose = markdown::prose(text);
    let parts = prose.split('`').enumerate();
    parts
        .map(
            |(at, part)| {
                if at % 2 == 0 { part.to_owned() } else { format!(" code {}", "\n".repeat(part.matches('\n').count())) }
            },
        )
        .collect()
}

/// What is wrong in a text, each with its line.
fn wrong(words: &[Word], banned: &BTreeMap<Vec<String>, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (phrase, replacement) in banned {
        let found = words.windows(phrase.len()).filter(|window| window.iter().map(|(word, _)| word).eq(phrase));
        wrong.extend(
            found.map(|window| format!("{}: use {replacement:?} instead of {:?}", window[0].1, phrase.join(" "))),
        );
    }
    wrong
}

/// The text files in a folder, or the file itself.
fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_path_buf()] };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let texts = paths.filter(|path| {
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        path.is_dir() || matches!(kind, "md" | "yaml" | "yml" | "json" | "tpl" | "txt" | "rs" | "mjs" | "")
    });
    let mut files: Vec<PathBuf> = texts.flat_map(|path| files(&path)).collect();
    files.sort();
    files
}

/// Checks files; `text_of` gives what is checked of a file.
fn check(paths: &[&str], banned: &BTreeMap<Vec<String>, String>, text_of: impl Fn(&Path, String) -> String) {
    let mut found = Vec::new();
    for path in paths.iter().flat_map(|path| files(&project().join(path))) {
        let name = path.strip_prefix(project()).expect("within").display().to_string();
        // measurements are figures
        if EXEMPT.contains(&name.as_str()) || name.starts_with("docs/measurements") {
            continue;
        }
        let text = text_of(&path, read(&path));
        found.extend(wrong(&words(&text), banned).into_iter().map(|what| format!("{name}:{what}")));
    }
    none(&found);
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "md")
}

#[test]
fn documentation_uses_the_terms_of_the_project() {
    check(PROSE, &banned(), |path, text| {
        let name = path.strip_prefix(project()).expect("within");
        if GENERATED.iter().any(|generated| name == Path::new(generated)) {
            String::new()
        } else if is_markdown(path) {
            without_code(&text)
        } else {
            text
        }
    });
}

#[test]
fn code_uses_the_terms_of_the_project() {
    let mut banned = banned();
    banned.retain(|phrase, _| !STYLE.contains(&phrase.join(" ").as_str()));
    banned.extend(WORDS_OF_CODE.iter().map(|(word, instead)| (vec![(*word).to_owned()], (*instead).to_owned())));
    check(CODE, &banned, |path, text| {
        let text = NAMES.iter().fold(text, |text, name| text.replace(name, "name"));
        if is_markdown(path) { without_code(&text) } else { split_identifiers(&text) }
    });
}

#[test]
fn banned_words_are_found_and_others_are_not() {
    let banned = banned();
    let found = |text: &str| wrong(&words(text), &banned).len();
    assert_eq!(found("The operator mints a token."), 1);
    assert_eq!(found("It retries for\never, three times in a row."), 2);
    assert_eq!(found("A timestamp in the mint_condition of a row is forever-young"), 0);
    assert_eq!(found(&split_identifiers("fn mint_token(elderClaim: Claim)")), 2);
    assert_eq!(found(&without_code("Call `mint` and see `object cannot\nbe understood`.")), 0);
    assert_eq!(words(&without_code("a `b\nc`\nd")).last(), Some(&("d".to_owned(), 3)));
}
