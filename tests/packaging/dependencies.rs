//! `cargo deny` checks the dependencies where a change is merged, and its rules fit the crates of this project.

use std::path::PathBuf;

use crate::{
    project, read,
    workflows::{commands, workflow},
};

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

#[test]
fn licenses_and_bans_are_checked_where_a_change_is_merged() {
    let makefile = read(project().join("Makefile"));
    let check =
        makefile.split("\ncheck: ").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("the target check");
    assert!(check.contains("$(DENY) --locked check bans licenses sources"), "{check}");
    let tools = makefile.split("\naudit-tools: ").nth(1).expect("the target audit-tools");
    assert!(tools.lines().nth(1).is_some_and(|line| line.contains("--root target/tools cargo-deny@")), "{tools}");
    assert!(
        makefile.contains("\nDENY := PATH=\"$(abspath target/tools/bin):"),
        "what audit-tools installs is not used"
    );

    let ci = workflow("ci.yml");
    let jobs = ci["jobs"].as_object().expect("jobs");
    let runs: Vec<Vec<&str>> = jobs.values().map(commands).collect();
    // without cargo-deny, `make check` says that it skips this, and succeeds
    let checks_all = |steps: &Vec<&str>| {
        let at = |command: &str| steps.iter().position(|step| *step == command);
        at("make audit-tools").zip(at("make check")).is_some_and(|(installed, checked)| installed < checked)
    };
    assert!(runs.iter().any(checks_all), "no job installs cargo-deny before `make check`: {runs:?}");
}
