//! `ted-distributor`: parses the command line, then calls the library.

mod api;
mod cli;
mod commands;
mod config;
mod service;

use std::process::ExitCode;

use clap::Parser as _;
use ted_cli::exit::Exit;
use ted_cli::logging::{self, Quiet};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let format = cli.common.format();
    let quiet = if matches!(cli.command, cli::Command::Run) { Quiet::Daemon } else { Quiet::Command };
    logging::start(&cli.common, quiet);
    match commands::run(cli).await {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            error.report(format);
            error.exit().into()
        }
    }
}
