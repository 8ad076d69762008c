//! Blocks of a package that is passed on, maybe while it is still arriving.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::{Blocks, Pace, Permit};
use crate::node::live::{Live, LiveError, Ready};
use crate::protocol::{Refused, SendStep, Sending, code};

/// A package that is passed on: each frame is verified right before it goes out.
pub(crate) struct Relayed {
    pub(crate) live: Arc<Live>,
    pub(crate) pace: Box<dyn Pace>,
    /// Hears how many bytes were handed to the connection.
    pub(crate) sent: Box<dyn FnMut(u64) + Send>,
    /// Hears of a frame that turned out not to be what the package's table says. None of it was sent.
    pub(crate) damaged: Box<dyn FnMut(u64) + Send>,
}

impl Relayed {
    /// What is asked for of it, and who hears what was sent.
    pub(super) fn into_blocks(self, sending: Sending) -> (RelayedBlocks, Box<dyn FnMut(u64) + Send>) {
        let Self { live, pace, sent, damaged } = self;
        let changes = live.changes();
        (RelayedBlocks { live, changes, sending, step: 0..0, verified: 0..0, pace, damaged }, sent)
    }
}

pub(super) struct RelayedBlocks {
    live: Arc<Live>,
    changes: watch::Receiver<u64>,
    sending: Sending,
    /// What is left of the step that was taken last.
    step: Range<u64>,
    /// The frame that was verified last.
    verified: Range<u64>,
    pace: Box<dyn Pace>,
    damaged: Box<dyn FnMut(u64) + Send>,
}

impl Blocks for RelayedBlocks {
    async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        while self.step.is_empty() {
            self.changes.borrow_and_update();
            let available_to = match self.live.ready(self.sending.at()) {
                Ready::To(to) => to,
                Ready::NotYet => self.sending.at(),
                Ready::Over(refused) => return Err(refused),
            };
            match self.sending.next(available_to) {
                SendStep::End => return Ok(None),
                SendStep::Data { from, to } => self.step = from..to,
                SendStep::Waiting => {
                    // The sender lives as long as what it tells of, which is here.
                    let _ = self.changes.changed().await;
                }
            }
        }
        let wanted = self.step.end - self.step.start;
        let bytes = match self.pace.permit(self.step.start, wanted).await {
            Permit::Bytes(bytes) => bytes.min(wanted),
            Permit::Over(refused) => return Err(refused),
        };
        let range = self.step.start..self.step.start + bytes;
        self.step.start += bytes;
        self.read(range).await.map(Some)
    }
}

impl RelayedBlocks {
    async fn read(&mut self, range: Range<u64>) -> Result<Bytes, Refused> {
        let (live, mut verified) = (self.live.clone(), self.verified.clone());
        let reading = tokio::task::spawn_blocking(move || (live.read(range, &mut verified), verified));
        let error = match reading.await {
            Ok((Ok(block), verified)) => {
                self.verified = verified;
                return Ok(block);
            }
            Ok((Err(LiveError::Damaged { frame }), _)) => {
                (self.damaged)(frame);
                return Err(Refused::new(code::BUSY, format!("frame {frame} is damaged here and is mended")));
            }
            Ok((Err(LiveError::Unreadable(error)), _)) => error,
            Err(error) => std::io::Error::other(error),
        };
        tracing::error!(%error, "a package cannot be read");
        Err(Refused::new(code::INTERNAL, "the package cannot be read here"))
    }
}
