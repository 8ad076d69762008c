//! Enrolment by carried files: requests go out as `.csr`, certificates come back as `.cer`.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::KeyHash;
use crate::model::Endpoint;
use crate::name::NodeName;
use crate::security::{Certificate, DistributorRoot, Keystore, Usage};
use crate::subscriber::Subscriber;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::peers::ASK_AGAIN;
use crate::subscriber::report::{CarriedRequest, Enrolment};
use crate::subscriber::state::{State, lock};

impl Subscriber {
    /// Writes this node's requests to a Distributor as files, to be carried there and signed. No name means the only
    /// one that is trusted. At `endpoints`, where there are any, it is dialled once the certificates are here.
    ///
    /// # Errors
    /// When no such Distributor is trusted, or `security/` cannot be written.
    pub async fn request(
        &self,
        distributor: Option<&NodeName>,
        endpoints: &[Endpoint],
    ) -> Result<CarriedRequest, Error> {
        let (name, endpoints) = (distributor.cloned(), endpoints.to_vec());
        self.blocking(move |state| state.write_requests(name.as_ref(), &endpoints)).await
    }

    /// Takes the certificates in that were carried into `security/issued/<distributor>/`. A Subscriber that runs does
    /// so by itself.
    ///
    /// # Errors
    /// When no such Distributor is trusted, or nothing that lies there is for this node's keys.
    pub async fn take_issued(&self, distributor: Option<&NodeName>) -> Result<(NodeName, Enrolment), Error> {
        let name = distributor.cloned();
        self.blocking(move |state| {
            let root = state.root_meant(name.as_ref())?;
            let found = state.take_issued(&root)?;
            if found.taken || state.is_enrolled(&root.key_hash()) {
                return Ok((root.name().clone(), Enrolment::Enrolled));
            }
            let reason = if found.refused.is_empty() {
                format!("no .cer file lies in {}", found.folder.display())
            } else {
                found.refused.join("; ")
            };
            Err(SubscriberError::NothingIssued { name: root.name().clone(), reason }.into())
        })
        .await
    }
}

/// What lay in `issued/<distributor>/`.
pub(super) struct Issued {
    folder: PathBuf,
    /// Whether something was taken into the keystore.
    taken: bool,
    /// What was not, and why, in words.
    refused: Vec<String>,
}

impl State {
    fn write_requests(
        self: &Arc<Self>,
        name: Option<&NodeName>,
        endpoints: &[Endpoint],
    ) -> Result<CarriedRequest, Error> {
        let root = self.root_meant(name)?;
        let request = self.make_request(&root, None)?;
        let checked = request.check()?;
        let identity = self.security.write_request(root.name(), &checked.identity, None)?;
        let encryption =
            self.security.write_request(root.name(), &checked.encryption, Some(&request.countersignature))?;
        if !endpoints.is_empty() {
            self.know(&root.key_hash(), root.name(), endpoints)?;
            self.follow(&root.key_hash());
        }
        Ok(CarriedRequest {
            distributor: root.name().clone(),
            fingerprint: checked.key_hash().fingerprint(),
            files: vec![identity, encryption],
            comes_back_to: self.security.issued_folder(root.name()),
        })
    }

    /// Looks again and again for certificates that were carried here.
    pub(super) async fn watch_issued(self: Arc<Self>, stop: CancellationToken) {
        let mut round = interval(ASK_AGAIN);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = round.tick() => {}
            }
            let state = self.clone();
            let looking = move || {
                for root in state.trusted_roots().unwrap_or_default() {
                    state.take_issued_quietly(&root.key_hash());
                }
            };
            // What it finds is told where it is found.
            let _ = tokio::task::spawn_blocking(looking).await;
        }
    }

    /// Takes in what was carried here, and tells what is wrong with it, once for as long as it is the same.
    pub(super) fn take_issued_quietly(self: &Arc<Self>, fleet: &KeyHash) {
        let found = self.trusted_root(fleet).and_then(|root| self.take_issued(&root));
        let trouble = match found {
            Ok(found) if !found.refused.is_empty() => found.refused.join("; "),
            Ok(_) => return,
            Err(error) => format!("{}: {error}", error.code()),
        };
        if lock(&self.carried_troubles).insert(*fleet, trouble.clone()).as_ref() != Some(&trouble) {
            let distributor = self.distributor_name(fleet);
            tracing::warn!(%distributor, reason = trouble, "a certificate that was carried here is not taken");
        }
    }

    /// Puts certificates that lie in `issued/<distributor>/` to the keys that they are for.
    pub(super) fn take_issued(self: &Arc<Self>, root: &DistributorRoot) -> Result<Issued, Error> {
        let fleet = root.key_hash();
        let mut issued = Issued { folder: self.security.issued_folder(root.name()), taken: false, refused: vec![] };
        let keystore = &self.security.trust()?.keystore;
        let mut fresh = vec![];
        for (path, read) in self.security.issued_files(root.name())? {
            let judged = match read {
                Ok(certificate) => self.judge_issued(root, keystore, certificate),
                Err(reason) => Err(reason),
            };
            match judged {
                Ok(certificate) => fresh.extend(certificate),
                Err(reason) => issued.refused.push(format!("{}: {reason}", path.display())),
            }
        }
        if fresh.is_empty() {
            return Ok(issued);
        }
        self.security.change_keystore(|keystore| -> Result<(), Error> {
            for certificate in &fresh {
                keystore.certify_in(&fleet, certificate);
            }
            Ok(())
        })?;
        self.show_identities()?;
        issued.taken = true;
        lock(&self.carried_troubles).remove(&fleet);
        tracing::info!(distributor = %root.name(), "took in certificates that were carried here");
        self.events.emit(SubscriberEvent::Enrolled { distributor: root.name().clone() });
        self.hasten(&fleet);
        Ok(issued)
    }

    /// The certificate if it is to be taken; none if what is held is as good.
    fn judge_issued(
        &self,
        root: &DistributorRoot,
        keystore: &Keystore,
        certificate: Certificate,
    ) -> Result<Option<Certificate>, String> {
        let fleet = root.key_hash();
        let usage = certificate.usage();
        // What this node has already, also from a Distributor's former certificate, is no news.
        let has = |held: &crate::security::HeldKey| {
            held.certificate.as_ref().is_some_and(|held| held.der() == certificate.der())
        };
        if keystore.held().iter().any(has) {
            return Ok(None);
        }
        if !matches!(usage, Usage::SubscriberIdentity | Usage::SubscriberEncryption) {
            return Err(format!("a certificate for {usage} has no place here"));
        }
        let fits = |held: &&crate::security::HeldKey| {
            held.distributor == fleet && held.usage == usage && held.key.spki() == certificate.spki()
        };
        let held = keystore.held().iter().find(fits).ok_or("it is for another key than this node's")?;
        if held.certificate.as_ref().is_some_and(|held| certificate.not_after() <= held.not_after()) {
            return Ok(None);
        }
        if *certificate.name() != self.name() {
            return Err(format!("it is for {}, and this node is {}", certificate.name(), self.name()));
        }
        root.judge(&certificate, usage, self.now(&fleet)).map_err(|error| error.to_string())?;
        Ok(Some(certificate))
    }
}
