//! Vulnerabilities are looked for every day, and Renovate proposes updates of every pin.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    chart, none, project, read, texts,
    workflows::{commands, workflow, workflows},
};

/// The names of files with pins that Renovate knows. It reads workflows too, and what its own managers name.
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
    let is_of = |rule: &&Value, manager: &str| rule["matchManagers"] == json!([manager]);
    let off: Vec<&Value> = rules.iter().filter(|rule| rule["enabled"] == false).collect();
    let of_go: Vec<&Value> = off.iter().copied().filter(|rule| is_of(rule, "gomod")).collect();
    assert!(of_go.len() == 1 && of_go[0]["matchFileNames"] == json!(KUBERNETES), "{of_go:?}");
    // an image that no registry has
    let values = read(chart().join("values.yaml"));
    let others: Vec<&Value> = off.iter().copied().filter(|rule| !is_of(rule, "gomod")).collect();
    assert!(others.len() == 1 && is_of(&others[0], "helm-values"), "{others:?}");
    let images = texts(&others[0]["matchPackageNames"]);
    let is_named = |image: &&str| image.contains(".invalid/") && values.contains(&format!("repository: {image}\n"));
    assert!(!images.is_empty() && images.iter().all(is_named), "{images:?}");
}

/// The digest cannot be looked up where the tag was written, so Renovate adds it.
#[test]
fn renovate_pins_the_base_image_of_the_builder_by_its_digest() {
    let (config, dockerfile) = (renovate(), read(project().join("Dockerfile")));
    assert!(texts(&config["extends"]).contains(&"docker:pinDigests"));
    let from = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    let images: Vec<&str> = from.filter_map(|rest| rest.split(' ').find(|word| !word.starts_with("--"))).collect();
    // Renovate reads no name with a variable, and `scratch` has no digest
    let (others, scratch): (Vec<&str>, Vec<&str>) = images.iter().copied().partition(|image| *image != "scratch");
    assert!(others.len() == 1 && others[0].starts_with("rust:") && !others[0].contains('$'), "{images:?}");
    assert_eq!(scratch.len(), 1, "{images:?}");
}

/// The folder whose code may name pins with a checksum that Renovate must find.
const CODE_WITH_PINS: &str = "crates/testbed/src";

/// What each of Renovate's own managers finds, after its description. Renovate uses regular expressions of JavaScript,
/// so Node does here too.
fn found_by_own_managers() -> Vec<String> {
    const FIND: &str = "
const { readFileSync } = require('node:fs');
const { customManagers } = JSON.parse(readFileSync('.github/renovate.json'));
for (const { description, managerFilePatterns, matchStrings } of customManagers) {
  const reads = (file) => managerFilePatterns.some((pattern) => new RegExp(pattern.slice(1, -1)).test(file));
  const text = process.argv.slice(1).filter(reads).map((file) => readFileSync(file, 'utf8')).join('');
  const found = matchStrings.flatMap((match) => [...text.matchAll(new RegExp(match, 'g'))]);
  const pins = found.map(({ groups }) => groups.currentValue + (groups.currentDigest ? '@' + groups.currentDigest : ''));
  console.log(description, pins.join(' '));
}";
    let mut files = vec![project().join("Makefile")];
    files.extend(workflows().into_iter().map(|(path, _)| path));
    rust_files(&project().join(CODE_WITH_PINS), &mut files);
    let relative = files.iter().map(|path| path.strip_prefix(project()).expect("within"));
    let output = Command::new("node").current_dir(project()).args(["-e", FIND, "--"]).args(relative).output();
    let output = output.expect("Node.js");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn renovate_finds_the_pins_of_its_own_managers() {
    let managers = found_by_own_managers();
    assert_eq!(managers.len(), 4, "{managers:?}");
    let is_version = |pin: &str| pin.starts_with(|c: char| c.is_ascii_digit()) && pin.split('.').count() == 3;
    for manager in managers {
        let (description, pins) = manager.rsplit_once(". ").unwrap_or((manager.as_str(), ""));
        let mut versions = pins.split(' ').map(|pin| pin.split('@').next().unwrap_or_default());
        assert!(versions.all(is_version), "{description}: {pins:?}");
    }
}

/// A version that is updated without its checksum fails the tests, and one that is not updated at all grows old unseen.
#[test]
fn renovate_finds_each_checksum_in_the_code_of_the_testbed() {
    let found = found_by_own_managers().join(" ");
    let mut files = Vec::new();
    rust_files(&project().join(CODE_WITH_PINS), &mut files);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files {
        let text = read(&file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        for digest in words.filter(|word| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit())) {
            count += 1;
            if !found.contains(&format!("@{digest}")) {
                wrong.push(format!("{} pins {digest}, and Renovate does not update it", file.display()));
            }
        }
    }
    none(&wrong);
    assert!(count > 0, "no checksum was found");
}
