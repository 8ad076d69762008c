//! Answering what the other side asks on the streams that it opens.

mod relayed;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::limits::Limits;
use crate::node::exchange::read_message;
use crate::package::ReadAt;
use crate::protocol::{
    Answer, Fetch, FetchAnswer, Refused, Request, SendStep, Sending, code, data_header, decode_request, encode_answer,
    end_block, error_block, waiting_block,
};
use crate::transport::{Connection, ConnectionError, SendHalf};

pub(crate) use relayed::Relayed;

/// How long a peer may take to say what it wants on a stream that it opened: a message is one packet or a few.
const QUESTION_PATIENCE: Duration = Duration::from_secs(30);

/// How often a peer that waits for bytes hears that they will come: well within the shortest silence that people set.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a request gets.
pub(crate) enum Reply {
    /// An answer alone.
    Answer(Answer),
    /// An answer to a Fetch, and bytes from here.
    Content(Content),
}

impl Reply {
    pub(crate) fn refuse(code: &str, reason: impl Into<String>) -> Self {
        Self::Answer(Answer::Refused(Refused::new(code, reason)))
    }
}

/// Where the bytes of an answered Fetch come from.
pub(crate) enum Content {
    /// From memory.
    Bytes(Bytes),
    /// From a package file of this many bytes, when `pace` permits; the callback hears how many were handed to the
    /// connection.
    File { file: Arc<dyn ReadAt>, bytes: u64, pace: Box<dyn Pace>, sent: Box<dyn FnMut(u64) + Send> },
    /// From a package that may still be arriving.
    Relayed(Relayed),
}

/// Decides when bytes of a package may go to a peer, and how many at once. One value serves one Fetch; dropped, it gives
/// back what it holds.
pub(crate) trait Pace: Send {
    /// Waits until bytes from place `at` on may go; `wanted` at most, and never 0.
    fn permit(&mut self, at: u64, wanted: u64) -> Permitting<'_>;
}

/// What [`Pace::permit`] gives when it is awaited.
pub(crate) type Permitting<'a> = Pin<Box<dyn Future<Output = Permit> + Send + 'a>>;

/// What a [`Pace`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Permit {
    /// So many bytes, at least one.
    Bytes(u64),
    /// No more: the answer ends here with this refusal.
    Over(Refused),
}

/// Everything, at once.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "what is passed on may need it")]
pub(crate) struct Unpaced;

impl Pace for Unpaced {
    fn permit(&mut self, _at: u64, wanted: u64) -> Permitting<'_> {
        Box::pin(std::future::ready(Permit::Bytes(wanted)))
    }
}

/// What a node answers. One value serves one connection.
pub(crate) trait Answering: Send + Sync + 'static {
    fn answer(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// Answers every stream that the other side opens until the connection ends; gives the reason why it ended.
pub(crate) fn serve<C: Connection>(
    connection: C,
    answering: Arc<impl Answering>,
    limits: Limits,
) -> impl Future<Output = String> + Send {
    // Not in the future: there is one for each connection, and nearly always with the same limits.
    let limits = if limits == Limits::DEFAULT { DEFAULT_LIMITS.clone() } else { Arc::new(limits) };
    serve_with(connection, answering, limits)
}

static DEFAULT_LIMITS: LazyLock<Arc<Limits>> = LazyLock::new(|| Arc::new(Limits::DEFAULT));

async fn serve_with<C: Connection>(connection: C, answering: Arc<impl Answering>, limits: Arc<Limits>) -> String {
    let streams = TaskTracker::new();
    let reason = loop {
        match connection.accept().await {
            Ok((send, recv)) => {
                let (answering, limits) = (answering.clone(), limits.clone());
                streams.spawn(async move {
                    if let Err(error) = serve_stream::<C>(send, recv, &*answering, &limits).await {
                        tracing::debug!(%error, "a stream ended early");
                    }
                });
            }
            Err(error) => break error.to_string(),
        }
    };
    streams.close();
    streams.wait().await;
    reason
}

async fn serve_stream<C: Connection>(
    mut send: C::Send,
    mut recv: C::Recv,
    answering: &impl Answering,
    limits: &Limits,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let message = timeout(QUESTION_PATIENCE, read_message(&mut recv, limits)).await??;
    let (request, fetch) = match decode_request(&message, limits) {
        Ok(request) => {
            let fetch = if let Request::Fetch(fetch) = &request { Some(*fetch) } else { None };
            (request, fetch)
        }
        Err(error) => {
            let refused = Refused::new(code::BAD_REQUEST, error.to_string());
            return write_answer(&mut send, &Answer::Refused(refused), limits).await;
        }
    };
    let reply = match request {
        Request::Unknown { kind } => Reply::Answer(Answer::Unsupported { kind }),
        request => answering.answer(request).await,
    };
    match (reply, fetch) {
        (Reply::Answer(answer), _) => write_answer(&mut send, &answer, limits).await,
        (Reply::Content(content), Some(fetch)) => write_content(&mut send, fetch, content, limits).await,
        (Reply::Content(_), None) => Err("content answers a Fetch only".into()),
    }
}

async fn write_answer<S: SendHalf>(
    send: &mut S,
    answer: &Answer,
    limits: &Limits,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    send.write(Bytes::from(encode_answer(answer, limits)?)).await?;
    send.finish()?;
    Ok(())
}

async fn write_content<S: SendHalf>(
    send: &mut S,
    fetch: Fetch,
    content: Content,
    limits: &Limits,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let total_bytes = match &content {
        Content::Bytes(bytes) => bytes.len() as u64,
        Content::File { bytes, .. } => *bytes,
        Content::Relayed(relayed) => relayed.live.bytes(),
    };
    let answer = encode_answer(&Answer::Fetch(FetchAnswer { total_bytes }), limits)?;
    send.write(Bytes::from(answer)).await?;
    let sending = Sending::new(&fetch, total_bytes, limits);
    let ended = match content {
        Content::Bytes(bytes) => write_bytes(send, &bytes, sending).await?,
        Content::File { file, pace, sent, .. } => {
            let blocks = FileBlocks { file, total_bytes, sending, step: 0..0, pace };
            write_blocks(send, blocks, sent).await?
        }
        Content::Relayed(relayed) => {
            let (blocks, sent) = relayed.into_blocks(sending);
            write_blocks(send, blocks, sent).await?
        }
    };
    match ended {
        Ok(()) => send.write(Bytes::copy_from_slice(&end_block())).await?,
        Err(refused) => send.write(Bytes::from(error_block(&refused))).await?,
    }
    send.finish()?;
    Ok(())
}

async fn write_bytes<S: SendHalf>(
    send: &mut S,
    bytes: &Bytes,
    mut sending: Sending,
) -> Result<Result<(), Refused>, ConnectionError> {
    while let SendStep::Data { from, to } = sending.next(bytes.len() as u64) {
        send.write(Bytes::copy_from_slice(&data_header((to - from) as u32))).await?;
        send.write(bytes.slice(from as usize..to as usize)).await?;
    }
    Ok(Ok(()))
}

/// What the data blocks of one answer hold, one after the other.
trait Blocks: Send {
    /// The next one, when it is there and may go; `None` after the last.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Refused>> + Send;
}

/// Writes data blocks to the end or to a refusal. The next one is had while one is written: two blocks of memory for each
/// Fetch, outside the transport's send budget.
async fn write_blocks<S: SendHalf>(
    send: &mut S,
    mut blocks: impl Blocks,
    mut sent: impl FnMut(u64),
) -> Result<Result<(), Refused>, ConnectionError> {
    let mut block = None::<Bytes>;
    loop {
        let mut next = pin!(blocks.next());
        let mut ahead = None;
        if let Some(block) = block.take() {
            let bytes = block.len() as u64;
            let mut writing = pin!(async {
                send.write(Bytes::copy_from_slice(&data_header(bytes as u32))).await?;
                send.write(block).await
            });
            loop {
                tokio::select! {
                    written = &mut writing => break written?,
                    next = &mut next, if ahead.is_none() => ahead = Some(next),
                }
            }
            sent(bytes);
        }
        let next = match ahead {
            Some(next) => next,
            None => loop {
                tokio::select! {
                    next = &mut next => break next,
                    () = sleep(KEEP_ALIVE) => send.write(Bytes::copy_from_slice(&waiting_block())).await?,
                }
            },
        };
        match next {
            Ok(Some(next)) => block = Some(next),
            Ok(None) => return Ok(Ok(())),
            Err(refused) => return Ok(Err(refused)),
        }
    }
}

/// Blocks of a package file that is whole.
struct FileBlocks {
    file: Arc<dyn ReadAt>,
    total_bytes: u64,
    sending: Sending,
    /// What is left of the step that was taken last.
    step: std::ops::Range<u64>,
    pace: Box<dyn Pace>,
}

impl Blocks for FileBlocks {
    async fn next(&mut self) -> Result<Option<Bytes>, Refused> {
        if self.step.is_empty() {
            let SendStep::Data { from, to } = self.sending.next(self.total_bytes) else { return Ok(None) };
            self.step = from..to;
        }
        let wanted = self.step.end - self.step.start;
        let bytes = match self.pace.permit(self.step.start, wanted).await {
            Permit::Bytes(bytes) => bytes.min(wanted),
            Permit::Over(refused) => return Err(refused),
        };
        let from = self.step.start;
        self.step.start += bytes;
        read_block(&self.file, from..from + bytes).await.map(Some)
    }
}

async fn read_block(file: &Arc<dyn ReadAt>, range: std::ops::Range<u64>) -> Result<Bytes, Refused> {
    let file = file.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut block = BytesMut::zeroed((range.end - range.start) as usize);
        file.read_exact_at(&mut block, range.start)?;
        Ok::<_, std::io::Error>(block.freeze())
    });
    let error = match reading.await {
        Ok(Ok(block)) => return Ok(block),
        Ok(Err(error)) => error,
        Err(error) => std::io::Error::other(error),
    };
    tracing::error!(%error, "a package cannot be read");
    Err(Refused::new(code::INTERNAL, "the package cannot be read here"))
}

#[cfg(test)]
mod tests;
