//! What every connection does, run against each kind of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::limits::Limits;
use crate::security::PeerRole;
use crate::transport::fixtures::{Pair, memory_pair, quic_pair};
use crate::transport::{CLOSE_DONE, Connection, ConnectionError, RecvHalf, STREAM_ABANDONED, SendHalf};

macro_rules! conformance {
    ($($check:ident),* $(,)?) => {
        mod quic {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::$check(super::quic_pair().await).await;
            })*
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::$check(super::memory_pair().await).await;
            })*
        }
    };
}

conformance!(
    each_side_asks_and_is_answered_on_streams_of_its_own,
    each_side_knows_the_other,
    a_half_that_ended_takes_nothing_more_and_the_other_half_lives_on,
    a_reset_is_seen_with_its_code,
    a_writer_that_is_dropped_never_looks_complete,
    a_stop_reaches_the_writer_with_its_code,
    a_reader_that_is_dropped_stops_the_writer,
    a_writer_waits_while_nobody_reads_and_loses_nothing,
    more_streams_than_are_allowed_wait_for_their_turn,
    many_streams_at_once_keep_their_bytes_apart,
    the_other_side_sees_why_a_connection_was_closed,
    a_connection_that_everybody_dropped_is_closed,
    a_cut_ends_everything_at_both_ends,
);

const QUESTION: Bytes = Bytes::from_static(b"a question");
const ANSWER: Bytes = Bytes::from_static(b"an answer");

async fn read_all(recv: &mut impl RecvHalf) -> Result<Vec<u8>, ConnectionError> {
    let mut all = vec![];
    while let Some(pieces) = recv.read_chunks().await? {
        assert!(pieces.iter().any(|piece| !piece.is_empty()), "a read that is no end yields something");
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    }
    Ok(all)
}

/// Writes until the stream fails, which it must.
async fn write_until_it_fails(send: &mut impl SendHalf) -> ConnectionError {
    loop {
        if let Err(error) = send.write(Bytes::from_static(&[1; 4096])).await {
            return error;
        }
    }
}

async fn ask<C: Connection>(from: &C) -> Result<Vec<u8>, ConnectionError> {
    let (mut send, mut recv) = from.open().await?;
    send.write(QUESTION).await?;
    send.finish()?;
    read_all(&mut recv).await
}

async fn answer_one<C: Connection>(at: &C) {
    let (mut send, mut recv) = at.accept().await.unwrap();
    assert_eq!(read_all(&mut recv).await.unwrap(), QUESTION);
    send.write(ANSWER).await.unwrap();
    send.finish().unwrap();
}

/// A stream of `pair` with a byte through it, so that both ends know it: the writer here, the reader there.
async fn one_way<C: Connection>(pair: &Pair<C>) -> (C::Send, C::Recv) {
    let (mut send, _) = pair.dialler.open().await.unwrap();
    send.write(Bytes::from_static(b"x")).await.unwrap();
    let (_, mut recv) = pair.listener.accept().await.unwrap();
    assert_eq!(recv.read_chunks().await.unwrap().unwrap().concat(), b"x");
    (send, recv)
}

async fn each_side_asks_and_is_answered_on_streams_of_its_own<C: Connection>(pair: Pair<C>) {
    for (asking, answering) in [(&pair.dialler, &pair.listener), (&pair.listener, &pair.dialler)] {
        for _ in 0..3 {
            let (answer, ()) = tokio::join!(ask(asking), answer_one(answering));
            assert_eq!(answer.unwrap(), ANSWER);
        }
    }
}

async fn each_side_knows_the_other<C: Connection>(pair: Pair<C>) {
    assert_eq!(pair.dialler.peer().role, PeerRole::Distributor);
    assert_eq!(pair.listener.peer().role, PeerRole::Subscriber);
    assert_eq!(pair.dialler.peer().fleet, pair.listener.peer().fleet);
    assert!(pair.dialler.rtt() < crate::transport::fixtures::QUICK.handshake);
}

async fn a_half_that_ended_takes_nothing_more_and_the_other_half_lives_on<C: Connection>(pair: Pair<C>) {
    let (mut send, mut back) = pair.dialler.open().await.unwrap();
    send.write(Bytes::new()).await.unwrap();
    send.write(QUESTION).await.unwrap();
    send.finish().unwrap();
    assert_eq!(send.finish(), Err(ConnectionError::StreamOver));
    assert_eq!(send.write(QUESTION).await, Err(ConnectionError::StreamOver));
    send.reset(9);
    let (mut answer, mut recv) = pair.listener.accept().await.unwrap();
    if let Ok(read) = read_all(&mut recv).await {
        assert_eq!(read, QUESTION);
        assert_eq!(recv.read_chunks().await, Ok(None), "the end stays the end");
    }
    answer.write(ANSWER).await.unwrap();
    answer.finish().unwrap();
    assert_eq!(read_all(&mut back).await.unwrap(), ANSWER);
}

async fn a_reset_is_seen_with_its_code<C: Connection>(pair: Pair<C>) {
    let (mut send, mut recv) = one_way(&pair).await;
    send.reset(42);
    assert_eq!(send.write(QUESTION).await, Err(ConnectionError::StreamOver));
    assert_eq!(recv.read_chunks().await, Err(ConnectionError::Reset { code: 42 }));
}

async fn a_writer_that_is_dropped_never_looks_complete<C: Connection>(pair: Pair<C>) {
    let (send, mut recv) = one_way(&pair).await;
    drop(send);
    assert_eq!(read_all(&mut recv).await, Err(ConnectionError::Reset { code: STREAM_ABANDONED }));
}

async fn a_stop_reaches_the_writer_with_its_code<C: Connection>(pair: Pair<C>) {
    let (mut send, mut recv) = one_way(&pair).await;
    recv.stop(43);
    assert_eq!(recv.read_chunks().await, Err(ConnectionError::StreamOver));
    assert_eq!(write_until_it_fails(&mut send).await, ConnectionError::Stopped { code: 43 });
    recv.stop(44);
    assert_eq!(recv.read_chunks().await, Err(ConnectionError::StreamOver));
}

async fn a_reader_that_is_dropped_stops_the_writer<C: Connection>(pair: Pair<C>) {
    let (mut send, recv) = one_way(&pair).await;
    drop(recv);
    assert_eq!(write_until_it_fails(&mut send).await, ConnectionError::Stopped { code: STREAM_ABANDONED });
}

async fn a_writer_waits_while_nobody_reads_and_loses_nothing<C: Connection>(pair: Pair<C>) {
    const PIECE: u64 = 1024 * 1024;
    const TOTAL: u64 = 64 * PIECE;
    // Send window, stream window, and the piece in hand.
    const AHEAD_MAX: u64 = (16 + 16 + 1) * PIECE;
    let (mut send, mut recv) = one_way(&pair).await;
    let written = Arc::new(AtomicU64::new(0));
    let counter = written.clone();
    let writer = tokio::spawn(async move {
        let mut hash = blake3::Hasher::new();
        for number in 0..TOTAL / PIECE {
            let piece: Bytes = (0..PIECE).map(|at| (at / 251 + number * 7) as u8).collect::<Vec<_>>().into();
            hash.update(&piece);
            send.write(piece).await.unwrap();
            counter.fetch_add(PIECE, Ordering::SeqCst);
        }
        send.finish().unwrap();
        hash.finalize()
    });
    // Other streams go on. Once many questions in a row were answered while the writer made no progress, it waits.
    let (mut before, mut quiet) = (u64::MAX, 0);
    while quiet < 100 {
        let (answer, ()) = tokio::join!(ask(&pair.listener), answer_one(&pair.dialler));
        assert_eq!(answer.unwrap(), ANSWER);
        let now = written.load(Ordering::SeqCst);
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    assert!(before <= AHEAD_MAX && !writer.is_finished(), "{before} bytes were taken that nobody reads");
    let (mut hash, mut read) = (blake3::Hasher::new(), 0);
    while let Some(pieces) = recv.read_chunks().await.unwrap() {
        for piece in pieces {
            hash.update(&piece);
            read += piece.len() as u64;
        }
        assert!(written.load(Ordering::SeqCst) <= read + AHEAD_MAX);
    }
    assert_eq!((read, hash.finalize()), (TOTAL, writer.await.unwrap()));
}

async fn more_streams_than_are_allowed_wait_for_their_turn<C: Connection>(pair: Pair<C>) {
    let (mut opened, mut accepted) = (vec![], vec![]);
    for _ in 0..Limits::DEFAULT.streams_max {
        let (mut send, recv) = pair.dialler.open().await.unwrap();
        send.write(QUESTION).await.unwrap();
        opened.push((send, recv));
        accepted.push(pair.listener.accept().await.unwrap());
    }
    let dialler = pair.dialler.clone();
    let one_more = tokio::spawn(async move { dialler.open().await.map(drop) });
    let (answer, ()) = tokio::join!(ask(&pair.listener), answer_one(&pair.dialler));
    assert_eq!(answer.unwrap(), ANSWER);
    assert!(!one_more.is_finished(), "no more streams than allowed");
    // Credit may come back in lots.
    for _ in 0..Limits::DEFAULT.streams_max / 2 {
        let ((mut send, mut back), (mut answer, mut recv)) = (opened.pop().unwrap(), accepted.pop().unwrap());
        send.finish().unwrap();
        assert_eq!(read_all(&mut recv).await.unwrap(), QUESTION);
        answer.finish().unwrap();
        assert_eq!(read_all(&mut back).await.unwrap(), b"");
    }
    one_more.await.unwrap().unwrap();
}

async fn many_streams_at_once_keep_their_bytes_apart<C: Connection>(pair: Pair<C>) {
    const STREAMS: usize = 300;
    let echoing = pair.listener.clone();
    let echo = tokio::spawn(async move {
        for _ in 0..STREAMS {
            let (mut send, mut recv) = echoing.accept().await.unwrap();
            tokio::spawn(async move {
                while let Some(pieces) = recv.read_chunks().await.unwrap() {
                    for piece in pieces {
                        send.write(piece).await.unwrap();
                    }
                }
                send.finish().unwrap();
            });
        }
    });
    let mut asking = vec![];
    for number in 0..STREAMS {
        let connection = pair.dialler.clone();
        asking.push(tokio::spawn(async move {
            let (mut send, mut recv) = connection.open().await.unwrap();
            let words: Vec<u8> = (0..10_000 + number).map(|at| (at * (number + 1)) as u8).collect();
            send.write(Bytes::from(words.clone())).await.unwrap();
            send.finish().unwrap();
            assert!(read_all(&mut recv).await.unwrap() == words, "stream {number}");
        }));
    }
    for task in asking {
        task.await.unwrap();
    }
    echo.await.unwrap();
}

async fn the_other_side_sees_why_a_connection_was_closed<C: Connection>(pair: Pair<C>) {
    let (mut send, mut recv) = one_way(&pair).await;
    let reading = tokio::spawn(async move { recv.read_chunks().await });
    pair.dialler.close(77, "TED-0077: words");
    pair.dialler.close(78, "later words");
    let there = ConnectionError::ClosedByPeer { code: 77, reason: "TED-0077: words".to_owned() };
    assert_eq!(pair.listener.closed().await, there);
    assert_eq!(reading.await.unwrap(), Err(there.clone()));
    assert_eq!(pair.listener.open().await.map(drop), Err(there.clone()));
    assert_eq!(pair.listener.accept().await.map(drop), Err(there));
    assert_eq!(pair.dialler.closed().await, ConnectionError::ClosedHere);
    assert_eq!(write_until_it_fails(&mut send).await, ConnectionError::ClosedHere);
    assert_eq!(pair.dialler.open().await.map(drop), Err(ConnectionError::ClosedHere));
}

async fn a_connection_that_everybody_dropped_is_closed<C: Connection>(pair: Pair<C>) {
    let clone = pair.dialler.clone();
    drop(pair.dialler);
    let (answer, ()) = tokio::join!(ask(&pair.listener), answer_one(&clone));
    assert_eq!(answer.unwrap(), ANSWER);
    drop(clone);
    let closed = ConnectionError::ClosedByPeer { code: CLOSE_DONE, reason: String::new() };
    assert_eq!(pair.listener.closed().await, closed);
}

async fn a_cut_ends_everything_at_both_ends<C: Connection>(pair: Pair<C>) {
    let (mut send, mut recv) = one_way(&pair).await;
    (pair.cut)();
    let (reading, writing, here, there) = tokio::join!(
        read_all(&mut recv),
        write_until_it_fails(&mut send),
        pair.dialler.closed(),
        pair.listener.closed(),
    );
    assert_eq!(reading, Err(ConnectionError::TimedOut));
    assert_eq!([writing, here, there], [const { ConnectionError::TimedOut }; 3]);
    assert_eq!(pair.listener.accept().await.map(drop), Err(ConnectionError::TimedOut));
}
