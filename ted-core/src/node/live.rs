//! A package that is served frame by frame, each of them verified right before: while it is still arriving, or from a
//! relay's disk.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::id::Hash;
use crate::limits::Limits;
use crate::package::{BlindIndex, PackagePart, ReadAt, TableRow};
use crate::protocol::Refused;

/// Bytes that are hashed at once.
const HASHED_BYTES: usize = 256 * 1024;

/// A package of which as much can be had as was verified. Whoever receives it tells what has come; whoever serves it
/// follows that.
pub(crate) struct Live {
    bytes: u64,
    phase: Mutex<Phase>,
    /// Counts what came, so that those who wait look again.
    changes: watch::Sender<u64>,
}

enum Phase {
    /// Its index is not here yet.
    Awaited,
    /// These frames of its body are verified and written, and all that lies outside the body.
    Arriving { laid: Laid, written: Vec<bool> },
    /// All of it is here.
    Whole(Laid),
    /// It comes no further.
    Over(Refused),
}

/// Where a package's bytes lie, and what vouches for them.
#[derive(Clone)]
struct Laid {
    index: BlindIndex,
    file: Arc<dyn ReadAt>,
}

/// What can be read at a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Bytes up to this one.
    To(u64),
    /// Nothing yet.
    NotYet,
    /// Nothing any more.
    Over(Refused),
}

/// Why bytes could not be read.
#[derive(Debug)]
pub(crate) enum LiveError {
    /// The frame is not what the package's table says.
    Damaged { frame: u64 },
    /// The file cannot be read.
    Unreadable(io::Error),
}

impl Live {
    /// A package of this length of which nothing is here yet.
    pub(crate) fn awaited(bytes: u64) -> Self {
        Self::with(bytes, Phase::Awaited)
    }

    /// A package that is here.
    pub(crate) fn whole(index: BlindIndex, file: Arc<dyn ReadAt>) -> Self {
        Self::with(index.bytes(), Phase::Whole(Laid { index, file }))
    }

    fn with(bytes: u64, phase: Phase) -> Self {
        Self { bytes, phase: Mutex::new(phase), changes: watch::Sender::new(0) }
    }

    /// The package's length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything outside the body is in `file` now, verified, and these frames of it.
    pub(crate) fn laid_out(&self, index: BlindIndex, file: Arc<dyn ReadAt>, has: impl Fn(u64) -> bool) {
        let written = (0..index.body_frames()).map(has).collect();
        self.enter(Phase::Arriving { laid: Laid { index, file }, written });
    }

    /// A frame of the body was verified and written.
    pub(crate) fn wrote(&self, frame: u64) {
        if let Phase::Arriving { written, .. } = &mut *self.phase()
            && let Some(slot) = usize::try_from(frame).ok().and_then(|frame| written.get_mut(frame))
        {
            *slot = true;
        }
        self.tell();
    }

    /// All of it is verified and here. The file keeps its bytes under whatever name it has now.
    pub(crate) fn is_whole(&self) {
        let mut phase = self.phase();
        if let Phase::Arriving { laid, .. } = &*phase {
            *phase = Phase::Whole(laid.clone());
        }
        drop(phase);
        self.tell();
    }

    /// It comes no further, unless it is whole.
    pub(crate) fn is_over(&self, refused: Refused) {
        let mut phase = self.phase();
        if !matches!(*phase, Phase::Whole(_)) {
            *phase = Phase::Over(refused);
        }
        drop(phase);
        self.tell();
    }

    /// Changes are heard here. Look first, then wait.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How far can be read from `at` on.
    pub(crate) fn ready(&self, at: u64) -> Ready {
        match &*self.phase() {
            Phase::Awaited => Ready::NotYet,
            Phase::Over(refused) => Ready::Over(refused.clone()),
            Phase::Whole(_) => Ready::To(self.bytes),
            Phase::Arriving { laid, written } => {
                let has = |frame: u64| written.get(frame as usize).copied().unwrap_or(true);
                let mut end = at;
                // Nobody asks for more than a block at once.
                while end < self.bytes && end - at < u64::from(Limits::DEFAULT.block_bytes_max) {
                    end = match laid.index.part_at(end) {
                        PackagePart::Frame { frame, .. } if !has(frame) => break,
                        PackagePart::Frame { range, .. } | PackagePart::Between { range } => range.end,
                    };
                }
                if end > at { Ready::To(end) } else { Ready::NotYet }
            }
        }
    }

    /// Where the frame ends that a place lies in; the place itself where none does, or where that is not known yet.
    pub(crate) fn frame_end(&self, at: u64) -> u64 {
        match &*self.phase() {
            Phase::Arriving { laid, .. } | Phase::Whole(laid) => match laid.index.part_at(at) {
                PackagePart::Frame { range, .. } if range.start < at => range.end,
                _ => at,
            },
            Phase::Awaited | Phase::Over(_) => at,
        }
    }

    /// Waits until it is over in one way or the other; says whether it is whole.
    pub(crate) async fn ended(&self) -> bool {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            match &*self.phase() {
                Phase::Whole(_) => return true,
                Phase::Over(_) => return false,
                Phase::Awaited | Phase::Arriving { .. } => {}
            }
            // The sender lives as long as this does.
            let _ = changes.changed().await;
        }
    }

    /// Reads the bytes of `range`, which is [`Live::ready`], after it has verified the frames that they belong to.
    /// `verified` holds what was verified last, so that a frame that goes out in several blocks is read twice at most.
    /// Blocks on the disk.
    pub(crate) fn read(&self, range: Range<u64>, verified: &mut Range<u64>) -> Result<Bytes, LiveError> {
        let laid = match &*self.phase() {
            Phase::Arriving { laid, .. } | Phase::Whole(laid) => laid.clone(),
            Phase::Awaited | Phase::Over(_) => {
                return Err(LiveError::Unreadable(io::ErrorKind::NotFound.into()));
            }
        };
        let mut block = BytesMut::zeroed((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let part = laid.index.part_at(at);
            let (PackagePart::Frame { range: of_part, .. } | PackagePart::Between { range: of_part }) = &part;
            let end = of_part.end.min(range.end);
            let into = &mut block[(at - range.start) as usize..(end - range.start) as usize];
            laid.file.read_exact_at(into, at).map_err(LiveError::Unreadable)?;
            if let PackagePart::Frame { frame, range: whole } = &part
                && verified != whole
            {
                let Some(row) = laid.index.rows().get(*frame as usize) else {
                    return Err(LiveError::Damaged { frame: *frame });
                };
                let good = if *whole == (at..end) { Hash::of(into) == row.hash } else { laid.is_good(row, whole)? };
                if !good {
                    return Err(LiveError::Damaged { frame: *frame });
                }
                *verified = whole.clone();
            }
            at = end;
        }
        Ok(block.freeze())
    }

    fn enter(&self, phase: Phase) {
        *self.phase() = phase;
        self.tell();
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Laid {
    /// Whether a frame's stored bytes have the hash that the table states. They are hashed piece by piece: a relay with
    /// many children would need much memory for whole frames.
    fn is_good(&self, row: &TableRow, range: &Range<u64>) -> Result<bool, LiveError> {
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; HASHED_BYTES.min(Limits::DEFAULT.frame_stored_bytes_max as usize)];
        let mut at = range.start;
        while at < range.end {
            let count = (range.end - at).min(piece.len() as u64) as usize;
            self.file.read_exact_at(&mut piece[..count], at).map_err(LiveError::Unreadable)?;
            hasher.update(&piece[..count]);
            at += count as u64;
        }
        Ok(hasher.finalize().as_bytes() == row.hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::tests::{SMALL_FRAMES, Tree, noise, options};
    use crate::protocol::code;

    fn package() -> (Arc<Vec<u8>>, BlindIndex) {
        let mut tree = Tree::new();
        tree.file("large", noise(7, 300_000));
        let (bytes, built) = tree.build(&options(SMALL_FRAMES));
        (Arc::new(bytes), built.index.blind().clone())
    }

    #[test]
    fn nothing_can_be_read_before_its_frame_was_written() {
        let (bytes, index) = package();
        let live = Live::awaited(bytes.len() as u64);
        assert_eq!(live.ready(0), Ready::NotYet);
        live.laid_out(index.clone(), bytes.clone(), |frame| frame == 1);
        assert_eq!(live.ready(0), Ready::NotYet);
        assert_eq!(live.ready(index.frame_range(1).start), Ready::To(index.frame_range(1).end));
        let body = index.body_range();
        assert_eq!(live.ready(body.end), Ready::To(bytes.len() as u64), "what is not of the body came first");
        live.wrote(0);
        assert_eq!(live.ready(0), Ready::To(index.frame_range(1).end));
        assert_eq!(live.ready(index.frame_range(2).start), Ready::NotYet);
        for frame in 2..index.body_frames() {
            live.wrote(frame);
        }
        assert_eq!(live.ready(0), Ready::To(bytes.len() as u64));
        live.is_whole();
        live.is_over(Refused::new(code::BUSY, "too late"));
        assert_eq!(live.ready(5), Ready::To(bytes.len() as u64));
        let mut verified = 0..0;
        let all = live.read(0..bytes.len() as u64, &mut verified).unwrap();
        assert_eq!(all, bytes[..]);
    }

    #[test]
    fn a_frame_of_which_a_bit_has_rotted_does_not_go_out_in_any_piece() {
        let (bytes, index) = package();
        for place in 0..index.rows().len() as u64 {
            let range = index.frame_range(place);
            let mut rotten = bytes.to_vec();
            rotten[range.end as usize - 1] ^= 1;
            let live = Live::whole(index.clone(), Arc::new(rotten));
            for piece in [range.start..range.start + 1, range.clone(), range.start..range.end - 1] {
                let read = live.read(piece, &mut (0..0));
                assert!(matches!(read, Err(LiveError::Damaged { frame }) if frame == place), "{read:?}");
            }
            if let Some(before) = place.checked_sub(1).map(|before| index.frame_range(before)) {
                live.read(before, &mut (0..0)).expect("the others are good");
            }
        }
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_the_end() {
        let (bytes, index) = package();
        let live = Arc::new(Live::awaited(bytes.len() as u64));
        let waiting = tokio::spawn({
            let live = live.clone();
            async move { live.ended().await }
        });
        live.laid_out(index, bytes, |_| true);
        live.is_whole();
        assert!(waiting.await.unwrap());
        let gone = Live::awaited(9);
        gone.is_over(Refused::new(code::BUSY, "the parent is away"));
        assert!(!gone.ended().await);
        assert!(matches!(gone.ready(0), Ready::Over(_)));
    }
}
