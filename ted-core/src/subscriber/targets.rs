//! Where a Distribution is extracted: the Subscriber has the last word.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{ExtractMode, Settings};
use crate::name::{Label, NodeName};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::reference::DistributionRef;

/// The Subscriber's own rules about targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Distribution to directory. It wins over everything.
    pub map: BTreeMap<DistributionRef, PathBuf>,
    /// Directories below which a proposed target is accepted; none by default.
    pub allow: Vec<PathBuf>,
    /// Distribution to mode. It wins over what the Distribution says.
    pub modes: BTreeMap<DistributionRef, ExtractMode>,
}

/// Why a Distribution goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetRule {
    /// The configuration says so.
    Configured,
    /// The operator said so, with [`Subscriber::set_target`](crate::Subscriber::set_target).
    Set,
    /// The Distribution proposes it, and it is allowed.
    Proposed,
    /// Nobody says anything: `<data>/files/<distribution>`.
    Default,
}

/// What stands for the variables of a proposed target.
pub(super) struct Variables<'a> {
    pub(super) node: &'a NodeName,
    pub(super) distribution: &'a Label,
    pub(super) distributor: &'a NodeName,
    /// Variables of this node's own configuration, which win over the predefined ones.
    pub(super) own: &'a Settings,
    /// Variables that the Distributor set.
    pub(super) given: &'a Settings,
}

impl Targets {
    /// The directory for a Distribution: that of the configured map; else that of `set`; else the proposed one where it
    /// is allowed; else `<files>/<distribution>`. A reference with its Distributor goes before one without.
    ///
    /// Symbolic links above a directory that this node's operator named are resolved here; what a Distributor proposes
    /// leads through none but those of the allowed directory's own path.
    pub(super) fn resolve(
        &self,
        set: &BTreeMap<DistributionRef, PathBuf>,
        proposed: Option<&str>,
        variables: &Variables<'_>,
        files: &Path,
    ) -> Result<(PathBuf, TargetRule), SubscriberError> {
        for (map, rule) in [(&self.map, TargetRule::Configured), (set, TargetRule::Set)] {
            if let Some(target) = named(map, variables) {
                let target = checked(target, &target.to_string_lossy())?;
                return Ok((resolved_above(&target), rule));
            }
        }
        let Some(proposed) = proposed else {
            let files = files.canonicalize().unwrap_or_else(|_| resolved_above(files));
            return Ok((files.join(variables.distribution.as_str()), TargetRule::Default));
        };
        let target = checked(Path::new(&expand(proposed, variables)?), proposed)?;
        for allowed in &self.allow {
            match target.strip_prefix(allowed) {
                Ok(below) if below != Path::new("") => {
                    let allowed = allowed.canonicalize().unwrap_or_else(|_| resolved_above(allowed));
                    return Ok((allowed.join(below), TargetRule::Proposed));
                }
                _ => {}
            }
        }
        Err(SubscriberError::TargetNotAllowed { distribution: variables.distribution.to_string(), target })
    }
}

fn named<'a>(map: &'a BTreeMap<DistributionRef, PathBuf>, variables: &Variables<'_>) -> Option<&'a PathBuf> {
    let full = DistributionRef::new(Some(variables.distributor.clone()), variables.distribution.clone());
    map.get(&full).or_else(|| map.get(&DistributionRef::from(variables.distribution.clone())))
}

/// `path` with the symbolic links above its last component resolved, as far as there is anything to resolve.
fn resolved_above(path: &Path) -> PathBuf {
    let above = path.parent().into_iter().flat_map(Path::ancestors);
    for above in above {
        if let (Ok(real), Ok(below)) = (above.canonicalize(), path.strip_prefix(above)) {
            return real.join(below);
        }
    }
    path.to_owned()
}

/// Whether a target that the operator gives can be one at all.
pub(super) fn check_target(target: &Path) -> Result<PathBuf, SubscriberError> {
    checked(target, &target.to_string_lossy())
}

fn checked(target: &Path, given: &str) -> Result<PathBuf, SubscriberError> {
    let bad = |reason: &str| Err(SubscriberError::BadTarget { target: given.to_owned(), reason: reason.to_owned() });
    if !target.is_absolute() {
        return bad("it is not absolute");
    }
    if target.components().any(|part| matches!(part, Component::ParentDir)) {
        return bad("it holds `..`");
    }
    if target.parent().is_none() {
        return bad("it is the root of the file system");
    }
    Ok(target.components().collect())
}

fn variable<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    settings.variables().find(|(known, _)| known.as_str() == name).map(|(_, value)| value)
}

/// Replaces `%NAME%`; an unknown name is an error, and `%%` a percent sign.
fn expand(text: &str, variables: &Variables<'_>) -> Result<String, SubscriberError> {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    while let Some(name) = parts.next() {
        let bad = |reason: String| SubscriberError::BadTarget { target: text.to_owned(), reason };
        let rest = parts.next().ok_or_else(|| bad("a % has no partner".to_owned()))?;
        match name {
            "" => out.push('%'),
            own if variable(variables.own, own).is_some() => {
                out.push_str(variable(variables.own, own).unwrap_or_default());
            }
            "NODE_NAME" => out.push_str(&variables.node.file_stem()),
            "DISTRIBUTION" => out.push_str(variables.distribution.as_str()),
            "DISTRIBUTOR" => out.push_str(&variables.distributor.file_stem()),
            given if variable(variables.given, given).is_some() => {
                out.push_str(variable(variables.given, given).unwrap_or_default());
            }
            unknown => return Err(bad(format!("the variable %{unknown}% is not known"))),
        }
        out.push_str(rest);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;

    fn resolve_all(
        targets: &Targets,
        set: &[(&str, &str)],
        proposed: Option<&str>,
    ) -> Result<(PathBuf, TargetRule), &'static str> {
        let (node, distributor) = ("shop.example".parse().expect("valid"), "dist.example".parse().expect("valid"));
        let distribution = "site".parse().expect("valid");
        let none = Settings::default();
        let variables =
            Variables { node: &node, distribution: &distribution, distributor: &distributor, own: &none, given: &none };
        let set = set.iter().map(|(name, path)| (name.parse().expect("valid"), PathBuf::from(path))).collect();
        targets.resolve(&set, proposed, &variables, Path::new("/nowhere/files")).map_err(|error| error.code())
    }

    fn resolve(targets: &Targets, proposed: Option<&str>) -> Result<PathBuf, &'static str> {
        resolve_all(targets, &[], proposed).map(|(path, _)| path)
    }

    fn allowing(folder: &str) -> Targets {
        Targets { allow: vec![folder.into()], ..Targets::default() }
    }

    #[test]
    fn the_subscribers_own_word_wins() {
        let map = [("site".parse().expect("valid"), "/nowhere/own".into())].into();
        let targets = Targets { map, allow: vec!["/nowhere".into()], ..Targets::default() };
        let proposed = Some("/nowhere/theirs");
        let site = [("site", "/nowhere/set")];
        let both = [("site", "/nowhere/set"), ("dist.example/site", "/nowhere/full")];
        let other = [("docs", "/nowhere/set"), ("b.example/site", "/nowhere/set")];
        let plain = allowing("/nowhere");
        for (targets, set, proposed, place, rule) in [
            (&targets, &site[..], proposed, "/nowhere/own", TargetRule::Configured),
            (&plain, &site, proposed, "/nowhere/set", TargetRule::Set),
            (&plain, &both, proposed, "/nowhere/full", TargetRule::Set),
            (&plain, &other, proposed, "/nowhere/theirs", TargetRule::Proposed),
            (&plain, &[], None, "/nowhere/files/site", TargetRule::Default),
        ] {
            assert_eq!(resolve_all(targets, set, proposed), Ok((place.into(), rule)));
        }
    }

    #[test]
    fn links_above_an_operators_directory_are_resolved_and_others_are_not() {
        let temp = tempfile::tempdir().expect("a folder");
        let top = temp.path().canonicalize().expect("there");
        std::fs::create_dir_all(top.join("disk/inner")).expect("made");
        std::os::unix::fs::symlink(top.join("disk"), top.join("link")).expect("made");
        std::os::unix::fs::symlink(top.join("disk"), top.join("disk/inner/out")).expect("made");
        let own = |below: &str| {
            let map = [("site".parse().expect("valid"), top.join(below))].into();
            resolve(&Targets { map, ..Targets::default() }, None)
        };
        assert_eq!(own("link/site"), Ok(top.join("disk/site")));
        assert_eq!(own("link/new/site"), Ok(top.join("disk/new/site")));
        assert_eq!(own("link"), Ok(top.join("link")), "the directory itself is never a link");
        let allowed = Targets { allow: vec![top.join("link/inner")], ..Targets::default() };
        let proposed = top.join("link/inner/out/site");
        let found = resolve(&allowed, proposed.to_str());
        assert_eq!(
            found,
            Ok(top.join("disk/inner/out/site")),
            "the link inside stays, and is refused when it is opened"
        );
    }

    #[test]
    fn a_proposed_target_counts_only_below_an_allowed_directory() {
        assert_eq!(resolve(&Targets::default(), Some("/nowhere/www")), Err("TED-1858"));
        assert_eq!(resolve(&allowing("/nowhere"), Some("/nowhere/www")), Ok("/nowhere/www".into()));
        for outside in ["/nowhere", "/nowherex/www", "/etc", "/nowhere/../etc", "nowhere/www", "/"] {
            assert!(resolve(&allowing("/nowhere"), Some(outside)).is_err(), "{outside}");
        }
    }

    #[test]
    fn variables_are_replaced_and_unknown_ones_refused() {
        let allowed = allowing("/nowhere");
        assert_eq!(
            resolve(&allowed, Some("/nowhere/%NODE_NAME%/%DISTRIBUTION%")),
            Ok("/nowhere/shop.example/site".into())
        );
        assert_eq!(resolve(&allowed, Some("/nowhere/100%%")), Ok("/nowhere/100%".into()));
        assert_eq!(resolve(&allowed, Some("/nowhere/%HOME%")), Err("TED-1859"));
        assert_eq!(resolve(&allowed, Some("/nowhere/%HOME")), Err("TED-1859"));
    }
}
