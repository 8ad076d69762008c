//! Keys and certificates for HTTPS endpoints that were made elsewhere: read from PEM or PKCS #12, and judged before
//! they are kept.

mod checks;
mod der;
mod pbes2;
mod pem_files;
mod pkcs12;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Coded;
use crate::id::UnixMillis;
use crate::security::{TrustError, clock_text};

/// Why a key and certificate are not taken for HTTPS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is not what it should be.
    #[error("the file cannot be read: {0}")]
    Malformed(String),
    /// It is protected in a way that is broken, or that only old programs write.
    #[error("the file is protected with {0}, which is not safe any more")]
    Legacy(String),
    /// The password does not open it.
    #[error("the password does not open the file")]
    Password,
    /// It needs a password, and none was given.
    #[error("the file is encrypted, and no password was given")]
    PasswordNeeded,
    /// There is no private key, or more than one.
    #[error("there are {0} private keys instead of one")]
    Keys(usize),
    /// There is no certificate.
    #[error("there is no certificate")]
    NoCertificate,
    /// The key is of a kind or size that is not used for HTTPS here.
    #[error("{0} is not used here: ECDSA P-256 or P-384, or RSA of at least 2048 bits, is")]
    KeyKind(String),
    /// The key is another one than the certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// Its time has not come.
    #[error("the certificate is not valid before {}", clock_text(*.0))]
    NotYetValid(UnixMillis),
    /// It ends too soon.
    #[error("the certificate ends at {}, in less than 30 days", clock_text(*.0))]
    EndsSoon(UnixMillis),
    /// It is a CA's.
    #[error("it is a certificate of a CA, not of a server")]
    Authority,
    /// It is not for servers.
    #[error("the certificate is not for servers: {0}")]
    NotForServers(&'static str),
    /// It is signed with less than SHA-256.
    #[error("the certificate of `{0}` is signed with less than SHA-256")]
    WeakSignature(String),
    /// It is for other names.
    #[error("the certificate is for {found}, not for {wanted}")]
    Name {
        /// The name that is wanted.
        wanted: String,
        /// Its names.
        found: String,
    },
    /// The certificate cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl Coded for ImportError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "TED-1170",
            Self::Legacy(_) => "TED-1171",
            Self::Password | Self::PasswordNeeded => "TED-1172",
            Self::Keys(_) | Self::NoCertificate => "TED-1173",
            Self::KeyMismatch => "TED-1174",
            Self::KeyKind(_) => "TED-1175",
            Self::EndsSoon(_) => "TED-1176",
            Self::NotYetValid(_) => "TED-1177",
            Self::NotForServers(_) => "TED-1178",
            Self::Name { .. } => "TED-1179",
            Self::WeakSignature(_) => "TED-1180",
            Self::Authority => "TED-1181",
            Self::Trust(error) => error.code(),
        }
    }
}

/// How a private key's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum KeyForm {
    Pkcs8,
    Sec1,
    Pkcs1,
}

/// A key and certificates as a file held them: nothing is judged yet.
pub struct ImportedBundle {
    certificates: Vec<Vec<u8>>,
    keys: Vec<(KeyForm, Zeroizing<Vec<u8>>)>,
}

impl std::fmt::Debug for ImportedBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImportedBundle({} certificates, {} keys)", self.certificates.len(), self.keys.len())
    }
}

impl ImportedBundle {
    /// Reads PEM texts: the certificate, perhaps with those of its CAs, and its key in the same text or another. A
    /// key that is encrypted takes the password.
    ///
    /// # Errors
    /// [`ImportError`] says what is wrong.
    pub fn from_pem(texts: &[&str], password: Option<&str>) -> Result<Self, ImportError> {
        pem_files::read(texts, password)
    }

    /// Reads a PKCS #12 file (`.pfx`, `.p12`), as `openssl pkcs12 -export` writes it by default since version 3.
    ///
    /// # Errors
    /// [`ImportError`] says what is wrong.
    pub fn from_pfx(bytes: &[u8], password: &str) -> Result<Self, ImportError> {
        pkcs12::read(bytes, password)
    }

    /// Reads what files hold, whichever of the two kinds they are.
    ///
    /// # Errors
    /// [`ImportError`] says what is wrong.
    pub fn from_files(files: &[&[u8]], password: Option<&str>) -> Result<Self, ImportError> {
        if let [bytes] = files
            && bytes.first() == Some(&der::SEQUENCE)
        {
            // Some programs write files without any password; the empty one opens them.
            return Self::from_pfx(bytes, password.unwrap_or_default()).map_err(|error| match (error, password) {
                (ImportError::Password, None) => ImportError::PasswordNeeded,
                (error, _) => error,
            });
        }
        let text = |bytes: &&[u8]| {
            let text = str::from_utf8(bytes).map(str::to_owned);
            text.map_err(|_| ImportError::Malformed("it is neither PEM nor a PKCS #12 file by itself".to_owned()))
        };
        let texts = files.iter().map(text).map(|text| text.map(Zeroizing::new)).collect::<Result<Vec<_>, _>>()?;
        Self::from_pem(&texts.iter().map(|text| text.as_str()).collect::<Vec<_>>(), password)
    }

    /// Judges it for serving HTTPS as `name`, a host's name or address.
    ///
    /// # Errors
    /// [`ImportError`] with the first reason against it.
    pub fn judge(self, name: &str, now: UnixMillis) -> Result<TlsIdentity, ImportError> {
        checks::judge(self, name, now)
    }
}

/// A key and its certificate chain for serving HTTPS. The key's bytes are zeroed when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsIdentity {
    /// The server's certificate first, in DER.
    chain: Vec<Vec<u8>>,
    form: KeyForm,
    key: Vec<u8>,
    name: String,
}

impl TlsIdentity {
    /// The certificates in DER, the server's own first.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The name it was judged for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The private key, for rustls. Handle with care.
    #[must_use]
    pub fn private_key(&self) -> PrivateKeyDer<'_> {
        private_key(self.form, &self.key)
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsIdentity({})", self.name)
    }
}

impl Drop for TlsIdentity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn private_key(form: KeyForm, bytes: &[u8]) -> PrivateKeyDer<'_> {
    match form {
        KeyForm::Pkcs8 => PrivatePkcs8KeyDer::from(bytes).into(),
        KeyForm::Sec1 => PrivateSec1KeyDer::from(bytes).into(),
        KeyForm::Pkcs1 => PrivatePkcs1KeyDer::from(bytes).into(),
    }
}
