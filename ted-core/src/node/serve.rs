//! Answering what the other side asks on the streams that it opens.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;
use crate::node::exchange::read_message;
use crate::node::live::{Live, LiveError, Ready};
use crate::package::ReadAt;
use crate::protocol::{
    Answer, Fetch, FetchAnswer, Refused, Request, SendStep, Sending, code, data_header, decode_request, encode_answer,
    end_block, error_block, waiting_block,
};
use crate::transport::{Connection, SendHalf};

/// How long a peer may take to say what it wants on a stream that it opened: a message is one packet or a few.
const QUESTION_PATIENCE: Duration = Duration::from_secs(30);

/// How often a peer is told that what it waits for is waited for here too: often enough for the shortest connection
/// timeout that makes sense.
const STILL_HERE: Duration = Duration::from_secs(3);

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
    /// From a package file of this many bytes; the callback hears how many were handed to the connection.
    File { file: Arc<dyn ReadAt>, bytes: u64, sent: Box<dyn FnMut(u64) + Send> },
    /// From a package that may still be arriving, each frame verified right before it goes out.
    Live(Relayed),
}

/// A package that is passed on.
pub(crate) struct Relayed {
    pub(crate) live: Arc<Live>,
    /// Hears how many bytes were handed to the connection.
    pub(crate) sent: Box<dyn FnMut(u64) + Send>,
    /// Hears of a frame that turned out not to be what the package's table says. None of it was sent.
    pub(crate) damaged: Box<dyn FnOnce(u64) + Send>,
}

/// What a node answers. One value serves one connection.
pub(crate) trait Answering: Send + Sync + 'static {
    fn answer(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// Answers every stream that the other side opens until the connection ends; gives the reason why it ended.
pub(crate) async fn serve<C: Connection>(connection: C, answering: Arc<impl Answering>, limits: Limits) -> String {
    let streams = TaskTracker::new();
    let limits = Arc::new(limits);
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
        Content::Live(relayed) => relayed.live.bytes(),
    };
    let answer = encode_answer(&Answer::Fetch(FetchAnswer { total_bytes }), limits)?;
    send.write(Bytes::from(answer)).await?;
    let mut sending = Sending::new(&fetch, total_bytes, limits);
    match content {
        Content::Bytes(bytes) => {
            while let SendStep::Data { from, to } = sending.next(total_bytes) {
                send.write(Bytes::copy_from_slice(&data_header((to - from) as u32))).await?;
                send.write(bytes.slice(from as usize..to as usize)).await?;
            }
        }
        Content::File { file, mut sent, .. } => {
            let mut ahead = read_step(&file, sending.next(total_bytes));
            while let Some(reading) = ahead {
                let block = match reading.await? {
                    Ok(block) => block,
                    Err(error) => {
                        tracing::error!(%error, "a package cannot be read");
                        let refused = Refused::new(code::INTERNAL, "the package cannot be read here");
                        return end_with(send, &refused).await;
                    }
                };
                // The next block is read while this one is sent: two blocks of memory for each Fetch, outside the
                // transport's send budget.
                ahead = read_step(&file, sending.next(total_bytes));
                let bytes = block.len() as u64;
                send.write(Bytes::copy_from_slice(&data_header(bytes as u32))).await?;
                send.write(block).await?;
                sent(bytes);
            }
        }
        Content::Live(relayed) => {
            if let Err(refused) = write_relayed(send, sending, relayed).await? {
                return end_with(send, &refused).await;
            }
        }
    }
    send.write(Bytes::copy_from_slice(&end_block())).await?;
    send.finish()?;
    Ok(())
}

async fn end_with<S: SendHalf>(
    send: &mut S,
    refused: &Refused,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    send.write(Bytes::from(error_block(refused))).await?;
    send.finish()?;
    Ok(())
}

/// Sends what is asked for of a package as it comes, and says now and then that it goes on. The inner error is what the
/// peer is told instead of the rest.
async fn write_relayed<S: SendHalf>(
    send: &mut S,
    mut sending: Sending,
    relayed: Relayed,
) -> Result<Result<(), Refused>, Box<dyn std::error::Error + Send + Sync>> {
    let Relayed { live, mut sent, damaged } = relayed;
    let mut changes = live.changes();
    let mut verified = 0..0;
    loop {
        changes.borrow_and_update();
        let available_to = match live.ready(sending.at()) {
            Ready::To(to) => to,
            Ready::NotYet => sending.at(),
            Ready::Over(refused) => return Ok(Err(refused)),
        };
        match sending.next(available_to) {
            SendStep::End => return Ok(Ok(())),
            SendStep::Waiting => {
                if timeout(STILL_HERE, changes.changed()).await.is_err() {
                    send.write(Bytes::copy_from_slice(&waiting_block())).await?;
                }
            }
            SendStep::Data { from, to } => {
                let (reading, mut known) = (live.clone(), verified);
                let read = tokio::task::spawn_blocking(move || (reading.read(from..to, &mut known), known)).await?;
                verified = read.1;
                match read.0 {
                    Ok(block) => {
                        let bytes = block.len() as u64;
                        send.write(Bytes::copy_from_slice(&data_header(bytes as u32))).await?;
                        send.write(block).await?;
                        sent(bytes);
                    }
                    Err(LiveError::Damaged { frame }) => {
                        damaged(frame);
                        return Ok(Err(Refused::new(
                            code::BUSY,
                            format!("frame {frame} is damaged here and is mended"),
                        )));
                    }
                    Err(LiveError::Unreadable(error)) => {
                        tracing::error!(%error, "a package cannot be read");
                        return Ok(Err(Refused::new(code::INTERNAL, "the package cannot be read here")));
                    }
                }
            }
        }
    }
}

type Reading = tokio::task::JoinHandle<std::io::Result<Bytes>>;

fn read_step(file: &Arc<dyn ReadAt>, step: SendStep) -> Option<Reading> {
    let SendStep::Data { from, to } = step else { return None };
    let file = file.clone();
    Some(tokio::task::spawn_blocking(move || {
        let mut block = BytesMut::zeroed((to - from) as usize);
        file.read_exact_at(&mut block, from)?;
        Ok(block.freeze())
    }))
}
