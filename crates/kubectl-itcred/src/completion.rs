//! What completes a command line, and the scripts that ask for it.
//!
//! The scripts call `kubectl-itcred __complete WORDS...`, which answers as kubectl expects of plugins: a candidate a
//! line, with a description after a tab, and a last line with a directive. The commands and flags are those of the
//! parser, so that they are never out of date.

use clap::{ArgAction, Command};

use crate::{args::Shell, plain::plain};

/// What the shell shall do with the candidates (the directives of `ShellCompDirective` of Cobra).
const NO_FILES: u8 = 4;
const FILES: u8 = 0;

/// What names are wanted of the cluster or the kubeconfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Credentials.
    Credentials,
    /// Namespaces.
    Namespaces,
    /// Contexts.
    Contexts,
}

/// What completes the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// These, each with a description.
    Known(Vec<(String, String)>),
    /// Names that must be read.
    Names(Wanted),
    /// Files.
    Files,
}

/// What completes the last of these words.
#[must_use]
pub fn candidates(cli: &Command, words: &[String]) -> Candidates {
    let (current, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut command = cli;
    let mut value_of = None;
    for word in before {
        value_of = match (value_of, word.starts_with('-')) {
            (Some(_), _) => None,
            (None, true) => flag(cli, command, word).filter(|_| !word.contains('=')),
            (None, false) => {
                command = command.find_subcommand(word).filter(|_| std::ptr::eq(command, cli)).unwrap_or(command);
                None
            }
        };
    }
    if let Some(flag) = value_of {
        return values(flag);
    }
    if let Some((name, _)) = current.split_once('=').filter(|(name, _)| name.starts_with("--")) {
        return match flag(cli, command, name).map(values) {
            Some(Candidates::Known(known)) => {
                Candidates::Known(known.into_iter().map(|(value, help)| (format!("{name}={value}"), help)).collect())
            }
            _ => Candidates::Files,
        };
    }
    if current.starts_with('-') {
        return Candidates::Known(flags(cli, command));
    }
    if std::ptr::eq(command, cli) {
        let shown = cli.get_subcommands().filter(|command| !command.is_hide_set());
        return Candidates::Known(
            shown.map(|command| (command.get_name().to_owned(), about(command.get_about()))).collect(),
        );
    }
    match command.get_positionals().next() {
        Some(argument) if !argument.get_possible_values().is_empty() => values(argument),
        Some(_) => Candidates::Names(Wanted::Credentials),
        None => Candidates::Known(Vec::new()),
    }
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// The flag with this name that takes a value.
fn flag<'a>(cli: &'a Command, command: &'a Command, word: &str) -> Option<&'a clap::Arg> {
    let name = word.split('=').next().unwrap_or_default();
    let is_named = |argument: &&clap::Arg| match name.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| name == format!("-{short}")),
    };
    // the value of some flags follows after an equals sign alone
    let takes_value = |argument: &&clap::Arg| {
        matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) && !argument.is_require_equals_set()
    };
    command.get_arguments().chain(cli.get_arguments()).filter(takes_value).find(is_named)
}

fn flags(cli: &Command, command: &Command) -> Vec<(String, String)> {
    let all = command.get_arguments().chain(cli.get_arguments().filter(|argument| argument.is_global_set()));
    let mut flags: Vec<_> = all
        .filter(|argument| !argument.is_hide_set())
        .filter_map(|argument| Some((format!("--{}", argument.get_long()?), about(argument.get_help()))))
        .collect();
    flags.sort();
    flags.dedup_by(|one, other| one.0 == other.0);
    flags
}

/// What a flag or an argument takes.
fn values(argument: &clap::Arg) -> Candidates {
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let named = |value: &clap::builder::PossibleValue| (value.get_name().to_owned(), about(value.get_help()));
        return Candidates::Known(possible.iter().map(named).collect());
    }
    match argument.get_long() {
        Some("namespace" | "operator-namespace") => Candidates::Names(Wanted::Namespaces),
        Some("context") => Candidates::Names(Wanted::Contexts),
        Some("kubeconfig" | "filename" | "certificate-authority" | "client-certificate" | "client-key") => {
            Candidates::Files
        }
        _ => Candidates::Known(Vec::new()),
    }
}

/// The answer to a script: the candidates that begin with the last word.
#[must_use]
pub fn answer(candidates: &[(String, String)], current: &str, takes_files: bool) -> String {
    let mut text: String = candidates
        .iter()
        .filter(|(value, _)| value.starts_with(current))
        .map(|(value, help)| {
            let tab = if help.is_empty() { "" } else { "\t" };
            format!("{}{tab}{}\n", plain(value), plain(help))
        })
        .collect();
    text.push_str(&format!(":{}\n", if takes_files { FILES } else { NO_FILES }));
    text
}

/// The script for a shell.
#[must_use]
pub fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        Shell::Kubectl => KUBECTL,
    }
}

const BASH: &str = r#"# bash completion of kubectl-itcred; kubectl completes `kubectl itcred` by kubectl_complete-itcred
_kubectl_itcred() {
    local line rest=$COMP_LINE words=() count=0 gap word prefix
    # bash breaks words at = and : too, and replaces the last piece alone
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        gap=${rest%%[![:space:]]*}
        rest=${rest#"$gap"}
        rest=${rest#"$word"}
        if [[ -n $gap || $count -eq 0 ]]; then
            words[count++]=$word
        else
            words[count-1]+=$word
        fi
    done
    case $word in
        *[!=:]*) prefix=${words[count-1]%"$word"} ;;
        *) prefix=${words[count-1]} ;;
    esac
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :*) ;;
            *)
                line=${line%%$'\t'*}
                COMPREPLY+=("${line#"$prefix"}")
                ;;
        esac
    done < <(kubectl-itcred __complete -- "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _kubectl_itcred kubectl-itcred
"#;

const ZSH: &str = r#"#compdef kubectl-itcred
# zsh completion of kubectl-itcred; kubectl completes `kubectl itcred` by kubectl_complete-itcred
_kubectl_itcred() {
    local line
    local -a candidates
    while IFS= read -r line; do
        case $line in
            :*) ;;
            *) candidates+=("${${line//:/\\:}/$'\t'/:}") ;;
        esac
    done < <(kubectl-itcred __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#candidates} )); then
        _describe 'kubectl-itcred' candidates
    else
        _files
    fi
}
compdef _kubectl_itcred kubectl-itcred
"#;

const FISH: &str = r#"# fish completion of kubectl-itcred; kubectl completes `kubectl itcred` by kubectl_complete-itcred
function __kubectl_itcred
    set -l current (commandline -ct)
    set -l words (commandline -opc) $current
    for line in (kubectl-itcred __complete -- $words[2..-1] 2>/dev/null)
        switch $line
            case :0
                set -l flag (string match --regex '^--[^=]*=' -- $current)
                for file in (__fish_complete_path (string replace --regex '^--[^=]*=' '' -- $current))
                    printf '%s\n' "$flag$file"
                end
            case ':*'
            case '*'
                printf '%s\n' $line
        end
    end
end
complete -c kubectl-itcred -f -a '(__kubectl_itcred)'
"#;

const KUBECTL: &str = r#"#!/bin/sh
# Install it as kubectl_complete-itcred in a folder of PATH: kubectl calls it to complete `kubectl itcred`.
exec kubectl-itcred __complete -- "$@"
"#;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn complete(words: &[&str]) -> Candidates {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        candidates(&Cli::command(), &words)
    }

    fn known(words: &[&str]) -> Vec<String> {
        match complete(words) {
            Candidates::Known(known) => known.into_iter().map(|(value, _)| value).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    #[test]
    fn commands_flags_values_and_names_are_completed() {
        assert!(known(&[""]).contains(&"timeline".to_owned()));
        assert!(!known(&[""]).contains(&"__complete".to_owned()));
        let flags = known(&["token", "--"]);
        assert!(flags.contains(&"--raw".to_owned()) && flags.contains(&"--namespace".to_owned()), "{flags:?}");
        assert_eq!(known(&["status", "-o", ""]), ["table", "wide", "json", "yaml"]);
        assert_eq!(known(&["status", "--output=j"])[2], "--output=json");
        assert_eq!(known(&["completion", ""]), ["bash", "zsh", "fish", "kubectl"]);
        assert_eq!(complete(&["check", "--offline", ""]), Candidates::Names(Wanted::Credentials));
        assert_eq!(complete(&["-n", "team", "check", "x"]), Candidates::Names(Wanted::Credentials));
        assert_eq!(complete(&["status", "-n", ""]), Candidates::Names(Wanted::Namespaces));
        assert_eq!(complete(&["--context", ""]), Candidates::Names(Wanted::Contexts));
        assert_eq!(complete(&["lint", "-f", ""]), Candidates::Files);
        assert_eq!(complete(&["check", "--insecure-skip-tls-verify", ""]), Candidates::Names(Wanted::Credentials));
        assert_eq!(known(&["check", "--token", ""]), Vec::<String>::new());
        assert_eq!(known(&["rotate", "a", "--expires-at", ""]), Vec::<String>::new());
        assert!(known(&[]).contains(&"status".to_owned()));
    }

    #[test]
    fn answer_has_the_form_that_kubectl_reads() {
        let all = [("status".to_owned(), "Show".to_owned()), ("token".to_owned(), String::new())];
        assert_eq!(answer(&all, "s", false), "status\tShow\n:4\n");
        assert_eq!(answer(&all, "", true), "status\tShow\ntoken\n:0\n");
        assert_eq!(answer(&[("\u{1b}[2J\n".to_owned(), "a\tb".to_owned())], "", false), "?[2J \ta b\n:4\n");
    }

    #[test]
    fn scripts_call_the_program() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Kubectl] {
            assert!(script(shell).contains("kubectl-itcred __complete -- "), "{shell:?}");
        }
    }
}
