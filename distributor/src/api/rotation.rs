//! Changing what the Distributor is known by.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::output::{Render, Text, list};
use ted_cli::units::Time;
use ted_core::distributor::{RekeyReport, ReplacementReport};
use ted_core::name::NodeName;

use super::CertificateView;

/// Issues the Distributor's signing and TLS certificates anew, due or not.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateRenew {}

/// Prepares a certificate that is to take over, or shows who has it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateReplace {}

/// Puts the prepared certificate in force.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateFinalize {
    pub(crate) grace_ms: u64,
}

/// Takes the prepared certificate back.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateCancel {}

/// Retires all keys and makes new ones.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateRekey {
    pub(crate) name: Option<NodeName>,
}

/// Has every Subscriber believe this clock again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateCorrectClock {}

ted_cli::operations! {
    CertificateRenew => "certificate/renew" -> Renewed,
    CertificateReplace => "certificate/replace" -> ReplacementView,
    CertificateFinalize => "certificate/finalize" -> ReplacementView,
    CertificateCancel => "certificate/cancel" -> ReplacementView,
    CertificateRekey => "certificate/rekey" -> RekeyView,
    CertificateCorrectClock => "certificate/correct-clock" -> ClockView,
}

/// The certificates that took over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Renewed {
    pub(crate) certificates: Vec<CertificateView>,
}

impl Render for Renewed {
    fn render(&self, out: &mut Text) {
        for certificate in &self.certificates {
            let CertificateView { usage, serial, not_after, .. } = certificate;
            out.line(format_args!("{usage}: {serial} holds until {not_after}"));
        }
    }
}

/// How a replacement of the Distributor's certificate stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReplacementView {
    #[serde(flatten)]
    pub(crate) report: ReplacementReport,
}

impl Render for ReplacementView {
    fn render(&self, out: &mut Text) {
        let report = &self.report;
        let of = report.have.len() + report.lack.len();
        let prepared = report.successor.is_some();
        out.fields([
            ("in force", Some(report.fingerprint.clone())),
            ("prepared", report.successor.clone()),
            ("Subscribers that have it", prepared.then(|| format!("{} of {of}", report.have.len()))),
            ("that lack it", (prepared && !report.lack.is_empty()).then(|| list(&report.lack))),
        ]);
        if !prepared && !report.lack.is_empty() {
            out.line(format_args!(
                "these had not got it before, and learn of it when they connect: {}",
                list(&report.lack)
            ));
        }
        for (fingerprint, until) in &report.grace {
            out.line(format_args!("{fingerprint} leads nodes that were away here until {}", Time(*until)));
        }
        if prepared {
            out.line("`certificate replace --finalize` puts it in force, and `--cancel` takes it back");
        }
    }
}

/// What new keys made necessary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RekeyView {
    #[serde(flatten)]
    pub(crate) report: RekeyReport,
    /// The new certificate's file.
    pub(crate) certificate: PathBuf,
}

impl Render for RekeyView {
    fn render(&self, out: &mut Text) {
        let report = &self.report;
        out.fields([
            ("name", Some(report.name.to_string())),
            ("fingerprint", Some(report.fingerprint.clone())),
            ("before", report.former.clone()),
            ("certificate", Some(self.certificate.display().to_string())),
            ("retired", Some(report.retired.display().to_string())),
            ("to be resolved", (!report.resolve.is_empty()).then(|| list(&report.resolve))),
        ]);
        if !report.resolve.is_empty() {
            out.line("these Subscribers refuse this Distributor until its new certificate is brought there:");
            out.line("`certificate resolve`, or `ted-subscriber trust FILE.cer`; nothing is sent again");
        }
    }
}

/// The time that Subscribers are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClockView {
    pub(crate) time: Time,
}

impl Render for ClockView {
    fn render(&self, out: &mut Text) {
        out.line(format_args!("every Subscriber is told that it is {}", self.time));
    }
}
