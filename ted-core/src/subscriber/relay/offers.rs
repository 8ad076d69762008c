//! Offers on their way: taken from upstream for nodes behind this one, and made to the children.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::id::KeyHash;
use crate::limits::Limits;
use crate::node::ask;
use crate::protocol::{Answer, Offer, OfferAnswer, PassedOffer, Refused, Request, Statement};
use crate::security::Envelope;
use crate::subscriber::relay::worker_gone;
use crate::subscriber::state::State;

/// How long a child may think about an offer: it fetches and verifies the statement meanwhile.
const OFFER_PATIENCE: Duration = Duration::from_secs(60);

impl State {
    /// Takes an offer to nodes behind this one: what it needs is durable when this returns. The inner error is what
    /// upstream is told; none of those whom it is for being behind any child is something that the next entitlements may
    /// change, and no refusal.
    pub(in crate::subscriber) async fn pass_on(
        self: &Arc<Self>,
        fleet: KeyHash,
        offer: &Offer,
        statement: &Statement,
        envelope: &Envelope,
    ) -> Result<Result<(), OfferAnswer>, Error> {
        let passed = PassedOffer {
            firing: offer.firing,
            distribution: offer.distribution,
            priority: offer.priority,
            closes: offer.closes,
            recipients: offer.recipients.iter().copied().collect(),
            statement: offer.statement,
            issued: statement.issued,
            expires: statement.expires,
            packages: statement.release.packages.clone(),
            grants: offer.grants.clone(),
        };
        let (state, bytes) = (self.clone(), envelope.to_bytes().to_vec());
        let taking = move || state.take_passed(&fleet, passed, bytes);
        tokio::task::spawn_blocking(taking).await.map_err(worker_gone)?
    }

    fn take_passed(
        &self,
        fleet: &KeyHash,
        mut offer: PassedOffer,
        statement: Vec<u8>,
    ) -> Result<Result<(), OfferAnswer>, Error> {
        let (now, own) = (self.now(fleet), self.identity(fleet)?.certificate.key_hash());
        let entitlements = self.entitlements(fleet);
        offer.recipients.retain(|key| *key != own && entitlements.get(key).is_some_and(|of| !of.through.is_empty()));
        if offer.recipients.is_empty() {
            return Ok(Err(OfferAnswer::Later { until: now.plus(Duration::from_secs(5)) }));
        }
        let (distribution, id) = (offer.distribution, offer.statement);
        self.keep_envelope(fleet, &distribution, &id, statement)?;
        if let Err(refused) = self.with_relay(fleet, |relay| relay.offered(&offer, now))? {
            return Ok(Err(OfferAnswer::Refused(refused)));
        }
        // The driver does so too, maybe later than the answer goes out.
        self.keep_what_passes(fleet, &distribution)?;
        Ok(Ok(()))
    }

    /// Makes an offer to a child, and tells the machine what came of it.
    pub(super) async fn offer_to_child(self: Arc<Self>, fleet: KeyHash, child: KeyHash, offer: PassedOffer) {
        let (distribution, firing) = (offer.distribution, offer.firing);
        let answer = self.make_offers(&fleet, &child, &offer).await;
        let now = self.now(&fleet);
        let told = match answer {
            Ok(answer) => {
                if let OfferAnswer::Refused(refused) = &answer {
                    self.say_refused(&fleet, &child, refused);
                }
                self.with_relay(&fleet, |relay| relay.answered(&child, &distribution, &firing, &answer, now))
            }
            Err(error) => {
                tracing::info!(child = self.child_name(&fleet, &child), code = error.code(), %error, "an offer failed");
                self.with_relay(&fleet, |relay| relay.offer_failed(&child, &distribution, &firing, now))
            }
        };
        if let Err(error) = told {
            tracing::error!(code = error.code(), %error, "what a child answered cannot be told");
        }
    }

    fn say_refused(&self, fleet: &KeyHash, child: &KeyHash, refused: &Refused) {
        let child = self.child_name(fleet, child);
        tracing::warn!(child, code = refused.code(), reason = refused.reason(), "an offer was refused");
    }

    /// As many messages as it takes. Of several answers the one counts that asks for more.
    async fn make_offers(&self, fleet: &KeyHash, child: &KeyHash, offer: &PassedOffer) -> Result<OfferAnswer, Error> {
        let limits = Limits::DEFAULT;
        let Some(connection) = self.children.get(&(*fleet, *child)) else {
            return Ok(OfferAnswer::Later { until: self.now(fleet) });
        };
        // The child itself comes first: it answers for itself.
        let mut recipients: Vec<KeyHash> = offer.recipients.iter().copied().collect();
        recipients.sort_by_key(|key| key != child);
        let mut first = None;
        for some in recipients.chunks(limits.named_keys_max) {
            let message = Offer {
                firing: offer.firing,
                distribution: offer.distribution,
                priority: offer.priority,
                statement: offer.statement,
                grants: offer.grants.clone(),
                recipients: some.to_vec(),
                closes: offer.closes,
            };
            let answer = ask(&connection, &Request::Offer(message), &limits, OFFER_PATIENCE).await?;
            let Answer::Offer(answer) = answer else { continue };
            if matches!(answer, OfferAnswer::Later { .. }) {
                return Ok(answer);
            }
            first.get_or_insert(answer);
        }
        Ok(first.unwrap_or(OfferAnswer::Relays))
    }
}
