//! Opening the sources of a Distribution.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::distributor::build::PROGRESS_INTERVAL;
use crate::distributor::events::DistributorEvent;
use crate::distributor::report::{BuildOutcome, Reading};
use crate::distributor::source::{
    FolderSource, Part, Progress, Selection, SourceTree, SpooledInput, TarOptions, TarSource, TarUrlSource, Unreadable,
    UrlOptions, UrlSource, Watched, spool_folder,
};
use crate::distributor::state::{State, lock};
use crate::distributor::{Distributor, DistributorError};
use crate::error::Error;
use crate::limits::Limits;
use crate::model::{Distribution, SourcePlace, SourceSpec, Sources};
use crate::name::Label;
use crate::package::{EntryPath, SkipReason, Skipped, SourceError};

impl State {
    /// All sources of a Distribution as one tree. Nothing is read yet.
    pub(super) fn source_of(&self, distribution: &Distribution) -> Result<SourceTree, Error> {
        let parts = distribution.source.iter().map(|spec| self.part_of(distribution, spec));
        Ok(SourceTree::new(parts.collect::<Result<_, _>>()?))
    }

    fn part_of(&self, distribution: &Distribution, spec: &SourceSpec) -> Result<Part, Error> {
        let refused = |reason| Skipped { path: spec.prefix.clone(), reason: SkipReason::Path(reason) };
        let prefix = EntryPath::from_bytes(spec.prefix.as_bytes())
            .map_err(|error| SourceError::Refused(vec![refused(error)]))?;
        let selection = Selection::new(&distribution.exclude, &distribution.include)?.gitignore(distribution.gitignore);
        let unreadable = if distribution.skip_unreadable { Unreadable::Skip } else { Unreadable::Refuse };
        let source: Box<dyn Watched> = match &spec.place {
            SourcePlace::Folder(path) => {
                Box::new(FolderSource::new(PathBuf::from(path), selection, unreadable).keeping(distribution.keep))
            }
            SourcePlace::Tar(path) => Box::new(TarSource::new(self.tar_options(distribution, PathBuf::from(path))?)),
            SourcePlace::Url(url) => Box::new(UrlSource::new(self.url_options(distribution, spec, url), selection)),
            SourcePlace::TarUrl(url) => {
                let tar = self.tar_options(distribution, PathBuf::new())?;
                Box::new(TarUrlSource::new(self.url_options(distribution, spec, url), tar))
            }
            SourcePlace::Input => return Err(DistributorError::NotFed(distribution.name.clone()).into()),
        };
        Ok(Part { prefix, name: spec.place.to_string(), source })
    }

    fn tar_options(&self, distribution: &Distribution, file: PathBuf) -> Result<TarOptions, Error> {
        let Distribution { exclude, include, skip_unreadable, .. } = distribution;
        let spool = spool_folder(self.data.path());
        // Nobody knows what was fed by the name that it has in the spool.
        let is_fed = file.parent() == Some(&spool);
        Ok(TarOptions {
            place: if is_fed { "standard input".to_owned() } else { file.display().to_string() },
            file,
            spool,
            selection: Selection::new(exclude, include)?,
            unreadable: if *skip_unreadable { Unreadable::Skip } else { Unreadable::Refuse },
            limits: Limits::DEFAULT,
            progress: self.reading_progress(distribution),
            known: self.archives.clone(),
            selected: format!("{exclude:?} {include:?} {skip_unreadable}"),
            now: self.now(),
        })
    }

    fn url_options(&self, distribution: &Distribution, spec: &SourceSpec, url: &str) -> UrlOptions {
        UrlOptions {
            url: url.to_owned(),
            folder: self.spool_of(distribution).join(folder_of(url)),
            sha256: spec.sha256,
            size: spec.size,
            ca: spec.ca.as_ref().map(PathBuf::from),
            limits: Limits::DEFAULT,
            progress: self.reading_progress(distribution),
            pause: std::thread::sleep,
            now: self.now(),
            fetching: self.fetching.clone(),
        }
    }

    /// Where what is fetched for a Distribution is kept.
    fn spool_of(&self, distribution: &Distribution) -> PathBuf {
        spool_folder(self.data.path()).join(distribution.id.to_string())
    }

    /// Removes what was fetched for a Distribution from where it is not fetched any more.
    pub(super) fn tidy_spool(&self, distribution: &Distribution) {
        let needed: Vec<_> = distribution.source.iter().filter_map(|spec| spec.place.url()).map(folder_of).collect();
        let Ok(listing) = std::fs::read_dir(self.spool_of(distribution)) else { return };
        for item in listing.flatten() {
            if !needed.iter().any(|folder| item.file_name() == folder.as_str()) {
                // What stays behind is in nobody's way, and removed the next time.
                let _ = std::fs::remove_dir_all(item.path());
            }
        }
        if needed.is_empty() {
            let _ = std::fs::remove_dir(self.spool_of(distribution));
        }
    }

    /// Removes all that was fetched for a Distribution.
    pub(super) fn forget_fetched(&self, distribution: &Distribution) {
        let _ = std::fs::remove_dir_all(self.spool_of(distribution));
    }

    /// Tells, now and then, how far the reading of a source is.
    fn reading_progress(&self, distribution: &Distribution) -> Progress {
        let (name, events) = (distribution.name.clone(), self.events.clone());
        let said = Mutex::new(None::<Instant>);
        Arc::new(move |source, bytes, bytes_total| {
            let mut said = lock(&said);
            if bytes >= bytes_total || said.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
                *said = Some(Instant::now());
                let (distribution, source) = (name.clone(), source.to_owned());
                events.emit(DistributorEvent::ReadingSource { distribution, source, bytes, bytes_total });
            }
        })
    }

    /// Builds what was fed, once.
    async fn build_fed(self: &Arc<Self>, name: &Label, input: &str) -> Result<BuildOutcome, Error> {
        let _one_at_a_time = self.building.lock().await;
        let mut distribution = lock(&self.fleet).distribution(name)?.clone();
        if !distribution.source.is_input() {
            return Err(DistributorError::NotToBeFed(name.clone()).into());
        }
        let input = SpooledInput::find(self.data.path(), input)?;
        let fed = SourcePlace::Tar(input.path().to_string_lossy().into_owned());
        distribution.source = Sources::new(vec![SourceSpec { place: fed, ..SourceSpec::parse("-") }]);
        let built = match self.mend_from(distribution.clone()).await {
            Ok(()) => self.build_distribution(distribution, Reading::Everything).await,
            Err(error) => Err(error),
        };
        drop(input);
        built
    }

    /// Makes the own copy good out of what was fed: at another time there is nothing to make it from.
    async fn mend_from(self: &Arc<Self>, fed: Distribution) -> Result<(), Error> {
        let state = self.clone();
        let mending = move || state.make_sure_now(&fed).map(drop);
        tokio::task::spawn_blocking(mending).await.map_err(|_| DistributorError::Worker)?
    }
}

/// The name of the folder for what a URL gives.
fn folder_of(url: &str) -> String {
    blake3::hash(url.as_bytes()).to_hex()[..32].to_owned()
}

impl Distributor {
    /// Builds a Distribution whose source is `-` from the tar file that [`spool_input`](super::spool_input) took into
    /// the spool under this name, which is then removed.
    ///
    /// # Errors
    /// When the Distribution has other sources, or as [`Distributor::build`].
    pub async fn build_input(&self, name: &Label, input: &str) -> Result<BuildOutcome, Error> {
        self.state.build_fed(name, input).await
    }
}
