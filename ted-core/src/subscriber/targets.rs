//! Where a Distribution is extracted: the Subscriber has the last word.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::name::{Label, NodeName};
use crate::subscriber::error::SubscriberError;

/// The Subscriber's own rules about targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Distribution to directory. It wins over everything.
    pub map: BTreeMap<Label, PathBuf>,
    /// Directories below which a proposed target is accepted; none by default.
    pub allow: Vec<PathBuf>,
}

/// What stands for the variables of a proposed target.
pub(super) struct Variables<'a> {
    pub(super) node: &'a NodeName,
    pub(super) distribution: &'a Label,
    pub(super) distributor: &'a NodeName,
}

impl Targets {
    /// The directory for `distribution`: the map's; else the proposed one where it is allowed; else
    /// `<files>/<distribution>`.
    pub(super) fn resolve(
        &self,
        proposed: Option<&str>,
        variables: &Variables<'_>,
        files: &Path,
    ) -> Result<PathBuf, SubscriberError> {
        if let Some(target) = self.map.get(variables.distribution) {
            return checked(target, &target.to_string_lossy());
        }
        let Some(proposed) = proposed else {
            return Ok(files.join(variables.distribution.as_str()));
        };
        let target = checked(Path::new(&expand(proposed, variables)?), proposed)?;
        if self.allow.iter().any(|allowed| target.starts_with(allowed) && target != *allowed) {
            return Ok(target);
        }
        Err(SubscriberError::TargetNotAllowed { distribution: variables.distribution.to_string(), target })
    }
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

/// Replaces `%NAME%`; an unknown name is an error, and `%%` a percent sign.
fn expand(text: &str, variables: &Variables<'_>) -> Result<String, SubscriberError> {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    while let Some(name) = parts.next() {
        let bad = |reason: String| SubscriberError::BadTarget { target: text.to_owned(), reason };
        let rest = parts.next().ok_or_else(|| bad("a % has no partner".to_owned()))?;
        match name {
            "" => out.push('%'),
            "NODE_NAME" => out.push_str(&variables.node.file_stem()),
            "DISTRIBUTION" => out.push_str(variables.distribution.as_str()),
            "DISTRIBUTOR" => out.push_str(&variables.distributor.file_stem()),
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

    fn resolve(targets: &Targets, proposed: Option<&str>) -> Result<PathBuf, &'static str> {
        let (node, distributor) = ("shop.example".parse().expect("valid"), "dist.example".parse().expect("valid"));
        let distribution = "site".parse().expect("valid");
        let variables = Variables { node: &node, distribution: &distribution, distributor: &distributor };
        targets.resolve(proposed, &variables, Path::new("/data/files")).map_err(|error| error.code())
    }

    fn allowing(folder: &str) -> Targets {
        Targets { allow: vec![folder.into()], ..Targets::default() }
    }

    #[test]
    fn the_subscribers_own_map_wins() {
        let map = [("site".parse().expect("valid"), "/srv/own".into())].into();
        let targets = Targets { map, allow: vec!["/srv".into()] };
        assert_eq!(resolve(&targets, Some("/srv/theirs")), Ok("/srv/own".into()));
        assert_eq!(resolve(&Targets::default(), None), Ok("/data/files/site".into()));
    }

    #[test]
    fn a_proposed_target_counts_only_below_an_allowed_directory() {
        assert_eq!(resolve(&Targets::default(), Some("/srv/www")), Err("TED-1858"));
        assert_eq!(resolve(&allowing("/srv"), Some("/srv/www")), Ok("/srv/www".into()));
        for outside in ["/srv", "/srvx/www", "/etc", "/srv/../etc", "srv/www", "/"] {
            assert!(resolve(&allowing("/srv"), Some(outside)).is_err(), "{outside}");
        }
    }

    #[test]
    fn variables_are_replaced_and_unknown_ones_refused() {
        let allowed = allowing("/srv");
        assert_eq!(resolve(&allowed, Some("/srv/%NODE_NAME%/%DISTRIBUTION%")), Ok("/srv/shop.example/site".into()));
        assert_eq!(resolve(&allowed, Some("/srv/100%%")), Ok("/srv/100%".into()));
        assert_eq!(resolve(&allowed, Some("/srv/%HOME%")), Err("TED-1859"));
        assert_eq!(resolve(&allowed, Some("/srv/%HOME")), Err("TED-1859"));
    }
}
