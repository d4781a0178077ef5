//! The commands: each reads what it needs, lets pure functions decide, and prints.

pub mod check;
mod common;
mod complete;
pub mod lint;
pub mod renew;
pub mod rotate;
pub mod status;
pub mod suspend;
pub mod timeline;
pub mod token;

use crate::{
    args::{Cli, Command},
    completion, output,
    problem::{Outcome, Problem},
    session::Session,
};

/// Runs a command.
///
/// # Errors
/// Why it cannot be done.
pub async fn run(cli: Cli) -> Result<Outcome, Problem> {
    let Cli { connection, command } = cli;
    let session = || Session::new(&connection);
    match command {
        Command::Status { names, selector, all_namespaces, shown } => {
            status::run(&session()?, &names, selector.as_deref(), all_namespaces, shown.output).await
        }
        Command::Timeline { name, shown } => timeline::run(&session()?, &name, shown.output).await,
        Command::Renew { targets, timeout, shown } => renew::run(&session()?, &targets, timeout, shown.output).await,
        Command::Suspend { targets, shown } => suspend::run(&session()?, &targets, true, shown.output).await,
        Command::Resume { targets, shown } => suspend::run(&session()?, &targets, false, shown.output).await,
        Command::Token { name, raw, shown } => token::run(&session()?, &name, raw, shown.output).await,
        Command::Check { name, operator_namespace, offline, shown } => {
            check::run(&session()?, &name, &operator_namespace, offline, shown.output).await
        }
        Command::Lint { all_namespaces, filenames, shown } => {
            let namespace = connection.namespace.as_deref();
            lint::run(session, all_namespaces, &filenames, namespace, shown.output).await
        }
        Command::Rotate { name, expires_at, timeout, shown } => {
            rotate::run(&session()?, &name, expires_at, timeout, shown.output).await
        }
        Command::Completion { shell } => {
            output::print(completion::script(shell));
            Ok(Outcome::Fine)
        }
        Command::Complete { words } => {
            complete::run(&words).await;
            Ok(Outcome::Fine)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        args::Targets,
        fake::{self, Answer},
        output::Form,
    };

    /// What each command says to a user of a server that answers all requests like this.
    async fn said(answer: impl Fn() -> Answer + Clone + Send + Sync + 'static) -> Vec<String> {
        let connected = || {
            let answer = answer.clone();
            fake::session(move |_| answer())
        };
        let (session, form, within) = (connected(), Form::Table, Duration::ZERO);
        let named = Targets { names: vec!["agent".to_owned()], ..Targets::default() };
        let all = Targets { all: true, ..Targets::default() };
        let ended = [
            status::run(&session, &[], None, false, form).await,
            status::run(&session, &named.names, None, false, form).await,
            timeline::run(&session, "agent", form).await,
            renew::run(&session, &named, within, form).await,
            renew::run(&session, &all, within, form).await,
            suspend::run(&session, &named, true, form).await,
            suspend::run(&session, &all, false, form).await,
            token::run(&session, "agent", true, form).await,
            check::run(&session, "agent", "operator", true, form).await,
            lint::run(|| Ok(connected()), false, &[], None, form).await,
            rotate::run(&session, "agent", None, within, form).await,
        ];
        ended.into_iter().map(|ended| ended.expect_err("it can do nothing").to_string()).collect()
    }

    #[tokio::test]
    async fn every_command_says_what_to_install_or_which_permission_is_missing() {
        // the answers for a group and for a kind that do not exist
        let no_group = || (404, b"404 page not found\n".to_vec());
        let no_kind = || fake::status(404, "NotFound", "the server could not find the requested resource");
        for text in said(no_group).await.into_iter().chain(said(no_kind).await) {
            assert!(text.contains("no ITwinServiceCredentials: install the operator's CRDs"), "{text}");
        }
        let missing = "User \"a\" cannot list resource \"itwinservicecredentials\"";
        for text in said(move || fake::status(403, "Forbidden", missing)).await {
            assert!(text.starts_with("ITwinServiceCredential") && text.contains("cannot list resource"), "{text}");
        }
    }
}
