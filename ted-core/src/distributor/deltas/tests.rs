//! Chains of many revisions of random trees, pruned as they grow.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::distributor::state::lock;
use crate::distributor::{BuildOutcome, BuiltRevision, DistributionSpec, Distributor, Reading};
use crate::id::Revision;
use crate::limits::Limits;
use crate::model::CompressionLevel;
use crate::package::delta::{Applier, Files};
use crate::package::{Entry, EntryKind};
use crate::security::{Carried, PackageRef};

/// Files by path.
type Tree = BTreeMap<String, Vec<u8>>;

/// A Distributor that does not serve, with one Distribution.
struct World {
    folder: tempfile::TempDir,
    distributor: Distributor,
}

impl World {
    async fn new(encrypt: bool, max_revisions: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let builder = Distributor::builder(folder.path().join("data"))
            .name("dist.example".parse().unwrap())
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let distributor = builder.open().await.unwrap();
        let spec = DistributionSpec::new(site(), &source).encrypt(encrypt);
        distributor.create_distribution(spec.max_revisions(max_revisions)).await.unwrap();
        Self { folder, distributor }
    }

    async fn build(&self, tree: &Tree) -> BuiltRevision {
        write(&self.folder.path().join("source"), tree);
        match self.distributor.build_reading(&site(), Reading::Everything).await.unwrap() {
            BuildOutcome::Built(built) => built,
            BuildOutcome::Unchanged(_) => panic!("nothing has changed"),
        }
    }

    /// Runs `work` where blocking is allowed.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&State, &Distribution) -> T + Send + 'static) -> T {
        let state = self.distributor.state.clone();
        let work = move || {
            let distribution = lock(&state.fleet).distribution(&site()).unwrap().clone();
            work(&state, &distribution)
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }

    async fn packages(&self) -> Vec<PackageRef> {
        self.with(|state, distribution| {
            let newest = state.newest(distribution).unwrap().unwrap();
            state.packages_to_state(distribution, &newest)
        })
        .await
    }
}

fn write(folder: &Path, tree: &Tree) {
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::create_dir(folder).unwrap();
    for (path, content) in tree {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// The files of a revision.
fn read(entries: &[Entry], files: &dyn Files) -> Tree {
    let of_kind = entries.iter().enumerate().filter(|(_, entry)| entry.kind == EntryKind::File);
    let content = |(number, entry): (usize, &Entry)| {
        let mut content = vec![0; entry.size as usize];
        files.read_at(number, 0, &mut content).unwrap();
        (entry.path.to_string(), content)
    };
    of_kind.map(content).collect()
}

/// Contents in memory, by number.
struct Held(Vec<Vec<u8>>);

impl Files for Held {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&self.0[file][offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
}

/// What one delta makes of a revision, as a Subscriber applies it.
fn apply(state: &State, package: &PackageRef, old: (Vec<Entry>, Held)) -> (Vec<Entry>, Held) {
    let (index, file) = state.open_own_delta(package.id).unwrap();
    let resolved = index.resolve(&old.0, &Limits::DEFAULT).unwrap();
    let mut made: Vec<Option<Vec<u8>>> = vec![None; resolved.entries.len()];
    let mut applier = Applier::new(&index, &resolved, &*file, (&old.0, &old.1));
    for content in &resolved.contents {
        let mut out = vec![];
        applier.write(content, &mut out).unwrap();
        made[content.entry] = Some(out);
    }
    let kept = |entry: &Entry| {
        let number = old.0.iter().position(|known| known.path == entry.path);
        number.map(|number| old.1.0[number].clone()).unwrap_or_default()
    };
    let contents = resolved.entries.iter().zip(made).map(|(entry, made)| made.unwrap_or_else(|| kept(entry)));
    let contents = contents.collect();
    (resolved.entries, Held(contents))
}

/// What a revision's entries and contents are, from whatever is kept of it.
fn opened(state: &State, distribution: &Distribution, revision: Revision) -> (Vec<Entry>, Held) {
    let kept = state.kept_packages(distribution);
    let chain = state.open_revision(distribution, &kept, revision).unwrap();
    let files = chain.contents(state.scratch_file().unwrap()).unwrap();
    let entries = chain.entries();
    let content = |(number, entry): (usize, &Entry)| {
        let mut content = vec![0; entry.size as usize];
        files.read_at(number, 0, &mut content).unwrap();
        content
    };
    let contents = entries.iter().enumerate().map(content).collect();
    (entries, Held(contents))
}

/// Every revision of the window leads to the newest, and to each one between.
fn prove(state: &State, distribution: &Distribution, packages: &[PackageRef], trees: &BTreeMap<Revision, Tree>) {
    let deltas = &packages[1..];
    for from in 0..deltas.len() {
        let Carried::Delta { base, .. } = deltas[from].carried else { panic!("a delta") };
        let mut at = opened(state, distribution, base);
        assert_eq!(read(&at.0, &at.1), trees[&base]);
        for delta in &deltas[from..] {
            at = apply(state, delta, at);
            let Carried::Delta { revision, .. } = delta.carried else { panic!("a delta") };
            assert_eq!(read(&at.0, &at.1), trees[&revision], "from {base} to {revision}");
        }
    }
}

fn site() -> crate::name::Label {
    "site".parse().unwrap()
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let noise = |seed: &str| {
        let mut noise = vec![0; 4000];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut noise);
        noise
    };
    let large = ["1", "2", "3"].map(|name| (format!("large/{name}"), noise(name)));
    let small = files.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec()));
    large.into_iter().chain(small).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_says_what_changed_and_any_kept_revision_is_listed_and_gone_back_to() {
    for encrypt in [false, true] {
        let world = World::new(encrypt, 10).await;
        let steps = [
            tree(&[("a", "1"), ("b", "2")]),
            tree(&[("a", "1"), ("b", "22"), ("c", "3")]),
            tree(&[("b", "22"), ("moved/c", "3")]),
            tree(&[("b", "4")]),
            tree(&[("b", "5")]),
        ];
        let mut built = vec![];
        for step in &steps {
            built.push(world.build(step).await.revision);
        }
        let history = world.distributor.history(&site()).await.unwrap();
        assert_eq!(history.iter().rev().map(|row| row.revision).collect::<Vec<_>>(), built);
        assert_eq!(history[4].changes, None, "nothing was before the first");
        let counts = |row: usize| history[row].changes.unwrap();
        assert_eq!((counts(3).added, counts(3).changed, counts(3).removed), (1, 1, 0));
        // A folder came, a file moved into it, and one is gone.
        assert_eq!((counts(2).added, counts(2).moved, counts(2).removed), (1, 1, 1));
        assert!(history[..4].iter().all(|row| row.delta.is_some()), "{history:#?}");
        // The first two have baselines to begin from; the third is put together from its delta.
        let kept: Vec<_> = history.iter().map(|row| row.kept).collect();
        use crate::distributor::RevisionKept::{Baseline, Deltas};
        assert_eq!(kept, [Baseline, Baseline, Deltas, Baseline, Baseline]);

        let digits = built[2].to_string();
        let choice = digits[digits.len() - 9..].parse().unwrap();
        let (found, entries) = world.distributor.revision(&site(), &choice).await.unwrap();
        assert_eq!(found, built[2]);
        assert!(entries.iter().any(|entry| entry.path.to_string() == "moved/c"));
        let packages = world.distributor.revision_packages(&site(), &choice).await.unwrap();
        assert_eq!(packages.files.len(), 2, "{packages:?}");

        let back = world.distributor.rollback(&site(), Some(built[2])).await.unwrap();
        assert!(back.delta.is_some(), "a Subscriber goes back by a delta too");
        let expected = steps[2].clone();
        let newest = back.revision;
        world
            .with(move |state, distribution| {
                let (entries, files) = opened(state, distribution, newest);
                assert_eq!(read(&entries, &files), expected);
                let kept = state.kept_packages(distribution);
                assert!(kept.baseline(newest).is_some(), "it has a baseline of its own");
            })
            .await;
        let history = world.distributor.history(&site()).await.unwrap();
        assert_eq!(history[0].origin, crate::distributor::RevisionOrigin::Rollback { to: built[2] });
        let again = world.distributor.build(&site()).await.unwrap();
        assert!(matches!(again, BuildOutcome::Unchanged(_)), "the source is what was gone back from");

        // A catalog that forgot the records finds the revisions among the packages.
        world
            .with(move |state, distribution| {
                state.forget_history(distribution).unwrap();
            })
            .await;
        let found = world.distributor.history(&site()).await.unwrap();
        assert!(found.iter().all(|row| row.origin == crate::distributor::RevisionOrigin::Found));
        let what = |rows: &[crate::distributor::RevisionReport]| -> Vec<_> {
            let kept = rows.iter().filter(|row| row.kept != crate::distributor::RevisionKept::No);
            kept.map(|row| (row.revision, row.entries, row.content_bytes, row.delta)).collect()
        };
        assert_eq!(what(&found), what(&history));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_more_than_once_is_not_undone_by_the_next_build() {
    let world = World::new(false, 10).await;
    let mut built = vec![];
    for content in ["1", "22", "333"] {
        built.push(world.build(&tree(&[("a", content)])).await.revision);
    }
    let mut newest = built[2];
    for to in [built[1], built[0], built[1], built[0]] {
        newest = world.distributor.rollback(&site(), Some(to)).await.unwrap().revision;
        let again = world.distributor.build(&site()).await.unwrap();
        assert!(matches!(&again, BuildOutcome::Unchanged(built) if built.revision == newest), "{again:?}");
    }
    assert!(world.build(&tree(&[("a", "what the source has now")])).await.revision > newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_was_never_finished_is_no_revision_to_go_back_to_and_leaves_no_file() {
    let world = World::new(false, 1).await;
    let first = world.build(&tree(&[("a", "1")])).await;
    let never = world.build(&tree(&[("a", "never finished")])).await.revision;
    // As a crash leaves it before the record.
    let crashed = first.clone();
    world
        .with(move |state, distribution| {
            state.forget_history(distribution).unwrap();
            state.set_newest(distribution, &crashed).unwrap();
        })
        .await;
    let known = world.distributor.history(&site()).await.unwrap();
    let newest = world.build(&tree(&[("a", "3")])).await;
    let kept = world.with(|state, distribution| state.kept_packages(distribution).revisions()).await;
    assert_eq!(kept, [first.revision, newest.revision]);
    assert!(known.iter().all(|row| row.revision != never), "{known:?}");

    // Nor does what a crash left of a file that was being written.
    let data = world.folder.path().join("data");
    let part = data.join("dist/site/17/baseline/distfile.part");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, "half").unwrap();
    let World { folder: _folder, distributor } = world;
    distributor.shutdown().await;
    drop(distributor);
    drop(Distributor::builder(&data).open().await.unwrap());
    assert!(!part.exists() && !data.join("dist/site/17").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_is_not_worth_it_is_not_made_and_the_reason_stands_on_record() {
    let world = World::new(false, 10).await;
    let first = world.build(&tree(&[])).await;
    assert!(first.no_delta.unwrap().contains("no revision before"));
    let other = (0..9_u8).map(|number| (format!("{number}"), vec![number; 3]));
    let mut noise = vec![0; 100_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let second = world.build(&other.chain([("noise".to_owned(), noise)]).collect()).await;
    assert_eq!(second.delta, None);
    assert!(second.no_delta.unwrap().contains("more than half"));
    assert_eq!(world.packages().await.len(), 1);
    let places = world.with(|state, _| wait(state.depot.list()).unwrap().len()).await;
    assert_eq!(places, 2, "the two baselines");
    let left = world.folder.path().join("data/dist/site").join(second.revision.to_string());
    assert_eq!(std::fs::read_dir(left).unwrap().count(), 1, "no empty folder stays");

    let never = World::new(false, 1).await;
    never.build(&tree(&[])).await;
    let built = never.build(&tree(&[("a", "1")])).await;
    assert!(built.no_delta.unwrap().contains("only one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_delta_says_openly_what_the_sealed_revision_before_holds() {
    let world = World::new(true, 10).await;
    world.build(&tree(&[("secret name", "1"), ("a", "1")])).await;
    for (encrypt, has_delta) in [(false, false), (false, true), (true, true)] {
        let spec = DistributionSpec::new(site(), world.folder.path().join("source")).encrypt(encrypt);
        world.distributor.update_distribution(&site(), spec.max_revisions(10)).await.unwrap();
        let built = world.build(&tree(&[("a", &format!("{encrypt} {has_delta}"))])).await;
        assert_eq!(built.delta.is_some(), has_delta, "{:?}", built.no_delta);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_whose_package_is_damaged_does_not_hide_the_others_that_are_found() {
    let world = World::new(false, 10).await;
    let mut built = vec![];
    for number in 0..3 {
        built.push(world.build(&tree(&[("a", &number.to_string())])).await);
    }
    world.with(|state, distribution| state.forget_history(distribution).unwrap()).await;
    let path = world.distributor.state.depot.path_of(built[1].package).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let places = bytes.len() * 9 / 10..bytes.len() - 100;
    bytes[places].iter_mut().for_each(|byte| *byte ^= 1);
    std::fs::write(&path, bytes).unwrap();
    let found = world.distributor.history(&site()).await.unwrap();
    let revisions: Vec<_> = found.iter().map(|row| row.revision).collect();
    assert_eq!(revisions, [built[2].revision, built[0].revision]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distribution_that_is_deleted_while_it_is_built_leaves_nothing() {
    let world = World::new(false, 10).await;
    write(&world.folder.path().join("source"), &tree(&[("a", "1")]));
    let state = world.distributor.state.clone();
    let building = state.building.lock().await;
    let distribution = lock(&state.fleet).distribution(&site()).unwrap().clone();
    let distributor = world.distributor.clone();
    let deleting = tokio::spawn(async move { distributor.delete_distribution(&site()).await });
    while lock(&state.fleet).distribution(&site()).is_ok() {
        tokio::task::yield_now().await;
    }
    state.build_distribution(distribution.clone(), Reading::Everything).await.unwrap();
    drop(building);
    deleting.await.unwrap().unwrap();
    assert_eq!(state.depot.of_distribution(&distribution.id), []);
    assert_eq!(state.newest(&distribution).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_package_of_what_is_fed_is_mended_by_feeding_it_again() {
    let World { folder, distributor } = World::new(false, 10).await;
    let spec = DistributionSpec::new(site(), "-");
    distributor.update_distribution(&site(), spec).await.unwrap();
    let world = World { folder, distributor };
    let data = world.folder.path().join("data");
    let feed = async |content: &str| {
        let mut tar = tar::Builder::new(vec![]);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "a", content.as_bytes()).unwrap();
        let spooled = crate::distributor::spool_input(&data, &mut tar.into_inner().unwrap().as_slice()).unwrap();
        world.distributor.build_input(&site(), spooled.name()).await.unwrap()
    };
    for (again, is_same) in [("1", true), ("2", false)] {
        let built = feed("1").await.revision().clone();
        let path = world.distributor.state.depot.path_of(built.package).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let doubt = move |state: &State, distribution: &Distribution| {
            state.doubt_own(distribution, built.package).unwrap();
            assert_eq!(state.make_sure_now(distribution).unwrap_err().code(), "TED-1845");
            assert!(!state.may_offer(distribution, &built).unwrap());
            built.package
        };
        let package = world.with(doubt).await;
        let newest = feed(again).await.revision().clone();
        assert_eq!(newest.package == package, is_same);
        let sure = move |state: &State, distribution: &Distribution| {
            assert!(state.may_offer(distribution, &newest).unwrap());
            state.doubt_own(distribution, newest.package).unwrap();
            assert_eq!(state.make_sure_now(distribution).unwrap(), None);
        };
        world.with(sure).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_about_a_delta_goes_with_the_delta() {
    let world = World::new(false, 10).await;
    world.build(&tree(&[("a", "1")])).await;
    let built = world.build(&tree(&[("a", "2")])).await;
    let delta = built.delta.unwrap().package;
    let doubts = move |state: &State, distribution: &Distribution| {
        assert!(state.doubt_delta(distribution, delta, None).unwrap());
        wait(state.depot.delete(delta)).unwrap();
        state.make_deltas_sure(distribution, built.revision).unwrap();
        state.records.keys("doubt-delta/").unwrap()
    };
    assert_eq!(world.with(doubts).await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_names_stays_while_it_may_be_fetched() {
    let world = World::new(false, 2).await;
    world.build(&tree(&[("a", "1")])).await;
    world.build(&tree(&[("a", "2")])).await;
    let stated = world.packages().await;
    assert_eq!(stated.len(), 2);
    let state = |state: &State, distribution: &Distribution| {
        let newest = state.newest(distribution).unwrap().unwrap();
        state.statement(distribution, &newest).unwrap()
    };
    world.with(state).await;
    let there = async |package: &PackageRef| {
        let id = package.id;
        world.with(move |state, _| wait(state.depot.info(id)).unwrap().is_some()).await
    };
    for number in 3..9 {
        world.build(&tree(&[("a", &number.to_string())])).await;
    }
    for package in &stated {
        assert!(there(package).await, "somebody may be fetching it");
    }
    // Two statements later nobody is offered it any more.
    for number in 10..13 {
        world.with(state).await;
        world.build(&tree(&[("a", &number.to_string())])).await;
    }
    for package in &stated {
        assert!(!there(package).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_delta_is_made_again_from_the_baselines_and_else_not_offered_any_more() {
    for encrypt in [false, true] {
        let world = World::new(encrypt, 10).await;
        let mut trees = BTreeMap::new();
        for number in 0..4 {
            let tree = tree(&[("a", &number.to_string())]);
            trees.insert(world.build(&tree).await.revision, tree);
        }
        let before = world.packages().await;
        assert_eq!(before.len(), 4);
        let flip = |package: &PackageRef| {
            let path = world.distributor.state.depot.path_of(package.id).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            // The last bytes of the body, behind the head.
            bytes[20] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        };
        let doubt = async |package: &PackageRef| {
            let id = package.id;
            world.with(move |state, distribution| state.doubt_delta(distribution, id, None).unwrap()).await
        };
        let make_sure = async || {
            world
                .with(|state, distribution| {
                    let newest = state.newest(distribution).unwrap().unwrap();
                    state.make_deltas_sure(distribution, newest.revision).unwrap()
                })
                .await
        };
        // One that is whole stays as it is; the baseline is not for these to judge.
        assert!(doubt(&before[3]).await && !doubt(&before[0]).await);
        assert_eq!(make_sure().await, [] as [String; 0]);
        assert_eq!(world.packages().await, before);

        flip(&before[3]);
        assert_eq!(make_sure().await, [] as [String; 0], "nobody has a doubt");
        doubt(&before[3]).await;
        let told = make_sure().await;
        assert!(told.len() == 1 && told[0].starts_with("TED-1890"), "{told:?}");
        let after = world.packages().await;
        assert_eq!((after.len(), &after[..3]), (4, &before[..3]));
        assert_ne!(after[3].id, before[3].id);
        let history = world.distributor.distribution(&site()).await.unwrap();
        assert_eq!(history.newest.unwrap().delta.unwrap().package, after[3].id);
        let (packages, known) = (after.clone(), trees.clone());
        world.with(move |state, distribution| prove(state, distribution, &packages, &known)).await;

        // The third revision has no baseline any more... and neither has its delta a second chance.
        let fifth = tree(&[("a", "5")]);
        trees.insert(world.build(&fifth).await.revision, fifth);
        let before = world.packages().await;
        assert_eq!(before.len(), 5);
        std::fs::remove_file(world.distributor.state.depot.path_of(before[2].id).unwrap()).unwrap();
        let told = make_sure().await;
        assert!(told.len() == 1 && told[0].starts_with("TED-1891"), "{told:?}");
        let after = world.packages().await;
        assert_eq!(after, [&before[..1], &before[3..]].concat(), "the window ends behind it");
    }
}

/// What somebody does to a tree between two revisions.
#[derive(Debug, Clone)]
enum Change {
    Put(u8, Vec<u8>),
    Edit(u8, u16, Vec<u8>),
    Remove(u8),
    Move(u8, u8),
    Empty(u8),
}

fn path(number: u8) -> String {
    format!("{}/file-{}", ["a", "b/c", "d"][usize::from(number % 3)], number % 12)
}

fn make(tree: &mut Tree, change: &Change) {
    match change {
        Change::Put(number, content) => drop(tree.insert(path(*number), content.clone())),
        Change::Edit(number, at, bytes) => {
            let content = tree.entry(path(*number)).or_default();
            let at = usize::from(*at) % (content.len() + 1);
            content.splice(at..at, bytes.iter().copied());
        }
        Change::Remove(number) => drop(tree.remove(&path(*number))),
        Change::Move(from, to) => {
            if let Some(content) = tree.remove(&path(*from)) {
                tree.insert(path(*to), content);
            }
        }
        Change::Empty(number) => drop(tree.insert(path(*number), vec![])),
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let content = || proptest::collection::vec(any::<u8>(), 0..3000);
    let few = || proptest::collection::vec(any::<u8>(), 1..40);
    let one = prop_oneof![
        2 => (any::<u8>(), content()).prop_map(|(number, content)| Change::Put(number, content)),
        4 => (any::<u8>(), any::<u16>(), few()).prop_map(|(number, at, bytes)| Change::Edit(number, at, bytes)),
        1 => any::<u8>().prop_map(Change::Remove),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Change::Move(from, to)),
        1 => any::<u8>().prop_map(Change::Empty),
    ];
    proptest::collection::vec(one, 1..4)
}

/// Twelve revisions of a tree that is large enough for small changes to give small deltas.
async fn grow(encrypt: bool, max_revisions: u32, history: Vec<Vec<Change>>) {
    let world = World::new(encrypt, max_revisions).await;
    let noise = |seed: u64| blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut tree: Tree = (0..12).map(|number| (path(number), vec![0; 0])).collect();
    for (seed, content) in (0..).zip(tree.values_mut()) {
        content.resize(4000, 0);
        noise(seed).fill(content);
    }
    let mut trees = BTreeMap::new();
    let mut longest = 0;
    for (number, changes) in history.iter().enumerate() {
        changes.iter().for_each(|change| make(&mut tree, change));
        // So that every round is a revision.
        tree.insert("round".to_owned(), number.to_string().into_bytes());
        let built = world.build(&tree).await;
        assert_eq!(built.delta.is_none(), built.no_delta.is_some());
        trees.insert(built.revision, tree.clone());
        let packages = world.packages().await;
        assert_eq!(packages[0].carried, Carried::Baseline { revision: built.revision });
        assert!(packages.len() <= max_revisions as usize);
        assert!(packages[1..].iter().map(|package| package.bytes).sum::<u64>() <= packages[0].bytes / 2);
        longest = longest.max(packages.len());
        let trees = trees.clone();
        world.with(move |state, distribution| prove(state, distribution, &packages, &trees)).await;
    }
    assert!(longest > 1 || max_revisions == 1, "no delta was ever worth its bytes");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn any_revision_of_the_window_leads_to_any_later_one_over_twelve_revisions_with_pruning(
        encrypt in any::<bool>(),
        max_revisions in prop_oneof![Just(10_u32), 2..6_u32],
        history in proptest::collection::vec(changes(), 12)
    ) {
        runtime().block_on(grow(encrypt, max_revisions, history));
    }
}

#[tokio::test]
async fn packages_are_compressed_as_hard_as_the_distribution_says_and_another_level_copies_no_frame() {
    let world = World::new(false, 10).await;
    let noise: Vec<u8> = (0..3_000_u32).flat_map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect();
    let mut tree = Tree::from([("a".to_owned(), noise), ("b".to_owned(), b"something else".to_vec())]);
    world.build(&tree).await;
    let mut spec = world.distributor.distribution(&site()).await.unwrap().spec;
    (spec.level, spec.delta_level) = (CompressionLevel::try_from(9).unwrap(), CompressionLevel::try_from(17).unwrap());
    world.distributor.update_distribution(&site(), spec).await.unwrap();
    tree.insert("b".to_owned(), b"something else again".to_vec());
    let built = world.build(&tree).await;
    assert_eq!(built.frames_copied, 0);
    let delta = built.delta.expect("worth its bytes").package;
    let levels = world.with(move |state, _| {
        let baseline = state.open_own(built.package).unwrap().0.root().level;
        (baseline, state.open_own_delta(delta).unwrap().0.root().level)
    });
    assert_eq!(levels.await, (9, 17));
}
