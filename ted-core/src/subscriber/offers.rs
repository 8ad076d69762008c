//! Offers: the statement is fetched and verified, judged by the delivery's machine, and answered; what is taken is
//! received, verified and extracted by one task for each Distribution.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crate::codec;
use crate::error::Error;
use crate::id::{DistributionId, KeyHash, Revision};
use crate::limits::Limits;
use crate::node::{Alarm, fetch};
use crate::protocol::{
    Delivery, DeliveryAction, Fetch, FetchTarget, Floor, Offer, OfferAnswer, Refused, Statement, code,
};
use crate::security::{DistributorRoot, Envelope, EnvelopeKind, Receipt, ReleaseStatement, Stage};
use crate::subscriber::deliveries::Job;
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::extract_times::Begins;
use crate::subscriber::grants::NewGrant;
use crate::subscriber::state::{Key, State, lock};
use crate::subscriber::ways::parent_of;
use crate::transport::{Connection, QuicConnection};

/// How long the sender may take to hand out a statement it has just offered.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(30);

/// When an offer is to be made again whose statement could not be fetched.
const AGAIN_LATER: Duration = Duration::from_secs(5);

impl State {
    /// Answers an offer that came over `connection`.
    pub(super) async fn take_offer(self: &Arc<Self>, connection: &QuicConnection, offer: Offer) -> OfferAnswer {
        let fleet = connection.peer().fleet;
        if self.is_paused() {
            self.tell_paused(&fleet, &offer);
            return OfferAnswer::Refused(Self::says_paused());
        }
        // One that cannot be read names no revision.
        let mut revision = Revision::from_number(0);
        let answer = self.judge_to_answer(connection, fleet, &offer, &mut revision).await;
        if let OfferAnswer::Refused(refused) = &answer {
            self.say_refused_upwards(connection, &offer, revision, refused).await;
        }
        answer
    }

    async fn judge_to_answer(
        self: &Arc<Self>,
        connection: &QuicConnection,
        fleet: KeyHash,
        offer: &Offer,
        revision: &mut Revision,
    ) -> OfferAnswer {
        match self.judge(connection, fleet, offer, revision).await {
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

    /// The answer to a parent's offer ends at the parent. Where it refuses this node's own part for good, the Distributor
    /// hears so by a receipt.
    async fn say_refused_upwards(
        self: &Arc<Self>,
        connection: &QuicConnection,
        offer: &Offer,
        revision: Revision,
        refused: &Refused,
    ) {
        let peer = connection.peer();
        let Some(parent) = parent_of(peer) else { return };
        let Ok(identity) = self.identity(&peer.fleet) else { return };
        // That a package arrived damaged was said when it did.
        let is_said = refused.is_retryable() || refused.code() == code::CORRUPT;
        if is_said || !offer.is_for(&identity.certificate.key_hash()) {
            return;
        }
        let receipt = Receipt {
            firing: Some(offer.firing),
            distribution: offer.distribution,
            revision,
            package: None,
            stage: Stage::Failed,
            code: Some(refused.code().to_owned()),
            detail: format!("offered by {parent} and refused: {}", refused.reason()),
            at: self.clock.now(),
        };
        self.say(peer.fleet, receipt).await;
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
        revision: &mut Revision,
    ) -> Result<OfferAnswer, Error> {
        let root = self.trusted_root(&fleet)?;
        let envelope = self.fetch_statement(connection, &root, offer).await?;
        let body = envelope.body();
        let release: ReleaseStatement =
            codec::decode("a release statement", &body.payload, Limits::DEFAULT.envelope_bytes_max)?;
        if release.distribution != offer.distribution {
            return Err(SubscriberError::Statement("it is about another Distribution".to_owned()).into());
        }
        *revision = release.revision;
        let own = self.identity(&fleet)?.certificate.key_hash();
        if offer.recipients.iter().any(|recipient| *recipient != own) {
            let statement = Statement { release: release.clone(), issued: body.issued, expires: body.expires };
            let passed = self.pass_on(fleet, offer, &statement, &envelope).await?;
            if !offer.is_for(&own) {
                return Ok(passed.err().unwrap_or(OfferAnswer::Relays));
            }
        }
        let grants = self.grants_for(connection, &root, offer, &release).await.inspect_err(|error| {
            self.note((fleet, release.distribution), |standing| {
                standing.offered = Some(release.revision);
                standing.trouble = Some(format!("{}: {error}", error.code()));
            });
        })?;
        let statement = Statement { release, issued: body.issued, expires: body.expires };
        let state = self.clone();
        let offer = offer.clone();
        let judging = move || state.judge_statement(fleet, &offer, &statement, &grants);
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
        grants: &[NewGrant],
    ) -> Result<OfferAnswer, Error> {
        let now = self.now(&fleet);
        let key = (fleet, statement.release.distribution);
        if let Some(answer) = self.judge_pin(&key, statement) {
            return Ok(answer);
        }
        let starts = self.starts(&key)?;
        let (answer, actions) = {
            let mut deliveries = lock(&self.deliveries);
            self.refuse_too_many(&deliveries, &key)?;
            let delivery = match deliveries.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.new_delivery(fleet, statement.release.distribution)?),
            };
            delivery.start_from(starts);
            delivery.offer(offer.firing, statement, now)
        };
        let acted = self.act_on(key, offer, statement, (&answer, actions), grants);
        if acted.is_err() {
            // It took for done what is not: the next offer is judged from what is durable.
            lock(&self.deliveries).remove(&key);
        }
        acted.map(|()| answer)
    }

    /// What a Distributor calls a Distribution costs memory and a floor here, so there is an end to it.
    fn refuse_too_many(&self, deliveries: &HashMap<Key, Delivery>, key: &Key) -> Result<(), Error> {
        if deliveries.contains_key(key) || self.floors.get(&key.0, &key.1) != Floor::NONE {
            return Ok(());
        }
        let most = Limits::DEFAULT.offered_distributions_max;
        let known = deliveries.keys().filter(|(fleet, _)| *fleet == key.0).count();
        let kept = self.floors.all().iter().filter(|((fleet, _), _)| *fleet == key.0).count();
        if known.max(kept) >= most {
            return Err(SubscriberError::TooManyDistributions(most).into());
        }
        Ok(())
    }

    /// Does what follows from an answer before that is given.
    fn act_on(
        self: &Arc<Self>,
        key: Key,
        offer: &Offer,
        statement: &Statement,
        (answer, actions): (&OfferAnswer, Vec<DeliveryAction>),
        grants: &[NewGrant],
    ) -> Result<(), Error> {
        let (fleet, distribution) = key;
        self.note(key, |standing| {
            standing.offered = Some(statement.release.revision);
            standing.trouble = match answer {
                OfferAnswer::Refused(refused) => Some(refused.to_string()),
                _ => None,
            };
        });
        if !matches!(answer, OfferAnswer::Refused(_)) {
            self.end_pin(&key, statement.release.revision)?;
            let alarm = alarm_key(&fleet, &distribution);
            if self.records.get::<Alarm>(&alarm)?.is_some() {
                self.records.delete(&alarm)?;
            }
            lock(&self.statements).insert(key, statement.release.clone());
            self.remember_firing(&key, offer.firing)?;
        }
        if !matches!(answer, OfferAnswer::Refused(_)) {
            grants.iter().try_for_each(|grant| self.keep_grant(grant))?;
        }
        self.carry_out(fleet, distribution, actions)?;
        if *answer == OfferAnswer::Current {
            self.start_job(Job::Confirm { fleet, statement: statement.release.clone(), firing: offer.firing });
        }
        Ok(())
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
                    let begins = Begins::AsScheduled;
                    self.start_job(Job::Extract { fleet, distribution, firing: Some(firing), revision, begins });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{FiringId, PackageId, UnixMillis};
    use crate::security::{Carried, PackageRef};
    use crate::store::Pin;
    use crate::subscriber::Subscriber;

    const FLEET: KeyHash = KeyHash::from_bytes([1; 32]);
    const ID: DistributionId = DistributionId::from_bytes([3; 16]);
    const LONG: Duration = Duration::from_secs(3600);

    fn revision(number: u64) -> Revision {
        Revision::from_number(number)
    }

    fn statement(number: u64, issued: UnixMillis, expires: UnixMillis) -> (Offer, Statement) {
        let carried = Carried::Baseline { revision: revision(number) };
        let package = PackageRef { id: PackageId::from_bytes([number as u8; 32]), carried, bytes: 9000 };
        let release = ReleaseStatement {
            distribution: ID,
            revision: revision(number),
            packages: vec![package],
            extensions: vec![],
        };
        let offer = Offer {
            firing: FiringId::from_bytes([9; 16]),
            distribution: ID,
            priority: crate::model::Priority::Medium,
            statement: crate::id::EnvelopeId::from_bytes([8; 32]),
            grants: vec![],
            recipients: vec![FLEET],
            closes: None,
        };
        (offer, Statement { release, issued, expires })
    }

    async fn judge(subscriber: &Subscriber, number: u64, issued: UnixMillis) -> Result<OfferAnswer, Error> {
        let (state, (offer, statement)) = (subscriber.state.clone(), statement(number, issued, issued.plus(LONG)));
        let judging = move || state.judge_statement(FLEET, &offer, &statement, &[]);
        tokio::task::spawn_blocking(judging).await.unwrap()
    }

    async fn open(folder: &std::path::Path) -> Subscriber {
        Subscriber::builder(folder).name("one.example".parse().unwrap()).open().await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_offer_is_taken_before_the_floor_is_durable_however_often_the_disk_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let subscriber = open(folder.path()).await;
        let (state, now) = (&subscriber.state, subscriber.state.clock.now());
        // What is written first cannot be written.
        let in_the_way = folder.path().join("security/private/floors.tmp");
        std::fs::create_dir(&in_the_way).unwrap();
        for _ in 0..2 {
            judge(&subscriber, 7, now).await.unwrap_err();
            assert_eq!(state.floors.get(&FLEET, &ID), Floor::NONE);
        }
        std::fs::remove_dir(&in_the_way).unwrap();
        let answer = judge(&subscriber, 7, now).await.unwrap();
        assert!(matches!(answer, OfferAnswer::Want { .. }), "{answer:?}");
        assert_eq!(state.floors.get(&FLEET, &ID).issued, now);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_distributor_cannot_have_a_node_keep_account_of_ever_more() {
        let folder = tempfile::tempdir().unwrap();
        let subscriber = open(folder.path()).await;
        let state = &subscriber.state;
        let most = Limits::DEFAULT.offered_distributions_max as u32;
        let id = |number: u32| {
            let mut bytes = [7; 16];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            DistributionId::from_bytes(bytes)
        };
        let offered = (0..most).map(|number| ((FLEET, id(number)), Delivery::new(Floor::NONE, None, Limits::DEFAULT)));
        lock(&state.deliveries).extend(offered);
        let now = state.clock.now();
        assert_eq!(judge(&subscriber, 7, now).await.unwrap_err().code(), "TED-1878");
        assert_eq!(lock(&state.deliveries).len(), most as usize);
        lock(&state.deliveries).remove(&(FLEET, id(0)));
        judge(&subscriber, 7, now).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rollback_ends_by_what_is_taken_and_not_by_what_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let subscriber = open(folder.path()).await;
        let (state, now) = (&subscriber.state, subscriber.state.clock.now());
        let pin = Pin { from: revision(9), to: revision(7), at: now };
        state.pins.set(&FLEET, &ID, pin).unwrap();
        let long_ago = UnixMillis::from_millis(now.millis() - 2 * LONG.as_millis() as u64);
        for (number, issued, code) in [(10, long_ago, "TED-1350"), (9, now, "TED-1883")] {
            let answer = judge(&subscriber, number, issued).await.unwrap();
            assert!(matches!(&answer, OfferAnswer::Refused(refused) if refused.code() == code), "{answer:?}");
            assert_eq!(state.pins.get(&FLEET, &ID), Some(pin));
        }
        judge(&subscriber, 10, now).await.unwrap();
        assert_eq!(state.pins.get(&FLEET, &ID), None);
    }
}
