//! What a Subscriber holds: revisions, the packages that carry them, and the entry list of what stands in a target.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::extract::installed;
use crate::id::{ContentId, DistributionId, KeyHash, PackageId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::ExtractMode;
use crate::name::Label;
use crate::node::{RecordBatch, wait};
use crate::package::delta::DeltaIndex;
use crate::package::{
    AnyIndex, BlindIndex, Disclosure, Entry, EntryListHead, PackageError, PackageIndex, decode_entry_list,
    encode_entry_list,
};
use crate::store::{Depot as _, DurableFile, PackageInfo, PackagePlace};
use crate::subscriber::chain::Chain;
use crate::subscriber::state::{Key, State};

/// The name of the file with the entry list of what stands in the target.
const ENTRIES_FILE: &str = "entries";

/// Which packages a Subscriber keeps once they are extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepPackage {
    /// None: the next delta goes from what stands in the target. There is no going back, and a target that was
    /// damaged is mended by the newest baseline, which is fetched.
    None,
    /// Those that carry the newest revision: a target is mended from them.
    Latest,
    /// Those, and what carries the revision before: it can be gone back to.
    #[default]
    Chain,
}

/// The newest verified revision of a Distribution, as the catalog keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) name: Label,
    pub(super) revision: Revision,
    #[serde(with = "crate::node::as_text")]
    pub(super) content: ContentId,
    /// The packages that carry it, in the order in which they are applied: a baseline and deltas, or deltas that go
    /// from what stands in the target, or nothing, where it stands there itself.
    pub(super) packages: Vec<HeldPackage>,
    /// What the newest statement proposes.
    pub(super) proposed_target: Option<String>,
    /// The mode that the newest statement says.
    #[serde(default)]
    pub(super) proposed_mode: ExtractMode,
}

/// A kept package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldPackage {
    #[serde(with = "crate::node::as_text")]
    pub(super) id: PackageId,
    pub(super) revision: Revision,
    /// Where a delta goes from; none for a baseline.
    pub(super) base: Option<Revision>,
    pub(super) bytes: u64,
    /// Its folder below the data directory.
    pub(super) folder: PathBuf,
}

/// The revision that a target holds, as the catalog keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Extracted {
    pub(super) revision: Revision,
    #[serde(with = "crate::node::as_text")]
    pub(super) content: ContentId,
    pub(super) target: PathBuf,
    #[serde(default)]
    pub(super) mode: ExtractMode,
    /// The Distribution's folder below the data directory, where its entry list lies.
    pub(super) folder: PathBuf,
    pub(super) at: UnixMillis,
}

/// Why the baseline is taken although deltas are to be had, as the catalog keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FallBack {
    /// The revision that was not to be had by deltas.
    pub(super) revision: Revision,
    /// The stable code of what was found.
    pub(super) code: String,
    pub(super) reason: String,
    /// Whether a baseline has come since.
    pub(super) done: bool,
}

impl Extracted {
    /// Where its files stand.
    pub(super) fn files(&self) -> PathBuf {
        installed(&self.target, self.mode, self.revision)
    }

    /// Whether an extraction to `target` in this mode goes on from it: releases stand elsewhere than other files.
    pub(super) fn stands_for(&self, target: &Path, mode: ExtractMode) -> bool {
        self.target == target && (self.mode == ExtractMode::Release) == (mode == ExtractMode::Release)
    }
}

impl Held {
    /// The package that leads to the revision; none where the target alone holds it.
    pub(super) fn newest(&self) -> Option<&HeldPackage> {
        self.packages.last()
    }

    pub(super) fn package(&self, id: &PackageId) -> Option<&HeldPackage> {
        self.packages.iter().find(|package| package.id == *id)
    }

    /// Bytes of the package that arrived last.
    pub(super) fn bytes(&self) -> u64 {
        self.newest().map_or(0, |package| package.bytes)
    }

    /// Whether the packages need no target to begin with.
    pub(super) fn has_baseline(&self) -> bool {
        self.packages.first().is_some_and(|first| first.base.is_none())
    }

    /// Whether so much is kept behind the baseline that a new one is due.
    fn is_outgrown(&self) -> bool {
        let [baseline, deltas @ ..] = self.packages.as_slice() else { return false };
        let bytes: u64 = deltas.iter().map(|delta| delta.bytes).sum();
        bytes > baseline.bytes || deltas.len() >= Limits::DEFAULT.kept_deltas_max
    }

    /// The packages up to the one that leads to `revision`; `None` where none does.
    fn up_to(&self, revision: Revision) -> Option<&[HeldPackage]> {
        let last = self.packages.iter().position(|package| package.revision == revision)?;
        Some(&self.packages[..=last])
    }
}

impl HeldPackage {
    pub(super) fn of(info: &PackageInfo) -> Self {
        let base = match info.root.kind {
            crate::package::PackageKind::Baseline => None,
            crate::package::PackageKind::Delta { base } => Some(base),
        };
        let folder = info.place.folder().to_owned();
        Self { id: info.id, revision: info.root.revision, base, bytes: info.bytes, folder }
    }

    /// Where it lies.
    pub(super) fn place(&self) -> Option<PackagePlace> {
        PackagePlace::from_found(&self.folder)
    }

    /// The folder of its Distribution.
    fn distribution_folder(&self) -> Option<&Path> {
        self.folder.parent().and_then(Path::parent)
    }
}

/// A package that was opened.
pub(super) enum OpenPackage {
    Baseline(PackageIndex),
    Delta(DeltaIndex),
}

impl OpenPackage {
    /// What a reader found, if it was opened.
    pub(super) fn of(index: AnyIndex) -> Result<Self, PackageError> {
        match index {
            AnyIndex::Opened(index) => Ok(Self::Baseline(index)),
            AnyIndex::Delta(index) => Ok(Self::Delta(index)),
            AnyIndex::Blind(_) => Err(PackageError::Sealed),
        }
    }

    /// The part of it that both kinds have.
    pub(super) fn blind(&self) -> &BlindIndex {
        match self {
            Self::Baseline(index) => index.blind(),
            Self::Delta(index) => index.blind(),
        }
    }

    /// What the revision is that it leads to.
    pub(super) fn disclosure(&self) -> &Disclosure {
        match self {
            Self::Baseline(index) => index.disclosure(),
            Self::Delta(index) => index.disclosure(),
        }
    }
}

impl State {
    /// The newest verified revision, if what carries it is here.
    pub(super) fn held(&self, fleet: &KeyHash, distribution: &DistributionId) -> Result<Option<Held>, Error> {
        let key = (*fleet, *distribution);
        let Some(held) = self.noted_held(&key)? else { return Ok(None) };
        let unusable = self.fall_back_of(&key)?.is_some_and(|wish| !wish.done && wish.revision >= held.revision);
        let here =
            !unusable && self.lacks(&held)?.is_none() && (held.has_baseline() || self.stands_for(&key, &held)?);
        Ok(here.then_some(held))
    }

    /// The newest verified revision, as it was noted, whether or not what carries it is here.
    pub(super) fn noted_held(&self, (fleet, distribution): &Key) -> Result<Option<Held>, Error> {
        Ok(self.records.get(&held_key(fleet, distribution))?)
    }

    /// The first package of a revision that is not here.
    pub(super) fn lacks<'h>(&self, held: &'h Held) -> Result<Option<&'h HeldPackage>, Error> {
        for package in &held.packages {
            if wait(self.depot.info(package.id))?.is_none() {
                return Ok(Some(package));
            }
        }
        Ok(None)
    }

    /// Whether what stands in the target is where the revision's first delta goes from, or the revision itself.
    fn stands_for(&self, key: &Key, held: &Held) -> Result<bool, Error> {
        let Some(extracted) = self.extracted(&key.0, &key.1)? else { return Ok(false) };
        let known = extracted.revision == held.revision
            || held.packages.iter().any(|package| package.base == Some(extracted.revision));
        Ok(known && self.entries_file(&extracted).path().exists())
    }

    pub(super) fn extracted(&self, fleet: &KeyHash, distribution: &DistributionId) -> Result<Option<Extracted>, Error> {
        Ok(self.records.get(&extracted_key(fleet, distribution))?)
    }

    /// The revisions that a delta may go from: those that whole kept packages lead to, and what stands in the target.
    /// None while a baseline is due.
    pub(super) fn starts(&self, key: &Key) -> Result<Vec<Revision>, Error> {
        let held = self.noted_held(key)?;
        if self.fall_back_of(key)?.is_some_and(|wish| !wish.done)
            || (self.settings.keep_package != KeepPackage::None && held.as_ref().is_some_and(Held::is_outgrown))
        {
            return Ok(vec![]);
        }
        let stood = self.extracted(&key.0, &key.1)?;
        let stood = stood.filter(|stood| stood.files().is_dir() && self.entries_file(stood).path().exists());
        let mut starts: Vec<Revision> = stood.iter().map(|stood| stood.revision).collect();
        // Packages lead on from their baseline, or from what stands in the target.
        let packages = held.map(|held| held.packages).unwrap_or_default();
        let begins = packages.first().is_some_and(|first| first.base.is_none_or(|base| starts.contains(&base)));
        for package in packages.iter().filter(|_| begins) {
            if wait(self.depot.info(package.id))?.is_none() {
                break;
            }
            starts.push(package.revision);
        }
        Ok(starts)
    }

    /// The revision that a package makes the newest one, if the Distribution's packages are kept that it goes on from.
    pub(super) fn held_with(
        &self,
        key: &Key,
        noted: Option<&Held>,
        new: HeldPackage,
    ) -> Result<Vec<HeldPackage>, Error> {
        let before = match (new.base, noted) {
            (Some(base), Some(noted)) => noted.up_to(base).unwrap_or_default(),
            _ => &[],
        };
        let mut packages = before.to_vec();
        let whole = packages.iter().map(|package| wait(self.depot.info(package.id)));
        let whole: Vec<_> = whole.collect::<Result<_, _>>()?;
        if whole.iter().any(Option::is_none) {
            tracing::debug!(distribution = %key.1, "what is kept of older revisions is not whole, and goes");
            packages.clear();
        }
        packages.push(new);
        Ok(packages)
    }

    /// The list of what stands in the target, as it was written when that was extracted; `None` where it is not to be
    /// had. The list comes before the record: after a crash in between it is of another revision than `extracted` says,
    /// and what it says of itself is what counts.
    pub(super) fn kept_list(&self, extracted: &Extracted) -> Option<(EntryListHead, Vec<Entry>)> {
        let limits = Limits::DEFAULT;
        let bytes = self.entries_file(extracted).read(limits.kept_entries_bytes_max).ok()??;
        match decode_entry_list(&bytes, &limits) {
            Ok(list) => Some(list),
            Err(error) => {
                tracing::warn!(folder = %extracted.folder.display(), %error, "a kept entry list is damaged");
                None
            }
        }
    }

    /// The entries of [`State::kept_list`].
    pub(super) fn kept_entries(&self, extracted: &Extracted) -> Option<Vec<Entry>> {
        self.kept_list(extracted).map(|(_, entries)| entries)
    }

    /// Notes that the target holds a revision: its entries first, durably.
    pub(super) fn note_extracted(
        &self,
        key: &Key,
        held: &Held,
        (target, mode): (&Path, ExtractMode),
        entries: &[Entry],
    ) -> Result<(), Error> {
        let known = self.extracted(&key.0, &key.1)?;
        let of_package = held.newest().and_then(HeldPackage::distribution_folder).map(Path::to_owned);
        let folder = of_package.or(known.map(|known| known.folder)).unwrap_or_default();
        let (revision, content, at) = (held.revision, held.content, self.clock.now());
        let extracted = Extracted { revision, content, target: target.to_owned(), mode, folder, at };
        self.entries_file(&extracted).replace(&encode_entry_list(key.1, revision, entries)?)?;
        Ok(self.records.put(&extracted_key(&key.0, &key.1), &extracted)?)
    }

    pub(super) fn entries_file(&self, extracted: &Extracted) -> DurableFile {
        DurableFile::new(self.data.path().join(&extracted.folder).join(ENTRIES_FILE))
    }

    /// Removes the entry list of what stood in a target.
    pub(super) fn forget_entries(&self, extracted: &Extracted) -> Result<(), Error> {
        Ok(self.entries_file(extracted).remove()?)
    }

    /// Opens a kept package of either kind.
    pub(super) fn open_any(&self, fleet: &KeyHash, package: &HeldPackage) -> Result<(OpenPackage, Arc<File>), Error> {
        let root = self.package_root(fleet, package.id)?;
        Ok(match package.base {
            None => {
                let (index, file) = self.open_held(package.id, &root)?;
                (OpenPackage::Baseline(index), file)
            }
            Some(_) => {
                let (index, file) = self.open_held_delta(package.id, &root)?;
                (OpenPackage::Delta(index), file)
            }
        })
    }

    /// The deltas among `packages`, opened.
    pub(super) fn open_deltas(
        &self,
        fleet: &KeyHash,
        packages: &[HeldPackage],
    ) -> Result<Vec<(DeltaIndex, Arc<File>)>, Error> {
        let deltas = packages.iter().filter(|package| package.base.is_some());
        deltas.map(|package| self.open_held_delta(package.id, &self.package_root(fleet, package.id)?)).collect()
    }

    /// The baseline that the packages of a revision begin with, opened.
    pub(super) fn open_baseline(
        &self,
        fleet: &KeyHash,
        held: &Held,
    ) -> Result<Option<(PackageIndex, Arc<File>)>, Error> {
        let Some(first) = held.packages.first().filter(|first| first.base.is_none()) else { return Ok(None) };
        Ok(Some(self.open_held(first.id, &self.package_root(fleet, first.id)?)?))
    }

    /// The entries of a revision that is here, for a delta that goes from it.
    pub(super) fn entries_of(&self, key: &Key, revision: Revision) -> Result<Option<Vec<Entry>>, Error> {
        if let Some(extracted) = self.extracted(&key.0, &key.1)?
            && let Some((head, entries)) = self.kept_list(&extracted)
            && head.revision == revision
        {
            return Ok(Some(entries));
        }
        let Some(held) = self.noted_held(key)? else { return Ok(None) };
        let Some(packages) = held.up_to(revision) else { return Ok(None) };
        let carrying = Held { packages: packages.to_vec(), revision, ..held.clone() };
        Ok(self.open_chain(key, &carrying)?.map(Chain::into_entries))
    }

    /// The chain that leads to a revision by what is cheapest to open: from what stands in the target, if a step goes
    /// from there, else from the baseline. `None` where it is neither here nor there.
    pub(super) fn open_chain(&self, key: &Key, held: &Held) -> Result<Option<Chain>, Error> {
        if let Some(chain) = self.chain_from_target(key, held)? {
            return Ok(Some(chain));
        }
        self.chain_from_baseline(&key.0, held)
    }

    /// The chain that begins with what stands in the target.
    pub(super) fn chain_from_target(&self, key: &Key, held: &Held) -> Result<Option<Chain>, Error> {
        let Some(extracted) = self.extracted(&key.0, &key.1)? else { return Ok(None) };
        let Some((head, entries)) = self.kept_list(&extracted) else { return Ok(None) };
        let behind = if (head.revision, head.content) == (held.revision, held.content) {
            Some(held.packages.len())
        } else {
            held.packages.iter().position(|package| package.base == Some(head.revision))
        };
        let Some(behind) = behind else { return Ok(None) };
        Ok(Some(Chain::new(entries, self.open_deltas(&key.0, &held.packages[behind..])?)?))
    }

    /// The chain that begins with the own baseline.
    pub(super) fn chain_from_baseline(&self, fleet: &KeyHash, held: &Held) -> Result<Option<Chain>, Error> {
        let Some((index, _)) = self.open_baseline(fleet, held)? else { return Ok(None) };
        let entries = index.catalog().iter().map(|row| row.entry.clone()).collect();
        Ok(Some(Chain::new(entries, self.open_deltas(fleet, &held.packages)?)?))
    }

    /// Why the baseline is taken, where that is so.
    pub(super) fn fall_back_of(&self, key: &Key) -> Result<Option<FallBack>, Error> {
        Ok(self.records.get(&fall_back_key(key))?)
    }

    /// Has the next offer answered with the baseline, durably.
    pub(super) fn note_fall_back(&self, key: &Key, revision: Revision, error: &Error) -> Result<(), Error> {
        let (code, reason) = (error.code().to_owned(), error.to_string());
        Ok(self.records.put(&fall_back_key(key), &FallBack { revision, code, reason, done: false })?)
    }

    /// The change by which a package that came counts: with a baseline, what was wished for is here.
    pub(super) fn fall_back_met(
        &self,
        key: &Key,
        batch: RecordBatch,
        came: &HeldPackage,
    ) -> Result<RecordBatch, Error> {
        match self.fall_back_of(key)? {
            Some(wish) if came.base.is_none() => Ok(batch.put(&fall_back_key(key), &FallBack { done: true, ..wish })?),
            _ => Ok(batch),
        }
    }
}

pub(super) fn held_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("held/{fleet}/{distribution}")
}

pub(super) fn extracted_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("extracted/{fleet}/{distribution}")
}

pub(super) fn fall_back_key((fleet, distribution): &Key) -> String {
    format!("fallback/{fleet}/{distribution}")
}
