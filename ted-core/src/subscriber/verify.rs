//! Verifying by hand what is kept and what was extracted, setting aside what is damaged, and mending targets.

use std::sync::Arc;

use crate::error::Error;
use crate::extract::{Create, Difference, Target, compare};
use crate::package::{PackageIndex, verify_body};
use crate::subscriber::deliveries::{Extracted, Held};
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
        self.meant(name)?.into_iter().map(|(key, held)| self.verify_held(key, &held, mend)).collect()
    }

    fn verify_held(self: &Arc<Self>, key: Key, held: &Held, mend: Mend) -> Result<VerifyRow, Error> {
        let (fleet, distribution) = key;
        let mut row = VerifyRow {
            distributor: self.distributor_name(&fleet),
            distribution: held.name.clone(),
            revision: held.revision,
            fault: None,
            set_aside: false,
            different: vec![],
            mended: false,
        };
        if let Some(aside) = self.aside(&key)?.filter(|aside| aside.package == held.package) {
            (row.fault, row.set_aside) = (Some(aside.trouble()), true);
            return Ok(row);
        }
        let opened = self.package_root(&fleet, held.package).and_then(|root| self.open_held(held.package, &root));
        let (index, checked) = match opened {
            Ok((index, file)) => {
                let checked = verify_body(&index, &*file, self.threads(), &|_| {}).map_err(Error::from);
                (Some(index), checked)
            }
            Err(error) => (None, Err(error)),
        };
        match checked {
            Ok(()) => self.records.put(&checked_key(&key), &Checked::whole(held.package, self.clock.now()))?,
            Err(error) => {
                let damage = self.damage_of(index.as_ref(), &error, held.package);
                if let Some(detail) = damage {
                    self.set_aside(key, held, detail)?;
                    row.set_aside = true;
                }
                row.fault = Some(format!("{}: {error}", error.code()));
            }
        }
        if let Some(index) = &index {
            row.different = self.differences(key, held, index)?;
        }
        if mend == Mend::Targets && row.fault.is_none() && !row.different.is_empty() {
            self.extract_held(fleet, distribution)?;
            row.mended = true;
        }
        Ok(row)
    }

    /// What of the target is not as the package says; nothing while another revision lies there.
    fn differences(
        &self,
        (fleet, distribution): Key,
        held: &Held,
        index: &PackageIndex,
    ) -> Result<Vec<Difference>, Error> {
        let extracted: Option<Extracted> = self.extracted(&fleet, &distribution)?;
        let Some(extracted) = extracted.filter(|extracted| extracted.package == held.package) else {
            return Ok(vec![]);
        };
        let target = Target::open(&extracted.target, Create::Missing)?;
        let options = self.extract_options(&fleet, &held.name, index.catalog());
        Ok(compare(&target, index.catalog(), &options)?)
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
