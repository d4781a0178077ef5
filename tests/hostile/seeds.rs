//! The seeds of the fuzz targets, through the targets themselves: they compile, and none of their seeds ends the process.

use std::{collections::BTreeMap, path::Path};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

/// One run of a target.
type Target = fn(&[u8]);

/// The targets by their names.
const TARGETS: [(&str, Target); 6] = [
    ("client_secret", targets::client_secret::run),
    ("documents_and_claims", targets::documents_and_claims::run),
    ("objects", targets::objects::run),
    ("template", targets::template::run),
    ("texts", targets::texts::run),
    ("token_answer", targets::token_answer::run),
];
/// Fewer seeds than this mean that they were not read.
const FEWEST: usize = 5;

/// The names in a folder of the fuzz targets, without the ending `.rs`.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().trim_end_matches(".rs").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn seeds_of_every_fuzz_target_do_no_harm() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let targets = BTreeMap::from(TARGETS);
    let known: Vec<_> = targets.keys().copied().collect();
    for folder in ["seeds", "fuzz_targets"] {
        assert_eq!(names(&fuzz.join(folder)), known, "fuzz/{folder}");
    }
    for (name, run) in targets {
        let folder = fuzz.join("seeds").join(name);
        let seeds = names(&folder);
        assert!(seeds.len() >= FEWEST, "{name} has {} seeds", seeds.len());
        for seed in seeds {
            eprintln!("{name}/{seed}");
            run(&std::fs::read(folder.join(&seed)).expect("a readable seed"));
        }
    }
}
