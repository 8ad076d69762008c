//! What TED's two binaries share: the control socket, output for people and programs, exit codes, configuration
//! files, logging, and the `package` commands.
//!
//! A command becomes an [`api::Operation`]: a request, its name, and the answer it gets. A [`session::Session`] takes
//! it to the daemon over the control socket, or to the state itself where no daemon runs; both are an [`api::Api`].

pub mod api;
pub mod backup;
pub mod common;
pub mod config;

pub mod control;
pub mod doctor;
pub mod error;
pub mod events;
pub mod exit;
pub mod files;
pub mod generate;
pub mod host;
pub mod keystore;
pub mod logging;
pub mod output;
pub mod package;
pub mod progress;
pub mod remedy;
pub mod schedule;
pub mod session;
pub mod shutdown;
pub mod text;
pub mod units;
pub mod watch;
