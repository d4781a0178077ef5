//! The workflows run nothing that is not pinned, and nothing that a developer cannot run.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{none, project, read, yaml};

/// Each workflow by its path.
pub fn workflows() -> Vec<(PathBuf, Value)> {
    let folder = project().join(".github/workflows");
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.expect("an entry").path()).map(|path| (path.clone(), yaml(&read(&path)))).collect()
}

/// The workflow with this name.
pub fn workflow(name: &str) -> Value {
    yaml(&read(project().join(".github/workflows").join(name)))
}

/// The commands of a job, in their order.
pub fn commands(job: &Value) -> Vec<&str> {
    job["steps"].as_array().into_iter().flatten().filter_map(|step| step["run"].as_str()).collect()
}

/// Each step with its place.
fn steps() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (path, workflow) in workflows() {
        for (name, job) in workflow["jobs"].as_object().expect("jobs") {
            let place = format!("{}: {name}", path.file_name().unwrap_or_default().to_string_lossy());
            let steps = job["steps"].as_array().expect("steps");
            found.extend(steps.iter().map(|step| (place.clone(), step.clone())));
        }
    }
    assert!(found.len() > 10, "only {} steps were found", found.len());
    found
}

#[test]
fn workflows_only_run_make_targets_that_exist() {
    let makefile = read(project().join("Makefile"));
    let mut wrong = Vec::new();
    for (place, step) in steps() {
        let Some(command) = step["run"].as_str() else { continue };
        let words: Vec<&str> = command.split_whitespace().collect();
        let known = match words.as_slice() {
            [".ci/run"] => true,
            ["make", target, ..] => makefile.contains(&format!("\n{target}: ")),
            _ => false,
        };
        // what a workflow receives from outside reaches a command through a variable, not as text
        if !known || command.contains("${{") || command.contains(['\n', ';', '&', '|']) {
            wrong.push(format!("{place}: {command}"));
        }
    }
    none(&wrong);
}

#[test]
fn actions_are_pinned_to_a_commit_and_name_its_version() {
    let mut wrong = Vec::new();
    for (path, _) in workflows() {
        for line in
            read(&path).lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("uses: "))
        {
            let (_, pin) = line.split_once('@').unwrap_or_default();
            let (commit, version) = pin.split_once(" # v").unwrap_or_default();
            if commit.len() != 40 || !commit.chars().all(|c| c.is_ascii_hexdigit()) || version.is_empty() {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    none(&wrong);
}

#[test]
fn only_the_job_that_publishes_may_write() {
    let reads = json!({"contents": "read"});
    let publishes = json!({"contents": "write", "packages": "write", "id-token": "write"});
    for (path, workflow) in workflows() {
        let permissions = workflow["permissions"].as_object();
        assert!(permissions.is_some_and(serde_json::Map::is_empty), "{}: permissions are not empty", path.display());
        for (name, job) in workflow["jobs"].as_object().expect("jobs") {
            let wanted = if path.ends_with("release.yml") && name == "publish" { &publishes } else { &reads };
            assert_eq!(&job["permissions"], wanted, "{}: {name}", path.display());
            assert!(job["timeout-minutes"].is_u64(), "{}: {name} has no deadline", path.display());
        }
    }
}

#[test]
fn no_job_keeps_credentials_or_runs_on_what_can_change() {
    let mut wrong = Vec::new();
    for (place, step) in steps() {
        let is_checkout = step["uses"].as_str().is_some_and(|action| action.starts_with("actions/checkout@"));
        if is_checkout && step["with"]["persist-credentials"] != false {
            wrong.push(format!("{place}: the checkout keeps credentials"));
        }
    }
    for (path, workflow) in workflows() {
        for (name, job) in workflow["jobs"].as_object().expect("jobs") {
            let runner = job["runs-on"].as_str().unwrap_or_default();
            if runner.is_empty() || runner.ends_with("-latest") {
                wrong.push(format!("{}: {name} runs on {runner:?}", path.display()));
            }
            // a tag of an image can be moved
            if !job["container"].is_null() || !job["services"].is_null() {
                wrong.push(format!("{}: {name} runs an image", path.display()));
            }
        }
    }
    none(&wrong);
}
