//! A Distributor's state: what it keeps, and how it is opened.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::distributor::events::DistributorEvent;
use crate::distributor::firings::Firings;
use crate::distributor::fleet_records::load_fleet;
use crate::distributor::grants::GrantSets;
use crate::distributor::peers::Network;
use crate::distributor::repair::load_mended;
use crate::distributor::rotation::open_own;
use crate::distributor::scheduled::Task;
use crate::distributor::sends::{load_speeds, paused_in};
use crate::distributor::source::{Fetching, KnownArchives, clean_spool};
use crate::distributor::standing::Judged;
use crate::distributor::tiers::KnownTiers;
use crate::distributor::{DistributorError, Keys, Settings};
use crate::error::Error;
use crate::id::{DistributionId, FiringId, InstanceId, KeyHash, PackageId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::{Fleet, Item};
use crate::name::{Label, NodeName};
use crate::node::{Alarm, BatchedRecords, Clock, EventBus, Links, Records, Schedules, SendQueue, wait};
use crate::protocol::Reach;
use crate::security::{Authority, Crypto, Identity};
use crate::store::{
    DataDir, EventLog, Lineage, LocalDepot, NodeRole, Registrations, Revocations, SecurityDir, Sequences, SledCatalog,
    StandingEnvelopes, Tokens,
};

/// Firings that begin at once.
const FIRINGS_AT_ONCE: usize = 4;
use crate::transport::QuicConnection;

/// See [`State::upkeep`].
const UPKEEP_AT_ONCE: usize = 8;

/// What a Distributor keeps while it is open.
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) data: DataDir,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) crypto: Arc<dyn Crypto>,
    pub(super) instance: InstanceId,
    own: RwLock<Arc<Own>>,
    pub(super) security: SecurityDir,
    pub(super) registrations: Registrations,
    pub(super) tokens: Tokens,
    pub(super) sequences: Sequences,
    /// The certificates that this Distributor had before.
    pub(super) lineage: Lineage,
    pub(super) revocations: Revocations,
    /// What is announced to Subscribers.
    pub(super) standing: StandingEnvelopes,
    /// Something that is announced has changed.
    pub(super) announcing: Notify,
    pub(super) configuring: Mutex<()>,
    /// Who is to be told again, and when.
    pub(super) announce_later: Mutex<HashMap<KeyHash, Instant>>,
    pub(super) records: Records,
    pub(super) depot: LocalDepot,
    pub(super) fleet: Mutex<Fleet>,
    /// Held while the fleet changes, the writing of its records included.
    pub(super) changing: Mutex<()>,
    /// Held while `fleet.toml` is written.
    pub(super) writing_fleet: Mutex<()>,
    /// The fleet's version, for those who do something when it changes.
    pub(super) fleet_versions: watch::Sender<u64>,
    pub(super) firings: Mutex<Firings>,
    /// What firings are written with.
    pub(super) kept: Arc<BatchedRecords>,
    /// What was served to whom since this process started, for those who watch.
    pub(super) sent: Mutex<HashMap<(KeyHash, DistributionId), Sent>>,
    /// Counts changes of firings, for those who wait for one.
    pub(super) firing_changes: watch::Sender<u64>,
    /// One build at a time: two would only share the same disk and cores.
    pub(super) building: tokio::sync::Mutex<()>,
    /// Compressed tar files that were listed, as they still are.
    pub(super) archives: Arc<KnownArchives>,
    /// What is being fetched.
    pub(super) fetching: Arc<Fetching>,
    pub(super) links: Links,
    /// Who is reached through whom.
    pub(super) reach: Mutex<Reach>,
    /// Who is behind whom.
    pub(super) tiers: Mutex<KnownTiers>,
    /// Who is behind whom has changed.
    pub(super) entitling: Notify,
    /// Nodes that a peer had said it reaches before that was believed of it, and that hear of everything now.
    pub(super) believed: Mutex<Vec<KeyHash>>,
    /// Parents that were revoked, with the nodes that they may tell so before their connections close.
    pub(super) last_words: Mutex<Vec<(QuicConnection, Vec<KeyHash>)>>,
    /// What the peers that are connected were judged by last.
    pub(super) judged: Mutex<Option<Judged>>,
    /// Lets a few connections at a time have something looked up or noted on a thread where blocking is allowed: a
    /// fleet that comes back at once would take a thread for each otherwise.
    pub(super) upkeep: Semaphore,
    pub(super) events: EventBus<DistributorEvent>,
    pub(super) enrolling: Mutex<()>,
    pub(super) stating: Mutex<()>,
    /// What was done about an own copy before a firing, for its rows.
    pub(super) mended: Mutex<HashMap<(FiringId, DistributionId), String>>,
    /// Held while this node's own certificates change.
    pub(super) rotating: Mutex<()>,
    /// The alarms that were told last, so that each is told once.
    pub(super) alarmed: Mutex<Vec<Alarm>>,
    pub(super) granting: Mutex<()>,
    pub(super) grant_sets: Mutex<GrantSets>,
    pub(super) network: Mutex<Option<Network>>,
    /// What is done by schedules.
    pub(super) schedules: Schedules<Task>,
    /// What went wrong the last time that it was scheduled.
    pub(super) schedule_troubles: Mutex<BTreeMap<Task, Alarm>>,
    /// One firing of a Channel begins at a time.
    pub(super) sending: Mutex<HashMap<Label, Arc<tokio::sync::Mutex<()>>>>,
    /// Firings that begin at once: each grants and signs for a while.
    pub(super) beginning: Semaphore,
    /// The sending side of all package bytes.
    pub(super) sends: Arc<SendQueue>,
    /// What an operator paused.
    pub(super) paused: Mutex<BTreeSet<Item>>,
    /// Something was paused and is no more.
    pub(super) resumed: AtomicBool,
}

/// The Distributor's CA, and what it issued for this node.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) authority: Authority,
    /// Signs packages, statements, grants and configuration.
    pub(super) signing: Identity,
    /// Is shown on connections.
    pub(super) tls: Identity,
    /// The CAs that this one replaced a short while ago: nodes that were away still ask for them.
    pub(super) former: Vec<FormerOwn>,
}

/// A CA that was replaced a short while ago.
#[derive(Debug)]
pub(super) struct FormerOwn {
    pub(super) authority: Authority,
    pub(super) tls: Identity,
}

/// How much of a package one Subscriber was served, over however many fetches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) package: PackageId,
    pub(super) revision: Revision,
    pub(super) bytes: u64,
    pub(super) bytes_total: u64,
}

/// A mutex whose holder never panics while it holds it; should one have done so, what it guards is whole all the same.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Opens what `settings` name; makes it if there is nothing and a name is given. Blocks on the disk.
    pub(super) fn open(settings: Settings, clock: Arc<dyn Clock>, crypto: Arc<dyn Crypto>) -> Result<Self, Error> {
        let there = settings.data.join("security").exists();
        if !there && settings.name.is_none() {
            return Err(DistributorError::NotInitialised(settings.data).into());
        }
        let open = if there { DataDir::open } else { DataDir::create };
        let data = open(&settings.data, NodeRole::Distributor)?;
        clean_spool(data.path());
        let now = clock.now();
        let open = match (data.security().exists(), settings.keys) {
            (false, _) => SecurityDir::create,
            (true, Keys::Kept) => SecurityDir::open,
            (true, Keys::Lost) => SecurityDir::open_without_keystore,
        };
        let security = open(&data.security(), NodeRole::Distributor)?;
        #[cfg(test)]
        let security = match &settings.steps {
            Some(steps) => security.with_steps(steps.clone()),
            None => security,
        };
        let lineage = Lineage::open(&security)?;
        let own = open_own(&security, &lineage, &settings, &*crypto, now)?;
        let catalog = SledCatalog::open(&data.catalog())?;
        let records = Records::new(Arc::new(catalog));
        let fleet = load_fleet(&records, Some(own.authority.root().name().clone()))?;
        let depot = LocalDepot::open(data.path())?;
        let events = EventLog::open(&data.path().join("events"), &Limits::DEFAULT)?;
        let mut instance = [0; 16];
        crypto.fill_random(&mut instance)?;
        let firings = Firings::load(&records)?;
        let mended = load_mended(&records)?;
        let sends = SendQueue::new(&settings.sends, clock.clone());
        sends.measured.remember(load_speeds(&records)?);
        let paused = Mutex::new(paused_in(&fleet));
        let state = Self {
            data,
            instance: InstanceId::from_bytes(instance),
            registrations: Registrations::open(&security)?,
            tokens: Tokens::open(&security)?,
            sequences: Sequences::open(&security)?,
            lineage,
            revocations: Revocations::open(&security)?,
            standing: StandingEnvelopes::open(&security)?,
            announcing: Notify::new(),
            configuring: Mutex::default(),
            announce_later: Mutex::default(),
            own: RwLock::new(Arc::new(own)),
            security,
            kept: Arc::new(BatchedRecords::new(records.clone())),
            records,
            depot,
            fleet: Mutex::new(fleet),
            changing: Mutex::default(),
            writing_fleet: Mutex::default(),
            fleet_versions: watch::Sender::new(0),
            firings: Mutex::new(firings),
            sent: Mutex::default(),
            firing_changes: watch::Sender::new(0),
            building: tokio::sync::Mutex::new(()),
            archives: Arc::default(),
            fetching: Arc::default(),
            links: Links::new(),
            reach: Mutex::default(),
            tiers: Mutex::default(),
            entitling: Notify::new(),
            believed: Mutex::default(),
            last_words: Mutex::default(),
            judged: Mutex::default(),
            upkeep: Semaphore::new(UPKEEP_AT_ONCE),
            events: EventBus::new(events, clock.clone()),
            enrolling: Mutex::default(),
            stating: Mutex::default(),
            mended: Mutex::new(mended),
            rotating: Mutex::default(),
            alarmed: Mutex::default(),
            granting: Mutex::default(),
            grant_sets: Mutex::default(),
            network: Mutex::default(),
            schedules: Schedules::default(),
            schedule_troubles: Mutex::default(),
            sending: Mutex::default(),
            beginning: Semaphore::new(FIRINGS_AT_ONCE),
            sends,
            paused,
            resumed: AtomicBool::new(false),
            settings,
            clock,
            crypto,
        };
        state.clear_unfinished();
        state.write_fleet_file()?;
        state.finish_leaving()?;
        state.finish_cancelling()?;
        state.finish_succession()?;
        // A crash may have come between revoking an own certificate and replacing it.
        state.replace_revoked()?;
        let own = state.own();
        for certificate in [&own.signing.certificate, &own.tls.certificate] {
            state.remember_certificate(certificate)?;
        }
        Ok(state)
    }

    /// Removes the files of builds that a crash ended: each has a place of its own, where nobody would ever look again.
    fn clear_unfinished(&self) {
        for left in self.depot.leftovers().iter().filter(|left| !left.is_corrupt) {
            if let Err(error) = wait(self.depot.clear(&left.place)) {
                tracing::warn!(place = ?left.place, %error, "what a build left cannot be removed");
            }
        }
    }

    /// What this node is now; renewed while it runs, so a value is only good for one piece of work.
    pub(super) fn own(&self) -> Arc<Own> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes this what the node is from now on.
    pub(super) fn set_own(&self, own: Own) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
    }

    pub(super) fn name(&self) -> NodeName {
        self.own().authority.root().name().clone()
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Random bytes for an identifier.
    pub(super) fn random<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.crypto.fill_random(&mut bytes)?;
        Ok(bytes)
    }

    /// The next sequence number for an envelope, durable before it is used.
    pub(super) fn next_sequence(&self) -> Result<u64, Error> {
        Ok(self.sequences.next_sequence(self.now())?)
    }
}
