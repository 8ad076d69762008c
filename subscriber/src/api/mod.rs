//! The Subscriber's operations: a request, its name (`noun/verb`) and its answer each, and how people read the answer.

mod distribution;
mod distributor;
mod node;

pub(crate) use distribution::{
    DistributionExtract, DistributionVerify, DistributionView, TargetList, TargetSet, TargetUnset,
};
pub(crate) use distributor::{
    DistributorEnrol, DistributorLeave, DistributorTrust, DistributorView, EnrolmentView, KeystoreList, KeystoreShow,
};
pub(crate) use node::{NodeDoctor, NodeInit, NodeJoin, NodeStatus};
