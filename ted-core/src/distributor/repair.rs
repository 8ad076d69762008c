//! A Distributor's own copy: doubted when a Subscriber says that what it got was damaged, checked at the next firing,
//! and made again from the source, frame by frame, as far as that gives what was signed. Else there is a new revision.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::report::BuiltRevision;
use crate::distributor::source::SourceTree;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, FiringId, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::Distribution;
use crate::name::NodeName;
use crate::node::{Opened, is_damaged, judge_signature, wait};
use crate::package::{
    FrameRemaker, Opening, PackageError, PackageIndex, RemakeError, Root, Source as _, SourceError, check_frame,
    damaged_frames, is_damage, read_index, verify_body,
};
use crate::security::{Receipt, Signature, Stage};
use crate::store::{Depot, DepotError, FinishedFile};

/// Bytes that are copied at once from one file into the other, outside frames.
const COPY_BYTES: u64 = 1 << 20;

/// Bytes that are handed to the file system at once.
const WRITE_BYTES: usize = 1 << 20;

/// The code of an own copy that was damaged and is as it was signed again.
const REPAIRED: &str = "TED-1846";

/// The code of an own copy that was damaged and whose source has changed, so that there is a new revision.
const REPLACED: &str = "TED-1847";

/// Why a package is not to be trusted before it was checked, as the catalog keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Doubt {
    #[serde(with = "crate::node::as_text")]
    package: PackageId,
    /// Whose receipt raised it.
    reported_by: Option<NodeName>,
    at: UnixMillis,
    /// Whether it was checked and found damaged: then it is not offered.
    damaged: bool,
}

/// What was wrong with an own copy.
enum Damage {
    /// These frames of the body.
    Frames { index: PackageIndex, file: Arc<File>, frames: Vec<u64> },
    /// Something that no frame makes good.
    Other(String),
}

impl Damage {
    fn told(&self) -> String {
        match self {
            Self::Frames { index, frames, .. } => {
                let count = match frames.len() {
                    1 => "1 frame".to_owned(),
                    count => format!("{count} frames"),
                };
                format!("{count} of {}, the first is {}", index.body_frames(), frames.first().unwrap_or(&0))
            }
            Self::Other(reason) => reason.clone(),
        }
    }
}

impl State {
    /// A Subscriber says that a package arrived damaged, or is damaged at its place: the own copy is checked before the
    /// next firing offers it. Durable when this returns.
    pub(super) fn doubt_after(&self, subscriber: &NodeName, receipt: &Receipt) -> Result<(), Error> {
        let distribution = lock(&self.fleet).distribution_by_id(&receipt.distribution).cloned();
        let (Stage::Corrupt, Some(distribution)) = (receipt.stage, distribution) else { return Ok(()) };
        // Reading a package costs time; nobody may ask for it who is not sent it, for itself or for others.
        if !lock(&self.fleet).entitled_behind(subscriber).contains(&distribution.id) {
            return Ok(());
        }
        if let Some(package) = receipt.package
            && self.doubt_delta(&distribution, package, Some(subscriber))?
        {
            return Ok(());
        }
        let newest = self.newest(&distribution)?;
        let Some(newest) = newest.filter(|newest| receipt.package.is_none_or(|package| package == newest.package))
        else {
            return Ok(());
        };
        if self.doubt(&distribution)?.is_some_and(|known| known.package == newest.package) {
            return Ok(());
        }
        let (package, reported_by) = (newest.package, Some(subscriber.clone()));
        let doubt = Doubt { package, reported_by, at: self.now(), damaged: false };
        Ok(self.records.put(&doubt_key(&distribution), &doubt)?)
    }

    /// Damage was seen in a package of this Distribution: if it is the newest, it is checked before the next firing.
    pub(super) fn doubt_own(&self, distribution: &Distribution, package: PackageId) -> Result<(), Error> {
        if self.doubt(distribution)?.is_some_and(|known| known.package == package) {
            return Ok(());
        }
        let doubt = Doubt { package, reported_by: None, at: self.now(), damaged: false };
        Ok(self.records.put(&doubt_key(distribution), &doubt)?)
    }

    /// Whether a revision may be offered: not while its package is known to be damaged.
    pub(super) fn may_offer(&self, distribution: &Distribution, built: &BuiltRevision) -> Result<bool, Error> {
        let doubt = self.doubt(distribution)?;
        Ok(doubt.is_none_or(|doubt| !doubt.damaged || doubt.package != built.package))
    }

    /// Before a firing: checks the own copy of what is to be sent where there is reason to doubt it, and mends it. Says
    /// in a sentence what was done about damage.
    pub(super) async fn make_sure(self: &Arc<Self>, distribution: &Distribution) -> Result<Option<String>, Error> {
        let _one_at_a_time = self.building.lock().await;
        let (state, distribution) = (self.clone(), distribution.clone());
        let checking = move || -> Result<Option<String>, Error> {
            let mut notes: Vec<String> = state.make_sure_now(&distribution)?.into_iter().collect();
            if let Some(newest) = state.newest(&distribution)? {
                notes.extend(state.make_deltas_sure(&distribution, newest.revision)?);
            }
            Ok((!notes.is_empty()).then(|| notes.join("; ")))
        };
        tokio::task::spawn_blocking(checking).await.map_err(|_| DistributorError::Worker)?
    }

    /// As [`State::make_sure`], of the baseline alone, for whoever holds the right to build.
    pub(super) fn make_sure_now(&self, distribution: &Distribution) -> Result<Option<String>, Error> {
        let Some(newest) = self.newest(distribution)? else { return Ok(None) };
        let doubt = self.doubt(distribution)?.filter(|doubt| doubt.package == newest.package);
        let missing = wait(self.depot.info(newest.package))?.is_none();
        if doubt.is_none() && !missing {
            return Ok(None);
        }
        let name = &distribution.name;
        let reported_by = doubt.as_ref().and_then(|doubt| doubt.reported_by.clone());
        let Some(damage) = self.find_damage(&newest)? else {
            tracing::info!(distribution = %name, revision = %newest.revision, "the own copy was checked, and is whole");
            self.records.delete(&doubt_key(distribution))?;
            return Ok(None);
        };
        let told = damage.told();
        let doubt = Doubt { package: newest.package, reported_by, at: self.now(), damaged: true };
        self.records.put(&doubt_key(distribution), &doubt)?;
        tracing::error!(distribution = %name, revision = %newest.revision, damage = told, "the own copy is damaged");
        self.events.emit(DistributorEvent::OwnCopyDamaged {
            distribution: name.clone(),
            revision: newest.revision,
            detail: told.clone(),
        });
        let mended = self.mend(distribution, &newest, damage);
        match mended {
            Ok(done) => Ok(Some(format!("{}: the own copy was damaged ({told}); {}", done.code, done.what))),
            Err(error) => {
                let reason = format!("{}: {error}", error.code());
                Err(DistributorError::OwnCopyDamaged { distribution: name.clone(), damage: told, reason }.into())
            }
        }
    }

    /// What is wrong with the package of a revision; none if nothing is.
    fn find_damage(&self, newest: &BuiltRevision) -> Result<Option<Damage>, Error> {
        let (index, file) = match self.open_own(newest.package) {
            Ok(opened) => opened,
            Err(error) if is_damaged(&error, Opened::No) => return Ok(Some(Damage::Other(error.to_string()))),
            Err(error) => return Err(error),
        };
        let threads = threads();
        let frames = damaged_frames(&index, &*file, threads)?;
        if !frames.is_empty() {
            return Ok(Some(Damage::Frames { index, file, frames }));
        }
        match verify_body(&index, &*file, threads, &|_| {}) {
            Ok(()) => Ok(None),
            Err(error) if is_damage(&error) => Ok(Some(Damage::Other(error.to_string()))),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the own copy good: the same package again where the source gives it, else a new revision.
    fn mend(&self, distribution: &Distribution, newest: &BuiltRevision, damage: Damage) -> Result<Mended, Error> {
        if let Damage::Frames { index, file, frames } = &damage {
            match self.remake(distribution, index, file, frames) {
                Ok(()) => return self.repaired(distribution, newest, frames.len() as u64),
                Err(Unmade::Differs(error)) => {
                    tracing::warn!(distribution = %distribution.name, %error, "a new revision is built instead");
                }
                Err(Unmade::Other(error)) => return Err(error),
                Err(Unmade::Write(error)) => return Err(PackageError::Io { place: "body", source: error }.into()),
            }
        }
        drop(damage);
        let built = self.build_anew(distribution)?;
        // Nobody is offered the damaged one any more; who reads it now may finish.
        wait(self.depot.delete(newest.package))?;
        self.records.delete(&doubt_key(distribution))?;
        tracing::warn!(distribution = %distribution.name, before = %newest.revision, revision = %built.revision, "the damaged revision was replaced");
        let what = format!("revision {} takes its place, because the source has changed", built.revision);
        Ok(Mended { code: REPLACED, what })
    }

    fn repaired(&self, distribution: &Distribution, newest: &BuiltRevision, frames: u64) -> Result<Mended, Error> {
        self.records.delete(&doubt_key(distribution))?;
        let (name, revision) = (&distribution.name, newest.revision);
        tracing::warn!(distribution = %name, %revision, frames, "the own copy was made whole again from the source");
        self.events.emit(DistributorEvent::OwnCopyRepaired { distribution: name.clone(), revision, frames });
        Ok(Mended { code: REPAIRED, what: "it was made whole again from the source".to_owned() })
    }

    /// Writes the package anew: good frames from the old file, damaged ones from the source. The new file takes the old
    /// one's place when it is whole, verified and durable.
    fn remake(
        &self,
        distribution: &Distribution,
        index: &PackageIndex,
        file: &File,
        frames: &[u64],
    ) -> Result<(), Unmade> {
        let source = self.source_of(distribution)?;
        source.entries(&mut |_| {}).map_err(Error::from)?;
        let mut remaker = FrameRemaker::new(index)?;
        let place = wait(self.depot.info(index.id())).map_err(Error::from)?;
        let place = place.ok_or(DepotError::NotFound { id: index.id() }).map_err(Error::from)?.place;
        let mut staged = self.depot.stage(&place).map_err(Error::from)?;
        let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut staged);
        let mut written = write_mended((index, file), frames, (&source, &mut remaker), &mut out);
        if written.is_ok() {
            written = out.flush().map_err(Unmade::Write);
        }
        drop(out);
        written.map_err(|error| match error {
            Unmade::Write(error) => Unmade::Other(staged.error(error).into()),
            error => error,
        })?;
        let own = self.own();
        let judge = |found: &Root, bytes: &[u8], signature: &Signature| -> Result<Opening, Error> {
            judge_signature(own.authority.root(), found, bytes, signature)?;
            Ok(self.content_key(found)?.map_or(Opening::Unsealed, Opening::With))
        };
        let again = read_index(staged.file(), &Limits::DEFAULT, judge)?;
        let still = damaged_frames(&again, staged.file(), threads()).map_err(Error::from)?;
        if again.id() != index.id() || !still.is_empty() {
            let what = "the mended package is not the one that was signed";
            return Err(Error::from(PackageError::Structure { what }).into());
        }
        let path = staged.finish().map_err(Error::from)?;
        wait(self.depot.put(FinishedFile { path, place })).map_err(Error::from)?;
        Ok(())
    }

    fn doubt(&self, distribution: &Distribution) -> Result<Option<Doubt>, Error> {
        Ok(self.records.get(&doubt_key(distribution))?)
    }

    /// Keeps what was done about damage before a firing, for its rows.
    pub(super) fn note_mended(&self, firing: FiringId, notes: Vec<(DistributionId, String)>) -> Result<(), Error> {
        for (distribution, note) in notes {
            self.records.put(&format!("mended/{firing}/{distribution}"), &note)?;
            lock(&self.mended).insert((firing, distribution), note);
        }
        Ok(())
    }

    /// Forgets that again, with the firing.
    pub(super) fn forget_mended(&self, firing: FiringId) -> Result<(), Error> {
        let of_firing: Vec<_> = lock(&self.mended).keys().filter(|(of, _)| *of == firing).copied().collect();
        for (firing, distribution) in of_firing {
            self.records.delete(&format!("mended/{firing}/{distribution}"))?;
            lock(&self.mended).remove(&(firing, distribution));
        }
        Ok(())
    }
}

/// What was done about damage.
struct Mended {
    code: &'static str,
    what: String,
}

/// Why frames were not made again.
enum Unmade {
    /// The source does not give them any more.
    Differs(RemakeError),
    /// The new file cannot be written, or the old one not be read.
    Write(io::Error),
    Other(Error),
}

impl From<RemakeError> for Unmade {
    fn from(error: RemakeError) -> Self {
        match error {
            RemakeError::Source(SourceError::Changed { .. }) => Self::Differs(error),
            RemakeError::Source(error) => Self::Other(error.into()),
            RemakeError::Compress(_) => Self::Other(error.into()),
            error => Self::Differs(error),
        }
    }
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Unmade {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// The package that `index` describes, with `frames` made again and everything else from `file`.
fn write_mended(
    (index, file): (&PackageIndex, &File),
    frames: &[u64],
    (source, remaker): (&SourceTree, &mut FrameRemaker<'_>),
    out: &mut dyn io::Write,
) -> Result<(), Unmade> {
    let (mut at, mut buffer) = (0, Vec::new());
    for frame in 0..index.body_frames() {
        let range = index.frame_range(frame);
        copy(file, at..range.start, &mut buffer, out)?;
        if frames.binary_search(&frame).is_ok() {
            remaker.make(source, frame, &mut buffer)?;
            out.write_all(&buffer)?;
        } else {
            buffer.resize((range.end - range.start) as usize, 0);
            file.read_exact_at(&mut buffer, range.start)?;
            check_frame(&index.rows()[frame as usize], &buffer).map_err(io::Error::other)?;
            out.write_all(&buffer)?;
        }
        at = range.end;
    }
    Ok(copy(file, at..index.bytes(), &mut buffer, out)?)
}

fn copy(file: &File, range: std::ops::Range<u64>, buffer: &mut Vec<u8>, out: &mut dyn io::Write) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        buffer.resize((range.end - at).min(COPY_BYTES) as usize, 0);
        file.read_exact_at(buffer, at)?;
        out.write_all(buffer)?;
        at += buffer.len() as u64;
    }
    Ok(())
}

/// What was done about damage before firings that are on record.
pub(super) fn load_mended(
    records: &crate::node::Records,
) -> Result<std::collections::HashMap<(FiringId, DistributionId), String>, Error> {
    let rows = records.list::<String>("mended/")?.into_iter();
    let key = |key: &str| -> Option<(FiringId, DistributionId)> {
        let (firing, distribution) = key.strip_prefix("mended/")?.split_once('/')?;
        Some((firing.parse().ok()?, distribution.parse().ok()?))
    };
    Ok(rows.filter_map(|(name, note)| Some((key(&name)?, note))).collect())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn doubt_key(distribution: &Distribution) -> String {
    format!("doubt/{}", distribution.id)
}
