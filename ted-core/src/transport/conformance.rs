//! What every [`Connection`] must do, run against each of them.

use bytes::Bytes;

use crate::transport::{Connection, ConnectionError, MemoryConnection, RecvHalf, SendHalf, StreamError};

/// Larger than any stream window but QUIC's own, so that writers wait for readers.
const LARGE_BYTES: usize = 4 * 1024 * 1024;

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::memory_pair()).await; })*
        }
        mod quic {
            $(#[tokio::test] async fn $name() {
                let (a, b, _endpoints) = crate::transport::endpoint::tests::quic_pair().await;
                super::$name((a, b)).await;
            })*
        }
    };
}

conformance!(
    either_side_asks_and_is_answered,
    much_data_arrives_whole_and_in_order_while_the_reader_is_slow,
    many_streams_live_side_by_side,
    what_was_written_before_the_end_is_read_and_then_the_end,
    a_reset_reaches_the_reader,
    a_stop_reaches_the_writer,
    a_dropped_writer_never_looks_like_a_clean_end,
    a_close_tells_the_peer_code_and_reason,
    everything_delivered_can_be_waited_for,
    dropping_the_last_handle_closes_in_order,
);

fn memory_pair() -> (MemoryConnection, MemoryConnection) {
    let peers = crate::transport::endpoint::tests::peers();
    MemoryConnection::pair(peers)
}

async fn write<S: SendHalf>(send: &mut S, text: &'static str) {
    send.write(Bytes::from_static(text.as_bytes())).await.unwrap();
}

/// Everything up to the end, or the error that came instead.
async fn read_all<R: RecvHalf>(recv: &mut R) -> Result<Vec<u8>, StreamError> {
    let mut chunks: [Bytes; 8] = Default::default();
    let mut all = Vec::new();
    while let Some(count) = recv.read_chunks(&mut chunks).await? {
        for chunk in &chunks[..count] {
            all.extend_from_slice(chunk);
        }
    }
    Ok(all)
}

async fn ask<C: Connection>((a, b): (&C, &C)) {
    let asks = async {
        let (mut send, mut recv) = a.open().await.unwrap();
        write(&mut send, "question").await;
        send.finish().unwrap();
        assert_eq!(read_all(&mut recv).await.unwrap(), b"answer");
    };
    let answers = async {
        let (mut send, mut recv) = b.accept().await.unwrap();
        assert_eq!(read_all(&mut recv).await.unwrap(), b"question");
        write(&mut send, "answer").await;
        send.finish().unwrap();
        send.delivered().await.unwrap();
    };
    tokio::join!(asks, answers);
}

async fn either_side_asks_and_is_answered<C: Connection>((a, b): (C, C)) {
    ask((&a, &b)).await;
    ask((&b, &a)).await;
    assert!(a.stats().sent_bytes > 0 && b.stats().received_bytes > 0);
    assert_ne!(a.peer(), b.peer());
}

async fn much_data_arrives_whole_and_in_order_while_the_reader_is_slow<C: Connection>((a, b): (C, C)) {
    let data: Bytes = (0..LARGE_BYTES).map(|at| (at * 31 / 7) as u8).collect::<Vec<_>>().into();
    let (mut send, _unused) = a.open().await.unwrap();
    let writes = async {
        for at in (0..LARGE_BYTES).step_by(60_000) {
            send.write(data.slice(at..LARGE_BYTES.min(at + 60_000))).await.unwrap();
        }
        send.finish().unwrap();
        send.delivered().await.unwrap();
    };
    let reads = async {
        let (_unused, mut recv) = b.accept().await.unwrap();
        tokio::task::yield_now().await;
        read_all(&mut recv).await.unwrap()
    };
    let ((), got) = tokio::join!(writes, reads);
    assert!(got == data, "{} bytes of {LARGE_BYTES}", got.len());
}

async fn many_streams_live_side_by_side<C: Connection>((a, b): (C, C)) {
    const STREAMS: u8 = 20;
    let mut opened = Vec::new();
    for number in 0..STREAMS {
        let (mut send, recv) = a.open().await.unwrap();
        send.write(Bytes::from(vec![number])).await.unwrap();
        opened.push((send, recv));
    }
    let mut accepted = Vec::new();
    for _ in 0..STREAMS {
        accepted.push(b.accept().await.unwrap());
    }
    for (mut send, _) in opened {
        send.finish().unwrap();
    }
    let mut numbers = Vec::new();
    for (_, recv) in &mut accepted {
        numbers.extend(read_all(recv).await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..STREAMS).collect::<Vec<_>>());
}

async fn what_was_written_before_the_end_is_read_and_then_the_end<C: Connection>((a, b): (C, C)) {
    let (mut send, _back) = a.open().await.unwrap();
    write(&mut send, "").await;
    write(&mut send, "all").await;
    send.finish().unwrap();
    assert!(matches!(send.write(Bytes::from_static(b"more")).await, Err(StreamError::Ended)));
    let (_there, mut recv) = b.accept().await.unwrap();
    assert_eq!(read_all(&mut recv).await.unwrap(), b"all");
    // Dropped after the end, it changes nothing.
    drop(send);
}

async fn a_reset_reaches_the_reader<C: Connection>((a, b): (C, C)) {
    let (mut send, _back) = a.open().await.unwrap();
    write(&mut send, "part").await;
    let (_there, mut recv) = b.accept().await.unwrap();
    send.reset(42);
    assert_eq!(read_all(&mut recv).await, Err(StreamError::Reset { code: 42 }));
}

async fn a_stop_reaches_the_writer<C: Connection>((a, b): (C, C)) {
    let (mut send, _back) = a.open().await.unwrap();
    write(&mut send, "part").await;
    let (_there, mut recv) = b.accept().await.unwrap();
    recv.stop(43);
    let stopped = loop {
        if let Err(error) = send.write(Bytes::from_static(&[0; 1000])).await {
            break error;
        }
    };
    assert_eq!(stopped, StreamError::Stopped { code: 43 });
}

async fn a_dropped_writer_never_looks_like_a_clean_end<C: Connection>((a, b): (C, C)) {
    let (mut send, _back) = a.open().await.unwrap();
    write(&mut send, "part of it").await;
    let (_there, mut recv) = b.accept().await.unwrap();
    drop(send);
    assert_eq!(read_all(&mut recv).await, Err(StreamError::Reset { code: 0 }));
}

async fn a_close_tells_the_peer_code_and_reason<C: Connection>((a, b): (C, C)) {
    let (mut send, _back) = a.open().await.unwrap();
    write(&mut send, "part").await;
    let (_there, mut recv) = b.accept().await.unwrap();
    a.close(1305, "TED-1305: revoked");
    let told = ConnectionError::Closed { code: 1305, reason: "TED-1305: revoked".to_owned() };
    assert_eq!(b.closed().await, told);
    assert_eq!(b.accept().await.err(), Some(told.clone()));
    assert_eq!(b.open().await.err(), Some(told.clone()));
    assert_eq!(read_all(&mut recv).await, Err(StreamError::Connection(told)));
    assert_eq!(a.closed().await, ConnectionError::ClosedHere);
    assert!(send.write(Bytes::from_static(b"more")).await.is_err());
}

async fn everything_delivered_can_be_waited_for<C: Connection>((a, b): (C, C)) {
    let (mut send, _back) = a.open().await.unwrap();
    write(&mut send, "last words").await;
    send.finish().unwrap();
    let reads = async {
        let (there, mut recv) = b.accept().await.unwrap();
        let words = read_all(&mut recv).await.unwrap();
        (words, there)
    };
    let (delivered, (words, _there)) = tokio::join!(send.delivered(), reads);
    delivered.unwrap();
    assert_eq!(words, b"last words");
}

async fn dropping_the_last_handle_closes_in_order<C: Connection>((a, b): (C, C)) {
    let (send, recv) = a.open().await.unwrap();
    let clone = a.clone();
    drop(a);
    drop(clone);
    drop((send, recv));
    assert_eq!(b.closed().await, ConnectionError::Closed { code: 0, reason: String::new() });
}

#[tokio::test]
async fn a_cut_memory_connection_looks_like_a_dead_network_from_both_ends() {
    let (a, b) = memory_pair();
    let (mut send, _back) = a.open().await.unwrap();
    write(&mut send, "part").await;
    a.cut();
    assert_eq!(a.closed().await, ConnectionError::TimedOut);
    assert_eq!(b.accept().await.err(), Some(ConnectionError::TimedOut));
    assert!(send.write(Bytes::from_static(b"more")).await.is_err());
}
