//! Catalogs of deltas that no build makes.

use std::io;

use crate::id::{DistributionId, Hash, KeyHash, Revision};
use crate::limits::Limits;
use crate::security::Signature;

use super::super::build::{BuildOptions, RootSigner};
use super::super::entry::{Entry, EntryKind, EntryPath, Mtime};
use super::super::error::PackageError;
use super::build::{RevisionContent, build_delta};
use super::columns::{Columns, content_from, operation, says};
use super::error::DeltaError;
use super::files::Files;
use super::index::{DeltaCatalog, DeltaIndex, OpenedDelta};

struct Memory(Vec<Vec<u8>>);

impl Files for Memory {
    fn read_at(&self, file: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&self.0[file][offset as usize..][..buf.len()]);
        Ok(())
    }
}

struct Unsigned;

impl RootSigner for Unsigned {
    fn sign_root(&self, _: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Signature { algorithm: Signature::ECDSA_P256_SHA256, certificate: vec![], signature: vec![] })
    }
}

fn list(entries: &[(&str, EntryKind, &[u8], i64)]) -> (Vec<Entry>, Memory) {
    let entry = |&(path, kind, content, seconds): &(&str, EntryKind, &[u8], i64)| Entry {
        path: EntryPath::from_bytes(path.as_bytes()).expect("valid"),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds, nanoseconds: 0 },
        size: content.len() as u64,
        link: Vec::new(),
        content: if kind == EntryKind::File { Hash::of(content) } else { Entry::NO_CONTENT },
        extensions: Vec::new(),
    };
    (entries.iter().map(entry).collect(), Memory(entries.iter().map(|entry| entry.2.to_vec()).collect()))
}

/// The old entries, and a delta that changes `a`, removes `b`, adds `c` with the content of `d/x`, touches this, and
/// adds `e`.
fn honest() -> (Vec<Entry>, DeltaIndex) {
    use EntryKind::{Directory, File};
    let (old, old_files) = list(&[
        ("", Directory, b"", 0),
        ("a", File, b"old content of a", 0),
        ("b", File, b"b", 0),
        ("d", Directory, b"", 0),
        ("d/x", File, b"content of x", 0),
    ]);
    let (new, new_files) = list(&[
        ("", Directory, b"", 0),
        ("a", File, b"new content of a", 0),
        ("c", File, b"content of x", 0),
        ("d", Directory, b"", 0),
        ("d/x", File, b"content of x", 7),
        ("e", File, b"content of e", 0),
    ]);
    let name = "site".parse().expect("valid");
    let options = BuildOptions::new(DistributionId::from_bytes([1; 16]), name, KeyHash::from_bytes([2; 32]), 1);
    let [from, to] = [(1, &old, &old_files), (2, &new, &new_files)].map(|(number, entries, files)| RevisionContent {
        number: Revision::from_number(number),
        entries: entries.as_slice(),
        files,
    });
    let built = build_delta(&from, &to, &options, &Unsigned, &mut Vec::new(), &|_| {}).expect("builds");
    (old, built.index)
}

/// What resolving says when the catalog's columns are `columns`.
fn resolve(old: &[Entry], index: &DeltaIndex, columns: Columns) -> Result<(), DeltaError> {
    let catalog = DeltaCatalog { base: index.catalog().base, columns };
    let opened = OpenedDelta { disclosure: index.disclosure().clone(), catalog, sealer: None };
    DeltaIndex::new(index.blind().clone(), opened).resolve(old, &Limits::DEFAULT).map(drop)
}

#[test]
fn the_honest_catalog_is_accepted() {
    let (old, index) = honest();
    let columns = index.catalog().columns.clone();
    // What the cases below rely on.
    let added = says::ADDED | says::CONTENT;
    assert_eq!(columns.rows, [says::CONTENT, added, says::MTIME, added]);
    assert_eq!((&columns.removed[..], &columns.changed[..]), (&[2][..], &[1, 2][..]));
    assert_eq!(columns.operations, [operation::BODY, operation::BODY]);
    assert!(resolve(&old, &index, columns).is_ok());
}

#[test]
fn catalogs_that_no_build_makes_are_refused() {
    type Change = fn(&mut Columns);
    let cases: &[(&str, Change)] = &[
        ("a row that says nothing", |columns| columns.rows[2] = 0),
        ("a row that says something unknown", |columns| columns.rows[2] |= 128),
        ("a row too many", |columns| columns.rows.push(says::MTIME)),
        ("a row too few", |columns| columns.rows.truncate(3)),
        ("a column that ends early", |columns| columns.sizes.truncate(1)),
        ("a column that goes on", |columns| columns.modes.push(0)),
        ("bytes that nobody takes", |columns| columns.path_bytes.push(b'x')),
        ("a removed entry that is none", |columns| columns.removed[0] = 5),
        ("a removed entry without end", |columns| columns.removed[0] = u32::MAX),
        ("a removed root", |columns| columns.removed[0] = 0),
        ("a removed folder of what stays", |columns| columns.removed[0] = 3),
        ("an entry removed and changed", |columns| columns.removed[0] = 1),
        ("a changed entry that is none", |columns| columns.changed[1] = 100),
        ("rows out of order", |columns| columns.path_bytes[0] = b'f'),
        ("an added entry that is there", |columns| columns.path_bytes[0] = b'd'),
        ("an added path that leads out", |columns| columns.path_bytes[0] = b'/'),
        ("an added path that is none", |columns| columns.path_bytes[0] = b'.'),
        ("an added path with a NUL", |columns| columns.path_bytes[0] = 0),
        ("an added root", |columns| columns.path_lengths[0] = 0),
        ("a path without a begin", |columns| columns.path_shared[0] = 1),
        ("a path without end", |columns| columns.path_lengths[0] = u32::MAX),
        ("an unknown kind", |columns| columns.kinds[0] = 4),
        ("a folder with content", |columns| columns.kinds[0] = 0),
        ("a link without target", |columns| columns.kinds[1] = 2),
        ("mode bits beyond", |columns| columns.modes[0] = 0o10000),
        ("a second too many", |columns| columns.mtime_nanoseconds[0] = 1_000_000_000),
        ("another time", |columns| columns.mtime_seconds[0] += 1),
        ("content from nowhere", |columns| columns.content_from[0] = 3),
        ("the content of a folder", |columns| columns.same_as[0] = 3),
        ("the content of what is not there", |columns| columns.same_as[0] = 5),
        ("the content of another file", |columns| columns.same_as[0] = 2),
        ("another content", |columns| columns.contents[0] = Hash::of(b"x")),
        ("another size", |columns| columns.sizes[0] += 1),
        ("operations without end", |columns| columns.operation_counts[0] = u32::MAX),
        ("no operations", |columns| columns.operation_counts[0] = 0),
        ("an operation that does nothing", |columns| columns.operation_bytes[0] = 0),
        ("an operation beyond the body", |columns| columns.operation_bytes[0] = u64::MAX),
        ("operations that add up beyond all numbers", |columns| columns.operation_bytes.fill(u64::MAX)),
        ("an unknown operation", |columns| columns.operations[0] = 2),
        ("a copy beyond the old file", |columns| copy(columns, 1, 8)),
        ("a copy beyond all numbers", |columns| copy(columns, 1, u64::MAX)),
        ("a copy of a folder", |columns| copy(columns, 3, 0)),
        ("a copy of what is not there", |columns| copy(columns, u32::MAX, 0)),
        ("a copy instead of the body", |columns| copy(columns, 1, 0)),
        ("a prefix beyond the old file", |columns| columns.prefix_offsets[0] = 1),
        ("a prefix beyond all numbers", |columns| columns.prefix_offsets[0] = u64::MAX),
        ("a prefix of a folder", |columns| columns.prefix_files[0] = 0),
        ("an empty prefix range", |columns| columns.prefix_bytes[0] = 0),
        ("a prefix longer than allowed", |columns| columns.prefix_bytes[0] = u32::MAX),
        ("prefixes of frames that are not there", |columns| columns.prefix_counts.push(0)),
        ("a frame without a prefix", |columns| columns.prefix_counts.clear()),
    ];
    let (old, index) = honest();
    for (what, change) in cases {
        let mut columns = index.catalog().columns.clone();
        change(&mut columns);
        let error = resolve(&old, &index, columns).expect_err(what);
        let right = matches!(
            error,
            DeltaError::Package(PackageError::Structure { .. } | PackageError::Catalog { .. } | PackageError::Codec(_))
        );
        assert!(right, "{what}: {error}");
    }
}

/// Makes the first operation a copy.
fn copy(columns: &mut Columns, file: u32, offset: u64) {
    columns.operations[0] = operation::COPY;
    columns.copy_files.push(file);
    columns.copy_offsets.push(offset);
}

#[test]
fn an_empty_file_by_operations_is_refused() {
    let (old, index) = honest();
    let mut columns = index.catalog().columns.clone();
    assert_eq!(columns.content_from.last(), Some(&content_from::OPERATIONS));
    *columns.operation_counts.last_mut().expect("there") = 0;
    *columns.sizes.last_mut().expect("there") = 0;
    columns.operations.pop();
    columns.operation_bytes.pop();
    assert!(resolve(&old, &index, columns).is_err());
}

#[test]
fn a_list_longer_than_stated_is_not_put_together() {
    let (old, index) = honest();
    for entries in [0, 5, 7, u64::MAX] {
        let mut disclosure = index.disclosure().clone();
        disclosure.entries = entries;
        let catalog = DeltaCatalog { base: index.catalog().base, columns: index.catalog().columns.clone() };
        let opened = OpenedDelta { disclosure, catalog, sealer: None };
        let index = DeltaIndex::new(index.blind().clone(), opened);
        assert!(index.resolve(&old, &Limits::DEFAULT).is_err(), "{entries}");
    }
}

#[test]
fn a_catalog_longer_than_allowed_is_refused_undecoded() {
    let limits = Limits::DEFAULT;
    assert!(super::judge_bytes(limits.delta_catalog_bytes_max, &limits).is_ok());
    assert!(super::judge_bytes(limits.delta_catalog_bytes_max + 1, &limits).is_err());
}
