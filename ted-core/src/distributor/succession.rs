//! What has to follow when another CA key takes over from this Distributor's: kept packages get new roots, revoked keys
//! stay revoked. Each step can be done again, so that a crash between any two is mended when the node is opened.

use std::io::{BufWriter, Write as _};

use crate::distributor::build::Signer;
use crate::distributor::error::DistributorError;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::Revision;
use crate::model::Distribution;
use crate::node::wait;
use crate::package::{NewRoot, ROOT_CONTEXT, Resigned, sign_again};
use crate::security::Usage;
use crate::store::{Depot as _, FinishedFile, PackageInfo, PackagePlace, Step};

/// Bytes that are handed to the file system at once.
const WRITE_BYTES: usize = 1 << 20;

impl State {
    /// Does what is left to do after another CA key took over; nothing, where none did.
    pub(super) fn finish_succession(&self) -> Result<(), Error> {
        let own = self.own();
        let current = own.authority.root();
        self.lineage.set_own(current)?;
        for former in self.lineage.all().iter().filter(|former| former.successor == current.key_hash()) {
            self.revocations.carry_over(&former.root.key_hash(), &current.key_hash())?;
        }
        self.sign_packages_again()?;
        let distributions: Vec<Distribution> = lock(&self.fleet).distributions().cloned().collect();
        for distribution in distributions {
            self.find_newest_again(&distribution)?;
        }
        self.forget_grants()
    }

    /// Gives every kept package that was signed under a former certificate a root under the present one.
    fn sign_packages_again(&self) -> Result<(), Error> {
        let current = self.own().authority.root().key_hash();
        for info in wait(self.depot.list())? {
            let signed_by = info.root.distributor;
            if signed_by == current || !self.lineage.descends(&current, &signed_by) {
                continue;
            }
            self.security.before(Step::SignAgain)?;
            match self.sign_package_again(&info, info.root.revision, &info.place) {
                Ok(resigned) => tracing::info!(package = %resigned.id, was = %info.id, "a package has a new root"),
                // It is built anew when it is wanted next.
                Err(error) => tracing::error!(package = %info.id, %error, "a package is given no new root"),
            }
        }
        Ok(())
    }

    /// Puts a kept package under a root that this Distributor signs now, at `place`. It has to have been signed by this
    /// Distributor, under its present certificate or a former one.
    pub(super) fn sign_package_again(
        &self,
        info: &PackageInfo,
        revision: Revision,
        place: &PackagePlace,
    ) -> Result<Resigned, Error> {
        let own = self.own();
        let current = own.authority.root();
        let signed_by = if info.root.distributor == current.key_hash() {
            current.clone()
        } else {
            let former = self.lineage.former(&info.root.distributor);
            former.map(|former| former.root).ok_or(DistributorError::ForeignPackage)?
        };
        let file = self.depot.open_file(info.id)?;
        let mut staged = self.depot.stage(place)?;
        let signer = Signer { crypto: &*self.crypto, identity: &own.signing };
        let new = NewRoot { distributor: current.key_hash(), revision, created: self.now() };
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut staged);
        let judge = |found: &crate::package::Root, bytes: &[u8], signature: &crate::security::Signature| {
            signed_by.verify(ROOT_CONTEXT, bytes, signature, Usage::Sign, found.created)?;
            Ok::<_, Error>(())
        };
        let resigned = sign_again(&*file, new, judge, &signer, &mut out)?;
        let flushed = out.flush();
        drop(out);
        flushed.map_err(|error| staged.error(error))?;
        wait(self.depot.put(FinishedFile { path: staged.finish()?, place: place.clone() }))?;
        Ok(resigned)
    }

    /// Lets the record of the newest revision name the packages that carry it now.
    pub(super) fn find_newest_again(&self, distribution: &Distribution) -> Result<(), Error> {
        let Some(newest) = self.newest(distribution)? else { return Ok(()) };
        let mut found = newest.clone();
        let kept = self.kept_packages(distribution);
        if let Some(info) = kept.baseline(newest.revision) {
            (found.package, found.bytes) = (info.id, info.bytes);
        }
        found.delta = kept.delta_package(newest.revision);
        if found == newest {
            return Ok(());
        }
        self.set_newest(distribution, &found)
    }
}

#[cfg(test)]
mod tests;
