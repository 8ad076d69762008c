//! `package …`: looking into a package file, without any daemon, the same in both binaries.

mod extract;
mod open;
mod read;
mod revision;
mod view;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use open::{KeyFinder, Origin, no_keys};
pub use view::{ChangeView, Changes, DigestView, EntryView, Extraction, Inspection, Listing, Verification};

use crate::error::ApiError;
use crate::output::{self, Format};
use crate::progress::Progress;
use open::{PackageFile, Trust};
use ted_core::package::AnyIndex;

/// What to do with a package file.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum PackageCommand {
    /// Show what a package says of itself; of a sealed one without its key, what everyone sees.
    Inspect(PackageArgs),
    /// List the files in a package; of a delta, what it changes.
    Ls(LsArgs),
    /// Check every byte of a package, and with --certificate also who built it. Needs no key for a sealed one.
    Verify(PackageArgs),
    /// Print the content of one file in a package.
    Cat(CatArgs),
    /// Write the files of a package below a folder (merge: nothing is deleted).
    Extract(ExtractArgs),
}

impl PackageCommand {
    /// The package.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Inspect(package) | Self::Verify(package) => &package.file,
            Self::Ls(args) => &args.package.file,
            Self::Cat(args) => &args.package.file,
            Self::Extract(args) => &args.file,
        }
    }
}

/// Which package, and what to trust.
#[derive(Debug, Clone, clap::Args)]
pub struct PackageArgs {
    /// The package, a `distfile.ted`.
    pub file: PathBuf,
    /// The Distributor's certificate, NAME.cer: the package has to come from that Distributor.
    #[arg(long, value_name = "FILE.cer")]
    pub certificate: Option<PathBuf>,
}

/// Which package to list.
#[derive(Debug, Clone, clap::Args)]
pub struct LsArgs {
    /// The package.
    #[command(flatten)]
    pub package: PackageArgs,
    /// The package of the revision that a delta goes from [default: the one that a node keeps beside it].
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
}

/// Which file of which package.
#[derive(Debug, Clone, clap::Args)]
pub struct CatArgs {
    /// The package.
    #[command(flatten)]
    pub package: PackageArgs,
    /// The file's path in the package, as `ls` lists it.
    pub path: OsString,
}

/// How to extract a package by hand.
#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("origin").required(true).args(["certificate", "unverified_origin"]))]
pub struct ExtractArgs {
    /// The package, a `distfile.ted`.
    pub file: PathBuf,
    /// The folder the files go to; it is made where it does not exist.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// The Distributor's certificate, NAME.cer: the package has to come from that Distributor.
    #[arg(long, value_name = "FILE.cer")]
    pub certificate: Option<PathBuf>,
    /// Write what the package holds though nobody vouches for who built it.
    #[arg(long)]
    pub unverified_origin: bool,
    /// Which symbolic links to write: `any`, or only those that stay `inside` the folder.
    #[arg(long, value_name = "any|inside", default_value = "any")]
    pub links: LinkChoice,
    /// Give files their owners, where the Distribution asks for that; only root can.
    #[arg(long)]
    pub ownership: bool,
    /// Keep setuid, setgid and file capabilities, where the Distribution asks for that.
    #[arg(long)]
    pub privileged: bool,
}

/// Which symbolic links to write. None is ever followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkChoice {
    /// With any target text.
    Any,
    /// Only those that stay below the folder; a package with others is refused.
    Inside,
}

/// Carries out a `package` command and prints its outcome. Sealed packages are opened with what `keys` finds.
///
/// # Errors
/// The library's codes for damaged packages, untrusted certificates and missing keys; [`code`](crate::error::code) for the rest.
pub fn run(command: &PackageCommand, format: Format, keys: &KeyFinder<'_>) -> Result<(), ApiError> {
    let open = |args: &PackageArgs| -> Result<PackageFile, ApiError> {
        PackageFile::open(&args.file, &Trust::from_option(args.certificate.as_deref())?, keys)
    };
    match command {
        PackageCommand::Inspect(package) => output::print(format, &read::inspect(&open(package)?)),
        PackageCommand::Ls(LsArgs { package, base }) => {
            let opened = open(package)?;
            let AnyIndex::Delta(index) = &opened.index else { return output::print(format, &read::list(&opened)?) };
            let trust = Trust::from_option(package.certificate.as_deref())?;
            let changes = revision::changes_of((&package.file, index), base.as_deref(), &trust, keys)?;
            output::print(format, &changes)
        }
        PackageCommand::Verify(package) => {
            let opened = open(package)?;
            let verified = read::verify(&opened, &Progress::new(format)).map_err(|mut error| {
                error.message = format!("{}: {}", package.file.display(), error.message);
                error
            })?;
            output::print(format, &verified)
        }
        PackageCommand::Cat(args) => read::cat(&open(&args.package)?, &args.path),
        PackageCommand::Extract(args) => {
            let extracted = extract::extract(args, keys, &Progress::new(format))?;
            output::print(format, &extracted)
        }
    }
}

/// Lists the files of a revision that is the node's own, put together from its packages `files`, in the asked format;
/// for `distribution ls`.
///
/// # Errors
/// As [`run`].
pub fn print_listing(files: &[PathBuf], format: Format, keys: &KeyFinder<'_>) -> Result<(), ApiError> {
    let at = revision::put_together(files, &Trust::Nobody, keys)?;
    output::print(format, &Listing { entries: at.entries.iter().map(EntryView::of).collect() })
}

/// Prints what became of each path from one of the node's own revisions to another; for `distribution diff`.
///
/// # Errors
/// As [`run`].
pub fn print_changes(
    (from, to): (&[PathBuf], &[PathBuf]),
    format: Format,
    keys: &KeyFinder<'_>,
) -> Result<(), ApiError> {
    let [from, to] = [from, to].map(|files| revision::put_together(files, &Trust::Nobody, keys));
    output::print(format, &revision::compared(&from?, &to?))
}

#[cfg(test)]
mod tests;
