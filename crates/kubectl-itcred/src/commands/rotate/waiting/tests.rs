//! What is requested and said while a token with the new secret is awaited.

use super::*;

fn open() -> Open {
    Open { key: ObjectKey::new("team-b", "agent"), failed_before: None, failure: None, said: String::new() }
}

#[test]
fn commands_that_are_recommended_name_the_namespace() {
    let late = open().late(Duration::from_secs(60)).message;
    for command in ["'kubectl itcred check agent -n team-b'", "'kubectl itcred rotate agent -n team-b'"] {
        assert!(late.contains(command), "{late}");
    }
}
