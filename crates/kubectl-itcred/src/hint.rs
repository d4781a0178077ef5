//! Commands that messages recommend: with the namespace, so that they can be pasted as they are.

use itwin_core::object::ObjectKey;

/// A command of the plugin for a credential, in quotes.
#[must_use]
pub fn command(command: &str, credential: &ObjectKey) -> String {
    format!("'kubectl itcred {command} {} -n {}'", credential.name, credential.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_names_the_namespace() {
        let key = ObjectKey::new("team-b", "agent");
        assert_eq!(command("check", &key), "'kubectl itcred check agent -n team-b'");
    }
}
