//! What an operator does for trust: certificates brought to Subscribers, requests signed, keys looked at.

use crate::distributor::Distributor;
use crate::distributor::report::{CertificatePair, Resolving, ResolvingWay};
use crate::distributor::state::State;
use crate::error::Error;
use crate::model::CertificateWay;
use crate::name::{Label, NodeName};

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
}
