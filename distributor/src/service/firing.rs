//! Sending.

use std::time::Duration;

use ted_cli::error::{ApiError, code, from_library};
use ted_cli::units::Time;
use ted_core::distributor::{DeliveryRow, SentBuild};
use ted_core::name::NodeName;
use ted_core::protocol::{Outcome, PartState, Waiting};
use ted_core::security::CertificateState;
use ted_core::{FiringReport, SendOptions};

use super::Service;
use crate::api::{
    ChannelSend, DeliveryStage, DeliveryView, FiringCancel, FiringList, FiringShow, FiringState, FiringView,
    FiringWait, FiringsView, PlannedView, SendView,
};

impl Service {
    pub(super) async fn send(&self, request: ChannelSend) -> Result<SendView, ApiError> {
        let distributor = self.distributor();
        let fleet = distributor.fleet();
        let channel = request.channel;
        let of_channel = fleet.distributions_of(&channel).map_err(from_library)?;
        let members = fleet.subscribers_of(&channel).map_err(from_library)?;
        let status = distributor.status().await?;
        let receives = |name: &NodeName| {
            let row = status.subscribers.iter().find(|row| row.name == *name);
            row.is_some_and(|row| row.enrolled.is_some() && row.certificate.state != CertificateState::Revoked)
        };
        let names = members.iter().map(|subscriber| subscriber.name.clone());
        let (subscribers, left_out) = names.partition(receives);
        let mut view = SendView {
            channel: channel.clone(),
            firing: None,
            builds: vec![],
            distributions: vec![],
            subscribers,
            left_out,
            plan: None,
        };
        if request.dry_run {
            for distribution in of_channel {
                let newest = distributor.distribution(&distribution.name).await?.newest;
                let changed = request.build && distributor.has_changed(&distribution.name).await?;
                let newest = newest.filter(|_| !changed);
                view.distributions.push(PlannedView {
                    distribution: distribution.name.clone(),
                    revision: newest.as_ref().map(|newest| newest.revision.number()),
                    package_bytes: newest.map(|newest| newest.bytes),
                });
            }
            view.plan = Some(distributor.plan(&channel).await?);
            return Ok(view);
        }
        if distributor.listening().is_none() {
            return Err(ApiError::new(code::NO_DAEMON, "only a running daemon can send"));
        }
        let sent = distributor.send_telling(&channel, SendOptions { build: request.build }).await?;
        view.firing = Some(sent.firing.to_string());
        for SentBuild { distribution, outcome, took } in sent.builds {
            view.builds.push(self.build_view(distribution, &outcome, took).await?);
        }
        for distribution in of_channel {
            let newest = distributor.distribution(&distribution.name).await?.newest;
            view.distributions.push(PlannedView {
                distribution: distribution.name.clone(),
                revision: newest.as_ref().map(|newest| newest.revision.number()),
                package_bytes: newest.map(|newest| newest.bytes),
            });
        }
        Ok(view)
    }

    pub(super) async fn wait(&self, request: FiringWait) -> Result<FiringView, ApiError> {
        let patience = Duration::from_millis(request.timeout_ms);
        Ok(self.distributor().wait(request.firing, request.until.into(), Some(patience)).await?.into())
    }

    pub(super) async fn list_firings(&self, request: FiringList) -> Result<FiringsView, ApiError> {
        let heads = self.distributor().firing_heads(request.channel.as_ref())?;
        Ok(FiringsView { firings: heads.into_iter().map(Into::into).collect() })
    }

    pub(super) async fn show_firing(&self, request: FiringShow) -> Result<FiringView, ApiError> {
        Ok(self.distributor().report(request.firing)?.into())
    }

    pub(super) async fn cancel(&self, request: FiringCancel) -> Result<FiringView, ApiError> {
        self.distributor().cancel(request.firing).await?;
        Ok(self.distributor().report(request.firing)?.into())
    }
}

impl From<FiringReport> for FiringView {
    fn from(report: FiringReport) -> Self {
        Self {
            firing: report.firing.to_string(),
            channel: report.channel,
            cause: report.cause,
            started: report.started.into(),
            closes: report.closes.map(Into::into),
            ended: report.ended.map(Into::into),
            state: match report.outcome {
                Outcome::Open => FiringState::Open,
                Outcome::Complete | Outcome::Partial => FiringState::Done,
                Outcome::Cancelled => FiringState::Cancelled,
            },
            deliveries: report.rows.into_iter().map(DeliveryView::from).collect(),
        }
    }
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self {
            subscriber: row.subscriber,
            distribution: row.distribution,
            revision: row.revision.number(),
            role: row.role,
            stage: match row.state {
                PartState::Pending | PartState::Offered => DeliveryStage::Waiting,
                PartState::Receiving => DeliveryStage::Sending,
                PartState::Received => DeliveryStage::Received,
                PartState::Verified => DeliveryStage::Verified,
                PartState::Extracted => DeliveryStage::Extracted,
                PartState::Corrupt => DeliveryStage::Corrupt,
                PartState::Failed | PartState::TimedOut => DeliveryStage::Failed,
            },
            done_bytes: row.sent_bytes,
            total_bytes: row.package_bytes,
            code: row.code,
            detail: (!row.detail.is_empty()).then_some(row.detail).or_else(|| row.waiting.map(waiting_text)),
            note: row.note,
            at: Some(row.since.into()),
        }
    }
}

/// What a delivery waits for, for people.
fn waiting_text(waiting: Waiting) -> String {
    let until = waiting.until.map(|until| format!(" until {}", Time(until))).unwrap_or_default();
    format!("waiting for {}{until}", waiting.waiting_for.as_str())
}
