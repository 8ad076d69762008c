//! Firings: started by `send`, persisted at every change, offered to whoever is connected, and watched to their end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::grants::Withheld;
use crate::distributor::report::{
    BuiltRevision, DeliveryRow, FiringReport, PlannedDelivery, Reading, SendOptions, SendPlan,
};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, EnvelopeId, FiringId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::{Distribution, Priority};
use crate::name::{Label, NodeName};
use crate::node::ask;
use crate::protocol::{Answer, Firing, FiringTarget, Offer, OfferAnswer, Outcome, PartState, Request, Until};
use crate::transport::{Connection as _, QuicConnection};

/// How long a Subscriber may think about an offer: it fetches and verifies the statement meanwhile.
const OFFER_PATIENCE: Duration = Duration::from_secs(60);

/// What is offered on which occasion. A part that failed is offered again on a new connection or in a new firing, and
/// not because another part happens to be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Everything that is open: the Subscriber has just connected.
    AllOpen,
    /// A firing that has just begun.
    Of(FiringId),
    /// What the Subscriber asked to be offered later, and that is now.
    Waited,
}

/// What of `firing` is to be offered to a Subscriber.
pub(super) fn due_of(firing: &Firing, subscriber: &KeyHash, due: Due, now: UnixMillis) -> Vec<FiringTarget> {
    let mut targets = match due {
        Due::Of(id) if id != firing.id() => vec![],
        _ => firing.offers(subscriber, now),
    };
    if due == Due::Waited {
        let waited: Vec<_> = firing.parts().iter().filter(|part| part.not_before.is_some()).collect();
        targets.retain(|target| {
            waited.iter().any(|part| (part.subscriber, part.distribution) == (target.subscriber, target.distribution))
        });
    }
    targets
}

/// The envelopes that a revision is offered with.
struct OfferedWith {
    statement: EnvelopeId,
    grants: Vec<(PackageId, EnvelopeId)>,
}

/// Ended firings that stay on record.
const FIRINGS_KEPT: usize = 100;

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
        let firing = Firing::start(id, channel.clone(), priority, Until::Extracted, targets, now);
        self.note_mended(id, mended)?;
        let mut ended = vec![];
        {
            let mut firings = lock(&self.firings);
            for earlier in firings.values_mut().filter(|earlier| earlier.channel() == channel) {
                if !earlier.is_over() {
                    earlier.supersede(now);
                    self.persist(earlier)?;
                    ended.push(earlier.id());
                }
            }
            self.persist(&firing)?;
            firings.insert(id, firing);
        }
        self.forget_old_firings()?;
        for firing in ended {
            tracing::info!(%firing, by = %id, "a firing ended: another of its Channel follows it");
            self.events.emit(DistributorEvent::FiringEnded { firing });
        }
        tracing::info!(firing = %id, %channel, "a firing began");
        self.events.emit(DistributorEvent::FiringStarted { firing: id, channel: channel.clone() });
        for (distribution, why) in withheld {
            self.withhold(id, distribution, &why)?;
        }
        self.firing_changes.send_modify(|count| *count += 1);
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

    /// What a send would do now.
    pub(super) fn plan(&self, channel: &Label) -> Result<SendPlan, Error> {
        let fleet = lock(&self.fleet).clone();
        let mut rows = vec![];
        for distribution in fleet.distributions_of(channel)? {
            let newest = self.newest(distribution)?;
            for subscriber in fleet.subscribers_of(channel)? {
                rows.push(PlannedDelivery {
                    subscriber: subscriber.name.clone(),
                    connected: self.is_connected(&subscriber.name),
                    distribution: distribution.name.clone(),
                    revision: newest.as_ref().map(|newest| newest.revision),
                    bytes: newest.as_ref().map(|newest| newest.bytes),
                });
            }
        }
        Ok(SendPlan { rows })
    }

    pub(super) fn cancel(&self, id: &FiringId) -> Result<(), Error> {
        let mut firings = lock(&self.firings);
        let firing = firings.get_mut(id).ok_or(DistributorError::UnknownFiring(*id))?;
        firing.cancel(self.now());
        self.persist(firing)?;
        drop(firings);
        self.events.emit(DistributorEvent::FiringEnded { firing: *id });
        self.firing_changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Waits until the firing is done as far as `until` says, or ends otherwise, or the time is over.
    pub(super) async fn wait(
        &self,
        id: &FiringId,
        until: Until,
        patience: Option<Duration>,
    ) -> Result<FiringReport, Error> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut changes = self.firing_changes.subscribe();
        loop {
            changes.borrow_and_update();
            let report = self.report(id)?;
            let reached = report.rows.iter().all(|row| row.state.is_done(until));
            if reached || report.outcome != Outcome::Open {
                return Ok(report);
            }
            let timed_out = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = timed_out => return self.report(id),
            }
        }
    }

    pub(super) fn report(&self, id: &FiringId) -> Result<FiringReport, Error> {
        let firings = lock(&self.firings);
        let firing = firings.get(id).ok_or(DistributorError::UnknownFiring(*id))?;
        Ok(self.report_of(firing))
    }

    /// The firings that `wanted` chooses, newest first.
    pub(super) fn reports(&self, wanted: impl Fn(&Firing) -> bool) -> Vec<FiringReport> {
        let firings = lock(&self.firings);
        let mut reports: Vec<_> =
            firings.values().filter(|firing| wanted(firing)).map(|firing| self.report_of(firing)).collect();
        reports.sort_by_key(|report| std::cmp::Reverse(report.started));
        reports
    }

    fn report_of(&self, firing: &Firing) -> FiringReport {
        let (sent, mended) = (lock(&self.sent), lock(&self.mended));
        let rows = firing.parts().iter().map(|part| {
            let sent = sent.get(&(part.subscriber, part.distribution)).filter(|sent| sent.revision >= part.revision);
            let goes_on = matches!(part.state, PartState::Pending | PartState::Offered | PartState::Receiving);
            let is_away = goes_on && part.detail.is_empty() && !self.links.is_connected(&part.subscriber);
            DeliveryRow {
                subscriber: self.name_of_key(&part.subscriber),
                distribution: self.name_of_distribution(&part.distribution),
                revision: part.revision,
                state: part.state,
                since: part.since,
                code: part.code.clone(),
                detail: if is_away { "not connected".to_owned() } else { part.detail.clone() },
                note: mended.get(&(firing.id(), part.distribution)).cloned(),
                sent_bytes: sent.map_or(0, |sent| sent.bytes),
                package_bytes: sent.map_or(0, |sent| sent.bytes_total),
            }
        });
        FiringReport {
            firing: firing.id(),
            channel: firing.channel().clone(),
            started: firing.started(),
            outcome: firing.outcome(),
            rows: rows.collect(),
        }
    }

    /// Offers what is due to one Subscriber that is connected.
    pub(super) fn offer_to(self: &Arc<Self>, key: KeyHash, connection: QuicConnection, due: Due) {
        let state = self.clone();
        if connection.peer().fleet != self.own().authority.root().key_hash() {
            return;
        }
        self.links.spawn(async move {
            let now = state.now();
            let targets: Vec<_> = {
                let firings = lock(&state.firings);
                let of = |firing: &Firing| {
                    due_of(firing, &key, due, now).into_iter().map(|target| (firing.id(), target)).collect::<Vec<_>>()
                };
                firings.values().flat_map(of).collect()
            };
            for (firing, target) in targets {
                // Offers take their time, and the firing may have ended meanwhile.
                if !state.is_due_still(&firing, &target) {
                    continue;
                }
                if let Err(error) = state.offer(&connection, firing, target).await {
                    tracing::warn!(subscriber = %state.name_of_key(&key), %error, "an offer failed");
                }
            }
        });
    }

    fn is_due_still(&self, firing: &FiringId, target: &FiringTarget) -> bool {
        let firings = lock(&self.firings);
        firings.get(firing).is_some_and(|firing| firing.offers(&target.subscriber, self.now()).contains(target))
    }

    async fn offer(
        self: &Arc<Self>,
        connection: &QuicConnection,
        id: FiringId,
        target: FiringTarget,
    ) -> Result<(), Error> {
        let Some((distribution, built)) = self.offerable(&target.distribution)? else { return Ok(()) };
        let (state, of) = (self.clone(), distribution.clone());
        let preparing = move || state.prepare_offer(id, &of, &built, &target.subscriber);
        let prepared = tokio::task::spawn_blocking(preparing).await.map_err(|_| DistributorError::Worker)??;
        let Some(OfferedWith { statement, grants }) = prepared else { return Ok(()) };
        let offer =
            Offer { firing: id, distribution: distribution.id, priority: distribution.priority, statement, grants };
        self.change_firing(id, move |firing, now| firing.offered(&target.subscriber, &target.distribution, now)).await;
        let answer = ask(connection, &Request::Offer(offer), &Limits::DEFAULT, OFFER_PATIENCE).await?;
        let Answer::Offer(answer) = answer else { return Ok(()) };
        if let OfferAnswer::Refused(refused) = &answer {
            let subscriber = self.name_of_key(&target.subscriber);
            tracing::warn!(%subscriber, distribution = %distribution.name, code = refused.code(), reason = refused.reason(), "the offer was refused");
        }
        self.change_firing(id, move |firing, now| {
            firing.answered(&target.subscriber, &target.distribution, &answer, now)
        })
        .await;
        Ok(())
    }

    /// The envelopes to offer a revision with; `None` where it is sealed and nothing can be wrapped for this Subscriber.
    fn prepare_offer(
        &self,
        firing: FiringId,
        distribution: &Distribution,
        built: &BuiltRevision,
        subscriber: &KeyHash,
    ) -> Result<Option<OfferedWith>, Error> {
        let granted = self.grant(distribution, built, std::slice::from_ref(subscriber));
        let why = match granted {
            Ok(granted) => match granted.withheld.into_iter().next() {
                Some(why) => why,
                None => {
                    let statement = self.statement(distribution, built)?;
                    return Ok(Some(OfferedWith { statement, grants: granted.envelopes }));
                }
            },
            Err(error) => Withheld::because(subscriber, error),
        };
        self.withhold(firing, distribution, &why)?;
        Ok(None)
    }

    fn offerable(&self, id: &DistributionId) -> Result<Option<(Distribution, BuiltRevision)>, Error> {
        let Some(distribution) = lock(&self.fleet).distribution_by_id(id).cloned() else { return Ok(None) };
        let Some(built) = self.newest(&distribution)? else { return Ok(None) };
        if !self.may_offer(&distribution, &built)? {
            tracing::warn!(distribution = %distribution.name, revision = %built.revision, "not offered: the own copy is damaged");
            return Ok(None);
        }
        Ok(Some((distribution, built)))
    }

    /// Changes one firing, persists it, and tells those who wait.
    async fn change_firing(
        self: &Arc<Self>,
        id: FiringId,
        change: impl Fn(&mut Firing, UnixMillis) -> bool + Send + 'static,
    ) {
        self.change_firings(move |firing, now| firing.id() == id && change(firing, now)).await;
    }

    /// Changes every open firing, persists those that changed, and tells those who wait.
    pub(super) async fn change_firings(
        self: &Arc<Self>,
        change: impl Fn(&mut Firing, UnixMillis) -> bool + Send + 'static,
    ) {
        let state = self.clone();
        let changing = move || state.change_firings_now(change);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(changing).await {
            tracing::error!(code = error.code(), %error, "a firing cannot be kept");
        }
    }

    /// As [`State::change_firings`], on a thread where blocking is allowed.
    pub(super) fn change_firings_now(&self, change: impl Fn(&mut Firing, UnixMillis) -> bool) -> Result<(), Error> {
        let now = self.now();
        let (mut changed, mut ended) = (false, vec![]);
        {
            let mut firings = lock(&self.firings);
            for firing in firings.values_mut().filter(|firing| !firing.is_over()) {
                if !change(firing, now) {
                    continue;
                }
                changed = true;
                self.persist(firing)?;
                if firing.is_over() {
                    ended.push(firing.id());
                }
            }
        }
        if changed {
            self.firing_changes.send_modify(|count| *count += 1);
        }
        for firing in ended {
            tracing::info!(%firing, "a firing is over");
            self.events.emit(DistributorEvent::FiringEnded { firing });
        }
        Ok(())
    }

    pub(super) fn persist(&self, firing: &Firing) -> Result<(), Error> {
        let bytes = firing.encode(&Limits::DEFAULT)?;
        Ok(self.records.put_bytes(&format!("firing/{}", firing.id()), bytes)?)
    }

    fn forget_old_firings(&self) -> Result<(), Error> {
        let mut firings = lock(&self.firings);
        let mut over: Vec<_> =
            firings.values().filter(|firing| firing.is_over()).map(|firing| (firing.started(), firing.id())).collect();
        over.sort_unstable();
        for (_, id) in over.iter().rev().skip(FIRINGS_KEPT) {
            self.records.delete(&format!("firing/{id}"))?;
            self.forget_mended(*id)?;
            firings.remove(id);
        }
        Ok(())
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
