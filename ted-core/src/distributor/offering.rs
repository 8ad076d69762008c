//! Offering: what is due to one Subscriber that is connected, with the envelopes that it is offered with.

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
use crate::protocol::{Answer, Firing, FiringTarget, Offer, OfferAnswer, Request};
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
                firings.of(&key).flat_map(of).collect()
            };
            for (firing, target) in targets {
                // Offers take their time, and the firing may have ended meanwhile.
                if !state.is_due_still(&firing, &target) || state.is_held(&firing, &target) {
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
        let offer = Offer {
            firing: id,
            distribution: distribution.id,
            priority: distribution.priority,
            statement,
            grants,
            recipients: vec![target.subscriber],
            closes: lock(&self.firings).get(&id).and_then(Firing::closes),
        };
        self.change_firing(id, |firing, now| firing.offered(&target.subscriber, &target.distribution, now));
        let answer = ask(connection, &Request::Offer(offer), &Limits::DEFAULT, OFFER_PATIENCE).await?;
        let Answer::Offer(answer) = answer else { return Ok(()) };
        if let OfferAnswer::Refused(refused) = &answer {
            let subscriber = self.name_of_key(&target.subscriber);
            tracing::warn!(%subscriber, distribution = %distribution.name, code = refused.code(), reason = refused.reason(), "the offer was refused");
        }
        self.change_firing(id, |firing, now| firing.answered(&target.subscriber, &target.distribution, &answer, now));
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
}
