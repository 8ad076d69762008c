//! Reports on deliveries, and the events that are on record.

use std::collections::BTreeMap;

use ted_cli::error::{ApiError, from_library};
use ted_cli::events::{EventsList, EventsView};
use ted_cli::units::Time;
use ted_core::distributor::{Delivery, DeliveryQuery};
use ted_core::id::FiringId;
use ted_core::protocol::PartRole;

use super::Service;
use crate::api::{
    CountsView, Deliveries, DeliveryFilter, ReportDeliveries, ReportSummary, ReportedDelivery, SummaryView,
};

impl Service {
    pub(super) async fn list_events(&self, request: EventsList) -> Result<EventsView, ApiError> {
        Ok(self.distributor().event_history(request.0).await?.into())
    }

    pub(super) async fn report_deliveries(&self, request: ReportDeliveries) -> Result<Deliveries, ApiError> {
        let deliveries = self.distributor().deliveries(query(request.0)?).await?;
        Ok(Deliveries { deliveries: deliveries.into_iter().map(ReportedDelivery::from).collect() })
    }

    pub(super) async fn report_summary(&self, request: ReportSummary) -> Result<SummaryView, ApiError> {
        let mut total = CountsView::new("all".to_owned());
        let (mut channels, mut hops) = (BTreeMap::new(), BTreeMap::new());
        for Delivery { channel, row, .. } in self.distributor().deliveries(query(request.0)?).await? {
            if row.role == PartRole::Relay {
                continue;
            }
            let hop = row.hop.map_or_else(|| "direct".to_owned(), |hop| format!("over {hop}"));
            let channel = format!("Channel {channel}");
            let of_channel = channels.entry(channel.clone()).or_insert_with(|| CountsView::new(channel));
            let over_hop = hops.entry(hop.clone()).or_insert_with(|| CountsView::new(hop));
            for counts in [&mut total, of_channel, over_hop] {
                counts.add(row.state, row.waiting.is_some());
            }
        }
        Ok(SummaryView { total, channels: channels.into_values().collect(), hops: hops.into_values().collect() })
    }
}

fn query(filter: DeliveryFilter) -> Result<DeliveryQuery, ApiError> {
    let firing = filter.firing.as_deref().map(str::parse::<FiringId>).transpose().map_err(from_library)?;
    Ok(DeliveryQuery {
        firing,
        channel: filter.channel,
        distribution: filter.distribution,
        subscriber: filter.subscriber,
        states: filter.states.into_iter().map(Into::into).collect(),
        waiting_for: filter.waiting_for.map(Into::into),
        since: filter.since.map(|since| since.0),
    })
}

impl From<Delivery> for ReportedDelivery {
    fn from(delivery: Delivery) -> Self {
        let row = delivery.row;
        Self {
            firing: delivery.firing.to_string(),
            channel: delivery.channel,
            started: Time(delivery.started),
            cause: delivery.cause,
            subscriber: row.subscriber,
            role: row.role,
            distribution: row.distribution,
            revision: row.revision.number(),
            state: row.state.into(),
            since: Time(row.since),
            waiting_for: row.waiting.map(|waiting| waiting.waiting_for),
            waiting_since: row.waiting.map(|waiting| Time(waiting.since)),
            waiting_until: row.waiting.and_then(|waiting| waiting.until).map(Time),
            hop: row.hop,
            stages: row.times.into(),
            done_bytes: row.sent_bytes,
            total_bytes: row.package_bytes,
            code: row.code,
            detail: (!row.detail.is_empty()).then_some(row.detail),
            note: row.note,
        }
    }
}
