//! Requests that are carried out of the folder, and certificates that are carried into it.

use std::path::PathBuf;

use super::{ISSUED, REQUESTS, SecurityDir, SecurityDirError, list, read_small};
use crate::name::NodeName;
use crate::security::{Certificate, CertificateRequest};
use crate::store::durable::DurableFile;
use crate::store::file::create_folders;

/// A `.cer` file that was carried here, and its certificate or why it is none.
pub type IssuedFile = (PathBuf, Result<Certificate, String>);

impl SecurityDir {
    /// Writes a request to `csr/<distributor>/<name>.{identity,encryption}.csr`, from where it is carried.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn write_request(
        &self,
        distributor: &NodeName,
        request: &CertificateRequest,
        countersignature: Option<&[u8]>,
    ) -> Result<PathBuf, SecurityDirError> {
        let folder = self.path.join(REQUESTS).join(distributor.file_stem());
        create_folders(&folder)?;
        let path = folder.join(request.file_name());
        DurableFile::new(path.clone()).replace(request.to_pem(countersignature).as_bytes())?;
        Ok(path)
    }

    /// Writes a certificate that came back to `issued/<distributor>/`.
    ///
    /// # Errors
    /// [`SecurityDirError::File`].
    pub fn write_issued(&self, distributor: &NodeName, certificate: &Certificate) -> Result<PathBuf, SecurityDirError> {
        let folder = self.path.join(ISSUED).join(distributor.file_stem());
        create_folders(&folder)?;
        let path = folder.join(format!("{}.{}.cer", certificate.name().file_stem(), certificate.usage()));
        DurableFile::new(path.clone()).replace(certificate.pem().as_bytes())?;
        Ok(path)
    }

    /// The certificates that were carried into `issued/<distributor>/`.
    ///
    /// # Errors
    /// [`SecurityDirError`], naming a file that is no certificate.
    pub fn read_issued(&self, distributor: &NodeName) -> Result<Vec<Certificate>, SecurityDirError> {
        let folder = self.path.join(ISSUED).join(distributor.file_stem());
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let read = |path: PathBuf| {
            let text = read_small(&path)?;
            Certificate::from_pem(&text).map_err(|source| SecurityDirError::Trust { path, source: Box::new(source) })
        };
        let mut files = list(&folder)?;
        files.retain(|path| path.extension().is_some_and(|ending| ending == "cer"));
        files.into_iter().map(read).collect()
    }

    /// Where certificates of a Distributor are carried back to: `issued/<distributor>/`.
    #[must_use]
    pub fn issued_folder(&self, distributor: &NodeName) -> PathBuf {
        self.path.join(ISSUED).join(distributor.file_stem())
    }

    /// The `.cer` files that were carried into `issued/<distributor>/`, each with its certificate or why it is none.
    ///
    /// # Errors
    /// [`SecurityDirError::File`] when the folder cannot be read.
    pub fn issued_files(&self, distributor: &NodeName) -> Result<Vec<IssuedFile>, SecurityDirError> {
        let folder = self.issued_folder(distributor);
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let read = |path: PathBuf| {
            let text = read_small(&path).map_err(|error| error.to_string());
            let certificate = text.and_then(|text| Certificate::from_pem(&text).map_err(|error| error.to_string()));
            (path, certificate)
        };
        let mut files = list(&folder)?;
        files.retain(|path| path.extension().is_some_and(|ending| ending == "cer"));
        Ok(files.into_iter().map(read).collect())
    }
}
