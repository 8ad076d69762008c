//! What an extraction would do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ted_cli::output::{Render, Text};
use ted_cli::units;
use ted_core::DistributionRef;
use ted_core::extract::PathList;
use ted_core::model::ExtractMode;
use ted_core::name::{Label, NodeName};

/// Says what extracting one Distribution, or all, would do. Nothing is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DistributionPreview {
    pub(crate) distribution: Option<DistributionRef>,
}

ted_cli::operations! {
    DistributionPreview => "distribution/preview" -> Previews,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Previews {
    pub(crate) previews: Vec<PreviewView>,
}

/// What would be done for one Distribution.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PreviewView {
    pub(crate) distributor: NodeName,
    pub(crate) distribution: Label,
    pub(crate) revision: u64,
    pub(crate) target: PathBuf,
    pub(crate) mode: ExtractMode,
    /// An earlier extraction was interrupted, and would be finished or undone first.
    pub(crate) interrupted: bool,
    pub(crate) added: Paths,
    pub(crate) updated: Paths,
    pub(crate) deleted: Paths,
    /// What somebody else made or changed, and the revision takes the place of.
    pub(crate) local_changes: Paths,
    /// What such files are kept as.
    pub(crate) kept: Paths,
    /// What the revision does not have either and stays all the same.
    pub(crate) left: Paths,
    /// Why it would be refused; then nothing is written.
    pub(crate) refused: Vec<RefusedView>,
    pub(crate) unchanged: u64,
    /// Bytes of content that would be written.
    pub(crate) bytes: u64,
    /// In release mode: the release that is current now.
    pub(crate) current: Option<u64>,
    /// In release mode: releases that would not be kept any longer.
    pub(crate) releases_gone: Vec<u64>,
}

/// Something that keeps an extraction from being done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefusedView {
    pub(crate) code: String,
    pub(crate) reason: String,
}

/// Paths, of which only the first are named.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Paths {
    pub(crate) count: u64,
    pub(crate) first: Vec<String>,
}

impl From<PathList> for Paths {
    fn from(list: PathList) -> Self {
        Self { count: list.count, first: list.first.iter().map(ToString::to_string).collect() }
    }
}

impl Paths {
    /// One line for each path that is named, and one for how many are not.
    pub(crate) fn render(&self, said: &str, out: &mut Text) {
        for path in &self.first {
            out.line(format_args!("{said}: {path}"));
        }
        let more = self.count.saturating_sub(self.first.len() as u64);
        if more > 0 {
            out.line(format_args!("{said}: {more} more"));
        }
    }
}

impl Previews {
    /// The first thing that would be refused.
    pub(crate) fn refused(&self) -> Option<&RefusedView> {
        self.previews.iter().find_map(|view| view.refused.first())
    }
}

impl Render for Previews {
    fn render(&self, out: &mut Text) {
        if self.previews.is_empty() {
            out.line("there is nothing to extract yet");
        }
        for view in &self.previews {
            // Whose the paths are that follow.
            if self.previews.len() > 1 && view.has_paths() {
                out.line(format_args!("{}/{}:", view.distributor, view.distribution));
            }
            view.render(out);
        }
    }
}

impl PreviewView {
    fn has_paths(&self) -> bool {
        let lists = [&self.added, &self.updated, &self.deleted, &self.local_changes, &self.kept, &self.left];
        !self.refused.is_empty() || lists.iter().any(|list| list.count > 0)
    }

    fn render(&self, out: &mut Text) {
        let name = format!("{}/{}", self.distributor, self.distribution);
        for refused in &self.refused {
            out.line(format_args!("refused: {}: {}", refused.code, refused.reason));
        }
        if self.interrupted {
            out.line(format_args!("{name}: an extraction was interrupted; it is finished or undone first"));
        }
        self.local_changes.render("changed here", out);
        self.kept.render("kept as", out);
        self.added.render("added", out);
        self.updated.render("updated", out);
        self.deleted.render("deleted", out);
        self.left.render("left alone", out);
        for release in &self.releases_gone {
            out.line(format_args!("release not kept any longer: {release}"));
        }
        let from = self.current.map_or_else(String::new, |current| format!(" from release {current}"));
        out.line(format_args!(
            "{name}: {} revision {} to {} in mode {}{from}: {} added, {} updated, {} deleted, {} unchanged; {} written",
            if self.refused.is_empty() { "would extract" } else { "would be refused to extract" },
            self.revision,
            self.target.display(),
            self.mode,
            self.added.count,
            self.updated.count,
            self.deleted.count,
            self.unchanged,
            units::bytes(self.bytes),
        ));
    }
}
