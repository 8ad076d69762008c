//! What the tests of whole nodes share: a Distributor and Subscribers in one process over loopback, trees to deliver, and
//! ways to wait for what happens.

#![allow(dead_code, unreachable_pub, reason = "each test program includes all of it and uses another part")]

#[path = "../../examples/quickstart/compare.rs"]
pub mod compare;
pub mod fake;
pub mod proxy;
pub mod raw;

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ted_core::distributor::DistributorBuilder;
use ted_core::id::{FiringId, UnixMillis};
use ted_core::name::{Label, NodeName};
use ted_core::node::{Clock, SystemClock};
use ted_core::subscriber::SubscriberBuilder;
use ted_core::{
    DistributionSpec, Distributor, DistributorEvent, Events, FiringReport, SendOptions, Subscriber, SubscriberEvent,
    Until,
};
use tempfile::TempDir;

/// Nothing that a test waits for takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub const CHANNEL: &str = "everyone";
pub const DISTRIBUTION: &str = "site";

pub fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

pub fn node(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

/// Waits for `what`, and fails the test with its name if it does not come.
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let (what, place) = (what.to_owned(), std::panic::Location::caller());
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{place}: waited in vain for {what}"),
        }
    }
}

/// The first event that `pick` makes something of.
#[track_caller]
pub fn event<E: Clone, T>(
    what: &str,
    events: &mut Events<E>,
    mut pick: impl FnMut(E) -> Option<T>,
) -> impl Future<Output = T> {
    within(what, async move {
        loop {
            let event = events.next().await.expect("the node is there");
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    })
}

#[track_caller]
pub fn connected(events: &mut Events<DistributorEvent>, name: &str) -> impl Future<Output = ()> {
    let name = node(name);
    event("a Subscriber to connect", events, move |event| match event {
        DistributorEvent::Connected { subscriber } if subscriber == name => Some(()),
        _ => None,
    })
}

#[track_caller]
pub fn disconnected(events: &mut Events<DistributorEvent>, name: &str) -> impl Future<Output = ()> {
    let name = node(name);
    event("a Subscriber to disconnect", events, move |event| match event {
        DistributorEvent::Disconnected { subscriber, .. } if subscriber == name => Some(()),
        _ => None,
    })
}

/// The next extraction: how many files it wrote.
#[track_caller]
pub fn extracted(events: &mut Events<SubscriberEvent>) -> impl Future<Output = u64> {
    event("an extraction", events, |event| match event {
        SubscriberEvent::Extracted { files_written, .. } => Some(files_written),
        SubscriberEvent::Failed { code, reason, .. } => panic!("{code}: {reason}"),
        _ => None,
    })
}

/// A clock that stands still until it is moved.
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn at_present() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(SystemClock.now().millis())))
    }

    pub fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    pub fn back(&self, by: Duration) {
        self.0.fetch_sub(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A Distributor with one Distribution in one Channel, and a folder in which everything lies.
pub struct World {
    pub folder: TempDir,
    pub source: PathBuf,
    pub distributor: Distributor,
    pub address: SocketAddr,
}

pub async fn open_distributor(folder: &Path, listen: SocketAddr) -> (Distributor, SocketAddr) {
    start(Distributor::builder(folder.join("distributor")).listen(listen)).await
}

async fn start(builder: DistributorBuilder) -> (Distributor, SocketAddr) {
    let distributor = builder.name(node("dist.example")).open().await.expect("a Distributor");
    let address = listen(&distributor).await;
    (distributor, address)
}

/// Starts a Distributor. The socket of one that was shut down goes a moment after it.
pub async fn listen(distributor: &Distributor) -> SocketAddr {
    within("the address to be free", async {
        loop {
            match distributor.start().await {
                Err(error) if error.code() == "TED-1320" => tokio::task::yield_now().await,
                started => return started.expect("it listens"),
            }
        }
    })
    .await
}

pub const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

impl World {
    /// A Distributor that serves a small tree.
    pub async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub async fn with(change: impl FnOnce(DistributorBuilder) -> DistributorBuilder) -> Self {
        let filter = tracing_subscriber::EnvFilter::try_from_env("TED_LOG").unwrap_or_else(|_| "off".into());
        // Another test of the program may have been first.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let folder = tempfile::Builder::new().prefix("ted-test-").tempdir().expect("a folder");
        let source = folder.path().join("source");
        small_tree(&source);
        let builder = Distributor::builder(folder.path().join("distributor")).listen(ANY_PORT);
        let (distributor, address) = start(change(builder)).await;
        let spec = DistributionSpec::new(label(DISTRIBUTION), &source);
        distributor.create_distribution(spec).await.expect("a Distribution");
        distributor.create_channel(label(CHANNEL), &[label(DISTRIBUTION)], &[]).await.expect("a Channel");
        Self { folder, source, distributor, address }
    }

    pub fn data_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn target_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.target"))
    }

    pub fn builder(&self, name: &str) -> SubscriberBuilder {
        Subscriber::builder(self.data_of(name)).target(DISTRIBUTION.parse().expect("valid"), self.target_of(name))
    }

    pub async fn invite(&self, name: &str) -> String {
        self.distributor.invite(&node(name), &[label(CHANNEL)], &[]).await.expect("an invite")
    }

    /// A Subscriber that has joined and not started.
    pub async fn joined(&self, name: &str) -> Subscriber {
        let invite = self.invite(name).await;
        within("the enrolment", self.builder(name).join(&invite)).await.expect("it joins")
    }

    /// A Subscriber that is connected.
    pub async fn subscriber(&self, name: &str) -> Subscriber {
        let subscriber = self.joined(name).await;
        self.start(&subscriber).await;
        subscriber
    }

    /// Starts a Subscriber and waits until it is connected.
    pub async fn start(&self, subscriber: &Subscriber) {
        let mut events = self.distributor.events();
        subscriber.start().await.expect("it starts");
        connected(&mut events, &subscriber.name().to_string()).await;
    }

    /// Opens a Subscriber again that was shut down, and starts it.
    pub async fn reopen(&self, name: &str) -> Subscriber {
        let subscriber = self.builder(name).open().await.expect("its data directory is free");
        self.start(&subscriber).await;
        subscriber
    }

    /// Shuts the Distributor down and opens it again at the same address.
    pub async fn restarted(self) -> Self {
        let Self { folder, source, distributor, address } = self;
        within("the shutdown", distributor.shutdown()).await;
        drop(distributor);
        let (distributor, address) = open_distributor(folder.path(), address).await;
        Self { folder, source, distributor, address }
    }

    pub async fn send(&self) -> FiringId {
        self.distributor.send(&label(CHANNEL), SendOptions::default()).await.expect("a firing")
    }

    pub async fn wait(&self, firing: FiringId) -> FiringReport {
        self.distributor.wait(firing, Until::Extracted, Some(PATIENCE)).await.expect("the firing is known")
    }

    /// Sends, and waits until everyone has extracted it.
    pub async fn deliver(&self) -> FiringReport {
        let report = self.wait(self.send().await).await;
        assert!(report.is_complete(), "{report}");
        report
    }

    #[track_caller]
    pub fn assert_equal(&self, name: &str) {
        if let Err(error) = compare::trees(&self.source, &self.target_of(name), &[]) {
            panic!("{name}: {error}");
        }
    }
}

/// Files, folders and links that every delivery should survive.
pub fn small_tree(root: &Path) {
    fs::create_dir_all(root.join("empty")).expect("a folder");
    fs::create_dir_all(root.join("deep/er")).expect("a folder");
    for number in 0..12 {
        fs::write(root.join(format!("file-{number:02}")), format!("line of {number}\n").repeat(number * 20))
            .expect("a file");
    }
    fs::write(root.join("deep/er/noise"), noise(1, 300_000)).expect("a file");
    std::os::unix::fs::symlink("/etc/x", root.join("deep/link")).expect("a link");
    fs::hard_link(root.join("file-03"), root.join("deep/again")).expect("a link");
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    blake3::Hasher::new_derive_key("ted tests 2026 noise").update(&[seed]).finalize_xof().fill(&mut all);
    all
}

/// All files of this name below `root`.
pub fn find(root: &Path, name: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (vec![], vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ if entry.file_name() == name => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}
