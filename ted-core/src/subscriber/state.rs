//! A Subscriber's state: what it keeps, and how it is opened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::{DistributionId, InstanceId, KeyHash, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::Endpoint;
use crate::name::NodeName;
use crate::node::{Alarm, Clock, EventBus, InputPace, Links, Records, Schedules, SendQueue};
use crate::protocol::{Delivery, Reach, SendRates};
use crate::security::{Crypto, DistributorRoot, Entitlements, Identity, ParentHint, ReleaseStatement, Stage, Usage};
use crate::store::{
    DataDir, EventLog, Floors, Lineage, LocalDepot, NodeRole, Pins, Revocations, SecurityDir, SledCatalog,
    StandingEnvelopes,
};
use crate::subscriber::Settings;
use crate::subscriber::arriving::Arrivals;
use crate::subscriber::deliveries::Job;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::extract_times::{ExtractTask, ExtractTime};
use crate::subscriber::peers::Network;
use crate::subscriber::rates::own_input;
use crate::subscriber::relay::Relays;
use crate::transport::QuicConnection;

/// A Distribution of a Distributor.
pub(super) type Key = (KeyHash, DistributionId);

/// What a Subscriber keeps while it is open.
pub(super) struct State {
    pub(super) settings: Settings,
    name: RwLock<NodeName>,
    pub(super) data: DataDir,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) crypto: Arc<dyn Crypto>,
    pub(super) instance: InstanceId,
    pub(super) security: SecurityDir,
    pub(super) floors: Floors,
    pub(super) revocations: Revocations,
    /// The certificates that others took over from.
    pub(super) lineage: Lineage,
    pub(super) pins: Pins,
    /// The standing envelopes that are in force.
    pub(super) envelopes: StandingEnvelopes,
    /// Certificates that were issued are kept one after the other.
    pub(super) keeping: Mutex<()>,
    /// One announcement is taken at a time, so that what is newer comes later.
    pub(super) taking: tokio::sync::Mutex<()>,
    pub(super) records: Records,
    pub(super) depot: LocalDepot,
    /// What is passed on to others.
    pub(super) relays: Relays,
    /// The packages that are arriving.
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) deliveries: Mutex<HashMap<Key, Delivery>>,
    /// The newest accepted statement of each delivery.
    pub(super) statements: Mutex<HashMap<Key, ReleaseStatement>>,
    /// One queue of jobs for each Distribution.
    pub(super) queues: Mutex<HashMap<Key, mpsc::UnboundedSender<Job>>>,
    /// One extraction at a time: two would only share the same disk.
    pub(super) extracting: Mutex<()>,
    /// Held while packages come or go, until the record says so: one that comes while others go would be forgotten.
    pub(super) holding: Mutex<()>,
    pub(super) last_sequence: Mutex<u64>,
    pub(super) receipts: Notify,
    /// Something has changed that this node's certificates depend on.
    pub(super) renewing: Notify,
    /// The connection upwards in each fleet: with the Distributor, or with one parent.
    pub(super) links: Links,
    /// The connections with children, by fleet and key.
    pub(super) children: Links<QuicConnection, (KeyHash, KeyHash)>,
    /// Who is reached through this node in each fleet.
    pub(super) reach: Mutex<HashMap<KeyHash, Reach>>,
    /// Counts changes of who is reached.
    pub(super) presence: watch::Sender<u64>,
    /// Entitlements as they were read last.
    pub(super) entitled: Mutex<HashMap<KeyHash, Arc<Entitlements>>>,
    /// Something has changed about the children that are to be dialled.
    pub(super) dialling_children: Notify,
    pub(super) passing_enrolments: Semaphore,
    /// The parents of invites that are just being followed.
    pub(super) invited: Mutex<HashMap<KeyHash, Vec<ParentHint>>>,
    pub(super) run: Mutex<Run>,
    pub(super) network: Mutex<Option<Network>>,
    /// How far the newest offered revision of each Distribution is.
    pub(super) standing: Mutex<HashMap<Key, Standing>>,
    /// What is wrong with the connection to a Distributor.
    pub(super) troubles: Mutex<HashMap<KeyHash, String>>,
    /// What was told last about each way to a fleet, so that it is told once.
    pub(super) told_troubles: Mutex<HashMap<(KeyHash, KeyHash), String>>,
    /// The alarms that were told last, so that each is told once.
    pub(super) alarmed: Mutex<Vec<Alarm>>,
    /// What is wrong with certificates that were carried here.
    pub(super) carried_troubles: Mutex<HashMap<KeyHash, String>>,
    pub(super) events: EventBus<SubscriberEvent>,
    /// How fast package bytes are taken in.
    pub(super) input: Arc<InputPace>,
    /// The sending side of all package bytes that are passed on.
    pub(super) sends: Arc<SendQueue>,
    /// Whether an operator paused this node.
    pub(super) paused: AtomicBool,
    /// Ends receptions when that happens.
    pub(super) pausing: Mutex<CancellationToken>,
    /// When what is extracted.
    pub(super) schedules: Schedules<ExtractTask>,
}

/// One run, from a start to the stop that ends it: what waits listens to the token, what computes looks at the flag.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) stop: CancellationToken,
    pub(super) stopping: Arc<AtomicBool>,
}

impl Run {
    pub(super) fn end(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// A Distributor as the catalog keeps it: where it is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KnownDistributor {
    pub(super) name: NodeName,
    pub(super) endpoints: Vec<Endpoint>,
    /// The parents that the invite named; the Distributor's configuration wins over them.
    #[serde(default)]
    pub(super) parents: Vec<ParentHint>,
}

/// How far the newest offered revision of a Distribution is, as people are told.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    pub(super) offered: Option<Revision>,
    pub(super) stage: Option<Stage>,
    pub(super) bytes: u64,
    pub(super) bytes_total: u64,
    pub(super) trouble: Option<String>,
    /// When it is extracted, where it is verified and waits for that.
    pub(super) waits: Option<ExtractTime>,
    pub(super) at: Option<UnixMillis>,
}

/// A mutex whose holder never panics while it holds it; should one have done so, what it guards is whole all the same.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Opens what `settings` name; makes it if there is nothing and a name is given. Blocks on the disk.
    pub(super) fn open(settings: Settings, clock: Arc<dyn Clock>, crypto: Arc<dyn Crypto>) -> Result<Self, Error> {
        let data = open_data(&settings)?;
        let open = if data.security().exists() { SecurityDir::open } else { SecurityDir::create };
        let security = open(&data.security(), NodeRole::Subscriber)?;
        #[cfg(test)]
        let security = match &settings.steps {
            Some(steps) => security.with_steps(steps.clone()),
            None => security,
        };
        let records = Records::new(Arc::new(SledCatalog::open(&data.catalog())?));
        let paused = AtomicBool::new(Self::was_paused(&records)?);
        let name = node_name(&settings, &records)?;
        let mut instance = [0; 16];
        crypto.fill_random(&mut instance)?;
        let depot = LocalDepot::open(data.path())?;
        let events = EventLog::open(&data.path().join("events"), &Limits::DEFAULT)?;
        security.trust()?;
        Ok(Self {
            name: RwLock::new(name),
            instance: InstanceId::from_bytes(instance),
            floors: Floors::open(&security)?,
            revocations: Revocations::open(&security)?,
            lineage: Lineage::open(&security)?,
            pins: Pins::open(&security)?,
            envelopes: StandingEnvelopes::open(&security)?,
            keeping: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            security,
            records,
            depot,
            relays: Relays::default(),
            arrivals: Arc::default(),
            deliveries: Mutex::default(),
            statements: Mutex::default(),
            queues: Mutex::default(),
            extracting: Mutex::default(),
            holding: Mutex::default(),
            last_sequence: Mutex::new(clock.now().millis()),
            receipts: Notify::new(),
            renewing: Notify::new(),
            links: Links::new(),
            children: Links::new(),
            reach: Mutex::default(),
            presence: watch::Sender::new(0),
            entitled: Mutex::default(),
            dialling_children: Notify::new(),
            passing_enrolments: Semaphore::new(Limits::DEFAULT.passed_enrolments_max),
            invited: Mutex::default(),
            run: Mutex::default(),
            network: Mutex::default(),
            standing: Mutex::default(),
            troubles: Mutex::default(),
            told_troubles: Mutex::default(),
            alarmed: Mutex::default(),
            carried_troubles: Mutex::default(),
            input: InputPace::new(own_input(&settings.own), clock.clone()),
            sends: SendQueue::new(&SendRates::default(), clock.clone()),
            paused,
            pausing: Mutex::default(),
            events: EventBus::new(events, clock.clone()),
            schedules: Schedules::default(),
            data,
            settings,
            clock,
            crypto,
        })
    }

    pub(super) fn name(&self) -> NodeName {
        self.name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes this the node's name, durably.
    pub(super) fn set_name(&self, name: &NodeName) -> Result<(), Error> {
        let mut held = self.name.write().unwrap_or_else(PoisonError::into_inner);
        self.records.put("node", name)?;
        *held = name.clone();
        Ok(())
    }

    /// The time, as far as a Distributor's word counts: not before what it signed last.
    pub(super) fn now(&self, fleet: &KeyHash) -> UnixMillis {
        let signed =
            self.floors.all().into_iter().filter(|((of, _), _)| of == fleet).map(|(_, floor)| floor.issued).max();
        self.clock.now().max(signed.unwrap_or(UnixMillis::from_millis(0)))
    }

    /// The Distributors that are trusted: those in the keystore, and those whose certificate lies in `security/`.
    pub(super) fn trusted_roots(&self) -> Result<Vec<DistributorRoot>, Error> {
        Ok(self.security.trust()?.roots.iter().map(|trusted| trusted.root.clone()).collect())
    }

    pub(super) fn trusted_root(&self, fleet: &KeyHash) -> Result<DistributorRoot, Error> {
        let found = self.trusted_roots()?.into_iter().find(|root| root.key_hash() == *fleet);
        Ok(found.ok_or_else(|| SubscriberError::UnknownDistributor(fleet.fingerprint()))?)
    }

    /// The name of a Distributor; while it is not known, the fingerprint of its key.
    pub(super) fn distributor_name(&self, fleet: &KeyHash) -> NodeName {
        let known: Option<KnownDistributor> = self.records.get(&known_key(fleet)).ok().flatten();
        known.map_or_else(
            || {
                let root = self.trusted_root(fleet).ok();
                root.map_or_else(|| crate::node::name_of_key(fleet), |root| root.name().clone())
            },
            |known| known.name,
        )
    }

    pub(super) fn known_distributors(&self) -> Result<Vec<(KeyHash, KnownDistributor)>, Error> {
        let rows = self.records.list::<KnownDistributor>("distributor/")?.into_iter();
        Ok(rows.filter_map(|(key, known)| Some((key.strip_prefix("distributor/")?.parse().ok()?, known))).collect())
    }

    /// This node's identity in a Distributor's fleet.
    pub(super) fn identity(&self, fleet: &KeyHash) -> Result<Identity, Error> {
        let identity = self.security.trust()?.keystore.identity(fleet, Usage::SubscriberIdentity);
        Ok(identity.ok_or_else(|| SubscriberError::NotEnrolled(self.distributor_name(fleet)))?)
    }

    /// Notes how far a Distribution is, for whoever asks.
    pub(super) fn note(&self, key: Key, change: impl FnOnce(&mut Standing)) {
        let mut standings = lock(&self.standing);
        let standing = standings.entry(key).or_default();
        change(standing);
        standing.at = Some(self.clock.now());
    }

    /// The run that goes on now, or the last one.
    pub(super) fn run(&self) -> Run {
        lock(&self.run).clone()
    }

    /// Hands a job to its Distribution's queue, whose task is started with the first one. A Subscriber that stops
    /// begins nothing more: the next start finds what is left to do.
    pub(super) fn start_job(self: &Arc<Self>, job: Job) {
        let key = job.key();
        let mut queues = lock(&self.queues);
        let run = self.run();
        if run.is_over() {
            return;
        }
        let queue = queues.entry(key).or_insert_with(|| {
            let (queue, mut jobs) = mpsc::unbounded_channel();
            let state = self.clone();
            self.links.spawn(async move {
                loop {
                    let job = tokio::select! {
                        biased;
                        () = run.stop.cancelled() => return,
                        job = jobs.recv() => job,
                    };
                    let Some(job) = job else { return };
                    state.do_job(job).await;
                }
            });
            queue
        });
        // The task only ends when the queue is dropped.
        let _ = queue.send(job);
    }
}

fn open_data(settings: &Settings) -> Result<DataDir, Error> {
    let there = settings.data.join("security").exists();
    match (there, &settings.name) {
        (false, None) => Err(SubscriberError::NotInitialised(settings.data.clone()).into()),
        (false, Some(_)) => Ok(DataDir::create(&settings.data, NodeRole::Subscriber)?),
        (true, _) => Ok(DataDir::open(&settings.data, NodeRole::Subscriber)?),
    }
}

fn node_name(settings: &Settings, records: &Records) -> Result<NodeName, Error> {
    let there: Option<NodeName> = records.get("node")?;
    match (there, &settings.name) {
        (Some(there), Some(asked)) if there != *asked => {
            Err(SubscriberError::OtherName { data: settings.data.clone(), there, asked: asked.clone() }.into())
        }
        (Some(there), _) => Ok(there),
        (None, Some(asked)) => {
            records.put("node", asked)?;
            Ok(asked.clone())
        }
        (None, None) => Err(SubscriberError::NotInitialised(settings.data.clone()).into()),
    }
}

pub(super) fn known_key(fleet: &KeyHash) -> String {
    format!("distributor/{fleet}")
}
