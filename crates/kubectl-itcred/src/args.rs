//! The command line. Each command's help shows an example.

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use itwin_api::{duration, time};

use crate::{connection::Connection, output::Form};

/// Shows, explains and renews the tokens of ITwinServiceCredentials, with your own permissions.
///
/// Exit code: 0 if all is well, 1 if there is something to do, 2 for wrong use and for errors.
///
/// Exit code 2 also means that nothing was found, but something could not be checked.
#[derive(Parser, Debug)]
#[command(name = "kubectl itcred", bin_name = "kubectl itcred", version)]
// as with kubectl, the last of a repeated flag counts
#[command(args_override_self = true)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Command,
}

/// The form of the output.
#[derive(Args, Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Shown {
    /// The form of the output.
    ///
    /// Default: table.
    // with -h, the default that clap adds would make the line too long
    #[arg(short, long, value_enum, default_value_t, hide_default_value = true)]
    pub output: Form,
}

/// Which credentials.
#[derive(Args, Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Targets {
    /// Names of credentials.
    #[arg(
        value_name = "NAME",
        required_unless_present_any = ["selector", "all"],
        conflicts_with_all = ["selector", "all"]
    )]
    pub names: Vec<String>,
    /// Those with these labels.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// All of the namespace.
    #[arg(long)]
    pub all: bool,
    /// With --all or --selector: in all namespaces.
    #[arg(short = 'A', long, conflicts_with = "names")]
    pub all_namespaces: bool,
}

/// A command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show whose token is in danger, the first to be lost first.
    #[command(after_help = "Example:\n  kubectl itcred status -A\n\nExit code 1 if a token is in danger or lost.")]
    #[allow(missing_docs)]
    Status {
        /// Names of credentials. Default: all of the namespace.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Those with these labels.
        #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "names")]
        selector: Option<String>,
        /// In all namespaces.
        #[arg(short = 'A', long, conflicts_with = "names")]
        all_namespaces: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Draw a token's time to scale, with the last failures.
    #[command(after_help = "Example:\n  kubectl itcred timeline render-agent")]
    #[allow(missing_docs)]
    Timeline {
        /// The credential.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Request new tokens now, wait, and say what happened.
    #[command(after_help = "Example:\n  kubectl itcred renew render-agent\n  kubectl itcred renew -l team=render\n\n\
                      Exit code 1 if a credential got no new token, 2 if one could not be asked for.")]
    #[allow(missing_docs)]
    Renew {
        #[command(flatten)]
        targets: Targets,
        /// How long to wait for the operator.
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = span)]
        timeout: Duration,
        #[command(flatten)]
        shown: Shown,
    },
    /// Stop the renewal of tokens; the Secrets stay as they are.
    #[command(after_help = "Example:\n  kubectl itcred suspend render-agent")]
    #[allow(missing_docs)]
    Suspend {
        #[command(flatten)]
        targets: Targets,
        #[command(flatten)]
        shown: Shown,
    },
    /// Go on with the renewal of tokens.
    #[command(after_help = "Example:\n  kubectl itcred resume --all")]
    #[allow(missing_docs)]
    Resume {
        #[command(flatten)]
        targets: Targets,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show the claims of a token; with --raw, print the token alone.
    #[command(after_help = "Example:\n  kubectl itcred token render-agent\n\nExit code 1 if the token has expired.")]
    #[allow(missing_docs)]
    Token {
        /// The credential.
        #[arg(value_name = "NAME")]
        name: String,
        /// Print the token alone. It is a secret: keep it out of histories and logs.
        #[arg(long, conflicts_with = "output")]
        raw: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Say why a credential does not work, in the order in which one would search.
    #[command(after_help = "Example:\n  kubectl itcred check render-agent\n\n\
                      Exit code 1 if it found a problem; otherwise 2 if something could not be checked.")]
    #[allow(missing_docs)]
    Check {
        /// The credential.
        #[arg(value_name = "NAME")]
        name: String,
        /// The operator's namespace.
        ///
        /// Its Lease is there.
        #[arg(long, value_name = "NAME", default_value = "itwin-credential-operator")]
        operator_namespace: String,
        /// Do not call the authorization server: signatures are not checked.
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Find workloads that keep an old token, and other mistakes.
    #[command(after_help = "Example:\n  kubectl itcred lint -A\n  kubectl itcred lint -f manifests/\n\n\
                      Exit code 1 if it found a warning; otherwise 2 if something could not be read.")]
    #[allow(missing_docs)]
    Lint {
        /// In all namespaces.
        #[arg(short = 'A', long)]
        all_namespaces: bool,
        /// Manifests in place of a cluster: files, folders, or - for standard input.
        #[arg(short = 'f', long = "filename", value_name = "PATH", conflicts_with = "all_namespaces")]
        filenames: Vec<PathBuf>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Replace the client secret in the order in which no token is lost.
    #[command(after_help = "Example:\n  kubectl itcred rotate render-agent\n\n\
                      The new client secret is read from standard input, never from an argument.\n\
                      Exit code 1 if there is no token with it yet.")]
    #[allow(missing_docs)]
    Rotate {
        /// The credential. Others with the same client Secret are renewed too.
        #[arg(value_name = "NAME")]
        name: String,
        /// When the new secret expires, in RFC 3339; written to the client Secret.
        #[arg(long, value_name = "TIME", value_parser = instant)]
        expires_at: Option<DateTime<Utc>>,
        /// How long to wait for the operator after each step.
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = span)]
        timeout: Duration,
        #[command(flatten)]
        shown: Shown,
    },
    /// Print a script that completes commands, flags and names.
    #[command(after_help = "Example:\n  source <(kubectl itcred completion bash)\n\
                      \x20 kubectl itcred completion kubectl > ~/.local/bin/kubectl_complete-itcred")]
    #[allow(missing_docs)]
    Completion {
        /// The shell: bash, zsh or fish; or kubectl, for kubectl_complete-itcred, which serves each.
        // the list that clap adds would make the line too long
        #[arg(value_enum, hide_possible_values = true)]
        shell: Shell,
    },
    /// What completion scripts call.
    #[command(name = "__complete", hide = true)]
    #[allow(missing_docs)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What a completion script is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
    Kubectl,
}

/// A duration as kubectl takes it: `90s`, `5m`, or a number of seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let with_unit = if text.bytes().all(|byte| byte.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() };
    let span: Duration = duration::parse(&with_unit)?.into();
    Ok(span.min(LONGEST))
}

/// A time to wait.
fn span(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        span => Ok(span),
    }
}

/// No command waits longer than this.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 3600);

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    time::from_rfc3339(text).ok_or_else(|| "expected a time in RFC 3339 such as 2027-01-31T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_command_shows_an_example_within_100_columns() {
        // what is printed, which the help that a command renders by itself is not
        let printed = |arguments: &[&str]| {
            let error = Cli::try_parse_from([&["kubectl-itcred"], arguments].concat()).expect_err("help");
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{arguments:?}");
            let help = error.to_string();
            let wide = help.lines().find(|line| line.chars().count() > crate::table::WIDTH);
            assert_eq!(wide, None, "{arguments:?}");
            help
        };
        printed(&["--help"]);
        printed(&["-h"]);
        let cli = Cli::command();
        for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let help = printed(&[name, "--help"]);
            assert!(help.contains(&format!("kubectl itcred {name}")), "{name}: {help}");
            assert!(help.contains("Example:"), "{name}");
            printed(&[name, "-h"]);
        }
    }

    #[test]
    fn documented_flags_exist() {
        let mut cli = Cli::command();
        cli.build();
        let flags: std::collections::BTreeSet<String> = cli
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .filter_map(clap::Arg::get_long)
            .map(str::to_owned)
            .collect();
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kubectl-itcred.md");
        let page = std::fs::read_to_string(page).expect("the page");
        let spans = page.split('`').filter(|span| span.starts_with("--") || span.starts_with("kubectl itcred"));
        let named: Vec<&str> = spans
            .flat_map(str::split_whitespace)
            .filter_map(|word| word.strip_prefix("--"))
            .map(|flag| flag.split('=').next().unwrap_or_default())
            .collect();
        assert!(named.len() > 10, "{named:?}");
        for flag in named {
            assert!(flags.contains(flag), "there is no flag --{flag}");
        }
    }

    #[test]
    fn flags_of_the_connection_are_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kubectl-itcred.md");
        let page = std::fs::read_to_string(page).expect("the page");
        let cli = Cli::command();
        let flags: Vec<&str> = cli.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(flags.contains(&"as-user-extra"), "{flags:?}");
        for flag in flags.into_iter().filter(|flag| !["help", "version"].contains(flag)) {
            assert!(page.contains(&format!("`--{flag}`")), "the page does not name --{flag}");
        }
    }

    #[test]
    fn times_to_wait_are_more_than_0() {
        let parse = |text: &str| {
            let cli = Cli::try_parse_from(["kubectl-itcred", "renew", "a", "--timeout", text]).ok()?;
            if let Command::Renew { timeout, .. } = cli.command { Some(timeout) } else { None }
        };
        assert_eq!((parse("5"), parse("999999h")), (Some(Duration::from_secs(5)), Some(LONGEST)));
        assert_eq!((parse("0"), parse("0s")), (None, None));
    }

    #[test]
    fn last_of_a_repeated_flag_counts_as_with_kubectl() {
        let arguments = ["kubectl-itcred", "status", "-n", "a", "-n", "b", "--as-group", "c", "--as-group", "d"];
        let connection = Cli::try_parse_from(arguments).expect("valid").connection;
        assert_eq!(connection.namespace.as_deref(), Some("b"));
        assert_eq!(connection.as_group, ["c", "d"]);
    }

    #[test]
    fn credentials_are_named_or_selected_and_not_both() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["kubectl-itcred"], arguments].concat()).is_ok();
        assert!(parse(&["renew", "a", "b"]) && parse(&["renew", "--all", "-A"]) && parse(&["renew", "-l", "a=b"]));
        assert!(!parse(&["renew"]) && !parse(&["renew", "a", "--all"]) && !parse(&["suspend", "a", "-l", "b"]));
        assert!(!parse(&["renew", "a", "-A"]));
        assert!(!parse(&["rotate", "a", "the-secret"]), "a secret is no argument");
        assert!(!parse(&["token", "a", "--raw", "-o", "json"]));
    }
}
