//! The documentation matches the code: reasons, links, objects, flags, metrics, values, tests, terms. No server is
//! needed; tests/documentation.rs runs its commands.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

mod examples;
mod images;
mod markdown;
mod promises;
mod reference;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::CommandFactory;
use itwin_api::{authority::ITwinAuthority, conditions::Reason, credential::ITwinServiceCredential};
use itwin_core::template;
use itwin_credential_operator::{
    config::args::Cli,
    metrics::{CredentialGauges, CredentialLabels, Metrics},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The longest line of prose.
const WIDTH: usize = 120;
/// Flags of other programs that are alone in a code span.
const FLAGS_OF_OTHERS: [&str; 17] = [
    // kubectl
    "namespace",
    "all-namespaces",
    "dry-run",
    "from-file",
    "sort-by",
    // Helm
    "wait",
    "skip-tests",
    "take-ownership",
    "no-hooks",
    "server-side",
    "force-conflicts",
    "rollback-on-failure",
    // cosign
    "key",
    "insecure-ignore-tlog",
    // kube-state-metrics
    "custom-resource-state-config-file",
    // kind
    "name",
    // kube-apiserver
    "encryption-provider-config",
];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: impl AsRef<Path>) -> String {
    std::fs::read_to_string(file.as_ref()).expect("the file is there")
}

/// Every Markdown file, by its path in the project.
fn documents() -> BTreeMap<PathBuf, String> {
    let files = markdown::files(project()).into_iter();
    files.map(|file| (file.strip_prefix(project()).expect("within").to_path_buf(), read(&file))).collect()
}

/// Fails with all problems, not only with the first.
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn api_reference_is_current() {
    let file = project().join("docs/api-reference.md");
    let wanted = reference::document();
    if std::env::var_os("WRITE_API_REFERENCE").is_some() {
        std::fs::write(&file, &wanted).expect("written");
    }
    let is = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(is == wanted, "docs/api-reference.md is stale: run `make generate`");
}

#[test]
fn every_reason_is_explained_and_every_explanation_has_its_reason() {
    let text = read(project().join("docs/troubleshooting.md"));
    let section = text.split("\n## ").find(|section| section.starts_with("Reasons\n")).expect("## Reasons");
    let explained: Vec<String> =
        markdown::headings(section).into_iter().filter(|(level, _)| *level == 3).map(|(_, words)| words).collect();
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let documented: BTreeSet<&str> = explained.iter().map(String::as_str).collect();
    assert_eq!(documented, reasons);
    assert_eq!(explained.len(), documented.len(), "a reason is explained twice");
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let mut wrong = Vec::new();
    for (file, text) in &documents {
        for link in markdown::links(text).iter().filter(|link| !link.contains("://")) {
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { file.clone() } else { normal(&file.parent().unwrap_or(Path::new("")).join(path)) };
            if !project().join(&target).exists() {
                wrong.push(format!("{}: {link} does not exist", file.display()));
            } else if !fragment.is_empty() {
                let text = documents.get(&target).map_or("", String::as_str);
                let anchors = markdown::headings(text).into_iter().map(|(_, words)| markdown::anchor(&words));
                if !anchors.into_iter().any(|anchor| anchor == fragment) {
                    wrong.push(format!("{}: {link} has no such heading", file.display()));
                }
            }
        }
    }
    none(&wrong);
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path {
        if part == ".." {
            normal.pop();
        } else if part != "." {
            normal.push(part);
        }
    }
    normal
}

#[test]
fn lines_of_prose_are_short() {
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        for (number, line) in markdown::prose(&text).lines().enumerate() {
            if line.chars().count() > WIDTH && !line.trim_start().starts_with('|') && !line.contains("](") {
                wrong.push(format!("{}:{} is longer than {WIDTH}", file.display(), number + 1));
            }
        }
    }
    none(&wrong);
}

/// The YAML of all documents: its place, and each object in it.
fn yaml() -> Vec<(String, String, Vec<Value>)> {
    let mut found = Vec::new();
    for (file, text) in documents() {
        let blocks = markdown::blocks(&text);
        let written = blocks.iter().filter(|block| block.language == "yaml").map(|block| (block.line, &block.text));
        let mut texts: Vec<(usize, String)> = written.map(|(line, text)| (line, text.clone())).collect();
        for block in blocks.iter().filter(|block| block.language == "console") {
            for command in markdown::commands(block) {
                let here = command.text.split_once("<<").and_then(|(_, rest)| rest.split_once('\n'));
                let here = here.and_then(|(_, rest)| rest.rsplit_once('\n'));
                texts.extend(here.map(|(text, _)| (command.line, text.to_owned())));
            }
        }
        for (line, text) in texts {
            let place = format!("{}:{line}", file.display());
            let objects = serde_saphyr::from_multiple(&text);
            let objects = objects.unwrap_or_else(|error| panic!("{place} is no YAML: {error}"));
            found.push((place, text, objects));
        }
    }
    found
}

/// Reports what of `written` is not in `decoded`: a type drops a field that it does not know.
fn lost(written: &Value, decoded: &Value, path: &str, wrong: &mut Vec<String>) {
    match (written, decoded) {
        (Value::Object(written), Value::Object(decoded)) => {
            for (name, value) in written {
                match decoded.get(name) {
                    Some(decoded) => lost(value, decoded, &format!("{path}.{name}"), wrong),
                    None => wrong.push(format!("{path}.{name} is no field")),
                }
            }
        }
        (Value::Array(written), Value::Array(decoded)) => {
            for (at, (written, decoded)) in written.iter().zip(decoded).enumerate() {
                lost(written, decoded, &format!("{path}[{at}]"), wrong);
            }
        }
        _ => {}
    }
}

fn through<T: DeserializeOwned + Serialize>(object: &Value, place: &str, wrong: &mut Vec<String>) {
    match serde_json::from_value::<T>(object.clone()) {
        Err(error) => wrong.push(format!("{place}: {error}")),
        Ok(typed) => lost(object, &serde_json::to_value(typed).expect("JSON"), place, wrong),
    }
}

#[test]
fn custom_resources_are_valid() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, _, objects) in yaml() {
        for object in objects {
            match object["kind"].as_str() {
                Some("ITwinAuthority") => through::<ITwinAuthority>(&object, &place, &mut wrong),
                Some("ITwinServiceCredential") => {
                    through::<ITwinServiceCredential>(&object, &place, &mut wrong);
                    let credential = serde_json::from_value::<ITwinServiceCredential>(object).ok();
                    let templates = credential.and_then(|credential| credential.spec.secret_template);
                    let refused = template::check(templates.as_ref()).err();
                    wrong.extend(refused.map(|rejection| format!("{place}: {}", rejection.message)));
                }
                _ => continue,
            }
            count += 1;
        }
    }
    none(&wrong);
    assert!(count > 8, "only {count} objects were found");
}

#[test]
fn flags_and_variables_exist() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("run");
    let flags: BTreeSet<&str> = run.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let variables: BTreeSet<String> = run
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let mut wrong = Vec::new();
    // the page of the plugin names the plugin's flags: its own tests check them
    let of_plugin = std::path::Path::new("docs/kubectl-itcred.md");
    for (file, text) in documents().into_iter().filter(|(file, _)| file != of_plugin) {
        for span in markdown::code_spans(&text) {
            // a flag of the operator is alone or follows the name of the program; those of kubectl and Helm follow
            // theirs
            let is_alone = span.starts_with("--");
            if is_alone || span.starts_with("itwin-credential-operator run") {
                let named = span.split_whitespace().filter_map(|word| word.strip_prefix("--"));
                let named = named.map(|flag| flag.split('=').next().unwrap_or_default());
                let unknown =
                    named.filter(|flag| !flags.contains(flag) && *flag != "help" && !FLAGS_OF_OTHERS.contains(flag));
                wrong.extend(unknown.map(|flag| format!("{}: there is no flag --{flag}", file.display())));
            }
        }
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named = words.filter(|word| word.starts_with("ITWIN_OPERATOR_") && *word != "ITWIN_OPERATOR_");
        let unknown = named.filter(|word| !variables.contains(*word));
        wrong.extend(unknown.map(|name| format!("{}: there is no variable {name}", file.display())));
    }
    none(&wrong);
}

/// The names of all series that the operator exposes once everything has happened once, and of their families.
fn exposed() -> BTreeSet<String> {
    let metrics = Arc::new(Metrics::new(true).expect("metrics"));
    let labels = CredentialLabels { namespace: "a", name: "b", uid: "uid", authority: "c" };
    metrics.expect_credential("a", "b", "uid");
    let (expires_at, renew_at) = (Some(1.0), Some(1.0));
    let gauges = CredentialGauges {
        expires_at,
        renew_at,
        client_expires_at: Some(1.0),
        ready: true,
        suspended: false,
        failures: 0,
    };
    metrics.credential(labels, gauges);
    metrics.authority("c", true, Some(1));
    metrics.watch("secrets", 1);
    metrics.token_request("c", "success", Duration::from_secs(1));
    metrics.request_waited("c", Duration::from_secs(1));
    metrics.queue("c", 1, true);
    metrics.reconciled("success", Duration::from_secs(1));
    metrics.kubernetes_request("get", "secrets", "success");
    let text: String = metrics.pages().expect("text").collect();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    families.chain(samples).map(str::to_owned).collect()
}

#[test]
fn metrics_exist_and_are_all_documented() {
    let exposed = exposed();
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named = words.filter(|word| word.starts_with("itwin_") || word.starts_with("process_"));
        let unknown = named.filter(|word| !exposed.contains(*word));
        wrong.extend(unknown.map(|name| format!("{}: there is no metric {name}", file.display())));
    }
    none(&wrong);
    let operating = read(project().join("docs/operating.md"));
    let own = exposed.iter().filter(|name| name.starts_with("itwin_"));
    let own = own.filter(|name| !["_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix)));
    let missing: Vec<&String> = own.filter(|name| !operating.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/operating.md does not describe {missing:?}");
}

/// Whether the schema of the chart accepts a value at this path.
fn takes(schema: &Value, path: &[&str]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    let name = name.trim_end_matches(|c: char| c == ']' || c == '[' || c.is_ascii_digit());
    if schema["properties"][name].is_object() {
        return takes(&schema["properties"][name], rest);
    }
    match &schema["additionalProperties"] {
        Value::Bool(false) => false,
        Value::Object(_) => takes(&schema["additionalProperties"], rest),
        // the schema does not describe the content
        _ => !schema["properties"].is_object(),
    }
}

/// The paths of the leaves of values; a leaf is anything but a map.
fn leaves(values: &Value, path: &str, found: &mut Vec<String>) {
    match values.as_object().filter(|map| !map.is_empty()) {
        None => found.push(path.to_owned()),
        Some(map) => {
            for (name, value) in map {
                leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}\u{0}{name}") }, found);
            }
        }
    }
}

#[test]
fn values_of_the_chart_exist() {
    let schema: Value =
        serde_json::from_str(&read(project().join("charts/itwin-credential-operator/values.schema.json")))
            .expect("JSON");
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut check = |place: String, path: &str, separator: char| {
        count += 1;
        if !takes(&schema, &path.split(separator).collect::<Vec<_>>()) {
            wrong.push(format!("{place}: there is no value {}", path.replace(separator, ".")));
        }
    };
    for (place, text, objects) in yaml() {
        if text.starts_with("# values") {
            for values in &objects {
                let mut found = Vec::new();
                leaves(values, "", &mut found);
                found.iter().for_each(|path| check(place.clone(), path, '\u{0}'));
            }
        }
    }
    for (file, text) in documents() {
        for block in markdown::blocks(&text).iter().filter(|block| block.language == "console") {
            for command in markdown::commands(block) {
                let mut words = command.text.split_whitespace();
                while let Some(word) = words.next() {
                    let settings = match word {
                        "--set" | "--set-file" | "--set-string" => words.next().unwrap_or_default(),
                        _ => continue,
                    };
                    let settings = settings.trim_matches('\'');
                    for path in settings.split(',').filter_map(|setting| setting.split_once('=')).map(|(path, _)| path)
                    {
                        check(format!("{}:{}", file.display(), command.line), path, '.');
                    }
                }
            }
        }
    }
    // in prose, a code span that starts with a section of values.yaml and has a dot is a value
    let sections: Vec<&String> = schema["properties"].as_object().expect("values").keys().collect();
    for (file, text) in
        documents().into_iter().filter(|(file, _)| file.starts_with("docs") || file.ends_with("README.md"))
    {
        for span in markdown::code_spans(&text) {
            let path = span.split(['=', ' ', ':']).next().unwrap_or_default();
            let section = path.split('.').next().unwrap_or_default();
            if path.contains('.') && sections.iter().any(|name| *name == section) && !path.ends_with(".yaml") {
                check(file.display().to_string(), path, '.');
            }
        }
    }
    none(&wrong);
    assert!(count > 20, "only {count} values were found");
}

/// Names that the chart makes from the name of the release are looked up by label.
#[test]
fn commands_work_with_another_name_of_the_release() {
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        for block in markdown::blocks(&text).iter().filter(|block| block.language == "console") {
            for command in markdown::commands(block).iter().filter(|command| !command.text.starts_with("helm ")) {
                for name in [
                    "deployment/itwin",
                    "deployments/itwin",
                    "operator:itwin",
                    "serviceaccount/itwin",
                    "/itwin-credential-operator-",
                ] {
                    if command.text.contains(name) {
                        wrong.push(format!("{}:{} depends on the name of the release", file.display(), command.line));
                    }
                }
            }
        }
    }
    none(&wrong);
}

/// `kubectl apply` copies what it applies into an annotation.
#[test]
fn no_command_applies_a_client_secret() {
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        for block in markdown::blocks(&text).iter().filter(|block| block.language == "console") {
            for command in markdown::commands(block).iter().filter(|command| command.text.contains("create secret")) {
                if command.text.contains("kubectl apply") {
                    wrong.push(format!(
                        "{}:{} copies a client secret into an annotation",
                        file.display(),
                        command.line
                    ));
                }
            }
        }
    }
    none(&wrong);
}

/// A user of a namespace cannot read authorities: the entry of each reason starts with what that user can run.
#[test]
fn reasons_start_with_what_a_user_of_the_namespace_can_run() {
    let text = read(project().join("docs/troubleshooting.md"));
    let section = text.split("\n## ").find(|section| section.starts_with("Reasons\n")).expect("## Reasons");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for entry in section.split("\n### ").skip(1) {
        let name = entry.lines().next().unwrap_or_default();
        let user = entry.split("s an administrator").next().unwrap_or_default();
        let closed = user.matches("```").count() % 2 == 0;
        let user = if closed { user.to_owned() } else { format!("{user}\n```\n") };
        for block in markdown::blocks(&user).iter().filter(|block| block.language == "console") {
            count += 1;
            for command in markdown::commands(block) {
                let administrators = ["itauth", "namespaces", "--namespace itwin", "--as=", "--all-namespaces"];
                if administrators.iter().any(|part| command.text.contains(part)) {
                    wrong.push(format!("{name}: {} needs an administrator", command.text));
                }
            }
        }
        // the reason of an authority is one that users do not see
        let shows_authority = entry.contains("itauth") && name != "ConfigurationInvalid";
        if shows_authority && !user.contains("```console") {
            wrong.push(format!("{name} starts with the part of the administrator"));
        }
    }
    assert!(count > 10);
    none(&wrong);
}

#[test]
fn console_blocks_hold_commands() {
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        for block in markdown::blocks(&text) {
            let place = format!("{}:{}", file.display(), block.line);
            match block.language.as_str() {
                "console" if !block.text.starts_with("$ ") => wrong.push(format!("{place} does not start with `$ `")),
                "sh" | "shell" | "bash" | "" => wrong.push(format!("{place}: use console, yaml, text or another type")),
                _ => {}
            }
        }
    }
    none(&wrong);
}
