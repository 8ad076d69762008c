//! The scrub: reads every kept package again from time to time, slowly, so that what rots on the disk is found before
//! it is needed.

use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::{PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::Interval;
use crate::node::wait;
use crate::package::{BlindIndex, read_stored};
use crate::store::{Depot, forget_cached};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::held::{Held, HeldPackage};
use crate::subscriber::state::{Key, State};

/// How long a scrub waits at most before it looks again what is due: clocks are set, and packages come.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// How often a kept package is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubInterval {
    /// Only when the operator says so.
    Never,
    /// When it was last found whole this long ago; at least [`Limits::scrub_interval_seconds_min`].
    Every(Duration),
}

impl Default for ScrubInterval {
    fn default() -> Self {
        Self::Every(Duration::from_secs(Limits::DEFAULT.scrub_interval_seconds))
    }
}

/// What this node's operator says about scrubbing; `None` means what else applies, and at last the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ScrubSettings {
    pub(crate) interval: Option<ScrubInterval>,
    pub(crate) bytes_per_second: Option<NonZeroU64>,
}

/// When a package was last found whole, as the catalog keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checked {
    pub(super) at: UnixMillis,
    /// Where a scrub that is under way goes on; 0 while none is.
    frame: u64,
}

impl Checked {
    pub(super) fn whole(at: UnixMillis) -> Self {
        Self { at, frame: 0 }
    }
}

/// A package that is to be read again, and when.
#[derive(Debug, Clone)]
struct Task {
    due: UnixMillis,
    key: Key,
    held: Held,
    package: HeldPackage,
    checked: Checked,
}

impl State {
    /// How often kept packages are read again: as this node's operator says, else as its Distributors set, else the
    /// default.
    pub(super) fn scrub_interval(&self) -> ScrubInterval {
        let own = self.settings.scrub.interval;
        let configured = || match self.configured_scrub().interval? {
            Interval::Never => Some(ScrubInterval::Never),
            Interval::Every(every) => Some(ScrubInterval::Every(every)),
        };
        own.or_else(configured).unwrap_or_default()
    }

    /// When all of a Distribution's kept packages were last found whole.
    pub(super) fn checked(&self, key: &Key, held: &Held) -> Result<Option<UnixMillis>, Error> {
        let mut oldest = None;
        for package in &held.packages {
            let Some(checked) = self.records.get::<Checked>(&checked_key(key, &package.id))? else { return Ok(None) };
            oldest = Some(oldest.map_or(checked.at, |oldest: UnixMillis| oldest.min(checked.at)));
        }
        Ok(oldest)
    }

    /// Forgets when packages were found whole that are kept no more.
    pub(super) fn forget_checked(&self, key: &Key, kept: &[HeldPackage]) -> Result<(), Error> {
        let kept: Vec<String> = kept.iter().map(|package| checked_key(key, &package.id)).collect();
        for known in self.records.keys(&checked_prefix(key))? {
            if !kept.contains(&known) {
                self.records.delete(&known)?;
            }
        }
        Ok(())
    }

    fn scrub_rate(&self) -> u64 {
        let own = self.settings.scrub.bytes_per_second.map(NonZeroU64::get);
        let rate = own.or_else(|| self.configured_scrub().bytes_per_second);
        rate.unwrap_or(Limits::DEFAULT.scrub_bytes_per_second)
    }

    /// Scrubs whatever is due, one package after the other, until `stop`.
    pub(super) async fn scrub_all(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            loop {
                let wait = self.scrub_due().await.unwrap_or_else(|error| {
                    tracing::warn!(code = error.code(), %error, "what is to be scrubbed cannot be told");
                    LOOK_AGAIN
                });
                sleep_until(Instant::now() + wait.min(LOOK_AGAIN)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Scrubs the packages that are due, the most overdue first. Says how long nothing will be.
    async fn scrub_due(self: &Arc<Self>) -> Result<Duration, Error> {
        let ScrubInterval::Every(interval) = self.scrub_interval() else { return Ok(LOOK_AGAIN) };
        let state = self.clone();
        let tasks = blocking(move || state.scrub_tasks(interval)).await?;
        let now = self.clock.now();
        let mut next = LOOK_AGAIN;
        for task in tasks {
            if task.due > now {
                return Ok(next.min(task.due.since(now)));
            }
            let name = task.held.name.clone();
            match self.scrub(task).await {
                // It took its time: what else is due now is looked at anew.
                Ok(()) => next = Duration::ZERO,
                Err(error) => {
                    tracing::warn!(code = error.code(), distribution = %name, %error, "a package cannot be scrubbed");
                }
            }
        }
        Ok(next)
    }

    /// The packages that are here, in the order in which they are due.
    fn scrub_tasks(&self, interval: Duration) -> Result<Vec<Task>, Error> {
        let mut tasks = vec![];
        for (key, held) in self.all_held()? {
            for package in &held.packages {
                if wait(self.depot.info(package.id))?.is_none() {
                    continue;
                }
                let known: Option<Checked> = self.records.get(&checked_key(&key, &package.id))?;
                // Of one that came before anybody noted it, nothing says when it was whole.
                let checked = known.unwrap_or(Checked::whole(UnixMillis::from_millis(0)));
                let (held, package) = (held.clone(), package.clone());
                tasks.push(Task { due: checked.at.plus(interval), key, held, package, checked });
            }
        }
        tasks.sort_by_key(|task| task.due);
        Ok(tasks)
    }

    /// Reads one package again, slowly, and sets it aside at the first frame that is damaged.
    async fn scrub(self: &Arc<Self>, task: Task) -> Result<(), Error> {
        let Task { key, held, package, mut checked, .. } = task;
        let (state, opened) = (self.clone(), package.clone());
        let opening = move || {
            let opening = state.open_any(&key.0, &opened).map(|(index, file)| (index.blind().clone(), file));
            opening.map_err(|error| (state.damage_of(None, &error, opened.id), error))
        };
        let opened = tokio::task::spawn_blocking(opening).await.map_err(|_| SubscriberError::Worker)?;
        let (index, file) = match opened {
            Ok(opened) => opened,
            Err((Some(detail), _)) => return self.found_damaged(key, held, package, detail).await,
            Err((None, error)) => return Err(error),
        };
        tracing::debug!(distribution = %held.name, revision = %package.revision, frame = checked.frame, "scrubbing");
        let (mut pace, mut unnoted) = (Pace::new(self.scrub_rate(), Instant::now()), 0);
        while checked.frame < index.body_frames() {
            let (state, index_here, file, frame, id) =
                (self.clone(), index.clone(), file.clone(), checked.frame, package.id);
            let reading = move || {
                let read = read_frame(&index_here, &file, frame);
                read.map_err(|error| (state.damage_of(Some(&index_here), &error, id), error))
            };
            match tokio::task::spawn_blocking(reading).await.map_err(|_| SubscriberError::Worker)? {
                Ok(bytes) => {
                    checked.frame += 1;
                    unnoted += bytes;
                    sleep_until(pace.after(bytes)).await;
                }
                Err((Some(detail), _)) => return self.found_damaged(key, held, package, detail).await,
                Err((None, error)) => return Err(error),
            }
            if unnoted >= Limits::DEFAULT.scrub_note_bytes {
                unnoted = 0;
                self.note_checked(key, package.id, checked.clone()).await?;
            }
        }
        self.found_whole(key, held, &package).await
    }

    async fn found_whole(self: &Arc<Self>, key: Key, held: Held, package: &HeldPackage) -> Result<(), Error> {
        self.note_checked(key, package.id, Checked::whole(self.clock.now())).await?;
        let (distribution, revision, bytes) = (held.name, package.revision, package.bytes);
        tracing::info!(%distribution, %revision, bytes, "scrubbed, and whole");
        self.events.emit(SubscriberEvent::Scrubbed { distribution, revision, bytes });
        Ok(())
    }

    async fn found_damaged(
        self: &Arc<Self>,
        key: Key,
        held: Held,
        package: HeldPackage,
        detail: String,
    ) -> Result<(), Error> {
        let state = self.clone();
        blocking(move || {
            // It may be that another revision came meanwhile: what does not hold is the newest, if the package is of it.
            let held = state.noted_held(&key)?.filter(|newest| newest.package(&package.id).is_some()).unwrap_or(held);
            state.set_aside(key, &held, &package, detail)
        })
        .await
    }

    /// Unless it is not kept any more.
    async fn note_checked(self: &Arc<Self>, key: Key, package: PackageId, checked: Checked) -> Result<(), Error> {
        let state = self.clone();
        let noting = move || {
            let held = state.noted_held(&key)?.filter(|held| held.package(&package).is_some());
            if held.is_some() && wait(state.depot.info(package))?.is_some() {
                state.records.put(&checked_key(&key, &package), &checked)?;
            }
            Ok(())
        };
        blocking(noting).await
    }
}

/// Reads one frame from the disk and checks it; how many bytes it has.
fn read_frame(index: &BlindIndex, file: &Arc<File>, frame: u64) -> Result<u64, Error> {
    let range = index.frame_range(frame);
    // What the system remembers of the file is not what lies on the disk.
    forget_cached(file, &range);
    let read = read_stored(index, &**file, frame, &mut vec![]);
    // Nobody else needs it remembered because of this.
    forget_cached(file, &range);
    read?;
    Ok(range.end - range.start)
}

/// Keeps a rate: says when the next piece may be read. What was lost while the disk or the machine was slow is not
/// caught up with.
#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    next: Instant,
}

impl Pace {
    fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second, next: now }
    }

    fn after(&mut self, bytes: u64) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        self.next = self.next.max(Instant::now() - takes.min(Duration::from_secs(1))) + takes;
        self.next
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SubscriberError::Worker)?
}

pub(super) fn checked_key(key: &Key, package: &PackageId) -> String {
    format!("{}{package}", checked_prefix(key))
}

fn checked_prefix((fleet, distribution): &Key) -> String {
    format!("checked/{fleet}/{distribution}/")
}

#[cfg(test)]
mod tests;
