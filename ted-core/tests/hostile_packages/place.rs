//! A place with a target in it that an honest revision was extracted to, and others that nothing may touch.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use ted_core::Error;
use ted_core::extract::{Create, ExtractJob, ExtractOptions, Target, extract};
use ted_core::limits::Limits;
use ted_core::package::{BodyReader, Entry, PackageIndex, ROOT_CONTEXT, Root, read_index};
use ted_core::security::{Signature, Usage};

use super::forge::{Distributor, FILE, FOLDER, Forge, SYMLINK};

pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) distributor: Distributor,
    previous: Vec<Entry>,
}

/// What the honest revision before has: a link out of the target among it, as data.
pub(crate) fn honest() -> Forge {
    Forge::of(&[
        (b"dir", FOLDER, b""),
        (b"dir/inner", FILE, b"inner"),
        (b"file", FILE, b"old content of a file"),
        (b"out", SYMLINK, b"../outside"),
        (b"zone", FOLDER, b""),
    ])
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut place = Self { folder, distributor: Distributor::new(), previous: vec![] };
        fs::create_dir(place.at("outside")).expect("made");
        fs::write(place.at("outside/sentinel"), "untouched").expect("written");
        let bytes = honest().sign(&place.distributor);
        let index = place.open(&bytes, &Limits::DEFAULT).expect("an honest package is accepted");
        place.extract(&index, &bytes).expect("and extracted");
        place.previous = index.catalog().iter().map(|row| row.entry.clone()).collect();
        place
    }

    pub(crate) fn at(&self, below: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("there").join(below)
    }

    /// Everything a Subscriber does with a package, short of transport.
    pub(crate) fn receive(&self, bytes: &[u8], limits: &Limits) -> Result<(), Error> {
        let index = self.open(bytes, limits)?;
        self.extract(&index, bytes)
    }

    pub(crate) fn judge(&self, root: &Root, bytes: &[u8], signature: &Signature) -> Result<(), Error> {
        let trusted = self.distributor.authority.root();
        assert_eq!(root.distributor, trusted.key_hash());
        Ok(trusted.verify(ROOT_CONTEXT, bytes, signature, Usage::Sign, root.created).map(drop)?)
    }

    pub(crate) fn open(&self, bytes: &[u8], limits: &Limits) -> Result<PackageIndex, Error> {
        read_index(&bytes.to_vec(), limits, |root, bytes, signature| self.judge(root, bytes, signature))
    }

    fn extract(&self, index: &PackageIndex, bytes: &[u8]) -> Result<(), Error> {
        let target = Target::open(&self.at("target"), Create::Missing)?;
        let bytes = bytes.to_vec();
        let job = ExtractJob {
            rows: index.catalog(),
            contents: ted_core::extract::Contents::Frames(&BodyReader::new(index.clone(), &bytes)),
            previous: Some(&self.previous),
            recovered: ted_core::extract::Recovery::Nothing,
            distribution: index.root().distribution,
            revision: index.root().revision,
            options: &ExtractOptions { threads: 2, ..ExtractOptions::default() },
        };
        Ok(extract(&target, &job, &|_| {}, &AtomicBool::new(false)).map(drop)?)
    }

    /// Everything that lies here, with what would change if anybody wrote.
    pub(crate) fn look(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        look_into(self.folder.path(), &mut seen);
        seen
    }

    /// The package is refused with this code, for a reason that says this, and nothing was written anywhere.
    pub(crate) fn refuses(&self, bytes: &[u8], limits: &Limits, (code, says): (&str, &str)) {
        let before = self.look();
        let refused = self.receive(bytes, limits);
        assert_eq!(self.look(), before, "something was written");
        let error = refused.expect_err("it must be refused");
        let told = chain(&error);
        assert_eq!(error.code(), code, "{told}");
        assert!(told.contains(says), "`{told}` does not say `{says}`");
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        told = format!("{told}: {error}");
        source = error.source();
    }
    told
}

fn look_into(at: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let facts = at.symlink_metadata().expect("there");
    let content = match facts.file_type() {
        kind if kind.is_symlink() => at.read_link().expect("readable").into_os_string(),
        kind if kind.is_file() => std::ffi::OsStr::from_bytes(&fs::read(at).expect("readable")).to_owned(),
        _ => Default::default(),
    };
    let (mode, inode, links) = (facts.mode(), facts.ino(), facts.nlink());
    let (seconds, nanoseconds) = (facts.mtime(), facts.mtime_nsec());
    seen.insert(at.to_owned(), format!("{mode:o} {inode} {links} {seconds}.{nanoseconds} {content:?}"));
    if facts.is_dir() {
        for child in fs::read_dir(at).expect("readable") {
            look_into(&child.expect("readable").path(), seen);
        }
    }
}
