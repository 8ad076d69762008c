//! Verifying by hand what is kept and what was extracted, setting aside what is damaged, and mending targets.

use std::sync::Arc;

use crate::error::Error;
use crate::extract::{Create, Difference, ExtractOptions, Target, compare};
use crate::package::{CatalogRow, Entry, verify_body, verify_frames};
use crate::subscriber::extraction::FALLS_BACK;
use crate::subscriber::held::{Extracted, Held, OpenPackage};
use crate::subscriber::hooks::HookRule;
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::report::VerifyRow;
use crate::subscriber::scrub::{Checked, checked_key};
use crate::subscriber::state::{Key, State};

impl State {
    /// Verifies one Distribution, or all. A damaged package is set aside; with `mend`, a target that differs is
    /// extracted again from a whole one.
    pub(super) fn verify(
        self: &Arc<Self>,
        name: Option<&DistributionRef>,
        mend: Mend,
    ) -> Result<Vec<VerifyRow>, Error> {
        self.set_lost_aside()?;
        // What cannot be mended keeps nothing else from it.
        let each: Vec<_> =
            self.meant(name)?.into_iter().map(|(key, held)| self.verify_held(key, &held, mend)).collect();
        each.into_iter().collect()
    }

    fn verify_held(self: &Arc<Self>, key: Key, held: &Held, mend: Mend) -> Result<VerifyRow, Error> {
        let (fleet, _) = key;
        let mut row = VerifyRow {
            distributor: self.distributor_name(&fleet),
            distribution: held.name.clone(),
            revision: held.revision,
            fault: None,
            set_aside: false,
            different: vec![],
            mended: false,
        };
        if let Some(aside) = self.aside(&key)?.filter(|aside| held.package(&aside.package).is_some()) {
            (row.fault, row.set_aside) = (Some(aside.trouble()), true);
            return Ok(row);
        }
        for package in &held.packages {
            let (index, checked) = match self.open_any(&fleet, package) {
                Ok((index, file)) => {
                    let checked = self.verify_package(&index, &file);
                    (Some(index), checked)
                }
                Err(error) => (None, Err(error)),
            };
            match checked {
                Ok(()) => self.records.put(&checked_key(&key, &package.id), &Checked::whole(self.clock.now()))?,
                Err(error) => {
                    let index = index.as_ref().map(OpenPackage::blind);
                    if let Some(detail) = self.damage_of(index, &error, package.id).filter(|_| !row.set_aside) {
                        self.set_aside(key, held, package, detail)?;
                        row.set_aside = true;
                    }
                    row.fault.get_or_insert(format!("{}: {error}", error.code()));
                }
            }
        }
        row.different = self.differences(key, held)?;
        if mend == Mend::Targets && row.fault.is_none() && !row.different.is_empty() {
            match self.extract_by_hand(key, HookRule::Run, mend) {
                Ok(_) => row.mended = self.differences(key, held)?.is_empty(),
                // Its baseline is on the way; until then the target stays as it is.
                Err(error) if error.code() == FALLS_BACK => row.fault = Some(format!("{}: {error}", error.code())),
                Err(error) => return Err(error),
            }
        }
        Ok(row)
    }

    /// Checks a kept package whole: of a delta what was signed; what it makes of old files is checked when it is applied.
    fn verify_package(&self, index: &OpenPackage, file: &std::fs::File) -> Result<(), Error> {
        let checked = match index {
            OpenPackage::Baseline(index) => verify_body(index, file, self.threads(), &|_| {}),
            OpenPackage::Delta(index) => verify_frames(index.blind(), file, self.threads(), &|_| {}),
        };
        Ok(checked?)
    }

    /// What of the target is not as the revision says; nothing while another one lies there.
    fn differences(&self, (fleet, distribution): Key, held: &Held) -> Result<Vec<Difference>, Error> {
        let extracted: Option<Extracted> = self.extracted(&fleet, &distribution)?;
        let Some(extracted) = extracted.filter(|extracted| extracted.content == held.content) else {
            return Ok(vec![]);
        };
        let Some(entries) = self.entries_of(&(fleet, distribution), held.revision)? else { return Ok(vec![]) };
        let (ownership, privilege) = self.permitted(&fleet, &held.name);
        self.differences_of(&extracted, &entries, &ExtractOptions { ownership, privilege, ..ExtractOptions::default() })
    }

    /// What of an extracted revision does not stand in its target as its entries say.
    pub(super) fn differences_of(
        &self,
        extracted: &Extracted,
        entries: &[Entry],
        options: &ExtractOptions,
    ) -> Result<Vec<Difference>, Error> {
        let rows: Vec<CatalogRow> =
            entries.iter().map(|entry| CatalogRow { entry: entry.clone(), offset: 0 }).collect();
        Ok(compare(&Target::open(&extracted.files(), Create::Missing)?, &rows, options)?)
    }
}

/// What `verify` mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mend {
    /// Nothing: it only says what it finds, and sets damaged packages aside.
    Nothing,
    /// Targets that differ, from packages that are whole.
    Targets,
}
