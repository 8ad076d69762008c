//! `group`, `route`, `apply` and `export`.

use std::io::Read as _;
use std::path::Path;

use ted_cli::error::{ApiError, code};
use ted_cli::files;
use ted_cli::output::{self, Format};
use ted_core::distributor::GroupChanges;

use super::Context;
use crate::api::{
    FleetApply, FleetExport, FleetRefresh, GroupCreate, GroupDelete, GroupList, GroupShow, GroupUpdate, RouteShow,
};
use crate::cli::{ApplyArgs, ExportArgs, GroupCommand, GroupUpdateArgs, RouteCommand};

/// Bytes of a fleet file that are read: beyond what the control socket takes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(super) async fn group(context: &Context, command: GroupCommand) -> Result<(), ApiError> {
    match command {
        GroupCommand::Create { name, subscriber } => {
            context.answer(&GroupCreate { name, subscribers: subscriber }).await
        }
        GroupCommand::Update { name, changes: GroupUpdateArgs { rename, add, remove } } => {
            context.answer(&GroupUpdate { name, changes: GroupChanges { name: rename, add, remove } }).await
        }
        GroupCommand::List => context.answer(&GroupList {}).await,
        GroupCommand::Show { name } => context.answer(&GroupShow { name }).await,
        GroupCommand::Delete { name } => {
            let sentence = format!("deleted the group {name}; its members stay");
            context.done(&GroupDelete { name }, &sentence).await
        }
    }
}

pub(super) async fn route(context: &Context, command: RouteCommand) -> Result<(), ApiError> {
    let RouteCommand::Show { name } = command;
    context.answer(&RouteShow { name }).await
}

pub(super) async fn apply(context: &Context, args: ApplyArgs) -> Result<(), ApiError> {
    let ApplyArgs { file, dry_run, prune } = args;
    let toml = read(&file)?;
    context.answer(&FleetApply { toml, prune, dry_run }).await
}

pub(super) async fn refresh(context: &Context) -> Result<(), ApiError> {
    context.answer(&FleetRefresh {}).await
}

pub(super) async fn export(context: &Context, args: ExportArgs) -> Result<(), ApiError> {
    let fleet = context.session().await?.call(&FleetExport {}).await?;
    match (args.output, context.format) {
        (Some(path), _) => {
            files::replace(&path, fleet.toml.as_bytes())?;
            let answer = serde_json::json!({ "file": path });
            context.say(&format!("wrote {}", path.display()), &answer)
        }
        (None, Format::Json) => output::print_json(&fleet),
        (None, Format::Text) => output::write_stdout(fleet.toml.as_bytes()),
    }
}

fn read(path: &Path) -> Result<String, ApiError> {
    if path != Path::new("-") {
        return files::read_text(path, FILE_BYTES_MAX);
    }
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| ApiError::new(code::FILE, format!("standard input cannot be read: {error}")))?;
    Ok(text)
}
