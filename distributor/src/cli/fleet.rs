//! What can be asked about Channels, groups, Subscribers, routes and the fleet as a whole.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ted_core::model::{CertificateWay, Endpoint, LabelCondition, parse_label};
use ted_core::name::{Label, NodeName};
use ted_core::schedule::{Purpose, RatePlan, Schedule};

use super::{ConfigureArgs, ResolveFlag};

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// Join Distributions and Subscribers in a Channel.
    Create {
        /// Its name.
        name: Label,
        /// A Distribution it sends. May be repeated.
        #[arg(long, required = true, value_name = "NAME")]
        distribution: Vec<Label>,
        /// A Subscriber that receives. May be repeated.
        #[arg(long, value_name = "NAME")]
        subscriber: Vec<NodeName>,
        /// A group whose members receive. May be repeated.
        #[arg(long, value_name = "NAME")]
        group: Vec<Label>,
        /// When it sends by itself, such as 'cron "0 2 * * *" in Europe/Berlin' [default: never].
        #[arg(long, value_name = "SCHEDULE", value_parser = send_schedule)]
        schedule: Option<Schedule>,
        /// It sends nothing until `channel resume`.
        #[arg(long)]
        inactive: bool,
        #[command(flatten)]
        resolve: ResolveFlag,
    },
    /// List all Channels.
    List,
    /// Show one Channel.
    Show {
        /// Its name.
        name: Label,
    },
    /// Replace its lists, its schedule, or whether it is active; what is not given stays.
    Update {
        /// Its name.
        name: Label,
        #[command(flatten)]
        changes: ChannelUpdateArgs,
        #[command(flatten)]
        resolve: ResolveFlag,
    },
    /// Have it send nothing until `resume`: what is under way is kept where it is, and goes on then.
    Pause {
        /// Its name.
        name: Label,
    },
    /// Have it send again.
    Resume {
        /// Its name.
        name: Label,
    },
    /// Delete it; Distributions and Subscribers stay.
    Delete {
        /// Its name.
        name: Label,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ChannelUpdateArgs {
    /// The Distributions it sends from now on. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) distribution: Vec<Label>,
    /// The Subscribers that receive from now on, besides those of groups. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) subscriber: Vec<NodeName>,
    /// No Subscriber receives from now on but those of groups.
    #[arg(long, conflicts_with = "subscriber")]
    pub(crate) no_subscribers: bool,
    /// The groups whose members receive from now on. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<Label>,
    /// No group receives from now on.
    #[arg(long, conflicts_with = "group")]
    pub(crate) no_groups: bool,
    /// When it sends by itself from now on.
    #[arg(long, value_name = "SCHEDULE", value_parser = send_schedule)]
    pub(crate) schedule: Option<Schedule>,
    /// It sends from now on, as `channel resume` says too.
    #[arg(long)]
    pub(crate) active: bool,
    /// It sends nothing from now on, as `channel pause` says too.
    #[arg(long, conflicts_with = "active")]
    pub(crate) inactive: bool,
}

fn send_schedule(text: &str) -> Result<Schedule, ted_core::schedule::ScheduleError> {
    Schedule::parse_for(Purpose::Send, text)
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Make a group: its members receive what the Channels of the group send.
    Create {
        /// Its name.
        name: Label,
        /// A member. May be repeated.
        #[arg(long, value_name = "NAME")]
        subscriber: Vec<NodeName>,
    },
    /// List all groups.
    List,
    /// Show one group: its members and its Channels.
    Show {
        /// Its name.
        name: Label,
    },
    /// Change its name or its members. By labels: `subscriber update --label site=berlin --group NAME`.
    Update {
        /// Its name.
        name: Label,
        #[command(flatten)]
        changes: GroupUpdateArgs,
    },
    /// Delete it; its members stay. Refused while a Channel sends to it.
    Delete {
        /// Its name.
        name: Label,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct GroupUpdateArgs {
    /// Its name from now on.
    #[arg(long = "name", value_name = "NEW")]
    pub(crate) rename: Option<Label>,
    /// A Subscriber that becomes a member. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) add: Vec<NodeName>,
    /// A member that leaves. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) remove: Vec<NodeName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubscriberCommand {
    /// Declare a Subscriber.
    Create {
        #[command(flatten)]
        args: SubscriberCreateArgs,
        #[command(flatten)]
        resolve: ResolveFlag,
    },
    /// List all Subscribers, or those that have certain labels.
    List {
        /// Only those: KEY=VALUE, KEY!=VALUE, or KEY for any value. May be repeated; all have to hold.
        #[arg(long, value_name = "CONDITION")]
        label: Vec<LabelCondition>,
    },
    /// Show one Subscriber and what it has.
    Show {
        /// Its node name.
        name: NodeName,
    },
    /// Change one Subscriber, or all that have certain labels: where they are dialled, their route, Channels, groups and
    /// labels. All of them are changed or none.
    Update {
        #[command(flatten)]
        args: Box<SubscriberUpdateArgs>,
        #[command(flatten)]
        resolve: ResolveFlag,
    },
    /// Offer them nothing until `resume`: what is under way is kept where it is, and goes on then.
    Pause {
        #[command(flatten)]
        which: SelectionArgs,
    },
    /// Offer them again what they lack.
    Resume {
        #[command(flatten)]
        which: SelectionArgs,
    },
    /// Show or change what is set at it, or at all: schedules, rates, variables, scrubbing.
    Configure(ConfigureArgs),
    /// Delete it and forget its keys: it is refused from now on.
    Delete {
        /// Its node name.
        name: NodeName,
    },
    /// List who waits to be approved.
    Pending,
    /// Approve an enrolment that waits.
    Approve {
        /// The node name.
        name: NodeName,
        /// The fingerprint that the node itself printed; approval is refused if another key waits.
        #[arg(long)]
        fingerprint: Option<String>,
        /// A Channel it receives from the start. May be repeated.
        #[arg(long, value_name = "NAME")]
        channel: Vec<Label>,
    },
}

/// External Subscribers are outside the own fleet: they enrol, and receive certificates, grants and files, and never
/// configuration; they are nobody's parent.
#[derive(Debug, Subcommand)]
pub(crate) enum ExternalCommand {
    /// Declare an External Subscriber.
    Create {
        #[command(flatten)]
        args: Box<SubscriberCreateArgs>,
        #[command(flatten)]
        resolve: ResolveFlag,
    },
    /// List all External Subscribers, or those that have certain labels.
    List {
        /// Only those: KEY=VALUE, KEY!=VALUE, or KEY for any value. May be repeated; all have to hold.
        #[arg(long, value_name = "CONDITION")]
        label: Vec<LabelCondition>,
    },
    /// Show one External Subscriber and what it has.
    Show {
        /// Its node name.
        name: NodeName,
    },
    /// Change one External Subscriber, or all that have certain labels, as `subscriber update` does.
    Update {
        #[command(flatten)]
        args: Box<SubscriberUpdateArgs>,
        #[command(flatten)]
        resolve: ResolveFlag,
    },
    /// Delete it and forget its keys: it is refused from now on.
    Delete {
        /// Its node name.
        name: NodeName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SubscriberCreateArgs {
    /// Its node name.
    pub(crate) name: NodeName,
    /// Where it is dialled, by this Distributor or its parent, and by its children; without one it dials by itself. May
    /// be repeated.
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse_with_default_port)]
    pub(crate) endpoint: Vec<Endpoint>,
    /// The parent Subscriber it is reached through [default: this Distributor itself]. Repeated: where to turn when the
    /// one before is not reached, this Distributor's own name for itself.
    #[arg(long, value_name = "NAME")]
    pub(crate) parent: Vec<NodeName>,
    /// A Channel it receives. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Vec<Label>,
    /// A group it belongs to. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<Label>,
    /// A label, by which it is selected later. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) label: Vec<(Label, Label)>,
    /// How fast it is sent to, also by time of day: '20MB/s; 2MB/s between 08:00 and 18:00' [default: unlimited].
    #[arg(long, value_name = "RATES")]
    pub(crate) rate: Option<RatePlan>,
    /// It is offered nothing until `subscriber resume`.
    #[arg(long)]
    pub(crate) inactive: bool,
    /// A folder that this machine reaches and that is the Subscriber's `security/`.
    #[arg(long, value_name = "DIR", value_parser = parse_directory, conflicts_with = "certificate_command")]
    pub(crate) certificate_directory: Option<CertificateWay>,
    /// A command that brings it, such as 'scp -o BatchMode=yes {cer} root@{address}:/var/lib/ted/subscriber/security/'.
    /// It is run without a shell; {cer}, {name} and {address} are filled in.
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    pub(crate) certificate_command: Option<CertificateWay>,
}

/// Which Subscribers are meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SelectionArgs {
    /// Their node names.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<NodeName>,
    /// All that have this label: KEY=VALUE, KEY!=VALUE, or KEY for any value. May be repeated; all have to hold.
    #[arg(long = "label", value_name = "CONDITION")]
    pub(crate) conditions: Vec<LabelCondition>,
    /// All Subscribers.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubscriberUpdateArgs {
    #[command(flatten)]
    pub(crate) which: SelectionArgs,
    #[command(flatten)]
    pub(crate) changes: SubscriberChangeArgs,
    /// Say how many and which would change, and how, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct SubscriberChangeArgs {
    /// Where it is dialled from now on. May be repeated.
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse_with_default_port)]
    pub(crate) endpoint: Vec<Endpoint>,
    /// It dials by itself from now on.
    #[arg(long, conflicts_with = "endpoint")]
    pub(crate) dials_itself: bool,
    /// The parent Subscriber it is reached through from now on. Repeated: where to turn when the one before is not
    /// reached, this Distributor's own name for itself.
    #[arg(long, value_name = "NAME")]
    pub(crate) parent: Vec<NodeName>,
    /// It is reached by this Distributor itself from now on.
    #[arg(long, conflicts_with = "parent")]
    pub(crate) direct: bool,
    /// A Channel it receives from now on, besides those it has. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) channel: Vec<Label>,
    /// A Channel it receives no more. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) leave_channel: Vec<Label>,
    /// A group it belongs to from now on, besides those it does. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Vec<Label>,
    /// A group it belongs to no more. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) leave_group: Vec<Label>,
    /// A label that it gets. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) set_label: Vec<(Label, Label)>,
    /// A label that it loses. May be repeated.
    #[arg(long, value_name = "KEY")]
    pub(crate) unset_label: Vec<Label>,
    /// How fast it is sent to from now on, as for `create`; `unlimited` for as fast as it goes.
    #[arg(long, value_name = "RATES")]
    pub(crate) rate: Option<RatePlan>,
    /// Whether it is External: outside the own fleet.
    #[arg(long, value_name = "BOOL")]
    pub(crate) external: Option<bool>,
    /// Its name from now on, a label: its key, Channels and endpoints stay. Run `ted-subscriber rename` there.
    #[arg(long = "name", value_name = "NEW")]
    pub(crate) rename: Option<NodeName>,
    /// A folder that this machine reaches and that is the Subscriber's `security/`.
    #[arg(long, value_name = "DIR", value_parser = parse_directory, conflicts_with = "certificate_command")]
    pub(crate) certificate_directory: Option<CertificateWay>,
    /// A command that brings the certificate, as for `create`.
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    pub(crate) certificate_command: Option<CertificateWay>,
    /// Somebody carries the certificate to it from now on.
    #[arg(long, conflicts_with_all = ["certificate_directory", "certificate_command"])]
    pub(crate) certificate_by_hand: bool,
}

fn parse_directory(text: &str) -> Result<CertificateWay, String> {
    CertificateWay::directory(text).map_err(|reason| format!("`{text}` {reason}"))
}

fn parse_command(text: &str) -> Result<CertificateWay, String> {
    CertificateWay::command(text).map_err(|reason| format!("it {reason}"))
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Print all routes as a tree, or the way to one Subscriber and what lies behind it.
    Show {
        /// The Subscriber's node name.
        name: Option<NodeName>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The fleet file, TOML as `export` writes it; `-` reads it from standard input.
    pub(crate) file: PathBuf,
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Delete what the file does not declare; without it, that stays as it is.
    #[arg(long)]
    pub(crate) prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file to write, in the place of an older one [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
