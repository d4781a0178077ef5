//! Parses the arguments, installs the cryptography provider and starts the command.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use itwin_credential_operator::{
    config::{
        args::{Cli, Command},
        proxy::Proxies,
    },
    report, runtime,
};

/// The exit code for arguments and environment variables that are invalid or missing.
const INVALID_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => start(cli),
        // --help and --version print to standard output and succeed
        Err(error) if error.exit_code() == 0 => ended(written(error.print())),
        Err(error) => {
            // one line: what is wrong and what is possible, without the usage and hints
            let text = error.to_string();
            let what: Vec<&str> = text
                .lines()
                .map(str::trim)
                .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
                .filter(|line| !line.is_empty())
                .collect();
            eprintln!("{} (see --help)", what.join(" "));
            ExitCode::from(INVALID_ARGUMENTS)
        }
    }
}

/// The limit on core dumps, in bytes: none is this short, and it is the only value that the kernel respects even if
/// dumps are piped to a program (`fs/coredump.c`). The memory of this process contains secrets.
const CORE_DUMP: u64 = 1;

fn disable_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit { current: Some(CORE_DUMP), maximum: Some(CORE_DUMP) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        eprintln!("failed to disable core dumps: {error}");
    }
}

/// Why a command did not print all of its output. A reader that went away, such as `head`, is no error.
fn written(printed: io::Result<()>) -> Result<(), String> {
    match printed.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("the output could not be written: {error}"))
        }
        _ => Ok(()),
    }
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Crd => itwin_api::crds().and_then(|yaml| written(io::stdout().write_all(yaml.as_bytes()))),
        Command::Run(args) => {
            let checked = |proxies| runtime::process::check(&args).map(|()| proxies);
            let proxies = match Proxies::from_env().and_then(checked) {
                Ok(proxies) => proxies,
                Err(error) => {
                    eprintln!("error: {error}");
                    return ExitCode::from(INVALID_ARGUMENTS);
                }
            };
            disable_core_dumps();
            report::log::start(args.log_format, args.log_level);
            report::log::log_panics();
            if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
                Err("another cryptography provider is installed already".to_owned())
            } else {
                // All tasks run on this thread, regardless of the number of processors: the operator uses less than a
                // tenth of one, each thread takes memory, and waking a thread costs more than most tasks. No task
                // computes for long: the longest computation is a signature with an RSA key, whose size is bounded.
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| format!("failed to start the async runtime: {error}"))
                    .and_then(|runtime| {
                        let result = runtime.block_on(runtime::process::run(args, &proxies));
                        // does not wait for name resolution, whose threads cannot be interrupted
                        runtime.shutdown_background();
                        result
                    })
            }
        }
    };
    ended(result)
}
