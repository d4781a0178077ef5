//! Every variable that the documentation names is one that the code, the Makefile or a script reads.

use std::{collections::BTreeSet, path::Path};

use super::{documents, markdown, none, project};

/// What reads variables.
const READERS: [&str; 8] = [
    "src",
    "crates",
    "tests",
    "scripts",
    ".ci",
    "charts/itwin-credential-operator/templates",
    "Makefile",
    "Dockerfile",
];
/// Pages about the past, which may name what is gone.
const PAST: [&str; 2] = ["CHANGELOG.md", "docs/decisions"];
/// Fewer names than this mean that the documentation was not read.
const FEWEST: usize = 20;

/// Appends the text of a file, or of all files in a folder.
fn append(path: &Path, text: &mut String) {
    let Ok(entries) = std::fs::read_dir(path) else {
        // what is no text reads no variable
        text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        return;
    };
    for entry in entries {
        append(&entry.expect("an entry").path(), text);
    }
}

/// The variable that a word names: one that it sets, or a name that only a variable has.
fn variable(word: &str) -> Option<String> {
    let (name, is_set) = word.split_once('=').map_or((word, false), |(name, _)| (name, true));
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    (is_name && (is_set || name.contains('_'))).then(|| name.to_owned())
}

/// The variables in the code spans and commands of a page.
fn variables(text: &str) -> BTreeSet<String> {
    let blocks = markdown::blocks(text);
    let consoles = blocks.iter().filter(|block| block.language == "console");
    let commands = consoles.flat_map(markdown::commands).map(|command| command.text);
    let parts: Vec<String> = markdown::code_spans(text).into_iter().chain(commands).collect();
    parts.iter().flat_map(|part| part.split_whitespace()).filter_map(variable).collect()
}

/// Whether code reads a variable: a program by its name in quotation marks, a script or the Makefile by `$`.
fn is_read(name: &str, code: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let is_whole = !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let is_expanded = ["$", "${", "$(", "env.", "env://"].iter().any(|mark| before.ends_with(*mark));
        is_whole && (is_expanded || (before.ends_with('"') && after.starts_with('"')))
    })
}

#[test]
fn variables_of_the_documentation_are_read() {
    let mut code = String::new();
    for reader in READERS {
        let path = project().join(reader);
        assert!(path.exists(), "there is no {reader}");
        append(&path, &mut code);
    }
    let (mut wrong, mut found) = (Vec::new(), BTreeSet::new());
    for (file, text) in documents().into_iter().filter(|(file, _)| !PAST.iter().any(|past| file.starts_with(past))) {
        let named = variables(&text);
        let unknown = named.iter().filter(|name| !is_read(name, &code));
        wrong.extend(unknown.map(|name| format!("{}: nothing reads the variable {name}", file.display())));
        found.extend(named);
    }
    none(&wrong);
    assert!(found.len() > FEWEST, "only {found:?} were found");
}

#[test]
fn variable_that_nothing_reads_is_found() {
    let page =
        "Set `A_B` (3) or `C=1 make it`, not `D` or `E_f`.\n\n```console\n$ G_H=2 make \\\n    I=$J\nK_L=1\n```\n";
    let named: Vec<String> = variables(page).into_iter().collect();
    assert_eq!(named, ["A_B", "C", "G_H", "I"]);
    let code = "std::env::var(\"A_B\"); echo ${C:-1} $(I) $G_HI";
    let unread: Vec<&String> = named.iter().filter(|name| !is_read(name, code)).collect();
    assert_eq!(unread, ["G_H"]);
}
