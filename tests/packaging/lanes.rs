//! Each lane that decides whether a change is merged is there, runs for every change, and cannot be skipped.

use serde_json::{Value, json};

use crate::{
    none, project, read,
    workflows::{commands, workflow},
};

/// The lanes of ci.yml with their commands: what one of them tests, no other one does.
const LANES: [(&str, &[&str]); 3] = [
    ("fast", &["make audit-tools", "make check", "make unit", "make simulate N=500"]),
    ("full", &[".ci/run"]),
    ("versions", &["make matrix KUBERNETES_VERSIONS=\"$KUBERNETES\""]),
];
/// The lanes with the upgrade test. It is skipped without the history of git, unless it is required.
const WITH_UPGRADE: [&str; 2] = ["full", "versions"];
/// What `.ci/run` runs, each as a part whose failure counts.
const PARTS: [&str; 4] = ["make last-release", "make tests", "make e2e", "make check"];

#[test]
fn each_lane_is_there_with_its_commands() {
    let ci = workflow("ci.yml");
    let jobs = ci["jobs"].as_object().expect("jobs");
    let mut expected: Vec<&str> = LANES.iter().map(|(lane, _)| *lane).collect();
    let mut found: Vec<&str> = jobs.keys().map(String::as_str).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    for (lane, wanted) in LANES {
        assert_eq!(commands(&jobs[lane]), wanted, "{lane}");
    }
    // tests/packaging/versions.rs compares the versions in it with those that the testbed pins
    let matrix = ci["jobs"]["versions"]["strategy"]["matrix"].as_object().expect("a matrix");
    assert_eq!(matrix.keys().collect::<Vec<_>>(), ["kubernetes"], "nothing adds or leaves out a version");
    let steps = ci["jobs"]["versions"]["steps"].as_array().expect("steps");
    let run = steps.iter().find(|step| step["run"].is_string()).expect("a command");
    assert_eq!(run["env"]["KUBERNETES"], "${{ matrix.kubernetes }}");
}

#[test]
fn lanes_run_for_every_change_and_none_can_be_skipped() {
    let ci = workflow("ci.yml");
    // without filters for paths or for the branch of a pull request
    assert_eq!(ci["on"], json!({"pull_request": null, "push": {"branches": ["main"]}}));
    let mut wrong = Vec::new();
    for (name, job) in ci["jobs"].as_object().expect("jobs") {
        let steps = job["steps"].as_array().expect("steps");
        for part in steps.iter().chain([job]) {
            for key in ["if", "continue-on-error"] {
                if !part[key].is_null() {
                    wrong.push(format!("{name} has {key}: {}", part[key]));
                }
            }
        }
        if !WITH_UPGRADE.contains(&name.as_str()) {
            continue;
        }
        let has_history = steps.iter().any(|step| step["with"]["fetch-depth"] == 0);
        let runs = |step: &&Value| step["run"].is_string();
        if !has_history || !steps.iter().filter(runs).all(|step| step["env"]["LAST_RELEASE"] == "required") {
            wrong.push(format!("{name} may skip the upgrade test"));
        }
    }
    none(&wrong);
}

/// What follows a word at the beginning of a line.
fn after<'a>(lines: &[&'a str], word: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.strip_prefix(word)).collect()
}

#[test]
fn each_part_of_the_full_lane_counts() {
    let script = read(project().join(".ci/run"));
    let lines: Vec<&str> = script.lines().map(str::trim_end).collect();
    assert!(lines.contains(&"set -euo pipefail") && lines.contains(&"export LAST_RELEASE=required"), "{script}");
    let [parts, started, finished] = ["part ", "start ", "finish "].map(|verb| after(&lines, verb));
    let mut wrong = Vec::new();
    for wanted in PARTS {
        // a name comes first; a program that lowers the priority may come before the command
        let runs = |part: &&str| part.split(" || ").next().is_some_and(|part| part.ends_with(&format!(" {wanted}")));
        if !parts.iter().chain(&started).any(runs) {
            wrong.push(format!("no part runs {wanted}"));
        }
    }
    for part in &started {
        let name = part.split(' ').next().unwrap_or_default();
        if !finished.contains(&name) {
            wrong.push(format!("nothing waits for {name}"));
        }
    }
    let forgiven: Vec<&&str> = parts.iter().filter(|part| part.contains("||")).collect();
    if forgiven.len() != 1
        || !forgiven[0].ends_with("make check || checked=$?")
        || lines.last() != Some(&"exit \"$checked\"")
    {
        wrong.push(format!("the failure of a part is lost: {forgiven:?}, {:?}", lines.last()));
    }
    none(&wrong);
}
