//! The Distributor's operations: a request, its name (`noun/verb`) and its answer each, and how people read the answer.

mod channel;
mod distribution;
mod firing;
mod firings;
mod fleet;
mod node;
mod policy;
mod report;
mod resolve;
mod revision;
mod rotation;
mod security;
mod sign;
mod subscriber;

pub(crate) use channel::{
    ChannelCreate, ChannelDelete, ChannelList, ChannelShow, ChannelUpdate, ChannelView, Channels,
};
pub(crate) use distribution::{
    BuildView, DeltaView, DistributionBuild, DistributionCreate, DistributionDelete, DistributionList,
    DistributionShow, DistributionUpdate, DistributionView, Distributions, RevisionView,
};
pub(crate) use firing::{
    ChannelSend, DeliveryStage, DeliveryView, FiringCancel, FiringState, FiringView, FiringWait, PlannedView, SendView,
};
pub(crate) use firings::{FiringList, FiringShow, FiringsView, NextView};
pub(crate) use fleet::{
    ChangeView, FleetApply, FleetExport, FleetFile, FleetRefresh, GroupCreate, GroupDelete, GroupList, GroupShow,
    GroupUpdate, GroupView, Groups, RouteOf, RouteRow, RouteShow, RouteView, WarningView,
};
pub(crate) use node::{DaemonView, NodeDoctor, NodeStatus, NodeView, StatusView};
pub(crate) use policy::{CertificateRevoke, Revoked, RevokedView, SettingView, SettingsView, SubscriberConfigure};
pub(crate) use report::{
    CountsView, Deliveries, DeliveryFilter, ReportDeliveries, ReportSummary, ReportedDelivery, SummaryView,
};
pub(crate) use resolve::{CertificateNeeded, CertificateResolve, NeededView, PairView, ResolvingView};
pub(crate) use revision::{
    DistributionHistory, DistributionRevision, DistributionRollback, HistoryView, RevisionFiles,
};
pub(crate) use rotation::{
    CertificateCancel, CertificateCorrectClock, CertificateFinalize, CertificateRekey, CertificateRenew,
    CertificateReplace, ClockView, RekeyView, Renewed, ReplacementView,
};
pub(crate) use security::{
    CertificateExport, CertificateList, CertificateShow, CertificateView, Certificates, InviteCreate, InviteFile,
    RootFile, TokenCreate, TokenView,
};
pub(crate) use sign::{CertificateSign, IssuedView, SigningView};
pub(crate) use subscriber::{
    EnrolledView, Pending, PendingView, SubscriberApprove, SubscriberCreate, SubscriberDelete, SubscriberList,
    SubscriberPending, SubscriberRename, SubscriberShow, SubscriberUpdate, SubscriberView, Subscribers,
};
