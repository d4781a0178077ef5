//! The command line: `itwin-credential-operator run` and `crd`. Each flag has an environment variable.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

/// Keeps OAuth 2.0 access tokens of the iTwin Platform valid in Kubernetes Secrets.
#[derive(Debug, Parser)]
#[command(name = "itwin-credential-operator", version, arg_required_else_help = false)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the operator until it receives SIGTERM or SIGINT.
    Run(RunArgs),
    /// Prints the custom resource definitions as YAML.
    Crd,
}

/// Options of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Namespaces to watch, separated by commas. Default: all.
    #[arg(long, env = "ITWIN_OPERATOR_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub namespaces: Vec<String>,

    /// Watch the metadata of Secrets. Without it, the operator detects manual edits and changed client Secrets within 5
    /// minutes, and needs no permission to list or watch Secrets.
    #[arg(long, env = "ITWIN_OPERATOR_WATCH_SECRETS", default_value_t = true, action = ArgAction::Set)]
    pub watch_secrets: bool,

    /// Number of credentials that are reconciled at the same time, in all namespaces together. Token requests in flight
    /// do not count: each ITwinAuthority has its own limits.
    #[arg(long, env = "ITWIN_OPERATOR_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// Address of /metrics, /healthz and /readyz. The default is every address, of IPv4 and IPv6.
    #[arg(long, env = "ITWIN_OPERATOR_METRICS_ADDRESS", default_value = "[::]:8080")]
    pub metrics_address: SocketAddr,

    /// Elect a leader among several replicas through a Lease. Without it, run only one replica.
    #[arg(long, env = "ITWIN_OPERATOR_LEADER_ELECTION", default_value_t = true, action = ArgAction::Set)]
    pub leader_election: bool,

    /// Namespace of the Lease. Default: the namespace that the pod runs in. Required outside a pod.
    #[arg(long, env = "ITWIN_OPERATOR_LEASE_NAMESPACE", value_parser = namespace)]
    pub lease_namespace: Option<String>,

    /// Directory for the crash journal, a small file that names the credentials that are being reconciled, so that they
    /// are reconciled last after a crash. It should outlive the process and need not outlive the pod. Default: no crash
    /// journal.
    #[arg(long, env = "ITWIN_OPERATOR_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// Format of the log lines.
    #[arg(long, env = "ITWIN_OPERATOR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Lowest level of the log lines.
    #[arg(long, env = "ITWIN_OPERATOR_LOG_LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,

    /// Expose metrics for each credential, labeled with its name.
    #[arg(long, env = "ITWIN_OPERATOR_PER_CREDENTIAL_METRICS", default_value_t = true, action = ArgAction::Set)]
    pub per_credential_metrics: bool,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Lowest level of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let has_ends = text.starts_with(is_alphanumeric) && text.ends_with(is_alphanumeric);
    if has_ends && text.len() <= 63 && text.chars().all(|c| is_alphanumeric(c) || c == '-') {
        Ok(text.to_owned())
    } else {
        Err("must be the name of a namespace: at most 63 lower case letters, digits and '-', with a letter or digit at \
             both ends"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(arguments: &[&str]) -> Result<RunArgs, String> {
        let arguments = ["itwin-credential-operator", "run"].iter().chain(arguments);
        match Cli::try_parse_from(arguments) {
            Ok(Cli { command: Command::Run(run) }) => Ok(run),
            Ok(_) => Err("another command".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        let command = Cli::command();
        let run = command.find_subcommand("run").expect("run");
        for argument in run.get_arguments().filter(|argument| argument.get_id() != "help") {
            let flag = argument.get_long().expect("a long flag");
            let variable = format!("ITWIN_OPERATOR_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().and_then(|env| env.to_str()), Some(variable.as_str()));
        }
    }

    #[test]
    fn namespaces_are_a_list() {
        assert_eq!(
            run(&["--namespaces", "a,b-1"]).map(|run| run.namespaces),
            Ok(vec!["a".to_owned(), "b-1".to_owned()])
        );
        let longest = "a".repeat(63);
        assert!(run(&["--namespaces", &longest]).is_ok() && run(&["--namespaces", "0"]).is_ok());
        for wrong in ["A", "", "a,", "team-", "-team", "-", "a.b", "ä", &format!("{longest}a")] {
            let flag = format!("--namespaces={wrong}");
            assert!(run(&[&flag]).is_err_and(|error| error.contains("--namespaces")), "{wrong}");
        }
    }

    #[test]
    fn switches_take_a_value() {
        assert_eq!(run(&["--watch-secrets=false"]).map(|run| run.watch_secrets), Ok(false));
    }

    #[test]
    fn replicas_elect_a_leader_unless_configured_not_to() {
        assert_eq!(run(&[]).map(|run| run.leader_election), Ok(true));
        assert_eq!(run(&["--leader-election=false"]).map(|run| run.leader_election), Ok(false));
        assert!(run(&["--lease-namespace", "A"]).is_err_and(|error| error.contains("--lease-namespace")));
    }
}
