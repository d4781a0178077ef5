//! Chooses the cryptography, reads the arguments and hands over; nothing else.

use std::process::ExitCode;

use clap::Parser;
use itwin_credential_operator::{
    api,
    config::args::{Cli, Command},
    report, runtime,
};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => start(cli),
        Err(error) => {
            // --help and --version go to standard output and end well; the rest ends with 2
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

fn start(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Crd => api::crds().map(|yaml| print!("{yaml}")),
        Command::Run(args) => {
            report::log::start(args.log_format, args.log_level);
            if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
                Err("another cryptography was chosen before".to_owned())
            } else {
                tokio::runtime::Builder::new_multi_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| format!("no runtime: {error}"))
                    .and_then(|runtime| {
                        let result = runtime.block_on(runtime::run::run(args));
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
