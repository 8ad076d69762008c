//! `invite`, `token` and `certificate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ted_cli::error::ApiError;
use ted_cli::files::{self, Secrecy};
use ted_cli::output;
use ted_core::distributor::SubscriberChanges;

use super::{Context, resolve, sign};
use crate::api::{CertificateExport, CertificateList, CertificateShow, InviteCreate, TokenCreate};
use crate::cli::{CertificateCommand, InviteArgs, TokenCommand};

pub(super) async fn invite(context: &Context, args: InviteArgs) -> Result<(), ApiError> {
    // Before the token is made: one that could not be written down would be lost.
    files::check_absent(&args.output)?;
    let request = InviteCreate {
        name: args.name,
        channels: args.channel,
        changes: SubscriberChanges {
            endpoints: (!args.listens_at.is_empty()).then_some(args.listens_at),
            parents: (!args.parent.is_empty()).then_some(args.parent),
            external: args.external.then_some(true),
            labels: args.label,
            into_groups: args.group,
            ..SubscriberChanges::default()
        },
        endpoints: args.endpoint,
        expires_ms: millis(args.expires),
    };
    let invite = context.session().await?.call(&request).await?;
    files::write_new(&args.output, invite.text.as_bytes(), Secrecy::OwnerOnly)?;
    let sentence = format!(
        "wrote {}: carry it to {} and run `ted-subscriber join` with it before {}",
        args.output.display(),
        invite.name,
        invite.expires
    );
    let answer = serde_json::json!({ "file": args.output, "name": invite.name, "expires": invite.expires });
    context.say(&sentence, &answer)
}

pub(super) async fn token(context: &Context, command: TokenCommand) -> Result<(), ApiError> {
    let TokenCommand::Create { uses, expires } = command;
    context.answer(&TokenCreate { uses, expires_ms: millis(expires) }).await
}

pub(super) async fn certificate(context: &Context, command: CertificateCommand) -> Result<(), ApiError> {
    match command {
        CertificateCommand::Export { output } => export(context, output).await,
        CertificateCommand::List => context.answer(&CertificateList {}).await,
        CertificateCommand::Rotation(command) => super::rotation::rotation(context, command).await,
        CertificateCommand::Revocation(command) => super::policy::revocation(context, command).await,
        CertificateCommand::Resolve { copy, save, subscriber } => {
            resolve::resolve(context, copy, save, subscriber).await
        }
        CertificateCommand::Sign(args) => sign::sign(context, args).await,
        CertificateCommand::Show { serial } => context.answer(&CertificateShow { serial }).await,
    }
}

async fn export(context: &Context, to: Option<PathBuf>) -> Result<(), ApiError> {
    let root = context.session().await?.call(&CertificateExport {}).await?;
    if to.as_deref() == Some(Path::new("-")) {
        return output::write_stdout(root.pem.as_bytes());
    }
    let path = to.unwrap_or_else(|| PathBuf::from(&root.file_name));
    files::write_new(&path, root.pem.as_bytes(), Secrecy::Public)?;
    let sentence = format!("wrote {}, fingerprint {}", path.display(), root.fingerprint);
    context.say(&sentence, &serde_json::json!({ "file": path, "fingerprint": root.fingerprint }))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
