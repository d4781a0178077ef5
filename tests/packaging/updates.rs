//! Vulnerabilities are looked for every day, and Renovate proposes updates of every pin.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    none, project, read, texts,
    workflows::{commands, workflow},
};

/// The names of files with pins that Renovate knows. It reads workflows and the Makefile too, as `workflows.rs` checks.
const WITH_PINS: [&str; 6] =
    ["Cargo.toml", "Dockerfile", "go.mod", "package.json", "requirements.txt", "rust-toolchain.toml"];
/// The folders that Renovate leaves out with `config:recommended`.
const LEFT_OUT: [&str; 8] =
    ["__fixtures__", "__tests__", "bower_components", "examples", "node_modules", "test", "tests", "vendor"];
/// What `scripts/kubernetes-module` updates in place of Renovate.
const KUBERNETES: [&str; 2] = ["crates/testbed/tools/kubernetes*/go.mod", "crates/testbed/tools/node/go.mod"];
/// Settings that would leave out files or packages.
const LIMITS: [&str; 5] = ["enabled", "enabledManagers", "ignoreDeps", "ignorePaths", "includePaths"];

#[test]
fn vulnerabilities_are_looked_for_every_day() {
    let advisories = workflow("advisories.yml");
    let schedules = advisories["on"]["schedule"].as_array().expect("a schedule");
    let crons: Vec<&str> = schedules.iter().filter_map(|schedule| schedule["cron"].as_str()).collect();
    let is_number = |field: &str| field.parse::<u8>().is_ok();
    // minute and hour, and each day of each month
    let is_daily = |cron: &&str| match cron.split(' ').collect::<Vec<_>>()[..] {
        [minute, hour, "*", "*", "*"] => is_number(minute) && is_number(hour),
        _ => false,
    };
    assert!(crons.iter().any(is_daily), "{crons:?}");
    let jobs = advisories["jobs"].as_object().expect("jobs");
    assert!(jobs.values().any(|job| commands(job) == ["make audit-tools", "make audit"]), "{jobs:?}");
    let makefile = read(project().join("Makefile"));
    let audit = makefile.split("\naudit: ").nth(1).and_then(|rest| rest.lines().nth(1)).expect("the target audit");
    assert!(audit.contains("check advisories"), "{audit}");
}

fn renovate() -> Value {
    serde_json::from_str(&read(project().join(".github/renovate.json"))).expect("JSON")
}

/// The files with pins below a folder of the project, by their paths in the project.
fn files_with_pins(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            // what is built or downloaded is not of the project
            if !name.starts_with('.') && !["node_modules", "target"].contains(&name.as_str()) {
                files_with_pins(&path, found);
            }
        } else if WITH_PINS.contains(&name.as_str()) {
            found.push(path.strip_prefix(project()).expect("within").to_path_buf());
        }
    }
}

#[test]
fn renovate_leaves_out_no_file_with_pins() {
    let config = renovate();
    assert!(texts(&config["extends"]).contains(&"config:recommended"));
    let (mut wrong, mut files) = (Vec::new(), Vec::new());
    wrong.extend(LIMITS.iter().filter(|key| !config[**key].is_null()).map(|key| format!("{key} is set")));
    files_with_pins(project(), &mut files);
    for file in &files {
        if file.iter().any(|part| LEFT_OUT.iter().any(|left_out| part == *left_out)) {
            wrong.push(format!("{} is in a folder that Renovate leaves out", file.display()));
        }
    }
    none(&wrong);
    let names: BTreeSet<String> =
        files.iter().filter_map(|file| file.file_name()).map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(names, BTreeSet::from(WITH_PINS.map(str::to_owned)));
}

/// A `go.mod` whose program is a tool says `// indirect` of each module, the one of the program too. Renovate updates
/// only the latter of those by itself, and nothing where a rule turns off what is indirect.
#[test]
fn renovate_updates_the_program_of_each_go_module() {
    let config = renovate();
    let rules = config["packageRules"].as_array().expect("rules");
    let off: Vec<&Value> = rules.iter().filter(|rule| rule["enabled"] == false).collect();
    let (managers, files) = (json!(["gomod"]), json!(KUBERNETES));
    assert!(off.len() == 1 && off[0]["matchManagers"] == managers && off[0]["matchFileNames"] == files, "{off:?}");
}
