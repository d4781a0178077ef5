//! `testbed run -- COMMAND` runs a command on the testbed. With `--node`, which must come first, it adds a real node for
//! pods. `testbed node` checks whether this machine can run a node. `testbed demo` shows the main task, step by step.

mod bench;
mod demo;

use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use testbed::{node::machine, process::Group, setup::Running, tools};
use tokio::signal::unix::{SignalKind, signal};

/// The first argument of this program in namespaces of its own.
const INSIDE: &str = "run-inside";

/// One thread starts everything: processes that are bound to this one end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", "--", ..] if arguments.len() > 2 => or_interrupted(run(Running::start(), &arguments[2..])).await,
        ["run", "--node", "--", ..] if arguments.len() > 3 => or_interrupted(run_with_node(&arguments)).await,
        [INSIDE, "--node", "--", ..] if arguments.len() > 3 => {
            or_interrupted(run(Running::start_with_node(), &arguments[3..])).await
        }
        ["node"] => Ok(node().await),
        // not interrupted as a whole: it removes what it created
        ["demo", program] => demo::demo(PathBuf::from(program)).await,
        ["bench", program, count] => {
            let count = count.parse().unwrap_or(1000);
            or_interrupted(bench::bench(PathBuf::from(program), count)).await
        }
        [bench::pace::ARGUMENT, per_second, issuer, ca_bundle] => {
            testbed::choose_cryptography();
            or_interrupted(bench::pace::run(per_second, issuer, ca_bundle)).await
        }
        _ => Err(anyhow::anyhow!(
            "usage: testbed run [--node] -- COMMAND [ARGUMENT...] | testbed node | testbed demo OPERATOR_PROGRAM | \
             testbed bench OPERATOR_PROGRAM N"
        )),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends `work`, and every process that it started, when this process gets a signal to stop.
async fn or_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = stop_signal() => bail!("interrupted; everything is stopped"),
    }
}

async fn stop_signal() {
    let listen = |kind| signal(kind).expect("signals can be handled");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Whether this machine can run a node, and if not, what it lacks.
async fn node() -> ExitCode {
    let lacks = machine::lacks().await;
    if lacks.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("testbed: this machine cannot run a Kubernetes node: {}", lacks.join("; "));
    ExitCode::FAILURE
}

/// Downloads and builds everything before the switch to a network namespace, which has no way out.
async fn run_with_node(arguments: &[String]) -> Result<ExitCode> {
    let lacks = machine::lacks().await;
    ensure!(lacks.is_empty(), "this machine cannot run a Kubernetes node: {}", lacks.join("; "));
    tools::Tools::ready(tools::Needs::Tests).await?;
    tools::NodeTools::ready().await?;
    let inside: Vec<String> = [INSIDE.to_owned()].into_iter().chain(arguments[1..].iter().cloned()).collect();
    machine::in_namespaces(&inside).await
}

async fn run(start: impl Future<Output = Result<Running>>, command: &[String]) -> Result<ExitCode> {
    let mut running = start.await?;
    let (variable, description) = running.variable();
    let child = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .env(variable, description)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command[0]))?;
    let status = Group::new(child).wait().await?;
    for skipped in running.testbed.skipped() {
        eprintln!("testbed: SKIPPED: {skipped}");
    }
    if !status.success() {
        running.keep_logs();
        eprintln!("testbed: failed; logs are kept in {}", running.testbed.directory.display());
    }
    match testbed::leaks::scan(&running.testbed).await {
        Ok(leaks) if leaks.is_empty() => {}
        Ok(leaks) => {
            running.keep_logs();
            bail!("secrets were found where they must not be:\n{}", leaks.join("\n"));
        }
        // a failed command may have left nothing to search
        Err(error) if !status.success() => eprintln!("testbed: could not search for secrets: {error:#}"),
        Err(error) => return Err(error),
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
