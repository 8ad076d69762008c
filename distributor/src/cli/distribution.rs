//! What can be asked about Distributions.

use clap::{Args, Subcommand};
use ted_core::distributor::RevisionChoice;
use ted_core::model::{CompressionLevel, Digest, ExtractMode, Kept, Priority};
use ted_core::name::Label;
use ted_core::schedule::Schedule;

use super::SourceExpectations;

#[derive(Debug, Subcommand)]
pub(crate) enum DistributionCommand {
    /// Declare a folder, or several sources, as a Distribution.
    Create {
        /// Its name.
        name: Label,
        /// What is packed: a folder, `tar:FILE`, an `http(s)://` URL (one file), `tar+http(s)://` (a tar file), or `-`
        /// (a tar file that each build is fed with). Below the folder PREFIX, if one is given. May be repeated.
        #[arg(long, value_name = "[PREFIX=]PLACE", required = true)]
        source: Vec<String>,
        #[command(flatten)]
        expected: SourceExpectations,
        #[command(flatten)]
        options: DistributionOptions,
    },
    /// List all Distributions.
    List,
    /// Show one Distribution and its newest revision.
    Show {
        /// Its name.
        name: Label,
    },
    /// Change what is given; the rest stays.
    Update {
        /// Its name.
        name: Label,
        /// What is packed from now on, as for `create`. May be repeated; all sources are replaced.
        #[arg(long, value_name = "[PREFIX=]PLACE")]
        source: Vec<String>,
        #[command(flatten)]
        expected: SourceExpectations,
        #[command(flatten)]
        options: DistributionOptions,
    },
    /// Delete it and its packages here; what Subscribers have stays with them.
    Delete {
        /// Its name.
        name: Label,
    },
    /// Build a revision now if the source has changed.
    Build {
        /// Its name.
        name: Label,
        /// Read every file, also those that have the size, times and inode of the last build.
        #[arg(long)]
        checksum: bool,
        /// Build from a tar file on standard input, perhaps compressed with gzip or zstd: for a source of `-`.
        #[arg(long)]
        stdin: bool,
    },
    /// Make a new revision with the content of an older one that is kept; the source is not built before it changes.
    Rollback {
        /// Its name.
        name: Label,
        /// The revision to go back to, by its number or the last digits of it [default: the one before the newest].
        #[arg(long, value_name = "REVISION", value_parser = older)]
        to: Option<RevisionChoice>,
    },
    /// List its revisions, newest first: when and how each was made, its sizes, what changed, and what is kept of it.
    History {
        /// Its name.
        name: Label,
    },
    /// Show what changed from one kept revision to another, by path.
    Diff {
        /// Its name.
        name: Label,
        /// The revision to compare with, by its number, the last digits of it, or `previous`.
        #[arg(value_name = "REVISION", default_value = "previous")]
        from: RevisionChoice,
        /// The revision that is compared.
        #[arg(value_name = "REVISION", default_value = "newest")]
        to: RevisionChoice,
    },
    /// List the files of a kept revision.
    Ls {
        /// Its name.
        name: Label,
        /// Which revision, by its number, the last digits of it, or `previous`.
        #[arg(value_name = "REVISION", default_value = "newest")]
        revision: RevisionChoice,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DistributionOptions {
    /// Leave out paths that match; `*` stays within one component, `**` does not. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Take only paths that match, and what lies in them; what is excluded stays out. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Leave out what the `.gitignore` files in a folder name, as git would, and `.git` [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) gitignore: Option<bool>,
    /// A digest over each package for existing tooling: none, md5 or blake3 [default: none].
    #[arg(long)]
    pub(crate) digest: Option<Digest>,
    /// The folder Subscribers may put it in; each Subscriber has the last word.
    #[arg(long, value_name = "DIR")]
    pub(crate) target: Option<String>,
    /// Leave out what cannot be read, and name it, instead of failing the build [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) skip_unreadable: Option<bool>,
    /// Which sends go first: high, medium or low [default: medium].
    #[arg(long)]
    pub(crate) priority: Option<Priority>,
    /// Encrypt its packages: only Subscribers of its Channels can read them [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) encrypt: Option<bool>,
    /// Carry extended attributes (user.*) and POSIX ACLs; kept where the Subscriber's file system can [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) xattrs: Option<bool>,
    /// Ask Subscribers to give files their owners and groups; only those do that permit it and run as root
    /// [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) ownership: Option<bool>,
    /// Ask Subscribers to keep setuid, setgid and file capabilities; only those do that permit it [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) privileged: Option<bool>,
    /// What Subscribers do about what else lies in the target: `merge` deletes nothing, `sync` deletes what the revision
    /// does not have, `release` gives each revision a folder of its own and switches a link [default: merge].
    #[arg(long)]
    pub(crate) mode: Option<ExtractMode>,
    /// How many revisions are offered by their differences: a Subscriber that has one of the last so many fetches deltas
    /// and not the whole; 1 to 32, and 1 makes no deltas [default: 10].
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_revisions: Option<u32>,
    /// How hard zstd compresses whole revisions, 1 to 19. Another level makes the next revision compress everything anew
    /// [default: 3].
    #[arg(long, value_name = "NUMBER")]
    pub(crate) level: Option<CompressionLevel>,
    /// How hard zstd compresses deltas, 1 to 19: 19 takes some 20 times the time of 3, and 300 MiB of memory [default: 3].
    #[arg(long, value_name = "NUMBER")]
    pub(crate) delta_level: Option<CompressionLevel>,
    /// When it is built by itself, such as 'every 1h', or whenever a Channel fires: 'with send' [default: with send].
    #[arg(long, value_name = "SCHEDULE")]
    pub(crate) build: Option<Schedule>,
    /// It is built and sent, as is the default.
    #[arg(long)]
    pub(crate) active: bool,
    /// It is neither built by itself nor sent.
    #[arg(long, conflicts_with = "active")]
    pub(crate) inactive: bool,
}

impl DistributionOptions {
    /// Whether it is active from now on, where that is said.
    pub(crate) fn activity(&self) -> Option<bool> {
        (self.active || self.inactive).then_some(self.active)
    }

    /// What a new Distribution carries beyond modes and times.
    pub(crate) fn keep(&self) -> Kept {
        let asked = |option: Option<bool>| option.unwrap_or_default();
        let (ownership, privileged) = (asked(self.ownership), asked(self.privileged));
        Kept { xattrs: asked(self.xattrs), ownership, privileged }
    }
}

/// A revision that can be gone back to.
fn older(text: &str) -> Result<RevisionChoice, String> {
    match text.parse()? {
        RevisionChoice::Newest => Err("the newest one is in force already".to_owned()),
        older => Ok(older),
    }
}
