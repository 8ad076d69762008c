//! Renewal: what a Distributor issued for itself is issued anew after two thirds of its life, while it runs, and nobody
//! has to resolve anything. The CA certificate is replaced by an operator's act; when its end comes near, this says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::distributor::events::DistributorEvent;
use crate::distributor::state::{FormerOwn, Own, State, lock};
use crate::distributor::{DistributorError, Keys, Settings};
use crate::error::Error;
use crate::id::UnixMillis;
use crate::node::Alarm;
use crate::security::{Authority, Certificate, Crypto, Identity, Keystore, Usage};
use crate::store::{Lineage, SecurityDir, SecurityDirError};

/// How long before the end of the CA certificate its operator is told: carrying a new one to every node takes time.
const AUTHORITY_WARNING: Duration = Duration::from_secs(365 * 24 * 3600);

/// How far the clock here may be behind what was signed here last: it was corrected by a little.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);

/// The code of a CA certificate that ends within a year.
const AUTHORITY_ENDS: &str = "TED-1145";

/// The code of an own certificate that ought to be renewed and is not.
const RENEWAL_FAILS: &str = "TED-1146";

/// The code of a clock that is behind what was signed already.
const CLOCK_BEHIND: &str = "TED-1147";

/// What is issued anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renew {
    /// What has lived two thirds of its life, or does not hold yet because the clock went back.
    Due,
    /// Everything that this node was issued.
    All,
    /// What it was issued for this use.
    One(Usage),
}

impl Renew {
    fn takes(self, certificate: &Certificate, now: UnixMillis) -> bool {
        match self {
            Self::Due => now >= certificate.renew_at() || now < certificate.not_before(),
            Self::All => true,
            Self::One(usage) => certificate.usage() == usage,
        }
    }
}

/// The CA and what it issued for this node: made where they are missing, renewed where that is due.
pub(super) fn open_own(
    security: &SecurityDir,
    lineage: &Lineage,
    settings: &Settings,
    crypto: &dyn Crypto,
    now: UnixMillis,
) -> Result<Own, Error> {
    let lost = settings.keys == Keys::Lost;
    let mut keystore = match security.load_keystore() {
        Err(SecurityDirError::KeystoreGone { .. }) if lost => Keystore::default(),
        Ok(_) if lost => return Err(DistributorError::KeystoreThere.into()),
        loaded => loaded?,
    };
    let mut changed = false;
    let before = lineage.own().filter(|_| lost);
    let name = settings.name.clone().or_else(|| before.as_ref().map(|root| root.name().clone()));
    let authority = match (keystore.authority(), &name) {
        (Some(authority), name) => {
            if let Some(asked) = name.as_ref().filter(|name| *name != authority.root().name()) {
                let (data, there) = (settings.data.clone(), authority.root().name().clone());
                return Err(DistributorError::OtherName { data, there, asked: asked.clone() }.into());
            }
            authority
        }
        (None, Some(name)) => {
            let authority = Authority::create(crypto, name, now)?;
            if let Some(before) = &before {
                lineage.add(before, &authority.root().key_hash(), now)?;
            }
            keystore.hold_identity(authority.root().key_hash(), authority.identity());
            changed = true;
            authority
        }
        (None, None) => return Err(DistributorError::NotInitialised(settings.data.clone()).into()),
    };
    let (own, issued) = issue_own(&mut keystore, authority, crypto, Renew::Due, now)?;
    if changed || !issued.is_empty() {
        security.save_keystore(&keystore)?;
    }
    Ok(own)
}

/// What `authority` issues for its own node: taken from the keystore, or issued and put there. The keys that a new one
/// takes over from are forgotten: what they signed is verified without them. Answers what is new, too.
pub(super) fn issue_own(
    keystore: &mut Keystore,
    authority: Authority,
    crypto: &dyn Crypto,
    which: Renew,
    now: UnixMillis,
) -> Result<(Own, Vec<Certificate>), Error> {
    let (fleet, name) = (authority.root().key_hash(), authority.root().name().clone());
    let mut issued = vec![];
    let mut own = |usage: Usage| -> Result<Identity, Error> {
        let held = keystore.identity(&fleet, usage);
        if let Some(identity) = held.filter(|held| !which.takes(&held.certificate, now)) {
            return Ok(identity);
        }
        let identity = authority.issue_identity(crypto, usage, &name, now)?;
        let old = keystore.held().iter().filter(|held| (held.distributor, held.usage) == (fleet, usage));
        let old: Vec<_> = old.map(|held| held.key.key_hash()).collect();
        for key in old {
            keystore.forget(&key);
        }
        keystore.hold_identity(fleet, identity.clone());
        issued.push(identity.certificate.clone());
        Ok(identity)
    };
    let (signing, tls) = (own(Usage::Sign)?, own(Usage::DistributorTls)?);
    let former = former_own(keystore, &authority, crypto, now)?;
    Ok((Own { authority, signing, tls, former }, issued))
}

/// The CAs that `current` replaced and that are asked for still: those that are held with a TLS certificate, which is
/// renewed here, too. They sign nothing any more.
fn former_own(
    keystore: &mut Keystore,
    current: &Authority,
    crypto: &dyn Crypto,
    now: UnixMillis,
) -> Result<Vec<FormerOwn>, Error> {
    let mut former = vec![];
    for authority in keystore.authorities() {
        let fleet = authority.root().key_hash();
        let Some(mut tls) = keystore.identity(&fleet, Usage::DistributorTls) else { continue };
        if fleet == current.root().key_hash() {
            continue;
        }
        if Renew::Due.takes(&tls.certificate, now) && now < authority.root().certificate().not_after() {
            let renewed = authority.issue_identity(crypto, Usage::DistributorTls, authority.root().name(), now)?;
            keystore.forget(&tls.key.key_hash());
            keystore.hold_identity(fleet, renewed.clone());
            tls = renewed;
        }
        let signing = keystore.identity(&fleet, Usage::Sign).map(|signing| signing.key.key_hash());
        if let Some(signing) = signing {
            keystore.forget(&signing);
        }
        former.push(FormerOwn { authority, tls });
    }
    Ok(former)
}

/// How often is looked for what time alone makes due: everything that is lives for months.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// When was looked last for what time makes due, by a clock that only goes on and by the one that may be set.
#[derive(Default)]
pub(super) struct Looked(Option<(Instant, UnixMillis)>);

impl Looked {
    /// Whether it is time to look again: a while has passed, or the clock was set. If it is, it counts as done.
    pub(super) fn is_due(&mut self, now: UnixMillis) -> bool {
        let is_due = self
            .0
            .is_none_or(|(at, clock)| at.elapsed() >= LOOK_EVERY || now < clock || now.since(clock) >= LOOK_EVERY);
        if is_due {
            self.0 = Some((Instant::now(), now));
        }
        is_due
    }
}

impl State {
    /// Issues anew what this node uses itself. The keystore is durable before anything new is used.
    pub(super) fn renew(&self, which: Renew) -> Result<Vec<Certificate>, Error> {
        let _one_at_a_time = lock(&self.rotating);
        let now = self.now();
        let own = self.own();
        let former_due = own.former.iter().any(|former| {
            let ends = former.authority.root().certificate().not_after();
            which.takes(&former.tls.certificate, now) && now < ends
        });
        if !which.takes(&own.signing.certificate, now) && !which.takes(&own.tls.certificate, now) && !former_due {
            return Ok(vec![]);
        }
        let authority = own.authority.clone();
        let (own, issued) = self.security.change_keystore(|keystore| -> Result<_, Error> {
            issue_own(keystore, authority, &*self.crypto, which, now)
        })?;
        self.set_own(own);
        self.show_identities()?;
        for certificate in &issued {
            self.remember_certificate(certificate)?;
            let (usage, until) = (certificate.usage().to_string(), certificate.not_after());
            tracing::info!(usage, serial = certificate.serial_hex(), "renewed this Distributor's own certificate");
            self.events.emit(DistributorEvent::Renewed { usage, until });
        }
        Ok(issued)
    }

    /// Renews what is due, and tells what an operator has to know.
    pub(super) async fn keep_current(self: &Arc<Self>) {
        let state = self.clone();
        let keeping = move || {
            let mut alarms = vec![];
            if let Err(error) =
                state.renew(Renew::Due).and_then(|_| state.renew_statements()).and_then(|()| state.keep_replacements())
            {
                alarms.push(Alarm::new(RENEWAL_FAILS, format!("{}: {error}", error.code())));
            }
            alarms.extend(state.alarms().unwrap_or_default());
            state.tell(alarms);
        };
        if tokio::task::spawn_blocking(keeping).await.is_err() {
            tracing::error!("a worker thread failed while it looked at the certificates");
        }
    }

    /// What an operator has to know now.
    pub(super) fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        let (now, own) = (self.now(), self.own());
        let mut alarms = vec![];
        let root = own.authority.root().certificate();
        if now.plus(AUTHORITY_WARNING) >= root.not_after() {
            let until = root.not_after_text();
            alarms.push(Alarm::new(AUTHORITY_ENDS, format!("the certificate of {} ends at {until}", root.name())));
        }
        for certificate in [&own.signing.certificate, &own.tls.certificate] {
            if now >= certificate.not_after() {
                let (usage, until) = (certificate.usage(), certificate.not_after_text());
                alarms.push(Alarm::new(RENEWAL_FAILS, format!("the {usage} certificate ended at {until}")));
            }
        }
        if let Some(stated) = self.last_stated()?.filter(|stated| *stated > now.plus(CLOCK_TOLERANCE)) {
            alarms.push(Alarm::new(
                CLOCK_BEHIND,
                format!(
                    "this Distributor signed a statement at {}, and its clock says {}",
                    crate::security::clock_text(stated),
                    crate::security::clock_text(now)
                ),
            ));
        }
        alarms.extend(self.schedule_alarms());
        Ok(alarms)
    }

    /// Tells alarms that were not there before.
    fn tell(&self, alarms: Vec<Alarm>) {
        let mut told = lock(&self.alarmed);
        for alarm in alarms.iter().filter(|alarm| told.iter().all(|known| known.code != alarm.code)) {
            tracing::error!(code = alarm.code, reason = alarm.text, "alarm");
            let (code, reason) = (alarm.code.clone(), alarm.text.clone());
            self.events.emit(DistributorEvent::Alarm { code, reason });
        }
        *told = alarms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_time_makes_due_is_looked_for_now_and_then_and_when_the_clock_is_set() {
        let at = |seconds: u64| UnixMillis::from_millis(seconds * 1000);
        let mut looked = Looked::default();
        let steps = [(0, 1000, true), (1, 1001, false), (13, 1014, false), (1, 1015, true), (1, 900, true)];
        for (passed, clock, is_due) in steps.into_iter().chain([(1, 901, false), (1, 99_999, true), (15, 99_999, true)])
        {
            tokio::time::advance(Duration::from_secs(passed)).await;
            assert_eq!(looked.is_due(at(clock)), is_due, "{clock}");
        }
    }
}
