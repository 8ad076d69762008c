//! Groups, routes, and the fleet as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ted_cli::api::Done;
use ted_cli::output::{Column, Render, Text, clean, count, list};
use ted_core::distributor::{FleetChange, GroupChanges};
use ted_core::model::{Change, ChangeKind, Difference, FleetWarning, Item};
use ted_core::name::{Label, NodeName};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupCreate {
    pub(crate) name: Label,
    #[serde(default)]
    pub(crate) subscribers: Vec<NodeName>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupUpdate {
    pub(crate) name: Label,
    pub(crate) changes: GroupChanges,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GroupList {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupShow {
    pub(crate) name: Label,
}

/// Refused while a Channel sends to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupDelete {
    pub(crate) name: Label,
}

/// All routes, or that of one Subscriber.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteShow {
    #[serde(default)]
    pub(crate) name: Option<NodeName>,
}

/// Makes the fleet what a file declares: all of it, or nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetApply {
    /// The file's text, TOML.
    pub(crate) toml: String,
    /// Delete what it does not declare.
    #[serde(default)]
    pub(crate) prune: bool,
    /// Change nothing.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FleetExport {}

/// Applies the file that `refresh_source` names, as its schedule does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FleetRefresh {}

ted_cli::operations! {
    GroupCreate => "group/create" -> GroupView,
    GroupUpdate => "group/update" -> GroupView,
    GroupList => "group/list" -> Groups,
    GroupShow => "group/show" -> GroupView,
    GroupDelete => "group/delete" -> Done,
    RouteShow => "route/show" -> RouteView,
    FleetApply => "fleet/apply" -> ChangeView,
    FleetExport => "fleet/export" -> FleetFile,
    FleetRefresh => "fleet/refresh" -> ChangeView,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GroupView {
    pub(crate) name: Label,
    pub(crate) subscribers: Vec<NodeName>,
    /// The Channels that send to it.
    pub(crate) channels: Vec<Label>,
}

impl Render for GroupView {
    fn render(&self, out: &mut Text) {
        out.fields([
            ("group", Some(self.name.to_string())),
            ("channels", Some(list(&self.channels))),
            ("subscribers", Some(list(&self.subscribers))),
        ]);
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Groups {
    pub(crate) groups: Vec<GroupView>,
}

impl Render for Groups {
    fn render(&self, out: &mut Text) {
        let columns = [Column::Left("GROUP"), Column::Right("SUBSCRIBERS"), Column::Left("CHANNELS")];
        let rows = self
            .groups
            .iter()
            .map(|group| vec![group.name.to_string(), group.subscribers.len().to_string(), list(&group.channels)]);
        out.table(&columns, rows, "no groups yet: `group create NAME --subscriber NAME` makes one");
    }
}

/// A fleet as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FleetFile {
    pub(crate) toml: String,
}

/// What a change of the fleet did, or would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChangeView {
    /// Whether it was only tried.
    pub(crate) dry_run: bool,
    /// The Subscribers that were meant, where labels or names selected them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) subscribers: Vec<NodeName>,
    /// Whether labels selected, and no Subscriber has them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) nobody: bool,
    pub(crate) changes: Difference,
    /// What the fleet has and a file does not declare; it stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) kept: Vec<Item>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<WarningView>,
}

/// Something that is allowed, and hardly meant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WarningView {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) item: Item,
}

impl From<&FleetWarning> for WarningView {
    fn from(warning: &FleetWarning) -> Self {
        Self { code: warning.code().to_owned(), message: warning.to_string(), item: warning.item().clone() }
    }
}

impl ChangeView {
    pub(crate) fn new(change: FleetChange, dry_run: bool, prune: bool) -> Self {
        Self {
            dry_run,
            subscribers: change.subscribers,
            nobody: false,
            changes: change.difference,
            kept: if prune { vec![] } else { change.undeclared },
            warnings: change.warnings.iter().map(WarningView::from).collect(),
        }
    }
}

/// Items that are named before the rest is only counted.
const NAMED: usize = 20;

impl Render for ChangeView {
    fn render(&self, out: &mut Text) {
        for change in &self.changes.changes {
            render_change(change, out);
        }
        if !self.kept.is_empty() {
            out.line(format_args!("not in the file, and kept (`--prune` deletes it): {}", some(&self.kept)));
        }
        warnings(&self.warnings, out);
        let does = if self.dry_run { "would change" } else { "changed" };
        if self.nobody {
            out.line("nothing changes: no Subscriber meets these conditions");
        } else if self.changes.is_empty() {
            out.line("nothing changes: the fleet is so already");
        } else if self.subscribers.is_empty() {
            out.line(format_args!("{does} {}", count(self.changes.changes.len() as u64, "thing", "things")));
        } else {
            let subscribers = count(self.subscribers.len() as u64, "Subscriber", "Subscribers");
            out.line(format_args!("{does} {subscribers}: {}", some(&self.subscribers)));
        }
    }
}

/// Warnings, one a line.
pub(super) fn warnings(warnings: &[WarningView], out: &mut Text) {
    for warning in warnings {
        let line = format!("warning[{}]: {}", warning.code, clean(&warning.message));
        out.painted(&out.paint().warn(&line));
    }
}

fn render_change(change: &Change, out: &mut Text) {
    let paint = out.paint();
    let head = clean(&format!("{} {}", change.kind.sign(), change.item));
    let head = match change.kind {
        ChangeKind::Added => paint.good(&head),
        ChangeKind::Removed => paint.bad(&head),
        ChangeKind::Changed => paint.warn(&head),
    };
    out.painted(&head);
    for field in &change.fields {
        out.line(format_args!("    {field}"));
    }
}

fn some<T: std::fmt::Display>(items: &[T]) -> String {
    let named = list(items.iter().take(NAMED));
    match items.len().checked_sub(NAMED) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

/// Routes: of all Subscribers, or of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RouteView {
    pub(crate) distributor: NodeName,
    /// By name.
    pub(crate) routes: Vec<RouteRow>,
    /// What was asked for, with what only concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<RouteOf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<WarningView>,
}

/// The route of one Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RouteRow {
    pub(crate) name: NodeName,
    /// Its parents, in order of preference; empty for this Distributor itself.
    pub(crate) parents: Vec<NodeName>,
    /// The preferred way, from this Distributor's child down to its parent.
    pub(crate) way: Vec<NodeName>,
    pub(crate) external: bool,
    /// False for one that is paused.
    pub(crate) active: bool,
}

/// More about one Subscriber.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RouteOf {
    pub(crate) name: NodeName,
    /// Those that name it as a parent, preferred or not.
    pub(crate) children: Vec<NodeName>,
    /// All that may be reached through it.
    pub(crate) descendants: Vec<NodeName>,
    /// The Distributions that it receives itself.
    pub(crate) receives: Vec<Label>,
    /// The Distributions that it passes on or receives.
    pub(crate) carries: Vec<Label>,
}

impl Render for RouteView {
    fn render(&self, out: &mut Text) {
        match (&self.of, self.routes.as_slice()) {
            (Some(of), [route]) => self.render_one(of, route, out),
            _ => self.render_tree(out),
        }
        warnings(&self.warnings, out);
    }
}

impl RouteView {
    fn render_one(&self, of: &RouteOf, route: &RouteRow, out: &mut Text) {
        let mut way = vec![self.distributor.to_string()];
        way.extend(route.way.iter().map(ToString::to_string));
        way.push(route.name.to_string());
        let fallback = route.parents.get(1..).filter(|others| !others.is_empty()).map(list);
        out.fields([
            ("subscriber", Some(format!("{}{}", route.name, marks(route)))),
            ("way", Some(way.join(" -> "))),
            ("else through", fallback),
            ("children", Some(list(&of.children))),
            ("behind it", Some(count(of.descendants.len() as u64, "Subscriber", "Subscribers"))),
            ("receives", Some(list(&of.receives))),
            ("carries", Some(list(&of.carries))),
        ]);
    }

    fn render_tree(&self, out: &mut Text) {
        let mut below: BTreeMap<Option<&NodeName>, Vec<&RouteRow>> = BTreeMap::new();
        for route in &self.routes {
            below.entry(route.way.last()).or_default().push(route);
        }
        out.painted(&out.paint().strong(&clean(&self.distributor.to_string())));
        if self.routes.is_empty() {
            out.line("no Subscribers yet");
        }
        // Routes are as deep as operators make them, so this is no recursion.
        let mut open: Vec<(&RouteRow, String, bool)> = Vec::new();
        push_level(&mut open, below.get(&None), "");
        while let Some((route, indent, last)) = open.pop() {
            let others = route.parents.get(1..).filter(|others| !others.is_empty());
            let others = others.map_or_else(String::new, |others| format!("   else through {}", list(others)));
            let branch = if last { "└── " } else { "├── " };
            out.line(format_args!("{indent}{branch}{}{}{others}", route.name, marks(route)));
            let deeper = format!("{indent}{}", if last { "    " } else { "│   " });
            push_level(&mut open, below.get(&Some(&route.name)), &deeper);
        }
    }
}

fn push_level<'a>(open: &mut Vec<(&'a RouteRow, String, bool)>, rows: Option<&Vec<&'a RouteRow>>, indent: &str) {
    let rows = rows.map(Vec::as_slice).unwrap_or_default();
    let placed = rows.iter().enumerate().map(|(place, row)| (*row, indent.to_owned(), place + 1 == rows.len()));
    open.extend(placed.rev());
}

fn marks(route: &RouteRow) -> String {
    let marks: Vec<&str> = [(route.external, "External"), (!route.active, "paused")]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, mark)| mark)
        .collect();
    if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) }
}

#[cfg(test)]
mod tests {
    use ted_cli::output::Paint;

    use super::*;

    fn row(name: &str, parents: &[&str], way: &[&str]) -> RouteRow {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().expect("a name")).collect();
        RouteRow {
            name: name.parse().expect("a name"),
            parents: names(parents),
            way: names(way),
            external: name == "guest",
            active: name != "leaf2",
        }
    }

    #[test]
    fn routes_read_as_a_tree_of_preferred_parents() {
        let view = RouteView {
            distributor: "dist".parse().expect("a name"),
            routes: vec![
                row("guest", &[], &[]),
                row("leaf1", &["p2", "dist"], &["p1", "p2"]),
                row("leaf2", &["p1"], &["p1"]),
                row("p1", &[], &[]),
                row("p2", &["p1"], &["p1"]),
            ],
            of: None,
            warnings: vec![],
        };
        let mut text = Text::new(Paint::Plain);
        view.render(&mut text);
        let expected = "\
dist
├── guest (External)
└── p1
    ├── leaf2 (paused)
    └── p2
        └── leaf1   else through dist
";
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn conditions_that_nobody_meets_are_not_called_fulfilled() {
        let mut view = ChangeView {
            dry_run: false,
            subscribers: vec![],
            nobody: true,
            changes: Difference::default(),
            kept: vec![],
            warnings: vec![],
        };
        let said = |view: &ChangeView| {
            let mut text = Text::new(Paint::Plain);
            view.render(&mut text);
            text.into_string()
        };
        assert_eq!(said(&view), "nothing changes: no Subscriber meets these conditions\n");
        view.nobody = false;
        assert_eq!(said(&view), "nothing changes: the fleet is so already\n");
    }
}
