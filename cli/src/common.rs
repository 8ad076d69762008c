//! The options that every command of both binaries takes, and where the state lies.

use std::path::PathBuf;

use crate::error::{ApiError, code};
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

    /// The data directory: `--data-dir`, `TED_DATA_DIR`, `/var/lib/ted/<role>` for root, else
    /// `$XDG_STATE_HOME/ted/<role>` (`~/.local/state` where that is not set). Always absolute.
    ///
    /// # Errors
    /// [`code::NO_DATA_DIR`] where nothing says it.
    pub fn data_dir(&self, role: &str) -> Result<PathBuf, ApiError> {
        let runs_as_root = rustix::process::geteuid().is_root();
        let chosen =
            choose(self.data_dir.clone(), role, runs_as_root, |name| std::env::var_os(name).map(PathBuf::from))
                .ok_or_else(|| {
                    ApiError::new(code::NO_DATA_DIR, "nothing says where the state lies: HOME is not set")
                })?;
        std::path::absolute(&chosen)
            .map_err(|error| ApiError::new(code::NO_DATA_DIR, format!("{}: {error}", chosen.display())))
    }
}

fn choose(
    given: Option<PathBuf>,
    role: &str,
    runs_as_root: bool,
    variable: impl Fn(&str) -> Option<PathBuf>,
) -> Option<PathBuf> {
    if let Some(given) = given.filter(|path| !path.as_os_str().is_empty()) {
        return Some(given);
    }
    if runs_as_root {
        return Some(PathBuf::from("/var/lib/ted").join(role));
    }
    // The XDG specification: a relative path in the variable is invalid and ignored.
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state =
        state.or_else(|| variable("HOME").filter(|path| path.is_absolute()).map(|home| home.join(".local/state")));
    state.map(|state| state.join("ted").join(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_follows_the_documented_order() {
        let environment = |name: &str| match name {
            "XDG_STATE_HOME" => Some(PathBuf::from("/xdg")),
            "HOME" => Some(PathBuf::from("/home/a")),
            _ => None,
        };
        let home_only = |name: &str| environment(name).filter(|_| name == "HOME");
        let relative = |name: &str| if name == "HOME" { environment(name) } else { Some(PathBuf::from("state")) };
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(choose(path("/data"), "distributor", true, environment), path("/data"));
        assert_eq!(choose(None, "distributor", true, environment), path("/var/lib/ted/distributor"));
        assert_eq!(choose(None, "subscriber", false, environment), path("/xdg/ted/subscriber"));
        assert_eq!(choose(None, "subscriber", false, home_only), path("/home/a/.local/state/ted/subscriber"));
        assert_eq!(choose(None, "subscriber", false, relative), path("/home/a/.local/state/ted/subscriber"));
        assert_eq!(choose(path(""), "subscriber", false, |_| None), None);
    }
}
