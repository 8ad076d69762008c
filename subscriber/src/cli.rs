//! The command line of `ted-subscriber`: what can be asked, in clap's words. Nothing is decided here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ted_cli::backup::{BackupArgs, RestoreArgs};
use ted_cli::common::CommonArgs;
use ted_cli::events::EventArgs;
use ted_cli::exit::Exit;
use ted_cli::generate::GenerateCommand;
use ted_cli::keystore::KeystoreCommand;
use ted_cli::package::PackageCommand;
use ted_cli::schedule::ScheduleCommand;
use ted_core::model::Endpoint;
use ted_core::name::NodeName;

use ted_core::DistributionRef;

/// Receives, verifies and extracts what Distributors send.
#[derive(Debug, Parser)]
#[command(name = "ted-subscriber", version, after_help = Exit::TABLE, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join a Distributor with the invite that it made: init, trust and enrol in one step.
    Join(JoinArgs),
    /// Make this machine a Subscriber: its keys and its data directory.
    Init(InitArgs),
    /// Trust the Distributor whose certificate this is.
    Trust {
        /// The Distributor's certificate, NAME.cer, brought here by hand.
        #[arg(value_name = "FILE.cer")]
        file: PathBuf,
    },
    /// Ask a trusted Distributor for certificates.
    #[command(alias = "enroll")]
    Enrol(EnrolArgs),
    /// Write this node's requests for certificates as files, to be carried to a Distributor and signed there.
    Request(RequestArgs),
    /// Run the daemon until SIGTERM or Ctrl-C.
    Run,
    /// Show Distributors, Distributions and what is being received.
    Status {
        /// Show it anew every second until Ctrl-C.
        #[arg(long)]
        watch: bool,
    },
    /// Give this node another name. Its keys stay; sealed Distributions wait until each Distributor has approved it.
    Rename {
        /// The node's name from now on. Taken as it is, never looked up.
        name: NodeName,
    },
    /// Receive nothing more from a Distributor and forget its certificates; extracted files stay.
    Leave {
        /// The Distributor's node name.
        distributor: NodeName,
    },
    /// Trusted certificates and own keys; keys and certificates for HTTPS.
    #[command(subcommand)]
    Keystore(KeystoreCommand),
    /// Where Distributions are extracted to.
    #[command(subcommand)]
    Target(TargetCommand),
    /// What is set at this node, and by whom.
    #[command(subcommand)]
    Configuration(ConfigurationCommand),
    /// Extract what was received: one Distribution, or all.
    Extract {
        /// Run nothing of what `[hooks]` in the configuration names.
        #[arg(long)]
        no_hooks: bool,
        /// Only say what would be added, updated, deleted, kept and refused; write nothing.
        #[arg(long)]
        dry_run: bool,
        /// Its name, or DISTRIBUTOR/NAME.
        #[arg(value_name = "[DISTRIBUTOR/]DISTRIBUTION")]
        distribution: Option<DistributionRef>,
    },
    /// Go back to the revision before, and stay there until something newer comes or `resume`.
    Rollback {
        /// Its name, or DISTRIBUTOR/NAME.
        #[arg(value_name = "[DISTRIBUTOR/]DISTRIBUTION")]
        distribution: DistributionRef,
    },
    /// Receive nothing new until `resume`, also after a restart; what was received stays.
    Pause,
    /// Receive again after `pause`; with a Distribution, end its rollback: take what is offered again.
    Resume {
        /// Its name, or DISTRIBUTOR/NAME.
        #[arg(value_name = "[DISTRIBUTOR/]DISTRIBUTION")]
        distribution: Option<DistributionRef>,
    },
    /// Check the packages and the extracted files of one Distribution, or of all. A damaged package is set aside, and the
    /// Channel's next firing brings what lacks.
    Verify {
        /// Extract again what differs in a target whose package is whole.
        #[arg(long)]
        repair: bool,
        /// Its name, or DISTRIBUTOR/NAME.
        #[arg(value_name = "[DISTRIBUTOR/]DISTRIBUTION")]
        distribution: Option<DistributionRef>,
    },
    /// Look for what is wrong and say what mends it.
    Doctor,
    /// Write this node's whole security state into one encrypted file; the daemon may run.
    Backup(BackupArgs),
    /// Put the security state of a backup back; no daemon may run.
    Restore(RestoreArgs),
    /// Print what happened, one event a line; with --follow, what happens.
    Events {
        #[command(flatten)]
        events: EventArgs,
        /// Those about this Distributor.
        #[arg(long, value_name = "NAME")]
        distributor: Option<NodeName>,
    },
    /// Look into a package file; no daemon is needed.
    #[command(subcommand)]
    Package(PackageCommand),
    /// Try schedules: when they come next.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    #[command(flatten)]
    Generate(GenerateCommand),
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The invite, made by `ted-distributor invite`. It holds a secret; remove it afterwards.
    pub(crate) file: PathBuf,
    /// Where a Distribution is extracted to: NAME=DIR. May be repeated.
    #[arg(long, value_name = "NAME=DIR", value_parser = parse_target)]
    pub(crate) target: Vec<(DistributionRef, PathBuf)>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The node name, a DNS name or an IP address, taken as it is and never looked up [default: this machine's full DNS
    /// name if it resolves, else its IP address].
    #[arg(long)]
    pub(crate) name: Option<NodeName>,
    /// The UDP address to listen on, so that Distributors can dial; without it this node dials them.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct EnrolArgs {
    /// Where the Distributor is dialled, port 1229 unless given.
    #[arg(value_name = "HOST[:PORT]", value_parser = Endpoint::parse_with_default_port, required_unless_present = "issued")]
    pub(crate) endpoint: Option<Endpoint>,
    /// Take in the certificates that were carried into `security/issued/DISTRIBUTOR/`; a daemon does so by itself.
    #[arg(long, conflicts_with_all = ["endpoint", "token"])]
    pub(crate) issued: bool,
    /// The Distributor's node name, where more than one is trusted.
    #[arg(long, value_name = "NAME")]
    pub(crate) distributor: Option<NodeName>,
    /// A one-time token, made by `ted-distributor token create`; without one somebody there has to approve.
    #[arg(long, env = "TED_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// The Distributor's node name, where more than one is trusted.
    pub(crate) distributor: Option<NodeName>,
    /// Where it is dialled once the certificates are here; not needed where it dials this node. May be repeated.
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse_with_default_port)]
    pub(crate) endpoint: Vec<Endpoint>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigurationCommand {
    /// Show the settings in force, each with who says so.
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TargetCommand {
    /// Extract a Distribution to this folder from now on; files at another place stay there.
    Set {
        /// NAME=DIR.
        #[arg(value_name = "NAME=DIR", value_parser = parse_target)]
        target: (DistributionRef, PathBuf),
    },
    /// List where each Distribution goes.
    List,
    /// Let a Distribution go to its usual place again.
    Unset {
        /// Its name, or DISTRIBUTOR/NAME.
        #[arg(value_name = "[DISTRIBUTOR/]DISTRIBUTION")]
        distribution: DistributionRef,
    },
}

fn parse_target(text: &str) -> Result<(DistributionRef, PathBuf), String> {
    let (name, folder) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=DIR"))?;
    if folder.is_empty() {
        return Err(format!("`{text}` names no folder"));
    }
    Ok((name.parse::<DistributionRef>().map_err(|error| error.to_string())?, PathBuf::from(folder)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_command_lines_are_understood() {
        for line in [
            "ted-subscriber join s1.invite --target site=/srv/www --target dist.example.com/docs=/srv/docs",
            "ted-subscriber init --name s1.example.com --listen 0.0.0.0:1229",
            "ted-subscriber init",
            "ted-subscriber trust dist.example.com.cer",
            "ted-subscriber enrol dist.example.com:1229 --token ted-abc",
            "ted-subscriber enroll 10.0.0.1",
            "ted-subscriber --data-dir /d --config /c --json -v run",
            "ted-subscriber status --watch",
            "ted-subscriber leave dist.example.com",
            "ted-subscriber keystore list",
            "ted-subscriber keystore show dist.example.com",
            "ted-subscriber keystore import --certificate x.pfx --password-file p",
            "ted-subscriber keystore remove https",
            "ted-subscriber request dist.example.com --endpoint dist.example.com",
            "ted-subscriber request",
            "ted-subscriber enrol --issued --distributor dist.example.com",
            "ted-subscriber target set site=/srv/www",
            "ted-subscriber target list",
            "ted-subscriber target unset dist.example.com/site",
            "ted-subscriber configuration show",
            "ted-subscriber extract",
            "ted-subscriber extract --no-hooks site",
            "ted-subscriber extract dist.example.com/site",
            "ted-subscriber extract --dry-run site",
            "ted-subscriber verify site",
            "ted-subscriber verify --repair",
            "ted-subscriber doctor",
            "ted-subscriber events --follow",
            "ted-subscriber package extract distfile.ted --to /tmp/x --certificate d.cer",
            "ted-subscriber backup /safe/keys.age --passphrase-file p",
            "ted-subscriber restore /safe/keys.age --force",
            "ted-subscriber schedule next never",
            "ted-subscriber schedule next never -n 3 --after 2027-01-31T02:00:00Z --json",
            "ted-subscriber completions zsh",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "ted-subscriber join",
            "ted-subscriber join s1.invite --target site",
            "ted-subscriber join s1.invite --target site=",
            "ted-subscriber join s1.invite --target a/b/c=/srv",
            "ted-subscriber enrol",
            "ted-subscriber enrol host:0",
            "ted-subscriber enrol host --issued",
            "ted-subscriber leave",
            "ted-subscriber package extract distfile.ted --to /tmp/x",
            "ted-subscriber schedule next",
            "ted-subscriber schedule next never -n 0",
            "ted-subscriber schedule next never --after tomorrow",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.number()), "{line}");
        }
    }
}
