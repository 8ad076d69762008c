//! What became of a Distribution over time: a record of each revision, and the revisions that are kept, to be listed,
//! compared and gone back to.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::distributor::Distributor;
use crate::distributor::build::Newest;
use crate::distributor::deltas::NewBaseline;
use crate::distributor::error::DistributorError;
use crate::distributor::report::{BuiltRevision, DeltaPackage};
use crate::distributor::revisions::KeptPackages;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{Revision, UnixMillis};
use crate::model::Distribution;
use crate::name::Label;
use crate::node::RecordBatch;
use crate::package::{ChangeCounts, Entry, changes};

/// Revisions of one Distribution that stay on record: three years of daily ones, a quarter of a kilobyte each.
const RECORDS_KEPT: usize = 1000;

/// How a revision came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum RevisionOrigin {
    /// The source was built.
    Build,
    /// An operator went back.
    Rollback {
        /// The revision whose content it has.
        to: Revision,
    },
    /// It was found among the packages, and not on record.
    Found,
}

/// What is kept of a revision here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevisionKept {
    /// Its baseline.
    Baseline,
    /// The deltas that lead to it, and the baseline where they begin.
    Deltas,
    /// Nothing but its record.
    No,
}

/// One revision of a Distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionReport {
    /// Which.
    pub revision: Revision,
    /// When it was made.
    pub created: UnixMillis,
    /// How.
    pub origin: RevisionOrigin,
    /// Bytes of its baseline when it was made; none where only deltas were found of it.
    pub baseline_bytes: Option<u64>,
    /// The delta that leads to it, where there was one.
    pub delta: Option<DeltaPackage>,
    /// Why there was none, in words.
    pub no_delta: Option<String>,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Entries: files, folders, links.
    pub entries: u64,
    /// What changed from the revision before; none where that is not known.
    pub changes: Option<ChangeCounts>,
    /// What is kept of it.
    pub kept: RevisionKept,
}

/// Which revision somebody means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum RevisionChoice {
    /// The newest.
    #[default]
    Newest,
    /// The one before the newest.
    Previous,
    /// The one whose number is this, or is the only one that ends with these digits.
    Number(String),
}

impl FromStr for RevisionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "newest" => Ok(Self::Newest),
            "previous" => Ok(Self::Previous),
            digits if !digits.is_empty() && digits.len() <= 20 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self::Number(digits.to_owned()))
            }
            _ => Err(format!(
                "`{text}` is no revision: give its number or the last digits of it, `newest` or `previous`"
            )),
        }
    }
}

impl fmt::Display for RevisionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "newest",
            Self::Previous => "previous",
            Self::Number(digits) => digits,
        })
    }
}

impl From<RevisionChoice> for String {
    fn from(choice: RevisionChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for RevisionChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl RevisionChoice {
    /// The one of `known`, ascending, that is meant.
    fn among(&self, distribution: &Label, known: &[Revision]) -> Result<Revision, DistributorError> {
        let unknown = || DistributorError::UnknownRevision { name: distribution.clone(), asked: self.to_string() };
        let found = match self {
            Self::Newest => known.last(),
            Self::Previous => known.iter().rev().nth(1),
            Self::Number(digits) => {
                let number = |revision: &&Revision| revision.to_string();
                let exact = known.iter().find(|revision| number(revision) == *digits);
                let mut ends = known.iter().filter(|revision| number(revision).ends_with(digits.as_str()));
                match (exact, ends.next(), ends.next()) {
                    (None, Some(_), Some(_)) => {
                        let name = distribution.clone();
                        return Err(DistributorError::AmbiguousRevision { name, asked: digits.clone() });
                    }
                    (exact, one, _) => exact.or(one),
                }
            }
        };
        found.copied().ok_or_else(unknown)
    }
}

/// The packages that a revision is put together from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionPackages {
    /// Which revision.
    pub revision: Revision,
    /// A baseline, and the deltas that lead on from it, in the order in which they are applied.
    pub files: Vec<PathBuf>,
}

impl State {
    /// Makes this the newest revision, on record.
    pub(super) fn record_revision(
        &self,
        distribution: &Distribution,
        built: &BuiltRevision,
        old: Option<&Newest>,
        (new, origin): (&NewBaseline<'_>, RevisionOrigin),
    ) -> Result<(), Error> {
        let counted = old.map(|old| ChangeCounts::of(&changes(old.index.catalog(), new.index.catalog())));
        let report = RevisionReport {
            revision: built.revision,
            created: built.created,
            origin,
            baseline_bytes: Some(built.bytes),
            delta: built.delta,
            no_delta: built.no_delta.clone(),
            content_bytes: built.content_bytes,
            entries: built.entries,
            changes: counted,
            kept: RevisionKept::Baseline,
        };
        let prefix = record_prefix(distribution);
        let mut batch = RecordBatch::default().put(&record_key(distribution, built.revision), &report)?;
        let keys = self.records.keys(&prefix)?;
        for outdated in keys.iter().take((keys.len() + 1).saturating_sub(RECORDS_KEPT)) {
            batch = batch.delete(outdated);
        }
        if let (RevisionOrigin::Rollback { .. }, Some(before)) = (origin, self.newest(distribution)?) {
            batch = self.put_rolled_back(batch, distribution, (before.revision, built.revision))?;
        }
        Ok(self.records.apply(self.put_newest(batch, distribution, built)?)?)
    }

    /// Forgets the records of a Distribution's revisions.
    pub(super) fn forget_history(&self, distribution: &Distribution) -> Result<(), Error> {
        let mut batch = RecordBatch::default();
        for key in self.records.keys(&record_prefix(distribution))? {
            batch = batch.delete(&key);
        }
        Ok(self.records.apply(batch)?)
    }

    fn history(&self, name: &Label) -> Result<Vec<RevisionReport>, Error> {
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        let kept = self.kept_packages(&distribution);
        let mut reports: BTreeMap<Revision, RevisionReport> = BTreeMap::new();
        for (_, report) in self.records.list::<RevisionReport>(&record_prefix(&distribution))? {
            reports.insert(report.revision, report);
        }
        let newest = self.newest(&distribution)?.map(|newest| newest.revision);
        // What a build left that was never finished is nobody's revision.
        let is_known = |revision: &Revision| newest.is_none_or(|newest| *revision <= newest);
        for revision in kept.revisions().into_iter().filter(is_known) {
            if let btree_map::Entry::Vacant(lacking) = reports.entry(revision) {
                match self.found_revision(&distribution, &kept, revision) {
                    Ok(found) => drop(lacking.insert(found)),
                    // It does not keep the others from being told.
                    Err(error) => {
                        tracing::warn!(distribution = %distribution.name, %revision, code = error.code(), %error, "a revision cannot be opened");
                    }
                }
            }
        }
        for report in reports.values_mut() {
            report.kept = match kept.way_to(report.revision) {
                Some(way) if way.deltas.is_empty() => RevisionKept::Baseline,
                Some(_) => RevisionKept::Deltas,
                None => RevisionKept::No,
            };
        }
        Ok(reports.into_values().rev().collect())
    }

    /// What the packages say of a revision that is not on record: the catalog was lost, or it is older than this record.
    fn found_revision(
        &self,
        distribution: &Distribution,
        kept: &KeptPackages,
        revision: Revision,
    ) -> Result<RevisionReport, Error> {
        let entries = self.open_revision(distribution, kept, revision)?.entries();
        let before = kept.revisions().into_iter().rev().find(|known| *known < revision);
        let before = before.and_then(|before| self.open_revision(distribution, kept, before).ok());
        let (baseline, delta) = (kept.baseline(revision), kept.delta_package(revision));
        let created = baseline.or(kept.delta(revision)).map(|info| info.root.created);
        Ok(RevisionReport {
            revision,
            created: created.unwrap_or(UnixMillis::from_millis(revision.number())),
            origin: RevisionOrigin::Found,
            baseline_bytes: baseline.map(|info| info.bytes),
            delta,
            no_delta: None,
            content_bytes: entries.iter().map(|entry| entry.size).sum(),
            entries: entries.len() as u64,
            changes: before.map(|before| ChangeCounts::of(&changes(&before.entries(), &entries))),
            kept: RevisionKept::No,
        })
    }

    /// The revision of a Distribution that is meant, and the packages that are kept. What is chosen by its digits may be
    /// on record alone: then the error names what is kept.
    fn chosen(&self, name: &Label, choice: &RevisionChoice) -> Result<(Distribution, KeptPackages, Revision), Error> {
        let distribution = lock(&self.fleet).distribution(name)?.clone();
        let newest = self.newest(&distribution)?.ok_or_else(|| DistributorError::NotBuilt(name.clone()))?;
        let kept = self.kept_packages(&distribution);
        let mut known = kept.revisions();
        // What a build left that was never finished is nobody's revision.
        known.retain(|revision| *revision <= newest.revision);
        let revision = choice.among(name, &known).or_else(|error| {
            let on_record = self.records.keys(&record_prefix(&distribution)).unwrap_or_default();
            let numbers = on_record.iter().filter_map(|key| key.rsplit_once('/')?.1.parse().ok());
            let on_record: Vec<Revision> = numbers.map(Revision::from_number).collect();
            choice.among(name, &on_record).map_err(|_| error)
        })?;
        Ok((distribution, kept, revision))
    }

    fn revision_packages(&self, name: &Label, choice: &RevisionChoice) -> Result<RevisionPackages, Error> {
        let (distribution, kept, revision) = self.chosen(name, choice)?;
        let way = kept.way_to(revision).ok_or_else(|| kept.not_kept(&distribution))?;
        let packages = std::iter::once(way.baseline).chain(way.deltas);
        let files = packages.filter_map(|info| self.depot.path_of(info.id)).collect();
        Ok(RevisionPackages { revision, files })
    }

    fn revision_entries(&self, name: &Label, choice: &RevisionChoice) -> Result<(Revision, Vec<Entry>), Error> {
        let (distribution, kept, revision) = self.chosen(name, choice)?;
        Ok((revision, self.open_revision(&distribution, &kept, revision)?.entries()))
    }
}

fn record_prefix(distribution: &Distribution) -> String {
    format!("revision/{}/", distribution.id)
}

fn record_key(distribution: &Distribution, revision: Revision) -> String {
    format!("{}{:020}", record_prefix(distribution), revision.number())
}

impl Distributor {
    /// The revisions of a Distribution that are on record or kept, newest first.
    ///
    /// # Errors
    /// When there is no such Distribution, or its catalog or packages cannot be read.
    pub async fn history(&self, name: &Label) -> Result<Vec<RevisionReport>, Error> {
        let name = name.clone();
        self.blocking(move |state| state.history(&name)).await
    }

    /// A kept revision's entries in path order. [`changes`] compares two.
    ///
    /// # Errors
    /// When there is no such revision, or it is not kept any more.
    pub async fn revision(&self, name: &Label, choice: &RevisionChoice) -> Result<(Revision, Vec<Entry>), Error> {
        let (name, choice) = (name.clone(), choice.clone());
        self.blocking(move |state| state.revision_entries(&name, &choice)).await
    }

    /// The files of the packages that a kept revision is put together from.
    ///
    /// # Errors
    /// As [`Distributor::revision`].
    pub async fn revision_packages(&self, name: &Label, choice: &RevisionChoice) -> Result<RevisionPackages, Error> {
        let (name, choice) = (name.clone(), choice.clone());
        self.blocking(move |state| state.revision_packages(&name, &choice)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded as _;

    #[test]
    fn a_revision_is_meant_by_its_number_its_last_digits_or_its_age() {
        let known = [17_345, 17_945, 18_111].map(Revision::from_number);
        let meant = |text: &str| {
            let choice: RevisionChoice = text.parse().unwrap();
            choice.among(&"site".parse().unwrap(), &known).map(|it| it.number()).map_err(|error| error.code())
        };
        for (text, expected) in [
            ("newest", Ok(18_111)),
            ("previous", Ok(17_945)),
            ("17345", Ok(17_345)),
            ("111", Ok(18_111)),
            ("345", Ok(17_345)),
            ("45", Err("TED-1722")),
            ("46", Err("TED-1721")),
            ("117345", Err("TED-1721")),
        ] {
            assert_eq!(meant(text), expected, "{text}");
        }
        let one = [Revision::from_number(5)];
        let previous = RevisionChoice::Previous.among(&"site".parse().unwrap(), &one).unwrap_err();
        assert_eq!(previous.code(), "TED-1721");
        // A number that is another one's end is itself.
        let known = [45, 145].map(Revision::from_number);
        assert_eq!("45".parse::<RevisionChoice>().unwrap().among(&"site".parse().unwrap(), &known).unwrap(), known[0]);
        for wrong in ["", "old", "-1", "1e3", "123456789012345678901"] {
            assert!(wrong.parse::<RevisionChoice>().is_err(), "{wrong}");
        }
    }
}
