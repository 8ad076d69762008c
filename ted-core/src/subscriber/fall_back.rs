//! When deltas are of no use after all: the baseline is taken instead, unasked, and everybody is told.

use std::sync::Arc;

use crate::error::Error;
use crate::extract::{Create, Target, TargetFiles};
use crate::id::Revision;
use crate::limits::Limits;
use crate::package::delta::{DeltaError, DeltaIndex};
use crate::package::{EntryPath, PackageError};
use crate::security::{Carried, PackageRef, ReleaseStatement};
use crate::subscriber::error::SubscriberError;
use crate::subscriber::events::SubscriberEvent;
use crate::subscriber::held::Held;
use crate::subscriber::state::{Key, State, lock};

impl State {
    /// Why a delta whose index has just come would be fetched in vain; `None` where it would not, at first sight: its
    /// catalog fits the entries that are here, and the files that it reads look as they were extracted, or own packages
    /// have them.
    pub(super) fn missing_base(&self, key: &Key, delta: &DeltaIndex) -> Result<Option<Error>, Error> {
        let base = delta.base_revision();
        let entries = match self.entries_of(key, base) {
            Ok(Some(entries)) => entries,
            Ok(None) => return Ok(Some(SubscriberError::NoBase(base).into())),
            Err(error) if error.is_retryable() => return Err(error),
            // What is kept is damaged: whatever it is, the baseline does without it.
            Err(error) => return Ok(Some(error)),
        };
        let resolved = match delta.resolve(&entries, &Limits::DEFAULT) {
            Ok(resolved) => resolved,
            Err(error) => return Ok(Some(error.into())),
        };
        let own = self.noted_held(key)?.filter(Held::has_baseline);
        if let Some(held) = own
            && self.lacks(&held)?.is_none()
            && held.packages.iter().any(|package| package.revision == base)
        {
            return Ok(None);
        }
        // Of a revision that was only passed through, nothing stands in the target that could be looked at.
        let Some(extracted) = self.extracted(&key.0, &key.1)?.filter(|extracted| extracted.revision == base) else {
            return Ok(None);
        };
        let gone = |path: &EntryPath| {
            let source = std::io::Error::other("it was changed or removed in the target, and no package has it");
            Some(Error::from(DeltaError::OldFile { path: path.clone(), source }))
        };
        let target = Target::open(&extracted.files(), Create::Missing)?;
        let Some(files) = TargetFiles::open(&target, &entries, &Limits::DEFAULT)? else {
            return Ok(gone(&EntryPath::root()));
        };
        let mut read = resolved.contents.iter().flat_map(|content| resolved.old_files(delta, content));
        Ok(read.find(|file| !files.looks_right(*file)).and_then(|file| gone(&entries[file].path)))
    }

    /// Notes, durably, that the baseline is taken, and says why.
    pub(super) fn say_fall_back(&self, key: Key, revision: Revision, error: &Error) {
        let (code, reason) = (error.code(), error.to_string());
        let distribution = self.known_label(&key.0, &key.1);
        tracing::warn!(%distribution, %revision, code, reason, "deltas are of no use here; the baseline is taken");
        if let Err(error) = self.note_fall_back(&key, revision, error) {
            tracing::error!(code = error.code(), %error, "it cannot be noted that the baseline is to be taken");
        }
        // The status says it for as long as it is so, and in its own words.
        self.note(key, |standing| standing.trouble = None);
        let code = code.to_owned();
        self.events.emit(SubscriberEvent::FellBack { distribution, revision, code, reason });
    }

    /// Says that the baseline is taken because the target is gone, where a delta goes from what stood in it: no delta was
    /// begun that could have said so.
    pub(super) fn say_target_gone(&self, key: Key, statement: &ReleaseStatement) -> Result<(), Error> {
        let Some(stood) = self.extracted(&key.0, &key.1)?.filter(|stood| !stood.files().is_dir()) else {
            return Ok(());
        };
        let goes_on = |package: &PackageRef| match package.carried {
            Carried::Delta { base, .. } => base == stood.revision,
            Carried::Baseline { .. } => false,
        };
        let offered = statement.packages.iter().any(goes_on);
        if offered && self.fall_back_of(&key)?.is_none() && self.starts(&key)?.is_empty() {
            self.say_fall_back(key, statement.revision, &SubscriberError::NoBase(stood.revision).into());
        }
        Ok(())
    }

    /// A revision that is verified leads to no files: the baseline of the statement that is in force is received at
    /// once, where there is one; else the next offer brings it. The error says so.
    pub(super) fn fall_back(self: &Arc<Self>, key: Key, held: &Held, error: &Error) -> Error {
        self.say_fall_back(key, held.revision, error);
        let begun = self.begin_fall_back(key, held.revision);
        if let Err(error) = begun {
            tracing::warn!(code = error.code(), %error, "the baseline is taken with the next offer");
        }
        let (distribution, reason) = (held.name.to_string(), format!("{}: {error}", error.code()));
        SubscriberError::FallsBack { distribution, revision: held.revision, reason }.into()
    }

    fn begin_fall_back(self: &Arc<Self>, key: Key, revision: Revision) -> Result<(), Error> {
        let Some(firing) = self.last_firing(&key)? else { return Ok(()) };
        let statement = lock(&self.statements).get(&key).filter(|stated| stated.revision >= revision).cloned();
        let Some(statement) = statement else { return Ok(()) };
        let action = {
            let mut deliveries = lock(&self.deliveries);
            deliveries.get_mut(&key).and_then(|delivery| delivery.fall_back(firing, &statement))
        };
        self.carry_out(key.0, key.1, action.into_iter().collect())
    }
}

/// Whether an error says that a revision cannot be made from what is here, so that a baseline helps.
pub(super) fn is_of_base(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        match inner.downcast_ref::<DeltaError>() {
            Some(DeltaError::Write { .. }) => return false,
            Some(_) => return true,
            None => {}
        }
        if let Some(error) = inner.downcast_ref::<PackageError>() {
            return crate::package::is_damage(error) || matches!(error, PackageError::Sealed | PackageError::WrongKey);
        }
        if let Some(error) = inner.downcast_ref::<crate::extract::ExtractError>()
            && matches!(error, crate::extract::ExtractError::Content { .. })
        {
            return true;
        }
        if let Some(error) = inner.downcast_ref::<SubscriberError>() {
            return matches!(error, SubscriberError::GrantGone(_) | SubscriberError::NoBase(_));
        }
        if let Some(crate::store::DepotError::NotFound { .. }) = inner.downcast_ref::<crate::store::DepotError>() {
            return true;
        }
        cause = inner.source();
    }
    false
}
