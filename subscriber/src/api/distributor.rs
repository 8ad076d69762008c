//! Distributors that this node trusts, and its enrolment with them.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::output::{Column, Render, Text, list, or_dash};
use ted_cli::units::Time;
use ted_core::model::Endpoint;
use ted_core::name::NodeName;
use ted_core::subscriber::{ChildRow, ParentRow};

/// Puts a Distributor's certificate where the first verified package will find it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributorTrust {
    /// The certificate's PEM text.
    pub(crate) certificate: String,
}

/// Asks a trusted Distributor for certificates. Asking again while the first request waits asks for the answer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributorEnrol {
    pub(crate) endpoint: Endpoint,
    /// Which of the trusted Distributors; `None` where there is only one.
    pub(crate) distributor: Option<NodeName>,
    pub(crate) token: Option<String>,
}

impl fmt::Debug for DistributorEnrol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributorEnrol").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Forgets a Distributor: its certificate, what it issued, and its packages. Extracted files stay.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributorLeave {
    pub(crate) distributor: NodeName,
}

/// Writes requests for certificates as files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributorRequest {
    /// Which of the trusted Distributors; `None` where there is only one.
    pub(crate) distributor: Option<NodeName>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Takes in certificates that were carried here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributorIssued {
    /// Which of the trusted Distributors; `None` where there is only one.
    pub(crate) distributor: Option<NodeName>,
}

ted_cli::operations! {
    DistributorTrust => "distributor/trust" -> DistributorView,
    DistributorEnrol => "distributor/enrol" -> EnrolmentView,
    DistributorLeave => "distributor/leave" -> Done,
    DistributorRequest => "distributor/request" -> RequestView,
    DistributorIssued => "distributor/issued" -> EnrolmentView,
}

/// How far the trust in a Distributor's certificate has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TrustView {
    /// Its `.cer` lies in `security/`; no verified package has come yet.
    CertificateFile,
    /// It is in the keystore.
    Keystore,
}

impl fmt::Display for TrustView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CertificateFile => "until its first package",
            Self::Keystore => "in the keystore",
        })
    }
}

/// A Distributor, and what this node has of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DistributorView {
    pub(crate) name: NodeName,
    /// The short form of its CA key's hash.
    pub(crate) fingerprint: String,
    pub(crate) trust: TrustView,
    /// Until when its own certificate holds.
    pub(crate) certificate_until: Time,
    /// The short form of this node's own key in its fleet; `None` before the first request for certificates.
    pub(crate) own_fingerprint: Option<String>,
    /// Until when what it issued to this node holds; `None` where this node has not enrolled.
    pub(crate) enrolled_until: Option<Time>,
    /// Where it is dialled.
    pub(crate) endpoints: Vec<Endpoint>,
    /// The address it is connected with; `None` where it is not.
    pub(crate) connected: Option<String>,
    /// The parent through which it is connected; `None` where it is itself.
    pub(crate) through: Option<NodeName>,
    /// The peers of this node's route, in order of preference; empty where there is none but the Distributor.
    pub(crate) parents: Vec<ParentRow>,
    /// The nodes that are reached through this one.
    pub(crate) children: Vec<ChildRow>,
    /// Why the last connection was refused or failed, with its code.
    pub(crate) trouble: Option<String>,
}

impl DistributorView {
    /// Where it is connected, and through whom.
    fn reached(&self) -> String {
        match (&self.connected, &self.through) {
            (Some(address), Some(parent)) => format!("{address}, through {parent}"),
            (connected, _) => or_dash(connected.as_ref()),
        }
    }

    pub(super) fn parents_text(&self) -> Option<String> {
        let parent = |row: &ParentRow| format!("{}{}", row.name, if row.serves { " (serves)" } else { "" });
        (!self.parents.is_empty()).then(|| list(self.parents.iter().map(parent).collect::<Vec<_>>()))
    }

    pub(super) fn children_text(&self) -> Option<String> {
        let child = |row: &ChildRow| match (&row.connected, row.behind) {
            (None, _) => format!("{} (not connected)", row.name),
            (Some(_), 0) => row.name.to_string(),
            (Some(_), behind) => format!("{} (and {behind} behind it)", row.name),
        };
        (!self.children.is_empty()).then(|| list(self.children.iter().map(child).collect::<Vec<_>>()))
    }
}

impl Render for DistributorView {
    fn render(&self, out: &mut Text) {
        out.fields([
            ("distributor", Some(self.name.to_string())),
            ("fingerprint", Some(self.fingerprint.clone())),
            ("trusted", Some(self.trust.to_string())),
            ("certificate", Some(format!("valid until {}", self.certificate_until))),
            ("enrolled", Some(self.enrolled_until.map_or("no".to_owned(), |until| format!("until {until}")))),
            ("own key", self.own_fingerprint.clone()),
            ("dialled at", Some(list(&self.endpoints))),
            ("connected", Some(self.reached())),
            ("parents", self.parents_text()),
            ("children", self.children_text()),
            ("trouble", self.trouble.clone()),
        ]);
    }
}

pub(super) fn table(distributors: &[DistributorView], out: &mut Text) {
    let columns = [
        Column::Left("DISTRIBUTOR"),
        Column::Left("FINGERPRINT"),
        Column::Left("TRUSTED"),
        Column::Left("ENROLLED UNTIL"),
        Column::Left("CONNECTED"),
        Column::Left("TROUBLE"),
    ];
    let rows = distributors.iter().map(|distributor| {
        vec![
            distributor.name.to_string(),
            distributor.fingerprint.clone(),
            distributor.trust.to_string(),
            or_dash(distributor.enrolled_until),
            distributor.reached(),
            distributor.trouble.clone().unwrap_or_default(),
        ]
    });
    out.table(&columns, rows, "no Distributor is trusted yet: `join FILE` or `trust FILE.cer` begins");
}

/// Requests that lie in files now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RequestView {
    pub(crate) name: NodeName,
    pub(crate) distributor: NodeName,
    /// The short form of this node's identity key, which the Distributor shows too.
    pub(crate) fingerprint: String,
    pub(crate) files: Vec<PathBuf>,
    /// The folder to which the certificates are carried back.
    pub(crate) comes_back_to: PathBuf,
}

impl Render for RequestView {
    fn render(&self, out: &mut Text) {
        let Self { distributor, fingerprint, files, comes_back_to, .. } = self;
        out.line(format_args!("wrote the requests for {distributor}; fingerprint {fingerprint}"));
        for file in files {
            out.line(format_args!("  {}", file.display()));
        }
        let names = files.iter().filter_map(|file| file.file_name()).map(|name| name.to_string_lossy());
        let names = names.collect::<Vec<_>>().join(" ");
        out.line(format_args!(
            "carry them there: `ted-distributor certificate sign {names} --output DIR --fingerprint {fingerprint}`"
        ));
        out.line(format_args!("and the certificates back to {}", comes_back_to.display()));
    }
}

/// How a request for certificates came out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EnrolmentView {
    pub(crate) name: NodeName,
    pub(crate) distributor: NodeName,
    /// The short form of this node's identity key, which the Distributor's `subscriber pending` shows too.
    pub(crate) fingerprint: String,
    /// Until when the certificates hold; `None` where somebody at the Distributor has to approve first.
    pub(crate) until: Option<Time>,
}

impl Render for EnrolmentView {
    fn render(&self, out: &mut Text) {
        let Self { name, distributor, fingerprint, until } = self;
        match until {
            Some(until) => out.line(format_args!("{name} is enrolled with {distributor} until {until}")),
            None => {
                out.line(format_args!("{name} waits for approval by {distributor}; fingerprint {fingerprint}"));
                out.line(format_args!(
                    "there: `ted-distributor subscriber approve {name} --fingerprint {fingerprint}`"
                ));
            }
        }
    }
}
