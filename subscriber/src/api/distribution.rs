//! Distributions as this node receives them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::output::{Column, Render, Text, count, or_dash};
use ted_cli::units::{self, Time};
use ted_core::model::ExtractMode;
use ted_core::name::{Label, NodeName};
use ted_core::security::Stage;
use ted_core::subscriber::{ExtractTime, HookReport, HookScope};

use ted_core::DistributionRef;

use super::preview::Paths;

/// Extracts the newest verified revision of one Distribution, or of all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionExtract {
    pub(crate) distribution: Option<DistributionRef>,
    /// Without what the configuration has run before and after.
    #[serde(default)]
    pub(crate) no_hooks: bool,
}

/// Checks packages and extracted files of one Distribution, or of all; damaged packages are set aside.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionVerify {
    pub(crate) distribution: Option<DistributionRef>,
    /// Extract again what differs in a target whose package is whole.
    #[serde(default)]
    pub(crate) repair: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetSet {
    pub(crate) distribution: DistributionRef,
    /// Absolute.
    pub(crate) target: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetUnset {
    pub(crate) distribution: DistributionRef,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TargetList {}

/// Goes back to the revision before the newest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionRollback {
    pub(crate) distribution: DistributionRef,
}

/// Ends a rollback.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionResume {
    pub(crate) distribution: DistributionRef,
}

ted_cli::operations! {
    DistributionRollback => "distribution/rollback" -> Extracted,
    DistributionResume => "distribution/resume" -> Done,
    DistributionExtract => "distribution/extract" -> Extracted,
    DistributionVerify => "distribution/verify" -> Verified,
    TargetSet => "target/set" -> Done,
    TargetUnset => "target/unset" -> Done,
    TargetList => "target/list" -> Targets,
}

/// A Distribution, and how far its newest revision has come here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DistributionView {
    pub(crate) distributor: NodeName,
    pub(crate) name: Label,
    /// The newest revision that was offered.
    pub(crate) offered: Option<u64>,
    /// The revision that the target holds.
    pub(crate) extracted: Option<u64>,
    /// The latest stage that the offered revision reached.
    pub(crate) stage: Option<Stage>,
    /// Bytes of its packages that are here, and that it takes in all; 0 of 0 where nothing is known.
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
    /// Where it goes; `None` where no place is allowed, and `trouble` says why.
    pub(crate) target: Option<PathBuf>,
    /// In which mode it is extracted; `None` while nothing of it is here.
    #[serde(default)]
    pub(crate) mode: Option<ExtractMode>,
    /// The latest error with its code.
    pub(crate) trouble: Option<String>,
    /// When something last happened to it.
    pub(crate) at: Option<Time>,
    /// Whose hooks are run when it is extracted.
    #[serde(default)]
    pub(crate) hooks: Option<HookScope>,
    /// When its package was last found whole.
    #[serde(default)]
    pub(crate) checked: Option<Time>,
    /// What its extraction waits for, where a revision is verified and waits.
    #[serde(default)]
    pub(crate) waits: Option<WaitsView>,
}

/// What the extraction of a verified revision waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WaitsView {
    /// For this time, by its schedule.
    Until(Time),
    /// For an operator.
    ForExtract,
}

impl WaitsView {
    pub(crate) fn of(time: ExtractTime) -> Option<Self> {
        match time {
            ExtractTime::Now => None,
            ExtractTime::At(at) => Some(Self::Until(Time(at))),
            ExtractTime::ByHand => Some(Self::ForExtract),
        }
    }
}

pub(super) fn table(distributions: &[DistributionView], out: &mut Text) {
    let columns = [
        Column::Left("DISTRIBUTION"),
        Column::Left("DISTRIBUTOR"),
        Column::Left("OFFERED"),
        Column::Left("EXTRACTED"),
        Column::Left("STAGE"),
        Column::Right("BYTES"),
        Column::Left("TARGET"),
        Column::Left("MODE"),
        Column::Left("AT"),
        Column::Left("TROUBLE"),
    ];
    let rows = distributions.iter().map(|view| {
        let bytes = format!("{} of {}", units::bytes(view.done_bytes), units::bytes(view.total_bytes));
        vec![
            view.name.to_string(),
            view.distributor.to_string(),
            or_dash(view.offered),
            or_dash(view.extracted),
            or_dash(view.stage.map(|reached| stage_and_wait(reached, view.waits))),
            or_dash((view.total_bytes > 0).then_some(bytes)),
            or_dash(view.target.as_ref().map(|target| target.display())),
            or_dash(view.mode),
            or_dash(view.at),
            view.trouble.clone().unwrap_or_default(),
        ]
    });
    out.table(&columns, rows, "nothing was offered yet");
}

fn stage_and_wait(reached: Stage, waits: Option<WaitsView>) -> String {
    match waits {
        Some(WaitsView::Until(at)) => format!("{}, extracted at {at}", stage(reached)),
        Some(WaitsView::ForExtract) => format!("{}, waits for `extract`", stage(reached)),
        None => stage(reached).to_owned(),
    }
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Received => "received",
        Stage::Verified => "verified",
        Stage::Extracted => "extracted",
        Stage::Corrupt => "corrupt",
        Stage::Failed => "failed",
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Extracted {
    pub(crate) extracted: Vec<ExtractedView>,
    /// What could not be extracted, where several were asked for.
    #[serde(default)]
    pub(crate) failed: Vec<FailedView>,
}

/// A Distribution that could not be extracted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FailedView {
    pub(crate) distribution: DistributionRef,
    pub(crate) code: String,
    pub(crate) reason: String,
}

/// What an extraction did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExtractedView {
    pub(crate) distributor: NodeName,
    pub(crate) distribution: Label,
    pub(crate) revision: u64,
    pub(crate) target: PathBuf,
    pub(crate) mode: ExtractMode,
    pub(crate) files_written: u64,
    pub(crate) bytes_written: u64,
    pub(crate) links_made: u64,
    pub(crate) folders_made: u64,
    pub(crate) unchanged: u64,
    /// Owners and extended attributes that could not be kept.
    #[serde(default)]
    pub(crate) not_kept: u64,
    /// The first of them, `path: what: why`.
    #[serde(default)]
    pub(crate) not_kept_first: Vec<String>,
    /// Deltas among the packages that carry the revision.
    pub(crate) deltas: usize,
    /// Why its baseline was taken although deltas were to be had, with the code; none where that was not so.
    pub(crate) fell_back: Option<String>,
    /// What somebody else had made or changed, and the revision took the place of.
    pub(crate) local_changes: Paths,
    /// What such files are kept as.
    pub(crate) kept: Paths,
    /// What was deleted because the revision does not have it.
    pub(crate) deleted: Paths,
    /// What the revision does not have either and stays all the same.
    pub(crate) left: Paths,
    /// The hooks that were run.
    #[serde(default)]
    pub(crate) hooks: Vec<HookReport>,
}

impl Render for Extracted {
    fn render(&self, out: &mut Text) {
        if self.extracted.is_empty() && self.failed.is_empty() {
            out.line("there is nothing to extract yet");
        }
        for failed in &self.failed {
            out.line(format_args!("{}: not extracted: {}: {}", failed.distribution, failed.code, failed.reason));
        }
        for done in &self.extracted {
            // Whose the paths are that follow.
            let lists = [&done.local_changes, &done.kept, &done.left];
            if self.extracted.len() > 1 && (done.not_kept > 0 || lists.iter().any(|list| list.count > 0)) {
                out.line(format_args!("{}/{}:", done.distributor, done.distribution));
            }
            if let Some(why) = &done.fell_back {
                out.line(format_args!("deltas were of no use, and a baseline was fetched: {why}"));
            }
            for lost in &done.not_kept_first {
                out.line(format_args!("not kept: {lost}"));
            }
            if done.not_kept > done.not_kept_first.len() as u64 {
                out.line(format_args!("not kept in all: {}", count(done.not_kept, "attribute", "attributes")));
            }
            let (kept, release) = (done.kept.count > 0, done.mode == ExtractMode::Release);
            done.local_changes.render(
                match (kept, release) {
                    (true, _) => "changed here",
                    (false, true) => "changed here, and not in this release",
                    (false, false) => "changed here and overwritten",
                },
                out,
            );
            done.kept.render("kept as", out);
            done.left.render("left alone", out);
            out.line(format_args!(
                "{}/{}: extracted revision {} to {}: {} ({}), {}, {}; {} unchanged, {} deleted",
                done.distributor,
                done.distribution,
                done.revision,
                done.target.display(),
                count(done.files_written, "file", "files"),
                units::bytes(done.bytes_written),
                count(done.links_made, "link", "links"),
                count(done.folders_made, "folder", "folders"),
                done.unchanged,
                done.deleted.count
            ));
            for ran in &done.hooks {
                let said = ran.output.replace('\n', "; ");
                let said = if said.is_empty() { said } else { format!(": {said}") };
                match &ran.code {
                    None => out.line(format_args!("hook `{}`: {}{said}", ran.hook, ran.end)),
                    Some(code) => out.line(format_args!("hook `{}` failed ({code}): {}{said}", ran.hook, ran.end)),
                }
            }
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verified {
    pub(crate) verified: Vec<VerifiedView>,
}

/// What a check found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VerifiedView {
    pub(crate) distributor: NodeName,
    pub(crate) distribution: Label,
    pub(crate) revision: u64,
    /// What is wrong with a package; empty where all is well.
    pub(crate) damaged: Vec<String>,
    /// Whether the package is set aside, so that the Channel's next firing brings what lacks.
    pub(crate) set_aside: bool,
    /// Entries of the target that are not what the revision says, or were not before they were mended.
    pub(crate) different: Vec<String>,
    /// Whether what was different is in order again.
    pub(crate) mended: bool,
}

impl Verified {
    /// Whether everything is as it was signed.
    pub(crate) fn is_whole(&self) -> bool {
        self.verified.iter().all(|view| view.damaged.is_empty() && (view.different.is_empty() || view.mended))
    }
}

impl Render for Verified {
    fn render(&self, out: &mut Text) {
        if self.verified.is_empty() {
            out.line("there is nothing to verify yet");
        }
        for view in &self.verified {
            let name = format!("{}/{} revision {}", view.distributor, view.distribution, view.revision);
            for damage in &view.damaged {
                out.line(format_args!("{name}: damaged: {damage}"));
            }
            if view.set_aside {
                out.line(format_args!("{name}: set aside; the Channel's next firing brings what is damaged"));
            }
            for path in &view.different {
                out.line(format_args!("{name}: {}: {path}", if view.mended { "differed" } else { "differs" }));
            }
            if view.mended {
                out.line(format_args!("{name}: extracted again, so that the target is as signed"));
            }
            if view.damaged.is_empty() && view.different.is_empty() {
                out.line(format_args!("{name}: packages and target are as signed"));
            }
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Targets {
    pub(crate) targets: Vec<PlaceView>,
}

/// Where a Distribution goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlaceView {
    pub(crate) distribution: DistributionRef,
    /// `None` where no place is allowed, and `trouble` says why.
    pub(crate) target: Option<PathBuf>,
    /// `configuration`, `target set`, `proposed` or `default`.
    pub(crate) because: String,
    /// In which mode; `None` while nothing of it is here, and this node says nothing about it.
    #[serde(default)]
    pub(crate) mode: Option<ExtractMode>,
    pub(crate) trouble: Option<String>,
}

impl Render for Targets {
    fn render(&self, out: &mut Text) {
        let columns = [
            Column::Left("DISTRIBUTION"),
            Column::Left("TARGET"),
            Column::Left("BECAUSE OF"),
            Column::Left("MODE"),
            Column::Left("TROUBLE"),
        ];
        let rows = self.targets.iter().map(|place| {
            vec![
                place.distribution.to_string(),
                or_dash(place.target.as_ref().map(|target| target.display())),
                place.because.clone(),
                or_dash(place.mode),
                place.trouble.clone().unwrap_or_default(),
            ]
        });
        out.table(&columns, rows, "no targets are set");
    }
}
