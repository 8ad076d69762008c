//! Processes that extract are killed with SIGKILL, fifty in the middle of it in each mode: what they leave is the old
//! revision or the new one, per file, and of a release whole; and whoever starts next finishes or undoes it.

#![expect(clippy::print_stdout, reason = "how the kills ended is for whoever runs this")]

use std::collections::BTreeMap;
use std::fs;
use std::hint::spin_loop;
use std::io::{BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use ted_core::extract::{
    ContentMaker, Contents, Create, ExtractJob, ExtractOptions, MakeContent, MakeError, Recovery, Releases, Target,
    extract, recover,
};
use ted_core::id::{DistributionId, Hash, Revision};
use ted_core::model::ExtractMode;
use ted_core::package::{CatalogRow, Entry, EntryKind, EntryPath, Mtime};

const KILLS: u64 = 50;
const FILES: u64 = 900;
const FOLDERS: u64 = 30;
const DISTRIBUTION: DistributionId = DistributionId::from_bytes([7; 16]);

/// What a child is told: the target, the mode, the revision that it extracts and the one before.
const TOLD: [&str; 4] = ["TED_KILL_TARGET", "TED_KILL_MODE", "TED_KILL_REVISION", "TED_KILL_BEFORE"];

/// A file's content: it can be told which file and revision it is of, and whether it is whole.
fn content(file: u64, revision: u64) -> Vec<u8> {
    format!("file {file} of revision {revision}\n").repeat(60).into_bytes()
}

/// Whether a revision has a file. A tenth of them comes and goes.
fn has(file: u64, revision: u64) -> bool {
    !(file + revision).is_multiple_of(10)
}

fn path_of(file: u64) -> String {
    format!("folder-{:02}/file-{file:04}", file % FOLDERS)
}

fn rows(revision: u64) -> (Vec<CatalogRow>, Vec<u64>) {
    let entry = |path: &str, kind, mode, content: Option<&[u8]>| Entry {
        path: EntryPath::from_bytes(path.as_bytes()).expect("valid"),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds: 1_700_000_000 + revision as i64, nanoseconds: 7 },
        size: content.map_or(0, |content| content.len() as u64),
        link: vec![],
        content: content.map_or(Entry::NO_CONTENT, Hash::of),
        extensions: vec![],
    };
    let mut all = BTreeMap::from([(String::new(), (entry("", EntryKind::Directory, 0o755, None), 0))]);
    for folder in 0..FOLDERS {
        let path = format!("folder-{folder:02}");
        all.insert(path.clone(), (entry(&path, EntryKind::Directory, 0o755, None), 0));
    }
    for file in (0..FILES).filter(|file| has(*file, revision)) {
        let path = path_of(file);
        all.insert(path.clone(), (entry(&path, EntryKind::File, 0o644, Some(&content(file, revision))), file));
    }
    all.into_values().map(|(entry, file)| (CatalogRow { entry, offset: 0 }, file)).unzip()
}

/// Makes what the files of a revision hold.
struct Contentful {
    revision: u64,
    files: Vec<u64>,
}

impl MakeContent for Contentful {
    fn threads_max(&self) -> usize {
        2
    }

    fn maker(&self) -> Box<dyn ContentMaker + '_> {
        Box::new(Maker(self))
    }
}

struct Maker<'a>(&'a Contentful);

impl ContentMaker for Maker<'_> {
    fn make(&mut self, entry: usize, out: &mut dyn Write) -> Result<(), MakeError> {
        out.write_all(&content(self.0.files[entry], self.0.revision)).map_err(MakeError::Sink)
    }
}

/// Extracts a revision, and says each step of its progress on standard output.
fn extract_revision(at: &Path, mode: ExtractMode, revision: u64, before: Option<u64>) {
    let (rows, files) = rows(revision);
    let contents = Contentful { revision, files };
    let previous: Option<Vec<Entry>> =
        before.map(|before| self::rows(before).0.into_iter().map(|row| row.entry).collect());
    let options = ExtractOptions { mode, threads: 2, ..ExtractOptions::default() };
    let job = ExtractJob {
        rows: &rows,
        contents: Contents::Made(&contents),
        previous: previous.as_deref(),
        distribution: DISTRIBUTION,
        revision: Revision::from_number(revision),
        options: &options,
        recovered: Recovery::Nothing,
    };
    let target = Target::open(at, Create::Missing).expect("the target can be opened");
    let say = |_| {
        // Nobody may be there any more to read it.
        let _ = writeln!(std::io::stdout().lock(), "step");
    };
    extract(&target, &job, &say, &AtomicBool::new(false)).expect("nothing is in the way");
}

/// Not a test of its own: what the tests start and kill.
#[test]
fn child_that_extracts() {
    let [Ok(target), Ok(mode), Ok(revision), Ok(before)] = TOLD.map(std::env::var) else { return };
    let mode: ExtractMode = mode.parse().expect("a mode");
    extract_revision(Path::new(&target), mode, revision.parse().expect("a number"), before.parse().ok());
    println!("\nend");
}

/// Starts a process that extracts, and kills it after so many steps of progress and so many moments. Says whether it
/// had finished, and how many steps it told.
fn run(at: &Path, mode: ExtractMode, (revision, before): (u64, u64), kill: Option<(u64, u64)>) -> (bool, u64) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["child_that_extracts", "--exact", "--nocapture", "--test-threads=1"])
        .env(TOLD[0], at)
        .env(TOLD[1], mode.to_string())
        .env(TOLD[2], revision.to_string())
        .env(TOLD[3], before.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (mut finished, mut steps) = (false, 0);
    let told = BufReader::new(child.stdout.take().expect("piped"));
    for line in told.lines() {
        let Ok(line) = line else { break };
        finished |= line == "end";
        steps += u64::from(line.contains("step"));
        if let Some((after, moments)) = kill
            && steps >= after
        {
            (0..moments).for_each(|_| spin_loop());
            child.kill().expect("it is ours");
            break;
        }
    }
    let status = child.wait().expect("it is ours");
    (finished || status.success(), steps)
}

/// What stands below a folder, as text, without staging folders.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for child in folder.read_dir().expect("readable").map(|child| child.expect("readable")) {
            let path = child.path();
            if child.file_name().to_string_lossy().starts_with(".ted-staging-") {
                continue;
            } else if child.file_type().expect("readable").is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.strip_prefix(root).expect("below").to_owned(), fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

fn of_revision(revision: u64) -> BTreeMap<PathBuf, Vec<u8>> {
    let there = (0..FILES).filter(|file| has(*file, revision));
    there.map(|file| (PathBuf::from(path_of(file)), content(file, revision))).collect()
}

/// Whether each file is that of the old or of the new revision, whole. A merge leaves files of older ones too.
fn assert_per_file(at: &Path, mode: ExtractMode, (new, old): (u64, u64)) {
    let seen = files(at);
    for (path, found) in &seen {
        if path.starts_with("foreign") {
            continue;
        }
        let number: u64 = path.to_string_lossy().rsplit('-').next().expect("a number").parse().expect("a number");
        let known = |revision: &u64| *found == content(number, *revision);
        let may = if mode == ExtractMode::Merge { 1..=new } else { old..=new };
        assert!(may.rev().any(|revision| known(&revision)), "{} is torn", path.display());
    }
    for file in (0..FILES).filter(|file| has(*file, new) && has(*file, old)) {
        assert!(seen.contains_key(Path::new(&path_of(file))), "{} is gone", path_of(file));
    }
}

fn current(at: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(&at.join(fs::read_link(at.join("current")).expect("a link at any time")))
}

/// Whether the target holds this revision and nothing of the other one.
fn assert_holds(at: &Path, mode: ExtractMode, revision: u64) {
    let expected = of_revision(revision);
    match mode {
        ExtractMode::Release => assert!(current(at) == expected, "the release is not revision {revision}"),
        ExtractMode::Sync => assert!(files(at) == expected, "the target is not revision {revision}"),
        ExtractMode::Merge => {
            let seen = files(at);
            assert!(expected.iter().all(|(path, bytes)| seen.get(path) == Some(bytes)), "revision {revision} lacks");
        }
    }
}

fn has_staging(at: &Path) -> bool {
    let mut names = at.read_dir().expect("readable").map(|child| child.expect("readable").file_name());
    names.any(|name| name.to_string_lossy().starts_with(".ted-staging-"))
}

fn kill_in_mode(mode: ExtractMode) {
    let folder = ["/dev/shm", "/tmp"].into_iter().find_map(|above| tempfile::tempdir_in(above).ok());
    let folder = folder.expect("a folder");
    let at = folder.path().canonicalize().expect("there").join("target");
    let (finished, _) = run(&at, mode, (1, 0), None);
    assert!(finished);
    let (mut holds, mut outcomes, mut seed) = (1, BTreeMap::new(), 7_u64);
    let (_, steps) = run(&at, mode, (2, 1), None);
    holds += 1;
    assert_holds(&at, mode, holds);
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut interrupted = 0;
    for kill in 0.. {
        if interrupted == KILLS {
            break;
        }
        assert!(kill < KILLS * 10, "most kills come too late: {outcomes:?}");
        let new = holds + 1;
        if mode == ExtractMode::Sync {
            fs::create_dir_all(at.join("foreign")).expect("free");
            fs::write(at.join("foreign/file"), "x").expect("free");
        }
        // Every third one late, where moves, deletions and the switch are.
        let after = if !u64::is_multiple_of(kill, 3) { random(steps) + 1 } else { steps - random(steps.min(20)) };
        let (finished, _) = run(&at, mode, (new, holds), Some((after, random(100_000))));
        match mode {
            ExtractMode::Release => {
                let seen = current(&at);
                assert!([holds, new].iter().any(|revision| seen == of_revision(*revision)), "kill {kill}: torn");
            }
            _ => assert_per_file(&at, mode, (new, holds)),
        }
        // As a Subscriber does when it starts.
        let target = Target::open(&at, Create::Never).expect("there");
        let recovery = recover(&target, &DISTRIBUTION).expect("it finishes or undoes");
        assert!(!has_staging(&at));
        let is_new = match recovery {
            Recovery::RolledForward(revision) => revision.number() == new,
            // Or it was killed at the very end, when the journal was gone already.
            Recovery::RolledBack | Recovery::Nothing => finished || is_at(&at, mode, new),
        };
        interrupted += u64::from(recovery != Recovery::Nothing);
        let said = format!("{recovery:?}").split('(').next().expect("a word").to_owned();
        *outcomes.entry(said).or_insert(0) += 1;
        holds = if is_new { new } else { holds };
        if mode != ExtractMode::Sync || is_new {
            assert_holds(&at, mode, holds);
        }
        if u64::is_multiple_of(kill, 5) {
            let (finished, _) = run(&at, mode, (holds + 1, holds), None);
            assert!(finished);
            holds += 1;
            assert_holds(&at, mode, holds);
        }
    }
    println!("{mode}: {KILLS} kills in the middle of it: {outcomes:?}");
    assert!(outcomes.contains_key("RolledBack") && outcomes.contains_key("RolledForward"), "{outcomes:?}");
    if mode == ExtractMode::Release {
        let releases = Releases::of(&Target::open(&at, Create::Never).expect("there")).expect("readable");
        assert!(releases.kept.len() <= 4, "{releases:?}");
    }
}

fn is_at(at: &Path, mode: ExtractMode, revision: u64) -> bool {
    match mode {
        ExtractMode::Release => current(at) == of_revision(revision),
        ExtractMode::Sync => files(at) == of_revision(revision),
        ExtractMode::Merge => {
            let seen = files(at);
            of_revision(revision).iter().all(|(path, bytes)| seen.get(path) == Some(bytes))
        }
    }
}

#[test]
fn fifty_kills_of_a_merge_tear_no_file() {
    kill_in_mode(ExtractMode::Merge);
}

#[test]
fn fifty_kills_of_a_sync_tear_no_file_and_it_ends_as_the_revision_is() {
    kill_in_mode(ExtractMode::Sync);
}

#[test]
fn fifty_kills_of_a_release_leave_the_old_one_or_the_new_one_in_use() {
    kill_in_mode(ExtractMode::Release);
}
