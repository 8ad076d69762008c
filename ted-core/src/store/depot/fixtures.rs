//! Small real packages for tests.

use std::io::{self, Read};

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis};
use crate::name::Label;
use crate::package::{
    BuildOptions, Entry, EntryKind, EntryPath, Mtime, PackageKind, RootSigner, Skipped, Source, SourceError,
    SourceFile, build_baseline,
};
use crate::security::Signature;
use crate::store::depot::PackagePlace;

/// A baseline of an empty tree, signed by nobody: the same name and revision give the same bytes.
pub(super) fn package(name: &str, revision: u64) -> Vec<u8> {
    let distribution = DistributionId::from_bytes([name.len() as u8; 16]);
    let mut options = BuildOptions::new(distribution, label(name), KeyHash::from_bytes([9; 32]), 1);
    options.revision = Revision::from_number(revision);
    options.created = UnixMillis::from_millis(revision);
    let root = Entry {
        path: EntryPath::root(),
        kind: EntryKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds: 0, nanoseconds: 0 },
        size: 0,
        link: Vec::new(),
        content: Entry::NO_CONTENT,
        extensions: Vec::new(),
    };
    let mut bytes = Vec::new();
    build_baseline(&EmptyTree, vec![root], &options, &Nobody, &mut bytes, &|_| {}).expect("built");
    bytes
}

pub(super) fn place(name: &str, revision: u64) -> PackagePlace {
    PackagePlace::at_distributor(&label(name), Revision::from_number(revision), PackageKind::Baseline)
}

pub(super) fn place_at_subscriber(name: &str, revision: u64) -> PackagePlace {
    let distributor = "dist.example.com".parse().expect("valid");
    PackagePlace::at_subscriber(&distributor, &label(name), Revision::from_number(revision), PackageKind::Baseline)
}

fn label(name: &str) -> Label {
    name.parse().expect("valid")
}

struct EmptyTree;

impl Source for EmptyTree {
    fn entries(&self, _: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        Ok(Vec::new())
    }

    fn open(&self, _: &Entry, _: u64) -> Result<Box<dyn SourceFile>, SourceError> {
        Ok(Box::new(EmptyFile))
    }
}

struct EmptyFile;

impl Read for EmptyFile {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl SourceFile for EmptyFile {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

struct Nobody;

impl RootSigner for Nobody {
    fn sign_root(&self, _: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Signature { algorithm: 1, certificate: vec![1], signature: vec![2] })
    }
}
