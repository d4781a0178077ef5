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
        Command::Renew { targets, timeout } => renew::run(&session()?, &targets, timeout).await,
        Command::Suspend { targets } => suspend::run(&session()?, &targets, true).await,
        Command::Resume { targets } => suspend::run(&session()?, &targets, false).await,
        Command::Token { name, raw, shown } => token::run(&session()?, &name, raw, shown.output).await,
        Command::Check { name, operator_namespace, offline, shown } => {
            check::run(&session()?, &name, &operator_namespace, offline, shown.output).await
        }
        Command::Lint { all_namespaces, filenames, shown } => {
            let namespace = connection.namespace.as_deref();
            lint::run(session, all_namespaces, &filenames, namespace, shown.output).await
        }
        Command::Rotate { name, expires_at, timeout } => rotate::run(&session()?, &name, expires_at, timeout).await,
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
