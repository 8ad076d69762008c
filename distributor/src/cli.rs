//! The command line of `ted-distributor`: what can be asked, in clap's words. Nothing is decided here.

mod distribution;
mod firing;
mod fleet;
mod policy;
mod report;
mod rotation;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ted_cli::backup::{BackupArgs, RestoreArgs};
use ted_cli::common::CommonArgs;
use ted_cli::exit::Exit;
use ted_cli::generate::GenerateCommand;
use ted_cli::keystore::KeystoreCommand;
use ted_cli::package::PackageCommand;
use ted_cli::schedule::ScheduleCommand;
use ted_cli::units::parse_duration;
use ted_core::id::FiringId;
use ted_core::model::{Endpoint, parse_label};
use ted_core::name::{Label, NodeName};

pub(crate) use distribution::DistributionCommand;
pub(crate) use firing::FiringCommand;
pub(crate) use fleet::{
    ApplyArgs, ChannelCommand, ChannelUpdateArgs, ExportArgs, ExternalCommand, GroupCommand, GroupUpdateArgs,
    RouteCommand, SelectionArgs, SubscriberChangeArgs, SubscriberCommand, SubscriberCreateArgs, SubscriberUpdateArgs,
};
pub(crate) use policy::{ConfigureArgs, RevocationCommand};
pub(crate) use report::{DeliveryArgs, EventsArgs, ReportCommand, StateArg, WaitingArg};
pub(crate) use rotation::RotationCommand;
pub(crate) use source::{SourceExpectations, sources};

/// Builds signed packages of file trees and delivers them to Subscribers.
#[derive(Debug, Parser)]
#[command(name = "ted-distributor", version, after_help = Exit::TABLE, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this machine a Distributor: its certificate, its keys and its data directory.
    Init(InitArgs),
    /// Run the daemon until SIGTERM or Ctrl-C.
    Run,
    /// Show Distributions, Subscribers and what is being sent.
    Status(WatchArgs),
    /// Look for what is wrong and say what mends it.
    Doctor,
    /// Named sets of files, and their revisions.
    #[command(subcommand)]
    Distribution(DistributionCommand),
    /// What goes to whom.
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Write the one file that a node needs to join.
    Invite(InviteArgs),
    /// The nodes that receive.
    #[command(subcommand)]
    Subscriber(SubscriberCommand),
    /// Subscribers outside the own fleet.
    #[command(subcommand)]
    ExternalSubscriber(ExternalCommand),
    /// Subscribers that go together.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Through which parents Subscribers are reached.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Make the fleet what a file declares: all of it, or nothing.
    Apply(ApplyArgs),
    /// Apply the file that `refresh_source` in distributor.toml names now, as its schedule does.
    Refresh,
    /// Print the fleet as a file that `apply` takes.
    Export(ExportArgs),
    /// One-time tokens for `ted-subscriber enrol`.
    #[command(subcommand)]
    Token(TokenCommand),
    /// This Distributor's certificates.
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Trusted certificates and own keys; keys and certificates for HTTPS.
    #[command(subcommand)]
    Keystore(KeystoreCommand),
    /// Send a Channel's Distributions now; each is built first if its source has changed.
    Send(SendArgs),
    /// What was sent when, why, and with which result.
    #[command(subcommand)]
    Firing(FiringCommand),
    /// End a firing: what was not delivered yet is not sent.
    Cancel {
        /// The firing's id, as `send` and `status` print it.
        firing: FiringId,
    },
    /// Write this node's whole security state into one encrypted file; the daemon may run.
    Backup(BackupArgs),
    /// Put the security state of a backup back; no daemon may run.
    Restore(RestoreArgs),
    /// Print what happened, one event a line; with --follow, what happens.
    Events(EventsArgs),
    /// How deliveries stand: one by one, or how many are how far.
    #[command(subcommand)]
    Report(ReportCommand),
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
pub(crate) struct InitArgs {
    /// The node name, a DNS name or an IP address, taken as it is and never looked up [default: this machine's full DNS
    /// name if it resolves, else its IP address].
    #[arg(long)]
    pub(crate) name: Option<NodeName>,
    /// The UDP address to listen on [default: 0.0.0.0:1229].
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where Subscribers dial; goes into invites [default: the node name and the port listened on].
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse_with_default_port)]
    pub(crate) advertise: Vec<Endpoint>,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Show it anew every second until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The node name of the Subscriber to be.
    pub(crate) name: NodeName,
    /// A Channel it receives from the start. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Vec<Label>,
    /// The parent Subscriber it is reached through [default: this Distributor itself]. Repeated: where to turn when the
    /// one before is not reached, this Distributor's own name for itself.
    #[arg(long, value_name = "NAME")]
    pub(crate) parent: Vec<NodeName>,
    /// A group it belongs to. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<Label>,
    /// A label, by which it is selected later. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) label: Vec<(Label, Label)>,
    /// It is External: outside the own fleet, sent no configuration, and nobody's parent.
    #[arg(long)]
    pub(crate) external: bool,
    /// Where the node itself listens, and is dialled by this Distributor or its parent, and by its children: the
    /// `--endpoint` of `subscriber create`. A parent needs one. May be repeated.
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse_with_default_port)]
    pub(crate) listens_at: Vec<Endpoint>,
    /// Where it dials this Distributor, not where it is dialled [default: what `init --advertise` said]. May be repeated.
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse_with_default_port)]
    pub(crate) endpoint: Vec<Endpoint>,
    /// How long the invite holds.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "24h")]
    pub(crate) expires: Duration,
    /// The file to write, 0600. It holds a secret: carry it as you would a password.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// Both requests of a node, NAME.identity.csr and NAME.encryption.csr; one alone renews what is registered.
    #[arg(required = true, num_args = 1..=2, value_name = "FILE.csr")]
    pub(crate) request: Vec<PathBuf>,
    /// The folder for the certificates, which are carried back to the node.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// The fingerprint that the node itself printed; another one is refused.
    #[arg(long, conflicts_with = "yes")]
    pub(crate) fingerprint: Option<String>,
    /// Sign without asking: the files came on a way on which nobody could change them.
    #[arg(long)]
    pub(crate) yes: bool,
    /// A Channel it receives from the start. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Vec<Label>,
}

#[derive(Debug, Args)]
pub(crate) struct ResolveFlag {
    /// Bring this Distributor's certificate to the Subscribers of this change that lack it.
    #[arg(long)]
    pub(crate) resolve: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token that approves enrolments at once.
    Create {
        /// How many enrolments it approves.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        uses: u32,
        /// How long it holds.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "24h")]
        expires: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Write NAME.cer, what Subscribers need in order to trust this Distributor.
    Export {
        /// The file to write [default: NAME.cer in the current folder; `-` prints it].
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List this Distributor's certificates, and how its own stands with each Subscriber.
    List,
    /// Bring this Distributor's certificate to the Subscribers that lack it; without an option, say who does.
    Resolve {
        /// Copy it to each on its own way, as `subscriber create` and `update` were told.
        #[arg(long)]
        copy: bool,
        /// Write it into this folder, to be carried by hand.
        #[arg(long, value_name = "DIR", conflicts_with = "copy")]
        save: Option<PathBuf>,
        /// Only to this Subscriber, whatever it has. May be repeated.
        #[arg(long, value_name = "NAME")]
        subscriber: Vec<NodeName>,
    },
    /// Sign the requests that `ted-subscriber request` wrote and somebody carried here.
    Sign(SignArgs),
    /// Show one certificate.
    Show {
        /// Its serial number, or the beginning of it.
        serial: String,
    },
    #[command(flatten)]
    Rotation(RotationCommand),
    #[command(flatten)]
    Revocation(RevocationCommand),
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The Channel.
    pub(crate) channel: Label,
    /// Wait until every Subscriber is done.
    #[arg(long)]
    pub(crate) wait: bool,
    /// What counts as done.
    #[arg(long, requires = "wait", value_enum, default_value_t = Until::Extracted)]
    pub(crate) until: Until,
    /// Wait no longer than this; the firing goes on.
    #[arg(long, requires = "wait", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Send the newest revisions as they are.
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Say what would be built and sent, and do nothing.
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
}

/// What `send --wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Until {
    /// The packages are on the Subscribers' disks.
    Received,
    /// The files are in their places.
    Extracted,
}

impl From<Until> for ted_core::Until {
    fn from(until: Until) -> Self {
        match until {
            Until::Received => Self::Received,
            Until::Extracted => Self::Extracted,
        }
    }
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
            "ted-distributor init --name dist.example.com --listen 0.0.0.0:1229 --advertise dist.example.com:1229",
            "ted-distributor init",
            "ted-distributor --data-dir /d --config /c --json -vv run",
            "ted-distributor status --watch --data-dir /d",
            "ted-distributor doctor --json",
            "ted-distributor distribution create site --source /srv/site --exclude *.log --exclude tmp/** --digest md5 --target /srv/www --skip-unreadable --priority high --mode sync",
            "ted-distributor distribution update site --skip-unreadable=false --digest none",
            "ted-distributor distribution create site --source /srv/site --encrypt",
            "ted-distributor distribution update site --encrypt=false",
            "ted-distributor distribution build site",
            "ted-distributor distribution build site --stdin",
            "ted-distributor distribution create site --source . --source docs=/srv/docs --include *.html --gitignore",
            "ted-distributor distribution create tool --source bin=https://a.example/tool --source-sha256 00 --source-size 7 --source-ca ca.pem",
            "ted-distributor distribution create site --source tar:site.tar.zst",
            "ted-distributor distribution create site --source -",
            "ted-distributor distribution ls site",
            "ted-distributor channel create nightly --distribution site --distribution docs --subscriber s1.example.com",
            "ted-distributor channel update nightly --subscriber s1",
            "ted-distributor invite s1 --channel nightly --endpoint dist.example.com --output s1.invite",
            "ted-distributor subscriber create s1 --endpoint [2001:db8::1]:99 --channel nightly",
            "ted-distributor subscriber update s1 --dials-itself",
            "ted-distributor subscriber create s1 --parent p1 --parent dist.example.com --group north --label site=berlin --inactive",
            "ted-distributor subscriber update s1 s2 --parent p1 --parent p2 --channel nightly --leave-group north",
            "ted-distributor subscriber update --label site=berlin --label role!=till --direct --set-label a=b --dry-run",
            "ted-distributor subscriber update --all --unset-label site --external false",
            "ted-distributor subscriber list --label site",
            "ted-distributor subscriber pause --label site=berlin",
            "ted-distributor subscriber resume s1 s2",
            "ted-distributor external-subscriber create guest --parent p1 --channel nightly",
            "ted-distributor external-subscriber update guest --parent p2",
            "ted-distributor external-subscriber list",
            "ted-distributor group create north --subscriber s1",
            "ted-distributor group update north --add s2 --remove s1 --name arctic",
            "ted-distributor route show",
            "ted-distributor route show s1 --json",
            "ted-distributor channel create nightly --distribution site --group north --schedule now --inactive",
            "ted-distributor channel update nightly --schedule never --no-groups --active",
            "ted-distributor channel pause nightly",
            "ted-distributor channel resume nightly",
            "ted-distributor distribution update site --build now --inactive",
            "ted-distributor invite p1 --listens-at p1.example.com --output p1.invite",
            "ted-distributor invite s1 --parent p1 --group north --label site=berlin --external --output s1.invite",
            "ted-distributor apply fleet.toml --dry-run --prune",
            "ted-distributor apply -",
            "ted-distributor export --output fleet.toml",
            "ted-distributor subscriber update s1 --name s2.example.com",
            "ted-distributor subscriber approve s1 --fingerprint 0011-2233-4455-6677",
            "ted-distributor subscriber create s1 --certificate-directory /mnt/s1/security --channel nightly --resolve",
            "ted-distributor subscriber update s1 --certificate-directory /mnt/s1",
            "ted-distributor subscriber update s1 --certificate-by-hand",
            "ted-distributor channel create nightly --distribution site --subscriber s1 --resolve",
            "ted-distributor certificate resolve",
            "ted-distributor certificate resolve --copy --subscriber s1 --subscriber s2",
            "ted-distributor certificate resolve --save /media/stick",
            "ted-distributor certificate sign s1.identity.csr s1.encryption.csr --output out --channel nightly",
            "ted-distributor certificate sign s1.encryption.csr --output out --fingerprint 0011-2233-4455-6677",
            "ted-distributor keystore list",
            "ted-distributor keystore show https",
            "ted-distributor keystore import --certificate x.pfx --password-file p --name www.example.com",
            "ted-distributor keystore import --certificate x.pem --key x.key",
            "ted-distributor keystore remove https",
            "ted-distributor token create --uses 3 --expires 24h",
            "ted-distributor certificate export",
            "ted-distributor certificate show 0a",
            "ted-distributor certificate revoke s1.example.com --reason lost",
            "ted-distributor certificate revoke 0A:1B:2C",
            "ted-distributor certificate revoke 0A 1B 2C",
            "ted-distributor subscriber configure s1 --set scrub.interval=7d --set variable.SITE=north --unset rate.low",
            "ted-distributor subscriber configure --all",
            "ted-distributor certificate renew",
            "ted-distributor certificate replace",
            "ted-distributor certificate replace --finalize --grace 30d",
            "ted-distributor certificate replace --cancel",
            "ted-distributor certificate rekey --name new.example.com",
            "ted-distributor certificate correct-clock",
            "ted-distributor distribution rollback site --to 1795338340143",
            "ted-distributor distribution diff site",
            "ted-distributor distribution diff site 340143 newest",
            "ted-distributor send nightly --wait --until received --timeout 10m --no-build",
            "ted-distributor send nightly --dry-run",
            "ted-distributor cancel 00112233445566778899aabbccddeeff",
            "ted-distributor firing list --channel nightly --json",
            "ted-distributor refresh",
            "ted-distributor firing show 00112233445566778899aabbccddeeff",
            "ted-distributor events -f",
            "ted-distributor events --since 2h --channel nightly --code TED-1355 --subscriber s1 -n 5 --json",
            "ted-distributor report deliveries --state failed --state timed-out --waiting-for grant --since 1d",
            "ted-distributor report summary --channel nightly",
            "ted-distributor package verify distfile.ted --certificate d.cer",
            "ted-distributor backup /safe/keys.age --passphrase-file p",
            "ted-distributor restore /safe/keys.age --force",
            "ted-distributor schedule next never",
            "ted-distributor schedule next never -n 3 --after 2027-01-31T02:00:00Z --json",
            "ted-distributor completions bash",
            "ted-distributor man /tmp/man",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "ted-distributor init --name a..b",
            "ted-distributor distribution create a/b --source /srv",
            "ted-distributor distribution create site",
            "ted-distributor distribution create site --source /srv --digest sha1",
            "ted-distributor channel create nightly",
            "ted-distributor channel update nightly",
            "ted-distributor subscriber update s1",
            "ted-distributor subscriber update --parent p1",
            "ted-distributor subscriber update s1 --label site=berlin --parent p1",
            "ted-distributor subscriber update s1 --parent p1 --direct",
            "ted-distributor subscriber update --label a=b=c --parent p1",
            "ted-distributor subscriber create s1 --label site",
            "ted-distributor subscriber pause",
            "ted-distributor group update north",
            "ted-distributor channel update nightly --active --inactive",
            "ted-distributor distribution update site --build sometimes",
            "ted-distributor apply",
            "ted-distributor subscriber update s1 --certificate-directory mnt",
            "ted-distributor subscriber create s1 --certificate-command scp",
            "ted-distributor certificate resolve --copy --save /x",
            "ted-distributor certificate sign --output out",
            "ted-distributor certificate sign a.csr b.csr",
            "ted-distributor keystore remove sign",
            "ted-distributor keystore import",
            "ted-distributor invite s1",
            "ted-distributor token create --uses 0",
            "ted-distributor token create --expires soon",
            "ted-distributor send nightly --timeout 10m",
            "ted-distributor send nightly --until received",
            "ted-distributor send nightly --wait --dry-run",
            "ted-distributor cancel xyz",
            "ted-distributor certificate replace --finalize --cancel",
            "ted-distributor certificate replace --grace 1d",
            "ted-distributor distribution rollback site --to last",
            "ted-distributor distribution create site --source /srv --level 20",
            "ted-distributor distribution create site --source /srv --delta-level 0",
            "ted-distributor certificate revoke",
            "ted-distributor certificate revoke s1 --reason because",
            "ted-distributor subscriber configure",
            "ted-distributor subscriber configure s1 --all",
            "ted-distributor subscriber configure s1 --set scrub=7d",
            "ted-distributor events --since yesterday",
            "ted-distributor report",
            "ted-distributor report deliveries --state well",
            "ted-distributor schedule next",
            "ted-distributor schedule next never -n 0",
            "ted-distributor schedule next never --after tomorrow",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(Exit::Usage.number()), "{line}");
        }
    }
}
