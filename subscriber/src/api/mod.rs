//! The Subscriber's operations: a request, its name (`noun/verb`) and its answer each, and how people read the answer.

mod configuration;
mod distribution;
mod distributor;
mod node;
mod passing;
mod preview;

pub(crate) use configuration::{ConfigurationShow, ConfigurationView, ExtractionSetting, ExtractionSource, word};
pub(crate) use distribution::{
    DistributionExtract, DistributionResume, DistributionRollback, DistributionVerify, DistributionView, Extracted,
    ExtractedView, FailedView, PlaceView, TargetList, TargetSet, TargetUnset, Targets, Verified, VerifiedView,
    WaitsView,
};
pub(crate) use distributor::{
    DistributorEnrol, DistributorIssued, DistributorLeave, DistributorRequest, DistributorTrust, DistributorView,
    EnrolmentView, RequestView, TrustView,
};
pub(crate) use node::{
    DaemonView, NodeDoctor, NodeJoin, NodePause, NodeRename, NodeResume, NodeStatus, NodeView, StatusView,
};
pub(crate) use preview::{DistributionPreview, PreviewView, Previews, RefusedView};
