//! Where log lines go: to standard error, as far as `TED_LOG` or `-v` ask for them.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::common::CommonArgs;

/// How much is logged where nobody asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Daemons: what happens is told.
    Daemon,
    /// Commands: warnings only; their output says the rest.
    Command,
}

/// Sets up logging for the whole process. `TED_LOG` (`debug`, `ted_core=trace,info`) wins over `-v`.
/// A second call changes nothing.
pub fn start(common: &CommonArgs, quiet: Quiet) {
    let wanted = std::env::var("TED_LOG").ok().filter(|wanted| !wanted.is_empty());
    let fallback = level(quiet, common.verbose);
    let (filter, refused) = match wanted.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(fallback), Some(error)),
        None => (EnvFilter::new(fallback), None),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    if let (Ok(()), Some(error)) = (started, refused) {
        tracing::warn!("TED_LOG is not understood and is ignored: {error}");
    }
}

fn level(quiet: Quiet, verbose: u8) -> &'static str {
    match (quiet, verbose) {
        (Quiet::Command, 0) => "warn",
        (Quiet::Command, 1) | (Quiet::Daemon, 0) => "info",
        (Quiet::Command, 2) | (Quiet::Daemon, 1) => "debug",
        _ => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_v_tells_more_and_daemons_tell_more_than_commands() {
        assert_eq!(
            [0, 1, 2, 3, 9].map(|count| level(Quiet::Command, count)),
            ["warn", "info", "debug", "trace", "trace"]
        );
        assert_eq!([0, 1, 2].map(|count| level(Quiet::Daemon, count)), ["info", "debug", "trace"]);
    }
}
