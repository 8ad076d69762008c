//! Shell completions and man pages, made from the command definitions themselves.

use std::path::{Path, PathBuf};

use crate::error::{ApiError, code};
use crate::output;

/// The hidden commands that packagers use.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum GenerateCommand {
    /// Print the completions for a shell.
    #[command(hide = true)]
    Completions {
        /// bash, elvish, fish, powershell or zsh.
        shell: clap_complete::Shell,
    },
    /// Write a man page for every command.
    #[command(hide = true)]
    Man {
        /// The folder they go to; it is made where it does not exist.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// Carries the command out for the binary that `definition` describes.
///
/// # Errors
/// [`code::FILE`] when the output cannot be written.
pub fn run(command: &GenerateCommand, definition: clap::Command) -> Result<(), ApiError> {
    match command {
        GenerateCommand::Completions { shell } => completions(*shell, definition),
        GenerateCommand::Man { directory } => man(directory, definition),
    }
}

fn completions(shell: clap_complete::Shell, mut definition: clap::Command) -> Result<(), ApiError> {
    let name = definition.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut definition, name, &mut text);
    output::write_stdout(&text)
}

fn man(directory: &Path, definition: clap::Command) -> Result<(), ApiError> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(definition, directory))
        .map_err(|error| ApiError::new(code::FILE, format!("{}: {error}", directory.display())))
}
