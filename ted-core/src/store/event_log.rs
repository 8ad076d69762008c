//! What happened at a node, kept in `events/`: lines of JSON in files that follow one another, of which the oldest go.
//!
//! A file is named by the number of its first event and holds one object a line: `{"number":…,"at":…,"event":{…}}`, with
//! numbers that only grow and times in Unix milliseconds. A line that a crash tore is cut off when the log is opened.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Coded;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::store::{FileError, create_folders, sync_folder};

/// Why events could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// A file of the log could not be made, written or read.
    #[error("events cannot be kept in {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The log's folder cannot be made or kept.
    #[error("events cannot be kept")]
    Folder(#[from] FileError),
}

impl Coded for EventLogError {
    fn code(&self) -> &'static str {
        "TED-1346"
    }
}

/// One event as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// Its place among all events of this node: it only grows.
    pub number: u64,
    /// When it happened.
    pub at: UnixMillis,
    /// What happened: an object whose `event` says which.
    pub event: Value,
}

/// The log of one node. One process writes it, which the data directory's lock sees to.
#[derive(Debug)]
pub struct EventLog {
    folder: PathBuf,
    file_bytes_max: u64,
    files_max: usize,
    writing: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    file: File,
    path: PathBuf,
    bytes: u64,
    next: u64,
    is_unsynced: bool,
}

impl EventLog {
    /// Opens the log in `folder`, or begins one there.
    ///
    /// # Errors
    /// [`EventLogError`].
    pub fn open(folder: &Path, limits: &Limits) -> Result<Self, EventLogError> {
        create_folders(folder)?;
        let (first, path) = match files_of(folder)?.pop() {
            Some(last) => last,
            None => (1, folder.join(file_name(1))),
        };
        let (bytes, next) = whole_lines(&path, first)?;
        let file = append_to(&path)?;
        file.set_len(bytes).map_err(failed(&path))?;
        let writing = Writing { file, path, bytes, next, is_unsynced: false };
        Ok(Self {
            folder: folder.to_owned(),
            file_bytes_max: limits.event_file_bytes_max,
            files_max: limits.event_files_max,
            writing: Mutex::new(writing),
        })
    }

    /// Appends an event and answers its number. A crash of the process takes nothing of it back; one of the machine may,
    /// until [`EventLog::sync`].
    ///
    /// # Errors
    /// [`EventLogError`]; the event is then not kept.
    pub fn append(&self, at: UnixMillis, event: &Value) -> Result<u64, EventLogError> {
        let mut writing = self.writing();
        if writing.bytes >= self.file_bytes_max {
            self.begin_next(&mut writing)?;
        }
        let number = writing.next;
        let line = serde_json::json!({ "number": number, "at": at, "event": event });
        let line = format!("{line}\n");
        if let Err(source) = writing.file.write_all(line.as_bytes()) {
            // Half a line may be there. What follows it must not be taken for its end.
            let _ = writing.file.set_len(writing.bytes);
            return Err(EventLogError::File { path: writing.path.clone(), source });
        }
        writing.bytes += line.len() as u64;
        writing.next += 1;
        writing.is_unsynced = true;
        Ok(number)
    }

    /// Makes durable what was appended. Blocks on the disk, while others go on appending.
    ///
    /// # Errors
    /// [`EventLogError`].
    pub fn sync(&self) -> Result<(), EventLogError> {
        let (file, path) = {
            let mut writing = self.writing();
            if !std::mem::take(&mut writing.is_unsynced) {
                return Ok(());
            }
            (writing.file.try_clone().map_err(failed(&writing.path))?, writing.path.clone())
        };
        file.sync_data().map_err(failed(&path))
    }

    /// The number of the last event; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.writing().next - 1
    }

    /// The newest `count` events with a number above `after` that `wanted` chooses, the oldest of them first. Files are
    /// read from the newest back, and no further than needed.
    ///
    /// # Errors
    /// [`EventLogError`].
    pub fn newest(
        &self,
        after: u64,
        count: usize,
        mut wanted: impl FnMut(&LoggedEvent) -> bool,
    ) -> Result<Vec<LoggedEvent>, EventLogError> {
        let mut found = Vec::new();
        for (first, path) in files_of(&self.folder)?.into_iter().rev() {
            let mut of_file = read_lines(&path, after, &mut wanted)?;
            of_file.extend(found);
            found = of_file;
            if found.len() >= count || first <= after + 1 {
                break;
            }
        }
        let surplus = found.len().saturating_sub(count);
        found.drain(..surplus);
        Ok(found)
    }

    fn begin_next(&self, writing: &mut Writing) -> Result<(), EventLogError> {
        writing.file.sync_data().map_err(failed(&writing.path))?;
        let path = self.folder.join(file_name(writing.next));
        writing.file = append_to(&path)?;
        (writing.path, writing.bytes) = (path, 0);
        let mut files = files_of(&self.folder)?;
        let surplus = files.len().saturating_sub(self.files_max);
        for (_, path) in files.drain(..surplus) {
            std::fs::remove_file(&path).map_err(failed(&path))?;
        }
        Ok(sync_folder(&self.folder)?)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        // What stands in it is right after every step, so a poisoned lock is as good as any.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file_name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// The log's files with the numbers of their first events, in their order.
fn files_of(folder: &Path) -> Result<Vec<(u64, PathBuf)>, EventLogError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(first) = name.and_then(|name| name.parse().ok()) {
            files.push((first, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// How many bytes of whole lines a file begins with, and the number that comes next.
fn whole_lines(path: &Path, first: u64) -> Result<(u64, u64), EventLogError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, first)),
        Err(error) => return Err(failed(path)(error)),
    };
    let (mut reader, mut line) = (BufReader::new(file), Vec::new());
    let (mut bytes, mut next) = (0, first);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(failed(path))?;
        if !line.ends_with(b"\n") {
            return Ok((bytes, next));
        }
        bytes += read as u64;
        // A line that rotted takes none of those after it along, and no number is given a second time.
        next = number_of(&line).map_or(next, |number| next.max(number.saturating_add(1)));
    }
}

fn read_lines(
    path: &Path,
    after: u64,
    wanted: &mut impl FnMut(&LoggedEvent) -> bool,
) -> Result<Vec<LoggedEvent>, EventLogError> {
    let file = match File::open(path) {
        Ok(file) => file,
        // It was the oldest one, and has just gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed(path)(error)),
    };
    let (mut reader, mut line, mut found) = (BufReader::new(file), Vec::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(failed(path))? == 0 {
            return Ok(found);
        }
        if number_of(&line).is_none_or(|number| number <= after) {
            continue;
        }
        // The last line may be half there while it is being written.
        if let Ok(event) = serde_json::from_slice(&line)
            && wanted(&event)
        {
            found.push(event);
        }
    }
}

/// The number of the event in a line, which is looked for alone: most lines are not wanted.
fn number_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        number: u64,
    }
    let at = line.windows(NUMBER.len()).rposition(|window| window == NUMBER)?;
    let digits = &line[at + NUMBER.len()..];
    let end = digits.iter().position(|digit| !digit.is_ascii_digit())?;
    let number = std::str::from_utf8(&digits[..end]).ok()?.parse().ok();
    // An event's own text may hold the same letters, quoted.
    number
        .filter(|_| digits[end..].starts_with(b"}"))
        .or_else(|| serde_json::from_slice::<Numbered>(line).ok().map(|numbered| numbered.number))
}

const NUMBER: &[u8] = b"\"number\":";

fn append_to(path: &Path) -> Result<File, EventLogError> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> EventLogError {
    let path = path.to_owned();
    move |source| EventLogError::File { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { event_file_bytes_max: 200, event_files_max: 3, ..Limits::DEFAULT }
    }

    fn event(what: &str) -> Value {
        serde_json::json!({ "event": what, "detail": "\"number\":7}" })
    }

    fn at(millis: u64) -> UnixMillis {
        UnixMillis::from_millis(millis)
    }

    fn numbers(log: &EventLog, after: u64, count: usize) -> Vec<u64> {
        log.newest(after, count, |_| true).expect("readable").iter().map(|event| event.number).collect()
    }

    #[test]
    fn numbers_go_on_where_the_log_is_opened_again_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(folder.path(), &Limits::DEFAULT).expect("a log");
        assert_eq!((log.append(at(1), &event("a")).ok(), log.append(at(2), &event("b")).ok()), (Some(1), Some(2)));
        log.sync().expect("synced");
        drop(log);
        let file = folder.path().join(file_name(1));
        let mut bytes = std::fs::read(&file).expect("there");
        let whole = bytes.len();
        bytes.extend_from_slice(b"{\"at\":3,\"event\":{\"event\":\"c");
        std::fs::write(&file, &bytes).expect("written");
        let log = EventLog::open(folder.path(), &Limits::DEFAULT).expect("a log");
        assert_eq!(std::fs::metadata(&file).expect("there").len(), whole as u64);
        assert_eq!(log.append(at(3), &event("d")).ok(), Some(3));
        assert_eq!(numbers(&log, 0, 100), [1, 2, 3]);
        assert_eq!(log.last(), 3);
    }

    #[test]
    fn a_line_that_rotted_takes_no_later_event_along_and_no_number_is_given_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(folder.path(), &Limits::DEFAULT).expect("a log");
        for number in 1..=3 {
            assert_eq!(log.append(at(number), &event("something")).ok(), Some(number));
        }
        drop(log);
        let file = folder.path().join(file_name(1));
        let mut bytes = std::fs::read(&file).expect("there");
        let second = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        bytes[second..second + 8].fill(0);
        let last = b"\"number\":2";
        let place = bytes.windows(last.len()).position(|window| window == last).expect("there");
        bytes[place..place + last.len()].fill(0);
        std::fs::write(&file, &bytes).expect("written");
        let log = EventLog::open(folder.path(), &Limits::DEFAULT).expect("a log");
        assert_eq!(log.append(at(4), &event("something")).ok(), Some(4));
        assert_eq!(numbers(&log, 0, 100), [1, 3, 4]);
    }

    #[test]
    fn the_oldest_files_go_and_the_log_stays_within_its_bounds() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(folder.path(), &limits()).expect("a log");
        for number in 1..=100 {
            assert_eq!(log.append(at(number), &event("something")).expect("written"), number);
        }
        let files = files_of(folder.path()).expect("readable");
        assert_eq!(files.len(), 3);
        let bytes: u64 = files.iter().map(|(_, path)| std::fs::metadata(path).expect("there").len()).sum();
        assert!(bytes < 3 * 300, "{bytes}");
        let kept = numbers(&log, 0, 100);
        assert_eq!(kept.last(), Some(&100));
        assert!(kept.windows(2).all(|two| two[0] + 1 == two[1]), "{kept:?}");
        drop(log);
        assert_eq!(EventLog::open(folder.path(), &limits()).expect("a log").last(), 100);
    }

    #[test]
    fn the_newest_that_are_wanted_come_oldest_first_and_only_after_a_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = EventLog::open(folder.path(), &Limits { event_files_max: 100, ..limits() }).expect("a log");
        for number in 1..=20 {
            log.append(at(number), &event(if number % 2 == 0 { "even" } else { "odd" })).expect("written");
        }
        let even = log.newest(0, 3, |logged| logged.event["event"] == "even").expect("readable");
        assert_eq!(even.iter().map(|logged| logged.number).collect::<Vec<_>>(), [16, 18, 20]);
        assert_eq!(numbers(&log, 17, 100), [18, 19, 20]);
        assert_eq!(numbers(&log, 20, 100), [0; 0]);
    }
}
