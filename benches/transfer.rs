//! How fast a package comes to lie verified on a Subscriber's disk, beside what it is made of, measured in the same
//! run: raw quinn, BLAKE3, reading and writing. `cargo bench --bench transfer`, with an optional size in MiB.
//!
//! Everything is in one process on loopback, in a folder of `/dev/shm` where there is one, so that no disk is measured.
//! Rates on a shared machine drift; the ratios are what counts.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use ted_core::{DistributionSpec, Distributor, SendOptions, Subscriber, SubscriberEvent, Until};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MIB: usize = 1 << 20;
const ROUNDS: usize = 5;

/// The largest packets that TED's connections try; loopback takes them.
const PACKET_BYTES: u16 = 6500;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Cargo passes `--bench`.
    let size = std::env::args().skip(1).find_map(|argument| argument.parse::<usize>().ok()).unwrap_or(512) * MIB;
    let shared_memory = Path::new("/dev/shm");
    let parent = if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    let work = tempfile::Builder::new().prefix("ted-bench-").tempdir_in(parent)?;
    let source = work.path().join("source");
    std::fs::create_dir(&source)?;
    write_noise(&source.join("noise"), size)?;

    let mut rows = vec![];
    for _ in 0..ROUNDS {
        rows.push(Round {
            read: read(&source.join("noise"))?,
            write: write(&work.path().join("copy"), size)?,
            blake3: hash(size),
            quinn_default: quinn_bulk(size, None).await?,
            quinn: quinn_bulk(size, Some(PACKET_BYTES)).await?,
            ted: deliver(work.path(), &source).await?,
        });
    }
    print(size, &rows);
    Ok(())
}

/// Seconds that each thing took.
struct Round {
    read: f64,
    write: f64,
    blake3: f64,
    quinn_default: f64,
    quinn: f64,
    ted: f64,
}

impl Round {
    /// What one transfer should take: raw quinn keeps all cores busy, and the rest is shared among them.
    fn predicted(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        self.quinn + (self.blake3 + self.read + self.write) / cores
    }
}

fn print(size: usize, rows: &[Round]) {
    let row = |name: &str, seconds: &dyn Fn(&Round) -> f64| {
        let rate = size as f64 / 1e6 / median(rows.iter().map(seconds));
        println!("{name:<38} {rate:>8.0} MB/s");
    };
    println!("{} MiB of noise in one file, medians of {} rounds", size / MIB, rows.len());
    row("read", &|round| round.read);
    row("write", &|round| round.write);
    row("BLAKE3, one thread", &|round| round.blake3);
    row("raw quinn, its default packets", &|round| round.quinn_default);
    row("raw quinn, packets as large as ours", &|round| round.quinn);
    row("predicted from these", &Round::predicted);
    row("TED, verified on disk", &|round| round.ted);
    println!("TED / predicted  {:.2}", median(rows.iter().map(|round| round.predicted() / round.ted)));
    println!("TED / raw quinn  {:.2}", median(rows.iter().map(|round| round.quinn / round.ted)));
    let default = median(rows.iter().map(|round| round.quinn_default / round.ted));
    println!("TED / raw quinn, its default packets  {default:.2}");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn write_noise(path: &Path, size: usize) -> std::io::Result<()> {
    let mut noise = blake3::Hasher::new().update(b"ted bench").finalize_xof();
    let (mut file, mut block) = (File::create(path)?, vec![0; MIB]);
    for _ in 0..size / MIB {
        noise.fill(&mut block);
        file.write_all(&block)?;
    }
    Ok(())
}

fn read(path: &Path) -> std::io::Result<f64> {
    let started = Instant::now();
    let (mut file, mut block) = (File::open(path)?, vec![0; MIB]);
    while file.read(&mut block)? > 0 {}
    Ok(started.elapsed().as_secs_f64())
}

fn write(path: &Path, size: usize) -> std::io::Result<f64> {
    let block = vec![7; MIB];
    let started = Instant::now();
    let mut file = File::create(path)?;
    for _ in 0..size / MIB {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(seconds)
}

fn hash(size: usize) -> f64 {
    let block = vec![7; 4 * MIB];
    let started = Instant::now();
    for _ in 0..size / block.len() {
        std::hint::black_box(blake3::hash(&block));
    }
    started.elapsed().as_secs_f64()
}

/// The same bytes over one stream of one connection of bare quinn, with windows as wide as ours.
async fn quinn_bulk(size: usize, packet_bytes: Option<u16>) -> Result<f64, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let issued = rcgen::generate_simple_self_signed(vec!["bench.example".to_owned()])?;
    let certificate = CertificateDer::from(issued.cert);
    let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let server_tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client_tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(quinn::VarInt::from_u32(16 << 20))
        .receive_window(quinn::VarInt::from_u32(24 << 20))
        .send_window(16 << 20);
    let mut endpoint = quinn::EndpointConfig::default();
    if let Some(bytes) = packet_bytes {
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(bytes);
        transport.mtu_discovery_config(Some(discovery)).send_window(4 << 20);
        endpoint.max_udp_payload_size(bytes)?;
    }
    let transport = Arc::new(transport);
    let mut server =
        quinn::ServerConfig::with_crypto(Arc::new(quinn::crypto::rustls::QuicServerConfig::try_from(server_tls)?));
    server.transport_config(transport.clone());
    let mut client = quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(client_tls)?));
    client.transport_config(transport);

    let socket = || std::net::UdpSocket::bind("127.0.0.1:0");
    let runtime = Arc::new(quinn::TokioRuntime);
    let listener = quinn::Endpoint::new(endpoint.clone(), Some(server), socket()?, runtime.clone())?;
    let address = listener.local_addr()?;
    let sending = tokio::spawn(async move {
        let connection = listener.accept().await.ok_or("nobody came")?.await?;
        let (mut send, _) = connection.accept_bi().await?;
        let block = Bytes::from(vec![7; MIB]);
        for _ in 0..size / MIB {
            send.write_chunk(block.clone()).await?;
        }
        send.finish()?;
        connection.closed().await;
        Ok::<_, Failure>(())
    });
    let dialler = quinn::Endpoint::new(endpoint, None, socket()?, runtime)?;
    let connection = dialler.connect_with(client, address, "bench.example")?.await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    let started = Instant::now();
    send.write_all(b"go").await?;
    let (mut pieces, mut received) = (vec![Bytes::new(); 128], 0);
    while let Some(count) = recv.read_chunks(&mut pieces).await? {
        received += pieces[..count].iter().map(Bytes::len).sum::<usize>();
    }
    let seconds = started.elapsed().as_secs_f64();
    connection.close(0u32.into(), b"");
    sending.await??;
    if received != size { Err("bytes are missing".into()) } else { Ok(seconds) }
}

/// From `send` to a package that lies verified on the Subscriber's disk. The build is not part of it.
async fn deliver(work: &Path, source: &Path) -> Result<f64, Failure> {
    let run: PathBuf = work.join("run");
    let distributor = Distributor::builder(run.join("distributor"))
        .name("distributor.example".parse()?)
        .listen("127.0.0.1:0".parse()?)
        .open()
        .await?;
    distributor.start().await?;
    distributor.create_distribution(DistributionSpec::new("noise".parse()?, source)).await?;
    distributor.create_channel("bench".parse()?, &["noise".parse()?], &[]).await?;
    distributor.build(&"noise".parse()?).await?;
    let invite = distributor.invite(&"subscriber.example".parse()?, &["bench".parse()?], &[]).await?;
    let subscriber = Subscriber::builder(run.join("subscriber")).join(&invite).await?;
    let mut events = subscriber.events();
    subscriber.start().await?;
    while !matches!(events.next().await, Some(SubscriberEvent::Connected { .. })) {}

    let started = Instant::now();
    let firing = distributor.send(&"bench".parse()?, SendOptions { build: false }).await?;
    while let Some(event) = events.next().await {
        match event {
            SubscriberEvent::Received { .. } => break,
            SubscriberEvent::Failed { reason, .. } => return Err(reason.into()),
            _ => {}
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    distributor.wait(firing, Until::Extracted, None).await?;
    subscriber.shutdown().await;
    distributor.shutdown().await;
    drop((subscriber, distributor));
    std::fs::remove_dir_all(&run)?;
    Ok(seconds)
}
