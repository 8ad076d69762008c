//! What an operator says about hooks, in this node's own configuration and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::name::{Label, NameError, NodeName};
use crate::subscriber::hooks::HookError;
use crate::subscriber::reference::DistributionRef;

/// Which Distributions hooks are for: one, or every one that has none of its own, written `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HookScope {
    /// Every Distribution without hooks of its own.
    Every,
    /// This one.
    Of(DistributionRef),
}

/// What is run around an extraction that changes a target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// Run when everything is staged and checked, right before the first change. If it fails, nothing changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<HookCommand>,
    /// Run after every extraction for which `before` was run, or would have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<HookCommand>,
    /// How long each may take.
    pub timeout_s: HookTimeout,
    /// What follows when `after` fails.
    pub on_failure_after: AfterFailure,
}

/// What follows when the hook `after` fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterFailure {
    /// The new revision stays, and the failure is told.
    #[default]
    Report,
    /// In mode `release` the revision before is current again; elsewhere as [`AfterFailure::Report`].
    Rollback,
}

/// A program and its arguments. They are given to the program as they are: there is no shell, and nothing is expanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct HookCommand(Vec<String>);

/// Seconds that a hook may take: 1 to 86,400, 60 by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct HookTimeout(u64);

/// All hooks of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct HookTable(pub(in crate::subscriber) BTreeMap<HookScope, Hooks>);

impl HookTable {
    /// The hooks of a Distribution: those of its full name, else of its name, else of `*`. They are not merged.
    pub(super) fn of(&self, distributor: &NodeName, name: &Label) -> Option<(HookScope, &Hooks)> {
        let full = DistributionRef::new(Some(distributor.clone()), name.clone());
        let scopes = [HookScope::Of(full), HookScope::Of(name.clone().into()), HookScope::Every];
        scopes.into_iter().find_map(|scope| self.0.get(&scope).map(|hooks| (scope, hooks)))
    }
}

impl HookCommand {
    /// The program and its arguments.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for HookCommand {
    type Error = HookError;

    /// The program has to be an absolute path: what a name would mean depends on folders that others may write to, the
    /// target among them.
    fn try_from(words: Vec<String>) -> Result<Self, HookError> {
        let reason = match words.first() {
            None => "it names no program",
            Some(program) if !program.starts_with('/') => "the program is not an absolute path",
            Some(_) if words.iter().any(|word| word.contains('\0')) => "it holds a NUL",
            Some(_) => return Ok(Self(words)),
        };
        Err(HookError::Command { words, reason })
    }
}

impl From<HookCommand> for Vec<String> {
    fn from(command: HookCommand) -> Self {
        command.0
    }
}

impl HookTimeout {
    /// The time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Default for HookTimeout {
    fn default() -> Self {
        Self(Limits::DEFAULT.hook_seconds)
    }
}

impl TryFrom<u64> for HookTimeout {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        let most = Limits::DEFAULT.hook_seconds_max;
        match seconds {
            0 => Err("a hook needs at least 1 second".to_owned()),
            _ if seconds > most => Err(format!("a hook may take {most} seconds at most")),
            _ => Ok(Self(seconds)),
        }
    }
}

impl From<HookTimeout> for u64 {
    fn from(timeout: HookTimeout) -> Self {
        timeout.0
    }
}

impl FromStr for HookScope {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" { Ok(Self::Every) } else { text.parse().map(Self::Of) }
    }
}

impl fmt::Display for HookScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
            Self::Of(distribution) => distribution.fmt(f),
        }
    }
}

impl TryFrom<String> for HookScope {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<HookScope> for String {
    fn from(scope: HookScope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_scope_counts_and_scopes_are_not_merged() {
        let command = |word: &str| HookCommand::try_from(vec![word.to_owned()]).ok();
        let table: BTreeMap<HookScope, Hooks> = [
            ("*", Hooks { before: command("/every"), after: command("/every"), ..Hooks::default() }),
            ("site", Hooks { before: command("/site"), ..Hooks::default() }),
            ("a.example/site", Hooks { after: command("/full"), ..Hooks::default() }),
        ]
        .map(|(scope, hooks)| (scope.parse().expect("valid"), hooks))
        .into();
        let table = HookTable(table);
        for (distributor, name, scope) in
            [("a.example", "site", "a.example/site"), ("b.example", "site", "site"), ("a.example", "docs", "*")]
        {
            let (found, hooks) =
                table.of(&distributor.parse().expect("valid"), &name.parse().expect("valid")).expect("one");
            assert_eq!(found.to_string(), scope);
            assert_eq!(hooks, &table.0[&found]);
        }
        assert_eq!(HookTable::default().of(&"a.example".parse().expect("valid"), &"x".parse().expect("valid")), None);
    }

    #[test]
    fn a_program_that_is_not_an_absolute_path_is_refused() {
        for words in
            [&[][..], &["reload"], &["./reload"], &["bin/reload", "x"], &[""], &["/bin/a\0b"], &["/bin/a", "\0"]]
        {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert!(HookCommand::try_from(words.clone()).is_err(), "{words:?}");
        }
        assert!(HookCommand::try_from(vec!["/bin/echo".to_owned(), String::new()]).is_ok());
        for (seconds, good) in [(0, false), (1, true), (86_400, true), (86_401, false)] {
            assert_eq!(HookTimeout::try_from(seconds).is_ok(), good, "{seconds}");
        }
    }
}
