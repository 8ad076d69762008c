//! One request and its answer on one stream, and the blocks that follow an answered Fetch.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::error::Coded;
use crate::limits::Limits;
use crate::protocol::{
    Answer, BlockError, BlockEvent, BlockReader, Fetch, Message, MessageError, MessageReader, Refused, Request, code,
    decode_answer, encode_request,
};
use crate::transport::{Connection, ConnectionError, RecvHalf, SendHalf};

/// Why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the connection failed")]
    Connection(#[from] ConnectionError),
    #[error("the answer cannot be read")]
    Message(#[from] MessageError),
    #[error("the answer's blocks cannot be read")]
    Block(#[from] BlockError),
    #[error("the other side refuses: {0}")]
    Refused(Refused),
    #[error("the other side does not know this request")]
    Unsupported,
    #[error("the answer does not fit the question")]
    Unexpected,
    #[error("the answer ends early")]
    EndsEarly,
    #[error("the other side was silent for {} s", .0.as_secs())]
    Silent(Duration),
}

impl Coded for ExchangeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Connection(error) => error.code(),
            Self::Message(error) => error.code(),
            Self::Block(error) => error.code(),
            Self::Refused(_) => "TED-1820",
            Self::Unsupported => "TED-1821",
            Self::Unexpected => "TED-1822",
            Self::EndsEarly => "TED-1823",
            Self::Silent(_) => code::SILENCE,
        }
    }

    fn is_retryable(&self) -> bool {
        match self {
            Self::Connection(_) | Self::EndsEarly | Self::Silent(_) => true,
            Self::Refused(refused) => refused.is_retryable(),
            _ => false,
        }
    }
}

/// Asks `request` and waits for its answer, at most `patience`.
pub(crate) async fn ask<C: Connection>(
    connection: &C,
    request: &Request,
    limits: &Limits,
    patience: Duration,
) -> Result<Answer, ExchangeError> {
    let asking = async {
        let mut incoming = begin(connection, request, limits).await?;
        incoming.answer(limits).await
    };
    timeout(patience, asking).await.map_err(|_| ExchangeError::Silent(patience))?
}

/// Asks for bytes. What comes back yields them as they arrive.
pub(crate) async fn fetch<C: Connection>(
    connection: &C,
    fetch: Fetch,
    limits: &Limits,
    patience: Duration,
) -> Result<Fetched<C::Recv>, ExchangeError> {
    let asking = async {
        let mut incoming = begin(connection, &Request::Fetch(fetch), limits).await?;
        let Answer::Fetch(answer) = incoming.answer(limits).await? else { return Err(ExchangeError::Unexpected) };
        let blocks = BlockReader::new(limits);
        Ok(Fetched { incoming, blocks, total_bytes: answer.total_bytes, patience, ended: false })
    };
    timeout(patience, asking).await.map_err(|_| ExchangeError::Silent(patience))?
}

/// Reads one message, the first on a stream that the other side opened.
pub(crate) async fn read_message<R: RecvHalf>(recv: &mut R, limits: &Limits) -> Result<Message, ExchangeError> {
    let mut pending = VecDeque::new();
    message(recv, &mut pending, limits).await
}

async fn begin<C: Connection>(
    connection: &C,
    request: &Request,
    limits: &Limits,
) -> Result<Incoming<C::Recv>, ExchangeError> {
    let (mut send, recv) = connection.open().await?;
    send.write(Bytes::from(encode_request(request, limits)?)).await?;
    send.finish()?;
    Ok(Incoming { recv, pending: VecDeque::new() })
}

/// The receiving half of a stream, with what was read from it and not used yet.
struct Incoming<R> {
    recv: R,
    pending: VecDeque<Bytes>,
}

/// The front of what is there; reads more if nothing is. `None` at the end of the stream.
async fn front<'a, R: RecvHalf>(
    recv: &mut R,
    pending: &'a mut VecDeque<Bytes>,
) -> Result<Option<&'a mut Bytes>, ExchangeError> {
    while pending.front().is_some_and(Bytes::is_empty) {
        pending.pop_front();
    }
    if pending.is_empty() {
        let Some(chunks) = recv.read_chunks().await? else { return Ok(None) };
        pending.extend(chunks);
    }
    Ok(pending.front_mut())
}

async fn message<R: RecvHalf>(
    recv: &mut R,
    pending: &mut VecDeque<Bytes>,
    limits: &Limits,
) -> Result<Message, ExchangeError> {
    let mut reader = MessageReader::new(limits);
    loop {
        let Some(front) = front(recv, pending).await? else { return Err(ExchangeError::EndsEarly) };
        let mut rest: &[u8] = front;
        let message = reader.push(&mut rest)?;
        let used = front.len() - rest.len();
        let _ = front.split_to(used);
        if let Some(message) = message {
            return Ok(message);
        }
    }
}

impl<R: RecvHalf> Incoming<R> {
    async fn answer(&mut self, limits: &Limits) -> Result<Answer, ExchangeError> {
        let message = message(&mut self.recv, &mut self.pending, limits).await?;
        match decode_answer(&message, limits)? {
            Answer::Refused(refused) => Err(ExchangeError::Refused(refused)),
            Answer::Unsupported { .. } => Err(ExchangeError::Unsupported),
            answer => Ok(answer),
        }
    }
}

/// An answered Fetch whose bytes are arriving.
pub(crate) struct Fetched<R> {
    incoming: Incoming<R>,
    blocks: BlockReader,
    total_bytes: u64,
    patience: Duration,
    ended: bool,
}

impl<R: RecvHalf> Fetched<R> {
    /// Refuses an answer about something of another length than was stated.
    pub(crate) fn expect_total(&self, bytes: u64) -> Result<(), ExchangeError> {
        if self.total_bytes == bytes { Ok(()) } else { Err(ExchangeError::Unexpected) }
    }

    /// The next bytes, and whatever has arrived with them up to about `bytes_wanted`; none where the other side says that
    /// it waits itself; `None` at the end of a complete answer. Silence counts from the last sign of life.
    pub(crate) async fn next_batch(&mut self, bytes_wanted: usize) -> Result<Option<Vec<Bytes>>, ExchangeError> {
        let (mut length, mut batch) = (0, vec![]);
        while !self.ended && length < bytes_wanted {
            if self.incoming.pending.is_empty() && !batch.is_empty() {
                break;
            }
            let Incoming { recv, pending } = &mut self.incoming;
            let front = timeout(self.patience, front(recv, pending)).await;
            let front = front.map_err(|_| ExchangeError::Silent(self.patience))??;
            let Some(front) = front else { return Err(ExchangeError::EndsEarly) };
            let whole = front.clone();
            let mut rest: &[u8] = &whole;
            let event = self.blocks.next(&mut rest)?;
            let used = front.len() - rest.len();
            let _ = front.split_to(used);
            match event {
                Some(BlockEvent::Data(bytes)) => {
                    length += bytes.len();
                    batch.push(whole.slice_ref(bytes));
                }
                Some(BlockEvent::End) => self.ended = true,
                Some(BlockEvent::Error(refused)) => return Err(ExchangeError::Refused(refused)),
                Some(BlockEvent::Waiting) if batch.is_empty() => return Ok(Some(batch)),
                Some(BlockEvent::Waiting) | None => {}
            }
        }
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }

    /// All the bytes, of which there may be `bytes_max`.
    pub(crate) async fn collect(mut self, bytes_max: u64) -> Result<Vec<u8>, ExchangeError> {
        let mut all = Vec::new();
        while let Some(batch) = self.next_batch(usize::MAX).await? {
            for bytes in batch {
                if all.len() as u64 + bytes.len() as u64 > bytes_max {
                    return Err(ExchangeError::Unexpected);
                }
                all.extend_from_slice(&bytes);
            }
        }
        Ok(all)
    }
}
