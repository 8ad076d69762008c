//! What an operator does with a Subscriber's keystore.

use zeroize::Zeroizing;

use crate::error::Error;
use crate::store::KeystoreEntry;
use crate::subscriber::Subscriber;

impl Subscriber {
    /// What its keystore holds, without keys.
    ///
    /// # Errors
    /// When the keystore cannot be read.
    pub async fn keystore(&self) -> Result<Vec<KeystoreEntry>, Error> {
        self.blocking(|state| Ok(state.security.entries()?)).await
    }

    /// Keeps a key and certificate that were made elsewhere for serving HTTPS, in the place of earlier ones. `files`
    /// hold PEM, or one of them PKCS #12; `name` is the host that is served, this node's own where none is given.
    ///
    /// # Errors
    /// When the files cannot be read, or the key and certificate do not do for that; the code says why.
    pub async fn import_https(
        &self,
        files: Vec<Zeroizing<Vec<u8>>>,
        password: Option<Zeroizing<String>>,
        name: Option<String>,
    ) -> Result<KeystoreEntry, Error> {
        self.blocking(move |state| {
            let name = name.unwrap_or_else(|| state.name().to_string());
            let password = password.as_ref().map(|password| password.as_str());
            state.security.import_https(&files, password, &name, state.clock.now())
        })
        .await
    }

    /// Removes what was imported for HTTPS. Answers whether there was anything.
    ///
    /// # Errors
    /// When the keystore cannot be written.
    pub async fn remove_https(&self) -> Result<bool, Error> {
        self.blocking(|state| Ok(state.security.remove_https()?)).await
    }
}
