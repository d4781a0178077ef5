//! Programs of one project that several Go modules build have one version, though each module has its own pins.

use std::collections::BTreeMap;

use crate::{none, project, read};

/// Where the Go modules are.
const FOLDERS: [&str; 2] = ["tools", "crates/testbed/tools"];
/// The beginning of the names of the modules that pin another version on purpose.
const OLDER: &str = "kubernetes-";

/// The packages of the programs of a `go.mod`.
fn programs(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    let block = lines.clone().skip_while(|line| *line != "tool (").skip(1).take_while(|line| *line != ")");
    block.chain(lines.filter_map(|line| line.strip_prefix("tool ")).filter(|line| *line != "(")).collect()
}

/// The module that contains a package, and its version, of those that a `go.mod` requires.
fn required<'a>(text: &'a str, package: &str) -> Option<(&'a str, &'a str)> {
    let words = text.lines().map(|line| line.trim().trim_start_matches("require ")).filter(|line| !line.contains("=>"));
    let modules = words.filter_map(|line| line.split_once(' '));
    let contains =
        |module: &str| package.strip_prefix(module).is_some_and(|rest| rest.starts_with('/') || rest.is_empty());
    let found = modules.filter(|(module, version)| contains(module) && version.starts_with('v'));
    let (module, version) = found.max_by_key(|(module, _)| module.len())?;
    Some((module, version.split(' ').next()?))
}

#[test]
fn programs_of_one_project_have_one_version() {
    let mut versions: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for folder in FOLDERS {
        for entry in std::fs::read_dir(project().join(folder)).expect("the folder is there") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.path().join("go.mod");
            if name.starts_with(OLDER) || !file.exists() {
                continue;
            }
            let text = read(file);
            for program in programs(&text) {
                let Some((module, version)) = required(&text, program) else {
                    wrong.push(format!("{folder}/{name} pins no version of {program}"));
                    continue;
                };
                let of_module = versions.entry(module.to_owned()).or_default();
                of_module.entry(version.to_owned()).or_default().push(format!("{folder}/{name}"));
            }
        }
    }
    let several = versions.iter().filter(|(_, versions)| versions.len() > 1);
    wrong.extend(several.map(|(module, versions)| format!("{module} has several versions: {versions:?}")));
    none(&wrong);
    for module in ["github.com/prometheus/prometheus", "k8s.io/kubernetes"] {
        let folders = versions.get(module).into_iter().flat_map(BTreeMap::values).flatten();
        assert!(folders.count() > 1, "{module}: {versions:?}");
    }
}

#[test]
fn version_of_a_program_is_that_of_the_module_that_contains_it() {
    let text = "module a\n\ntool (\n\texample.com/a/cmd/one\n\texample.com/a/v2/cmd/two\n)\n\ntool example.com/b\n\nrequire \
                (\n\texample.com/a v1.2.3 // indirect\n\texample.com/a/v2 v2.0.1\n)\n\nrequire example.com/b \
                v0.1.0\n\nreplace example.com/a/v2/cmd => example.com/c v9.9.9\n";
    let found: Vec<_> = programs(text).into_iter().map(|program| required(text, program)).collect();
    let expected = [("example.com/a", "v1.2.3"), ("example.com/a/v2", "v2.0.1"), ("example.com/b", "v0.1.0")];
    assert_eq!(found, expected.map(Some));
    assert_eq!(required(text, "example.com/ab/cmd"), None);
}
