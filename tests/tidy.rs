//! The layout says what it claims: each folder uses only what it may, and each file says what it is for.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};

/// What the code of a folder must not name (docs/architecture.md). Between crates Cargo keeps the walls; what it cannot
/// know stands here.
const WALLS: &[(&str, &[&str])] = &[
    ("crates/api", PURE),
    ("crates/oauth", PURE),
    ("crates/core", PURE),
    ("src/observe", &["crate::act", "crate::report", "crate::controller", ".patch(", ".create(", ".patch_metadata("]),
    ("src/act", &["crate::report", "crate::controller", "itwin_core::decide"]),
    ("src/report", &["crate::act", "crate::controller", "crate::oauth", "itwin_core::decide"]),
];

/// What reads a clock, or chance: pure code gets both as arguments.
const PURE: &[&str] = &["Utc::now", "SystemTime", "Instant::now", "rand::"];

/// What a pure crate must not depend on.
const PURE_CRATES: &[(&str, &[&str])] = &[
    ("crates/api", &["hyper", "itwin-core", "itwin-oauth", "reqwest", "tokio", "tower"]),
    ("crates/oauth", &["hyper", "itwin-api", "itwin-core", "k8s-openapi", "kube", "reqwest", "tokio", "tower"]),
    ("crates/core", &["hyper", "kube", "reqwest", "tokio", "tower"]),
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
fn pure_crates_depend_on_nothing_that_acts() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for (folder, forbidden) in PURE_CRATES {
        let manifest = std::fs::read_to_string(project.join(folder).join("Cargo.toml")).expect("a manifest");
        let shipped = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let shipped = shipped.split("\n[").next().unwrap_or_default();
        let dependencies = shipped.lines().filter_map(|line| line.split([' ', '.', '=']).next());
        broken.extend(
            dependencies.filter(|name| forbidden.contains(name)).map(|name| format!("{folder} depends on {name}")),
        );
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn intervals_are_measured_on_the_clock_that_tests_can_steer() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in files(&project.join("src")) {
        let code = shipped(&file);
        let of_std = code.contains("time::{Duration, Instant}") || code.contains("std::time::Instant");
        assert!(!(of_std && code.contains("Instant::now")), "{} reads std's clock, not tokio's", file.display());
    }
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
    let exposing: Vec<String> = ["src", "crates"]
        .into_iter()
        .flat_map(|folder| files(&project.join(folder)))
        .filter(|file| shipped(file).contains(".expose()"))
        .map(|file| file.strip_prefix(project).expect("within the project").display().to_string())
        .collect();
    let mut exposing = exposing;
    exposing.sort();
    // the Secret that is written; digests; the signature check; the key of the assertion; the request; and what reads the
    // client Secret
    assert_eq!(
        exposing,
        [
            "crates/core/src/fingerprint.rs",
            "crates/oauth/src/jwt/mod.rs",
            "crates/oauth/src/private_key.rs",
            "crates/oauth/src/token/mod.rs",
            "src/act/secret_writer.rs",
            "src/observe/client_secret.rs",
        ]
    );
}
