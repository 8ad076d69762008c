//! How a Subscriber stands, and what its operator does by hand: extract, verify, leave.

use std::sync::Arc;

use crate::error::Error;
use crate::name::{Label, NodeName};
use crate::node::{keep_newest, open_package};
use crate::package::verify_body;
use crate::security::{DistributorRoot, Usage};
use crate::subscriber::deliveries::{Extracted, Held, Job, extracted_key, held_key};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::report::{DistributionRow, DistributorRow, SubscriberStatus, VerifyRow};
use crate::subscriber::state::{Key, KnownDistributor, State, known_key, lock};

impl State {
    pub(super) fn status(self: &Arc<Self>) -> Result<SubscriberStatus, Error> {
        let mut distributors = vec![];
        for root in self.trusted_roots()? {
            let fleet = root.key_hash();
            let known: Option<KnownDistributor> = self.records.get(&known_key(&fleet))?;
            let keystore = lock(&self.keystore);
            let own = keystore
                .held()
                .iter()
                .rev()
                .find(|held| held.distributor == fleet && held.usage == Usage::SubscriberIdentity);
            let identity = keystore.identity(&fleet, Usage::SubscriberIdentity);
            distributors.push(DistributorRow {
                name: root.name().clone(),
                fingerprint: fleet.fingerprint(),
                in_keystore: keystore.trusted().iter().any(|trusted| trusted.key_hash() == fleet),
                endpoints: known.map_or_else(Vec::new, |known| known.endpoints),
                own_fingerprint: own.map(|held| held.key.key_hash().fingerprint()),
                enrolled_until: identity.map(|identity| identity.certificate.not_after()),
                connected: self.links.is_connected(&fleet),
            });
        }
        Ok(SubscriberStatus {
            name: self.name().clone(),
            listening: self.listening().map(|address| address.to_string()),
            distributors,
            distributions: self.rows()?.into_iter().map(|(_, row)| row).collect(),
        })
    }

    fn rows(&self) -> Result<Vec<(Key, DistributionRow)>, Error> {
        let mut rows = vec![];
        for ((fleet, distribution), held) in self.all_held()? {
            let extracted = self.extracted(&fleet, &distribution)?;
            let row = DistributionRow {
                distributor: self.distributor_name(&fleet),
                distribution: held.name,
                revision: held.revision,
                bytes: held.bytes,
                extracted: extracted.as_ref().map(|extracted| extracted.revision),
                target: extracted.as_ref().map(|extracted| extracted.target.clone()),
                extracted_at: extracted.map(|extracted| extracted.at),
            };
            rows.push(((fleet, distribution), row));
        }
        Ok(rows)
    }

    fn all_held(&self) -> Result<Vec<(Key, Held)>, Error> {
        let rows = self.records.list::<Held>("held/")?.into_iter();
        Ok(rows.filter_map(|(key, held)| Some((parse_key(&key)?, held))).collect())
    }

    /// What a stop or a crash left undone: revisions that are verified and not extracted.
    pub(super) fn finish_interrupted(self: &Arc<Self>) -> Result<(), Error> {
        for ((fleet, distribution), held) in self.all_held()? {
            let extracted: Option<Extracted> = self.extracted(&fleet, &distribution)?;
            if extracted.is_none_or(|extracted| extracted.revision < held.revision) {
                self.start_job(Job::Extract { fleet, distribution, firing: None, revision: held.revision });
            }
        }
        Ok(())
    }

    pub(super) fn extract_named(self: &Arc<Self>, name: Option<&Label>) -> Result<Vec<DistributionRow>, Error> {
        let mut found = self.all_held()?;
        found.retain(|(_, held)| name.is_none_or(|name| held.name == *name));
        if let (Some(name), true) = (name, found.is_empty()) {
            return Err(SubscriberError::NothingToExtract(name.to_string()).into());
        }
        let mut keys = vec![];
        for ((fleet, distribution), _) in found {
            self.extract_held(fleet, distribution)?;
            keys.push((fleet, distribution));
        }
        Ok(self.rows()?.into_iter().filter(|(key, _)| keys.contains(key)).map(|(_, row)| row).collect())
    }

    pub(super) fn verify(self: &Arc<Self>) -> Result<Vec<VerifyRow>, Error> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let rows = self.all_held()?.into_iter().map(|((fleet, _), held)| {
            let verified = self.trusted_root(&fleet).and_then(|root| {
                let (index, file) = open_package(&self.depot, held.package, &root)?;
                Ok(verify_body(&index, &*file, threads, &|_| {})?)
            });
            let fault = verified.err().map(|error| format!("{}: {error}", error.code()));
            VerifyRow { distribution: held.name, revision: held.revision, fault }
        });
        Ok(rows.collect())
    }

    pub(super) fn root_named(&self, name: &NodeName) -> Result<DistributorRoot, Error> {
        let found = self.trusted_roots()?.into_iter().find(|root| root.name() == name);
        Ok(found.ok_or_else(|| SubscriberError::UnknownDistributor(name.to_string()))?)
    }

    pub(super) fn leave(self: &Arc<Self>, name: &NodeName) -> Result<(), Error> {
        let root = self.root_named(name)?;
        let fleet = root.key_hash();
        self.links.close(&fleet, "the Subscriber leaves");
        {
            let mut keystore = lock(&self.keystore);
            let mut changed = keystore.clone();
            changed.distrust(&fleet);
            let own: Vec<_> = changed
                .held()
                .iter()
                .filter(|held| held.distributor == fleet)
                .map(|held| held.key.key_hash())
                .collect();
            for key in own {
                changed.forget(&key);
            }
            self.security.save_keystore(&changed)?;
            *keystore = changed;
        }
        self.security.remove_certificate(&root)?;
        for ((of, distribution), _) in self.all_held()? {
            if of == fleet {
                keep_newest(&self.depot, &distribution, 0)?;
                self.records.delete(&held_key(&fleet, &distribution))?;
                self.records.delete(&extracted_key(&fleet, &distribution))?;
            }
        }
        Ok(self.records.delete(&known_key(&fleet))?)
    }
}

fn parse_key(key: &str) -> Option<Key> {
    let (fleet, distribution) = key.strip_prefix("held/")?.split_once('/')?;
    Some((fleet.parse().ok()?, distribution.parse().ok()?))
}
