//! Opening a package file and judging where it comes from.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};
use ted_core::id::{KeyHash, PackageId};
use ted_core::limits::Limits;
use ted_core::package::{
    AnyIndex, Opening, PackageError, PackageIndex, ROOT_CONTEXT, Root, package_id, read_any_index,
};
use ted_core::security::{
    Certificate, ContentKey, DistributorRoot, Signature, TrustError, Usage, signed_message, verify_signature,
};

use crate::error::{ApiError, code, from_library};
use crate::files;

/// A `.cer` is under 2 KiB; anything beyond this is another file.
const CERTIFICATE_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Finds the content key of a sealed package, given its id and its root; `None` where this node has none.
pub type KeyFinder<'a> = dyn Fn(&PackageId, &Root) -> Result<Option<ContentKey>, ApiError> + 'a;

/// The [`KeyFinder`] of a command that has no node to ask: sealed packages stay so.
///
/// # Errors
/// None.
pub fn no_keys(_: &PackageId, _: &Root) -> Result<Option<ContentKey>, ApiError> {
    Ok(None)
}

/// Whose packages are accepted.
pub(super) enum Trust {
    /// This Distributor's.
    Distributor(Box<DistributorRoot>),
    /// Anybody's: nothing is said about the origin.
    Nobody,
}

impl Trust {
    pub(super) fn from_option(certificate: Option<&Path>) -> Result<Self, ApiError> {
        certificate.map_or(Ok(Self::Nobody), Self::from_file)
    }

    pub(super) fn from_file(path: &Path) -> Result<Self, ApiError> {
        let text = files::read_text(path, CERTIFICATE_FILE_BYTES_MAX)?;
        let root = Certificate::from_pem(&text).and_then(DistributorRoot::try_from);
        root.map(|root| Self::Distributor(Box::new(root))).map_err(|error| {
            let mut error = from_library(error);
            error.message = format!("{}: {}", path.display(), error.message);
            error
        })
    }
}

/// What is known of where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verified", rename_all = "kebab-case")]
pub enum Origin {
    /// The Distributor whose certificate was given signed it.
    Distributor {
        /// The Distributor's node name.
        name: String,
        /// The short form of its CA key's hash.
        fingerprint: String,
    },
    /// Nobody vouches for it: the certificate inside may be anyone's.
    Nobody {
        /// The name in the certificate inside the package, as it claims.
        claimed_name: String,
        /// The short form of the CA key that the package claims to come from.
        claimed_fingerprint: String,
    },
}

/// A package file: its index is verified, and opened unless it is sealed and there is no key; its body is neither.
pub(super) struct PackageFile {
    pub(super) file: File,
    pub(super) index: AnyIndex,
    pub(super) signer: Certificate,
    pub(super) origin: Origin,
}

impl PackageFile {
    pub(super) fn open(path: &Path, trust: &Trust, keys: &KeyFinder<'_>) -> Result<Self, ApiError> {
        let fail = |reason: &dyn std::fmt::Display| ApiError::new(code::FILE, format!("{}: {reason}", path.display()));
        let file = File::open(path).map_err(|error| fail(&error))?;
        if file.metadata().map_err(|error| fail(&error))?.is_dir() {
            return Err(fail(&"this is a folder, not a package"));
        }
        let mut judged = None;
        let index = read_any_index(&file, &Limits::DEFAULT, |root: &Root, bytes: &[u8], signature: &Signature| {
            judged = Some(judge(trust, root, bytes, signature)?);
            let key = if root.is_sealed() { keys(&package_id(bytes), root)? } else { None };
            Ok::<_, ApiError>(Opening::with_or_blind(key))
        });
        let index = index.map_err(|mut error| {
            error.message = format!("{}: {}", path.display(), error.message);
            error
        })?;
        let (signer, origin) = judged.ok_or_else(|| fail(&"the package has no signature"))?;
        Ok(Self { file, index, signer, origin })
    }

    /// The opened index; an error that says what to do for a package that stays sealed.
    pub(super) fn opened(&self) -> Result<&PackageIndex, ApiError> {
        if let AnyIndex::Delta(index) = &self.index {
            let base = index.base_revision();
            return Err(ApiError::new(
                code::ONLY_CHANGES,
                format!("this is a delta: what changed from revision {base}"),
            ));
        }
        Ok(self.index.opened()?)
    }
}

fn judge(trust: &Trust, root: &Root, bytes: &[u8], signature: &Signature) -> Result<(Certificate, Origin), ApiError> {
    match trust {
        Trust::Distributor(distributor) => {
            if root.distributor != distributor.key_hash() {
                return Err(other_distributor(distributor, root.distributor));
            }
            let signer =
                distributor.verify(ROOT_CONTEXT, bytes, signature, Usage::Sign, root.created).map_err(from_library)?;
            let origin = Origin::Distributor {
                name: distributor.name().to_string(),
                fingerprint: distributor.key_hash().fingerprint(),
            };
            Ok((signer, origin))
        }
        Trust::Nobody => {
            let signer = signer_inside(bytes, signature).map_err(from_library)?;
            let origin = Origin::Nobody {
                claimed_name: signer.name().to_string(),
                claimed_fingerprint: root.distributor.fingerprint(),
            };
            Ok((signer, origin))
        }
    }
}

/// Checks the signature with the certificate that came beside it. That says only that the two fit together.
fn signer_inside(bytes: &[u8], signature: &Signature) -> Result<Certificate, TrustError> {
    if signature.algorithm != Signature::ECDSA_P256_SHA256 {
        return Err(TrustError::Algorithm(signature.algorithm));
    }
    let signer = Certificate::from_der(&signature.certificate)?;
    verify_signature(signer.spki(), &signed_message(ROOT_CONTEXT, bytes), &signature.signature)?;
    Ok(signer)
}

fn other_distributor(trusted: &DistributorRoot, found: KeyHash) -> ApiError {
    let message = format!(
        "the package comes from the Distributor with key {}, and the certificate is that of {} with key {}",
        found.fingerprint(),
        trusted.name(),
        trusted.key_hash().fingerprint()
    );
    ApiError::new(code::ORIGIN_REFUSED, message)
}

impl From<PackageError> for ApiError {
    fn from(error: PackageError) -> Self {
        from_library(error)
    }
}
