//! Offering: what is due to those who are reached, grouped by the hop that leads to them, with the envelopes that it is
//! offered with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::distributor::error::DistributorError;
use crate::distributor::grants::Withheld;
use crate::distributor::report::BuiltRevision;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{DistributionId, EnvelopeId, FiringId, KeyHash, PackageId, UnixMillis};
use crate::limits::Limits;
use crate::model::Distribution;
use crate::node::ask;
use crate::protocol::{Answer, Firing, FiringTarget, Offer, OfferAnswer, PartRole, Request, WaitingFor};
use crate::transport::{Connection as _, QuicConnection};

/// How long a Subscriber may think about an offer: it fetches and verifies the statement meanwhile.
const OFFER_PATIENCE: Duration = Duration::from_secs(60);

/// When something is offered again that a hop does not pass on: what it lacks may be on its way.
const REFUSED_BY_HOP: Duration = Duration::from_secs(30);

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
        let part_of = |target: &FiringTarget| firing.part(subscriber, &target.distribution);
        targets.retain(|target| part_of(target).is_some_and(|part| part.not_before.is_some()));
    }
    targets
}

/// The envelopes that a revision is offered with.
struct OfferedWith {
    statement: EnvelopeId,
    grants: Vec<(PackageId, EnvelopeId)>,
}

impl State {
    /// Offers what is due to a peer that is connected and to those that are reached through it.
    pub(super) fn offer_to(self: &Arc<Self>, hop: KeyHash, connection: QuicConnection, due: Due) {
        let state = self.clone();
        self.links.spawn(async move {
            let of = state.clone();
            let finding = move || of.reached_over(&hop);
            let Ok(keys) = tokio::task::spawn_blocking(finding).await else { return };
            state.offer_over(hop, &connection, &keys, due).await;
        });
    }

    /// Offers what is due to some of those that are reached through a hop, which may be one of them.
    pub(super) fn offer_behind(self: &Arc<Self>, hop: KeyHash, connection: QuicConnection, keys: Vec<KeyHash>) {
        let state = self.clone();
        self.links.spawn(async move { state.offer_over(hop, &connection, &keys, Due::AllOpen).await });
    }

    /// Offers what is due to these, wherever they are reached: each hop hears of all of its own at once.
    pub(super) fn offer_all(self: &Arc<Self>, keys: impl IntoIterator<Item = KeyHash>, due: Due) {
        let mut hops: BTreeMap<KeyHash, (QuicConnection, Vec<KeyHash>)> = BTreeMap::new();
        for key in keys {
            if let Some((hop, connection)) = self.hop_towards(&key) {
                hops.entry(hop).or_insert_with(|| (connection, vec![])).1.push(key);
            }
        }
        for (hop, (connection, keys)) in hops {
            let state = self.clone();
            self.links.spawn(async move { state.offer_over(hop, &connection, &keys, due).await });
        }
    }

    /// The Subscribers that have a part in an open firing.
    pub(super) fn recipients_of(&self, firing: &FiringId) -> BTreeSet<KeyHash> {
        let firings = lock(&self.firings);
        let parts = firings.get(firing).map(Firing::parts).unwrap_or_default().iter();
        parts.filter(|part| part.role == PartRole::Recipient).map(|part| part.subscriber).collect()
    }

    /// Who is to be offered everything over a hop that has just connected: itself, and those behind it that are not
    /// reached in another way.
    fn reached_over(&self, hop: &KeyHash) -> Vec<KeyHash> {
        let tiers = self.tiers();
        let open: Vec<KeyHash> = tiers.behind(hop).filter(|key| lock(&self.firings).of(key).next().is_some()).collect();
        let over = |key: &KeyHash| self.hop_towards(key).is_some_and(|(way, _)| way == *hop);
        [*hop].into_iter().chain(open.into_iter().filter(over)).collect()
    }

    async fn offer_over(self: &Arc<Self>, hop: KeyHash, connection: &QuicConnection, keys: &[KeyHash], due: Due) {
        if connection.peer().fleet != self.own().authority.root().key_hash() {
            return;
        }
        let now = self.now();
        let mut groups: BTreeMap<(FiringId, DistributionId), Vec<FiringTarget>> = BTreeMap::new();
        {
            let firings = lock(&self.firings);
            for key in keys {
                for firing in firings.of(key) {
                    for target in due_of(firing, key, due, now) {
                        groups.entry((firing.id(), target.distribution)).or_default().push(target);
                    }
                }
            }
        }
        for ((firing, _), mut targets) in groups {
            // Offers take their time, and the firing may have ended meanwhile.
            targets.retain(|target| self.is_due_still(&firing, target) && !self.is_held(&firing, target));
            if let Err(error) = self.offer(connection, hop, firing, targets).await {
                tracing::warn!(hop = %self.name_of_key(&hop), %error, "an offer failed");
            }
        }
    }

    fn is_due_still(&self, firing: &FiringId, target: &FiringTarget) -> bool {
        let firings = lock(&self.firings);
        firings.get(firing).is_some_and(|firing| firing.offers(&target.subscriber, self.now()).contains(target))
    }

    /// Offers one Distribution in the course of one firing to a hop, for all those `targets` that it leads to.
    async fn offer(
        self: &Arc<Self>,
        connection: &QuicConnection,
        hop: KeyHash,
        id: FiringId,
        targets: Vec<FiringTarget>,
    ) -> Result<(), Error> {
        let Some(first) = targets.first().copied() else { return Ok(()) };
        let Some((distribution, built)) = self.offerable(&first.distribution)? else { return Ok(()) };
        let closes = lock(&self.firings).get(&id).and_then(Firing::closes);
        let (state, of) = (self.clone(), distribution.clone());
        // The hop itself comes first: it answers for itself.
        let mut recipients: Vec<KeyHash> = targets.iter().map(|target| target.subscriber).collect();
        recipients.sort_by_key(|key| *key != hop);
        let preparing = move || state.prepare_offer(id, &of, &built, recipients);
        let prepared = tokio::task::spawn_blocking(preparing).await.map_err(|_| DistributorError::Worker)??;
        let Some((OfferedWith { statement, grants }, recipients)) = prepared else { return Ok(()) };
        for some in recipients.chunks(Limits::DEFAULT.named_keys_max) {
            let offer = Offer {
                firing: id,
                distribution: distribution.id,
                priority: distribution.priority,
                statement,
                grants: grants.clone(),
                recipients: some.to_vec(),
                closes,
            };
            self.note_offered(id, hop, FiringTarget { subscriber: hop, ..first }, some);
            let answer = ask(connection, &Request::Offer(offer), &Limits::DEFAULT, OFFER_PATIENCE).await?;
            let Answer::Offer(answer) = answer else { return Ok(()) };
            self.note_answer(id, &distribution, hop, some, &answer);
        }
        Ok(())
    }

    /// Notes that an offer goes out. A hop that passes on what it has no part in gets one as a relay.
    fn note_offered(&self, id: FiringId, hop: KeyHash, relay: FiringTarget, recipients: &[KeyHash]) {
        self.change_firing(id, |firing, now| {
            let mut changed = false;
            for key in recipients {
                let over = Some(hop).filter(|hop| hop != key);
                changed |= firing.offered_over(key, &relay.distribution, over, now);
            }
            let passes_on = recipients.iter().any(|key| *key != hop);
            if passes_on && firing.part(&hop, &relay.distribution).is_none() {
                changed |= firing.relays(&relay, now);
            }
            changed
        });
    }

    /// Notes what a hop answered. It answers for itself where it is a recipient. One that refuses, or is to be asked
    /// later, may not have passed the offer on: it is made again for those behind it.
    fn note_answer(
        &self,
        id: FiringId,
        distribution: &Distribution,
        hop: KeyHash,
        recipients: &[KeyHash],
        answer: &OfferAnswer,
    ) {
        let is_recipient = recipients.contains(&hop);
        if let OfferAnswer::Refused(refused) = answer {
            let subscriber = self.name_of_key(&hop);
            tracing::warn!(%subscriber, distribution = %distribution.name, code = refused.code(), reason = refused.reason(), "the offer was refused");
        }
        let put_off = match answer {
            OfferAnswer::Later { until } => Some(*until),
            OfferAnswer::Refused(_) => Some(self.now().plus(REFUSED_BY_HOP)),
            _ => None,
        };
        self.change_firing(id, |firing, now| {
            let mut changed = is_recipient && firing.answered(&hop, &distribution.id, answer, now);
            if let Some(until) = put_off {
                for key in recipients.iter().filter(|key| **key != hop) {
                    changed |= firing.answered(key, &distribution.id, &OfferAnswer::Later { until }, now);
                    changed |= firing.waits(key, &distribution.id, Some((WaitingFor::Parent, Some(until))), now);
                }
            }
            changed
        });
    }

    /// The envelopes to offer a revision with, and to whom: of a sealed one those for whom nothing can be wrapped are
    /// left out, and their part of the firing says why. `None` where nobody is left.
    fn prepare_offer(
        &self,
        firing: FiringId,
        distribution: &Distribution,
        built: &BuiltRevision,
        mut recipients: Vec<KeyHash>,
    ) -> Result<Option<(OfferedWith, Vec<KeyHash>)>, Error> {
        let granted = match self.grant(distribution, built, &recipients) {
            Ok(granted) => granted,
            Err(error) => {
                let (code, reason, waiting_for) = (error.code(), error.to_string(), WaitingFor::Grant);
                for subscriber in recipients {
                    self.withhold(
                        firing,
                        distribution,
                        &Withheld { subscriber, code, reason: reason.clone(), waiting_for },
                    )?;
                }
                return Ok(None);
            }
        };
        for why in &granted.withheld {
            self.withhold(firing, distribution, why)?;
            recipients.retain(|key| *key != why.subscriber);
        }
        if recipients.is_empty() {
            return Ok(None);
        }
        let statement = self.statement(distribution, built)?;
        Ok(Some((OfferedWith { statement, grants: granted.envelopes }, recipients)))
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
}
