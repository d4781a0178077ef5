//! What a release needs before it begins, and its page where an earlier attempt made one.

use std::{path::Path, process::Command};

use crate::{
    project, read,
    release::{REGISTRY, release, text, version},
};

/// A push cannot be taken back, and a build takes an hour.
#[test]
fn release_without_a_setting_ends_before_its_first_step() {
    let version = version();
    let keyless = [("RELEASE_REGISTRY", REGISTRY), ("RELEASE_SIGNING", "keyless"), ("RELEASE_IDENTITY", "workflow")];
    for (settings, step, missing) in [
        (&[][..], "build", "RELEASE_REGISTRY"),
        (&[][..], "publish", "RELEASE_REGISTRY"),
        (&keyless[..1], "publish", "COSIGN_KEY"),
        (&keyless[..], "publish", "RELEASE_ISSUER"),
    ] {
        let output = release(&["--dry-run", &version, step], settings);
        let (printed, said) = (text(&output.stdout), text(&output.stderr));
        assert!(!output.status.success() && said.contains(missing), "{step}: {said}");
        assert_eq!(printed, "", "{missing} is missing, and {step} began");
    }
}

#[test]
fn release_names_the_pages_that_say_that_there_is_none() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page-without-release.md");
    let is_named = |content: &str| {
        std::fs::write(&file, content).expect("written");
        let mut command = Command::new("bash");
        command.current_dir(project()).args(["-euc", r#". scripts/release.d/build; without_release "$1""#, "bash"]);
        command.arg(&file).output().expect("bash").status.success()
    };
    for page in ["No release is published yet.", "So far no release exists.", "No registry serves an image yet."] {
        assert!(is_named(page), "{page}");
    }
    assert!(!is_named("The release 0.1.0 is published."));
}

#[test]
fn page_that_an_earlier_attempt_made_gets_what_it_lacks() {
    // a function, since a program that was just written may not run yet
    const GH: &str = r#"gh() { echo "$2 $3" >> "$RELEASE_FOLDER/calls"; [[ $2 != view ]] || return "$WITHOUT_PAGE"; }"#;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-page");
    std::fs::create_dir_all(&folder).expect("created");
    std::fs::write(folder.join("SHA256SUMS"), "aa  chart.tgz\n").expect("written");
    std::fs::write(folder.join("gh"), GH).expect("written");
    let (file, version) = (folder.join("gh").display().to_string(), version());
    for (without_page, wanted) in [("1", &["view", "create"][..]), ("0", &["view", "upload", "edit"][..])] {
        let _ = std::fs::remove_file(folder.join("calls"));
        let of_folder = folder.display().to_string();
        let settings =
            [("RELEASE_FOLDER", of_folder.as_str()), ("BASH_ENV", file.as_str()), ("WITHOUT_PAGE", without_page)];
        let output = release(&[version.as_str(), "page"], &settings);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let wanted: String = wanted.iter().map(|call| format!("{call} v{version}\n")).collect();
        assert_eq!(read(folder.join("calls")), wanted);
    }
    for (version, is_prerelease) in [("1.0.0-rc.1", true), ("1.0.0", false)] {
        let printed = text(&release(&["--dry-run", version, "page"], &[]).stdout);
        assert_eq!(printed.contains("--prerelease"), is_prerelease, "{printed}");
    }
}
