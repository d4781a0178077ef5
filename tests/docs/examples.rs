//! The programs in `examples/workloads` fit a screen.

use std::path::Path;

use crate::{none, project, read};

/// The lines of a screen on which code is read.
const SCREEN: usize = 53;
/// The longest line, as in documentation.
const WIDTH: usize = 120;
/// Fewer programs than this mean that the folder was not read.
const FEWEST: usize = 7;

/// The length of each file of a folder, and what is too long.
fn check(folder: &Path, count: &mut usize, wrong: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            check(&path, count, wrong);
            continue;
        }
        *count += 1;
        let text = read(&path);
        let (length, width) = (text.lines().count(), text.lines().map(|line| line.chars().count()).max());
        if length > SCREEN || width > Some(WIDTH) {
            wrong.push(format!("{} has {length} lines, the longest of {width:?} characters", path.display()));
        }
    }
}

#[test]
fn programs_of_the_examples_fit_a_screen() {
    let (mut count, mut wrong) = (0, Vec::new());
    check(&project().join("examples/workloads"), &mut count, &mut wrong);
    assert!(count >= FEWEST, "only {count} programs were read");
    none(&wrong);
}
