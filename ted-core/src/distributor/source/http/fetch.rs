//! Fetching what a URL gives into the spool: only if it changed, again after a break, and never believed unjudged.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::super::Progress;
use super::super::spool::{SpoolError, SpoolFile};
use super::client::{Answer, Ask, Client, Validators};
use super::error::DownloadError;
use crate::error::Coded as _;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::model::Sha256;
use crate::store::{DurableFile, sync_folder};

/// What is being fetched.
const PART: &str = "part";

/// What [`PART`] is a part of.
const PART_NOTE: &str = "part.json";

/// What was fetched whole.
const KEPT_NOTE: &str = "kept.json";

/// Bytes of either note.
const NOTE_BYTES_MAX: u64 = 64 << 10;

const BUFFER_BYTES: usize = 1 << 18;

/// The first pause before another attempt; each one after it is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that a server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is fetched, and how.
pub(in crate::distributor) struct UrlOptions {
    pub(in crate::distributor) url: String,
    /// The folder in the spool that is for this URL alone.
    pub(in crate::distributor) folder: PathBuf,
    pub(in crate::distributor) sha256: Option<Sha256>,
    pub(in crate::distributor) size: Option<u64>,
    pub(in crate::distributor) ca: Option<PathBuf>,
    pub(in crate::distributor) limits: Limits,
    pub(in crate::distributor) progress: Progress,
    /// Waits between attempts.
    pub(in crate::distributor) pause: fn(Duration),
    pub(in crate::distributor) now: UnixMillis,
    /// Folders that somebody fetches into.
    pub(in crate::distributor) fetching: Arc<Fetching>,
}

/// Folders that somebody fetches into: one at a time each.
#[derive(Default)]
pub(in crate::distributor) struct Fetching(Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>);

impl Fetching {
    fn of(&self, folder: &Path) -> Arc<Mutex<()>> {
        lock(&self.0).entry(folder.to_owned()).or_default().clone()
    }
}

/// Nothing that these protect is ever half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was fetched whole and is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    url: String,
    validators: Validators,
    pub(super) bytes: u64,
    sha256: String,
    /// When it last changed, as the server says; else when it was fetched. Seconds since 1970.
    pub(super) mtime: i64,
}

impl Kept {
    /// The file that holds it.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.sha256)
    }
}

/// What [`PART`] is a part of.
#[derive(Debug, Serialize, Deserialize)]
struct PartNote {
    url: String,
    validators: Validators,
}

impl UrlOptions {
    /// What the URL gives now: fetched, if it is not what is kept.
    pub(super) fn fetch(&self) -> Result<Kept, DownloadError> {
        let one = self.fetching.of(&self.folder);
        let _one_at_a_time = lock(&one);
        crate::store::create_folders(&self.folder).map_err(|error| self.spooled(io::Error::other(error)))?;
        let kept = self.kept();
        let client = Client::new(&self.url, self.ca.as_deref(), &self.limits)?;
        let mut attempt = 1;
        loop {
            let error = match self.attempt(&client, kept.as_ref()) {
                Ok(kept) => return Ok(kept),
                Err(error) => error,
            };
            if !error.is_retryable() || attempt >= self.limits.download_attempts_max {
                return Err(error);
            }
            let asked = match &error {
                DownloadError::Status { retry_after_s: Some(seconds), .. } => Duration::from_secs(*seconds),
                _ => Duration::ZERO,
            };
            let pause = (PAUSE * 2_u32.saturating_pow(attempt - 1)).max(asked).min(PAUSE_MAX);
            tracing::warn!(url = %self.url, attempt, %error, pause_ms = pause.as_millis(), "fetching it again");
            (self.pause)(pause);
            attempt += 1;
        }
    }

    fn attempt(&self, client: &Client, kept: Option<&Kept>) -> Result<Kept, DownloadError> {
        let part = self.part();
        let validators = part.as_ref().map(|(note, bytes)| (note.validators.clone(), *bytes));
        let ask = match (&validators, kept) {
            (Some((validators, bytes)), _) => validators.strong().map(|strong| Ask::From(*bytes, strong)),
            (None, Some(kept)) => Some(Ask::Changed(&kept.validators)),
            (None, None) => None,
        };
        let answer = client.get(ask.unwrap_or(Ask::Whole))?;
        let status = |status, retry_after_s| DownloadError::Status { url: self.url.clone(), status, retry_after_s };
        match (answer.status, kept, ask) {
            (304, Some(kept), Some(Ask::Changed(_))) => Ok(kept.clone()),
            (200, _, _) => self.take(answer, 0, kept),
            (206, _, Some(Ask::From(bytes, _))) if answer.part.is_some_and(|(begin, _)| begin == bytes) => {
                self.take(answer, bytes, kept)
            }
            (206 | 416, _, Some(Ask::From(..))) => {
                // The part is of no use any more.
                self.forget_part();
                Err(status(416, None))
            }
            (other, _, _) => Err(status(other, answer.retry_after_s)),
        }
    }

    /// Takes the body of `answer` behind the `begin` bytes that are there, and judges the whole.
    fn take(&self, mut answer: Answer, begin: u64, kept: Option<&Kept>) -> Result<Kept, DownloadError> {
        let total = answer.length.map(|length| begin.saturating_add(length));
        self.judge_answer(&answer, total)?;
        let note = PartNote { url: self.url.clone(), validators: answer.validators.clone() };
        if begin == 0 {
            self.forget_part();
            self.write_note(PART_NOTE, &note)?;
        }
        let spool = |source| DownloadError::Spool { url: self.url.clone(), source };
        let path = self.folder.join(PART);
        let mut file = SpoolFile::open(&path, begin > 0, &self.limits).map_err(spool)?;
        file.expect(total.unwrap_or(begin) - begin).map_err(spool)?;
        let shown = total.or(self.size).unwrap_or(0);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match answer.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => file.write(&buffer[..count]).map_err(|source| {
                    if matches!(source, SpoolError::TooLarge { .. }) {
                        self.forget_part();
                    }
                    spool(source)
                })?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(DownloadError::BrokeOff { url: self.url.clone(), bytes: file.bytes(), source });
                }
            }
            (self.progress)(&self.url, file.bytes(), shown);
            // What is too long is not completed either.
            self.judge_size(file.bytes(), false).inspect_err(|_| self.forget_part())?;
        }
        if total.is_some_and(|total| total != file.bytes()) {
            let source = io::ErrorKind::UnexpectedEof.into();
            return Err(DownloadError::BrokeOff { url: self.url.clone(), bytes: file.bytes(), source });
        }
        let bytes = file.bytes();
        let judged = self.judge_size(bytes, true).and_then(|()| {
            let file = file.finish().map_err(spool)?;
            self.judge_hash(&file)
        });
        if judged.is_err() {
            // What is whole and wrong does not become right by being completed.
            self.forget_part();
        }
        self.keep(&path, (judged?, bytes), answer.validators, kept)
    }

    /// Gives what was fetched its name, unless it is what is kept.
    fn keep(
        &self,
        part: &Path,
        (sha256, bytes): (Sha256, u64),
        validators: Validators,
        kept: Option<&Kept>,
    ) -> Result<Kept, DownloadError> {
        let sha256 = sha256.to_string();
        let same = kept.filter(|kept| kept.sha256 == sha256);
        let modified = validators.last_modified.as_deref().and_then(http_time);
        // Content that is the same keeps its time where the server has none to say.
        let mtime = modified.or(same.map(|kept| kept.mtime)).unwrap_or((self.now.millis() / 1000).cast_signed());
        let fetched = Kept { url: self.url.clone(), validators, bytes, sha256, mtime };
        if same.is_none() {
            std::fs::rename(part, fetched.path(&self.folder)).map_err(|error| self.spooled(error))?;
            sync_folder(&self.folder).map_err(|error| self.spooled(io::Error::other(error)))?;
        }
        self.write_note(KEPT_NOTE, &fetched)?;
        self.forget_part();
        self.forget_all_but(&fetched);
        Ok(fetched)
    }

    fn judge_answer(&self, answer: &Answer, total: Option<u64>) -> Result<(), DownloadError> {
        let refuse = |reason| Err(DownloadError::Answer { url: self.url.clone(), reason });
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let packed = [".gz", ".tgz", ".zst"].iter().any(|ending| path.ends_with(ending));
        if answer.encoding.is_some() && !packed {
            return refuse("the server compresses it on the way, unasked");
        }
        if !answer.has_end && self.size.is_none() && self.sha256.is_none() {
            return refuse("nothing tells whether it came whole; give `--source-size` or `--source-sha256`");
        }
        total.map_or(Ok(()), |total| self.judge_size(total, true))
    }

    fn judge_size(&self, found: u64, is_whole: bool) -> Result<(), DownloadError> {
        match self.size {
            Some(expected) if found > expected || (is_whole && found != expected) => {
                Err(DownloadError::Size { url: self.url.clone(), expected, found })
            }
            _ => Ok(()),
        }
    }

    fn judge_hash(&self, file: &File) -> Result<Sha256, DownloadError> {
        let found = sha256(file).map_err(|error| self.spooled(error))?;
        match self.sha256 {
            Some(expected) if expected != found => Err(DownloadError::Hash {
                url: self.url.clone(),
                expected: expected.to_string(),
                found: found.to_string(),
            }),
            _ => Ok(found),
        }
    }

    /// What is kept, if it is there and is what is expected.
    fn kept(&self) -> Option<Kept> {
        let kept: Kept = self.read_note(KEPT_NOTE)?;
        let there = std::fs::metadata(kept.path(&self.folder)).is_ok_and(|metadata| metadata.len() == kept.bytes);
        let expected = self.sha256.is_none_or(|sha256| sha256.to_string() == kept.sha256)
            && self.size.is_none_or(|size| size == kept.bytes);
        (kept.url == self.url && there && expected).then_some(kept)
    }

    /// What is there of what broke off, if it can be completed.
    fn part(&self) -> Option<(PartNote, u64)> {
        let note: PartNote = self.read_note(PART_NOTE)?;
        note.validators.strong()?;
        let bytes = std::fs::metadata(self.folder.join(PART)).ok()?.len();
        (note.url == self.url && bytes > 0).then_some((note, bytes))
    }

    fn forget_part(&self) {
        // The note goes first: without it, nobody takes the part for one.
        let _ = std::fs::remove_file(self.folder.join(PART_NOTE));
        let _ = std::fs::remove_file(self.folder.join(PART));
    }

    /// Removes what was kept before, and what a crash left between giving it its name and noting that.
    fn forget_all_but(&self, kept: &Kept) {
        let Ok(listing) = std::fs::read_dir(&self.folder) else { return };
        for item in listing.flatten() {
            let name = item.file_name();
            let is_content = name.len() == kept.sha256.len() && name != kept.sha256.as_str();
            if is_content {
                // What stays behind is in nobody's way.
                let _ = std::fs::remove_file(item.path());
            }
        }
    }

    fn read_note<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Option<T> {
        // What cannot be read is fetched again.
        let bytes = DurableFile::new(self.folder.join(name)).read(NOTE_BYTES_MAX).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn write_note<T: Serialize>(&self, name: &str, note: &T) -> Result<(), DownloadError> {
        let text = serde_json::to_vec(note).map_err(|error| self.spooled(io::Error::other(error)))?;
        DurableFile::new(self.folder.join(name)).replace(&text).map_err(|error| self.spooled(io::Error::other(error)))
    }

    fn spooled(&self, source: io::Error) -> DownloadError {
        let source = SpoolError::File { path: self.folder.clone(), source };
        DownloadError::Spool { url: self.url.clone(), source }
    }
}

fn sha256(file: &File) -> io::Result<Sha256> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut buffer, mut at) = (vec![0; BUFFER_BYTES], 0);
    loop {
        let count = std::os::unix::fs::FileExt::read_at(file, &mut buffer, at)?;
        if count == 0 {
            break;
        }
        context.update(&buffer[..count]);
        at += count as u64;
    }
    let bytes = context.finish().as_ref().try_into().map_err(io::Error::other)?;
    Ok(Sha256::from_bytes(bytes))
}

/// The seconds since 1970 of a date as HTTP writes it.
fn http_time(text: &str) -> Option<i64> {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822).ok()?;
    Some(time.unix_timestamp())
}
