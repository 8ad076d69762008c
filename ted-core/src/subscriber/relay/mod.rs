//! Passing on: what a parent of this node offers to nodes behind it is offered to the children on the way, and what they
//! ask for is fetched once, verified, kept, and served while it is still arriving.

mod claims;
mod counters;
mod envelopes;
mod offers;
mod packages;
mod progress;
mod reception;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::{DistributionId, KeyHash, PackageId};
use crate::limits::Limits;
use crate::node::{Live, RecordBatch, wait};
use crate::protocol::{Passed, Presence, ReceiptsAnswer, Relay, RelayAction};
use crate::security::{Envelope, Receipt, Stage};
use crate::store::Depot as _;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::state::{State, lock};

pub use counters::{PassedRow, TrafficRow};

use claims::Claims;
use counters::Counters;
use progress::Hints;

/// What a child is told that asks for what neither it nor anybody behind it may have.
const NOT_ENTITLED: &str = "no Channel of yours has this Distribution, nor of anybody behind you";

/// How long the relay waits at most before it looks again what is due: clocks are set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What a node that passes something on keeps in memory.
#[derive(Default)]
pub(super) struct Relays {
    /// One for each fleet, made from what is kept when it is needed first.
    machines: Mutex<HashMap<KeyHash, Relay>>,
    /// Something happened that the machines have to say something about.
    wake: Notify,
    /// Packages that are being read for children, so that many share one index.
    whole: Mutex<HashMap<PackageId, Weak<Live>>>,
    /// Receptions that a child's request has begun, and the machine has not demanded yet.
    claimed: Claims,
    pub(super) counters: Counters,
    hints: Hints,
}

impl State {
    /// Asks the fleet's machine, and has the driver look what follows. Blocks on the disk the first time.
    pub(super) fn with_relay<T>(&self, fleet: &KeyHash, ask: impl FnOnce(&mut Relay) -> T) -> Result<T, Error> {
        let mut machines = lock(&self.relays.machines);
        let machine = match machines.entry(*fleet) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.new_relay(fleet)?),
        };
        let answer = ask(machine);
        drop(machines);
        self.relays.wake.notify_one();
        Ok(answer)
    }

    fn new_relay(&self, fleet: &KeyHash) -> Result<Relay, Error> {
        let own = self.identity(fleet)?.certificate.key_hash();
        let mut kept = vec![];
        for bytes in self.records.list_bytes(&passed_prefix(fleet))? {
            match Passed::decode(&bytes, &Limits::DEFAULT) {
                Ok(passed) => kept.extend(passed),
                Err(error) => tracing::warn!(%error, "what was passed on cannot be read, and is offered anew"),
            }
        }
        let mut machine = Relay::new(own, kept, Limits::DEFAULT);
        machine.entitled(self.children_of(fleet), self.now(fleet));
        for (key, _) in self.children.all() {
            if key.0 == *fleet {
                machine.child_up(key.1, self.now(fleet));
            }
        }
        let named: Vec<PackageId> =
            machine.distributions().flat_map(|passed| passed.packages().map(|package| package.id)).collect();
        for package in named {
            if wait(self.depot.info(package))?.is_some() {
                machine.package_here(package);
            }
        }
        Ok(machine)
    }

    /// This node's children in a fleet, each with those whom the entitlements place behind it.
    fn children_of(&self, fleet: &KeyHash) -> BTreeMap<KeyHash, BTreeSet<KeyHash>> {
        let entitlements = self.entitlements(fleet);
        let mut children: BTreeMap<KeyHash, BTreeSet<KeyHash>> =
            entitlements.children().map(|child| (child.key, BTreeSet::new())).collect();
        for descendant in entitlements.descendants() {
            for child in &descendant.through {
                if let Some(behind) = children.get_mut(child) {
                    behind.insert(descendant.key);
                }
            }
        }
        children
    }

    /// A child has connected.
    pub(super) async fn relay_child_up(self: &Arc<Self>, fleet: KeyHash, child: KeyHash) {
        let state = self.clone();
        self.tell_relay(fleet, move |relay, now| {
            // Its connections may be told of in another order than they came and went in.
            if state.children.is_connected(&(fleet, child)) {
                relay.child_up(child, now);
            }
        })
        .await;
    }

    /// A child's connection has ended.
    pub(super) async fn relay_child_down(self: &Arc<Self>, fleet: KeyHash, child: KeyHash) {
        let state = self.clone();
        self.tell_relay(fleet, move |relay, now| {
            if !state.children.is_connected(&(fleet, child)) {
                relay.child_down(&child, now);
            }
        })
        .await;
    }

    /// A child said whom it reaches.
    pub(super) async fn relay_presence(self: &Arc<Self>, fleet: KeyHash, child: KeyHash, presence: Presence) {
        let Presence { reset, up, down } = presence;
        self.tell_relay(fleet, move |relay, now| relay.presence(&child, reset, &up, &down, now)).await;
    }

    /// Receipts of nodes behind this one were taken, but for those that `answer` names: who is done is not offered it
    /// again.
    pub(super) fn relay_receipts(&self, fleet: &KeyHash, envelopes: &[Vec<u8>], answer: &ReceiptsAnswer) {
        for (place, bytes) in envelopes.iter().enumerate() {
            let Ok(envelope) = Envelope::from_bytes(bytes) else { continue };
            let Ok(receipt) = Receipt::from_payload(&envelope.body().payload) else { continue };
            if let (None, Stage::Extracted, Some(firing)) = (answer.refusal_of(place), receipt.stage, receipt.firing) {
                let issuer = envelope.body().issuer;
                if let Err(error) = self.with_relay(fleet, |relay| relay.done(&issuer, &receipt.distribution, &firing))
                {
                    tracing::error!(code = error.code(), %error, "who is done cannot be told");
                }
            }
        }
    }

    /// The entitlements have changed. Blocks on the disk.
    pub(super) fn relay_entitled(&self, fleet: &KeyHash) -> Result<(), Error> {
        let (entitlements, children, now) = (self.entitlements(fleet), self.children_of(fleet), self.now(fleet));
        if children.is_empty() && !lock(&self.relays.machines).contains_key(fleet) {
            return Ok(());
        }
        self.with_relay(fleet, |relay| {
            relay.entitled(children, now);
            if entitlements.is_complete() {
                let wanted: BTreeSet<DistributionId> =
                    entitlements.descendants().flat_map(|of| of.distributions.iter().copied()).collect();
                relay.retain(|distribution| wanted.contains(distribution));
            }
        })
    }

    async fn tell_relay(
        self: &Arc<Self>,
        fleet: KeyHash,
        tell: impl FnOnce(&mut Relay, crate::id::UnixMillis) + Send + 'static,
    ) {
        let state = self.clone();
        let telling = move || {
            let now = state.now(&fleet);
            state.with_relay(&fleet, |relay| tell(relay, now))
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(telling).await {
            tracing::error!(code = error.code(), %error, "what is passed on cannot be told");
        }
    }

    /// Does what the machines say, until `stop`.
    pub(super) async fn relay_all(self: Arc<Self>, stop: CancellationToken) {
        let state = self.clone();
        let waking = move || state.wake_relays();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(waking).await {
            tracing::error!(code = error.code(), %error, "what was passed on cannot be read");
        }
        loop {
            let state = self.clone();
            let acting = move || state.act_for_relays();
            let again = match tokio::task::spawn_blocking(acting).await {
                Ok(again) => again,
                Err(_) => return,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.relays.wake.notified() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Has the machines go on that have something kept.
    fn wake_relays(&self) -> Result<(), Error> {
        for (fleet, _) in self.known_distributors()? {
            if !self.records.keys(&passed_prefix(&fleet))?.is_empty() {
                self.with_relay(&fleet, |_| ())?;
            }
        }
        Ok(())
    }

    /// Carries out everything that is due now; says in how long there is more. Blocks on the disk.
    fn act_for_relays(self: &Arc<Self>) -> Duration {
        let fleets: Vec<KeyHash> = lock(&self.relays.machines).keys().copied().collect();
        let mut again = LOOK_AGAIN;
        for fleet in fleets {
            let now = self.now(&fleet);
            loop {
                let action = lock(&self.relays.machines).get_mut(&fleet).and_then(|machine| machine.poll(now));
                let Some(action) = action else { break };
                self.do_for_relay(fleet, action);
            }
            let wakeup = lock(&self.relays.machines).get(&fleet).and_then(|machine| machine.next_wakeup(now));
            if let Some(at) = wakeup {
                again = again.min(at.since(now).max(Duration::from_millis(10)));
            }
        }
        again
    }

    fn do_for_relay(self: &Arc<Self>, fleet: KeyHash, action: RelayAction) {
        match action {
            RelayAction::Keep { distribution } => {
                if let Err(error) = self.keep_what_passes(&fleet, &distribution) {
                    tracing::error!(code = error.code(), %error, "what is passed on cannot be kept");
                }
            }
            RelayAction::Offer { child, offer } => {
                let state = self.clone();
                self.links.spawn(async move { state.offer_to_child(fleet, child, offer).await });
            }
            RelayAction::Fetch { distribution, package } => {
                let state = self.clone();
                self.links.spawn(async move { state.receive_for_children(fleet, distribution, package).await });
            }
            RelayAction::Release { package } => {
                if let Err(error) = self.release_passed(&fleet, &package) {
                    tracing::warn!(code = error.code(), %error, %package, "a package cannot be removed");
                }
            }
        }
    }

    /// Makes durable what the machine says of a Distribution, and drops what was kept for what it says no more.
    fn keep_what_passes(&self, fleet: &KeyHash, distribution: &DistributionId) -> Result<(), Error> {
        let passed = lock(&self.relays.machines).get(fleet).and_then(|machine| machine.passed(distribution).cloned());
        let key = passed_key(fleet, distribution);
        match &passed {
            Some(passed) => {
                self.records.apply(RecordBatch::default().put_bytes(&key, passed.encode(&Limits::DEFAULT)?))?;
            }
            None => self.records.delete(&key)?,
        }
        self.forget_envelopes(fleet, distribution, passed.as_ref())
    }

    /// Whether children may still ask for a package.
    pub(super) fn is_passed_on(&self, fleet: &KeyHash, package: &PackageId) -> bool {
        lock(&self.relays.machines).get(fleet).is_some_and(|machine| machine.named(package).is_some())
    }

    /// Removes a package that no child can ask for any more, unless this node needs it itself.
    fn release_passed(&self, fleet: &KeyHash, package: &PackageId) -> Result<(), Error> {
        let _nothing_comes = lock(&self.holding);
        let Some(info) = wait(self.depot.info(*package))? else { return Ok(()) };
        if self.is_passed_on(fleet, package) || self.needs_itself(&(*fleet, info.root.distribution), package)? {
            return Ok(());
        }
        wait(self.depot.delete(*package))?;
        tracing::info!(%package, revision = %info.root.revision, "passed on no more, and removed");
        Ok(())
    }

    /// The name of a child, as the entitlements have it.
    fn child_name(&self, fleet: &KeyHash, child: &KeyHash) -> String {
        let entitlements = self.entitlements(fleet);
        entitlements.get(child).map_or_else(|| child.fingerprint(), |child| child.name.to_string())
    }
}

fn passed_prefix(fleet: &KeyHash) -> String {
    format!("relay/{fleet}/")
}

fn passed_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("relay/{fleet}/{distribution}")
}

fn worker_gone<T>(_: T) -> Error {
    SubscriberError::Worker.into()
}
