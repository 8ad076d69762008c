//! `certificate sign`, `keystore`, `backup` and `restore`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use ted_cli::backup::{self, BackupArgs, RestoreArgs, RestoredView};
use ted_cli::error::{ApiError, code};
use ted_cli::files::{self, Secrecy};
use ted_cli::keystore::{KeystoreCommand, KeystoreImport, KeystoreList, KeystoreRemove, KeystoreShow};
use ted_cli::output;
use ted_core::Distributor;

use super::Context;
use crate::api::{CertificateSign, SigningView};
use crate::cli::SignArgs;

/// Requests are about a KiB; anything beyond this is another file.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

pub(super) async fn sign(context: &Context, args: SignArgs) -> Result<(), ApiError> {
    let read = |path: &std::path::PathBuf| files::read_text(path, REQUEST_BYTES_MAX);
    let requests = args.request.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let session = context.session().await?;
    let look = CertificateSign { requests: requests.clone(), fingerprint: None, channels: vec![] };
    let seen = session.call(&look).await?;
    let fingerprint = match args.fingerprint {
        Some(fingerprint) => fingerprint,
        None if args.yes || confirmed(&seen)? => seen.fingerprint.clone(),
        None => return Err(ApiError::new(code::NOT_CONFIRMED, "nothing was signed")),
    };
    std::fs::create_dir_all(&args.output)
        .map_err(|error| ApiError::new(code::FILE, format!("{}: {error}", args.output.display())))?;
    let signed =
        session.call(&CertificateSign { requests, fingerprint: Some(fingerprint), channels: args.channel }).await?;
    let mut written = vec![];
    for issued in &signed.issued {
        let path = args.output.join(&issued.file_name);
        // One that is there is of an earlier signing: it is replaced, as it is where it is carried to.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ApiError::new(code::FILE, format!("{}: {error}", path.display())));
            }
            _ => files::write_new(&path, issued.pem.as_bytes(), Secrecy::Public)?,
        }
        written.push(path);
    }
    let list = written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ");
    let distributor = session.call(&crate::api::CertificateExport {}).await?.file_name;
    let folder = distributor.trim_end_matches(".cer");
    let sentence = format!(
        "signed for {}, fingerprint {}: carry {list} to its security/issued/{folder}/",
        signed.name, signed.fingerprint
    );
    let answer = serde_json::json!({ "name": signed.name, "fingerprint": signed.fingerprint, "files": written });
    context.say(&sentence, &answer)
}

/// Asks whoever sits there to compare the fingerprint.
fn confirmed(seen: &SigningView) -> Result<bool, ApiError> {
    let fail = |error: std::io::Error| ApiError::new(code::NOT_CONFIRMED, format!("nobody can be asked: {error}"));
    if !std::io::stdin().is_terminal() {
        let message = format!("{} asks with the fingerprint {}, and nobody compared it", seen.name, seen.fingerprint);
        return Err(ApiError::new(code::NOT_CONFIRMED, message));
    }
    let mut err = std::io::stderr();
    let registered = if seen.registered { ", which is registered already" } else { "" };
    writeln!(err, "{} asks with the fingerprint {}{registered}.", seen.name, seen.fingerprint).map_err(fail)?;
    if let Some(replaced) = &seen.replaces {
        writeln!(err, "The key {replaced}, registered under this name until now, would be refused.").map_err(fail)?;
    }
    write!(err, "Does the node itself print the same, and shall it be signed? [y/N] ").map_err(fail)?;
    err.flush().map_err(fail)?;
    let mut said = String::new();
    std::io::stdin().lock().read_line(&mut said).map_err(fail)?;
    Ok(matches!(said.trim().to_lowercase().as_str(), "y" | "yes"))
}

pub(super) async fn keystore(context: &Context, command: KeystoreCommand) -> Result<(), ApiError> {
    match command {
        KeystoreCommand::List => context.answer(&KeystoreList {}).await,
        KeystoreCommand::Show { what } => context.answer(&KeystoreShow { what }).await,
        KeystoreCommand::Import(args) => context.answer(&KeystoreImport::read(&args)?).await,
        KeystoreCommand::Remove { .. } => {
            context.done(&KeystoreRemove {}, "removed the key and certificate for HTTPS").await
        }
    }
}

pub(super) async fn back_up(context: &Context, args: BackupArgs) -> Result<(), ApiError> {
    backup::make(&context.session().await?, &args).await?;
    let sentence = format!("wrote {}; without its passphrase nobody can read it, nor can you", args.file.display());
    context.say(&sentence, &serde_json::json!({ "file": args.file }))
}

pub(super) async fn restore(context: &Context, args: RestoreArgs) -> Result<(), ApiError> {
    let (bytes, passphrase, overwrite) = backup::read(&args)?;
    let restored = Distributor::restore(&context.settings.data_dir, bytes, passphrase, overwrite).await?;
    output::print(context.format, &RestoredView::from(restored))
}
