//! Packages that are arriving: each is received once, whoever wants it, and others may be served from it meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

use crate::error::{Coded as _, Error};
use crate::id::{DistributionId, PackageId};
use crate::limits::Limits;
use crate::name::NodeName;
use crate::node::{Live, judge_signature};
use crate::package::{BlindIndex, Opening, PackageError, Root, verify_digest};
use crate::protocol::{FrameMap, ProgressState, ReceiverOptions, Refused, WaitsFor, code, judge_root};
use crate::security::{DistributorRoot, PackageRef, Signature};
use crate::store::{PackagePlace, PartFile};
use crate::subscriber::deliveries::revision_of;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::receive::{Piece, Reception, ReceptionError, RootJudge, Search, Twin};
use crate::subscriber::state::{Key, State, lock};

/// The packages that are arriving now.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<HashMap<PackageId, Arc<Live>>>);

/// The right to receive a package, and what others see of it. Nobody else receives it before this is dropped.
pub(super) struct Arrival {
    arrivals: Arc<Arrivals>,
    package: PackageId,
    live: Arc<Live>,
}

impl Arrivals {
    /// A package that is arriving.
    pub(super) fn get(&self, package: &PackageId) -> Option<Arc<Live>> {
        lock(&self.0).get(package).cloned()
    }

    /// The right to receive a package; else what arrives of it already.
    pub(super) fn claim(self: &Arc<Self>, package: &PackageRef) -> Result<Arrival, Arc<Live>> {
        let mut arriving = lock(&self.0);
        if let Some(live) = arriving.get(&package.id) {
            return Err(live.clone());
        }
        let live = Arc::new(Live::awaited(package.bytes));
        arriving.insert(package.id, live.clone());
        Ok(Arrival { arrivals: self.clone(), package: package.id, live })
    }
}

impl Arrival {
    /// It is here, verified, under its final name.
    pub(super) fn is_whole(&self) {
        self.live.is_whole();
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        lock(&self.arrivals.0).remove(&self.package);
        self.live.is_over(Refused::new(code::BUSY, "it does not arrive here either at the moment"));
    }
}

/// Every byte of a package, each frame verified; what is checked of the whole is still to be checked.
pub(super) struct Arrived {
    pub(super) part: PartFile,
    pub(super) place: PackagePlace,
}

impl Arrived {
    /// Checks the operator's digest. Blocks.
    pub(super) fn complete(self, index: &BlindIndex) -> Result<Self, ReceptionError> {
        match verify_digest(index, &*self.part.file()) {
            Err(error @ PackageError::Io { .. }) => Err(Error::from(error).into()),
            Err(error) => {
                tracing::error!(code = error.code(), %error, package = %index.id(), "a complete package is damaged");
                Err(ReceptionError::Corrupt { frame: None, from: None, part: Some(self.part) })
            }
            Ok(()) => Ok(self),
        }
    }
}

impl State {
    /// The right to receive a package, once nobody else is receiving it.
    pub(super) async fn claim_arrival(&self, package: &PackageRef) -> Result<Arrival, ReceptionError> {
        let stop = self.run().stop;
        loop {
            let other = match self.arrivals.claim(package) {
                Ok(arrival) => return Ok(arrival),
                Err(other) => other,
            };
            tokio::select! {
                () = stop.cancelled() => return Err(ReceptionError::Stopping),
                _ = other.ended() => {}
            }
        }
    }

    /// What judges the root of a package that a statement names; `opening` says how to go on behind a good one.
    pub(super) fn judges_root(
        self: &Arc<Self>,
        by: &DistributorRoot,
        distribution: DistributionId,
        package: PackageRef,
        opening: impl Fn(&Root) -> Result<Opening, Error> + Send + Sync + 'static,
    ) -> RootJudge {
        let (state, by) = (self.clone(), by.clone());
        Arc::new(move |found: &Root, bytes: &[u8], signature: &Signature| {
            judge_signature(&by, found, bytes, signature)?;
            state.refuse_revoked_package(&by, found, signature)?;
            judge_root(found, &by.key_hash(), &distribution, &package)
                .map_err(|refused| SubscriberError::Statement(refused.to_string()))?;
            opening(found)
        })
    }

    /// A reception over whatever connection leads upstream.
    pub(super) fn reception(
        self: &Arc<Self>,
        key: Key,
        package: PackageRef,
        judge: RootJudge,
        arrival: &Arrival,
    ) -> Reception {
        let (state, of) = (self.clone(), (package.id, revision_of(&package)));
        let (hint, waiting) = (self.hinting(key, &package), self.hinting(key, &package));
        Reception {
            package,
            link: self.links.watch(&key.0),
            came: Arc::new(move |bytes| match bytes {
                // The other side says that it waits itself.
                0 => waiting(ProgressState::Waiting { waits_for: WaitsFor::Parent, until: None }),
                bytes => state.relays.counters.count(key, of, None, bytes),
            }),
            stop: self.receiving_ends(),
            input: self.input.clone(),
            options: ReceiverOptions { silence: self.settings.silence, ..ReceiverOptions::default() },
            judge,
            twin: self.clone().finds_twin(),
            twin_failed: false.into(),
            progress: Box::new(move |progress| {
                let (bytes, bytes_total) = (progress.bytes_written, package.bytes);
                hint(ProgressState::Receiving { bytes, bytes_total });
            }),
            started: tokio::time::Instant::now(),
            live: arrival.live().clone(),
            heard: false.into(),
            hop: None,
        }
    }

    /// Receives the body of a package whose index is known, into its part file, where all the rest is put first.
    pub(super) async fn bring(
        self: &Arc<Self>,
        key: Key,
        mut reception: Reception,
        index: &BlindIndex,
        pieces: Vec<Piece>,
        distributor: &NodeName,
    ) -> Result<Arrived, ReceptionError> {
        if index.id() != reception.package.id {
            return Err(ReceptionError::Corrupt { frame: None, from: reception.hop, part: None });
        }
        let place = PackagePlace::of_root(distributor, index.root());
        let twin_failed = std::mem::take(reception.twin_failed.get_mut());
        let twin = if twin_failed { None } else { (reception.twin)(index.root()) };
        let (part, map, search) = self.open_part(index, &place, key, twin).await?;
        let (part, pieces) = (Arc::new(part), Arc::new(pieces));
        let (into, of, laying) = (part.clone(), pieces.clone(), index.body_range());
        // It is not part of the body, so that no map vouches for it; it is here before the first who asks for it.
        let laid = move || of.iter().try_for_each(|piece| piece.lay_outside(&laying, &into));
        tokio::task::spawn_blocking(laid).await.map_err(|_| ReceptionError::Stopping)??;
        let received = reception.body(index, part.clone(), (map, search), &pieces).await;
        drop(reception);
        let part = Arc::into_inner(part).ok_or(ReceptionError::Stopping)?;
        match received {
            Err(ReceptionError::Corrupt { frame, from, .. }) => {
                Err(ReceptionError::Corrupt { frame, from, part: Some(part) })
            }
            received => received.map(|()| Arrived { part, place }),
        }
    }

    /// A package that is here with the same table has the same frames, whatever its root says otherwise.
    fn finds_twin(self: Arc<Self>) -> Twin {
        Box::new(move |root| {
            let here = self.depot.packages().into_iter().find(|info| {
                (info.root.table, info.root.body_bytes, info.root.kind) == (root.table, root.body_bytes, root.kind)
                    && info.root.distribution == root.distribution
            })?;
            File::open(self.depot.path_of(here.id)?).ok()
        })
    }

    /// Opens `distfile.part`, or goes on with what is there, and puts the package's index into it.
    async fn open_part(
        &self,
        index: &BlindIndex,
        place: &PackagePlace,
        key: Key,
        twin: Option<File>,
    ) -> Result<(PartFile, FrameMap, Search), ReceptionError> {
        let (index, folder) = (index.clone(), self.depot.folder(place));
        let trusted = self.trusted_root(&index.root().distributor);
        // A crash after a corrupt package was taken up leaves a part file that is whole but for a few frames.
        let taken_up = self.aside(&key)?.is_some_and(|aside| aside.package == index.id());
        let search = if taken_up { Search::Everywhere } else { Search::UntilWrong };
        let opening = move || -> Result<(PartFile, FrameMap, Search), Error> {
            // Trust may have been taken back while the index was fetched; then nothing is written.
            trusted?;
            let (part, map, search) = match PartFile::salvage(&folder, index.bytes())? {
                Some(part) => (part, None, Search::Everywhere),
                None => match (PartFile::open(&folder, index.bytes())?, twin) {
                    ((part, None), Some(mut twin)) => {
                        part.copy_from(&mut twin, index.body_range().end)?;
                        (part, None, Search::Everywhere)
                    }
                    ((part, map), _) => (part, map, search),
                },
            };
            let (id, bytes, frames) = (index.id(), index.bytes(), index.body_frames());
            let kept = map.and_then(|map| FrameMap::decode(&map, &Limits::DEFAULT).ok());
            match kept.filter(|map| map.is_of(&id, bytes, frames)) {
                Some(kept) => Ok((part, kept, search)),
                None => Ok((part, FrameMap::empty(id, bytes, frames, &Limits::DEFAULT)?, search)),
            }
        };
        Ok(tokio::task::spawn_blocking(opening).await.map_err(|_| ReceptionError::Stopping)??)
    }
}
