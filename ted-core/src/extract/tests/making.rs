//! Contents that are made, and not read from a body's frames.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::{Built, Tree, look, noise, open, path, scratch};
use crate::error::Coded;
use crate::extract::run::extract_with;
use crate::extract::step::{Hook, Step};
use crate::extract::{
    ContentMaker, Contents, ExtractError, ExtractOptions, ExtractPhase, ExtractSummary, MakeContent, MakeError, extract,
};
use crate::package::CatalogRow;
use crate::package::delta::DeltaError;

impl MakeContent for Built {
    fn threads_max(&self) -> usize {
        2
    }

    fn maker(&self) -> Box<dyn ContentMaker + '_> {
        Box::new(Maker { built: self, spoil: Spoil::Nothing })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoil {
    Nothing,
    Byte,
    Short,
    Long,
    Base,
}

struct Maker<'a> {
    built: &'a Built,
    spoil: Spoil,
}

impl ContentMaker for Maker<'_> {
    fn make(&mut self, entry: usize, out: &mut dyn Write) -> Result<(), MakeError> {
        let row = &self.built.rows[entry];
        let from = row.offset as usize;
        let mut content = self.built.frames.body[from..from + row.entry.size as usize].to_vec();
        match self.spoil {
            Spoil::Nothing => {}
            Spoil::Byte => content[0] ^= 1,
            Spoil::Short => drop(content.pop()),
            Spoil::Long => content.push(0),
            Spoil::Base => return Err(DeltaError::Content { path: row.entry.path.clone() }.into()),
        }
        // Pieces of odd lengths, as operations have them.
        content.chunks(9_999).try_for_each(|piece| out.write_all(piece)).map_err(MakeError::Sink)
    }
}

/// Spoils every content.
struct Spoiled<'a>(&'a Built, Spoil);

impl MakeContent for Spoiled<'_> {
    fn threads_max(&self) -> usize {
        2
    }

    fn maker(&self) -> Box<dyn ContentMaker + '_> {
        Box::new(Maker { built: self.0, spoil: self.1 })
    }
}

fn tree() -> Tree {
    let mut holes = noise("begin", 70_000);
    holes.resize(9_000_000, 0);
    let mut middle = vec![0; 300_000];
    middle.extend(noise("end", 5));
    Tree::new()
        .file("a", b"a")
        .file("b/empty", b"")
        .file("b/holes", &holes)
        .file("b/middle", &middle)
        .file("c", &noise("c", 600_000))
        .file("d", &noise("d", 63))
        .hard("e", "d")
}

/// Rows as those of a revision that is made have them.
fn without_places(rows: &[CatalogRow]) -> Vec<CatalogRow> {
    rows.iter().map(|row| CatalogRow { entry: row.entry.clone(), offset: 0 }).collect()
}

fn extract_made(built: &Built, contents: &dyn MakeContent, at: &Path) -> Result<ExtractSummary, ExtractError> {
    let (options, rows) = (ExtractOptions::default(), without_places(&built.rows));
    let job = super::ExtractJob { rows: &rows, contents: Contents::Made(contents), ..built.job(None, &options) };
    extract(&open(at), &job, &|_| {}, &AtomicBool::new(false))
}

#[test]
fn made_contents_come_out_as_those_of_frames_do() {
    let (_folder, at) = scratch();
    let built = tree().build();
    let (options, rows) = (ExtractOptions::default(), without_places(&built.rows));
    let job = super::ExtractJob { rows: &rows, contents: Contents::Made(&built), ..built.job(None, &options) };
    let last = std::sync::Mutex::new(None);
    let report = |progress: crate::extract::ExtractProgress| {
        if progress.phase == ExtractPhase::Staging {
            *last.lock().expect("mine") = Some(progress);
        }
    };
    let made = extract(&open(&at), &job, &report, &AtomicBool::new(false)).expect("made");
    assert_eq!(look(&at), tree().seen());
    let last = last.into_inner().expect("mine").expect("reported");
    assert_eq!((last.bytes, last.entries), (last.bytes_total, last.entries_total));
    let (_other, beside) = scratch();
    assert_eq!(built.extract_to(&beside, None).expect("from frames"), made);
}

#[test]
fn made_contents_have_holes_where_there_are_zeros() {
    use std::os::unix::fs::MetadataExt;
    let (_folder, at) = scratch();
    let built = tree().build();
    extract_made(&built, &built, &at).expect("made");
    let holes = at.join("b/holes").metadata().expect("there");
    assert_eq!(holes.len(), 9_000_000);
    assert!(holes.blocks() * 512 < 1_000_000, "{} blocks", holes.blocks());
}

#[test]
fn a_made_content_that_is_wrong_too_short_or_too_long_changes_nothing_and_is_named() {
    let cases =
        [(Spoil::Byte, "TED-1409"), (Spoil::Short, "TED-1409"), (Spoil::Long, "TED-1409"), (Spoil::Base, "TED-1025")];
    for (spoil, code) in cases {
        let (_folder, at) = scratch();
        let built = Tree::new().file("f", &noise("f", 600_000)).build();
        let error = extract_made(&built, &Spoiled(&built, spoil), &at).expect_err("spoiled");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains('f'));
        assert!(!at.exists());
    }
}

/// The disk is full from the first content on.
struct Full;

impl Hook for Full {
    fn before(&self, step: Step) -> io::Result<()> {
        if step == Step::WriteFile { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[test]
fn a_disk_that_is_full_is_no_damage_of_what_contents_are_made_from() {
    let (_folder, at) = scratch();
    let built = Tree::new().file("f", &noise("f", 600_000)).build();
    let options = ExtractOptions::default();
    let job = super::ExtractJob { contents: Contents::Made(&built), ..built.job(None, &options) };
    let error = extract_with(&open(&at), &job, &Full).expect_err("full");
    assert_eq!(error.code(), "TED-1410", "{error}");
    assert!(!at.exists());
}

#[test]
fn a_cancelled_making_changes_nothing() {
    let (_folder, at) = scratch();
    let built = Tree::new().file("f", &noise("f", 600_000)).build();
    let options = ExtractOptions::default();
    let job = super::ExtractJob { contents: Contents::Made(&built), ..built.job(None, &options) };
    let error = extract(&open(&at), &job, &|_| {}, &AtomicBool::new(true)).expect_err("cancelled");
    assert_eq!(error.code(), "TED-1418");
    assert!(!at.exists());
    assert_eq!(built.rows[1].entry.path, path("f"));
}
