//! This Distributor's certificate at its Subscribers: how it stands, and bringing it there.

use serde::{Deserialize, Serialize};
use ted_cli::output::{Column, Render, Text, or_dash};
use ted_cli::units::Time;
use ted_core::distributor::{CertificatePair, Resolving, ResolvingOutcome, ResolvingWay};
use ted_core::name::{Label, NodeName};
use ted_core::security::CertificateState;

/// Brings the certificate to the Subscribers that lack it, or to these.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateResolve {
    pub(crate) way: ResolvingWay,
    /// Empty means all that lack it.
    pub(crate) subscribers: Vec<NodeName>,
}

/// Asks which Subscribers lack the certificate: of these Channels and names, or of the fleet where neither is given.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateNeeded {
    pub(crate) channels: Vec<Label>,
    pub(crate) subscribers: Vec<NodeName>,
}

ted_cli::operations! {
    CertificateResolve => "certificate/resolve" -> ResolvingView,
    CertificateNeeded => "certificate/needed" -> NeededView,
}

/// Who lacks the certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NeededView {
    pub(crate) subscribers: Vec<NodeName>,
}

/// How the certificate stands with one Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PairView {
    pub(crate) subscriber: NodeName,
    pub(crate) state: CertificateState,
    /// When that was last heard of.
    pub(crate) since: Option<Time>,
    /// How it is brought there; `None` where somebody carries it.
    pub(crate) way: Option<String>,
    /// What came of the last attempt to bring it.
    pub(crate) detail: Option<String>,
}

impl From<CertificatePair> for PairView {
    fn from(pair: CertificatePair) -> Self {
        let CertificatePair { subscriber, state, since, way, detail } = pair;
        Self { subscriber, state, since: since.map(Time), way, detail }
    }
}

pub(super) fn table(pairs: &[PairView], out: &mut Text) {
    let columns = [
        Column::Left("SUBSCRIBER"),
        Column::Left("CERTIFICATE"),
        Column::Left("SINCE"),
        Column::Left("WAY"),
        Column::Left("LAST ATTEMPT"),
    ];
    let rows = pairs.iter().map(|pair| {
        vec![
            pair.subscriber.to_string(),
            pair.state.to_string(),
            or_dash(pair.since),
            pair.way.clone().unwrap_or_else(|| "by hand".to_owned()),
            pair.detail.clone().unwrap_or_default(),
        ]
    });
    out.table(&columns, rows, "no Subscribers yet");
}

/// What came of resolving.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ResolvingView(pub(crate) Resolving);

impl Render for ResolvingView {
    fn render(&self, out: &mut Text) {
        let columns = [Column::Left("SUBSCRIBER"), Column::Left("CERTIFICATE"), Column::Left("OUTCOME")];
        let rows = self.0.rows.iter().map(|row| {
            let outcome = match &row.outcome {
                ResolvingOutcome::Waiting => match &row.way {
                    Some(way) => format!("would be copied: {way}"),
                    None => "no way is configured: carry it".to_owned(),
                },
                ResolvingOutcome::Copied { to } => format!("copied: {to}"),
                ResolvingOutcome::Saved { path } => format!("carry {} to its security/", path.display()),
                ResolvingOutcome::Failed { code, reason } => format!("{code}: {reason}"),
            };
            vec![row.subscriber.to_string(), row.state.to_string(), outcome]
        });
        out.table(&columns, rows, "every Subscriber has this Distributor's certificate, or it is on its way; `certificate export` writes it anyway");
        if !self.0.rows.is_empty() {
            out.line(format_args!("{}: fingerprint {}", self.0.file_name, self.0.fingerprint));
        }
    }
}
