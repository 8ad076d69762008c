//! Requests and answers on streams, written against the protocol alone.

use std::sync::LazyLock;

use bytes::Bytes;
use ted_core::limits::Limits;
use ted_core::protocol::{
    Answer, BlockEvent, BlockReader, Fetch, FetchTarget, Message, MessageReader, Request, decode_answer, encode_request,
};
use ted_core::transport::{Connection, QuicConnection, RecvHalf, SendHalf};

use crate::Failure;

pub(crate) static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits::DEFAULT);

/// Asks and waits for the answer.
pub(crate) async fn ask(connection: &QuicConnection, request: &Request) -> Result<Answer, Failure> {
    let (mut send, mut recv) = connection.open().await?;
    send.write(Bytes::from(encode_request(request, &LIMITS)?)).await?;
    send.finish()?;
    let (message, _) = read_message(&mut recv).await?;
    match decode_answer(&message, &LIMITS)? {
        Answer::Refused(refused) => Err(format!("refused: {}: {}", refused.code(), refused.reason()).into()),
        answer => Ok(answer),
    }
}

/// Fetches the whole of something of at most `bytes_max` bytes.
pub(crate) async fn fetch(
    connection: &QuicConnection,
    target: FetchTarget,
    bytes_max: u64,
) -> Result<Vec<u8>, Failure> {
    let (mut send, mut recv) = connection.open().await?;
    let request = Request::Fetch(Fetch { target, from: 0, to: bytes_max });
    send.write(Bytes::from(encode_request(&request, &LIMITS)?)).await?;
    send.finish()?;
    let (message, rest) = read_message(&mut recv).await?;
    match decode_answer(&message, &LIMITS)? {
        Answer::Fetch(answer) if answer.total_bytes <= bytes_max => {}
        Answer::Refused(refused) => return Err(format!("refused: {}: {}", refused.code(), refused.reason()).into()),
        _ => return Err("the answer does not fit the question".into()),
    }
    let (mut blocks, mut all, mut pieces) = (BlockReader::new(&LIMITS), vec![], vec![rest]);
    loop {
        for piece in &pieces {
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                match blocks.next(&mut rest)? {
                    Some(BlockEvent::Data(bytes)) => all.extend_from_slice(bytes),
                    Some(BlockEvent::End) => return Ok(all),
                    Some(BlockEvent::Error(refused)) => return Err(refused.reason().to_owned().into()),
                    Some(BlockEvent::Waiting) | None => {}
                }
            }
        }
        pieces = recv.read_chunks().await?.ok_or("the answer ends early")?;
    }
}

/// The first message on a stream, and what was read after it.
pub(crate) async fn read_message(recv: &mut impl RecvHalf) -> Result<(Message, Bytes), Failure> {
    let mut reader = MessageReader::new(&LIMITS);
    let mut message = None;
    let mut left = vec![];
    while message.is_none() {
        for piece in recv.read_chunks().await?.ok_or("the message ends early")? {
            let mut rest: &[u8] = &piece;
            if message.is_none() {
                message = reader.push(&mut rest)?;
            }
            left.extend_from_slice(rest);
        }
    }
    Ok((message.ok_or("no message")?, Bytes::from(left)))
}
