//! Sealed packages at the Subscriber: the grant is fetched before an offer is taken, kept wrapped beside the package, and
//! unwrapped whenever the package is opened. The content key itself is never stored.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::id::{KeyHash, PackageId, Revision};
use crate::limits::Limits;
use crate::node::{ExchangeError, fetch, judge_signature, open_package, wait};
use crate::package::delta::DeltaIndex;
use crate::package::{Opening, PackageError, PackageIndex, PackageKind, Root, Suite, read_delta_index};
use crate::protocol::{Fetch, FetchTarget, Offer, cheapest_chain};
use crate::security::{
    Carried, ContentKey, DistributorRoot, KeptGrant, Keystore, PackageRef, ProvenGrant, ReleaseStatement, SecretKey,
    Signature, Usage,
};
use crate::store::{Depot, DepotError, DurableFile, GRANT_FILE, NodeRole, PackagePlace, SecurityDir, create_folders};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::state::{State, lock};
use crate::transport::QuicConnection;

/// How long the sender may take to hand out a grant of what it has just offered.
const PATIENCE: Duration = Duration::from_secs(30);

/// A grant that was judged and is not kept yet, and for which package.
#[derive(Debug, Clone)]
pub(super) struct NewGrant {
    package: PackageId,
    folder: PathBuf,
    bytes: Vec<u8>,
}

impl State {
    /// What an offered revision needs before it can be taken: nothing if it is unsealed, or its grant is here; else
    /// the grant, fetched from who offers, and judged. Nothing is written.
    ///
    /// # Errors
    /// [`SubscriberError::NoGrant`] and [`SubscriberError::EncryptionCertificate`]; what is wrong with a grant that came.
    pub(super) async fn grants_for(
        self: &Arc<Self>,
        connection: &QuicConnection,
        root: &DistributorRoot,
        offer: &Offer,
        release: &ReleaseStatement,
    ) -> Result<Vec<NewGrant>, Error> {
        if !release.is_sealed() {
            return Ok(vec![]);
        }
        let (state, of, by) = (self.clone(), release.clone(), root.clone());
        let looking = move || -> Result<Vec<(PackageId, PathBuf)>, Error> {
            state.encryption_key(&by.key_hash())?;
            let mut lacking = vec![];
            for package in state.wanted_packages(&by.key_hash(), &of)? {
                let folder = state.grant_folder(&by, &of, &package)?;
                if read_grant(&folder)?.is_none_or(|kept| state.unwrap(&kept, &package.id).is_err()) {
                    lacking.push((package.id, folder));
                }
            }
            Ok(lacking)
        };
        let looked = tokio::task::spawn_blocking(looking).await.map_err(|_| SubscriberError::Worker)?;
        let mut grants = vec![];
        for (package, folder) in looked? {
            let kept = self.fetch_grant(connection, root, offer, &package).await?;
            let recipient = self.identity(&root.key_hash())?.certificate.key_hash();
            let signer = kept.judge(root, &package, &recipient, self.now(&root.key_hash()))?;
            self.refuse_revoked(&root.key_hash(), &signer)?;
            self.unwrap(&kept, &package)?;
            grants.push(NewGrant { package, folder, bytes: kept.to_bytes()? });
        }
        Ok(grants)
    }

    /// The packages of an offered revision whose grants have to be here: of a revision that is here those that carry it,
    /// else the cheapest chain, and the baseline, should the chain turn out to be of no use.
    fn wanted_packages(&self, fleet: &KeyHash, release: &ReleaseStatement) -> Result<Vec<PackageRef>, Error> {
        let key = (*fleet, release.distribution);
        let held = self.held(fleet, &release.distribution)?.filter(|held| held.revision == release.revision);
        let mut wanted = release.packages.clone();
        match held {
            Some(held) if held.packages.is_empty() => wanted.clear(),
            // After its signer was replaced, a package that is here has another id.
            Some(held) if wanted.iter().any(|package| held.package(&package.id).is_some()) => {
                wanted.retain(|package| held.package(&package.id).is_some());
            }
            _ => {
                let here = self.starts(&key)?;
                // What is in flight will be here when this revision's turn comes, or it will not.
                let coming = lock(&self.deliveries).get(&key).and_then(|delivery| delivery.have().receiving);
                let then: Vec<Revision> = here.iter().copied().chain(coming).collect();
                let chains = [here, then].map(|starts| cheapest_chain(release, &starts).unwrap_or_default());
                let baseline = release.baseline().copied();
                wanted
                    .retain(|package| chains.iter().any(|chain| chain.contains(package)) || Some(*package) == baseline);
            }
        }
        Ok(wanted)
    }

    async fn fetch_grant(
        &self,
        connection: &QuicConnection,
        root: &DistributorRoot,
        offer: &Offer,
        package: &PackageId,
    ) -> Result<KeptGrant, Error> {
        let limits = Limits::DEFAULT;
        let none = |reason: String| Error::from(SubscriberError::NoGrant(reason));
        let grants = offer.grants_of(package).ok_or_else(|| none("none was offered".to_owned()))?;
        let recipient = self.identity(&root.key_hash())?.certificate.key_hash();
        let get = async |target, bytes_max| {
            let wanted = Fetch { target, from: 0, to: bytes_max };
            let fetched = match fetch(connection, wanted, &limits, PATIENCE).await {
                Err(ExchangeError::Refused(refused)) if !refused.is_retryable() => {
                    return Err(none(refused.to_string()));
                }
                fetched => fetched?,
            };
            Ok(fetched.collect(bytes_max).await?)
        };
        let envelope = get(FetchTarget::Envelope(grants), limits.envelope_bytes_max).await?;
        let grant = get(FetchTarget::Grant { grants, recipient }, limits.grant_bytes_max).await?;
        Ok(KeptGrant { envelope, proven: ProvenGrant::from_bytes(&grant)? })
    }

    /// Keeps a grant, durably. Blocks on the disk.
    pub(super) fn keep_grant(&self, grant: &NewGrant) -> Result<(), Error> {
        // Two offers may bring the same one at once.
        let _one_at_a_time = lock(&self.holding);
        create_folders(&grant.folder)?;
        grant_file(&grant.folder).replace(&grant.bytes)?;
        tracing::debug!(package = %grant.package, "keeping a grant");
        Ok(())
    }

    /// The content key of a package that a taken statement names; `None` where it says that it is unsealed.
    pub(super) fn key_of_stated(
        &self,
        root: &DistributorRoot,
        release: &ReleaseStatement,
        package: &PackageRef,
    ) -> Result<Option<ContentKey>, Error> {
        if !release.is_sealed() {
            return Ok(None);
        }
        let kept = read_grant(&self.grant_folder(root, release, package)?)?;
        let kept = kept.ok_or(SubscriberError::GrantGone(package.id))?;
        Ok(Some(self.unwrap(&kept, &package.id)?))
    }

    /// Opens a package that is here.
    pub(super) fn open_held(
        &self,
        package: PackageId,
        root: &DistributorRoot,
    ) -> Result<(PackageIndex, Arc<File>), Error> {
        open_package(&self.depot, package, root, |found| self.opening_of(package, found))
    }

    /// Opens a delta that is here.
    pub(super) fn open_held_delta(
        &self,
        package: PackageId,
        root: &DistributorRoot,
    ) -> Result<(DeltaIndex, Arc<File>), Error> {
        let file = self.depot.open_file(package)?;
        let judge = |found: &Root, bytes: &[u8], signature: &Signature| -> Result<Opening, Error> {
            judge_signature(root, found, bytes, signature)?;
            self.opening_of(package, found)
        };
        let index = read_delta_index(&*file, &Limits::DEFAULT, judge)?;
        if index.id() != package {
            return Err(DepotError::NotFound { id: package }.into());
        }
        Ok((index, file))
    }

    /// What opens a package that is here: its grant lies beside it.
    fn opening_of(&self, package: PackageId, found: &Root) -> Result<Opening, Error> {
        if !found.is_sealed() {
            return Ok(Opening::Unsealed);
        }
        let place = wait(self.depot.info(package))?.map(|info| self.depot.folder(&info.place));
        let kept = place.map(|folder| read_grant(&folder)).transpose()?.flatten();
        let key = self.unwrap(&kept.ok_or(SubscriberError::GrantGone(package))?, &package)?;
        judge_key(found, &key)?;
        Ok(Opening::With(key))
    }

    fn unwrap(&self, kept: &KeptGrant, package: &PackageId) -> Result<ContentKey, Error> {
        unwrap(&self.security.trust()?.keystore, kept, package)
    }

    /// Whether this node has a key to which grants can be sealed now: its encryption certificate is for its name.
    fn encryption_key(&self, fleet: &KeyHash) -> Result<(), Error> {
        let unfit = |reason: String| Err(SubscriberError::EncryptionCertificate(reason).into());
        match self.security.trust()?.keystore.identity(fleet, Usage::SubscriberEncryption) {
            None => unfit("there is none".to_owned()),
            Some(identity) if *identity.certificate.name() != self.name() => {
                let found = identity.certificate.name();
                unfit(format!("it is for the name {found}, and this node is called {}", self.name()))
            }
            Some(_) => Ok(()),
        }
    }

    /// Where the grant of a package lies: beside the package, or where that will be.
    fn grant_folder(
        &self,
        root: &DistributorRoot,
        release: &ReleaseStatement,
        package: &PackageRef,
    ) -> Result<PathBuf, Error> {
        let (revision, kind) = match package.carried {
            Carried::Baseline { revision } => (revision, PackageKind::Baseline),
            Carried::Delta { base, revision } => (revision, PackageKind::Delta { base }),
        };
        let place = match wait(self.depot.info(package.id))? {
            Some(info) => info.place,
            None => PackagePlace::sealed_at_subscriber(root.name(), &release.distribution, revision, kind),
        };
        Ok(self.depot.folder(&place))
    }
}

/// Refuses a key that is not the one that a sealed package's root commits to.
pub(super) fn judge_key(root: &Root, key: &ContentKey) -> Result<(), PackageError> {
    match root.suite {
        Suite::Aes256Gcm { commitment, .. } if commitment != key.commitment() => Err(PackageError::WrongKey),
        _ => Ok(()),
    }
}

fn grant_file(folder: &Path) -> DurableFile {
    DurableFile::new(folder.join(GRANT_FILE))
}

/// The grant that lies in a package's folder. One that cannot be understood counts as none: it is fetched again.
fn read_grant(folder: &Path) -> Result<Option<KeptGrant>, Error> {
    let bytes = grant_file(folder).read(Limits::DEFAULT.kept_grant_bytes_max)?;
    Ok(bytes.and_then(|bytes| KeptGrant::from_bytes(&bytes).ok()))
}

fn unwrap(keystore: &Keystore, kept: &KeptGrant, package: &PackageId) -> Result<ContentKey, Error> {
    let grant = &kept.proven.grant;
    let fits = |key: &&SecretKey| key.key_hash() == grant.encryption;
    let own = keystore.held().iter().filter(|held| held.usage == Usage::SubscriberEncryption).map(|held| &held.key);
    let key = own.into_iter().find(fits).ok_or(crate::security::GrantError::OtherKey(grant.encryption))?;
    Ok(grant.open(package, key)?)
}

/// The content key of the sealed package in `file`, by the grant and the keys of the Subscriber whose data directory is
/// `data`; `None` where that is no Subscriber, or it has no grant for the package. The grant lies beside the file, or
/// beside the node's own copy. Nothing is locked, so that it works while the Subscriber runs.
///
/// # Errors
/// When a grant is there and cannot be read or does not open.
pub fn granted_key(data: &Path, file: &Path, package: &PackageId, root: &Root) -> Result<Option<ContentKey>, Error> {
    if !root.is_sealed() || !data.join("security").is_dir() {
        return Ok(None);
    }
    let trust = match SecurityDir::open(&data.join("security"), NodeRole::Subscriber).and_then(|dir| dir.trust()) {
        Ok(trust) => trust,
        Err(error) => {
            tracing::warn!(%error, "the keys of this node cannot be used");
            return Ok(None);
        }
    };
    let distributor = trust.roots.iter().find(|trusted| trusted.root.key_hash() == root.distributor);
    let own = distributor.map(|trusted| data.join(PackagePlace::of_root(trusted.root.name(), root).folder()));
    for folder in file.parent().map(Path::to_owned).into_iter().chain(own) {
        if let Some(kept) = read_grant(&folder)? {
            let key = unwrap(&trust.keystore, &kept, package)?;
            judge_key(root, &key)?;
            return Ok(Some(key));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DistributionId, FiringId, UnixMillis};
    use crate::protocol::{Delivery, Floor, Statement};
    use crate::subscriber::Subscriber;

    const FLEET: KeyHash = KeyHash::from_bytes([1; 32]);
    const ID: DistributionId = DistributionId::from_bytes([3; 16]);

    fn package(base: u64, revision: u64) -> PackageRef {
        let to = Revision::from_number(revision);
        let carried = match base {
            0 => Carried::Baseline { revision: to },
            base => Carried::Delta { base: Revision::from_number(base), revision: to },
        };
        PackageRef { id: PackageId::from_bytes([(base * 16 + revision) as u8; 32]), carried, bytes: 9000 - base }
    }

    fn release(revision: u64, packages: &[PackageRef]) -> ReleaseStatement {
        let revision = Revision::from_number(revision);
        ReleaseStatement { distribution: ID, revision, packages: packages.to_vec(), extensions: vec![] }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_grants_of_what_waits_are_those_of_a_chain_from_what_is_in_flight_too() {
        let folder = tempfile::tempdir().unwrap();
        let subscriber = Subscriber::builder(folder.path()).name("one.example".parse().unwrap()).open().await.unwrap();
        let state = subscriber.state.clone();
        let next = release(4, &[package(0, 4), package(2, 3), package(3, 4)]);
        let wanted = || state.wanted_packages(&FLEET, &next).unwrap();
        assert_eq!(wanted(), [package(0, 4)], "there is nothing yet that a delta goes from");
        let mut delivery = Delivery::new(Floor::NONE, None, Limits::DEFAULT);
        let (issued, expires) = (UnixMillis::from_millis(1), UnixMillis::from_millis(9));
        let first = Statement { release: release(3, &[package(0, 3)]), issued, expires };
        delivery.offer(FiringId::from_bytes([1; 16]), &first, issued);
        lock(&state.deliveries).insert((FLEET, ID), delivery);
        assert_eq!(wanted(), [package(0, 4), package(3, 4)]);
    }
}
