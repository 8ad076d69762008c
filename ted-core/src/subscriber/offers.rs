//! Offers: the statement is fetched and verified, judged by the delivery's machine, and answered; what is taken is
//! received, verified and extracted by one task for each Distribution.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crate::codec;
use crate::error::Error;
use crate::id::{DistributionId, KeyHash};
use crate::limits::Limits;
use crate::node::{Alarm, fetch};
use crate::protocol::{DeliveryAction, Fetch, FetchTarget, Offer, OfferAnswer, Refused, Statement};
use crate::security::{DistributorRoot, Envelope, EnvelopeKind, ReleaseStatement};
use crate::subscriber::deliveries::Job;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::grants::NewGrant;
use crate::subscriber::state::{State, lock};
use crate::transport::{Connection, QuicConnection};

/// How long the sender may take to hand out a statement it has just offered.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(30);

/// When an offer is to be made again whose statement could not be fetched.
const AGAIN_LATER: Duration = Duration::from_secs(5);

impl State {
    /// Answers an offer that came over `connection`.
    pub(super) async fn take_offer(self: &Arc<Self>, connection: &QuicConnection, offer: Offer) -> OfferAnswer {
        let fleet = connection.peer().fleet;
        match self.judge(connection, fleet, &offer).await {
            Ok(answer) => {
                if let OfferAnswer::Refused(refused) = &answer {
                    self.refused_offer(&fleet, refused.code(), refused.reason());
                }
                answer
            }
            Err(error) if error.is_retryable() => {
                tracing::info!(code = error.code(), %error, "an offer is to be made again a little later");
                OfferAnswer::Later { until: self.now(&fleet).plus(AGAIN_LATER) }
            }
            Err(error) => {
                self.refused_offer(&fleet, error.code(), &error.to_string());
                OfferAnswer::Refused(Refused::new(error.code(), error.to_string()))
            }
        }
    }

    fn refused_offer(&self, fleet: &KeyHash, code: &str, reason: &str) {
        let distributor = self.distributor_name(fleet);
        tracing::warn!(%distributor, code, reason, "an offer was refused");
        self.events.emit(SubscriberEvent::OfferRefused {
            distributor,
            code: code.to_owned(),
            reason: reason.to_owned(),
        });
    }

    async fn judge(
        self: &Arc<Self>,
        connection: &QuicConnection,
        fleet: KeyHash,
        offer: &Offer,
    ) -> Result<OfferAnswer, Error> {
        let root = self.trusted_root(&fleet)?;
        let envelope = self.fetch_statement(connection, &root, offer).await?;
        let body = envelope.body();
        let release: ReleaseStatement =
            codec::decode("a release statement", &body.payload, Limits::DEFAULT.envelope_bytes_max)?;
        if release.distribution != offer.distribution {
            return Err(SubscriberError::Statement("it is about another Distribution".to_owned()).into());
        }
        let grant = self.grant_for(connection, &root, offer, &release).await.inspect_err(|error| {
            self.note((fleet, release.distribution), |standing| {
                standing.offered = Some(release.revision);
                standing.trouble = Some(format!("{}: {error}", error.code()));
            });
        })?;
        let statement = Statement { release, issued: body.issued, expires: body.expires };
        let state = self.clone();
        let offer = offer.clone();
        let judging = move || state.judge_statement(fleet, &offer, &statement, grant.as_ref());
        tokio::task::spawn_blocking(judging).await.map_err(|_| SubscriberError::Worker)?
    }

    async fn fetch_statement(
        &self,
        connection: &QuicConnection,
        root: &DistributorRoot,
        offer: &Offer,
    ) -> Result<Envelope, Error> {
        let limits = Limits::DEFAULT;
        let wanted = Fetch { target: FetchTarget::Envelope(offer.statement), from: 0, to: limits.envelope_bytes_max };
        let fetched = fetch(connection, wanted, &limits, STATEMENT_PATIENCE).await?;
        let envelope = Envelope::from_bytes(&fetched.collect(limits.envelope_bytes_max).await?)?;
        if envelope.id() != offer.statement {
            return Err(SubscriberError::Statement("it is not the one that was offered".to_owned()).into());
        }
        envelope.expect_kind(EnvelopeKind::RELEASE_STATEMENT)?;
        // An expired statement is judged by the delivery, which raises an alarm; its signature has to hold all the same.
        let at = self.now(&root.key_hash()).min(envelope.body().expires).max(envelope.body().issued);
        envelope.verify(root, at)?;
        self.refuse_revoked(&root.key_hash(), &envelope.body().issuer)?;
        Ok(envelope)
    }

    /// Asks the delivery's machine and does what it says, in its order: the floor is durable before the answer goes out.
    /// So is the grant of a sealed revision that is taken.
    fn judge_statement(
        self: &Arc<Self>,
        fleet: KeyHash,
        offer: &Offer,
        statement: &Statement,
        grant: Option<&NewGrant>,
    ) -> Result<OfferAnswer, Error> {
        let now = self.now(&fleet);
        let key = (fleet, statement.release.distribution);
        if let Some(answer) = self.judge_pin(&key, statement)? {
            return Ok(answer);
        }
        let (answer, actions) = {
            let mut deliveries = lock(&self.deliveries);
            let delivery = match deliveries.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.new_delivery(fleet, statement.release.distribution)?),
            };
            delivery.offer(offer.firing, statement, now)
        };
        self.note(key, |standing| {
            standing.offered = Some(statement.release.revision);
            standing.trouble = match &answer {
                OfferAnswer::Refused(refused) => Some(refused.to_string()),
                _ => None,
            };
        });
        if !matches!(answer, OfferAnswer::Refused(_)) {
            let alarm = alarm_key(&fleet, &statement.release.distribution);
            if self.records.get::<Alarm>(&alarm)?.is_some() {
                self.records.delete(&alarm)?;
            }
            lock(&self.statements).insert(key, statement.release.clone());
            self.remember_firing(&key, offer.firing)?;
        }
        if let Some(grant) = grant.filter(|_| !matches!(answer, OfferAnswer::Refused(_))) {
            self.keep_grant(grant)?;
        }
        self.carry_out(fleet, statement.release.distribution, actions)?;
        if answer == OfferAnswer::Current {
            self.start_job(Job::Confirm { fleet, statement: statement.release.clone(), firing: offer.firing });
        }
        Ok(answer)
    }

    /// The expired statements that were offered and not followed by fresh ones.
    pub(super) fn statement_alarms(&self) -> Result<Vec<Alarm>, Error> {
        let rows = self.records.list::<Alarm>("alarm/")?.into_iter();
        Ok(rows
            .map(|(key, alarm)| {
                let parts = key.trim_start_matches("alarm/").split_once('/');
                let named = parts.and_then(|(fleet, id)| Some((fleet.parse().ok()?, id.parse().ok()?)));
                match named {
                    Some((fleet, id)) => {
                        let (name, of) = (self.known_label(&fleet, &id), self.distributor_name(&fleet));
                        Alarm { text: format!("{name} of {of}: {}", alarm.text), ..alarm }
                    }
                    None => alarm,
                }
            })
            .collect())
    }

    /// Drops the alarms about a Distributor that this node has left.
    pub(super) fn forget_alarms(&self, fleet: &KeyHash) -> Result<(), Error> {
        for (key, _) in self.records.list::<Alarm>(&format!("alarm/{fleet}/"))? {
            self.records.delete(&key)?;
        }
        Ok(())
    }

    /// Does what the delivery's machine asks for. Blocks on the disk.
    pub(super) fn carry_out(
        self: &Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
        actions: Vec<DeliveryAction>,
    ) -> Result<(), Error> {
        for action in actions {
            match action {
                DeliveryAction::RaiseFloor(floor) => {
                    self.floors.raise(&fleet, &distribution, floor)?;
                }
                DeliveryAction::Receive { firing, package } => {
                    let statement = lock(&self.statements).get(&(fleet, distribution)).cloned();
                    let statement = statement.ok_or_else(|| SubscriberError::Statement("it is gone".to_owned()))?;
                    self.start_job(Job::Receive { fleet, statement, firing, package });
                }
                DeliveryAction::Complete { firing, revision } => {
                    self.start_job(Job::Extract { fleet, distribution, firing: Some(firing), revision });
                }
                DeliveryAction::Alarm(refused) => {
                    let alarm = Alarm::new(refused.code(), refused.reason());
                    self.records.put(&alarm_key(&fleet, &distribution), &alarm)?;
                    self.tell_alarms();
                }
            }
        }
        Ok(())
    }
}

fn alarm_key(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("alarm/{fleet}/{distribution}")
}
