//! What is claimed about versions of Kubernetes and Helm is what the tests run on, and RELEASING.md says when.

use chrono::NaiveDate;

use crate::{chart, none, project, read, texts, yaml};

/// Pages for users. They claim the oldest version, and refer to the table for what was tested.
const PAGES: [&str; 2] = ["README.md", "docs/installation.md"];

/// The version of a module that the testbed pins, without `v`.
fn pinned(tool: &str, module: &str) -> String {
    let file = read(project().join("crates/testbed/tools").join(tool).join("go.mod"));
    let version = file.lines().find_map(|line| line.trim().strip_prefix(module)?.strip_prefix(" v"));
    version.and_then(|version| version.split_whitespace().next()).expect("a version").to_owned()
}

/// A version without its patch version.
fn minor(version: &str) -> &str {
    version.rsplit_once('.').expect("a patch version").0
}

/// The minor versions of Kubernetes that the testbed pins, oldest first: the older ones, and the newest.
pub fn kubernetes() -> (Vec<String>, String) {
    let entries = std::fs::read_dir(project().join("crates/testbed/tools")).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut older: Vec<String> = names.filter_map(|name| Some(name.strip_prefix("kubernetes-")?.to_owned())).collect();
    let number = |version: &String| -> u32 { version.trim_start_matches("1.").parse().expect("a minor version") };
    older.sort_by_key(number);
    (older, minor(&pinned("kubernetes", "k8s.io/kubernetes")).to_owned())
}

/// The rows of the table in RELEASING.md: version, what runs on it, and when it ran last.
fn table() -> Vec<[String; 3]> {
    let releasing = read(project().join("RELEASING.md"));
    let table = releasing.split("<!-- versions: begin -->").nth(1).expect("the table");
    let table = table.split("<!-- versions: end -->").next().expect("its end");
    let rows = table.lines().filter(|line| line.starts_with("| 1."));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells.map(|cells| <[String; 3]>::try_from(cells).expect("three columns")).collect()
}

#[test]
fn what_is_claimed_about_kubernetes_is_what_the_tests_can_run_on() {
    let (older, newest) = kubernetes();
    let oldest = older.first().expect("older versions");
    let listed: Vec<String> = table().into_iter().map(|[version, ..]| version).collect();
    let pinned: Vec<String> = [newest].into_iter().chain(older.iter().rev().cloned()).collect();
    assert_eq!(listed, pinned, "the table of versions in RELEASING.md");

    let of_chart = yaml(&read(chart().join("Chart.yaml")))["kubeVersion"].as_str().map(str::to_owned);
    assert_eq!(of_chart, Some(format!(">={oldest}.0-0")), "kubeVersion in Chart.yaml");
    for file in PAGES {
        let text = read(project().join(file));
        assert!(text.contains(&format!("{oldest} or later")), "{file} names another version");
        // a list of its own would be wrong after the next run
        assert!(text.contains("RELEASING.md#kubernetes-versions"), "{file} does not refer to the tested versions");
        let repeated: Vec<&String> =
            pinned.iter().filter(|version| *version != oldest && text.contains(*version)).collect();
        assert!(repeated.is_empty(), "{file} names {repeated:?}: leave that to the table");
    }
    let ci = yaml(&read(project().join(".github/workflows/ci.yml")));
    let of_ci = texts(&ci["jobs"]["versions"]["strategy"]["matrix"]["kubernetes"]);
    assert_eq!(of_ci, older, "the versions in .github/workflows/ci.yml");
}

#[test]
fn tests_of_the_matrix_are_as_documented() {
    let makefile = read(project().join("Makefile"));
    let list = makefile.lines().find_map(|line| line.strip_prefix("MATRIX_TESTS := ")).expect("the list");
    let run: Vec<String> =
        list.split_whitespace().filter(|word| *word != "--test").map(|name| format!("tests/{name}")).collect();
    assert!(run.iter().any(|name| name == "tests/cluster"), "{run:?}");
    let releasing = read(project().join("RELEASING.md"));
    let section = releasing.split("\n## Kubernetes versions\n").nth(1).expect("the section");
    let introduction = section.split("<!-- versions: begin -->").next().expect("its beginning");
    let words = introduction.split('`').filter(|span| span.starts_with("tests/"));
    assert_eq!(words.collect::<Vec<_>>(), run, "RELEASING.md says what `make matrix` runs");
}

/// Only a version with a run is claimed.
#[test]
fn each_version_says_when_its_tests_ran_and_the_oldest_one_has_a_run() {
    let (older, newest) = kubernetes();
    let is_date = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    let mut wrong = Vec::new();
    for [version, runs, last] in table() {
        let (command, is_known) = if version == newest {
            ("`make test`", last == "each change")
        } else {
            ("`make matrix`", is_date(&last) || (last == "not run yet" && older.first() != Some(&version)))
        };
        if runs != command || !is_known {
            wrong.push(format!("RELEASING.md, {version}: {runs:?} ran {last:?}"));
        }
    }
    none(&wrong);
}

#[test]
fn pages_say_which_versions_of_helm_the_tests_use() {
    let [three, four] =
        [("helm3", "helm.sh/helm/v3"), ("helm", "helm.sh/helm/v4")].map(|(tool, module)| pinned(tool, module));
    let wanted = format!("The tests use Helm {} and Helm {}.", minor(&three), minor(&four));
    let text = read(project().join("docs/installation.md")).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(&wanted), "docs/installation.md does not say: {wanted}");
}
