//! The layout says what it claims: each folder uses only what it may, and each file says what it is for.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};

/// What the code of a folder must not name. One crate has no walls inside; this is them (docs/architecture.md).
const WALLS: &[(&str, &[&str])] = &[
    (
        "src/api",
        &[
            "crate::act",
            "crate::observe",
            "crate::oauth",
            "crate::report",
            "crate::controller",
            "crate::runtime",
            "tokio",
            "reqwest",
        ],
    ),
    (
        "src/decide",
        &[
            "kube::",
            "k8s_openapi",
            "tokio",
            "reqwest",
            "oauth2",
            "clock::now",
            "Utc::now",
            "SystemTime",
            "Instant::now",
            "rand::",
            "crate::act",
            "crate::observe",
            "crate::oauth",
            "crate::report",
            "crate::controller",
            "crate::cluster",
            "crate::metrics",
        ],
    ),
    (
        "src/oauth",
        &[
            "kube::",
            "k8s_openapi",
            "crate::act",
            "crate::observe",
            "crate::report",
            "crate::controller",
            "crate::cluster",
        ],
    ),
    ("src/observe", &["crate::act", "crate::report", "crate::controller", ".patch(", ".create(", ".patch_metadata("]),
    ("src/act", &["crate::report", "crate::controller", "decide::next"]),
    ("src/report", &["crate::act", "crate::controller", "crate::oauth", "decide::next"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file without its comments.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("a readable file");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The code that is shipped: tests may read a clock, to have an instant to begin with.
fn shipped(file: &Path) -> String {
    if file.file_name().is_some_and(|name| name == "tests.rs") {
        return String::new();
    }
    let code = code(file);
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn folders_use_only_what_they_may() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for (folder, forbidden) in WALLS {
        for file in files(&project.join(folder)) {
            let code = shipped(&file);
            broken.extend(
                forbidden
                    .iter()
                    .filter(|name| code.contains(**name))
                    .map(|name| format!("{} names {name}", file.display())),
            );
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "crates", "tests"] {
        for file in files(&project.join(folder)) {
            let text = std::fs::read_to_string(&file).expect("a readable file");
            assert!(text.starts_with("//! "), "{} does not open with its purpose", file.display());
        }
    }
}

#[test]
fn secrets_are_exposed_in_few_places() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let exposing: Vec<String> = files(&project.join("src"))
        .into_iter()
        .filter(|file| code(file).contains(".expose()"))
        .map(|file| file.strip_prefix(project).expect("within the project").display().to_string())
        .collect();
    let mut exposing = exposing;
    exposing.sort();
    // the Secret that is written; digests; the signature check; the key of the assertion; the request; and what reads the
    // client Secret
    assert_eq!(
        exposing,
        [
            "src/act/secret_writer.rs",
            "src/decide/fingerprint.rs",
            "src/oauth/jwt.rs",
            "src/oauth/private_key.rs",
            "src/oauth/token.rs",
            "src/observe/client_secret.rs",
        ]
    );
}
