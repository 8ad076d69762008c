//! A Distribution's revisions: their history, what is kept of them, and going back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::output::{Column, Render, Text, or_dash};
use ted_cli::units::{self, Time};
use ted_core::distributor::{RevisionChoice, RevisionKept, RevisionOrigin, RevisionReport};
use ted_core::name::Label;
use ted_core::package::ChangeCounts;

use super::{DeltaView, DistributionView};

/// Makes a new revision with the content of one that is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionRollback {
    pub(crate) name: Label,
    /// The revision whose content it gets; `None` means the one before the newest.
    pub(crate) to: Option<RevisionChoice>,
}

/// The revisions that are on record or kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionHistory {
    pub(crate) name: Label,
}

/// The files of the packages that a kept revision is put together from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionRevision {
    pub(crate) name: Label,
    pub(crate) revision: RevisionChoice,
}

ted_cli::operations! {
    DistributionRollback => "distribution/rollback" -> DistributionView,
    DistributionHistory => "distribution/history" -> HistoryView,
    DistributionRevision => "distribution/revision" -> RevisionFiles,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RevisionFiles {
    pub(crate) revision: u64,
    /// A baseline, and the deltas that lead on from it, in the order in which they are applied.
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HistoryView {
    pub(crate) distribution: Label,
    /// Newest first.
    pub(crate) revisions: Vec<HistoryRow>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HistoryRow {
    pub(crate) revision: u64,
    pub(crate) created: Time,
    #[serde(flatten)]
    pub(crate) origin: RevisionOrigin,
    pub(crate) entries: u64,
    /// Bytes of all files together.
    pub(crate) content_bytes: u64,
    /// Bytes of its baseline when it was made.
    pub(crate) package_bytes: Option<u64>,
    /// The delta that led to it.
    pub(crate) delta: Option<DeltaView>,
    /// Why there was none, in words.
    pub(crate) no_delta: Option<String>,
    /// What changed from the revision before; `None` where that is not known.
    pub(crate) changes: Option<ChangeCounts>,
    pub(crate) kept: RevisionKept,
}

impl From<RevisionReport> for HistoryRow {
    fn from(report: RevisionReport) -> Self {
        Self {
            revision: report.revision.number(),
            created: report.created.into(),
            origin: report.origin,
            entries: report.entries,
            content_bytes: report.content_bytes,
            package_bytes: report.baseline_bytes,
            delta: report.delta.map(DeltaView::from),
            no_delta: report.no_delta,
            changes: report.changes,
            kept: report.kept,
        }
    }
}

impl HistoryRow {
    fn changed(&self) -> String {
        let Some(counts) = &self.changes else { return "-".to_owned() };
        let ChangeCounts { added, removed, moved, changed, attributes } = *counts;
        let parts =
            [(added, "added"), (changed, "changed"), (removed, "removed"), (moved, "moved"), (attributes, "touched")];
        let told: Vec<_> =
            parts.iter().filter(|(many, _)| *many > 0).map(|(many, word)| format!("{many} {word}")).collect();
        if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
    }

    fn made(&self) -> String {
        match self.origin {
            RevisionOrigin::Build => "built".to_owned(),
            RevisionOrigin::Rollback { to } => format!("back to {to}"),
            RevisionOrigin::Found => "found".to_owned(),
        }
    }
}

impl Render for HistoryView {
    fn render(&self, out: &mut Text) {
        let columns = [
            Column::Left("REVISION"),
            Column::Left("CREATED"),
            Column::Left("MADE"),
            Column::Right("ENTRIES"),
            Column::Right("CONTENT"),
            Column::Right("BASELINE"),
            Column::Right("DELTA"),
            Column::Left("KEPT"),
            Column::Left("CHANGED"),
        ];
        let rows = self.revisions.iter().map(|row| {
            vec![
                row.revision.to_string(),
                row.created.to_string(),
                row.made(),
                row.entries.to_string(),
                units::bytes(row.content_bytes),
                or_dash(row.package_bytes.map(units::bytes)),
                or_dash(row.delta.as_ref().map(|delta| units::bytes(delta.package_bytes))),
                match row.kept {
                    RevisionKept::Baseline => "baseline",
                    RevisionKept::Deltas => "deltas",
                    RevisionKept::No => "no",
                }
                .to_owned(),
                row.changed(),
            ]
        });
        let build = format!("no revision yet: `distribution build {}` makes one", self.distribution);
        out.table(&columns, rows, &build);
    }
}
