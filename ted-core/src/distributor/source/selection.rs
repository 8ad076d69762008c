//! What of a source is taken.

use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::package::{EntryPath, SourceError};

use super::path_of;

/// What of a source is taken, by paths relative to it.
///
/// In patterns `*` and `?` match within a component, `**` any number of components; a pattern without a slash matches at
/// every depth. What lies in a folder that is left out is left out, and what lies in a folder that is included is
/// included. A folder on the way to something included is there too. What is excluded stays out, included or not.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    exclude: GlobSet,
    include: Option<GlobSet>,
    gitignore: bool,
}

impl Selection {
    /// Everything but what `exclude` matches; and where `include` has patterns, only what these match.
    ///
    /// # Errors
    /// [`SourceError::Pattern`] names the first that is none.
    pub fn new<P: AsRef<str>>(exclude: &[P], include: &[P]) -> Result<Self, SourceError> {
        let include = if include.is_empty() { None } else { Some(glob_set(include)?) };
        Ok(Self { exclude: glob_set(exclude)?, include, gitignore: false })
    }

    /// The same, and what the `.gitignore` files in a folder name is left out as git would, and `.git` with it.
    #[must_use]
    pub fn gitignore(mut self, honoured: bool) -> Self {
        self.gitignore = honoured;
        self
    }

    pub(super) fn honours_gitignore(&self) -> bool {
        self.gitignore
    }

    /// Whether the path itself is excluded; what lies in a folder that is, is not asked for.
    pub(super) fn excludes(&self, path: &EntryPath) -> bool {
        self.exclude.is_match(path_of(path))
    }

    /// Whether the path itself, and all that lies in it, is included.
    pub(super) fn includes(&self, path: &EntryPath) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(path_of(path)))
    }

    /// Whether the path is taken, also for what lies in some folder: for sources that are not walked from above.
    pub(super) fn takes(&self, path: &EntryPath) -> Taken {
        let mut upwards = std::iter::successors(Some(path.clone()), EntryPath::parent).filter(|at| !at.is_root());
        let mut included = self.include.is_none();
        if upwards.any(|at| {
            included |= self.includes(&at);
            self.excludes(&at)
        }) {
            return Taken::No;
        }
        if included { Taken::Yes } else { Taken::OnTheWay }
    }
}

/// Whether something is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is.
    Yes,
    /// Not by itself; a folder is if something in it is.
    OnTheWay,
    /// It is not, and nothing in it either.
    No,
}

fn glob_set<P: AsRef<str>>(patterns: &[P]) -> Result<GlobSet, SourceError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(glob(pattern.as_ref())?);
    }
    set.build().map_err(|error| SourceError::Pattern {
        pattern: error.glob().unwrap_or_default().to_owned(),
        reason: error.kind().to_string(),
    })
}

fn glob(pattern: &str) -> Result<Glob, SourceError> {
    let bare = pattern.strip_suffix('/').unwrap_or(pattern);
    let anchored = match bare.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if bare.contains('/') => bare.to_owned(),
        None => Path::new("**").join(bare).to_string_lossy().into_owned(),
    };
    GlobBuilder::new(&anchored)
        .literal_separator(true)
        .build()
        .map_err(|error| SourceError::Pattern { pattern: pattern.to_owned(), reason: error.kind().to_string() })
}

/// Takes out the folders that nothing lies in and that `on_the_way` says are only there for what does. `items` are in
/// path order, `path` tells an item's.
pub(super) fn drop_empty_ways<T>(items: &mut Vec<T>, path: impl Fn(&T) -> &EntryPath, on_the_way: impl Fn(&T) -> bool) {
    let mut needed: std::collections::HashSet<EntryPath> = std::collections::HashSet::new();
    let mut keep = vec![true; items.len()];
    // Backwards, so that what lies in a folder comes before it.
    for (item, keep) in items.iter().zip(&mut keep).rev() {
        *keep = !on_the_way(item) || path(item).is_root() || needed.contains(path(item));
        if *keep && let Some(parent) = path(item).parent() {
            needed.insert(parent);
        }
    }
    let mut keep = keep.into_iter();
    items.retain(|_| keep.next().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;

    #[test]
    fn a_path_is_taken_by_its_own_patterns_and_those_of_the_folders_it_lies_in() {
        let taken = |exclude: &[&str], include: &[&str], path: &str| {
            let path = EntryPath::from_bytes(path.as_bytes()).expect("valid");
            Selection::new(exclude, include).expect("patterns").takes(&path)
        };
        assert_eq!(taken(&[], &[], "a/b"), Taken::Yes);
        assert_eq!(taken(&["a"], &[], "a/b"), Taken::No);
        assert_eq!(taken(&["/b"], &[], "a/b"), Taken::Yes);
        assert_eq!(taken(&[], &["*.txt"], "a/b"), Taken::OnTheWay);
        assert_eq!(taken(&[], &["*.txt"], "a/b.txt"), Taken::Yes);
        assert_eq!(taken(&[], &["a/"], "a/b/c"), Taken::Yes);
        assert_eq!(taken(&["c"], &["a/"], "a/b/c"), Taken::No);
        assert_eq!(Selection::new(&["a["], &[]).expect_err("no pattern").code(), "TED-1705");
    }
}
