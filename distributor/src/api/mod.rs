//! The Distributor's operations: a request, its name (`noun/verb`) and its answer each, and how people read the answer.

mod channel;
mod distribution;
mod firing;
mod node;
mod security;
mod subscriber;

pub(crate) use channel::{ChannelCreate, ChannelDelete, ChannelList, ChannelShow, ChannelUpdate};
pub(crate) use distribution::{
    BuildView, DistributionBuild, DistributionCreate, DistributionDelete, DistributionList, DistributionShow,
    DistributionUpdate, DistributionView,
};
pub(crate) use firing::{ChannelSend, DeliveryView, FiringCancel, FiringView, FiringWait};
pub(crate) use node::{NodeDoctor, NodeInit, NodeStatus};
pub(crate) use security::{CertificateExport, CertificateList, CertificateShow, InviteCreate, TokenCreate};
pub(crate) use subscriber::{
    SubscriberApprove, SubscriberCreate, SubscriberDelete, SubscriberList, SubscriberPending, SubscriberShow,
    SubscriberUpdate, SubscriberView,
};
