//! What the process shows of a panic.

use std::process::Command;

use itwin_credential_operator::{
    config::args::{LogFormat, LogLevel},
    report::log,
};

/// A placeholder for a secret value in the message of a panic.
const VALUE: &str = "a-value-of-a-secret";

#[test]
fn panic_is_logged_by_its_place_and_not_by_its_message() {
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).args(["--exact", "process::panics", "--ignored", "--nocapture"]).output();
    let child = child.expect("it ran");
    assert!(!child.status.success());
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(errors.contains("tests/hostile/process.rs:") && errors.contains("panic"), "{errors}");
    assert!(!errors.contains(VALUE) && !String::from_utf8_lossy(&child.stdout).contains(VALUE), "{errors}");
}

#[test]
#[ignore = "run by the test above, in its own process"]
fn panics() {
    log::start(LogFormat::Json, LogLevel::Info);
    log::log_panics();
    panic!("{VALUE}");
}
