//! Packages that were really built, extracted.

use std::io::{self, Cursor, Read};

use super::{DISTRIBUTION, Tree, look, noise, open, scratch};
use crate::extract::{Contents, ExtractOptions, extract};
use crate::id::{KeyHash, Revision};
use crate::package::{
    BodyReader, BuildOptions, Entry, EntryKind, RootSigner, Seal, Skipped, Source, SourceError, SourceFile,
    build_baseline,
};
use crate::security::{EpochSecret, Signature};

struct Content(Cursor<Vec<u8>>);

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl SourceFile for Content {
    fn finish(self: Box<Self>) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Source for Tree {
    fn entries(&self, _skip: &mut dyn FnMut(Skipped)) -> Result<Vec<Entry>, SourceError> {
        let without_hash = |(entry, _): &(Entry, Vec<u8>)| Entry { content: Entry::NO_CONTENT, ..entry.clone() };
        Ok(self.nodes.values().map(without_hash).collect())
    }

    fn open(&self, entry: &Entry, offset: u64) -> Result<Box<dyn SourceFile>, SourceError> {
        let mut content = Cursor::new(self.nodes[&entry.path].1.clone());
        content.set_position(offset);
        Ok(Box::new(Content(content)))
    }
}

struct AnySignature;

impl RootSigner for AnySignature {
    fn sign_root(&self, _root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Signature { algorithm: 1, certificate: Vec::new(), signature: Vec::new() })
    }
}

#[test]
fn built_packages_become_the_trees_that_they_were_built_from() {
    let frame = 64 * 1024;
    let mut tree = Tree::new()
        .symlink("etc", "/etc/x")
        .file("zero", b"")
        .file("sparse", &vec![0; 40 * frame + 17])
        .hard("sparse-hard", "sparse")
        .file(b"\xff", b"not utf8")
        .dir("empty");
    // A frame and its neighbours, two, a power of two of them, and an odd number with a rest.
    for bytes in [frame - 1, frame, frame + 1, 2 * frame, 2 * frame + 1, 8 * frame, 11 * frame + 777] {
        tree = tree.file(format!("sizes/{bytes}"), &noise("sizes", bytes));
    }
    for number in 0..200 {
        tree = tree.file(format!("many/{}/{number}", number % 9), &noise("many", number * 31));
    }
    let seal = Seal::of(&EpochSecret::from_bytes([1; 32]), [2; 32]);
    for seal in [None, Some(seal)] {
        extracted_is_built(&tree, frame as u32, seal);
    }
}

fn extracted_is_built(tree: &Tree, frame_bytes: u32, seal: Option<Seal>) {
    let name = "site".parse().expect("a label");
    let mut options = BuildOptions::new(DISTRIBUTION, name, KeyHash::from_bytes([1; 32]), 2);
    (options.frame_bytes, options.seal) = (frame_bytes, seal);
    options.revision = Revision::from_number(2);
    let mut bytes = Vec::new();
    let entries = tree.entries(&mut |_| {}).expect("in memory");
    let built = build_baseline(tree, entries, &options, &AnySignature, &mut bytes, &|_| {}).expect("nothing wrong");

    let (_folder, at) = scratch();
    let frames = BodyReader::new(built.index.clone(), &bytes);
    let extract_options = ExtractOptions { threads: 3, ..ExtractOptions::default() };
    let of_memory = tree.build();
    let mut job = of_memory.job(None, &extract_options);
    job.rows = built.catalog();
    job.contents = Contents::Frames(&frames);
    let summary = extract(&open(&at), &job, &|_| {}, &Default::default()).expect("fresh");
    assert_eq!(look(&at), tree.seen());
    let files = built.catalog().iter().filter(|row| row.entry.kind == EntryKind::File).count();
    assert_eq!(summary.files_written, files as u64);
}
