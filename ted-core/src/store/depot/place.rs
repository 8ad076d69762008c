//! Where a package belongs below the data directory.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::id::{DistributionId, Revision};
use crate::name::{Label, NodeName};
use crate::package::{PackageKind, Root};

/// The folder of one package, relative to the data directory:
/// `dist/<distribution>/<revision>/{baseline,delta}` at a Distributor,
/// `sub/<distributor>/<distribution>/<revision>/{baseline,delta}` at a Subscriber.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackagePlace(PathBuf);

impl PackagePlace {
    /// At the Distributor that builds it.
    #[must_use]
    pub fn at_distributor(distribution: &Label, revision: Revision, kind: PackageKind) -> Self {
        Self::below(Path::new("dist"), distribution.as_str(), revision, kind)
    }

    /// At a Subscriber that receives it from `distributor`.
    #[must_use]
    pub fn at_subscriber(distributor: &NodeName, distribution: &Label, revision: Revision, kind: PackageKind) -> Self {
        Self::below(&Path::new("sub").join(distributor.file_stem()), distribution.as_str(), revision, kind)
    }

    /// At a Subscriber, for a package that hides its Distribution's name.
    #[must_use]
    pub fn sealed_at_subscriber(
        distributor: &NodeName,
        distribution: &DistributionId,
        revision: Revision,
        kind: PackageKind,
    ) -> Self {
        Self::below(&Path::new("sub").join(distributor.file_stem()), &distribution.to_string(), revision, kind)
    }

    /// Where a Subscriber puts the package that `root` describes. One that hides its Distribution's name lies under
    /// the Distribution's id.
    #[must_use]
    pub fn of_root(distributor: &NodeName, root: &Root) -> Self {
        match &root.disclosure {
            Some(known) => Self::at_subscriber(distributor, &known.distribution_name, root.revision, root.kind),
            None => Self::sealed_at_subscriber(distributor, &root.distribution, root.revision, root.kind),
        }
    }

    /// The folder, relative to the data directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The place that a folder is, relative to the data directory, if it is one.
    #[must_use]
    pub fn from_found(folder: &Path) -> Option<Self> {
        let parts: Vec<&OsStr> = folder.iter().collect();
        let (revision, kind) = match parts[..] {
            [tier, _, revision, kind] if tier == "dist" => (revision, kind),
            [tier, _, _, revision, kind] if tier == "sub" => (revision, kind),
            _ => return None,
        };
        // Written as we write it: no sign, no leading zeros.
        let number: u64 = revision.to_str()?.parse().ok()?;
        let canonical = *revision == *number.to_string() && (kind == "baseline" || kind == "delta");
        canonical.then(|| Self(folder.to_owned()))
    }

    fn below(top: &Path, distribution: &str, revision: Revision, kind: PackageKind) -> Self {
        let kind = match kind {
            PackageKind::Baseline => "baseline",
            PackageKind::Delta { .. } => "delta",
        };
        Self(top.join(distribution).join(revision.to_string()).join(kind))
    }
}

impl fmt::Display for PackagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_two_roles() {
        let label = "site".parse().expect("valid");
        let revision = Revision::from_number(7);
        let delta = PackageKind::Delta { base: Revision::from_number(6) };
        let at_home = PackagePlace::at_distributor(&label, revision, PackageKind::Baseline);
        assert_eq!(at_home.to_string(), "dist/site/7/baseline");
        let node = "2001:db8::1".parse().expect("valid");
        let away = PackagePlace::at_subscriber(&node, &label, revision, delta);
        assert_eq!(away.to_string(), "sub/2001-db8--1/site/7/delta");
        for place in [at_home, away] {
            assert_eq!(PackagePlace::from_found(place.folder()), Some(place));
        }
        for other in ["dist/site/07/baseline", "dist/site/7", "dist/site/7/other", "sub/site/7/baseline", "x/s/7/delta"]
        {
            assert_eq!(PackagePlace::from_found(Path::new(other)), None, "{other}");
        }
    }
}
