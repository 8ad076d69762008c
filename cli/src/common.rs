//! The options that every command of both binaries takes, and where the state lies.

use std::path::{Path, PathBuf};

use ted_core::store::{DataDir, NodeRole};

use crate::config::{self, Config};
use crate::error::{ApiError, code, from_library};
use crate::output::Format;

/// Options that stand before or after any command.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonArgs {
    /// Where the state lies [default: /var/lib/ted/ROLE for root, $XDG_STATE_HOME/ted/ROLE otherwise].
    #[arg(long, global = true, env = "TED_DATA_DIR", value_name = "DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// The configuration file, TOML [default: ROLE.toml in the data directory]. Every key can be given as TED_KEY too.
    #[arg(long, global = true, env = "TED_CONFIG", value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Log more; twice for still more. TED_LOG (such as `debug` or `ted_core=trace`) wins over it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

impl CommonArgs {
    /// For whom to print.
    #[must_use]
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }

    /// The data directory: `--data-dir`, `TED_DATA_DIR`, else the usual place of that role. Always absolute.
    ///
    /// # Errors
    /// `TED-1504` where nothing says it; [`code::FILE`] where the current folder is unknown.
    pub fn data_dir(&self, role: NodeRole) -> Result<PathBuf, ApiError> {
        let given = self.data_dir.as_deref().filter(|path| !path.as_os_str().is_empty());
        let path = DataDir::locate(given, role).map_err(from_library)?;
        absolute(&path)
    }

    /// The configuration: `--config`, else `<role>.toml` in the data directory, and the environment over it.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn config<C: Config>(&self, role: NodeRole, data_dir: &Path) -> Result<C, ApiError> {
        config::load(self.config.as_deref(), &data_dir.join(format!("{role}.toml")))
    }
}

/// `path` seen from the root; links in it stay. A daemon has another current folder than its commands.
///
/// # Errors
/// [`code::FILE`] where the current folder is unknown.
pub fn absolute(path: &Path) -> Result<PathBuf, ApiError> {
    std::path::absolute(path).map_err(|error| ApiError::new(code::FILE, format!("{}: {error}", path.display())))
}
