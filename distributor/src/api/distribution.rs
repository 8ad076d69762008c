//! Distributions and their revisions.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::output::{Column, Render, Text, count, list, or_dash};
use ted_cli::units::{self, Time};
use ted_core::distributor::DeltaPackage;
use ted_core::model::{CompressionLevel, Digest, Distribution, ExtractMode, Kept, Priority, Sources};
use ted_core::name::Label;
use ted_core::schedule::Schedule;

/// Declares a Distribution; its id is chosen by the node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionCreate {
    pub(crate) name: Label,
    pub(crate) source: Sources,
    pub(crate) exclude: Vec<String>,
    #[serde(default)]
    pub(crate) include: Vec<String>,
    #[serde(default)]
    pub(crate) gitignore: bool,
    pub(crate) digest: Digest,
    pub(crate) target: Option<String>,
    pub(crate) skip_unreadable: bool,
    pub(crate) priority: Priority,
    #[serde(default)]
    pub(crate) encrypt: bool,
    #[serde(default)]
    pub(crate) keep: Kept,
    #[serde(default = "max_revisions")]
    pub(crate) max_revisions: u32,
    #[serde(default)]
    pub(crate) level: CompressionLevel,
    #[serde(default)]
    pub(crate) delta_level: CompressionLevel,
    #[serde(default)]
    pub(crate) mode: ExtractMode,
    #[serde(default = "Schedule::with_send")]
    pub(crate) build: Schedule,
    #[serde(default)]
    pub(crate) inactive: bool,
}

fn max_revisions() -> u32 {
    Distribution::MAX_REVISIONS
}

/// Changes what is `Some`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionUpdate {
    pub(crate) name: Label,
    pub(crate) source: Option<Sources>,
    pub(crate) exclude: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) include: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) gitignore: Option<bool>,
    pub(crate) digest: Option<Digest>,
    /// An empty text takes the proposed target away.
    pub(crate) target: Option<String>,
    pub(crate) skip_unreadable: Option<bool>,
    pub(crate) priority: Option<Priority>,
    #[serde(default)]
    pub(crate) encrypt: Option<bool>,
    #[serde(default)]
    pub(crate) xattrs: Option<bool>,
    #[serde(default)]
    pub(crate) ownership: Option<bool>,
    #[serde(default)]
    pub(crate) privileged: Option<bool>,
    #[serde(default)]
    pub(crate) mode: Option<ExtractMode>,
    #[serde(default)]
    pub(crate) max_revisions: Option<u32>,
    #[serde(default)]
    pub(crate) level: Option<CompressionLevel>,
    #[serde(default)]
    pub(crate) delta_level: Option<CompressionLevel>,
    #[serde(default)]
    pub(crate) build: Option<Schedule>,
    #[serde(default)]
    pub(crate) active: Option<bool>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DistributionList {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionShow {
    pub(crate) name: Label,
}

/// Refused while a Channel names it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionDelete {
    pub(crate) name: Label,
}

/// Builds a revision if the source differs from the newest one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionBuild {
    pub(crate) name: Label,
    /// Read every file, whatever its times say.
    #[serde(default)]
    pub(crate) checksum: bool,
    /// The name of a tar file that was spooled in the data directory for this build.
    #[serde(default)]
    pub(crate) input: Option<String>,
}

ted_cli::operations! {
    DistributionCreate => "distribution/create" -> DistributionView,
    DistributionUpdate => "distribution/update" -> DistributionView,
    DistributionList => "distribution/list" -> Distributions,
    DistributionShow => "distribution/show" -> DistributionView,
    DistributionDelete => "distribution/delete" -> Done,
    DistributionBuild => "distribution/build" -> BuildView,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DistributionView {
    pub(crate) id: String,
    pub(crate) name: Label,
    pub(crate) source: Sources,
    pub(crate) exclude: Vec<String>,
    #[serde(default)]
    pub(crate) include: Vec<String>,
    #[serde(default)]
    pub(crate) gitignore: bool,
    pub(crate) digest: Digest,
    pub(crate) target: Option<String>,
    pub(crate) skip_unreadable: bool,
    pub(crate) priority: Priority,
    #[serde(default)]
    pub(crate) encrypt: bool,
    #[serde(default)]
    pub(crate) keep: Kept,
    #[serde(default)]
    pub(crate) mode: ExtractMode,
    #[serde(default = "max_revisions")]
    pub(crate) max_revisions: u32,
    #[serde(default)]
    pub(crate) level: CompressionLevel,
    #[serde(default)]
    pub(crate) delta_level: CompressionLevel,
    /// When it is built by itself.
    #[serde(default = "Schedule::with_send")]
    pub(crate) build: Schedule,
    /// Whether it is built by itself and sent.
    pub(crate) active: bool,
    /// The newest revision; `None` before the first build.
    pub(crate) newest: Option<RevisionView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RevisionView {
    pub(crate) revision: u64,
    pub(crate) created: Time,
    pub(crate) entries: u64,
    /// Bytes of all files together.
    pub(crate) content_bytes: u64,
    /// Bytes of its baseline.
    pub(crate) package_bytes: u64,
    /// The baseline's id.
    pub(crate) package: String,
    /// The baseline's file; `None` where it is gone.
    pub(crate) file: Option<PathBuf>,
    /// The delta that leads to it.
    #[serde(default)]
    pub(crate) delta: Option<DeltaView>,
    /// Why there is none, in words.
    #[serde(default)]
    pub(crate) no_delta: Option<String>,
}

/// The delta that leads to a revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeltaView {
    /// The revision that it goes from.
    pub(crate) base: u64,
    pub(crate) package_bytes: u64,
    pub(crate) package: String,
}

impl From<DeltaPackage> for DeltaView {
    fn from(delta: DeltaPackage) -> Self {
        Self { base: delta.base.number(), package_bytes: delta.bytes, package: delta.package.to_string() }
    }
}

impl RevisionView {
    /// The delta in a few words.
    fn delta_text(&self) -> Option<String> {
        let none = || self.no_delta.as_ref().map(|why| format!("none: {why}"));
        self.delta
            .as_ref()
            .map(|delta| format!("{} from revision {}", units::bytes(delta.package_bytes), delta.base))
            .or_else(none)
    }
}

impl Render for DistributionView {
    fn render(&self, out: &mut Text) {
        let newest = self.newest.as_ref();
        out.fields([
            ("distribution", Some(self.name.to_string())),
            ("id", Some(self.id.clone())),
            ("source", Some(self.source.to_string())),
            ("exclude", (!self.exclude.is_empty()).then(|| list(&self.exclude))),
            ("include", (!self.include.is_empty()).then(|| list(&self.include))),
            (".gitignore", self.gitignore.then(|| "honoured".to_owned())),
            ("target", self.target.clone()),
            ("mode", Some(self.mode.to_string())),
            ("active", (!self.active).then(|| "no: it is neither built by itself nor sent".to_owned())),
            ("build", Some(self.build.to_string())),
            ("priority", Some(self.priority.to_string())),
            ("digest", Some(self.digest.to_string())),
            ("encrypted", Some(if self.encrypt { "yes" } else { "no" }.to_owned())),
            ("keeps too", (!self.keep.is_nothing()).then(|| self.keep.to_string())),
            ("unreadable", Some(if self.skip_unreadable { "left out" } else { "fails the build" }.to_owned())),
            ("revision", Some(newest.map_or("none yet".to_owned(), |newest| newest.revision.to_string()))),
            ("built", newest.map(|newest| newest.created.to_string())),
            ("entries", newest.map(|newest| newest.entries.to_string())),
            ("content", newest.map(|newest| units::bytes(newest.content_bytes))),
            ("package", newest.map(|newest| format!("{}, {}", units::bytes(newest.package_bytes), newest.package))),
            ("delta", newest.and_then(RevisionView::delta_text)),
            ("revisions", Some(format!("{} by differences at most", self.max_revisions))),
            ("zstd level", Some(format!("{}; {} in deltas", self.level, self.delta_level))),
            ("file", newest.and_then(|newest| newest.file.as_ref()).map(|file| file.display().to_string())),
        ]);
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Distributions {
    pub(crate) distributions: Vec<DistributionView>,
}

impl Render for Distributions {
    fn render(&self, out: &mut Text) {
        table(&self.distributions, out);
    }
}

pub(super) fn table(distributions: &[DistributionView], out: &mut Text) {
    let columns = [
        Column::Left("DISTRIBUTION"),
        Column::Left("SOURCE"),
        Column::Left("ENCRYPTED"),
        Column::Left("REVISION"),
        Column::Left("BUILT"),
        Column::Right("ENTRIES"),
        Column::Right("CONTENT"),
        Column::Right("PACKAGE"),
    ];
    let rows = distributions.iter().map(|distribution| {
        let newest = distribution.newest.as_ref();
        vec![
            distribution.name.to_string(),
            distribution.source.to_string(),
            if distribution.encrypt { "yes" } else { "no" }.to_owned(),
            or_dash(newest.map(|newest| newest.revision)),
            or_dash(newest.map(|newest| newest.created)),
            or_dash(newest.map(|newest| newest.entries)),
            or_dash(newest.map(|newest| units::bytes(newest.content_bytes))),
            or_dash(newest.map(|newest| units::bytes(newest.package_bytes))),
        ]
    });
    out.table(&columns, rows, "no Distributions yet: `distribution create NAME --source DIR` makes one");
}

/// What a build came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BuildView {
    pub(crate) distribution: Label,
    /// The newest revision, built now or before.
    pub(crate) revision: RevisionView,
    /// False where the source has not changed and nothing was built.
    pub(crate) built: bool,
    pub(crate) milliseconds: u64,
    /// Frames of the package.
    pub(crate) frames: u64,
    /// How many of these were copied from the package before it.
    pub(crate) frames_copied: u64,
    /// What is in the source and not in the revision, `path: reason`.
    pub(crate) skipped: Vec<String>,
}

impl Render for BuildView {
    fn render(&self, out: &mut Text) {
        for skipped in &self.skipped {
            out.line(format_args!("left out: {skipped}"));
        }
        let (name, at) = (&self.distribution, &self.revision);
        if !self.built {
            out.line(format_args!("{name}: the source has not changed since revision {}", at.revision));
            return;
        }
        let elapsed = Duration::from_millis(self.milliseconds);
        out.line(format_args!(
            "{name}: built revision {}: {}, {} in a package of {}, in {} ({})",
            at.revision,
            count(at.entries, "entry", "entries"),
            units::bytes(at.content_bytes),
            units::bytes(at.package_bytes),
            units::duration(elapsed),
            units::rate(at.content_bytes, elapsed)
        ));
        if let Some(delta) = at.delta_text() {
            out.line(format_args!("{name}: delta {delta}"));
        }
        if self.frames_copied > 0 {
            let frames = count(self.frames, "frame", "frames");
            out.line(format_args!("{name}: {} of {frames} copied from the revision before", self.frames_copied));
        }
    }
}
