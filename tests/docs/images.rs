//! Every installation that the project shows says where its image comes from: no registry serves one.

use std::path::{Path, PathBuf};

use super::{none, project, read};

/// What each of them names.
const IMAGE: &str = "registry.example.com/itwin-credential-operator";
/// The folders and files with commands or objects that install the chart.
const PLACES: [&str; 9] =
    ["README.md", "CONTRIBUTING.md", "Makefile", ".ci", "charts", "docs", "examples", "scripts", "Dockerfile"];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a readable folder") {
            files(&entry.expect("an entry").path(), found);
        }
    } else if path.extension().is_none_or(|kind| kind != "svg" && kind != "png") {
        found.push(path.to_path_buf());
    }
}

/// The commands of a text that install the chart from its folder, with their lines. A comment may contain them.
fn installations(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().map(|line| line.trim().trim_start_matches(['#', '$', ' '])).collect();
    let starts = |line: &str| {
        let installs =
            line.contains("helm install ") || (line.contains("helm upgrade ") && line.contains("--install "));
        // the chart of a release names its image itself
        installs && line.contains("charts/itwin-credential-operator") && !line.contains("oci://")
    };
    let begins = lines.iter().enumerate().filter(|(_, line)| starts(line));
    let whole = |number: usize| {
        let mut command = String::new();
        for line in &lines[number..] {
            command.push_str(line.trim_end_matches('\\'));
            if !line.ends_with('\\') {
                break;
            }
        }
        command
    };
    begins.map(|(number, _)| (number + 1, whole(number))).collect()
}

#[test]
fn every_installation_names_its_image() {
    let (mut wrong, mut kinds, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for place in PLACES {
        files(&project().join(place), &mut found);
    }
    for file in found {
        let text = read(&file);
        let kind = file.extension().map_or_else(String::new, |kind| kind.to_string_lossy().into_owned());
        for (line, command) in installations(&text) {
            kinds.push(kind.clone());
            if !command.contains(&format!("image.repository={IMAGE}")) {
                wrong.push(format!("{}:{line} installs no image", file.display()));
            }
        }
        // what a GitOps tool installs
        for object in text.split("\n---").filter(|_| kind == "yaml") {
            let installs = object.contains("kind: HelmRelease") || object.contains("kind: Application\n");
            if installs && object.contains("charts/itwin-credential-operator") {
                kinds.push("gitops".to_owned());
                if !object.contains("image:\n") || !object.contains(&format!("repository: {IMAGE}\n")) {
                    wrong.push(format!("{} installs no image", file.display()));
                }
            }
        }
    }
    none(&wrong);
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert!(count("md") > 2 && count("yaml") > 1 && count("gitops") > 1, "{kinds:?}");
}

#[test]
fn notes_of_the_chart_lead_to_an_image() {
    // tests/chart renders them
    let notes = read(project().join("charts/itwin-credential-operator/templates/NOTES.txt"));
    assert!(notes.contains("--set image.repository=") && notes.contains("make image"));
}

#[test]
fn installation_is_found_in_a_comment_and_over_several_lines() {
    let text = "helm install a oci://b/charts/itwin-credential-operator\n#   helm install a \
                charts/itwin-credential-operator \\\n#     --set b=c\nhelm install is a command\n";
    let expected = "helm install a charts/itwin-credential-operator --set b=c";
    assert_eq!(installations(text), [(2, expected.to_owned())]);
}
