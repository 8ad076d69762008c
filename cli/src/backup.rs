//! `backup` and `restore`: the same on both binaries.

use std::fmt;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use ted_core::name::NodeName;
use ted_core::node::Restored;
use ted_core::store::Overwrite;
use zeroize::Zeroizing;

use crate::api::{Api, Operation};
use crate::error::{ApiError, code};
use crate::files::{self, Secrecy};
use crate::keystore::first_line;
use crate::output::{Render, Text};
use crate::session::Session;
use crate::units::Time;

/// What a backup may be at most when it is read: its limit, and what encryption adds.
const BACKUP_BYTES_MAX: u64 = 260 * 1024 * 1024;

/// The variable that may hold the passphrase.
const VARIABLE: &str = "TED_PASSPHRASE";

/// `backup FILE`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write, 0600: age's format, so that the `age` program opens it too.
    pub file: PathBuf,
    /// A file whose first line is the passphrase [default: the variable TED_PASSPHRASE, else it is asked for].
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// `restore FILE`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    pub file: PathBuf,
    /// A file whose first line is the passphrase [default: the variable TED_PASSPHRASE, else it is asked for].
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Restore though there are keys; those are moved aside, into the folder that is named then.
    #[arg(long)]
    pub force: bool,
}

/// Asks for the encrypted security state. It holds the passphrase, so it prints nothing of itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeBackup {
    /// What it is encrypted with.
    pub passphrase: String,
}

impl fmt::Debug for NodeBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBackup").finish_non_exhaustive()
    }
}

/// An encrypted security state.
#[derive(Serialize, Deserialize)]
pub struct BackupFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Operation for NodeBackup {
    const NAME: &'static str = "node/backup";
    type Answer = BackupFile;
}

/// A node whose security state was restored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoredView {
    /// Whose it is.
    pub name: NodeName,
    /// When the backup was made.
    pub made: Time,
    /// Where the keys went that were there.
    pub aside: Option<PathBuf>,
}

impl From<Restored> for RestoredView {
    fn from(restored: Restored) -> Self {
        Self { name: restored.node, made: Time(restored.made), aside: restored.aside }
    }
}

impl Render for RestoredView {
    fn render(&self, out: &mut Text) {
        out.line(format_args!("restored the security state of {} of {}", self.name, self.made));
        if let Some(aside) = &self.aside {
            out.line(format_args!("what was there lies in {}", aside.display()));
        }
    }
}

/// Makes a backup through `session` and writes its file.
///
/// # Errors
/// [`code::FILE`], [`code::NO_PASSPHRASE`], and what the node says.
pub async fn make<A: Api>(session: &Session<A>, args: &BackupArgs) -> Result<(), ApiError> {
    files::check_absent(&args.file)?;
    let passphrase = passphrase(args.passphrase_file.as_ref(), Asking::Twice)?;
    let request = NodeBackup { passphrase: passphrase.to_string() };
    let made = session.call(&request).await?;
    drop(Zeroizing::new(request.passphrase));
    files::write_new(&args.file, &made.bytes, Secrecy::OwnerOnly)
}

/// What a restoring needs: the file's bytes, the passphrase, and what happens to keys that are there.
///
/// # Errors
/// [`code::FILE`], [`code::NO_PASSPHRASE`].
pub fn read(args: &RestoreArgs) -> Result<(Vec<u8>, Zeroizing<String>, Overwrite), ApiError> {
    let bytes = files::read_bytes(&args.file, BACKUP_BYTES_MAX)?;
    let passphrase = passphrase(args.passphrase_file.as_ref(), Asking::Once)?;
    Ok((bytes, passphrase, if args.force { Overwrite::MoveAside } else { Overwrite::Refuse }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    Once,
    /// A new one: a slip of the finger would lock the backup for ever.
    Twice,
}

fn passphrase(file: Option<&PathBuf>, asking: Asking) -> Result<Zeroizing<String>, ApiError> {
    if let Some(file) = file {
        return first_line(file).map(Zeroizing::new);
    }
    if let Ok(said) = std::env::var(VARIABLE) {
        return Ok(Zeroizing::new(said));
    }
    if !std::io::stdin().is_terminal() {
        return Err(ApiError::new(code::NO_PASSPHRASE, "no passphrase is given, and nobody can be asked"));
    }
    let ask = |prompt: &str| {
        let said = rpassword::prompt_password(prompt).map(Zeroizing::new);
        said.map_err(|error| ApiError::new(code::NO_PASSPHRASE, format!("the passphrase cannot be asked for: {error}")))
    };
    let said = ask("Passphrase: ")?;
    if asking == Asking::Twice && *ask("The same again: ")? != *said {
        return Err(ApiError::new(code::NO_PASSPHRASE, "the two passphrases differ"));
    }
    Ok(said)
}
