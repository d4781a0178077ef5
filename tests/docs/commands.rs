//! Commands of the documentation: who can run them, and what they must not do.

use crate::{documents, markdown, none, project, read};

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
