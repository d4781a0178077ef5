//! The steps of a release, as far as they need neither a build nor a registry.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{chart, project, read, yaml};

/// The registry of a release that is only printed.
pub const REGISTRY: &str = "registry.example.com/team";

/// The version of the chart.
pub fn version() -> String {
    yaml(&read(chart().join("Chart.yaml")))["version"].as_str().expect("a version").to_owned()
}

/// Runs scripts/release without the settings of the caller.
pub fn release(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new("scripts/release");
    command.current_dir(project()).args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RELEASE_") || name.starts_with("COSIGN_")) {
        command.env_remove(name);
    }
    command.envs(settings.iter().copied()).output().expect("bash")
}

/// What a command printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a release would run.
fn commands(steps: &[&str], settings: &[(&str, &str)]) -> Vec<String> {
    let version = version();
    let arguments: Vec<&str> = ["--dry-run", &version].into_iter().chain(steps.iter().copied()).collect();
    let output = release(&arguments, settings);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().filter_map(|line| line.strip_prefix("+ ")).map(str::to_owned).collect()
}

/// Where in a list of commands one is that contains all of these words.
fn position(commands: &[String], words: &[&str]) -> usize {
    let found = commands.iter().position(|command| words.iter().all(|word| command.contains(word)));
    found.unwrap_or_else(|| panic!("no command contains {words:?}:\n{}", commands.join("\n")))
}

#[test]
fn release_builds_before_it_pushes_and_verifies_what_it_signed() {
    let steps = ["binaries", "archives", "image", "chart", "sbom", "krew", "provenance", "checksums", "publish"];
    let commands = commands(&steps, &[("RELEASE_REGISTRY", REGISTRY), ("COSIGN_KEY", "cosign.key")]);
    let order = [
        position(&commands, &["cargo auditable build", "x86_64"]),
        position(&commands, &["cargo auditable build", "aarch64"]),
        position(&commands, &["audited ", "arm64/kubectl-itcred"]),
        position(&commands, &["linked-statically ", "arm64/kubectl-itcred"]),
        position(&commands, &["archive ", "kubectl-itcred-", "arm64.tar.gz"]),
        position(&commands, &["manifest push"]),
        position(&commands, &["release-chart.mjs", REGISTRY, "sha256:"]),
        position(&commands, &["helm package"]),
        position(&commands, &["cargo cyclonedx"]),
        position(&commands, &["manifest ", "itcred.yaml"]),
        position(&commands, &["SHA256SUMS"]),
        position(&commands, &["skopeo copy", "--preserve-digests", REGISTRY]),
        position(&commands, &["helm push", REGISTRY]),
        position(&commands, &["cosign sign ", "cosign.key"]),
        position(&commands, &["cosign sign-blob", "SHA256SUMS"]),
        position(&commands, &["cosign verify-blob", "cosign.pub"]),
        position(&commands, &["cosign verify ", "charts"]),
        position(&commands, &["helm pull"]),
    ];
    assert!(order.is_sorted(), "{order:?}\n{}", commands.join("\n"));
}

#[test]
fn release_ends_if_the_plugin_has_15_megabytes() {
    const LIMIT: u64 = 15_000_000;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-sizes");
    let programs = folder.join("bin/amd64");
    std::fs::create_dir_all(&programs).expect("created");
    let plugin = std::fs::File::create(programs.join("kubectl-itcred")).expect("created");
    let (version, folder) = (version(), folder.display().to_string());
    for (size, is_small) in [(LIMIT - 1, true), (LIMIT, false)] {
        // without content, which takes no space
        plugin.set_len(size).expect("resized");
        let output =
            release(&[version.as_str(), "sizes"], &[("RELEASE_FOLDER", folder.as_str()), ("RELEASE_ARCHS", "amd64")]);
        let said = text(&output.stderr);
        assert_eq!(output.status.success(), is_small, "{size}: {said}");
        assert_eq!(said.contains(&format!("{size} bytes")), !is_small, "{said}");
    }
    // before anything is made of it, also in the test of a release
    assert!(read(project().join("scripts/release")).contains("(check binaries sizes archives "));
    assert!(read(project().join("scripts/release-test")).contains(" binaries sizes archives "));
}

#[test]
fn image_is_signed_by_its_digest_and_never_by_a_tag() {
    let commands = commands(&["sign"], &[("RELEASE_REGISTRY", REGISTRY), ("RELEASE_SIGNING", "keyless")]);
    let signed = commands.iter().filter(|command| command.starts_with("cosign ") && command.contains(REGISTRY));
    assert!(signed.clone().count() >= 4, "{}", commands.join("\n"));
    for command in signed {
        assert!(command.contains("@sha256:"), "{command}");
    }
}

#[test]
fn release_that_must_be_signed_names_what_is_missing() {
    let version = version();
    let missing = |settings: &[(&str, &str)]| {
        let output = release(&["--dry-run", &version, "sign", "verify"], settings);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    assert!(missing(&[]).contains("RELEASE_REGISTRY"));
    assert!(missing(&[("RELEASE_REGISTRY", REGISTRY)]).contains("COSIGN_KEY"));
    let keyless = [("RELEASE_REGISTRY", REGISTRY), ("RELEASE_SIGNING", "keyless")];
    assert!(missing(&keyless).contains("RELEASE_IDENTITY"));
}

#[test]
fn release_refuses_a_version_that_is_not_everywhere() {
    for wrong in ["99.0.0", "1.0", "v1.0.0", ""] {
        let output = release(&["--dry-run", wrong, "check"], &[("RELEASE_UNTAGGED", "1")]);
        assert!(!output.status.success(), "{wrong:?} was accepted");
        let message = text(&output.stderr);
        assert!(message.contains(wrong) && message.starts_with("release: "), "{message}");
    }
}

/// A release whose builds leave these digests, as `scripts/release-test` compares them: whether it goes on, and the folders
/// with which it built.
fn two_builds(name: &str, digests: [&str; 2], rebuild: &str) -> (bool, String) {
    const SCRIPT: &str = r#"
set -euo pipefail
out=$1/out scratch=$1
fail() { echo "$1" >&2; exit 1; }
build() {
  echo "$1" >> "$scratch/folders"
  rm -rf "$out"
  mkdir -p "$out/image"
  local digest=$FIRST
  [[ ! -e $scratch/built ]] || digest=$SECOND
  touch "$scratch/built"
  echo "${digest%/*}" > "$out/SHA256SUMS"
  [[ -z ${digest#*/} ]] || echo "${digest#*/}" > "$out/image/index.json"
}
. "$PROJECT/scripts/release.d/twice"
build_twice
"#;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("two-builds-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("created");
    let mut command = Command::new("bash");
    // what it removes is in this folder
    command.current_dir(&folder).args(["-c", SCRIPT, "bash"]).arg(&folder);
    command.env("FIRST", digests[0]).env("SECOND", digests[1]).env("REBUILD", rebuild).env("PROJECT", project());
    let output = command.output().expect("bash");
    let folders = std::fs::read_to_string(folder.join("folders")).unwrap_or_default();
    (output.status.success(), folders.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Of files and image, separated by a slash.
#[test]
fn release_test_fails_where_two_builds_of_a_commit_differ() {
    let built = "target target".to_owned();
    assert_eq!(two_builds("equal", ["aa/bb", "aa/bb"], ""), (true, built.clone()));
    assert_eq!(two_builds("compiled", ["aa/bb", "aa/bb"], "1"), (true, "target target/again".to_owned()));
    assert_eq!(two_builds("files", ["aa/bb", "cc/bb"], ""), (false, built.clone()));
    assert_eq!(two_builds("image", ["aa/bb", "aa/cc"], ""), (false, built));
    let kept = |name: &str| {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("two-builds-{name}/out.first/SHA256SUMS")).exists()
    };
    assert!(kept("files") && kept("image"), "what the second build differs from is lost");
    assert!(!kept("equal") && !kept("compiled"), "the first build is left");
    assert_eq!(two_builds("none", ["aa/", "aa/"], ""), (false, "target".to_owned()), "an image without a digest");

    let script = read(project().join("scripts/release-test"));
    let order = [". scripts/release.d/twice", "\nbuild_twice\n", "scripts/release \"$version\" publish"];
    let order = order.map(|part| script.find(part).unwrap_or_else(|| panic!("scripts/release-test has no {part:?}")));
    assert!(order.is_sorted(), "{order:?}");
    assert!(script.contains("sbom krew provenance checksums"), "not everything is built twice");
}

#[test]
fn binary_without_the_list_of_its_crates_is_no_release() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("audited");
    let check = |content: &str| {
        std::fs::write(&file, content).expect("written");
        let script = r#"fail() { exit 1; }; . scripts/release.d/build; audited "$1""#;
        let mut command = Command::new("bash");
        command.current_dir(project()).args(["-euc", script, "bash"]).arg(&file);
        command.status().expect("bash").success()
    };
    assert!(check("\0.text\0.dep-v0\0.data\0"));
    assert!(!check("\0.text\0.data\0"));
}

/// Otherwise a second build with `REBUILD=1` could differ from the first one in nothing but the name of its folder.
#[test]
fn binary_does_not_name_the_folder_in_which_it_was_compiled() {
    let elsewhere = PathBuf::from("/elsewhere");
    for (folder, path) in [("target/again", project().join("target/again")), ("/elsewhere", elsewhere)] {
        let commands = commands(&["binaries"], &[("CARGO_TARGET_DIR", folder)]);
        let compiled: Vec<&String> = commands.iter().filter(|line| line.contains("cargo auditable build")).collect();
        assert_eq!(compiled.len(), 4, "two programs for two architectures: {commands:?}");
        let project = format!("--remap-path-prefix={}=/src", project().display());
        let results = format!("--remap-path-prefix={}=/src/target", path.display());
        for command in compiled {
            // where both match, the compiler takes the last one
            let order = command.find(&project).zip(command.find(&results));
            assert!(order.is_some_and(|(project, results)| project < results), "{command}");
        }
        let copied = commands.iter().filter(|line| line.starts_with(&format!("cp {folder}/"))).count();
        assert_eq!(copied, 4, "{commands:?}");
    }
}

/// `scripts/last-release` builds it from its commit.
#[test]
fn upgrade_starts_from_a_release_that_is_not_newer() {
    let text = read(project().join("tests/installation/last-release"));
    let line = text.lines().find(|line| !line.starts_with('#')).expect("a release");
    let (last, commit) = line.split_once(' ').expect("a version and a commit");
    assert!(commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{commit:?} is no commit");
    let numbers =
        |version: &str| -> Vec<u32> { version.split('.').map(|number| number.parse().expect("a number")).collect() };
    assert_eq!(numbers(last).len(), 3, "{last:?} is no version");
    assert!(numbers(last) <= numbers(&version()), "{last} is newer than the source");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

fn node(arguments: &[&str]) -> Output {
    Command::new("node").current_dir(project()).args(arguments).output().expect("Node.js")
}

#[test]
fn chart_of_a_release_names_its_image_by_digest() {
    let folder: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-chart");
    let _ = std::fs::remove_dir_all(&folder);
    copy(&chart(), &folder);
    let (path, digest) = (folder.display().to_string(), format!("sha256:{}", "0123456789abcdef".repeat(4)));
    let repository = format!("{REGISTRY}/itwin-credential-operator");
    let arguments = ["charts/release-chart.mjs", &path, &repository, "9.8.7", &digest, "amd64 arm64"];
    let output = node(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for script in ["charts/values-table.mjs", "charts/values-schema.mjs"] {
        let output = node(&[script, "--chart", &path, "--check"]);
        assert!(text(&output.stderr).contains("is stale"), "{script} does not notice another default");
        let output = node(&[script, "--chart", &path]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    let values = yaml(&read(folder.join("values.yaml")));
    assert_eq!(values["image"]["repository"], repository.as_str());
    assert_eq!(values["image"]["digest"], digest.as_str());
    let metadata = yaml(&read(folder.join("Chart.yaml")));
    let images = yaml(metadata["annotations"]["artifacthub.io/images"].as_str().expect("images"));
    assert_eq!(images[0]["image"], format!("{repository}:9.8.7@{digest}").as_str());
    assert_eq!(images[0]["platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));
    assert!(read(folder.join("README.md")).contains(&digest), "the table of values is not that of the release");
    let schema: serde_json::Value = serde_json::from_str(&read(folder.join("values.schema.json"))).expect("JSON");
    assert_eq!(schema["properties"]["image"]["properties"]["digest"]["default"], digest.as_str());
    assert!(!read(folder.join("values.yaml")).contains("No registry serves an image yet"));

    // a second time there is nothing to replace: that is an error, not a chart with a wrong image
    assert!(!node(&arguments).status.success());
}
