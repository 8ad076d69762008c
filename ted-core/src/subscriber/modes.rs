//! In which mode a Distribution is extracted, and what that asks of its target: the Subscriber has the last word.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::extract::{Contents, Create, ExtractJob, ExtractOptions, OnLocalChange, Preview, Recovery, Target, preview};
use crate::id::KeyHash;
use crate::model::ExtractMode;
use crate::package::CatalogRow;

use crate::subscriber::error::SubscriberError;
use crate::subscriber::held::Held;
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::report::PreviewRow;
use crate::subscriber::state::{Key, State};

/// What becomes of files that somebody changed in a target, when a revision has another in their place or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalChanges {
    /// They are overwritten or deleted, and reported.
    #[default]
    Overwrite,
    /// They are reported, and kept beside as `NAME.local-<time>`.
    Keep,
}

impl State {
    /// The mode in which a Distribution is extracted: what this node's operator says, else what its statement says.
    pub(super) fn mode_of(&self, fleet: &KeyHash, held: &Held) -> ExtractMode {
        let modes = &self.settings.targets.modes;
        let full = DistributionRef::new(Some(self.distributor_name(fleet)), held.name.clone());
        let said = modes.get(&full).or_else(|| modes.get(&DistributionRef::from(held.name.clone())));
        said.copied().unwrap_or(held.proposed_mode)
    }

    /// How a Distribution is extracted to `target`.
    ///
    /// # Errors
    /// [`SubscriberError::TargetUnfit`] where its mode would delete what is not its own to delete.
    pub(super) fn extract_options(&self, key: &Key, held: &Held, target: &Path) -> Result<ExtractOptions, Error> {
        let mode = self.mode_of(&key.0, held);
        self.judge_target(key, held, target, mode)?;
        let (ownership, privilege) = self.permitted(&key.0, &held.name);
        Ok(ExtractOptions {
            mode,
            ownership,
            privilege,
            on_local_change: match self.settings.local_changes {
                LocalChanges::Overwrite => OnLocalChange::Overwrite,
                LocalChanges::Keep => OnLocalChange::Keep { at: self.clock.now() },
            },
            links: self.settings.links,
            threads: self.settings.threads.map_or(0, usize::from),
            ..ExtractOptions::default()
        })
    }

    /// A sync deletes whatever else lies in its target, and releases have a link there that only one Distribution can
    /// own: so what lies there may be neither another Distribution's nor this node's own.
    fn judge_target(&self, key: &Key, held: &Held, target: &Path, mode: ExtractMode) -> Result<(), Error> {
        let unfit = |reason: String| -> Result<(), Error> {
            let distribution = held.name.to_string();
            Err(SubscriberError::TargetUnfit { distribution, target: target.to_owned(), mode, reason }.into())
        };
        let data = self.data.path();
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        if mode == ExtractMode::Sync && data.starts_with(target) {
            return unfit("this node's data directory lies in it".to_owned());
        }
        if mode == ExtractMode::Merge {
            return Ok(());
        }
        for (other, of_other) in self.all_held()?.into_iter().filter(|(other, _)| other != key) {
            let Ok((theirs, _)) = self.target_of(&other.0, &of_other) else { continue };
            let shared = match mode {
                ExtractMode::Sync => theirs.starts_with(target),
                _ => theirs == target && self.mode_of(&other.0, &of_other) == ExtractMode::Release,
            };
            if shared {
                let name = DistributionRef::new(Some(self.distributor_name(&other.0)), of_other.name.clone());
                return unfit(format!("{name} goes to {}", theirs.display()));
            }
        }
        Ok(())
    }

    /// Says what extracting would do, of one Distribution or of all, and writes nothing.
    pub(super) fn preview_named(self: &Arc<Self>, name: Option<&DistributionRef>) -> Result<Vec<PreviewRow>, Error> {
        self.meant(name)?.into_iter().map(|(key, _)| self.preview(key)).collect()
    }

    fn preview(&self, key: Key) -> Result<PreviewRow, Error> {
        let (fleet, distribution) = key;
        let held = self.held(&fleet, &distribution)?;
        let held = held.ok_or_else(|| match self.aside(&key) {
            Ok(Some(aside)) => Error::from(aside.error()),
            Ok(None) => SubscriberError::NothingToExtract(self.known_label(&fleet, &distribution).to_string()).into(),
            Err(error) => error,
        })?;
        let (path, _) = self.target_of(&fleet, &held)?;
        let mode = self.mode_of(&fleet, &held);
        let told = match self.extract_options(&key, &held, &path) {
            Ok(options) => self.compare_with_target(key, &held, &path, &options)?,
            // What forbids the whole is told as what forbids an entry is.
            Err(error) => Preview { refused: vec![(error.code(), error.to_string())], ..Preview::default() },
        };
        Ok(PreviewRow {
            distributor: self.distributor_name(&fleet),
            distribution: held.name,
            revision: held.revision,
            target: path,
            mode,
            preview: told,
        })
    }

    fn compare_with_target(
        &self,
        key: Key,
        held: &Held,
        path: &Path,
        options: &ExtractOptions,
    ) -> Result<Preview, Error> {
        let distribution = held.name.to_string();
        let entries = self.entries_of(&key, held.revision)?;
        let entries = entries.ok_or(SubscriberError::NothingToExtract(distribution))?;
        let rows: Vec<CatalogRow> = entries.into_iter().map(|entry| CatalogRow { entry, offset: 0 }).collect();
        let stood = self.extracted(&key.0, &key.1)?.filter(|stood| stood.stands_for(path, options.mode));
        let previous = stood.and_then(|stood| self.kept_entries(&stood));
        let job = ExtractJob {
            rows: &rows,
            contents: Contents::None,
            previous: previous.as_deref(),
            distribution: key.1,
            revision: held.revision,
            options,
            recovered: Recovery::Nothing,
        };
        Ok(preview(&Target::open(path, Create::Missing)?, &job)?)
    }
}
