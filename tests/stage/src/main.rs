//! `stage run -- COMMAND`: a command on the stage. `stage demo`: the main job, step by step, for people to watch.

mod bench;
mod demo;

use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use stage::setup::Running;
use tokio::signal::unix::{SignalKind, signal};

/// Everything is started on this one thread: processes that are bound to us end with the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", "--", ..] if arguments.len() > 2 => or_interrupted(run(&arguments[2..])).await,
        ["demo", program] => or_interrupted(demo::demo(PathBuf::from(program))).await,
        ["bench", program, count] => {
            let count = count.parse().unwrap_or(1000);
            or_interrupted(bench::bench(PathBuf::from(program), count)).await
        }
        _ => Err(anyhow::anyhow!(
            "usage: stage run -- COMMAND [ARGUMENT...] | stage demo OPERATOR_PROGRAM | stage bench OPERATOR_PROGRAM N"
        )),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stage: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends `work`, and with it everything that it started, when we are told to stop.
async fn or_interrupted(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    tokio::select! {
        result = work => result,
        () = told_to_stop() => bail!("interrupted; everything is stopped"),
    }
}

async fn told_to_stop() {
    let listen = |kind| signal(kind).expect("signals can be handled");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn run(command: &[String]) -> Result<ExitCode> {
    let mut running = Running::start().await?;
    let (variable, description) = running.variable();
    let child = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .env(variable, description)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command[0]))?;
    let mut group = Group(child);
    let status = group.0.wait().await?;
    let leaks = stage::leaks::scan(&running.stage).await?;
    if !leaks.is_empty() {
        running.keep_logs();
        bail!("secrets were found where they must not be:\n{}", leaks.join("\n"));
    }
    if !status.success() {
        running.keep_logs();
        eprintln!("stage: failed; logs are kept in {}", running.stage.directory.display());
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// A command with all that it started; ended as a whole when this is dropped.
struct Group(tokio::process::Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGTERM);
        }
    }
}
