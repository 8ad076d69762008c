//! The delta that leads from the revision before to a new one, made of the two baselines.

use std::io::{self, BufWriter, Write};

use crate::distributor::build::{Signer, WRITE_BYTES};
use crate::distributor::events::{BuildPhase, DistributorEvent};
use crate::distributor::report::DeltaPackage;
use crate::distributor::state::State;
use crate::error::Error;
use crate::id::Revision;
use crate::model::Distribution;
use crate::node::wait;
use crate::package::delta::{PackageFiles, RevisionContent, build_delta};
use crate::package::{BuildOptions, PackageIndex, PackageKind, ReadAt};
use crate::store::{Depot as _, FinishedFile, PackagePlace, StagedFile};

/// The baseline of the revision that a delta goes from.
pub(super) struct OldBaseline<'a> {
    pub(super) revision: Revision,
    pub(super) index: &'a PackageIndex,
    pub(super) file: &'a dyn ReadAt,
}

/// A new revision's baseline, in its place.
pub(super) struct NewBaseline<'a> {
    pub(super) index: &'a PackageIndex,
    pub(super) file: &'a dyn ReadAt,
    pub(super) options: &'a BuildOptions,
}

/// Why a new revision has no delta.
enum NoDelta {
    /// Only the newest revision is kept.
    NotWanted,
    /// It would tell what was sealed: names of what is gone, and from where what is left was copied.
    Unsealing,
    /// It would cost more than it is worth.
    TooLarge,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for NoDelta {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl State {
    /// Makes the delta from `old` to a new revision, if it has less than half of the new baseline's bytes. Without one a
    /// revision is as good: whatever keeps it from being made is told, and no error.
    pub(super) fn add_delta(
        &self,
        distribution: &Distribution,
        old: &OldBaseline<'_>,
        new: &NewBaseline<'_>,
    ) -> Result<DeltaPackage, String> {
        self.make_delta(distribution, old, new).map_err(|why| match why {
            NoDelta::NotWanted => "only one revision is kept".to_owned(),
            NoDelta::Unsealing => "it would say openly what the revision before holds, which is sealed".to_owned(),
            NoDelta::TooLarge => "it would have more than half of the baseline's bytes".to_owned(),
            NoDelta::Failed(error) => {
                let (name, revision) = (&distribution.name, new.options.revision);
                tracing::warn!(distribution = %name, %revision, code = error.code(), %error, "there is no delta");
                self.events.emit(DistributorEvent::NoDelta {
                    distribution: name.clone(),
                    revision,
                    code: error.code().to_owned(),
                    reason: error.to_string(),
                });
                format!("{}: {error}", error.code())
            }
        })
    }

    fn make_delta(
        &self,
        distribution: &Distribution,
        old: &OldBaseline<'_>,
        new: &NewBaseline<'_>,
    ) -> Result<DeltaPackage, NoDelta> {
        if distribution.max_revisions < 2 {
            return Err(NoDelta::NotWanted);
        }
        if old.index.root().is_sealed() && new.options.seal.is_none() {
            return Err(NoDelta::Unsealing);
        }
        let base = old.revision;
        let kind = PackageKind::Delta { base };
        let place = PackagePlace::at_distributor(&distribution.name, new.options.revision, kind);
        let mut staged = self.depot.stage(&place)?;
        let written = self.write_delta(distribution, old, new, &mut staged)?;
        let info = wait(self.depot.put(FinishedFile { path: staged.finish()?, place }))?;
        let (name, revision) = (&distribution.name, new.options.revision);
        tracing::info!(distribution = %name, %revision, %base, package = %info.id, bytes = written, "built a delta");
        Ok(DeltaPackage { base, package: info.id, bytes: info.bytes })
    }

    /// Writes the delta, and says how many bytes it has.
    fn write_delta(
        &self,
        distribution: &Distribution,
        old: &OldBaseline<'_>,
        new: &NewBaseline<'_>,
        staged: &mut StagedFile,
    ) -> Result<u64, NoDelta> {
        // Under its own salt: a frame of the same number in the baseline has another content.
        let seal = new.options.seal.is_some().then(|| self.new_seal()).transpose()?;
        let level = distribution.delta_level.zstd();
        let options = BuildOptions { seal, level, ..new.options.clone() };
        let own = self.own();
        let signer = Signer { crypto: &*self.crypto, identity: &own.signing };
        let (old_files, new_files) =
            (PackageFiles::new(old.index.clone(), old.file), PackageFiles::new(new.index.clone(), new.file));
        let from = RevisionContent { number: old.revision, entries: old.index.catalog(), files: &old_files };
        let to = RevisionContent { number: options.revision, entries: new.index.catalog(), files: &new_files };
        let progress = self.build_progress(distribution, BuildPhase::Delta);
        let mut out = Bounded { out: &mut *staged, left: new.index.bytes() / 2, is_over: false };
        let mut buffered = BufWriter::with_capacity(WRITE_BYTES, &mut out);
        let built = build_delta(&from, &to, &options, &signer, &mut buffered, &progress);
        let flushed = buffered.flush();
        // What it still holds after an error is not wanted.
        let _ = buffered.into_parts();
        if out.is_over {
            return Err(NoDelta::TooLarge);
        }
        flushed.map_err(|error| staged.error(error))?;
        Ok(built?.index.bytes())
    }
}

/// Takes so many bytes and no more.
struct Bounded<W> {
    out: W,
    left: u64,
    is_over: bool,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.out.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
