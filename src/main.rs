//! Chooses the cryptography, reads the arguments and hands over; nothing else.

use std::process::ExitCode;

use clap::Parser;
use itwin_credential_operator::{
    config::args::{Cli, Command},
    report, runtime,
};

/// The exit code for wrong arguments.
const WRONG_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => start(cli),
        // --help and --version go to standard output and end well
        Err(error) if error.exit_code() == 0 => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // one line: what is wrong and what is possible, without the usage and the hints behind it
            let text = error.to_string();
            let what: Vec<&str> = text
                .lines()
                .map(str::trim)
                .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
                .filter(|line| !line.is_empty())
                .collect();
            eprintln!("{} (see --help)", what.join(" "));
            ExitCode::from(WRONG_ARGUMENTS)
        }
    }
}

/// The longest core dump, in bytes: shorter than any, and the one value that the kernel obeys even where dumps go to a
/// program (`fs/coredump.c`). The memory of this process holds secrets.
const CORE_DUMP: u64 = 1;

/// Threads that do the work, however many processors the node has: hardly a tenth of one is used, each takes memory of
/// its own, and waking another costs more than most of what there is to do. Nothing here computes for long: the longest
/// is a signature with an RSA key, whose size is bounded.
const WORKERS: usize = 1;

fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(CORE_DUMP), maximum: Some(CORE_DUMP) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        eprintln!("core dumps could not be forbidden: {error}");
    }
}

fn start(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Crd => itwin_api::crds().map(|yaml| print!("{yaml}")),
        Command::Run(args) => {
            forbid_core_dumps();
            report::log::start(args.log_format, args.log_level);
            report::log::log_panics();
            if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
                Err("another cryptography was chosen before".to_owned())
            } else {
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(WORKERS)
                    .enable_all()
                    .build()
                    .map_err(|error| format!("no runtime: {error}"))
                    .and_then(|runtime| {
                        let result = runtime.block_on(runtime::process::run(args));
                        // name resolution runs on threads that cannot be interrupted: they are not waited for
                        runtime.shutdown_background();
                        result
                    })
            }
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
