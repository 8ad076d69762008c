//! What each command does: it becomes an operation, and its answer is printed.

mod declared;
mod fleet;
mod input;
mod node;
mod policy;
mod report;
mod resolve;
mod revision;
mod rotation;
mod security;
mod send;
mod sign;

use clap::CommandFactory as _;
use serde::Serialize;
use ted_cli::api::{Done, Operation};
use ted_cli::error::ApiError;
use ted_cli::output::{self, Format, Render};
use ted_cli::progress::Progress;
use ted_cli::session::Session;
use ted_cli::{generate, package, schedule};
use ted_core::distributor::own_key;
use ted_core::id::PackageId;
use ted_core::package::Root;
use ted_core::store::NodeRole;

use crate::cli::{Cli, Command};
use crate::service::{Service, Settings};

/// Carries out the command line.
///
/// # Errors
/// What the command fails with; `main` prints it.
pub(crate) async fn run(cli: Cli) -> Result<(), ApiError> {
    let format = cli.common.format();
    let command = match cli.command {
        Command::Package(command) => {
            // Without a node of its own, whoever looks at a package sees what everybody sees.
            let data = cli.common.data_dir(NodeRole::Distributor).ok();
            let keys = |_: &PackageId, root: &Root| Ok(data.as_ref().and_then(|data| own_key(data, root)));
            return package::run(&command, format, &keys);
        }
        Command::Schedule(command) => return schedule::run(&command, format),
        Command::Generate(command) => return generate::run(&command, Cli::command()),
        command => command,
    };
    let data_dir = cli.common.data_dir(NodeRole::Distributor)?;
    let config = cli.common.config(NodeRole::Distributor, &data_dir)?;
    let context = Context { settings: Settings { data_dir, config }, format };
    match command {
        Command::Init(args) => node::init(&context, args).await,
        Command::Run => node::run(&context).await,
        Command::Status(args) => node::status(&context, args.watch).await,
        Command::Doctor => node::doctor(&context).await,
        Command::Events(args) => node::events(&context, args).await,
        Command::Report(command) => report::report(&context, command).await,
        Command::Distribution(command) => fleet::distribution(&context, command).await,
        Command::Channel(command) => fleet::channel(&context, command).await,
        Command::Subscriber(command) => fleet::subscriber(&context, command).await,
        Command::ExternalSubscriber(command) => fleet::external(&context, command).await,
        Command::Group(command) => declared::group(&context, command).await,
        Command::Route(command) => declared::route(&context, command).await,
        Command::Refresh => declared::refresh(&context).await,
        Command::Apply(args) => declared::apply(&context, args).await,
        Command::Export(args) => declared::export(&context, args).await,
        Command::Invite(args) => security::invite(&context, args).await,
        Command::Token(command) => security::token(&context, command).await,
        Command::Certificate(command) => security::certificate(&context, command).await,
        Command::Keystore(command) => sign::keystore(&context, command).await,
        Command::Backup(args) => sign::back_up(&context, args).await,
        Command::Restore(args) => sign::restore(&context, args).await,
        Command::Send(args) => send::send(&context, args).await,
        Command::Firing(command) => send::firing(&context, command).await,
        Command::Cancel { firing } => send::cancel(&context, firing).await,
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
        let answer = self.session().await?.call(request).await?;
        output::print(self.format, &answer)
    }

    /// The same for an operation that takes long: its progress is shown meanwhile.
    async fn answer_with_progress<O>(&self, request: &O) -> Result<(), ApiError>
    where
        O: Operation,
        O::Answer: Serialize + Render,
    {
        let progress = Progress::new(self.format);
        let answer = self.session().await?.call_with_progress(request, &progress).await;
        progress.clear();
        output::print(self.format, &answer?)
    }

    /// Carries out `request` and says in a sentence that it is done.
    async fn done<O: Operation<Answer = Done>>(&self, request: &O, sentence: &str) -> Result<(), ApiError> {
        self.session().await?.call(request).await?;
        self.say(sentence, &Done {})
    }

    /// Prints `sentence` for people, or `answer` for programs.
    fn say(&self, sentence: &str, answer: &impl Serialize) -> Result<(), ApiError> {
        match self.format {
            Format::Json => output::print_json(answer),
            Format::Text => output::write_stdout(format!("{}\n", output::clean(sentence)).as_bytes()),
        }
    }
}
