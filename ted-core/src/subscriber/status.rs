//! How a Subscriber stands, and what its operator does by hand: extract, verify, set targets, leave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Coded as _, Error};
use crate::extract::{Create, Target, is_interrupted, recover};
use crate::id::{DistributionId, KeyHash};
use crate::name::NodeName;
use crate::node::{RecordBatch, wait};
use crate::security::{DistributorRoot, EnvelopeKind, Stage, Usage};
use crate::store::{TrustedIn, prune};
use crate::subscriber::damage::{SetAside, aside_key, firing_key};
use crate::subscriber::deliveries::Job;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::extract_times::Begins;
use crate::subscriber::held::{Extracted, Held, HeldPackage, extracted_key, fall_back_key, held_key};
use crate::subscriber::hooks::{HookRule, due_key};
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::report::{DistributionRow, DistributorRow, ExtractionEnd, SubscriberStatus, TargetRow};
use crate::subscriber::rollback::{PINNED, before_key};
use crate::subscriber::state::{Key, KnownDistributor, State, known_key, lock};
use crate::subscriber::targets::{TargetRule, check_target};
use crate::subscriber::verify::Mend;
use crate::subscriber::ways::parent_of;
use crate::transport::{Connection as _, QuicConnection};

impl State {
    pub(super) fn status(self: &Arc<Self>) -> Result<SubscriberStatus, Error> {
        Ok(SubscriberStatus {
            name: self.name(),
            listening: self.listening().map(|address| address.to_string()),
            paused: self.is_paused(),
            distributors: self.distributors()?,
            distributions: self.rows()?,
            passes_on: self.passed_rows(),
            traffic: self.traffic(),
            alarms: self.alarms()?,
        })
    }

    pub(super) fn distributors(&self) -> Result<Vec<DistributorRow>, Error> {
        let trust = self.security.trust()?;
        let mut distributors = vec![];
        for trusted in &trust.roots {
            let fleet = trusted.root.key_hash();
            let known: Option<KnownDistributor> = self.records.get(&known_key(&fleet))?;
            let of_fleet =
                |held: &&crate::security::HeldKey| held.distributor == fleet && held.usage == Usage::SubscriberIdentity;
            let own = trust.keystore.held().iter().rev().find(of_fleet);
            let identity = trust.keystore.identity(&fleet, Usage::SubscriberIdentity);
            let connection = self.links.get(&fleet);
            distributors.push(DistributorRow {
                name: trusted.root.name().clone(),
                fingerprint: fleet.fingerprint(),
                in_keystore: trusted.lies_in == TrustedIn::Keystore,
                certificate_until: trusted.root.certificate().not_after(),
                endpoints: known.map_or_else(Vec::new, |known| known.endpoints),
                own_fingerprint: own.map(|held| held.key.key_hash().fingerprint()),
                enrolled_until: identity.as_ref().map(|identity| identity.certificate.not_after()),
                enrolled_as: identity.map(|identity| identity.certificate.name().clone()),
                connected: connection.as_ref().map(|connection| QuicConnection::remote_address(connection).to_string()),
                through: connection.as_ref().and_then(|connection| parent_of(connection.peer())),
                parents: self.parent_rows(&fleet),
                children: self.child_rows(&fleet),
                trouble: lock(&self.troubles).get(&fleet).cloned(),
            });
        }
        Ok(distributors)
    }

    fn rows(&self) -> Result<Vec<DistributionRow>, Error> {
        let held: BTreeMap<Key, Held> = self.all_held()?.into_iter().collect();
        let standings = lock(&self.standing).clone();
        let keys: BTreeSet<Key> = held.keys().chain(standings.keys()).copied().collect();
        let mut rows = vec![];
        for key in keys {
            let (fleet, distribution) = key;
            let named = held.get(&key);
            // What is set aside is not here until it is whole again.
            let here = self.held(&fleet, &distribution)?;
            let held = here.as_ref();
            let aside = self.aside(&key)?;
            let standing = standings.get(&key).cloned().unwrap_or_default();
            let extracted = self.extracted(&fleet, &distribution)?;
            let target = named.map(|held| self.target_of(&fleet, held));
            let mode = named.map(|held| self.mode_of(&fleet, held));
            let refused = match &target {
                Some(Err(error)) => Some(format!("{}: {error}", error.code())),
                _ => None,
            };
            let verified = held.map(|held| held.revision);
            // What this process has not seen itself can be told from what is kept.
            let known_bytes = held.filter(|_| standing.offered.is_none()).map_or(0, Held::bytes);
            let known_stage = match (&extracted, held) {
                _ if aside.is_some() => Some(Stage::Corrupt),
                (Some(extracted), Some(held)) if extracted.revision == held.revision => Some(Stage::Extracted),
                (_, Some(_)) => Some(Stage::Verified),
                _ => None,
            };
            let wished = self.fall_back_of(&key)?.filter(|wish| !wish.done);
            // Its own code first: what it says to do is what helps, and not what the cause says.
            let falls_back = wished.map(|wish| {
                let distribution = self.known_label(&fleet, &distribution).to_string();
                let reason = format!("{}: {}", wish.code, wish.reason);
                said(&SubscriberError::FallsBack { distribution, revision: wish.revision, reason }.into())
            });
            let pinned = self.pinned_at(&key);
            let rolled_back = pinned.map(|to| format!("{PINNED}: rolled back here to {to}, until `resume`"));
            rows.push(DistributionRow {
                distributor: self.distributor_name(&fleet),
                distribution: self.known_label(&fleet, &distribution),
                offered: standing.offered.or(verified),
                verified,
                extracted: extracted.as_ref().map(|extracted| extracted.revision),
                stage: standing.stage.or_else(|| {
                    known_stage.filter(|_| standing.offered.is_none_or(|offered| Some(offered) == verified))
                }),
                bytes: standing.bytes.max(known_bytes),
                bytes_total: standing.bytes_total.max(known_bytes),
                target: target.and_then(Result::ok).map(|(target, _)| target),
                hooks: self.hook_scope(&self.distributor_name(&fleet), &self.known_label(&fleet, &distribution)),
                mode,
                rolled_back_to: pinned,
                trouble: standing
                    .trouble
                    .or_else(|| aside.as_ref().map(SetAside::trouble))
                    .or(falls_back)
                    .or(rolled_back)
                    .or(refused),
                checked: held.map(|held| self.checked(&key, held)).transpose()?.flatten(),
                waits: self.waits(&key, held, extracted.as_ref()),
                at: standing.at.or_else(|| extracted.map(|extracted| extracted.at)),
            });
        }
        Ok(rows)
    }

    pub(super) fn all_held(&self) -> Result<Vec<(Key, Held)>, Error> {
        let rows = self.records.list::<Held>("held/")?.into_iter();
        Ok(rows.filter_map(|(key, held)| Some((parse_key(&key)?, held))).collect())
    }

    /// What a stop or a crash left undone: revisions that are verified and not extracted, and hooks that are due.
    pub(super) fn finish_interrupted(self: &Arc<Self>) -> Result<(), Error> {
        self.set_lost_aside()?;
        for ((fleet, distribution), held) in self.all_held()? {
            let extracted: Option<Extracted> = self.extracted(&fleet, &distribution)?;
            let interrupted = self.is_interrupted(&fleet, &distribution, &held);
            if self.held(&fleet, &distribution)?.is_none() {
                // There is nothing to extract, and what was begun is finished or undone all the same.
                if let Some(Err(error)) = interrupted.map(|target| recover(&target, &distribution)) {
                    tracing::error!(code = error.code(), %error, "an interrupted extraction cannot be finished");
                }
                continue;
            }
            let is_due = self.is_hook_due(&(fleet, distribution))? || interrupted.is_some();
            if is_due || extracted.is_none_or(|extracted| extracted.revision != held.revision) {
                let begins = if is_due { Begins::Anyway } else { Begins::AsScheduled };
                self.start_job(Job::Extract { fleet, distribution, firing: None, revision: held.revision, begins });
            }
        }
        Ok(())
    }

    /// The target, where an extraction was interrupted in it.
    fn is_interrupted(&self, fleet: &KeyHash, distribution: &DistributionId, held: &Held) -> Option<Target> {
        let (path, _) = self.target_of(fleet, held).ok()?;
        let target = Target::open(&path, Create::Missing).ok()?;
        is_interrupted(&target, distribution).is_ok_and(|interrupted| interrupted).then_some(target)
    }

    /// What is held and meant by `name`; all of it without one.
    pub(super) fn meant(&self, name: Option<&DistributionRef>) -> Result<Vec<(Key, Held)>, Error> {
        let mut found = self.all_held()?;
        found
            .retain(|((fleet, _), held)| name.is_none_or(|name| name.means(&self.distributor_name(fleet), &held.name)));
        match name {
            Some(name) if found.is_empty() => Err(SubscriberError::NothingToExtract(name.to_string()).into()),
            _ => Ok(found),
        }
    }

    /// Extracts what is meant, one after the other. What cannot be extracted keeps nothing else from it.
    pub(super) fn extract_each(
        self: &Arc<Self>,
        name: Option<&DistributionRef>,
        hooks: HookRule,
    ) -> Result<Vec<ExtractionEnd>, Error> {
        self.set_lost_aside()?;
        let rows = self.meant(name)?.into_iter();
        let each = rows.map(|(key, held)| {
            let named = DistributionRef::new(Some(self.distributor_name(&key.0)), held.name);
            (named, self.extract_by_hand(key, hooks, Mend::Nothing))
        });
        Ok(each.collect())
    }

    /// The targets that the operator set, by Distribution.
    pub(super) fn set_targets(&self) -> Result<BTreeMap<DistributionRef, PathBuf>, Error> {
        let rows = self.records.list::<PathBuf>("target/")?.into_iter();
        Ok(rows.filter_map(|(key, path)| Some((key.strip_prefix("target/")?.parse().ok()?, path))).collect())
    }

    pub(super) fn set_target(&self, distribution: &DistributionRef, target: Option<&Path>) -> Result<(), Error> {
        let key = format!("target/{distribution}");
        match target {
            Some(target) => Ok(self.records.put(&key, &check_target(target)?)?),
            None => Ok(self.records.delete(&key)?),
        }
    }

    /// Where everything goes: what is here, and what is told for what has not come yet.
    pub(super) fn targets(&self) -> Result<Vec<TargetRow>, Error> {
        let mut rows: Vec<TargetRow> = vec![];
        let held = self.all_held()?;
        for ((fleet, _), held) in &held {
            let distribution = DistributionRef::new(Some(self.distributor_name(fleet)), held.name.clone());
            let (target, rule) = match self.target_of(fleet, held) {
                Ok((target, rule)) => (Ok(target), rule),
                Err(error) => (Err(said(&error)), TargetRule::Proposed),
            };
            rows.push(TargetRow { distribution, target, rule, mode: Some(self.mode_of(fleet, held)) });
        }
        let set = self.set_targets()?;
        let told = self.settings.targets.map.iter().map(|told| (told, TargetRule::Configured));
        for ((distribution, target), rule) in told.chain(set.iter().map(|told| (told, TargetRule::Set))) {
            let meant =
                |((fleet, _), held): &(Key, Held)| distribution.means(&self.distributor_name(fleet), &held.name);
            if !held.iter().any(meant) && !rows.iter().any(|row| row.distribution == *distribution) {
                let mode = self.settings.targets.modes.get(distribution).copied();
                rows.push(TargetRow { distribution: distribution.clone(), target: Ok(target.clone()), rule, mode });
            }
        }
        Ok(rows)
    }

    /// The Distributor of this name, or the only one that is trusted.
    pub(super) fn root_meant(&self, name: Option<&NodeName>) -> Result<DistributorRoot, Error> {
        if let Some(name) = name {
            return self.root_named(name);
        }
        let mut roots = self.trusted_roots()?;
        match (roots.pop(), roots.len()) {
            (Some(root), 0) => Ok(root),
            (None, _) => Err(SubscriberError::NobodyTrusted.into()),
            (Some(_), others) => Err(SubscriberError::WhichDistributor(others + 1).into()),
        }
    }

    pub(super) fn root_named(&self, name: &NodeName) -> Result<DistributorRoot, Error> {
        let found = self.trusted_roots()?.into_iter().find(|root| root.name() == name);
        Ok(found.ok_or_else(|| SubscriberError::UnknownDistributor(name.to_string()))?)
    }

    pub(super) fn leave(self: &Arc<Self>, name: &NodeName) -> Result<(), Error> {
        let root = self.root_named(name)?;
        let fleet = root.key_hash();
        self.unfollow(&fleet);
        self.records.delete(&known_key(&fleet))?;
        self.security.remove_certificate(&root)?;
        self.security.change_keystore(|keystore| -> Result<(), Error> {
            keystore.distrust(&fleet);
            keystore.forget_fleet(&fleet);
            Ok(())
        })?;
        self.show_identities()?;
        self.schedules.declared();
        self.links.close(&fleet, "the Subscriber leaves");
        for ((of, distribution), held) in self.all_held()? {
            if of == fleet {
                let key = (fleet, distribution);
                wait(prune(&self.depot, |info| !self.is_own_package(&(fleet, distribution), &info.root)))?;
                for place in held.packages.iter().filter_map(HeldPackage::place) {
                    wait(self.depot.clear(&place))?;
                }
                if let Some(extracted) = self.extracted(&fleet, &distribution)? {
                    self.forget_entries(&extracted)?;
                }
                self.forget_checked(&key, &[])?;
                let batch = RecordBatch::default()
                    .delete(&held_key(&fleet, &distribution))
                    .delete(&extracted_key(&fleet, &distribution))
                    .delete(&fall_back_key(&key))
                    .delete(&aside_key(&key))
                    .delete(&firing_key(&key))
                    .delete(&before_key(&key))
                    .delete(&due_key(&key));
                self.records.apply(batch)?;
                self.pins.remove(&fleet, &distribution)?;
            }
        }
        self.forget_receipts(&fleet)?;
        self.forget_passed(&fleet)?;
        self.envelopes.remove(|slot| slot.fleet == fleet && slot.kind == EnvelopeKind::ENTITLEMENTS)?;
        self.forget_entitlements();
        self.close_children(&fleet, "the Subscriber leaves");
        self.forget_alarms(&fleet)?;
        lock(&self.standing).retain(|(of, _), _| *of != fleet);
        lock(&self.deliveries).retain(|(of, _), _| *of != fleet);
        lock(&self.troubles).remove(&fleet);
        Ok(())
    }
}

fn said(error: &Error) -> String {
    format!("{}: {error}", error.code())
}

fn parse_key(key: &str) -> Option<Key> {
    let (fleet, distribution) = key.strip_prefix("held/")?.split_once('/')?;
    Some((fleet.parse().ok()?, distribution.parse().ok()?))
}
