//! `ted-subscriber`: parses the command line, then calls the library.

mod api;
mod cli;
mod commands;
mod config;
mod service;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use ted_cli::error::{ApiError, code};
use ted_cli::exit::Exit;
use ted_cli::logging::{self, Quiet};
use tokio::runtime::Runtime;

/// How long work that cannot be interrupted may hold up the end of the process. What it writes counts only once it is
/// finished and renamed, so it may be cut off.
const LAST_WORK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let format = cli.common.format();
    let quiet = if matches!(cli.command, cli::Command::Run) { Quiet::Daemon } else { Quiet::Command };
    logging::start(&cli.common, quiet);
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = ApiError::new(code::STATE, format!("no threads can be started: {error}"));
            error.report(format);
            return error.exit().into();
        }
    };
    let ended = runtime.block_on(commands::run(cli));
    runtime.shutdown_timeout(LAST_WORK);
    match ended {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            error.report(format);
            error.exit().into()
        }
    }
}
