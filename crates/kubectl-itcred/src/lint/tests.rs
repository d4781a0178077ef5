//! Each rule, with what it finds and what it leaves alone.

mod documented;

use serde_json::json;

use super::{Input, Report, SecretName, Weight, manifests, report};
use crate::table::WIDTH;

const CREDENTIAL: &str = "
apiVersion: credentials.itwin.dev/v1alpha1
kind: ITwinServiceCredential
metadata: {name: agent}
spec: {clientCredentialsRef: {name: agent-client}, secretName: agent-token}
";

/// A workload of this kind whose one container has this, and these volumes.
fn workload(kind: &str, container: &str, volumes: &str) -> String {
    let pod = format!("containers: [{{name: main, {container}}}], volumes: [{volumes}]");
    let spec = match kind {
        "Pod" => format!("{{{pod}}}"),
        "CronJob" => format!("{{jobTemplate: {{spec: {{template: {{spec: {{{pod}}}}}}}}}}}"),
        _ => format!("{{template: {{spec: {{{pod}}}}}}}"),
    };
    format!("apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: app}}\nspec: {spec}\n")
}

const VOLUME: &str = "{name: token, secret: {secretName: agent-token}}";
const MOUNT: &str = "volumeMounts: [{name: token, mountPath: /token}]";
const ENV: &str = "env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: agent-token, key: access_token}}}]";
const ENV_FROM: &str = "envFrom: [{secretRef: {name: agent-token}}]";
const SUB_PATH: &str = "volumeMounts: [{name: token, mountPath: /token, subPath: access_token}]";

fn linted(documents: &[&str]) -> Report {
    let mut input = Input { is_partial: true, ..Input::default() };
    manifests::add(&mut input, "file", &documents.join("\n---\n"), Some("team-a"));
    assert!(input.unread.is_empty(), "{:?}", input.unread);
    report(&input)
}

/// The rules that found something, with their weights.
fn rules(documents: &[&str]) -> Vec<(&'static str, Weight)> {
    linted(documents).findings.iter().map(|finding| (finding.rule, finding.weight)).collect()
}

#[test]
fn volume_that_is_read_for_each_call_is_fine() {
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod", "ReplicaSet", "Rollout"] {
        assert_eq!(rules(&[CREDENTIAL, &workload(kind, MOUNT, VOLUME)]), [], "{kind}");
    }
    let projected = "{name: token, projected: {sources: [{secret: {name: agent-token}}]}}";
    assert_eq!(rules(&[CREDENTIAL, &workload("Deployment", MOUNT, projected)]), []);
}

#[test]
fn ways_that_go_stale_are_warnings() {
    let projected = "{name: token, projected: {sources: [{secret: {name: agent-token}}]}}";
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "Pod", "Rollout"] {
        for (container, volume, rule) in [
            (ENV, "", "env"),
            (ENV_FROM, "", "envFrom"),
            (SUB_PATH, VOLUME, "subPath"),
            (SUB_PATH, projected, "subPath"),
        ] {
            assert_eq!(rules(&[CREDENTIAL, &workload(kind, container, volume)]), [(rule, Weight::Warning)], "{kind}");
        }
    }
    for kind in ["Job", "CronJob"] {
        assert_eq!(rules(&[CREDENTIAL, &workload(kind, ENV, "")]), [("env", Weight::Note)], "{kind}");
    }
}

#[test]
fn workload_that_is_restarted_for_each_token_may_read_it_at_its_start() {
    let restarted =
        CREDENTIAL.replace("secretName", "rolloutRestartTargets: [{kind: Deployment, name: app}], secretName");
    assert_eq!(rules(&[&restarted, &workload("Deployment", ENV, "")]), []);
    assert_eq!(
        rules(&[&restarted, &workload("StatefulSet", ENV, "")]),
        [("env", Weight::Warning), ("restartTarget", Weight::Note)]
    );
}

#[test]
fn rollout_uses_and_restarts_what_the_deployment_that_it_refers_to_uses() {
    let rollout = |of: &str| {
        let reference = format!("workloadRef: {{apiVersion: apps/v1, kind: Deployment, name: {of}}}");
        format!("apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {{name: app}}\nspec: {{{reference}}}\n")
    };
    let target = "rolloutRestartTargets: [{kind: Rollout, name: app}], secretName";
    let restarted = CREDENTIAL.replace("secretName", target);
    let deployment = workload("Deployment", ENV, "");
    assert_eq!(rules(&[&restarted, &deployment, &rollout("app")]), []);
    assert_eq!(rules(&[CREDENTIAL, &deployment, &rollout("app")]), [("env", Weight::Warning)]);
    assert_eq!(rules(&[&restarted, &deployment, &rollout("other")]), [("env", Weight::Warning)], "not in these files");
    let idle = workload("Deployment", "image: x", "");
    let found = rules(&[&restarted, &idle, &rollout("app"), &workload("Pod", MOUNT, VOLUME)]);
    assert_eq!(found, [("restartTarget", Weight::Warning)]);
}

#[test]
fn restart_target_that_does_not_use_the_secret_or_is_not_there_is_found() {
    let restarted =
        CREDENTIAL.replace("secretName", "rolloutRestartTargets: [{kind: Deployment, name: app}], secretName");
    assert_eq!(
        rules(&[&restarted, &workload("Deployment", "image: x", ""), &workload("Pod", MOUNT, VOLUME)]),
        [("restartTarget", Weight::Warning)]
    );
    let mut input = Input::default();
    manifests::add(&mut input, "file", &[&restarted, &workload("Pod", MOUNT, VOLUME)[..]].join("\n---\n"), None);
    let in_a_cluster: Vec<_> = report(&input).findings.iter().map(|finding| (finding.rule, finding.weight)).collect();
    assert_eq!(in_a_cluster, [("restartTarget", Weight::Warning)]);
}

#[test]
fn item_that_the_credential_does_not_write_is_found() {
    let items =
        |key: &str| format!("{{name: token, secret: {{secretName: agent-token, items: [{{key: {key}, path: t}}]}}}}");
    assert_eq!(rules(&[CREDENTIAL, &workload("Pod", MOUNT, &items("access_token"))]), []);
    assert_eq!(rules(&[CREDENTIAL, &workload("Pod", MOUNT, &items("token"))]), [("missingKey", Weight::Warning)]);
    let rendered = CREDENTIAL.replace("secretName", "secretTemplate: {data: {token: x}}, secretName");
    assert_eq!(rules(&[&rendered, &workload("Pod", MOUNT, &items("token"))]), []);
    let optional = items("token").replace("items", "optional: true, items");
    assert_eq!(rules(&[CREDENTIAL, &workload("Pod", MOUNT, &optional)]), []);
    let projected =
        "{name: token, projected: {sources: [{secret: {name: agent-token, items: [{key: gone, path: t}]}}]}}";
    assert_eq!(rules(&[CREDENTIAL, &workload("Pod", MOUNT, projected)]), [("missingKey", Weight::Warning)]);
}

#[test]
fn client_secret_in_a_pod_is_found_however_it_gets_there() {
    for (container, volume) in [
        ("env: [{name: S, valueFrom: {secretKeyRef: {name: agent-client, key: client_secret}}}]", ""),
        ("envFrom: [{secretRef: {name: agent-client}}]", ""),
        ("volumeMounts: [{name: c, mountPath: /c}]", "{name: c, secret: {secretName: agent-client}}"),
        ("image: x", "{name: c, projected: {sources: [{secret: {name: agent-client}}]}}"),
    ] {
        let found = rules(&[CREDENTIAL, &workload("Deployment", container, volume), &with_name("ok", MOUNT, VOLUME)]);
        assert_eq!(found, [("clientSecret", Weight::Warning)], "{container}");
    }
}

fn with_name(name: &str, container: &str, volume: &str) -> String {
    workload("Deployment", container, volume).replace("name: app", &format!("name: {name}"))
}

#[test]
fn secret_that_nothing_uses_is_a_note() {
    assert_eq!(rules(&[CREDENTIAL]), [("unused", Weight::Note)]);
    // what could not be read may use it
    let mut input = Input { unread: vec!["pods: forbidden".to_owned()], ..Input::default() };
    manifests::add(&mut input, "file", CREDENTIAL, None);
    assert!(report(&input).findings.is_empty());
    let elsewhere = workload("Pod", MOUNT, VOLUME).replace("name: app", "name: app, namespace: team-b");
    assert_eq!(rules(&[CREDENTIAL, &elsewhere]), [("unused", Weight::Note)], "another namespace");
}

#[test]
fn minimum_validity_shorter_than_the_delay_of_the_kubelet_is_found() {
    for (value, expected) in [("1m", true), ("119s", true), ("2m", false), ("5m", false)] {
        let credential = CREDENTIAL.replace("secretName", &format!("minimumValidity: {value}, secretName"));
        let found = rules(&[&credential, &workload("Pod", MOUNT, VOLUME)]);
        assert_eq!(found == [("minimumValidity", Weight::Warning)], expected, "{value}: {found:?}");
    }
}

#[test]
fn two_credentials_for_one_secret_are_both_named() {
    let other = CREDENTIAL.replace("name: agent}", "name: other}");
    let report = linted(&[CREDENTIAL, &other, &workload("Pod", MOUNT, VOLUME)]);
    let objects: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
    assert_eq!(objects, ["ITwinServiceCredential/agent", "ITwinServiceCredential/other"]);
    assert!(report.findings.iter().all(|finding| finding.rule == "sharedSecret"));
}

#[test]
fn token_secret_that_no_credential_writes_is_found() {
    let secret = |name: &str| SecretName { namespace: "team-a".to_owned(), name: name.to_owned() };
    let mut input = Input { token_secrets: vec![secret("agent-token"), secret("old")], ..Input::default() };
    let documents = [CREDENTIAL, &workload("Pod", MOUNT, VOLUME)[..]].join("\n---\n");
    manifests::add(&mut input, "file", &documents, Some("team-a"));
    let report = report(&input);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!((report.findings[0].rule, &*report.findings[0].object), ("noCredential", "Secret/old"));
}

#[test]
fn pods_of_one_owner_are_reported_once_and_those_of_a_listed_workload_not_at_all() {
    let pod = |name: &str, kind: &str, owner: &str| {
        let owner = format!("name: {name}, ownerReferences: [{{kind: {kind}, name: {owner}, controller: true}}]");
        workload("Pod", ENV, "").replace("name: app", &owner)
    };
    let pods: Vec<String> = (0..3).map(|number| pod(&format!("p{number}"), "Custom", "thing")).collect();
    let all = [CREDENTIAL, &pods[0], &pods[1], &pods[2]];
    assert_eq!(rules(&all), [("env", Weight::Warning)]);
    assert_eq!(linted(&all).findings[0].object, "Custom/thing");
    let deployment = workload("Deployment", MOUNT, VOLUME);
    let made = [pod("app-5d-x", "ReplicaSet", "app-5d"), pod("app-0", "Deployment", "app")];
    assert_eq!(rules(&[CREDENTIAL, &deployment, &made[0], &made[1]]), []);
}

#[test]
fn lists_and_other_objects_are_read_and_templates_are_named() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "credentials.itwin.dev/v1alpha1", "kind": "ITwinServiceCredential", "metadata": {"name": "a"},
         "spec": {"clientCredentialsRef": {"name": "c"}}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}},
    ]});
    assert_eq!(rules(&[&list.to_string()]), [("unused", Weight::Note)]);
    let mut input = Input { is_partial: true, ..Input::default() };
    manifests::add(&mut input, "chart/templates/a.yaml", "a: {{ .Values.x }}\n{{- end }}", None);
    manifests::add(&mut input, "b.yaml", "kind: Deployment\nspec: {template: {spec: {containers: 5}}}", None);
    manifests::add(&mut input, "c.yaml", "", None);
    manifests::add(&mut input, "d.yaml", "just text", None);
    let report = report(&input);
    assert_eq!(report.unread.len(), 2, "{:?}", report.unread);
    assert!(report.unread[0].contains("chart/templates/a.yaml is no valid YAML"), "{:?}", report.unread);
    assert_eq!(input.undecoded, 2);
}

#[test]
fn text_reads_as_documented() {
    let report = linted(&[CREDENTIAL, &workload("Deployment", ENV, "")]);
    assert_eq!(
        report.render(false),
        "warning team-a/Deployment/app\n  \
         env: container main reads it as variable TOKEN (Secret agent-token), which never changes in a\n       \
         running container: mount the Secret as a volume without subPath and read the file for each\n       \
         call, or name the workload in spec.rolloutRestartTargets of ITwinServiceCredential agent\n\
         1 credential and 1 workload checked: 1 warning, 0 notes.\n"
    );
}

#[test]
fn hostile_names_are_harmless_and_long_lines_are_broken() {
    let hostile = workload("Deployment", ENV, "").replace("name: main", "name: \"\\e[2J\\u202e\"");
    let text = linted(&[CREDENTIAL, &hostile]).render(false);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn deep_and_expanding_documents_end_with_a_message() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let ten = |name: &str| [name; 10].join(",");
    let mut bomb = format!("a: &a [{}]\n", ten("x"));
    for (name, of) in ["b", "c", "d", "e", "f", "g", "h"].into_iter().zip(["*a", "*b", "*c", "*d", "*e", "*f", "*g"]) {
        bomb.push_str(&format!("{name}: &{name} [{}]\n", ten(of)));
    }
    for text in [&deep, &bomb] {
        let mut input = Input::default();
        manifests::add(&mut input, "file", text, None);
        assert!(input.workloads.is_empty());
        assert_eq!(input.unread.len(), 1, "{:?}", input.unread);
    }
}

#[test]
fn large_files_are_read_and_a_limit_is_no_mistake_in_the_file() {
    let documents = format!("{CREDENTIAL}---").repeat(2_000);
    let values = format!("kind: ConfigMap\ndata:\n{}", "- 1\n".repeat(300_000));
    let aliases = format!("kind: ConfigMap\na: &a x\nb: [{}]\n", ["*a"; 200].join(", "));
    let mut input = Input::default();
    for (text, objects) in [(&documents, 2_000), (&values, 1), (&aliases, 1)] {
        assert_eq!(manifests::add(&mut input, "file", text, None), objects, "{:?}", input.unread);
    }
    assert_eq!((input.credentials.len(), input.unread.len()), (2_000, 0));
    let deep = format!("kind: ConfigMap\na:\n{}x\n", "- ".repeat(70));
    manifests::add(&mut input, "deep", &deep, None);
    manifests::add(&mut input, "deeper", &"[".repeat(1_000), None);
    for (unread, name) in input.unread.iter().zip(["deep", "deeper"]) {
        assert!(unread.starts_with(&format!("{name} has too many objects")), "{unread}");
        assert!(unread.ends_with("split the file"), "{unread}");
    }
    assert_eq!(input.unread.len(), 2);
}

#[test]
fn values_of_a_file_that_is_no_yaml_are_in_no_message() {
    let mut input = Input { is_partial: true, ..Input::default() };
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  client_secret: S3CR3T\n";
    manifests::add(&mut input, "twice.yaml", &format!("{secret}  client_secret: S3CR3T\n"), None);
    manifests::add(&mut input, "quotes.yaml", &format!("{secret}  other: \"S3CR3T\"S3CR3T\"\n"), None);
    manifests::add(&mut input, "type.yaml", "kind: Pod\nmetadata: {name: a}\nspec: S3CR3T\n", None);
    let text = report(&input).render(false);
    assert!(!text.contains("S3CR3T") && text.contains("quotes.yaml") && text.contains("type.yaml"), "{text}");
    assert!(input.undecoded >= 2, "{text}");
}

#[test]
fn secret_is_no_orphan_while_a_credential_could_not_be_decoded() {
    let secret = SecretName { namespace: "team".to_owned(), name: "token".to_owned() };
    let of = |undecoded| {
        let input = Input { token_secrets: vec![secret.clone()], undecoded, ..Input::default() };
        report(&input).findings.iter().filter(|finding| finding.rule == "noCredential").count()
    };
    assert_eq!((of(0), of(1)), (1, 0));
}
