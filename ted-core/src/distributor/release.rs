//! Release statements: issued when a revision is offered first, and again at two thirds of their life.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::distributor::report::BuiltRevision;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{EnvelopeId, PackageId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::model::{Distribution, ExtractMode};
use crate::node::RecordBatch;
use crate::security::{Envelope, EnvelopeBody, EnvelopeKind, PackageRef, ReleaseStatement};

/// How long a statement holds.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the catalog keeps of the newest statement about a Distribution.
#[derive(Serialize, Deserialize)]
struct Stated {
    revision: Revision,
    target: Option<String>,
    #[serde(default)]
    mode: ExtractMode,
    issued: UnixMillis,
    envelope: String,
    /// The packages that it names, as hex. Under another CA key they have other roots.
    #[serde(default)]
    packages: Vec<String>,
    /// The one before it: somebody may have been offered it a moment ago.
    #[serde(default)]
    before: Option<String>,
    /// The packages that that one names.
    #[serde(default)]
    packages_before: Vec<String>,
}

impl Stated {
    fn is_due(&self, now: UnixMillis) -> bool {
        now >= self.issued.plus(LIFE * 2 / 3)
    }
}

/// What the catalog keeps of an envelope: its bytes as hex, and whose it is.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredEnvelope {
    pub(super) distribution: String,
    pub(super) bytes: String,
}

impl State {
    /// The statement to offer a built revision with.
    pub(super) fn statement(&self, distribution: &Distribution, built: &BuiltRevision) -> Result<EnvelopeId, Error> {
        // Two statements at once would have one refused for being older than the other.
        let _one_at_a_time = lock(&self.stating);
        let key = format!("stated/{}", distribution.id);
        let before: Option<Stated> = self.records.get(&key)?;
        // A clock that was set back must not make this statement older than the one before: every Subscriber would
        // refuse it.
        let now = before.as_ref().map_or(self.now(), |before| self.now().max(before.issued));
        let carriers = self.packages_to_state(distribution, built);
        let packages: Vec<String> = carriers.iter().map(|package| package.id.to_string()).collect();
        if let Some(stated) = &before
            && (stated.revision, &stated.target, stated.mode)
                == (built.revision, &distribution.target, distribution.mode)
            && stated.packages == packages
            && !stated.is_due(now)
            && !self.is_envelope_void(&stated.envelope)?
        {
            return Ok(stated.envelope.parse()?);
        }
        let envelope = self.state_release(distribution, built, carriers, now)?;
        let id = envelope.id();
        let stored =
            StoredEnvelope { distribution: distribution.id.to_string(), bytes: hex::encode(envelope.to_bytes()) };
        let stated = Stated {
            revision: built.revision,
            target: distribution.target.clone(),
            mode: distribution.mode,
            issued: now,
            envelope: id.to_string(),
            packages,
            before: before.as_ref().map(|before| before.envelope.clone()),
            packages_before: before.as_ref().map(|before| before.packages.clone()).unwrap_or_default(),
        };
        let mut batch = RecordBatch::default().put(&envelope_key(&stated.envelope), &stored)?.put(&key, &stated)?;
        if let Some(gone) = before.and_then(|before| before.before) {
            batch = batch.delete(&envelope_key(&gone));
        }
        self.records.apply(batch)?;
        Ok(id)
    }

    /// States again what was stated two thirds of a statement's life ago, so that the next offer has a fresh one.
    pub(super) fn renew_statements(&self) -> Result<(), Error> {
        let now = self.now();
        for (key, stated) in self.records.list::<Stated>("stated/")? {
            if !stated.is_due(now) && !self.is_envelope_void(&stated.envelope)? {
                continue;
            }
            let id = key.trim_start_matches("stated/").parse()?;
            let Some(distribution) = lock(&self.fleet).distribution_by_id(&id).cloned() else { continue };
            if let Some(built) = self.newest(&distribution)? {
                self.statement(&distribution, &built)?;
                tracing::info!(distribution = %distribution.name, revision = %built.revision, "stated again");
            }
        }
        Ok(())
    }

    /// Whether the key that signed an envelope of the catalog was revoked since, so that everybody refuses it.
    pub(super) fn is_envelope_void(&self, envelope: &str) -> Result<bool, Error> {
        if !self.has_revoked() {
            return Ok(false);
        }
        let stored: Option<StoredEnvelope> = self.records.get(&envelope_key(envelope))?;
        let envelope = stored.and_then(|stored| Envelope::from_bytes(&hex::decode(stored.bytes).ok()?).ok());
        Ok(envelope.is_none_or(|envelope| self.is_key_revoked(&envelope.body().issuer)))
    }

    /// When this Distributor signed something last, as far as it knows.
    pub(super) fn last_stated(&self) -> Result<Option<UnixMillis>, Error> {
        Ok(self.records.list::<Stated>("stated/")?.into_iter().map(|(_, stated)| stated.issued).max())
    }

    /// What the last two statements about a Distribution name.
    pub(super) fn stated_packages(&self, distribution: &Distribution) -> Result<Vec<PackageId>, Error> {
        let stated: Option<Stated> = self.records.get(&format!("stated/{}", distribution.id))?;
        let named = stated.into_iter().flat_map(|stated| [stated.packages, stated.packages_before].concat());
        Ok(named.filter_map(|package| package.parse().ok()).collect())
    }

    fn state_release(
        &self,
        distribution: &Distribution,
        built: &BuiltRevision,
        packages: Vec<PackageRef>,
        now: UnixMillis,
    ) -> Result<Envelope, Error> {
        let release =
            ReleaseStatement { distribution: distribution.id, revision: built.revision, packages, extensions: vec![] }
                .with_target(distribution.target.as_deref())
                .with_mode(distribution.mode)
                .with_sealed(self.sealed_root(built.package)?.is_some());
        let body = EnvelopeBody {
            kind: EnvelopeKind::RELEASE_STATEMENT,
            distributor: self.own().authority.root().key_hash(),
            issuer: self.own().signing.certificate.key_hash(),
            sequence: self.next_sequence()?,
            issued: now,
            expires: now.plus(LIFE),
            payload: crate::codec::encode("a release statement", &release, Limits::DEFAULT.envelope_bytes_max)?,
        };
        Ok(Envelope::seal(&*self.crypto, &self.own().signing, body)?)
    }
}

fn envelope_key(id: &str) -> String {
    format!("envelope/{id}")
}
