//! What an operator does for trust: certificates brought to Subscribers, requests signed, keys looked at.

use zeroize::Zeroizing;

use crate::distributor::Distributor;
use crate::distributor::report::{CertificatePair, RequestingNode, Resolving, ResolvingWay, SignedNode};
use crate::distributor::state::State;
use crate::error::Error;
use crate::model::CertificateWay;
use crate::name::{Label, NodeName};
use crate::store::KeystoreEntry;

impl Distributor {
    /// Says how this Distributor's certificate is brought to a Subscriber; none means that somebody carries it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub async fn set_certificate_way(&self, name: &NodeName, way: Option<CertificateWay>) -> Result<(), Error> {
        let name = name.clone();
        self.blocking(move |state| state.set_certificate_way(&name, way)).await
    }

    /// How this Distributor's certificate stands with each Subscriber.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn certificate_pairs(&self) -> Result<Vec<CertificatePair>, Error> {
        self.blocking(State::certificate_pairs).await
    }

    /// The Subscribers to which the certificate has to be brought before anything arrives there: of these Channels and
    /// names, or of the whole fleet where neither is given.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn unresolved(&self, channels: &[Label], names: &[NodeName]) -> Result<Vec<NodeName>, Error> {
        let (channels, names) = (channels.to_vec(), names.to_vec());
        self.blocking(move |state| state.unresolved(&channels, &names)).await
    }

    /// Brings the certificate to every Subscriber that lacks it, or to those that are named, whatever they have. Where
    /// it could not be copied stands in the rows.
    ///
    /// # Errors
    /// When a Subscriber does not exist, or the folder to save in cannot be written.
    pub async fn resolve(&self, way: ResolvingWay, names: &[NodeName]) -> Result<Resolving, Error> {
        let names = names.to_vec();
        self.blocking(move |state| state.resolve(&way, &names)).await
    }

    /// Whose requests these are that were carried here, as PEM texts: what an operator compares before signing.
    ///
    /// # Errors
    /// When they are no requests, or do not belong together.
    pub async fn look_at_requests(&self, requests: &[String]) -> Result<RequestingNode, Error> {
        let requests = requests.to_vec();
        self.blocking(move |state| state.look_at_requests(&requests)).await
    }

    /// Signs requests that were carried here: registers the node's key, which has to have this `fingerprint`, and
    /// issues its certificates, which are carried back. A node of the same name that was registered is so no more.
    ///
    /// # Errors
    /// As [`Distributor::look_at_requests`]; when the fingerprint is another, or the key was revoked.
    pub async fn sign_requests(
        &self,
        requests: &[String],
        fingerprint: &str,
        channels: &[Label],
    ) -> Result<SignedNode, Error> {
        let (requests, fingerprint, channels) = (requests.to_vec(), fingerprint.to_owned(), channels.to_vec());
        self.blocking(move |state| state.sign_requests(&requests, &fingerprint, &channels)).await
    }

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
