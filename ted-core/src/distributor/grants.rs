//! Sealed packages at the Distributor: their content keys, derived anew whenever they are needed, and the grants that
//! carry those keys to the Subscribers that are entitled to them.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::release::StoredEnvelope;
use crate::distributor::report::BuiltRevision;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{EnvelopeId, FiringId, KeyHash, PackageId, UnixMillis};
use crate::model::Distribution;
use crate::node::{Content, RecordBatch, Reply, open_package, wait};
use crate::package::{Opening, PackageIndex, Root, Seal, Suite};
use crate::protocol::{WaitingFor, code};
use crate::security::{
    ContentKey, Envelope, EnvelopeBody, EnvelopeKind, EpochSecret, Grant, GrantTree, Grants, Keystore, ProvenGrant,
    Recipient, judge_recipient,
};
use crate::store::{Depot, NodeRole, SecurityDir};

/// How long the signature over a package's grants holds. Grants themselves do not expire: what was opened once was
/// opened.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The code of a Subscriber whose key was revoked, as it is refused on a connection.
const REVOKED: &str = "TED-1305";

/// Grants that are kept in memory for those who fetch, with the trees over them: 300 bytes each. The sets of the ten
/// packages of a Distribution in a fleet of 10,000.
const GRANTS_KEPT: usize = 100_000;

/// What the catalog keeps about a package's grants; they themselves lie under `grant/<package>/`.
#[derive(Clone, Serialize, Deserialize)]
struct Signed {
    envelope: String,
    issued: UnixMillis,
    /// The envelope before, which somebody may be fetching by.
    before: Option<String>,
}

/// The grants that one envelope counts, and the tree over them.
pub(super) struct GrantSet {
    package: PackageId,
    grants: Vec<Grant>,
    tree: GrantTree,
    /// Of several grants for one recipient the last one counts: it is for the newest key.
    by_recipient: HashMap<KeyHash, u32>,
}

/// The sets that were used last, the newest first.
pub(super) type GrantSets = VecDeque<(EnvelopeId, Arc<GrantSet>)>;

/// Why a Subscriber is not offered what is sealed.
#[derive(Debug, Clone)]
pub(super) struct Withheld {
    pub(super) subscriber: KeyHash,
    pub(super) code: &'static str,
    pub(super) reason: String,
    /// What would help.
    pub(super) waiting_for: WaitingFor,
}

impl Withheld {
    pub(super) fn because(subscriber: &KeyHash, error: impl Into<Error>) -> Self {
        let error = error.into();
        let (code, reason) = (error.code(), error.to_string());
        Self { subscriber: *subscriber, code, reason, waiting_for: WaitingFor::Grant }
    }
}

/// What came of granting.
pub(super) struct Granted {
    /// For each sealed package the envelope to offer with; those of which nobody was ever granted anything lack.
    pub(super) envelopes: Vec<(PackageId, EnvelopeId)>,
    /// Who cannot be granted all of them, each once.
    pub(super) withheld: Vec<Withheld>,
}

impl State {
    /// Opens a package of this Distributor's own.
    pub(super) fn open_own(&self, package: PackageId) -> Result<(PackageIndex, Arc<File>), Error> {
        open_package(&self.depot, package, self.own().authority.root(), |root| {
            Ok(self.content_key(root)?.map_or(Opening::Unsealed, Opening::With))
        })
    }

    /// The content key of a package of this Distributor's own; `None` for an unsealed one.
    pub(super) fn content_key(&self, root: &Root) -> Result<Option<ContentKey>, Error> {
        if !root.is_sealed() {
            return Ok(None);
        }
        Ok(content_key_of(&self.security.load_keystore()?, root)?)
    }

    /// What the next package is sealed with: a new salt under the current epoch secret, which is made and kept first
    /// where there is none yet.
    pub(super) fn new_seal(&self) -> Result<Seal, Error> {
        let salt = self.random()?;
        if let Some(secret) = self.security.load_keystore()?.epoch_secrets().last() {
            return Ok(Seal::of(secret, salt));
        }
        let secret = self.security.change_keystore(|keystore| -> Result<EpochSecret, Error> {
            if let Some(secret) = keystore.epoch_secrets().last() {
                return Ok(secret.clone());
            }
            let secret = EpochSecret::generate(&*self.crypto)?;
            keystore.add_epoch_secret(secret.clone());
            Ok(secret)
        })?;
        Ok(Seal::of(&secret, salt))
    }

    /// The root of a package, if it is sealed and here.
    pub(super) fn sealed_root(&self, package: PackageId) -> Result<Option<Arc<Root>>, Error> {
        let info = wait(self.depot.info(package))?;
        Ok(info.map(|info| info.root).filter(|root| root.is_sealed()))
    }

    /// Makes sure that the Subscribers `to` are granted every sealed package that a revision is offered with, as far as
    /// they can be. Grants that are there stay as they are. Of unsealed packages there is nothing to grant.
    pub(super) fn grant(
        &self,
        distribution: &Distribution,
        built: &BuiltRevision,
        to: &[KeyHash],
    ) -> Result<Granted, Error> {
        let _one_at_a_time = lock(&self.granting);
        let mut granted = Granted { envelopes: vec![], withheld: vec![] };
        let mut recipients = None;
        for package in self.packages_to_state(distribution, built) {
            let Some(root) = self.sealed_root(package.id)? else { continue };
            let recipients = recipients.get_or_insert_with(|| self.recipients(to, &mut granted.withheld));
            let envelope = self.grant_package(distribution, (package.id, &root), recipients, &mut granted.withheld)?;
            granted.envelopes.extend(envelope.map(|envelope| (package.id, envelope)));
        }
        Ok(granted)
    }

    /// As [`State::grant`], one package, with the lock on granting held.
    fn grant_package(
        &self,
        distribution: &Distribution,
        (package, root): (PackageId, &Root),
        to: &[Recipient],
        withheld: &mut Vec<Withheld>,
    ) -> Result<Option<EnvelopeId>, Error> {
        let now = self.now();
        let signed: Option<Signed> = self.records.get(&signed_key(&package))?;
        let set = match &signed {
            Some(signed) => self.grant_set(&signed.envelope.parse()?)?,
            None => None,
        };
        let has = |recipient: &&Recipient| set.as_ref().is_some_and(|set| set.has(recipient));
        let lacking: Vec<&Recipient> = to.iter().filter(|recipient| !has(recipient)).collect();
        // Without its grants the record of them is worth nothing: they are made anew.
        let signed = signed.filter(|_| set.is_some());
        let mut holds = signed.as_ref().is_some_and(|signed| now < signed.issued.plus(LIFE * 2 / 3));
        if let Some(signed) = &signed {
            holds = holds && !self.is_envelope_void(&signed.envelope)?;
        }
        if lacking.is_empty() && (holds || set.is_none()) {
            return Ok(signed.map(|signed| signed.envelope.parse()).transpose()?);
        }
        let grants = match self.content_key(root)? {
            Some(key) => self.wrap(&key, package, &lacking, withheld),
            None => vec![],
        };
        let before = signed.zip(set);
        if grants.is_empty() && before.is_none() {
            return Ok(None);
        }
        Ok(Some(self.sign_grants(distribution, package, before, grants, now)?))
    }

    /// Whom content keys can be wrapped for, of these; of the others, why not.
    fn recipients(&self, subscribers: &[KeyHash], withheld: &mut Vec<Withheld>) -> Vec<Recipient> {
        let now = self.now();
        let judged = subscribers.iter().map(|subscriber| self.recipient(subscriber, now));
        judged.filter_map(|judged| judged.map_err(|why| withheld.push(why)).ok()).collect()
    }

    fn wrap(
        &self,
        key: &ContentKey,
        package: PackageId,
        to: &[&Recipient],
        withheld: &mut Vec<Withheld>,
    ) -> Vec<Grant> {
        let mut grants = Vec::with_capacity(to.len());
        for recipient in to {
            match Grant::issue(&*self.crypto, key, &package, recipient) {
                Ok(grant) => grants.push(grant),
                Err(error) if withheld.iter().all(|known| known.subscriber != recipient.identity) => {
                    withheld.push(Withheld::because(&recipient.identity, error));
                }
                Err(_) => {}
            }
        }
        grants
    }

    /// Whom a content key can be wrapped for, of a registered Subscriber.
    fn recipient(&self, subscriber: &KeyHash, now: UnixMillis) -> Result<Recipient, Withheld> {
        let waiting_for = WaitingFor::Certificate;
        let why =
            |code, reason: &str| Withheld { subscriber: *subscriber, code, reason: reason.to_owned(), waiting_for };
        let registration = self.registrations.get(subscriber);
        let registration = registration.ok_or_else(|| why(code::NOT_ENTITLED, "its key is not registered any more"))?;
        let encryption = registration.encryption.as_deref();
        let recipient = judge_recipient(subscriber, &registration.name, encryption, now)
            .map_err(|unfit| Withheld { waiting_for, ..Withheld::because(subscriber, unfit) })?;
        let keys = [*subscriber, KeyHash::of_spki(&recipient.encryption)];
        if keys.iter().any(|key| self.is_key_revoked(key)) {
            return Err(why(REVOKED, "its key was revoked"));
        }
        Ok(recipient)
    }

    /// Adds `grants` to those that there are, signs the tree over all of them, and keeps it all in one step.
    fn sign_grants(
        &self,
        distribution: &Distribution,
        package: PackageId,
        before: Option<(Signed, Arc<GrantSet>)>,
        grants: Vec<Grant>,
        now: UnixMillis,
    ) -> Result<EnvelopeId, Error> {
        let (signed, mut all) = match before {
            Some((signed, set)) => (Some(signed), set.grants.clone()),
            None => (None, vec![]),
        };
        let mut batch = RecordBatch::default();
        for grant in grants {
            batch = batch.put_bytes(&format!("{}{:08x}", grants_prefix(&package), all.len()), grant.to_bytes()?);
            all.push(grant);
        }
        let set = GrantSet::of(package, all)?;
        let own = self.own();
        // A clock that was set back must not make this older than the one before.
        let issued = signed.as_ref().map_or(now, |signed| now.max(signed.issued));
        let grants = Grants { package, count: set.tree.count(), merkle_root: set.tree.root() };
        let body = EnvelopeBody {
            kind: EnvelopeKind::GRANTS,
            distributor: own.authority.root().key_hash(),
            issuer: own.signing.certificate.key_hash(),
            sequence: self.next_sequence()?,
            issued,
            expires: issued.plus(LIFE),
            payload: grants.to_payload()?,
        };
        let envelope = Envelope::seal(&*self.crypto, &own.signing, body)?;
        let id = envelope.id();
        let stored =
            StoredEnvelope { distribution: distribution.id.to_string(), bytes: hex::encode(envelope.to_bytes()) };
        batch = batch.put(&envelope_key(&id.to_string()), &stored)?;
        if let Some(outdated) = signed.as_ref().and_then(|signed| signed.before.as_ref()) {
            batch = batch.delete(&envelope_key(outdated));
        }
        let before = signed.map(|signed| signed.envelope);
        batch = batch.put(&signed_key(&package), &Signed { envelope: id.to_string(), issued, before })?;
        self.records.apply(batch)?;
        tracing::info!(distribution = %distribution.name, %package, grants = grants.count, "granted");
        self.remember(id, Arc::new(set));
        Ok(id)
    }

    /// The grants that an envelope counts; `None` where the catalog does not have all of them.
    fn grant_set(&self, envelope: &EnvelopeId) -> Result<Option<Arc<GrantSet>>, Error> {
        if let Some((_, set)) = lock(&self.grant_sets).iter().find(|(id, _)| id == envelope) {
            return Ok(Some(set.clone()));
        }
        let stored: Option<StoredEnvelope> = self.records.get(&envelope_key(&envelope.to_string()))?;
        let Some(bytes) = stored.and_then(|stored| hex::decode(&stored.bytes).ok()) else { return Ok(None) };
        let found = Envelope::from_bytes(&bytes)?;
        found.expect_kind(EnvelopeKind::GRANTS)?;
        let grants = Grants::from_payload(&found.body().payload)?;
        let mut rows = self.records.list_bytes(&grants_prefix(&grants.package))?;
        if rows.len() < grants.count as usize {
            return Ok(None);
        }
        rows.truncate(grants.count as usize);
        let all = rows.iter().map(|row| Grant::from_bytes(row)).collect::<Result<_, _>>()?;
        let set = Arc::new(GrantSet::of(grants.package, all)?);
        if set.tree.root() != grants.merkle_root {
            return Ok(None);
        }
        self.remember(*envelope, set.clone());
        Ok(Some(set))
    }

    fn remember(&self, envelope: EnvelopeId, set: Arc<GrantSet>) {
        let mut sets = lock(&self.grant_sets);
        sets.retain(|(known, _)| *known != envelope);
        sets.push_front((envelope, set));
        let mut grants = 0;
        let fit = sets.iter().take_while(|(_, set)| {
            grants += set.grants.len();
            grants <= GRANTS_KEPT
        });
        // The newest is being used.
        let kept = fit.count().max(1);
        sets.truncate(kept);
    }

    /// Answers the Subscriber `key`, who asks for the grant of `recipient` among those that an envelope counts.
    pub(super) fn grant_content(&self, key: &KeyHash, grants: &EnvelopeId, recipient: &KeyHash) -> Reply {
        if !self.is_at(key, recipient) {
            return Reply::refuse(code::NOT_ENTITLED, "this grant is another node's");
        }
        let not_here = || Reply::refuse(code::NOT_FOUND, "this grant is not here");
        let stored: Option<StoredEnvelope> = self.records.get(&envelope_key(&grants.to_string())).unwrap_or_default();
        let Some(Ok(distribution)) = stored.map(|stored| stored.distribution.parse()) else { return not_here() };
        if !self.entitled(recipient, &distribution) {
            return Reply::refuse(code::NOT_ENTITLED, "no Channel of yours has this Distribution");
        }
        let found = self.grant_set(grants).map(|set| set.map(|set| set.prove(recipient)));
        match found {
            Ok(Some(Some(proven))) => match proven.to_bytes() {
                Ok(bytes) => Reply::Content(Content::Bytes(Bytes::from(bytes))),
                Err(error) => {
                    tracing::error!(%error, "a grant cannot be written");
                    Reply::refuse(code::INTERNAL, "the grant cannot be read here")
                }
            },
            Ok(_) => not_here(),
            Err(error) => {
                tracing::error!(code = error.code(), %error, "grants cannot be read");
                Reply::refuse(code::INTERNAL, "the grants cannot be read here")
            }
        }
    }

    /// Forgets the grants of packages that are not here any more.
    pub(super) fn forget_grants(&self) -> Result<(), Error> {
        for key in self.records.keys(SIGNED)? {
            let Some(Ok(package)) = key.strip_prefix(SIGNED).map(str::parse::<PackageId>) else { continue };
            if wait(self.depot.info(package))?.is_some() {
                continue;
            }
            let mut batch = RecordBatch::default().delete(&key);
            if let Some(signed) = self.records.get::<Signed>(&key)? {
                for envelope in signed.before.iter().chain([&signed.envelope]) {
                    batch = batch.delete(&envelope_key(envelope));
                }
            }
            for grant in self.records.keys(&grants_prefix(&package))? {
                batch = batch.delete(&grant);
            }
            self.records.apply(batch)?;
            lock(&self.grant_sets).retain(|(_, set)| set.package != package);
        }
        Ok(())
    }

    /// Enters into a firing, and tells, that a Subscriber is not offered a sealed revision.
    pub(super) fn withhold(
        &self,
        firing: FiringId,
        distribution: &Distribution,
        withheld: &Withheld,
    ) -> Result<(), Error> {
        let Withheld { subscriber, code, reason, waiting_for } = withheld;
        let name = self.name_of_key(subscriber);
        tracing::warn!(subscriber = %name, distribution = %distribution.name, code, reason, "not offered");
        self.events.emit(DistributorEvent::Withheld {
            subscriber: name,
            distribution: distribution.name.clone(),
            code: (*code).to_owned(),
            reason: reason.clone(),
        });
        self.change_firing(firing, |open, now| {
            let withheld = open.withheld(subscriber, &distribution.id, (code, reason), now);
            open.waits(subscriber, &distribution.id, Some((*waiting_for, None)), now) || withheld
        });
        Ok(())
    }
}

impl GrantSet {
    fn of(package: PackageId, grants: Vec<Grant>) -> Result<Self, Error> {
        let tree = GrantTree::over(grants.iter().map(Grant::leaf).collect::<Result<_, _>>()?)?;
        let by_recipient = (0..).zip(&grants).map(|(index, grant)| (grant.recipient, index)).collect();
        Ok(Self { package, grants, tree, by_recipient })
    }

    fn newest(&self, recipient: &KeyHash) -> Option<(u32, &Grant)> {
        let index = *self.by_recipient.get(recipient)?;
        Some((index, self.grants.get(index as usize)?))
    }

    fn has(&self, recipient: &Recipient) -> bool {
        let key = KeyHash::of_spki(&recipient.encryption);
        self.newest(&recipient.identity).is_some_and(|(_, grant)| grant.encryption == key)
    }

    fn prove(&self, recipient: &KeyHash) -> Option<ProvenGrant> {
        let (index, grant) = self.newest(recipient)?;
        Some(ProvenGrant { grant: grant.clone(), index, path: self.tree.path(index)? })
    }
}

/// The content key of a sealed package: of the epoch secrets, one gives the key that the root commits to.
pub(super) fn content_key_of(keystore: &Keystore, root: &Root) -> Result<Option<ContentKey>, DistributorError> {
    let Suite::Aes256Gcm { salt, commitment } = root.suite else { return Ok(None) };
    let keys = keystore.epoch_secrets().iter().rev().map(|secret| secret.content_key(&salt));
    let fitting = keys.into_iter().find(|key| key.commitment() == commitment);
    fitting.map(Some).ok_or(DistributorError::NoContentKey(root.distribution))
}

/// The content key of a sealed package, by the keystore of the Distributor whose data directory is `data`; `None` where
/// that is no Distributor, or the package is not its own or sealed under a secret that is lost. Nothing is locked, so
/// that it works while the Distributor runs.
#[must_use]
pub fn own_key(data: &Path, root: &Root) -> Option<ContentKey> {
    if !root.is_sealed() || !data.join("security").is_dir() {
        return None;
    }
    let security = SecurityDir::open(&data.join("security"), NodeRole::Distributor);
    let found = security.and_then(|security| security.load_keystore()).map_err(Error::from);
    match found.and_then(|keystore| Ok(content_key_of(&keystore, root)?)) {
        Ok(key) => key,
        Err(error) => {
            tracing::warn!(code = error.code(), %error, "the keys of this node do not open the package");
            None
        }
    }
}

const SIGNED: &str = "granted/";

fn signed_key(package: &PackageId) -> String {
    format!("{SIGNED}{package}")
}

fn grants_prefix(package: &PackageId) -> String {
    format!("grant/{package}/")
}

fn envelope_key(envelope: &str) -> String {
    format!("envelope/{envelope}")
}

#[cfg(test)]
mod tests;
