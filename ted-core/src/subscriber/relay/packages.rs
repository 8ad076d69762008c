//! Packages for the children: served while they arrive, or from the disk, each frame verified right before it goes out.

use std::sync::Arc;

use crate::error::Error;
use crate::id::{DistributionId, KeyHash, PackageId};
use crate::limits::Limits;
use crate::node::{Content, Gate, Live, Pace, PaceOptions, Relayed, Reply, judge_signature, wait};
use crate::package::{Opening, ReadAt, Root, read_any_index};
use crate::protocol::{Asked, Refused, SendKey, code};
use crate::security::{PackageRef, Receipt, Signature, Stage};
use crate::store::Depot as _;
use crate::subscriber::damage::AT_REST;
use crate::subscriber::deliveries::revision_of;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::held::Held;
use crate::subscriber::relay::NOT_ENTITLED;
use crate::subscriber::rollback::before_key;
use crate::subscriber::state::{Key, State, lock};

impl State {
    /// Answers a child that asks for a package. Blocks on the disk.
    pub(in crate::subscriber) fn passed_package(
        self: &Arc<Self>,
        fleet: KeyHash,
        child: KeyHash,
        id: PackageId,
    ) -> Reply {
        let named = match self.with_relay(&fleet, |relay| relay.named(&id)) {
            Ok(named) => named,
            Err(error) => return Reply::refuse(code::INTERNAL, error.to_string()),
        };
        let Some((distribution, package)) = named else {
            return Reply::refuse(code::NOT_FOUND, "no statement that is passed on here names this package");
        };
        if !self.entitlements(&fleet).may_fetch(&child, &distribution) {
            return Reply::refuse(code::NOT_ENTITLED, NOT_ENTITLED);
        }
        match self.live_package(&fleet, &package) {
            Ok(live) => Reply::Content(Content::Relayed(self.relayed((fleet, distribution), child, package, live))),
            Err(reply) => reply,
        }
    }

    /// A package as far as it is here. What is not here at all begins to arrive.
    fn live_package(self: &Arc<Self>, fleet: &KeyHash, package: &PackageRef) -> Result<Arc<Live>, Reply> {
        let broken = |error: Error| {
            tracing::error!(code = error.code(), %error, package = %package.id, "a package cannot be passed on");
            Reply::refuse(code::INTERNAL, "the package cannot be read here")
        };
        if let Some(live) = self.arrivals.get(&package.id) {
            return Ok(live);
        }
        match self.whole_package(fleet, &package.id) {
            Ok(Some(live)) => return Ok(live),
            Ok(None) => {}
            // Damaged where no frame of the body is: it is set aside and fetched again as if one were.
            Err(error) if !error.is_retryable() => self.damaged_at_rest(*fleet, *package, None, &error.to_string()),
            Err(error) => return Err(broken(error)),
        }
        // Before the machine demands the reception: what is demanded takes this up.
        let live = self.relays.claimed.claim(&self.arrivals, package);
        let asked = self.with_relay(fleet, |relay| {
            relay.package_gone(&package.id);
            relay.asked(&package.id)
        });
        match asked {
            Ok(Asked::Serve | Asked::Wait) => Ok(live),
            Ok(Asked::Refused(refused)) => {
                self.relays.claimed.forget(&package.id);
                Err(Reply::Answer(crate::protocol::Answer::Refused(refused)))
            }
            Err(error) => {
                self.relays.claimed.forget(&package.id);
                Err(broken(error))
            }
        }
    }

    /// A package that is here, opened once for all who read it at the same time.
    fn whole_package(&self, fleet: &KeyHash, id: &PackageId) -> Result<Option<Arc<Live>>, Error> {
        if wait(self.depot.info(*id))?.is_none() {
            return Ok(None);
        }
        if let Some(live) = lock(&self.relays.whole).get(id).and_then(std::sync::Weak::upgrade) {
            return Ok(Some(live));
        }
        let file = self.depot.open_file(*id)?;
        let by = self.package_root(fleet, *id)?;
        let index = read_any_index(&*file, &Limits::DEFAULT, |found: &Root, bytes: &[u8], signature: &Signature| {
            judge_signature(&by, found, bytes, signature)?;
            Ok::<_, Error>(Opening::Unread)
        })?;
        let live = Arc::new(Live::whole(index.blind().clone(), file as Arc<dyn ReadAt>));
        let mut whole = lock(&self.relays.whole);
        whole.retain(|_, live| live.strong_count() > 0);
        whole.insert(*id, Arc::downgrade(&live));
        Ok(Some(live))
    }

    fn relayed(self: &Arc<Self>, key: Key, child: KeyHash, package: PackageRef, live: Arc<Live>) -> Relayed {
        let (counting, mending) = (self.clone(), self.clone());
        let revision = revision_of(&package);
        Relayed {
            pace: self.pace_for_child(key, child, package.id, live.clone()),
            live,
            sent: Box::new(move |bytes| {
                counting.relays.counters.count(key, (package.id, revision), Some(child), bytes);
            }),
            damaged: Box::new(move |frame| {
                let state = mending.clone();
                // A reading thread has no time for this.
                mending.links.spawn(async move {
                    let telling = move || {
                        state.damaged_at_rest(key.0, package, Some(frame), "it is not what the table says");
                    };
                    let _ = tokio::task::spawn_blocking(telling).await;
                });
            }),
        }
    }

    /// When bytes of a package may go to a child: by the rates and the queue of this node, and while the window is open.
    fn pace_for_child(
        self: &Arc<Self>,
        key: Key,
        child: KeyHash,
        package: PackageId,
        live: Arc<Live>,
    ) -> Box<dyn Pace> {
        let (fleet, distribution) = key;
        let passed = move |state: &Self| {
            let machines = lock(&state.relays.machines);
            let passed = machines.get(&fleet)?.passed(&distribution)?;
            Some((passed.priority(), passed.closes()))
        };
        // Asked before the gate is seen, so that no change of it is missed.
        let changes = self.sends.gate_changes();
        let (priority, open_until) = passed(self).unwrap_or_default();
        let state = self.clone();
        let gate = move || match passed(&state).and_then(|(_, closes)| closes) {
            Some(closes) if closes <= state.now(&fleet) => {
                Gate::Closed(Refused::new(code::WINDOW_CLOSED, "the send window is closed"))
            }
            until => Gate::Open { until },
        };
        self.sends.pace(PaceOptions {
            send: SendKey { link: child, package },
            priority,
            link_rate: self.child_rate(),
            changes,
            open_until,
            gate: Box::new(gate),
            frame_end: Arc::new(move |at| live.frame_end(at)),
        })
    }

    /// Sets a package aside that was whole and is damaged, says so, and has it mended from upstream, where all that is
    /// right of it is not fetched again.
    fn damaged_at_rest(self: &Arc<Self>, fleet: KeyHash, package: PackageRef, frame: Option<u64>, what: &str) {
        let Some((distribution, _)) = self.with_relay(&fleet, |relay| relay.named(&package.id)).ok().flatten() else {
            return;
        };
        lock(&self.relays.whole).remove(&package.id);
        match wait(self.depot.set_corrupt(package.id)) {
            Ok(_) => {}
            // Somebody else found it, or it is still arriving, and then it is found when that ends.
            Err(_) => return,
        }
        let detail = match frame {
            Some(frame) => format!("frame {frame} of what {} keeps", self.name()),
            None => format!("what {} keeps: {what}", self.name()),
        };
        self.say_relayed((fleet, distribution), &package, Stage::Corrupt, Some(AT_REST), detail);
        let _ = self.with_relay(&fleet, |relay| {
            relay.package_gone(&package.id);
            relay.asked(&package.id)
        });
    }

    /// A receipt of this node as a relay: also about what it does not extract itself.
    pub(super) fn say_relayed(
        &self,
        (fleet, distribution): (KeyHash, DistributionId),
        package: &PackageRef,
        stage: Stage,
        code: Option<&str>,
        detail: String,
    ) {
        let revision = revision_of(package);
        let firing =
            self.with_relay(&fleet, |relay| relay.passed(&distribution).and_then(|passed| passed.newest_firing()));
        if stage == Stage::Corrupt {
            let name = self.known_label(&fleet, &distribution);
            tracing::error!(code, distribution = %name, %revision, detail, "what is passed on is damaged");
            self.events.emit(SubscriberEvent::Corrupt { distribution: name, revision, detail: detail.clone() });
        }
        let receipt = Receipt {
            firing: firing.ok().flatten(),
            distribution,
            revision,
            package: Some(package.id),
            stage,
            code: code.map(ToOwned::to_owned),
            detail,
            at: self.clock.now(),
        };
        self.say_now(&fleet, receipt);
    }

    /// Whether this node needs a package for what it holds itself.
    pub(super) fn needs_itself(&self, key: &Key, package: &PackageId) -> Result<bool, Error> {
        let before: Option<Held> = self.records.get(&before_key(key))?;
        let held = self.noted_held(key)?;
        Ok([held, before].iter().flatten().any(|held| held.package(package).is_some()))
    }
}
