//! `make demo` says in its first lines what it is about to build, how long that takes and where it is kept, also where
//! a part of it, or everything, is built already.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{project, versions};

/// What Cargo builds.
const RUST: [&str; 2] = ["itwin-credential-operator", "testbed"];
/// What Go builds: module and program.
const GO: [(&str, &str); 5] = [
    ("kubernetes", "kubectl"),
    ("helm", "helm"),
    ("kubernetes", "etcd"),
    ("kubernetes", "kube-apiserver"),
    ("kubernetes", "kube-controller-manager"),
];
/// How many of these a cluster of the user's needs too.
const CLIENTS: usize = 2;
const FIRST: &str = "The first run builds this once, from source; the times are those of 2 cores:";
/// What it says first where all that Cargo builds is there: whether it is current, only Cargo knows.
const AGAIN: &str =
    "Cargo builds again what has changed since the last build, which takes seconds, or up to 5 minutes on 2 cores.";
/// What changes the answer.
const SETTINGS: [&str; 2] = ["CLUSTER", "KUBERNETES_VERSION"];

/// Folders in which some programs are built.
struct Machine {
    built: PathBuf,
    cache: PathBuf,
}

impl Machine {
    fn new(name: &str, rust: &[&str], go: &[(&str, &str)]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("first-build-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        let machine = Self { built: folder.join("built"), cache: folder.join("cache") };
        let rust = rust.iter().map(|program| machine.built.join(program));
        // the folder of a module ends with a digest of its pins
        let go =
            go.iter().map(|(module, program)| machine.cache.join(format!("{module}-0123456789abcdef")).join(program));
        for program in rust.chain(go) {
            std::fs::create_dir_all(program.parent().expect("a folder")).expect("created");
            std::fs::write(program, "").expect("written");
        }
        machine
    }

    /// What the script says.
    fn says(&self, settings: &[(&str, &str)]) -> Vec<String> {
        let mut command = Command::new("scripts/first-build");
        command.current_dir(project()).arg(&self.built).env("TESTBED_CACHE", &self.cache);
        for name in SETTINGS {
            command.env_remove(name);
        }
        let output = command.envs(settings.iter().copied()).output().expect("bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// What it should say of Cargo, without the time.
    fn with_cargo(&self) -> String {
        format!("- with Cargo, in {}: {}", self.built.display(), RUST.join(", "))
    }

    /// What it should say of Go, without the times.
    fn with_go(&self, start: &str, programs: &[(&str, &str)]) -> String {
        let programs: Vec<&str> = programs.iter().map(|(_, program)| *program).collect();
        format!("- {start} Go, in {}: {}", self.cache.display(), programs.join(", "))
    }
}

/// What follows the line about programs that Cargo may build again.
fn after_again(said: &[String]) -> &[String] {
    assert_eq!(said.first().map(String::as_str), Some(AGAIN));
    &said[1..]
}

/// Lines without the times in parentheses, after the first one. Fails if a line has fewer than it needs.
fn without_times(said: &[String]) -> Vec<String> {
    assert_eq!(said.first().map(String::as_str), Some(FIRST));
    let mut lines = Vec::new();
    for line in &said[1..] {
        let mut parts = line.split(" (");
        let mut text = parts.next().unwrap_or_default().to_owned();
        let mut times = 0;
        for part in parts {
            let (time, rest) = part.split_once(')').expect("a closed parenthesis");
            assert!(time.ends_with(" minute") || time.ends_with(" minutes"), "{time:?} in {line:?}");
            text.push_str(rest);
            times += 1;
        }
        // one for all that Cargo builds together
        let needed = if line.starts_with("- with Cargo, ") { 1 } else { text.matches(", ").count() };
        assert_eq!(times, needed, "{line:?}");
        lines.push(text);
    }
    lines
}

#[test]
fn demo_says_what_is_not_built_yet() {
    let nothing = Machine::new("nothing", &[], &[]);
    let said = without_times(&nothing.says(&[]));
    assert_eq!(said, [nothing.with_cargo(), nothing.with_go("then with", &GO)]);

    let go = Machine::new("go", &[], &GO);
    assert_eq!(without_times(&go.says(&[])), [go.with_cargo()]);
    // as after an interrupted build
    let half = Machine::new("half", &RUST[..1], &GO);
    let missing = half.with_cargo().replace(&format!("{}, ", RUST[0]), "");
    assert_eq!(without_times(&half.says(&[])), [missing]);

    let rust = Machine::new("rust", &RUST, &GO[..3]);
    assert_eq!(without_times(after_again(&rust.says(&[]))), [rust.with_go("with", &GO[3..])]);

    let all = Machine::new("all", &RUST, &GO);
    assert_eq!(all.says(&[]), [AGAIN]);
}

#[test]
fn demo_says_only_what_the_selected_cluster_needs() {
    let nothing = Machine::new("of-the-user", &[], &[]);
    let said = without_times(&nothing.says(&[("CLUSTER", "kind-dev")]));
    assert_eq!(said, [nothing.with_cargo(), nothing.with_go("then with", &GO[..CLIENTS])]);
    let clients = Machine::new("clients", &RUST, &GO[..CLIENTS]);
    assert_eq!(clients.says(&[("CLUSTER", "kind-dev")]), [AGAIN]);

    // an older version of Kubernetes has programs of its own, but for etcd
    let (older, _) = versions::kubernetes();
    let newest = Machine::new("older", &RUST, &GO);
    let of_older: Vec<(&str, &str)> =
        GO.into_iter().filter(|(module, program)| *module == "kubernetes" && *program != "etcd").collect();
    let said = newest.says(&[("KUBERNETES_VERSION", older[0].as_str())]);
    assert_eq!(without_times(after_again(&said)), [newest.with_go("with", &of_older)]);
}

#[test]
fn demo_says_first_what_it_builds_and_then_runs_it() {
    let mut make = Command::new("make");
    make.current_dir(project()).args(["--dry-run", "--no-print-directory", "demo"]);
    // what a make that runs this test hands on to its own
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
        make.env_remove(name);
    }
    let output = make.output().expect("make");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = printed.lines().filter(|line| !line.starts_with('#')).collect();
    let built = lines.first().and_then(|line| line.strip_prefix("scripts/first-build "));
    let built = built.unwrap_or_else(|| panic!("it does something else first: {printed}"));
    assert!(lines.get(1).is_some_and(|line| line.contains(" build --locked ")), "{printed}");
    // the folder that was looked into is the one of what runs
    assert_eq!(lines[2..], [format!("{built}/testbed demo {built}/itwin-credential-operator")], "{printed}");
}
