//! Staging of contents that are made: each file by one thread, in order.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::extract::contents::{ContentMaker, MakeContent, MakeError};
use crate::extract::disk::Disk;
use crate::extract::error::ExtractError;
use crate::extract::job::ExtractProgress;
use crate::extract::sparse::{self, End};
use crate::extract::stage::Stage;
use crate::extract::step::Step;
use crate::id::Hash;
use crate::package::{CatalogRow, FRAME_BYTES};

/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 256 * 1024;

/// Makes and writes the files, positions in the list with content, into the staging folder.
pub(super) fn run(
    stage: Stage<'_>,
    contents: &dyn MakeContent,
    files: &[usize],
    progress: ExtractProgress,
) -> Result<(), ExtractError> {
    let groups = groups(stage.job.rows, files);
    let wanted = stage.job.options.threads;
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if wanted == 0 { processors() } else { wanted };
    let threads = threads.min(contents.threads_max()).min(groups.len());
    let work = Making {
        stage,
        contents,
        groups,
        next: AtomicUsize::new(0),
        failed: Mutex::default(),
        stop: AtomicBool::new(false),
        progress: Mutex::new(progress),
    };
    if threads > 1 {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| work.take_groups());
            }
        });
    } else {
        work.take_groups();
    }
    let failed = lock(&work.failed).take();
    failed.map_or(Ok(()), Err)
}

/// Files that follow each other and have about a frame's bytes together. What makes them lies together as well: one
/// thread takes them all, and decodes it once.
fn groups<'f>(rows: &[CatalogRow], files: &'f [usize]) -> Vec<&'f [usize]> {
    let mut bytes = 0_u64;
    let together = move |&before: &usize, _: &usize| {
        bytes += rows[before].entry.size;
        let goes_on = bytes < u64::from(FRAME_BYTES);
        bytes = if goes_on { bytes } else { 0 };
        goes_on
    };
    files.chunk_by(together).collect()
}

/// What the threads share.
struct Making<'a> {
    stage: Stage<'a>,
    contents: &'a dyn MakeContent,
    groups: Vec<&'a [usize]>,
    next: AtomicUsize,
    failed: Mutex<Option<ExtractError>>,
    stop: AtomicBool,
    progress: Mutex<ExtractProgress>,
}

impl Making<'_> {
    fn take_groups(&self) {
        let mut maker = self.contents.maker();
        while let Some(group) = self.groups.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            for &index in *group {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = self.file(index, &mut *maker) {
                    lock(&self.failed).get_or_insert(error);
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn file(&self, index: usize, maker: &mut dyn ContentMaker) -> Result<(), ExtractError> {
        let row = &self.stage.job.rows[index];
        let (path, size) = (&row.entry.path, row.entry.size);
        let failed = |error| ExtractError::io("writing", path, error);
        let wrong = || ExtractError::Content { path: path.clone() };
        if self.stage.cancel.load(Ordering::Relaxed) {
            return Err(ExtractError::Cancelled);
        }
        let file = self.stage.create(index).map_err(failed)?;
        let sink = Sink { making: self, file, size, written: 0, end: End::Data, hasher: blake3::Hasher::new() };
        let mut out = BufWriter::with_capacity(WRITE_BYTES.min(size as usize), sink);
        let made = maker.make(index, &mut out).and_then(|()| out.flush().map_err(MakeError::Sink));
        // What is still collected after an error counts for nothing.
        let (sink, _) = out.into_parts();
        match made {
            Ok(()) => {}
            Err(_) if self.stage.cancel.load(Ordering::Relaxed) => return Err(ExtractError::Cancelled),
            Err(MakeError::From(source)) => return Err(ExtractError::Made { path: path.clone(), source }),
            Err(MakeError::Sink(error)) if error.kind() == io::ErrorKind::FileTooLarge && sink.is_full() => {
                return Err(wrong());
            }
            Err(MakeError::Sink(error)) => return Err(failed(error)),
        }
        if sink.written != size || Hash::from(sink.hasher.finalize()) != row.entry.content {
            return Err(wrong());
        }
        if sink.end == End::Hole {
            self.stage.disk.set_length(Step::WriteFile, &sink.file, size).map_err(failed)?;
        }
        self.stage.close(row, &sink.file).map_err(failed)?;
        self.report(0, 1);
        Ok(())
    }

    fn report(&self, bytes: u64, entries: u64) {
        let mut progress = lock(&self.progress);
        progress.bytes += bytes;
        progress.entries += entries;
        (self.stage.report)(*progress);
    }
}

/// A staged file that is being made. It takes as many bytes as its entry has and no more.
struct Sink<'a, 'b> {
    making: &'a Making<'b>,
    file: File,
    size: u64,
    written: u64,
    end: End,
    hasher: blake3::Hasher,
}

impl Sink<'_, '_> {
    fn is_full(&self) -> bool {
        self.written >= self.size
    }

    fn disk(&self) -> Disk<'_> {
        self.making.stage.disk
    }
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.making.stage.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let room = usize::try_from(self.size - self.written).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        if bytes.is_empty() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.end = sparse::write(self.disk(), &self.file, self.written, bytes, self.size)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.making.report(bytes.len() as u64, 0);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
