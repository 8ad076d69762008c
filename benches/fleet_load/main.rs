//! What thousands of connected Subscribers cost one Distributor: `make fleet-load`, or `cargo bench --bench fleet_load --
//! --subscribers 10000 --channels 1000`.
//!
//! The Distributor is the built `ted-distributor`, in a process of its own. The Subscribers are in this process, each
//! with keys, certificates and a connection of its own: they enrol with a token, greet, answer announcements and offers,
//! fetch, verify every hash, and send signed receipts. Beside it, in the same run and measured in the same way, stands a
//! server that is quinn with mutual TLS and nothing else.
//!
//! On a loopback interface connections find packets of 6,500 bytes, and quinn keeps ten of them for each connection that
//! sent bulk. `make fleet-load` sets its interface, in a network namespace, to the 1,500 bytes that links have.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod bare;
mod distributor;
mod exchange;
mod node;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ted_core::transport::{Connection as _, QuicConnection};
use tokio::task::JoinSet;

use distributor::Distributor;
use node::{Counts, Fleet, Node};
use process::{Server, Usage};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Nodes that enrol, or connect for the first time, at the same time.
const AT_ONCE: usize = 64;

/// How often a node that is not let in tries again, and after which pause.
const ATTEMPTS: u32 = 60;
const AGAIN: Duration = Duration::from_millis(500);

/// Nodes that share one UDP socket.
const EACH_SOCKET: usize = 250;

/// How long a firing may take.
const PATIENCE: Duration = Duration::from_secs(900);

struct Options {
    subscribers: usize,
    channels: usize,
    settle: Duration,
    idle: Duration,
    package_kib: usize,
    /// Where the Distributor's data directory is made.
    folder: PathBuf,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(at) = arguments.iter().position(|argument| argument == "--bare-server") {
        let folder = arguments.get(at + 1).ok_or("--bare-server takes a folder")?;
        return runtime.block_on(bare::serve(Path::new(folder)));
    }
    let number = |name: &str, default: usize| -> Result<usize, Failure> {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(Ok(default), |at| Ok(arguments.get(at + 1).ok_or(format!("{name} takes a number"))?.parse()?))
    };
    let folder = arguments.iter().position(|argument| argument == "--folder").and_then(|at| arguments.get(at + 1));
    let options = Options {
        folder: folder.map_or_else(std::env::temp_dir, PathBuf::from),
        subscribers: number("--subscribers", 2000)?,
        channels: number("--channels", 1000)?,
        settle: Duration::from_secs(number("--settle", 30)? as u64),
        idle: Duration::from_secs(number("--idle", 30)? as u64),
        package_kib: number("--package-kib", 64)?,
    };
    runtime.block_on(measure(&options))
}

async fn measure(options: &Options) -> Result<(), Failure> {
    let work = tempfile::Builder::new().prefix("ted-load-").tempdir_in(&options.folder)?;
    println!(
        "{} Subscribers, {} Channels, a package of {} KiB",
        options.subscribers, options.channels, options.package_kib
    );

    let bare = bare_connections(work.path(), options).await?;
    let distributor = Distributor::create(binary()?, work.path())?;
    let (server, _) = distributor.run()?;
    let fleet =
        Arc::new(Fleet { root: distributor.root()?.root, address: distributor.address, counts: Counts::default() });
    let nodes = enrol(&distributor, &server, &fleet, options).await?;
    declare(&distributor, options, work.path())?;
    server.end()?;
    let (server, start) = distributor.run()?;
    row("started with that fleet, answering after", format!("{} ms", start.as_millis()));

    let ted = ted_connections(&server, &fleet, &nodes, options).await?;
    row("TED / bare, memory for each connection", format!("{:.2}", ted.kib_each / bare.kib_each));
    let began = Instant::now();
    tokio::task::block_in_place(|| distributor.cli(&["status"]))?;
    row("`status` answered after", format!("{} ms", began.elapsed().as_millis()));
    let (files, threads) = server.files_and_threads()?;
    row("open files, threads", format!("{files}, {threads}"));
    fire(&distributor, &server, &fleet, "all", options.subscribers).await?;
    fire(&distributor, &server, &fleet, "all", options.subscribers).await?;
    fire(&distributor, &server, &fleet, "c1", members(options).len()).await?;
    tokio::time::sleep(options.settle).await;
    let after = server.usage()?;
    row("KiB for each connection after the firings", format!("{:.1}", after.kib_each_since(&ted.before, nodes.len())));
    row("failures among the Subscribers", fleet.counts.failures.load(Ordering::Relaxed).to_string());
    drop(ted.connections);
    server.end()?;
    come_back(&distributor, &fleet, &nodes).await
}

/// `ted-distributor` as it was built with this benchmark, in the folder above.
fn binary() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).ok_or("this program lies nowhere")?;
    let binary = folder.join("ted-distributor");
    if binary.exists() { Ok(binary) } else { Err(format!("{} is not built", binary.display()).into()) }
}

fn row(name: &str, value: String) {
    println!("{name:<46} {value:>16}");
}

/// Connections that were brought up, and what they cost.
struct Connected<C> {
    /// Held for as long as they are measured.
    connections: C,
    before: Usage,
    kib_each: f64,
}

async fn bare_connections(work: &Path, options: &Options) -> Result<Connected<()>, Failure> {
    let folder = work.join("bare");
    std::fs::create_dir(&folder)?;
    let authority = Arc::new(bare::Authority::create(&folder)?);
    let (server, address) = bare::start(&folder)?;
    let endpoints: Vec<_> = (0..options.subscribers.div_ceil(EACH_SOCKET))
        .map(|_| quinn::Endpoint::client(([127, 0, 0, 1], 0).into()))
        .collect::<Result<_, _>>()?;
    let (before, began) = (server.usage()?, Instant::now());
    let connections = each(options.subscribers, AT_ONCE, |at| {
        let (endpoint, authority, folder) = (endpoints[at / EACH_SOCKET].clone(), authority.clone(), folder.clone());
        async move { bare::connect(&endpoint, &authority, &folder, address).await }
    })
    .await?;
    let kib_each = idle("bare quinn", &server, before, began, connections.len(), options).await?;
    drop(connections);
    server.end()?;
    Ok(Connected { connections: (), before, kib_each })
}

async fn ted_connections(
    server: &Server,
    fleet: &Arc<Fleet>,
    nodes: &[Arc<Node>],
    options: &Options,
) -> Result<Connected<Vec<QuicConnection>>, Failure> {
    let endpoints = sockets(fleet, nodes.len())?;
    // What starting up leaves to do is done, and given back.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, began) = (server.usage()?, Instant::now());
    row("memory before anybody connects", format!("{:.1} MiB", before.rss_kib as f64 / 1024.0));
    let connections = connect(fleet, nodes, &endpoints, AT_ONCE).await?;
    let kib_each = idle("TED", server, before, began, connections.len(), options).await?;
    let gone = connections.iter().filter(|connection| connection.rtt().is_zero()).count();
    if gone > 0 {
        return Err(format!("{gone} connections are gone").into());
    }
    Ok(Connected { connections, before, kib_each })
}

/// Prints what so many connections cost that were made since `began`, and what they cost while nothing happens.
async fn idle(
    whose: &str,
    server: &Server,
    before: Usage,
    began: Instant,
    count: usize,
    options: &Options,
) -> Result<f64, Failure> {
    let (took, connected) = (began.elapsed(), server.usage()?);
    row(&format!("{whose}: connections a second"), format!("{:.0}", count as f64 / took.as_secs_f64()));
    let cpu = (connected.cpu - before.cpu).as_secs_f64() * 1e6 / count as f64;
    row(&format!("{whose}: CPU for each new connection"), format!("{cpu:.0} µs"));
    tokio::time::sleep(options.settle).await;
    let settled = server.usage()?;
    tokio::time::sleep(options.idle).await;
    let after = server.usage()?;
    let kib_each = after.kib_each_since(&before, count);
    row(&format!("{whose}: memory for each idle connection"), format!("{kib_each:.1} KiB"));
    row(&format!("{whose}: CPU while idle, of one core"), format!("{:.1} %", after.cpu_percent_since(&settled)));
    Ok(kib_each)
}

fn sockets(fleet: &Fleet, nodes: usize) -> Result<Vec<ted_core::transport::Endpoint>, Failure> {
    (0..nodes.div_ceil(EACH_SOCKET)).map(|_| node::endpoint(fleet)).collect()
}

async fn enrol(
    distributor: &Distributor,
    server: &Server,
    fleet: &Arc<Fleet>,
    options: &Options,
) -> Result<Vec<Arc<Node>>, Failure> {
    let token = distributor.token(options.subscribers)?;
    let endpoints = sockets(fleet, options.subscribers)?;
    let (before, began) = (server.usage()?, Instant::now());
    let nodes = each(options.subscribers, AT_ONCE, |at| {
        let (endpoint, fleet, token) = (endpoints[at / EACH_SOCKET].clone(), fleet.clone(), token.clone());
        async move { Node::enrol(&fleet, &endpoint, name(at).parse()?, &token).await.map(Arc::new) }
    })
    .await?;
    let (took, after) = (began.elapsed(), server.usage()?);
    row("enrolments", format!("{:.1} s", took.as_secs_f64()));
    row("enrolments a second", format!("{:.0}", nodes.len() as f64 / took.as_secs_f64()));
    let cpu = (after.cpu - before.cpu).as_secs_f64() * 1e3 / nodes.len() as f64;
    row("CPU for each enrolment", format!("{cpu:.2} ms"));
    Ok(nodes)
}

fn name(at: usize) -> String {
    format!("s{at}.load.example")
}

/// Whom each of the smaller Channels sends to: ten, or whoever there is.
fn members(options: &Options) -> Vec<usize> {
    (0..options.subscribers.min(10)).collect()
}

/// A Distribution, a Channel that sends it to all, and Channels that send it to ten each.
fn declare(distributor: &Distributor, options: &Options, work: &Path) -> Result<(), Failure> {
    let source = work.join("source");
    std::fs::create_dir(&source)?;
    let mut noise = vec![0; options.package_kib * 1024];
    blake3::Hasher::new().update(b"fleet load").finalize_xof().fill(&mut noise);
    std::fs::write(source.join("noise"), noise)?;
    distributor.cli(&["distribution", "create", "site", "--source", &source.display().to_string()])?;
    distributor.cli(&["distribution", "build", "site"])?;
    let began = Instant::now();
    create_channel(distributor, "all", 0..options.subscribers)?;
    for channel in 1..options.channels {
        let first = (channel - 1) * 10;
        create_channel(distributor, &format!("c{channel}"), (first..first + 10).map(|at| at % options.subscribers))?;
    }
    row("Channels declared by as many commands", format!("{:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

fn create_channel(
    distributor: &Distributor,
    channel: &str,
    subscribers: impl Iterator<Item = usize>,
) -> Result<(), Failure> {
    let mut names: Vec<String> = subscribers.map(name).collect();
    names.sort_unstable();
    names.dedup();
    let mut arguments = vec!["channel", "create", channel, "--distribution", "site"];
    for name in &names {
        arguments.extend(["--subscriber", name]);
    }
    distributor.cli(&arguments)?;
    Ok(())
}

/// Sends a Channel, and waits until `expected` Subscribers have had their last receipt acknowledged.
async fn fire(
    distributor: &Distributor,
    server: &Server,
    fleet: &Fleet,
    channel: &str,
    expected: usize,
) -> Result<(), Failure> {
    let counts = &fleet.counts;
    counts.extracted.store(0, Ordering::Relaxed);
    let (before, began) = (server.usage()?, Instant::now());
    let sent = counts.package_bytes.load(Ordering::Relaxed);
    let sending = tokio::task::block_in_place(|| distributor.cli(&["send", channel]));
    sending?;
    let said = began.elapsed();
    while counts.extracted.load(Ordering::Relaxed) < expected as u64 {
        let left = PATIENCE.checked_sub(began.elapsed()).ok_or("the firing takes too long")?;
        // Somebody else may have taken the notice, so that this looks again all the same.
        let _ = tokio::time::timeout(left.min(Duration::from_millis(100)), counts.changed.notified()).await;
    }
    let (took, after) = (began.elapsed(), server.usage()?);
    let what = |text: &str| format!("firing of {channel} ({expected}): {text}");
    row(&what("`send` answered"), format!("{:.2} s", said.as_secs_f64()));
    row(&what("last receipt"), format!("{:.2} s", took.as_secs_f64()));
    let cpu = after.cpu - before.cpu;
    row(&what("CPU"), format!("{:.2} s", cpu.as_secs_f64()));
    row(&what("CPU for each delivery"), format!("{:.2} ms", cpu.as_secs_f64() * 1e3 / expected as f64));
    row(&what("most memory so far"), format!("{:.1} MiB", after.peak_kib as f64 / 1024.0));
    let bytes = counts.package_bytes.load(Ordering::Relaxed) - sent;
    row(&what("package bytes sent"), format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0));
    Ok(())
}

/// Connects all nodes, so many at a time; who is not let in tries again.
async fn connect(
    fleet: &Arc<Fleet>,
    nodes: &[Arc<Node>],
    endpoints: &[ted_core::transport::Endpoint],
    at_once: usize,
) -> Result<Vec<QuicConnection>, Failure> {
    each(nodes.len(), at_once, |at| {
        let (endpoint, node, fleet) = (endpoints[at / EACH_SOCKET].clone(), nodes[at].clone(), fleet.clone());
        async move {
            let mut attempt = 1;
            loop {
                match node.connect(&fleet, &endpoint).await {
                    Err(_) if attempt < ATTEMPTS => {
                        fleet.counts.retries.fetch_add(1, Ordering::Relaxed);
                        attempt += 1;
                        tokio::time::sleep(AGAIN).await;
                    }
                    ended => return ended,
                }
            }
        }
    })
    .await
}

/// Ends the Distributor and starts it again, with all of its Subscribers dialling at the same moment.
async fn come_back(distributor: &Distributor, fleet: &Arc<Fleet>, nodes: &[Arc<Node>]) -> Result<(), Failure> {
    let (server, _) = distributor.run()?;
    let endpoints = sockets(fleet, nodes.len())?;
    let (before, began) = (server.usage()?, Instant::now());
    let connections = connect(fleet, nodes, &endpoints, nodes.len()).await?;
    let (took, after) = (began.elapsed(), server.usage()?);
    row("all dialling at the same moment: all are back", format!("{:.1} s", took.as_secs_f64()));
    let retries = fleet.counts.retries.load(Ordering::Relaxed);
    row("  attempts that were in vain", retries.to_string());
    row("  CPU", format!("{:.1} s", (after.cpu - before.cpu).as_secs_f64()));
    drop(connections);
    server.end()
}

/// Does something for each of `count`, `at_once` at a time; answers what came of each, in their order.
async fn each<T, F>(count: usize, at_once: usize, start: impl Fn(usize) -> F) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let (mut running, mut done, mut next) = (JoinSet::new(), Vec::with_capacity(count), 0);
    while done.len() < count {
        while next < count && running.len() < at_once {
            let (at, work) = (next, start(next));
            running.spawn(async move { (at, work.await) });
            next += 1;
        }
        let (at, result) = running.join_next().await.ok_or("nothing runs")??;
        done.push((at, result?));
    }
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
