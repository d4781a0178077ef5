//! What the documentation says that a pod sees after a renewal is what `lint` finds.

use super::*;
use crate::lint::credentials::KUBELET_DELAY;

/// A page of the documentation. Its sentences continue in the next line.
fn page(name: &str) -> String {
    let file = format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(file).expect("the page").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn documentation_warns_of_each_way_in_which_a_pod_keeps_its_first_token() {
    const WARNING: &str = "Do not use environment variables (`secretKeyRef`, `envFrom`) or `subPath` mounts. \
                           Kubernetes fills them once, when the container starts, and never updates them. After an \
                           hour such a pod holds an expired token.";
    for name in ["README.md", "docs/configuration.md"] {
        assert!(page(name).contains(WARNING), "{name}");
    }
    for (way, container, volume) in
        [("secretKeyRef", ENV, ""), ("envFrom", ENV_FROM, ""), ("subPath", SUB_PATH, VOLUME)]
    {
        assert!(WARNING.contains(&format!("`{way}`")) && container.contains(way), "{way}");
        let findings = linted(&[CREDENTIAL, &workload("Pod", container, volume)]).findings;
        let messages: Vec<&str> = findings.iter().map(|finding| finding.message.as_str()).collect();
        assert!(messages.len() == 1 && messages[0].contains("never changes in a running container"), "{messages:?}");
    }
}

#[test]
fn pod_of_the_quick_start_sees_each_renewal() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let text = std::fs::read_to_string(file).expect("the page");
    let pod = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the pod");
    let credential = CREDENTIAL.replace("agent", "render-agent");
    assert_eq!(rules(&[&credential, pod]), []);
    let stale = pod.replace("readOnly: true", "subPath: access_token");
    assert_eq!(rules(&[&credential, &stale]), [("subPath", Weight::Warning)], "it is the pod of this Secret");
}

#[test]
fn documentation_gives_the_kubelet_as_long_as_lint_does() {
    let minutes = KUBELET_DELAY.num_minutes();
    let words = [(1, "one"), (2, "two"), (3, "three"), (4, "four"), (5, "five")];
    let (_, word) = words.into_iter().find(|(number, _)| *number == minutes).expect("a word");
    for (name, sentence) in [
        ("docs/configuration.md", format!("the Secret changes. It can take {word} minutes.")),
        ("docs/configuration.md", format!("a file can be {word} minutes older than the Secret")),
        ("docs/configuration.md", format!("| the kubelet updates the file | up to {minutes} minutes |")),
        ("docs/kubectl-itcred.md", format!("less than the {word} minutes that the kubelet may take")),
        ("docs/troubleshooting.md", format!("newer by less than {word} minutes, the kubelet will update the file")),
    ] {
        assert!(page(name).contains(&sentence), "{name} does not say {sentence:?}");
    }
}
