//! Distributors: trusting them, enrolling with them, leaving them.

use ted_cli::api::Done;
use ted_cli::error::{ApiError, code};
use ted_cli::units::Time;
use ted_core::Enrolment;
use ted_core::name::NodeName;
use ted_core::subscriber::DistributorRow;

use super::Service;
use crate::api::{
    DistributorEnrol, DistributorIssued, DistributorLeave, DistributorRequest, DistributorTrust, DistributorView,
    EnrolmentView, RequestView, TrustView,
};

impl Service {
    pub(super) async fn trust(&self, request: DistributorTrust) -> Result<DistributorView, ApiError> {
        let name = self.subscriber().trust(&request.certificate).await?;
        self.show_distributor(name).await
    }

    pub(super) async fn enrol(&self, request: DistributorEnrol) -> Result<EnrolmentView, ApiError> {
        let DistributorEnrol { endpoint, distributor, token } = request;
        let enrolled = self.subscriber().enrol(distributor.as_ref(), &[endpoint], token.as_deref()).await;
        self.hang_up().await;
        let (distributor, enrolment) = enrolled?;
        self.enrolment(distributor, &enrolment).await
    }

    pub(super) async fn enrolment(
        &self,
        distributor: NodeName,
        enrolment: &Enrolment,
    ) -> Result<EnrolmentView, ApiError> {
        let row = self.distributor(&distributor).await?;
        let until = match enrolment {
            Enrolment::Enrolled => row.enrolled_until.map(Time),
            Enrolment::Pending { .. } => None,
        };
        let fingerprint = row.own_fingerprint.unwrap_or_default();
        Ok(EnrolmentView { name: self.subscriber().name(), distributor, fingerprint, until })
    }

    pub(super) async fn leave(&self, request: DistributorLeave) -> Result<Done, ApiError> {
        self.subscriber().leave(&request.distributor).await?;
        Ok(Done {})
    }

    pub(super) async fn request(&self, request: DistributorRequest) -> Result<RequestView, ApiError> {
        let written = self.subscriber().request(request.distributor.as_ref(), &request.endpoints).await?;
        Ok(RequestView {
            name: self.subscriber().name().clone(),
            distributor: written.distributor,
            fingerprint: written.fingerprint,
            files: written.files,
            comes_back_to: written.comes_back_to,
        })
    }

    pub(super) async fn take_issued(&self, request: DistributorIssued) -> Result<EnrolmentView, ApiError> {
        let (distributor, enrolment) = self.subscriber().take_issued(request.distributor.as_ref()).await?;
        self.enrolment(distributor, &enrolment).await
    }

    pub(super) async fn show_distributor(&self, name: NodeName) -> Result<DistributorView, ApiError> {
        Ok(self.distributor(&name).await?.into())
    }

    /// Of two certificates for one name, the newer one: it lies in `security/` and takes over.
    async fn distributor(&self, name: &NodeName) -> Result<DistributorRow, ApiError> {
        let rows = self.subscriber().distributors().await?;
        let found = rows.into_iter().rev().find(|row| row.name == *name);
        found.ok_or_else(|| ApiError::new(code::STATE, format!("no Distributor {name} is trusted here")))
    }
}

impl From<DistributorRow> for DistributorView {
    fn from(row: DistributorRow) -> Self {
        Self {
            name: row.name,
            fingerprint: row.fingerprint,
            trust: if row.in_keystore { TrustView::Keystore } else { TrustView::CertificateFile },
            certificate_until: Time(row.certificate_until),
            own_fingerprint: row.own_fingerprint,
            enrolled_until: row.enrolled_until.map(Time),
            endpoints: row.endpoints,
            connected: row.connected,
            through: row.through,
            parents: row.parents,
            children: row.children,
            trouble: row.trouble,
        }
    }
}
