//! Firings: started by `send`, persisted at every change, offered to whoever is connected, and watched to their end.

use std::sync::Arc;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::grants::Withheld;
use crate::distributor::offering::Due;
use crate::distributor::report::{BuiltRevision, Reading, SendOptions};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, FiringId, KeyHash};
use crate::model::{Distribution, Priority};
use crate::name::{Label, NodeName};
use crate::protocol::{Cause, Firing, FiringStart, FiringTarget, Until};

impl State {
    /// Starts a firing of a Channel: builds what has changed, persists the firing, and offers to whoever is connected.
    pub(super) async fn send(self: &Arc<Self>, channel: &Label, options: SendOptions) -> Result<FiringId, Error> {
        let distributions: Vec<Distribution> =
            lock(&self.fleet).distributions_of(channel)?.into_iter().cloned().collect();
        if lock(&self.fleet).subscribers_of(channel)?.is_empty() {
            return Err(DistributorError::NoSubscribers(channel.clone()).into());
        }
        if options.build {
            for distribution in &distributions {
                self.build(&distribution.name, Reading::Changed).await?;
            }
        }
        let mut mended = vec![];
        for distribution in &distributions {
            let note = self.make_sure(distribution).await?;
            mended.extend(note.map(|note| (distribution.id, note)));
        }
        let state = self.clone();
        let channel = channel.clone();
        let firing = tokio::task::spawn_blocking(move || state.start_firing(&channel, &distributions, mended))
            .await
            .map_err(|_| DistributorError::Worker)??;
        for (key, connection) in self.links.all() {
            self.offer_to(key, connection, Due::Of(firing));
        }
        Ok(firing)
    }

    fn start_firing(
        &self,
        channel: &Label,
        distributions: &[Distribution],
        mended: Vec<(DistributionId, String)>,
    ) -> Result<FiringId, Error> {
        let (mut targets, mut withheld) = (vec![], vec![]);
        for distribution in distributions {
            let newest = self.newest(distribution)?;
            let newest = newest.ok_or_else(|| DistributorError::NotBuilt(distribution.name.clone()))?;
            let subscribers = self.keys_of(channel)?;
            withheld.extend(self.withheld_of(distribution, &newest, &subscribers).map(|why| (distribution, why)));
            for subscriber in subscribers {
                targets.push(FiringTarget { subscriber, distribution: distribution.id, revision: newest.revision });
            }
        }
        if targets.is_empty() {
            return Err(DistributorError::NoneEnrolled(channel.clone()).into());
        }
        let priority = distributions.iter().map(|distribution| distribution.priority).max().unwrap_or(Priority::Medium);
        let id = FiringId::from_bytes(self.random()?);
        let now = self.now();
        let start = FiringStart {
            id,
            channel: channel.clone(),
            priority,
            until: Until::Extracted,
            cause: Cause::Send,
            closes: None,
        };
        self.note_mended(id, mended)?;
        let ended = self.begin_firing(Firing::start(start, targets, now))?;
        self.forget_old_firings()?;
        self.sends.look_again();
        for firing in ended {
            tracing::info!(%firing, by = %id, "a firing ended: another of its Channel follows it");
            self.events.emit(DistributorEvent::FiringEnded { firing });
        }
        tracing::info!(firing = %id, %channel, "a firing began");
        let closes = lock(&self.firings).get(&id).and_then(Firing::closes);
        if let Some(closes) = closes
            && let Err(error) = self.warn_of_window(id, closes, channel)
        {
            tracing::warn!(code = error.code(), %error, "it cannot be estimated whether the firing fits its window");
        }
        self.events.emit(DistributorEvent::FiringStarted { firing: id, channel: channel.clone() });
        for (distribution, why) in withheld {
            self.withhold(id, distribution, &why)?;
        }
        Ok(id)
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
                let why = |subscriber: &KeyHash| Withheld { subscriber: *subscriber, code, reason: reason.clone() };
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
    fn keys_of(&self, channel: &Label) -> Result<Vec<KeyHash>, Error> {
        let names: Vec<NodeName> =
            lock(&self.fleet).subscribers_of(channel)?.iter().map(|subscriber| subscriber.name.clone()).collect();
        let keys = names.iter().filter_map(|name| self.key_of_name(name));
        Ok(keys.filter(|key| !self.is_key_revoked(key)).collect())
    }

    pub(super) fn name_of_distribution(&self, id: &DistributionId) -> Label {
        let named = lock(&self.fleet).distribution_by_id(id).map(|distribution| distribution.name.clone());
        named.unwrap_or_else(|| crate::node::label_of_id(id))
    }

    /// What is in the way of a row, where a Subscriber is not even enrolled or connected.
    pub(super) fn is_connected(&self, name: &NodeName) -> bool {
        self.key_of_name(name).is_some_and(|key| self.links.is_connected(&key))
    }
}
