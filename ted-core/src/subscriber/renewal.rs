//! Renewal of this node's own certificates: after two thirds of their life its Distributors issue them anew for the keys
//! that are registered there, unattended.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::id::{KeyHash, UnixMillis};
use crate::name::NodeName;
use crate::node::Alarm;
use crate::security::{Certificate, EnrolAnswer, Usage};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::report::Enrolment;
use crate::subscriber::state::{State, lock};

/// How often the certificates are looked at.
const ROUND: Duration = Duration::from_secs(2);

/// How long to wait with a Distributor that did not issue new ones.
const AGAIN: Duration = Duration::from_secs(10);

/// How long before the end of a Distributor's certificate this node's operator is told.
const AUTHORITY_WARNING: Duration = Duration::from_secs(365 * 24 * 3600);

/// The code of a Distributor's certificate that ends within a year.
const AUTHORITY_ENDS: &str = "TED-1148";

/// The code of an own certificate that ended without a new one.
const OWN_ENDED: &str = "TED-1149";

impl State {
    /// Looks at the certificates again and again while this node runs.
    pub(super) async fn keep_current(self: Arc<Self>, stop: CancellationToken) {
        let mut round = interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut not_before: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = round.tick() => {}
                () = self.renewing.notified() => not_before = None,
            }
            self.tell_alarms();
            let state = self.clone();
            let looking = move || {
                state.events.sync();
                state.adopt_brought()
            };
            if let Ok(Err(error)) = tokio::task::spawn_blocking(looking).await {
                tracing::error!(code = error.code(), %error, "a certificate that was brought cannot be followed");
            }
            if not_before.is_some_and(|at| Instant::now() < at) {
                continue;
            }
            not_before = match self.renew_due().await {
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(code = error.code(), %error, "this node's certificates are not renewed yet");
                    Some(Instant::now() + AGAIN)
                }
            };
        }
    }

    /// Has everything renewed that is due, at the Distributors that are connected. Answers in how many fleets
    /// certificates came. One that is not connected is asked when it is dialled: see [`State::is_enrolled`].
    pub(super) async fn renew_due(self: &Arc<Self>) -> Result<usize, Error> {
        let (mut renewed, mut failed) = (0, None);
        for (fleet, _) in self.links.all() {
            let state = self.clone();
            let due = move || state.is_renewal_due(&fleet);
            if !tokio::task::spawn_blocking(due).await.map_err(|_| SubscriberError::Worker)?? {
                continue;
            }
            match self.renew_with(fleet).await {
                Ok(Enrolment::Enrolled) => renewed += 1,
                // It has another name by now, which its Distributor's operator has to approve.
                Ok(Enrolment::Pending { fingerprint }) => failed = Some(self.still_waits(&fleet, fingerprint)),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(renewed), Err)
    }

    /// Gives this node another name, and has its certificates follow it.
    pub(super) fn rename(&self, name: &NodeName) -> Result<(), Error> {
        let before = self.name();
        self.set_name(name)?;
        if before != *name {
            tracing::info!(from = %before, to = %name, "this node has another name");
            self.renewing.notify_one();
        }
        Ok(())
    }

    fn still_waits(&self, fleet: &KeyHash, fingerprint: String) -> Error {
        SubscriberError::AwaitsApproval { name: self.distributor_name(fleet), fingerprint }.into()
    }

    /// Whether a certificate of this node in a fleet has lived two thirds of its life, or carries another name than
    /// the node.
    fn is_renewal_due(&self, fleet: &KeyHash) -> Result<bool, Error> {
        let (trust, now, name) = (self.security.trust()?, self.clock.now(), self.name());
        let due = |certificate: &Certificate| {
            now >= certificate.renew_at() || now < certificate.not_before() || *certificate.name() != name
        };
        let own = [Usage::SubscriberIdentity, Usage::SubscriberEncryption];
        Ok(own
            .into_iter()
            .any(|usage| trust.keystore.identity(fleet, usage).is_none_or(|identity| due(&identity.certificate))))
    }

    /// Asks a connected Distributor for new certificates for the same keys.
    async fn renew_with(self: &Arc<Self>, fleet: KeyHash) -> Result<Enrolment, Error> {
        let state = self.clone();
        let finding = move || state.trusted_root(&fleet);
        let root = tokio::task::spawn_blocking(finding).await.map_err(|_| SubscriberError::Worker)??;
        let name = root.name().clone();
        let connection = self.links.get(&fleet).ok_or_else(|| SubscriberError::NotEnrolled(name.clone()))?;
        let (identity, encryption) = match self.ask_for_certificates(&connection, &root, None).await? {
            EnrolAnswer::Issued { identity, encryption } => (identity, encryption),
            EnrolAnswer::Pending { fingerprint } => return Ok(Enrolment::Pending { fingerprint }),
            EnrolAnswer::Refused { reason, .. } => {
                return Err(SubscriberError::EnrolmentRefused { name, reason }.into());
            }
        };
        let state = self.clone();
        let keeping = move || state.keep_issued(&root, &identity, &encryption);
        tokio::task::spawn_blocking(keeping).await.map_err(|_| SubscriberError::Worker)??;
        tracing::info!(distributor = %name, "renewed this node's certificates");
        self.events.emit(SubscriberEvent::Renewed { distributor: name });
        Ok(Enrolment::Enrolled)
    }

    /// What an operator has to know now.
    pub(super) fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        let (trust, now) = (self.security.trust()?, self.clock.now());
        let mut alarms = vec![];
        for trusted in &trust.roots {
            let root = trusted.root.certificate();
            if now.plus(AUTHORITY_WARNING) >= root.not_after() {
                let until = root.not_after_text();
                alarms.push(Alarm::new(AUTHORITY_ENDS, format!("the certificate of {} ends at {until}", root.name())));
            }
            let ended = |usage| {
                let identity = trust.keystore.identity(&trusted.root.key_hash(), usage)?;
                Some(identity.certificate).filter(|certificate| is_over(certificate, now))
            };
            let own = [Usage::SubscriberIdentity, Usage::SubscriberEncryption];
            if let Some(certificate) = own.into_iter().find_map(ended) {
                let (usage, until) = (certificate.usage(), certificate.not_after_text());
                let text = format!("this node's {usage} certificate from {} ended at {until}", root.name());
                alarms.push(Alarm::new(OWN_ENDED, text));
            }
        }
        alarms.extend(self.statement_alarms()?);
        Ok(alarms)
    }

    /// Tells alarms that were not there before.
    pub(super) fn tell_alarms(&self) {
        let alarms = self.alarms().unwrap_or_else(|error| {
            tracing::error!(code = error.code(), %error, "the alarms cannot be gathered");
            vec![]
        });
        let mut told = lock(&self.alarmed);
        for alarm in alarms.iter().filter(|alarm| !told.contains(alarm)) {
            tracing::error!(code = alarm.code, reason = alarm.text, "alarm");
            let (code, reason) = (alarm.code.clone(), alarm.text.clone());
            self.events.emit(SubscriberEvent::Alarm { code, reason });
        }
        *told = alarms;
    }
}

fn is_over(certificate: &Certificate, now: UnixMillis) -> bool {
    now >= certificate.not_after()
}
