//! The certificates that Distributors had before: what was signed under them is verified with them.

use serde::{Deserialize, Serialize};

use crate::id::{KeyHash, UnixMillis};
use crate::security::{Certificate, DistributorRoot};
use crate::store::durable::{StateError, StateFile};
use crate::store::security_dir::SecurityDir;

const LINEAGE: (&str, u16) = ("lineage", 31);

/// A certificate that another one took over from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// The certificate.
    pub root: DistributorRoot,
    /// The CA key that took over.
    pub successor: KeyHash,
    /// When.
    pub since: UnixMillis,
}

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    root: Vec<u8>,
    successor: KeyHash,
    since: UnixMillis,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Kept {
    /// A Distributor's present certificate, so that it is known even when the keystore is lost.
    own: Option<Vec<u8>>,
    former: Vec<Stored>,
}

/// Which certificate took over from which. Every change is durable when it returns.
pub struct Lineage(StateFile<Kept>);

impl Lineage {
    /// Opens `private/lineage`.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never taken for an empty one.
    pub fn open(security: &SecurityDir) -> Result<Self, StateError> {
        let (name, kind) = LINEAGE;
        Ok(Self(StateFile::open(security.private_file(name), "a file of former certificates", kind)?))
    }

    /// The certificate that this Distributor had when it was opened last.
    #[must_use]
    pub fn own(&self) -> Option<DistributorRoot> {
        read(self.0.state().own.as_deref()?)
    }

    /// Notes this Distributor's present certificate.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_own(&self, root: &DistributorRoot) -> Result<(), StateError> {
        if self.own().as_ref() == Some(root) {
            return Ok(());
        }
        self.0.change(|kept| kept.own = Some(root.certificate().der().to_vec()))
    }

    /// Notes that another CA key takes over from `root`. Said again, it changes nothing.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn add(&self, root: &DistributorRoot, successor: &KeyHash, now: UnixMillis) -> Result<(), StateError> {
        if self.all().iter().any(|former| former.root == *root && former.successor == *successor) {
            return Ok(());
        }
        let root = root.certificate().der().to_vec();
        self.0.change(|kept| {
            kept.former.retain(|former| former.root != root);
            kept.former.push(Stored { root, successor: *successor, since: now });
        })
    }

    /// All certificates that others took over from, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Former> {
        let state = self.0.state();
        let former =
            |kept: &Stored| Some(Former { root: read(&kept.root)?, successor: kept.successor, since: kept.since });
        state.former.iter().filter_map(former).collect()
    }

    /// The certificate with this key that others took over from, and the key that has it all now.
    #[must_use]
    pub fn former(&self, key: &KeyHash) -> Option<Former> {
        self.all().into_iter().rev().find(|former| former.root.key_hash() == *key)
    }

    /// Whether `successor` took over from `key`, directly or through others.
    #[must_use]
    pub fn descends(&self, successor: &KeyHash, key: &KeyHash) -> bool {
        let all = self.all();
        let mut at = *key;
        // Each step leads to another certificate, of which there are only so many.
        for _ in 0..all.len() {
            let Some(next) = all.iter().find(|former| former.root.key_hash() == at) else { return false };
            at = next.successor;
            if at == *successor {
                return true;
            }
        }
        false
    }
}

fn read(der: &[u8]) -> Option<DistributorRoot> {
    DistributorRoot::try_from(Certificate::from_der(der).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{Authority, AwsLc};
    use crate::store::NodeRole;

    #[test]
    fn who_took_over_from_whom_survives_and_leads_on() {
        let temp = tempfile::tempdir().unwrap();
        let security = SecurityDir::create(&temp.path().join("security"), NodeRole::Distributor).unwrap();
        let now = UnixMillis::from_millis(1_800_000_000_000);
        let roots: Vec<_> = (0..3)
            .map(|_| Authority::create(&AwsLc, &"dist.example".parse().unwrap(), now).unwrap().root().clone())
            .collect();
        let [a, b, c] = [0, 1, 2].map(|at| roots[at].key_hash());
        let lineage = Lineage::open(&security).unwrap();
        lineage.set_own(&roots[2]).unwrap();
        lineage.add(&roots[0], &b, now).unwrap();
        lineage.add(&roots[1], &c, now).unwrap();
        lineage.add(&roots[1], &c, now).unwrap();
        let again = Lineage::open(&security).unwrap();
        assert_eq!(again.own(), Some(roots[2].clone()));
        assert_eq!(again.all().len(), 2);
        assert_eq!(again.former(&a).unwrap().successor, b);
        assert!(again.descends(&c, &a) && again.descends(&c, &b) && again.descends(&b, &a));
        assert!(!again.descends(&a, &c) && !again.descends(&c, &c));
        // A takeover that was begun and not done gives way to the one that is.
        again.add(&roots[0], &c, now).unwrap();
        assert_eq!((again.all().len(), again.former(&a).unwrap().successor), (2, c));
    }
}
