//! `cargo deny` checks the dependencies where a change is merged, and its rules fit the crates of this project.

use std::path::PathBuf;

use crate::{project, read};

/// The rule about wildcards allows crates of this project to name each other by their path only if none is published.
#[test]
fn no_crate_is_published() {
    let crates = std::fs::read_dir(project().join("crates")).expect("the folder is there");
    let crates = crates.map(|entry| entry.expect("an entry").path());
    let folders: Vec<PathBuf> = crates.chain([project().to_path_buf(), project().join("fuzz")]).collect();
    assert!(folders.len() > 5, "{folders:?}");
    for folder in folders {
        let manifest = read(folder.join("Cargo.toml"));
        assert!(manifest.contains("\npublish = false\n"), "{} may be published", folder.display());
    }
    assert!(read(project().join("deny.toml")).contains("\nallow-wildcard-paths = true\n"));
}
