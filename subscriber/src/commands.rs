//! What each command does: it becomes an operation, and its answer is printed.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use serde::Serialize;
use ted_cli::api::{Done, Operation};
use ted_cli::backup::{self, BackupArgs, RestoreArgs, RestoredView};
use ted_cli::common::absolute;
use ted_cli::control::ControlSocket;
use ted_cli::error::{ApiError, code, from_library};
use ted_cli::keystore::{KeystoreCommand, KeystoreImport, KeystoreList, KeystoreRemove, KeystoreShow};
use ted_cli::output::{self, Format, Render};
use ted_cli::progress::Progress;
use ted_cli::session::{Session, open_for_daemon};
use ted_cli::{files, generate, package, schedule, shutdown, watch};
use ted_core::id::PackageId;
use ted_core::name::NodeName;
use ted_core::node::EventFilter;
use ted_core::package::Root;
use ted_core::security::Invite;
use ted_core::store::NodeRole;
use ted_core::subscriber::granted_key;

use crate::api::{
    ConfigurationShow, DistributionExtract, DistributionPreview, DistributionResume, DistributionRollback,
    DistributionVerify, DistributorEnrol, DistributorIssued, DistributorLeave, DistributorRequest, DistributorTrust,
    NodeDoctor, NodeJoin, NodePause, NodeRename, NodeResume, NodeStatus, TargetList, TargetSet, TargetUnset,
};
use crate::cli::{Cli, Command, ConfigurationCommand, EnrolArgs, JoinArgs, RequestArgs, TargetCommand};
use crate::service::{Service, Settings};
use ted_core::{DistributionRef, Subscriber};

/// Invites and certificates are a few KiB; anything beyond this is another file.
const TEXT_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Carries out the command line.
///
/// # Errors
/// What the command fails with; `main` prints it.
pub(crate) async fn run(cli: Cli) -> Result<(), ApiError> {
    let format = cli.common.format();
    let command = match cli.command {
        Command::Package(command) => {
            // Without a node of its own, whoever looks at a package sees what everybody sees.
            let data = cli.common.data_dir(NodeRole::Subscriber).ok();
            let keys = |id: &PackageId, root: &Root| match &data {
                Some(data) => granted_key(data, command.file(), id, root).map_err(ApiError::from),
                None => Ok(None),
            };
            return package::run(&command, format, &keys);
        }
        Command::Schedule(command) => return schedule::run(&command, format),
        Command::Generate(command) => return generate::run(&command, Cli::command()),
        command => command,
    };
    let data_dir = cli.common.data_dir(NodeRole::Subscriber)?;
    let config = cli.common.config(NodeRole::Subscriber, &data_dir)?;
    let context = Context { settings: Settings { data_dir, config }, format };
    match command {
        Command::Join(args) => join(&context, args).await,
        Command::Init(args) => {
            let name = args.name.map_or_else(ted_cli::host::default_name, Ok)?;
            let node = Service::init(&context.settings, name, args.listen).await?;
            output::print(context.format, &node)
        }
        Command::Trust { file } => trust(&context, &file).await,
        Command::Enrol(args) => {
            let EnrolArgs { endpoint, distributor, token, .. } = args;
            match endpoint {
                Some(endpoint) => context.answer(&DistributorEnrol { endpoint, distributor, token }).await,
                None => context.answer(&DistributorIssued { distributor }).await,
            }
        }
        Command::Request(RequestArgs { distributor, endpoint }) => {
            context.answer(&DistributorRequest { distributor, endpoints: endpoint }).await
        }
        Command::Run => run_daemon(&context).await,
        Command::Status { watch: false } => context.answer(&NodeStatus {}).await,
        Command::Status { watch: true } => watch::status(&context.daemon().await?, &NodeStatus {}, format).await,
        Command::Rename { name } => rename(&context, name).await,
        Command::Leave { distributor } => {
            let sentence = format!("left {distributor}; extracted files stay");
            context.done(&DistributorLeave { distributor }, &sentence).await
        }
        Command::Backup(args) => back_up(&context, args).await,
        Command::Restore(args) => restore(&context, args).await,
        Command::Keystore(command) => keystore(&context, command).await,
        Command::Target(command) => target(&context, command).await,
        Command::Configuration(ConfigurationCommand::Show) => context.answer(&ConfigurationShow {}).await,
        Command::Extract { distribution, dry_run: false, no_hooks } => extract(&context, distribution, no_hooks).await,
        Command::Extract { distribution, dry_run: true, .. } => preview(&context, distribution).await,
        Command::Verify { distribution, repair } => verify(&context, distribution, repair).await,
        Command::Rollback { distribution } => {
            let request = DistributionRollback { distribution };
            output::print(context.format, &context.long(&request).await?)?;
            let until = format!("it stays so until `resume {}`, or until something newer comes", request.distribution);
            note(&context, &until);
            Ok(())
        }
        Command::Pause => context.done(&NodePause {}, "paused: nothing new is received until `resume`").await,
        Command::Resume { distribution: None } => context.done(&NodeResume {}, "this node receives again").await,
        Command::Resume { distribution: Some(distribution) } => {
            let sentence = format!("{distribution} takes what is offered next");
            context.done(&DistributionResume { distribution }, &sentence).await
        }
        Command::Doctor => doctor(&context).await,
        Command::Events { events, distributor } => {
            let filter = EventFilter { distributor, ..events.filter() };
            if events.follow {
                return watch::follow::<Service>(&context.settings.data_dir, filter, format).await;
            }
            watch::events(&context.session().await?, filter, format).await
        }
        Command::Package(_) | Command::Schedule(_) | Command::Generate(_) => Ok(()),
    }
}

/// What every command knows.
struct Context {
    settings: Settings,
    format: Format,
}

impl Context {
    /// The daemon, or the state itself where none runs.
    async fn session(&self) -> Result<Session<Service>, ApiError> {
        Session::open(&self.settings.data_dir, async || Service::open(&self.settings).await).await
    }

    /// The daemon; the command makes no sense without it.
    async fn daemon(&self) -> Result<Session<Service>, ApiError> {
        Session::daemon(&self.settings.data_dir).await
    }

    /// Carries out `request` and prints its answer.
    async fn answer<O>(&self, request: &O) -> Result<(), ApiError>
    where
        O: Operation,
        O::Answer: Serialize + Render,
    {
        output::print(self.format, &self.session().await?.call(request).await?)
    }

    /// Carries out what takes long, and shows its progress meanwhile.
    async fn long<O: Operation>(&self, request: &O) -> Result<O::Answer, ApiError> {
        let progress = Progress::new(self.format);
        let answer = self.session().await?.call_with_progress(request, &progress).await;
        progress.clear();
        answer
    }

    /// Carries out `request` and says in a sentence that it is done.
    async fn done<O: Operation<Answer = Done>>(&self, request: &O, sentence: &str) -> Result<(), ApiError> {
        let done = self.session().await?.call(request).await?;
        match self.format {
            Format::Json => output::print_json(&done),
            Format::Text => output::write_stdout(format!("{}\n", output::clean(sentence)).as_bytes()),
        }
    }
}

async fn join(context: &Context, args: JoinArgs) -> Result<(), ApiError> {
    let invite = files::read_text(&args.file, TEXT_FILE_BYTES_MAX)?;
    let targets = args.target.into_iter().map(|(name, folder)| Ok((name, absolute(&folder)?)));
    let targets = targets.collect::<Result<_, ApiError>>()?;
    let name = Invite::from_text(&invite).map_err(from_library)?.node;
    let settings = &context.settings;
    let session =
        Session::open(&settings.data_dir, async || Service::open_or_make(settings, name.clone()).await).await?;
    output::print(context.format, &session.call(&NodeJoin { invite, targets }).await?)
}

async fn rename(context: &Context, name: NodeName) -> Result<(), ApiError> {
    context.answer(&NodeRename { name: name.clone() }).await?;
    let approve = format!("sealed Distributions wait until each Distributor has said `subscriber approve {name}`");
    note(context, &approve);
    Ok(())
}

/// What an operator should know besides the answer; on standard error, and programs do not need it.
fn note(context: &Context, said: &str) {
    if context.format == Format::Text {
        // What was asked for is done; there is no one left to tell when standard error itself fails.
        let _ = writeln!(std::io::stderr(), "note: {said}");
    }
}

async fn trust(context: &Context, file: &Path) -> Result<(), ApiError> {
    let certificate = files::read_text(file, TEXT_FILE_BYTES_MAX)?;
    context.answer(&DistributorTrust { certificate }).await
}

async fn run_daemon(context: &Context) -> Result<(), ApiError> {
    let ending = shutdown::requested()
        .map_err(|error| ApiError::new(code::STATE, format!("signals cannot be listened to: {error}")))?;
    let data = &context.settings.data_dir;
    let service = open_for_daemon(data, async || Service::open_daemon(&context.settings).await).await?;
    let socket = ControlSocket::bind(data).await?;
    let subscriber = service.subscriber().clone();
    let listen = subscriber.start().await?.map_or("nothing: it only dials".to_owned(), |address| address.to_string());
    tracing::info!(name = %subscriber.name(), listen, data = %data.display(), "the Subscriber runs");
    let served = socket.serve(service, ending).await;
    subscriber.shutdown().await;
    served
}

async fn keystore(context: &Context, command: KeystoreCommand) -> Result<(), ApiError> {
    match command {
        KeystoreCommand::List => context.answer(&KeystoreList {}).await,
        KeystoreCommand::Show { what } => context.answer(&KeystoreShow { what }).await,
        KeystoreCommand::Import(args) => context.answer(&KeystoreImport::read(&args)?).await,
        KeystoreCommand::Remove { .. } => {
            context.done(&KeystoreRemove {}, "removed the key and certificate for HTTPS").await
        }
    }
}

async fn back_up(context: &Context, args: BackupArgs) -> Result<(), ApiError> {
    backup::make(&context.session().await?, &args).await?;
    let sentence = format!("wrote {}; without its passphrase nobody can read it, nor can you", args.file.display());
    match context.format {
        Format::Json => output::print_json(&serde_json::json!({ "file": args.file })),
        Format::Text => output::write_stdout(format!("{}\n", output::clean(&sentence)).as_bytes()),
    }
}

async fn restore(context: &Context, args: RestoreArgs) -> Result<(), ApiError> {
    let (bytes, passphrase, overwrite) = backup::read(&args)?;
    let restored = Subscriber::restore(&context.settings.data_dir, bytes, passphrase, overwrite).await?;
    output::print(context.format, &RestoredView::from(restored))
}

async fn target(context: &Context, command: TargetCommand) -> Result<(), ApiError> {
    match command {
        TargetCommand::List => context.answer(&TargetList {}).await,
        TargetCommand::Set { target: (distribution, folder) } => {
            let target = absolute(&folder)?;
            let sentence = format!("{distribution} goes to {} from now on", target.display());
            context.done(&TargetSet { distribution, target }, &sentence).await
        }
        TargetCommand::Unset { distribution } => {
            let sentence = format!("{distribution} goes to its usual place from now on");
            context.done(&TargetUnset { distribution }, &sentence).await
        }
    }
}

async fn extract(context: &Context, distribution: Option<DistributionRef>, no_hooks: bool) -> Result<(), ApiError> {
    let done = context.long(&DistributionExtract { distribution, no_hooks }).await?;
    output::print(context.format, &done)?;
    match done.failed.first() {
        Some(first) => {
            let all = done.extracted.len() + done.failed.len();
            Err(ApiError::new(&first.code, format!("{} of {all} Distributions were not extracted", done.failed.len())))
        }
        None => Ok(()),
    }
}

async fn preview(context: &Context, distribution: Option<DistributionRef>) -> Result<(), ApiError> {
    let previews = context.session().await?.call(&DistributionPreview { distribution }).await?;
    output::print(context.format, &previews)?;
    match previews.refused() {
        Some(refused) => Err(ApiError::new(&refused.code, "the extraction would be refused")),
        None => Ok(()),
    }
}

async fn verify(context: &Context, distribution: Option<DistributionRef>, repair: bool) -> Result<(), ApiError> {
    let verified = context.long(&DistributionVerify { distribution, repair }).await?;
    output::print(context.format, &verified)?;
    if verified.is_whole() {
        return Ok(());
    }
    Err(ApiError::new(code::NOT_WHOLE, "packages or extracted files are not as they were signed"))
}

async fn doctor(context: &Context) -> Result<(), ApiError> {
    let diagnosis = context.session().await?.call(&NodeDoctor {}).await?;
    output::print(context.format, &diagnosis)?;
    diagnosis.verdict()
}
