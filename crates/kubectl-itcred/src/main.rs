//! Parses the arguments, runs the command and turns its outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use kubectl_itcred::{args::Cli, commands, output, problem::Outcome};

/// The exit code of findings.
const FINDINGS: u8 = 1;
/// The exit code of wrong use, of errors, and where something could not be checked or done.
const ERROR: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(ERROR);
        }
        // --help and --version
        Err(error) => {
            return output::written(error.print())
                .map_or_else(|problem| failed(&problem.to_string()), |()| ExitCode::SUCCESS);
        }
    };
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return failed("another cryptography provider is installed already");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("failed to start the async runtime: {error}")),
    };
    let result = runtime.block_on(commands::run(cli)).and_then(output::complete);
    // does not wait for name resolution or a read from the terminal, whose threads cannot be interrupted
    runtime.shutdown_background();
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(FINDINGS),
        Ok(Outcome::Incomplete) => ExitCode::from(ERROR),
        Err(problem) => failed(&problem.to_string()),
    }
}

fn failed(text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(ERROR)
}
