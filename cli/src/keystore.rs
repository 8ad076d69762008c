//! `keystore`: the same on both binaries.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use ted_core::store::KeystoreEntry;
use zeroize::Zeroizing;

use crate::api::Done;
use crate::error::{ApiError, code};
use crate::files;
use crate::output::{Column, Render, Text};
use crate::units::Time;

/// Certificates and keys are a few KiB, chains a few more.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// `keystore …`.
#[derive(Debug, Subcommand)]
pub enum KeystoreCommand {
    /// List trusted certificates and own keys.
    List,
    /// Show what is kept under a name, a use, or the beginning of a thumbprint or serial number.
    Show {
        /// A node's name, a use such as `https`, a thumbprint or a serial number.
        what: String,
    },
    /// Keep a key and certificate that were made elsewhere, for HTTPS; earlier ones are replaced.
    Import(ImportArgs),
    /// Remove the key and certificate that were imported for HTTPS.
    Remove {
        /// What was imported.
        #[arg(value_parser = ["https"])]
        what: String,
    },
}

/// `keystore import …`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The certificate, PEM, perhaps with those that lead to its CA; or a `.pfx` that holds the key too.
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// Its private key, PEM, where it is in a file of its own.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// A file whose first line is the password of the key or the `.pfx`.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The host that is served [default: this node's name].
    #[arg(long, value_name = "HOST")]
    pub name: Option<String>,
}

/// Asks for what the keystore holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeystoreList {}

/// Asks for what is kept under a name, use, thumbprint or serial number.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreShow {
    /// What is meant.
    pub what: String,
}

/// Keeps a key and certificate for HTTPS. It holds secrets, so it prints nothing of itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeystoreImport {
    /// What the files hold.
    pub files: Vec<Vec<u8>>,
    /// The password of the key.
    pub password: Option<String>,
    /// The host that is served; `None` means the node's name.
    pub name: Option<String>,
}

impl fmt::Debug for KeystoreImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeystoreImport").field("name", &self.name).finish_non_exhaustive()
    }
}

impl KeystoreImport {
    /// Reads the files that a command names.
    ///
    /// # Errors
    /// [`code::FILE`].
    pub fn read(args: &ImportArgs) -> Result<Self, ApiError> {
        let named = std::iter::once(&args.certificate).chain(&args.key);
        let files = named.map(|path| files::read_bytes(path, FILE_BYTES_MAX)).collect::<Result<_, _>>()?;
        let password = args.password_file.as_deref().map(first_line).transpose()?;
        Ok(Self { files, password, name: args.name.clone() })
    }

    /// Its parts, of which the secret ones are zeroed when they are dropped.
    #[must_use]
    pub fn into_parts(self) -> ImportParts {
        ImportParts {
            files: self.files.into_iter().map(Zeroizing::new).collect(),
            password: self.password.map(Zeroizing::new),
            name: self.name,
        }
    }
}

/// The parts of a [`KeystoreImport`].
pub struct ImportParts {
    /// What the files hold.
    pub files: Vec<Zeroizing<Vec<u8>>>,
    /// The password of the key.
    pub password: Option<Zeroizing<String>>,
    /// The host that is served; `None` means the node's name.
    pub name: Option<String>,
}

/// The first line of a file, without its end: a password or passphrase.
///
/// # Errors
/// [`code::FILE`].
pub fn first_line(path: &Path) -> Result<String, ApiError> {
    let text = Zeroizing::new(files::read_text(path, FILE_BYTES_MAX)?);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Removes what was imported for HTTPS.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeystoreRemove {}

crate::operations! {
    KeystoreList => "keystore/list" -> KeystoreView,
    KeystoreShow => "keystore/show" -> KeystoreDetail,
    KeystoreImport => "keystore/import" -> KeystoreDetail,
    KeystoreRemove => "keystore/remove" -> Done,
}

/// What a keystore holds, never a private key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeystoreView {
    /// Trusted certificates first.
    pub entries: Vec<EntryView>,
}

/// The same, each entry at length.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeystoreDetail {
    /// What was meant.
    pub entries: Vec<EntryView>,
}

/// One entry of a keystore.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntryView {
    /// What it is for: `trusted`, a use of a node's own key, or `https`.
    #[serde(rename = "use")]
    pub entry_use: String,
    /// Whose it is.
    pub name: String,
    /// The Distributor in whose fleet it counts.
    pub distributor: Option<String>,
    /// The short form of the key's hash.
    pub fingerprint: Option<String>,
    /// Whether the private key is kept too.
    pub has_key: bool,
    /// The file it lies in, where that is not the keystore.
    pub file: Option<PathBuf>,
    /// `None` while the key waits for its certificate.
    pub certificate: Option<CertificateDetail>,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateDetail {
    /// Whose it is.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Its alternative names.
    pub names: Vec<String>,
    /// From when it holds.
    pub not_before: Time,
    /// Until when it holds.
    pub not_after: Time,
    /// SHA-256 of it.
    pub thumbprint: String,
    /// Its serial number.
    pub serial: String,
}

impl From<KeystoreEntry> for EntryView {
    fn from(entry: KeystoreEntry) -> Self {
        let certificate = entry.certificate.map(|it| CertificateDetail {
            subject: it.subject,
            issuer: it.issuer,
            names: it.names,
            not_before: Time(it.not_before),
            not_after: Time(it.not_after),
            thumbprint: it.thumbprint,
            serial: it.serial,
        });
        Self {
            entry_use: entry.entry_use.to_string(),
            name: entry.name,
            distributor: entry.distributor.map(|name| name.to_string()),
            fingerprint: entry.fingerprint,
            has_key: entry.has_key,
            file: entry.file,
            certificate,
        }
    }
}

impl KeystoreView {
    /// All of these.
    #[must_use]
    pub fn of(entries: Vec<KeystoreEntry>) -> Self {
        Self { entries: entries.into_iter().map(EntryView::from).collect() }
    }
}

impl KeystoreDetail {
    /// Those of these that `what` means.
    ///
    /// # Errors
    /// [`code::STATE`] where it means none.
    pub fn meant(entries: Vec<KeystoreEntry>, what: &str) -> Result<Self, ApiError> {
        let found: Vec<_> = entries.into_iter().filter(|entry| entry.is_meant_by(what)).map(EntryView::from).collect();
        if found.is_empty() {
            let message = format!("the keystore holds nothing under `{what}`");
            return Err(ApiError::new(code::STATE, message).with_remedy("`keystore list` shows what it holds."));
        }
        Ok(Self { entries: found })
    }
}

impl Render for KeystoreView {
    fn render(&self, out: &mut Text) {
        let columns = [
            Column::Left("USE"),
            Column::Left("NAME"),
            Column::Left("DISTRIBUTOR"),
            Column::Left("VALID UNTIL"),
            Column::Left("SERIAL"),
            Column::Left("THUMBPRINT"),
        ];
        let rows = self.entries.iter().map(|entry| {
            let of = |value: fn(&CertificateDetail) -> String| entry.certificate.as_ref().map_or("-".to_owned(), value);
            vec![
                entry.entry_use.clone(),
                entry.name.clone(),
                entry.distributor.clone().unwrap_or_else(|| "-".to_owned()),
                of(|certificate| certificate.not_after.to_string()),
                of(|certificate| certificate.serial.clone()),
                of(|certificate| certificate.thumbprint.clone()),
            ]
        });
        out.table(&columns, rows, "the keystore is empty");
    }
}

impl Render for KeystoreDetail {
    fn render(&self, out: &mut Text) {
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 {
                out.gap();
            }
            entry.render(out);
        }
    }
}

impl Render for EntryView {
    fn render(&self, out: &mut Text) {
        let of = |value: fn(&CertificateDetail) -> String| self.certificate.as_ref().map(value);
        let lies = match &self.file {
            Some(path) => format!("{} until its first package", path.display()),
            None => "in the keystore".to_owned(),
        };
        out.fields([
            ("use", Some(self.entry_use.clone())),
            ("name", Some(self.name.clone())),
            ("distributor", self.distributor.clone()),
            ("fingerprint", self.fingerprint.clone()),
            ("subject", of(|it| it.subject.clone())),
            ("issuer", of(|it| it.issuer.clone())),
            ("names", of(|it| it.names.join(", "))),
            ("valid from", of(|it| it.not_before.to_string())),
            ("valid until", of(|it| it.not_after.to_string())),
            ("SHA-256", of(|it| it.thumbprint.clone())),
            ("serial", of(|it| it.serial.clone())),
            ("certificate", self.certificate.is_none().then(|| "awaited".to_owned())),
            ("private key", Some(if self.has_key { "kept" } else { "none" }.to_owned())),
            ("lies", Some(lies)),
        ]);
    }
}
