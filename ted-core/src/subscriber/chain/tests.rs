//! Chains of random revisions: whatever is at hand to begin with, contents come out right or not at all.

use std::collections::BTreeMap;

use super::*;
use crate::extract::{Create, Target};
use crate::id::Revision;
use crate::package::delta::{RevisionContent, build_delta};
use crate::package::tests::{FixtureSigner, SMALL_FRAMES, Tree, noise, options, sealed};
use crate::package::{BuildOptions, EntryPath};

const REVISIONS: usize = 12;

/// Random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

struct Revisions {
    folder: tempfile::TempDir,
    trees: Vec<Tree>,
    baselines: Vec<(PackageIndex, File)>,
    /// The one that leads to revision `n + 1`.
    deltas: Vec<(DeltaIndex, Arc<File>)>,
}

/// The next tree: contents change a little or wholly, move, go, and come back from long before.
fn next(dice: &mut Dice, before: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut files = before.clone();
    for _ in 0..=dice.below(5) {
        let names: Vec<String> = files.keys().cloned().collect();
        let name = names[dice.below(names.len() as u64) as usize].clone();
        let fresh = format!("f{}", dice.below(30));
        match dice.below(6) {
            0 if files.len() > 4 => drop(files.remove(&name)),
            1 => {
                let content = files[&name].clone();
                files.insert(fresh, content);
            }
            2 if files.len() > 4 => {
                let content = files.remove(&name).expect("there");
                files.insert(fresh, content);
            }
            // One of few contents, so that old ones come back.
            3 => drop(files.insert(name, noise(dice.below(9), 3000))),
            4 => drop(files.insert(fresh, Vec::new())),
            _ => {
                let content = files.get_mut(&name).expect("there");
                let at = dice.below(content.len() as u64 + 1) as usize;
                let some = noise(dice.below(1 << 40), 1 + dice.below(4000) as usize);
                content.splice(at..at, some);
            }
        }
    }
    files
}

fn tree(files: &BTreeMap<String, Vec<u8>>) -> Tree {
    let mut tree = Tree::new();
    for (name, content) in files {
        tree.file(name, content.clone());
    }
    tree
}

impl Revisions {
    fn new(seed: u64, options: &BuildOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut dice = Dice(seed);
        let start = (0..8).map(|number| (format!("f{number}"), noise(number, 2000 + 700 * number as usize)));
        let mut files: BTreeMap<String, Vec<u8>> = start.collect();
        // One that is cut into segments.
        files.insert("large".to_owned(), noise(77, 20 * SMALL_FRAMES as usize));
        let mut all = vec![files];
        while all.len() < REVISIONS {
            all.push(next(&mut dice, &all[all.len() - 1]));
        }
        let trees: Vec<Tree> = all.iter().map(tree).collect();
        let baselines: Vec<_> = trees
            .iter()
            .map(|tree| {
                let (bytes, built) = tree.build(options);
                (built.index, file(&bytes))
            })
            .collect();
        let deltas = baselines.windows(2).enumerate().map(|(number, pair)| {
            let files: Vec<_> = pair.iter().map(|(index, file)| PackageFiles::new(index.clone(), file)).collect();
            let revision = |at: usize| RevisionContent {
                number: Revision::from_number((number + at + 1) as u64),
                entries: pair[at].0.catalog(),
                files: &files[at],
            };
            let mut bytes = Vec::new();
            let built = build_delta(&revision(0), &revision(1), options, &FixtureSigner, &mut bytes, &|_| {});
            (built.expect("built").index, Arc::new(file(&bytes)))
        });
        let deltas = deltas.collect();
        Self { folder, trees, baselines, deltas }
    }

    fn entries(&self, revision: usize) -> Vec<Entry> {
        self.baselines[revision].0.catalog().iter().map(|row| row.entry.clone()).collect()
    }

    fn chain(&self, from: usize, to: usize) -> Chain {
        Chain::new(self.entries(from), self.deltas[from..to].iter().cloned()).expect("it resolves")
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    /// The files of a revision in a folder, but for those that `spoil` chooses.
    fn target(&self, revision: usize, mut spoil: impl FnMut() -> bool) -> (tempfile::TempDir, Target, bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spoiled = false;
        for (path, content) in &self.trees[revision].contents {
            let mut content = content.clone();
            if spoil() && !content.is_empty() {
                let at = content.len() / 2;
                content[at] ^= 1;
                spoiled = true;
            }
            std::fs::write(folder.path().join(path.to_string()), content).expect("written");
        }
        let target = Target::open(&folder.path().canonicalize().expect("there"), Create::Never).expect("there");
        (folder, target, spoiled)
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

fn made(contents: &ChainContents<'_>, chain: &Chain) -> Result<BTreeMap<EntryPath, Vec<u8>>, MakeError> {
    let mut maker = contents.maker();
    let entries = chain.entries().iter().enumerate();
    let files = entries.filter(|(_, entry)| entry.kind == EntryKind::File && entry.size > 0);
    files
        .map(|(number, entry)| {
            let mut out = Vec::new();
            maker.make(number, &mut out)?;
            Ok((entry.path.clone(), out))
        })
        .collect()
}

fn assert_made(contents: &ChainContents<'_>, chain: &Chain, tree: &Tree, what: &str) {
    let made = made(contents, chain).unwrap_or_else(|error| panic!("{what}: {error}"));
    let expected = tree.contents.iter().filter(|(_, content)| !content.is_empty());
    assert!(made.iter().eq(expected), "{what}: contents differ");
}

#[test]
fn every_revision_is_made_from_every_earlier_baseline_plain_and_sealed() {
    for (seed, options) in [(1, options(SMALL_FRAMES)), (2, sealed(SMALL_FRAMES)), (3, options(SMALL_FRAMES))] {
        let revisions = Revisions::new(seed, &options);
        for from in 0..REVISIONS {
            for to in from..REVISIONS {
                let what = format!("seed {seed}, {from} to {to}");
                let chain = revisions.chain(from, to);
                assert_eq!(chain.entries(), revisions.entries(to), "{what}");
                let (index, file) = &revisions.baselines[from];
                let contents = ChainContents::new(&chain, &revisions.scratch()).with_baseline(index, file);
                contents.prepare().unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_made(&contents, &chain, &revisions.trees[to], &what);
                // Nothing was prepared: what lacks is made when it is asked for.
                let contents = ChainContents::new(&chain, &revisions.scratch()).with_baseline(index, file);
                assert_made(&contents, &chain, &revisions.trees[to], &what);
            }
        }
        let left = std::fs::read_dir(revisions.scratch()).expect("there").count();
        assert_eq!(left, 0, "what was made on the way has no name");
    }
}

#[test]
fn what_somebody_changed_in_the_target_comes_from_the_baseline_on() {
    let revisions = Revisions::new(4, &options(SMALL_FRAMES));
    let mut dice = Dice(44);
    for stood in 0..REVISIONS {
        let to = REVISIONS - 1;
        let what = format!("{stood} stands there");
        let (_folder, target, _) = revisions.target(stood, || dice.below(3) == 0);
        let entries = revisions.entries(stood);
        let chain = revisions.chain(0, to);
        let files = TargetFiles::open(&target, &entries, &Limits::DEFAULT).expect("opened");
        let (index, file) = &revisions.baselines[0];
        let contents = ChainContents::new(&chain, &revisions.scratch()).with_target(files, None);
        let contents = contents.with_baseline(index, file);
        contents.prepare().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_made(&contents, &chain, &revisions.trees[to], &what);
    }
}

#[test]
fn a_target_alone_is_enough_while_it_is_whole_and_else_an_error_and_never_wrong() {
    let revisions = Revisions::new(5, &options(SMALL_FRAMES));
    let mut dice = Dice(55);
    let (mut failed, mut fine) = (0, 0);
    for (from, odds) in (0..REVISIONS - 1).flat_map(|from| [(from, 1_000_000), (from, 12), (from, 3)]) {
        let (_folder, target, spoiled) = revisions.target(from, || dice.below(odds) == 0);
        let entries = revisions.entries(from);
        let to = REVISIONS - 1;
        let chain = revisions.chain(from, to);
        let files = TargetFiles::open(&target, &entries, &Limits::DEFAULT).expect("opened");
        let contents = ChainContents::new(&chain, &revisions.scratch()).with_target(files, None);
        match contents.prepare() {
            Ok(()) => {
                assert_made(&contents, &chain, &revisions.trees[to], "what was spoiled was not needed");
                fine += 1;
            }
            Err(error) => {
                assert!(spoiled, "{error}");
                assert!(matches!(error, DeltaError::OldFile { .. }), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0 && fine >= REVISIONS - 1, "{failed} failed, {fine} did not");
}

#[test]
fn a_revision_that_stands_in_the_target_already_needs_nothing_else() {
    let revisions = Revisions::new(6, &options(SMALL_FRAMES));
    let (folder, target, _) = revisions.target(7, || false);
    for entry in revisions.entries(7).iter().filter(|entry| entry.kind == EntryKind::File) {
        let at = std::fs::File::options().write(true).open(folder.path().join(entry.path.to_string())).expect("there");
        let since = std::time::Duration::new(entry.mtime.seconds as u64, entry.mtime.nanoseconds);
        at.set_modified(std::time::SystemTime::UNIX_EPOCH + since).expect("set");
    }
    let chain = revisions.chain(3, 7);
    // Its old contents are nowhere: a crash came between the target and the note of it.
    let done = TargetFiles::open(&target, chain.entries(), &Limits::DEFAULT).expect("opened");
    let contents = ChainContents::new(&chain, &revisions.scratch()).with_target(None, done);
    contents.prepare().expect("nothing lacks");
    assert_made(&contents, &chain, &revisions.trees[7], "it stands there");
}

#[test]
fn a_delta_of_another_revision_is_refused_before_any_content_is_looked_at() {
    let revisions = Revisions::new(7, &options(SMALL_FRAMES));
    let skipped = [revisions.deltas[0].clone(), revisions.deltas[2].clone()];
    let refused = Chain::new(revisions.entries(0), skipped).err().expect("a gap");
    assert!(matches!(refused, DeltaError::OtherBase), "{refused}");
}
