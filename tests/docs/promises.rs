//! Every test that docs/testing.md names exists, and every decision record has its status and its place in the index.

use std::path::Path;

use crate::{markdown, none, project, read};

/// The map of promises to tests.
const MAP: &str = "docs/testing.md";
/// Where tests are.
const CODE: [&str; 3] = ["src", "crates", "tests"];
/// Fewer promises than this mean that the table was not read.
const FEWEST: usize = 100;
/// What stands in place of tests.
const GAPS: [&str; 2] = ["no test yet", "not implemented"];

/// All code in a folder.
fn code(folder: &Path, text: &mut String) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            code(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            text.push_str(&read(&path));
        }
    }
}

/// Whether a test of this name is in the code: a function, or a row of a macro that makes functions.
fn exists(name: &str, code: &str) -> bool {
    code.contains(&format!("fn {name}("))
        || code.lines().any(|line| line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with(", \"")))
}

/// The promises: what is promised, and the cell with its tests.
fn promises(text: &str) -> Vec<(String, String)> {
    let sections = text.split("\n## ").skip(1).filter(|section| !section.starts_with("Kinds of tests"));
    let rows = sections.flat_map(|section| section.lines().filter(|line| line.starts_with("| ")).skip(1));
    rows.map(|row| {
        let row = row.trim_end_matches(" |");
        let (promise, tests) = row.rsplit_once(" | ").expect("two columns");
        (promise.trim_start_matches("| ").to_owned(), tests.to_owned())
    })
    .collect()
}

#[test]
fn tests_of_every_promise_exist() {
    let mut all = String::new();
    CODE.iter().for_each(|folder| code(&project().join(folder), &mut all));
    let promises = promises(&read(project().join(MAP)));
    assert!(promises.len() > FEWEST, "only {} promises were read", promises.len());
    let mut wrong = Vec::new();
    for (promise, tests) in promises {
        let names = markdown::code_spans(&tests);
        if names.is_empty() && !GAPS.contains(&tests.as_str()) {
            wrong.push(format!("{MAP}: {promise:?} names no test: write one of {GAPS:?}"));
        }
        let missing = names.iter().filter(|name| !exists(name.rsplit("::").next().unwrap_or(name), &all));
        wrong.extend(missing.map(|name| format!("{MAP}: there is no test {name}")));
    }
    none(&wrong);
}

#[test]
fn decisions_have_a_status_a_date_and_a_place_in_the_index() {
    let folder = project().join("docs/decisions");
    let index = read(folder.join("README.md"));
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder is there") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        let text = read(folder.join(&name));
        for field in ["\nStatus: ", "\nDate: "] {
            if !text.contains(field) {
                wrong.push(format!("docs/decisions/{name} has no line {:?}", field.trim()));
            }
        }
        if !index.contains(&format!("]({name})")) {
            wrong.push(format!("docs/decisions/README.md does not list {name}"));
        }
    }
    none(&wrong);
}
