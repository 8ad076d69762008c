//! What is damaged in a package: which frames of its body are not what the table says, and which errors say so.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::body::{ReadAt, read_stored};
use super::error::{FrameError, PackageError};
use super::index::BlindIndex;

/// What the system says when a medium does not give back what was written (`EIO`).
const MEDIUM_FAILED: i32 = 5;

/// Whether an error says that a package that was whole is not any more: its bytes have changed or are gone. Everything
/// else, such as a later version or a file that may not be read, is nothing that fetching again mends.
#[must_use]
pub fn is_damage(error: &PackageError) -> bool {
    match error {
        PackageError::Io { source, .. } => {
            source.kind() == io::ErrorKind::UnexpectedEof || source.raw_os_error() == Some(MEDIUM_FAILED)
        }
        PackageError::Frame { source, .. } => matches!(source, FrameError::Length { .. } | FrameError::Hash),
        PackageError::NotAPackage
        | PackageError::Structure { .. }
        | PackageError::Codec(_)
        | PackageError::TableHash
        | PackageError::Catalog { .. }
        | PackageError::Content { .. }
        | PackageError::Tar { .. }
        | PackageError::Digest => true,
        _ => false,
    }
}

/// The frames of the body whose bytes in `source` are not those that the table of `index` means, in order; checked with
/// this many threads. Nothing is decompressed or opened, so a sealed package needs no key.
///
/// # Errors
/// [`PackageError::Io`] when the bytes cannot be read for another reason than damage.
pub fn damaged_frames(index: &BlindIndex, source: &dyn ReadAt, threads: usize) -> Result<Vec<u64>, PackageError> {
    let next = AtomicU64::new(0);
    let found = Mutex::new((Vec::new(), None));
    let look = || {
        let mut stored = Vec::new();
        loop {
            let frame = next.fetch_add(1, Ordering::Relaxed);
            if frame >= index.body_frames() {
                return;
            }
            if let Err(error) = read_stored(index, source, frame, &mut stored) {
                let (frames, other) = &mut *found.lock().unwrap_or_else(PoisonError::into_inner);
                if is_damage(&error) {
                    frames.push(frame);
                } else {
                    *other = Some(error);
                    // The rest is not worth looking at.
                    next.store(index.body_frames(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(look);
        }
        look();
    });
    let (mut frames, other) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    frames.sort_unstable();
    other.map_or(Ok(frames), Err)
}
