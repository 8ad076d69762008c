//! Firings: started by `send`, persisted at every change, offered to whoever is connected, and watched to their end.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedMutexGuard;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::grants::Withheld;
use crate::distributor::offering::Due;
use crate::distributor::report::{BuiltRevision, Reading, SendOptions, SentBuild, SentFiring};
use crate::distributor::scheduled::Task;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, FiringId, KeyHash, UnixMillis};
use crate::model::{Distribution, Priority};
use crate::name::{Label, NodeName};
use crate::protocol::{Cause, Firing, FiringStart, FiringTarget, Until, WaitingFor};
use crate::schedule::Start;

/// How a firing begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fire {
    pub(super) id: FiringId,
    pub(super) cause: Cause,
    /// The end of the window that it began in.
    pub(super) closes: Option<UnixMillis>,
    /// Whether Distributions that are built with the send are.
    pub(super) build: bool,
}

impl Fire {
    fn is_by_hand(&self) -> bool {
        self.cause == Cause::Send
    }
}

impl State {
    /// Starts a firing of a Channel by hand: builds what has changed, persists the firing, and offers to whoever is
    /// connected.
    pub(super) async fn send(self: &Arc<Self>, channel: &Label, options: SendOptions) -> Result<SentFiring, Error> {
        let _one_at_a_time = self.sending(channel).await;
        if !lock(&self.fleet).channel(channel)?.active {
            return Err(DistributorError::Inactive(channel.clone()).into());
        }
        let id = FiringId::from_bytes(self.random()?);
        self.fire(channel, Fire { id, cause: Cause::Send, closes: None, build: options.build }).await
    }

    /// Waits until no other firing of the Channel is about to begin, and lets none begin while it is held: one that a new
    /// revision is the reason for would do a second time what a `send` does that built it.
    pub(super) async fn sending(&self, channel: &Label) -> OwnedMutexGuard<()> {
        let right = {
            let mut sending = lock(&self.sending);
            sending.retain(|_, right| Arc::strong_count(right) > 1);
            sending.entry(channel.clone()).or_default().clone()
        };
        right.lock_owned().await
    }

    /// Starts a firing, for whoever holds the right to that. What goes wrong with one Distribution by a schedule keeps the
    /// others from nothing; by hand it is an error.
    pub(super) async fn fire(self: &Arc<Self>, channel: &Label, fire: Fire) -> Result<SentFiring, Error> {
        let mut distributions = self.active_distributions(channel)?;
        if distributions.is_empty() {
            return Err(DistributorError::NothingActive(channel.clone()).into());
        }
        if lock(&self.fleet).subscribers_of(channel)?.is_empty() {
            return Err(DistributorError::NoSubscribers(channel.clone()).into());
        }
        let builds = if fire.build { self.build_with_send(&distributions, fire).await? } else { vec![] };
        let (mut mended, mut damaged) = (vec![], vec![]);
        for distribution in &distributions {
            match self.make_sure(distribution).await {
                Ok(note) => mended.extend(note.map(|note| (distribution.id, note))),
                Err(error) if fire.is_by_hand() => return Err(error),
                Err(error) => {
                    tracing::error!(distribution = %distribution.name, code = error.code(), %error, "left out of a firing");
                    damaged.push(distribution.id);
                }
            }
        }
        distributions.retain(|distribution| !damaged.contains(&distribution.id));
        let (state, of) = (self.clone(), channel.clone());
        let begun = {
            let _not_all_at_once = self.beginning.acquire().await;
            let beginning = move || {
                state.start_firing(&of, &distributions, mended, fire)?;
                state.follow_firing(fire.id)
            };
            tokio::task::spawn_blocking(beginning).await.map_err(|_| DistributorError::Worker)?
        };
        begun?;
        self.offer_all(self.recipients_of(&fire.id), Due::Of(fire.id));
        Ok(SentFiring { firing: fire.id, builds })
    }

    /// The Distributions that a Channel sends now.
    pub(super) fn active_distributions(&self, channel: &Label) -> Result<Vec<Distribution>, Error> {
        let fleet = lock(&self.fleet);
        Ok(fleet.distributions_of(channel)?.into_iter().filter(|distribution| distribution.active).cloned().collect())
    }

    async fn build_with_send(
        self: &Arc<Self>,
        distributions: &[Distribution],
        fire: Fire,
    ) -> Result<Vec<SentBuild>, Error> {
        let now = self.now();
        let is_due = |distribution: &&Distribution| {
            *distribution.build.start() == Start::WithSend && distribution.build.is_open(now)
        };
        let mut builds = vec![];
        for distribution in distributions.iter().filter(is_due) {
            let started = Instant::now();
            let built = self.build(&distribution.name, Reading::Changed).await;
            if !fire.is_by_hand() {
                self.note_build(&Task::Build(distribution.id), &distribution.name, &built);
            }
            match built {
                Ok(outcome) => {
                    let (distribution, took) = (distribution.name.clone(), started.elapsed());
                    builds.push(SentBuild { distribution, outcome, took });
                }
                Err(error) if fire.is_by_hand() => return Err(error),
                // What was built before goes out.
                Err(_) => {}
            }
        }
        Ok(builds)
    }

    fn start_firing(
        &self,
        channel: &Label,
        distributions: &[Distribution],
        mended: Vec<(DistributionId, String)>,
        fire: Fire,
    ) -> Result<(), Error> {
        let (mut targets, mut withheld, mut unbuilt) = (vec![], vec![], None);
        let subscribers = self.keys_of(channel)?;
        for distribution in distributions {
            let Some(newest) = self.newest(distribution)? else {
                let error = DistributorError::NotBuilt(distribution.name.clone());
                if fire.is_by_hand() {
                    return Err(error.into());
                }
                unbuilt = Some(error);
                continue;
            };
            withheld.extend(self.withheld_of(distribution, &newest, &subscribers).map(|why| (distribution, why)));
            for subscriber in &subscribers {
                let (subscriber, revision) = (*subscriber, newest.revision);
                targets.push(FiringTarget { subscriber, distribution: distribution.id, revision });
            }
        }
        if targets.is_empty() {
            let nobody = DistributorError::NoneEnrolled(channel.clone());
            return Err(unbuilt.filter(|_| !subscribers.is_empty()).unwrap_or(nobody).into());
        }
        let priority = distributions.iter().map(|distribution| distribution.priority).max().unwrap_or(Priority::Medium);
        let (id, cause, closes, now) = (fire.id, fire.cause, fire.closes, self.now());
        let start = FiringStart { id, channel: channel.clone(), priority, until: Until::Extracted, cause, closes };
        self.note_mended(id, mended)?;
        let ended = self.begin_firing(Firing::start(start, targets, now))?;
        self.forget_old_firings()?;
        self.sends.look_again();
        for firing in ended {
            tracing::info!(%firing, by = %id, "a firing ended: another of its Channel follows it");
            self.events.emit(DistributorEvent::FiringEnded { firing });
        }
        tracing::info!(firing = %id, %channel, ?cause, "a firing began");
        let closes = lock(&self.firings).get(&id).and_then(Firing::closes);
        if let Some(closes) = closes
            && let Err(error) = self.warn_of_window(id, closes, channel)
        {
            tracing::warn!(code = error.code(), %error, "it cannot be estimated whether the firing fits its window");
        }
        self.events.emit(DistributorEvent::FiringStarted { firing: id, channel: channel.clone(), cause });
        for (distribution, why) in withheld {
            self.withhold(id, distribution, &why)?;
        }
        Ok(())
    }

    /// Grants a revision to those whom it goes to, and says who gets nothing. Where nothing can be granted at all,
    /// nobody does, and other Distributions of the Channel go out all the same.
    fn withheld_of(
        &self,
        distribution: &Distribution,
        built: &BuiltRevision,
        subscribers: &[KeyHash],
    ) -> impl Iterator<Item = Withheld> + use<> {
        let withheld = match self.grant(distribution, built, subscribers) {
            Ok(granted) => granted.withheld,
            Err(error) => {
                let (code, reason) = (error.code(), error.to_string());
                let why = |subscriber: &KeyHash| Withheld {
                    subscriber: *subscriber,
                    code,
                    reason: reason.clone(),
                    waiting_for: WaitingFor::Grant,
                };
                subscribers.iter().map(why).collect()
            }
        };
        withheld.into_iter()
    }

    pub(super) fn cancel(&self, id: &FiringId) -> Result<(), Error> {
        self.firing_head(id)?;
        let ticket = self.change_firing(*id, |firing, now| {
            firing.cancel(now);
            firing.is_over()
        });
        self.durable_now(ticket)
    }

    /// The registered keys of a Channel's Subscribers.
    pub(super) fn keys_of(&self, channel: &Label) -> Result<Vec<KeyHash>, Error> {
        let names: Vec<NodeName> =
            lock(&self.fleet).subscribers_of(channel)?.iter().map(|subscriber| subscriber.name.clone()).collect();
        let keys = names.iter().filter_map(|name| self.key_of_name(name));
        Ok(keys.filter(|key| !self.is_key_revoked(key)).collect())
    }

    pub(super) fn name_of_distribution(&self, id: &DistributionId) -> Label {
        let named = lock(&self.fleet).distribution_by_id(id).map(|distribution| distribution.name.clone());
        named.unwrap_or_else(|| crate::node::label_of_id(id))
    }

    /// Whether a Subscriber is connected with this Distributor itself, and not through a parent.
    pub(super) fn is_connected(&self, name: &NodeName) -> bool {
        self.key_of_name(name).is_some_and(|key| self.links.is_connected(&key))
    }
}
