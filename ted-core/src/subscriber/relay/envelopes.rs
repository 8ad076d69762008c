//! Release statements, grants' envelopes and grants on their way to the children: fetched from upstream when they are
//! asked for first, verified, and kept for as long as the newest statement counts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::id::{DistributionId, EnvelopeId, KeyHash, PackageId};
use crate::limits::Limits;
use crate::node::{Content, RecordBatch, Reply, fetch};
use crate::protocol::{Fetch, FetchTarget, Passed, code};
use crate::security::{Envelope, EnvelopeKind, KeptGrant, ProvenGrant};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::relay::{NOT_ENTITLED, worker_gone};
use crate::subscriber::state::{State, lock};

/// How long upstream may take to hand out an envelope or a grant.
const PATIENCE: Duration = Duration::from_secs(30);

impl State {
    /// Answers a child that asks for an envelope that belongs to what is passed on; `None` where it does not.
    pub(in crate::subscriber) async fn passed_envelope(
        self: &Arc<Self>,
        fleet: KeyHash,
        child: KeyHash,
        id: EnvelopeId,
    ) -> Option<Reply> {
        let about = self.passed_with(&fleet, |passed| {
            passed.statement() == id || passed.grants().iter().any(|(_, envelope)| *envelope == id)
        });
        let (passed, distribution) = about?;
        if !self.entitlements(&fleet).may_fetch(&child, &distribution) {
            return Some(Reply::refuse(code::NOT_ENTITLED, NOT_ENTITLED));
        }
        let found = self.kept_or(envelope_key(&fleet, &distribution, &id), async {
            let bytes =
                self.fetch_upstream(&fleet, FetchTarget::Envelope(id), Limits::DEFAULT.envelope_bytes_max).await?;
            let envelope = self.judge_passed_envelope(&fleet, &passed, &id, &bytes)?;
            Ok(envelope.to_bytes().to_vec())
        });
        Some(reply_with(found.await))
    }

    /// Answers a child that asks for its own grant, or for that of a node behind it.
    pub(in crate::subscriber) async fn passed_grant(
        self: &Arc<Self>,
        fleet: KeyHash,
        child: KeyHash,
        (grants, recipient): (EnvelopeId, KeyHash),
    ) -> Reply {
        let about = self.passed_with(&fleet, |passed| passed.grants().iter().any(|(_, envelope)| *envelope == grants));
        let Some((passed, distribution)) = about else {
            return Reply::refuse(code::NOT_FOUND, "these grants are not here");
        };
        let entitlements = self.entitlements(&fleet);
        if !entitlements.is_behind(&child, &recipient) || !entitlements.may_fetch(&child, &distribution) {
            return Reply::refuse(code::NOT_ENTITLED, "a grant is given to its recipient alone, over the way to it");
        }
        let package = passed.grants().iter().find(|(_, envelope)| *envelope == grants).map(|(package, _)| *package);
        let found = self.kept_or(grant_key(&fleet, &distribution, &grants, &recipient), async {
            let package = package.ok_or(SubscriberError::Worker)?;
            self.fetch_passed_grant(&fleet, &passed, &package, (grants, recipient)).await
        });
        reply_with(found.await)
    }

    /// A grant, judged as its recipient will judge it, only that it cannot be opened here.
    async fn fetch_passed_grant(
        self: &Arc<Self>,
        fleet: &KeyHash,
        passed: &Passed,
        package: &PackageId,
        (grants, recipient): (EnvelopeId, KeyHash),
    ) -> Result<Vec<u8>, Error> {
        let limits = Limits::DEFAULT;
        let key = envelope_key(fleet, &passed.distribution(), &grants);
        let envelope = self
            .kept_or(key, async {
                let bytes =
                    self.fetch_upstream(fleet, FetchTarget::Envelope(grants), limits.envelope_bytes_max).await?;
                let envelope = self.judge_passed_envelope(fleet, passed, &grants, &bytes)?;
                Ok(envelope.to_bytes().to_vec())
            })
            .await?;
        let bytes =
            self.fetch_upstream(fleet, FetchTarget::Grant { grants, recipient }, limits.grant_bytes_max).await?;
        let kept = KeptGrant { envelope, proven: ProvenGrant::from_bytes(&bytes)? };
        let signer = kept.judge(&self.trusted_root(fleet)?, package, &recipient, self.now(fleet))?;
        self.refuse_revoked(fleet, &signer)?;
        Ok(bytes)
    }

    fn judge_passed_envelope(
        &self,
        fleet: &KeyHash,
        passed: &Passed,
        id: &EnvelopeId,
        bytes: &[u8],
    ) -> Result<Envelope, Error> {
        let envelope = Envelope::from_bytes(bytes)?;
        if envelope.id() != *id {
            return Err(SubscriberError::Statement("it is not the one that was asked for".to_owned()).into());
        }
        let is_statement = passed.statement() == *id;
        envelope.expect_kind(if is_statement { EnvelopeKind::RELEASE_STATEMENT } else { EnvelopeKind::GRANTS })?;
        envelope.verify(&self.trusted_root(fleet)?, self.now(fleet))?;
        self.refuse_revoked(fleet, &envelope.body().issuer)?;
        Ok(envelope)
    }

    /// What lies under `key`; else what `fetching` brings, which lies there from then on.
    async fn kept_or(
        self: &Arc<Self>,
        key: String,
        fetching: impl Future<Output = Result<Vec<u8>, Error>>,
    ) -> Result<Vec<u8>, Error> {
        let (state, of) = (self.clone(), key.clone());
        let reading = move || state.records.list_bytes(&of);
        let kept = tokio::task::spawn_blocking(reading).await.map_err(worker_gone)??;
        if let Some(bytes) = kept.into_iter().next() {
            return Ok(bytes);
        }
        let bytes = fetching.await?;
        let (state, keeping) = (self.clone(), bytes.clone());
        let keeping = move || state.records.apply(RecordBatch::default().put_bytes(&key, keeping));
        tokio::task::spawn_blocking(keeping).await.map_err(worker_gone)??;
        Ok(bytes)
    }

    async fn fetch_upstream(&self, fleet: &KeyHash, target: FetchTarget, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let limits = Limits::DEFAULT;
        let connection = self.links.get(fleet).ok_or(SubscriberError::UpstreamAway)?;
        let fetched = fetch(&connection, Fetch { target, from: 0, to: bytes_max }, &limits, PATIENCE).await?;
        Ok(fetched.collect(bytes_max).await?)
    }

    pub(super) fn keep_envelope(
        &self,
        fleet: &KeyHash,
        distribution: &DistributionId,
        id: &EnvelopeId,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let key = envelope_key(fleet, distribution, id);
        if self.records.keys(&key)?.is_empty() {
            self.records.apply(RecordBatch::default().put_bytes(&key, bytes))?;
        }
        Ok(())
    }

    /// Drops the envelopes and grants of a Distribution that belong to what is passed on no more.
    pub(super) fn forget_envelopes(
        &self,
        fleet: &KeyHash,
        distribution: &DistributionId,
        passed: Option<&Passed>,
    ) -> Result<(), Error> {
        let current = |id: &str| {
            passed.is_some_and(|passed| {
                let grants = passed.grants().iter().map(|(_, envelope)| *envelope);
                grants.chain([passed.statement()]).any(|current| current.to_string() == id)
            })
        };
        let prefix = envelope_prefix(fleet, distribution);
        for key in self.records.keys(&prefix)? {
            let id = key.trim_start_matches(&prefix).split('/').next().unwrap_or_default();
            if !current(id) {
                self.records.delete(&key)?;
            }
        }
        Ok(())
    }

    fn passed_with(&self, fleet: &KeyHash, is: impl Fn(&Passed) -> bool) -> Option<(Passed, DistributionId)> {
        let machines = lock(&self.relays.machines);
        let found = machines.get(fleet)?.distributions().find(|passed| is(passed))?.clone();
        let distribution = found.distribution();
        Some((found, distribution))
    }
}

fn reply_with(found: Result<Vec<u8>, Error>) -> Reply {
    match found {
        Ok(bytes) => Reply::Content(Content::Bytes(Bytes::from(bytes))),
        Err(error) if error.is_retryable() => Reply::refuse(code::BUSY, error.to_string()),
        Err(error) => {
            tracing::warn!(code = error.code(), %error, "an envelope cannot be passed on");
            Reply::refuse(error.code(), error.to_string())
        }
    }
}

fn envelope_prefix(fleet: &KeyHash, distribution: &DistributionId) -> String {
    format!("relayed/{fleet}/{distribution}/")
}

fn envelope_key(fleet: &KeyHash, distribution: &DistributionId, id: &EnvelopeId) -> String {
    format!("{}{id}/envelope", envelope_prefix(fleet, distribution))
}

fn grant_key(fleet: &KeyHash, distribution: &DistributionId, grants: &EnvelopeId, recipient: &KeyHash) -> String {
    format!("{}{grants}/grant/{recipient}", envelope_prefix(fleet, distribution))
}
