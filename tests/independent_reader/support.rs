//! A folder with everything that is hard to carry, and a package of it, signed with real certificates.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ted_core::distributor::{FolderSource, Selection, Unreadable};
use ted_core::id::{DistributionId, Revision, UnixMillis};
use ted_core::package::delta::{PackageFiles, RevisionContent, build_delta};
use ted_core::package::{
    BuildOptions, BuiltPackage, DigestKind, ROOT_CONTEXT, RootSigner, Seal, Source, build_baseline,
};
use ted_core::security::{Authority, AwsLc, EpochSecret, Identity, Signature, Usage, sign};

/// Some time in 2023, in milliseconds since 1970.
pub(super) const NOW: UnixMillis = UnixMillis::from_millis(1_700_000_000_123);

/// A package and what it was made from.
pub(super) struct Fixture {
    _folder: tempfile::TempDir,
    /// The folder that was packed.
    pub(super) source: PathBuf,
    /// The package.
    pub(super) package: PathBuf,
    /// The Distributor's certificate.
    pub(super) certificate: PathBuf,
    /// The content key, 64 hex digits; there if the package is sealed.
    pub(super) key: PathBuf,
    /// What the builder says about it.
    pub(super) built: BuiltPackage,
}

struct Signer(Identity);

impl RootSigner for Signer {
    fn sign_root(&self, root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(sign(&AwsLc, &self.0, ROOT_CONTEXT, root_bytes)?)
    }
}

/// Packs the folder that [`fill`] makes.
pub(super) fn fixture(digest: DigestKind) -> Fixture {
    fixture_with(digest, None)
}

/// The same, sealed.
pub(super) fn sealed_fixture(digest: DigestKind) -> Fixture {
    let secret = EpochSecret::generate(&AwsLc).expect("random bytes");
    fixture_with(digest, Some(Seal::of(&secret, [9; 32])))
}

/// A delta, the baseline that it goes from, and what it leads to.
pub(super) struct DeltaFixture {
    _folder: tempfile::TempDir,
    /// The baseline of the old revision, and its content key where it is sealed.
    pub(super) base: (PathBuf, PathBuf),
    /// The delta, and its content key where it is sealed.
    pub(super) delta: (PathBuf, PathBuf),
    /// The Distributor's certificate.
    pub(super) certificate: PathBuf,
    /// What the builder says about the new revision.
    pub(super) new: BuiltPackage,
}

/// Packs the folder that [`fill`] makes, changes it in every way, and builds the delta.
pub(super) fn delta_fixture(sealed: bool) -> DeltaFixture {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    let (source, certificate) = (at("source"), at("dist.example.com.cer"));
    fs::create_dir(&source).expect("made");
    fill(&source);
    let name = "dist.example.com".parse().expect("a name");
    let authority = Authority::create(&AwsLc, &name, NOW).expect("made");
    let signer = Signer(authority.issue_identity(&AwsLc, Usage::Sign, &name, NOW).expect("issued"));
    fs::write(&certificate, authority.root().certificate().pem()).expect("written");
    let options = |number: u64| {
        let label = "site".parse().expect("a label");
        let distribution = DistributionId::from_bytes([7; 16]);
        let mut options = BuildOptions::new(distribution, label, authority.root().key_hash(), 2);
        (options.revision, options.created) = (Revision::from_number(NOW.millis() + number), NOW);
        let secret = EpochSecret::generate(&AwsLc).expect("random bytes");
        options.seal = sealed.then(|| Seal::of(&secret, [number as u8; 32]));
        options
    };
    let key = |path: PathBuf, options: &BuildOptions| {
        if let Some(seal) = &options.seal {
            let hex: String = seal.key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(&path, hex).expect("written");
        }
        path
    };
    let build = |package: &Path, options: &BuildOptions| {
        let tree = FolderSource::new(source.clone(), Selection::default(), Unreadable::Refuse);
        let entries = tree.entries(&mut |_| {}).expect("readable");
        let mut out = File::create(package).expect("made");
        build_baseline(&tree, entries, options, &signer, &mut out, &|_| {}).expect("builds")
    };
    let (base, new_path, delta) = (at("base.ted"), at("new.ted"), at("delta.ted"));
    let first = options(0);
    let old = build(&base, &first);
    change(&source);
    let new = build(&new_path, &options(1));
    let last = options(2);
    let files = [&base, &new_path].map(|path| File::open(path).expect("there"));
    let [old_files, new_files] =
        [(&old, &files[0]), (&new, &files[1])].map(|(built, file)| PackageFiles::new(built.index.clone(), file));
    let from = RevisionContent { number: old.root.revision, entries: old.catalog(), files: &old_files };
    let to = RevisionContent { number: new.root.revision, entries: new.catalog(), files: &new_files };
    let mut out = File::create(&delta).expect("made");
    build_delta(&from, &to, &last, &signer, &mut out, &|_| {}).expect("builds");
    let base = (base, key(at("base.key"), &first));
    let delta = (delta, key(at("delta.key"), &last));
    DeltaFixture { _folder: folder, base, delta, certificate, new }
}

/// Every kind of change: content small and large, moved, removed, added, another kind, mode and time.
fn change(root: &Path) {
    let mut large = fs::read(root.join("large")).expect("there");
    large.splice(3 << 20..3 << 20, b"a few bytes in the middle".repeat(40));
    write(&root.join("large"), &large);
    write(&root.join("a"), b"before a-b, which is before a/b in path order, as it was");
    fs::rename(root.join("four MiB"), root.join("moved")).expect("moved");
    fs::remove_file(root.join("zero")).expect("removed");
    fs::create_dir(root.join("zero")).expect("made");
    write(&root.join("zero/now in a folder"), b"new");
    write(&root.join("sparse"), b"");
    fs::remove_file(root.join("raw link")).expect("removed");
    symlink("elsewhere", root.join("raw link")).expect("made");
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o755)).expect("set");
    set_time(&root.join("ümläut"), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
}

fn fixture_with(digest: DigestKind, seal: Option<Seal>) -> Fixture {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    let (source, package, certificate) = (at("source"), at("distfile.ted"), at("dist.example.com.cer"));
    let key = at("content.key");
    fs::create_dir(&source).expect("made");
    fill(&source);

    let name = "dist.example.com".parse().expect("a name");
    let authority = Authority::create(&AwsLc, &name, NOW).expect("made");
    let identity = authority.issue_identity(&AwsLc, Usage::Sign, &name, NOW).expect("issued");
    fs::write(&certificate, authority.root().certificate().pem()).expect("written");

    if let Some(seal) = &seal {
        let hex: String = seal.key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(&key, hex).expect("written");
    }

    let label = "site".parse().expect("a label");
    let mut options = BuildOptions::new(DistributionId::from_bytes([7; 16]), label, authority.root().key_hash(), 2);
    (options.revision, options.created, options.digest) = (Revision::from_number(NOW.millis()), NOW, digest);
    options.seal = seal;
    let tree = FolderSource::new(source.clone(), Selection::default(), Unreadable::Refuse);
    let entries = tree.entries(&mut |_| {}).expect("readable");
    let mut out = File::create(&package).expect("made");
    let built = build_baseline(&tree, entries, &options, &Signer(identity), &mut out, &|_| {}).expect("builds");
    Fixture { _folder: folder, source, package, certificate, key, built }
}

/// Hard links, symlinks, names that are not UTF-8, long ones, empty folders, and times of all kinds.
fn fill(root: &Path) {
    let long = "l".repeat(255);
    let deep = root.join("d".repeat(120)).join("e".repeat(120)).join("f".repeat(120));
    fs::create_dir_all(root.join("empty/also empty")).expect("made");
    fs::create_dir_all(&deep).expect("made");
    write(&deep.join(&long), b"long");
    write(&root.join("zero"), b"");
    write(&root.join("a"), b"before a-b, which is before a/b in path order");
    write(&root.join("ümläut"), b"UTF-8");
    write(&root.join(OsStr::from_bytes(b"not utf-8 \xff\xfe")), b"raw");
    write(&deep.join(OsStr::from_bytes(&[b'\xff'; 150])), b"raw and long");
    write(&root.join("four MiB"), &vec![1; 4 << 20]);
    write(&root.join("large"), &(0..(9_u32 << 20)).map(|at| (at / 777) as u8).collect::<Vec<_>>());
    File::create(root.join("sparse")).expect("made").set_len(5 << 20).expect("set");

    symlink("/nowhere/at/all", root.join("absolute")).expect("made");
    symlink("../..", root.join("empty/up")).expect("made");
    symlink(&long, root.join("long link")).expect("made");
    symlink(OsStr::from_bytes(&[b'\xfe'; 180]), root.join("raw link")).expect("made");
    fs::hard_link(root.join("large"), root.join("empty/large too")).expect("made");
    fs::hard_link(root.join("absolute"), root.join("zz")).expect("made");
    fs::hard_link(deep.join(&long), root.join("short")).expect("made");

    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o6755)).expect("set");
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1770)).expect("set");
    let epoch = SystemTime::UNIX_EPOCH;
    set_time(&root.join("a"), epoch + Duration::new(1_700_000_000, 123_456_789));
    set_time(&root.join("zero"), epoch - Duration::from_millis(1_250));
    set_time(&root.join("ümläut"), epoch - Duration::from_secs(100));
    set_time(&root.join("four MiB"), epoch + Duration::from_secs(1_600_000_000));
    set_time(&root.join("empty/also empty"), epoch + Duration::new(1_600_000_000, 1));
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("written");
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).expect("there").set_modified(time).expect("set");
}
