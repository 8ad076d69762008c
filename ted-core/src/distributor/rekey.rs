//! `certificate rekey`: a new CA key, under the same name or a new one, that has to be resolved anew. Everything else is
//! taken over: registered Subscribers, epoch secrets, numbers, and kept packages, of which nothing is sent again.

use serde::{Deserialize, Serialize};

use crate::distributor::events::DistributorEvent;
use crate::distributor::rotation::{Renew, issue_own};
use crate::distributor::state::{State, lock};
use crate::distributor::{Distributor, DistributorBuilder};
use crate::error::Error;
use crate::id::KeyHash;
use crate::name::NodeName;
use crate::security::{Authority, Envelope, EnvelopeKind, Replacement, ReplacementState, RootFile};
use crate::store::{StandingEnvelope, StandingSlot};

/// What a new key made necessary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RekeyReport {
    /// The name now.
    pub name: NodeName,
    /// The short form of the new key.
    pub fingerprint: String,
    /// The short form of the key before, where it is known.
    pub former: Option<String>,
    /// The Subscribers to which the new certificate has to be brought.
    pub resolve: Vec<NodeName>,
    /// Where the retired keystore and requests lie.
    pub retired: std::path::PathBuf,
}

impl State {
    /// Retires the keys that there are and makes new ones.
    pub(super) fn rekey(&self, name: Option<NodeName>) -> Result<RekeyReport, Error> {
        let _no_build_meanwhile = self.building.blocking_lock();
        let one_at_a_time = lock(&self.rotating);
        let (own, now) = (self.own(), self.now());
        let old = &own.authority;
        let name = name.unwrap_or_else(|| old.root().name().clone());
        let new = Authority::create(&*self.crypto, &name, now)?;
        let key = new.root().key_hash();
        // The old key's word goes into the new certificate's file: whoever trusts the old one sees who takes over.
        let replacement = Replacement {
            certificate: new.root().certificate().der().to_vec(),
            state: ReplacementState::Final,
            extensions: vec![],
        };
        let life = old.root().certificate().not_after().since(now);
        let word = self.seal_word(old, EnvelopeKind::REPLACEMENT, replacement.to_payload()?, life)?;
        self.standing.put(vec![(file_slot(&key), StandingEnvelope::from(&word))])?;
        self.lineage.add(old.root(), &key, now)?;
        let retired = self.security.retire(now)?;
        let switched = self.security.change_keystore(|keystore| -> Result<_, Error> {
            for authority in keystore.authorities() {
                keystore.forget_fleet(&authority.root().key_hash());
            }
            keystore.hold_identity(key, new.identity());
            Ok(issue_own(keystore, new, &*self.crypto, Renew::Due, now)?.0)
        })?;
        self.set_own(switched);
        self.finish_succession()?;
        self.withdraw(|slot| slot.fleet != key)?;
        self.show_identities()?;
        self.issue_missing_revocations()?;
        self.announce_configuration()?;
        self.judge_all_again();
        drop(one_at_a_time);
        self.events.emit(DistributorEvent::Replaced { fingerprint: key.fingerprint() });
        tracing::warn!(%name, fingerprint = key.fingerprint(), "this Distributor has a new key");
        Ok(self.rekeyed(Some(old.root().key_hash()), retired))
    }

    fn rekeyed(&self, former: Option<KeyHash>, retired: std::path::PathBuf) -> RekeyReport {
        let own = self.own();
        let root = own.authority.root();
        let mut resolve: Vec<_> = self.registrations.all().into_iter().map(|(_, known)| known.name).collect();
        resolve.sort();
        RekeyReport {
            name: root.name().clone(),
            fingerprint: root.key_hash().fingerprint(),
            former: former.map(|key| key.fingerprint()),
            resolve,
            retired,
        }
    }

    /// This Distributor's certificate as its file holds it: with the word of the one before it, where there was one.
    pub(super) fn root_file(&self) -> RootFile {
        let root = self.own().authority.root().clone();
        let word = self.standing.get(&file_slot(&root.key_hash()));
        let replacement = word.and_then(|word| Envelope::from_bytes(&word.bytes).ok());
        RootFile { root, replacement }
    }
}

/// Where the word about the CA with this key stands that goes into its file. It is for no node on the wire: no node has
/// this key.
fn file_slot(key: &KeyHash) -> StandingSlot {
    StandingSlot { fleet: *key, kind: EnvelopeKind::REPLACEMENT, recipient: Some(*key), page: 0 }
}

impl Distributor {
    /// Retires this Distributor's keys and makes new ones, under `name` or the name that it has. Its `.cer` has to be
    /// resolved anew; Subscribers are certified anew by themselves for the keys that are registered here, and nothing
    /// that they have is sent again.
    ///
    /// # Errors
    /// When the change cannot be made durable.
    pub async fn rekey(&self, name: Option<&NodeName>) -> Result<RekeyReport, Error> {
        let name = name.cloned();
        self.blocking(move |state| state.rekey(name)).await
    }
}

impl DistributorBuilder {
    /// Opens a Distributor whose keystore is lost, with new keys, under the name of this builder or the one that it had.
    /// Registered Subscribers, numbers and unsealed packages are taken over; sealed ones are built anew.
    ///
    /// # Errors
    /// As [`DistributorBuilder::open`]; when the keystore is there; when the name is not known and none was given.
    pub async fn open_with_new_keys(mut self) -> Result<(Distributor, RekeyReport), Error> {
        self.settings.keys = super::Keys::Lost;
        let distributor = self.open().await?;
        let report = distributor
            .blocking(|state| {
                let former = state.lineage.all().pop().map(|former| former.root.key_hash());
                let root = state.own().authority.root().key_hash();
                Ok(state.rekeyed(former.filter(|former| *former != root), state.security.path().to_owned()))
            })
            .await?;
        Ok((distributor, report))
    }
}
