//! Deltas: signed operations that lie about what they take from where.

use std::collections::BTreeMap;

use ted_core::Error;
use ted_core::codec;
use ted_core::id::{Hash, KeyHash, Revision};
use ted_core::limits::Limits;
use ted_core::package::delta::{Applier, DeltaError, PackageFiles, RevisionContent, build_delta};
use ted_core::package::{BuildOptions, PackageKind, Root, read_delta_index};

use super::forge::{DISTRIBUTION, FILE, FOLDER, Forge, Frame, SYMLINK, compress, endless};
use super::place::{Place, chain};

const STRUCTURE: &str = "TED-1013";
const CATALOG: &str = "TED-1017";
const FRAME: &str = "TED-1016";
const BASE: &str = "TED-1023";
const CONTENT: &str = "TED-1025";
const UNSUPPORTED: &str = "TED-1014";
const VALUE: &str = "TED-1002";

/// The columns of a delta's catalog in their order, and the bytes of one element (format, section 10).
const COLUMNS: [(&str, usize); 29] = [
    ("removed", 4),
    ("rows", 1),
    ("changed", 4),
    ("path shared", 4),
    ("path lengths", 4),
    ("kinds", 1),
    ("modes", 4),
    ("uids", 4),
    ("gids", 4),
    ("mtime seconds", 8),
    ("mtime nanoseconds", 4),
    ("link lengths", 4),
    ("extension lengths", 4),
    ("content from", 1),
    ("same as", 4),
    ("sizes", 8),
    ("contents", 32),
    ("operation counts", 4),
    ("operations", 1),
    ("operation bytes", 8),
    ("copy files", 4),
    ("copy offsets", 8),
    ("prefix counts", 4),
    ("prefix files", 4),
    ("prefix offsets", 8),
    ("prefix bytes", 4),
    ("path bytes", 1),
    ("link bytes", 1),
    ("extension bytes", 1),
];

/// A delta in parts.
struct Delta {
    forge: Forge,
    base: Vec<u8>,
    columns: BTreeMap<&'static str, Vec<u8>>,
}

impl Delta {
    /// Element number `at` of a column becomes `value`.
    fn set(&mut self, column: &'static str, at: usize, value: u64) {
        let bytes = COLUMNS.iter().find(|known| known.0 == column).expect("known").1;
        let column = self.columns.get_mut(column).expect("known");
        column[at * bytes..(at + 1) * bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }

    fn push(&mut self, column: &'static str, value: u64) {
        let bytes = COLUMNS.iter().find(|known| known.0 == column).expect("known").1;
        self.columns.get_mut(column).expect("known").extend(&value.to_le_bytes()[..bytes]);
    }

    /// The first operation becomes a copy out of this old file.
    fn copy(&mut self, file: u64, offset: u64) {
        self.set("operations", 0, 1);
        self.push("copy files", file);
        self.push("copy offsets", offset);
    }

    fn sign(&self, place: &Place) -> Vec<u8> {
        let mut raw = self.base.clone();
        for (name, bytes) in COLUMNS {
            let column = &self.columns[name];
            raw.extend(((column.len() / bytes) as u64).to_le_bytes());
            raw.extend(column);
        }
        Forge { catalog: Some(vec![raw]), ..self.forge.clone() }.sign(&place.distributor)
    }
}

/// The two revisions and what leads from one to the other.
struct Pair {
    place: Place,
    old: Vec<u8>,
    delta: Delta,
}

fn old() -> Forge {
    Forge::of(&[
        (b"a", FILE, b"old content of a"),
        (b"b", FILE, b"b"),
        (b"d", FOLDER, b""),
        (b"d/x", FILE, b"content of x"),
        (b"out", SYMLINK, b"../outside"),
    ])
}

fn new() -> Forge {
    let mut new = Forge::of(&[
        (b"a", FILE, b"new content of a"),
        (b"c", FILE, b"content of x"),
        (b"d", FOLDER, b""),
        (b"d/x", FILE, b"content of x"),
        (b"e", FILE, b"content of e"),
        (b"out", SYMLINK, b"../outside"),
    ]);
    new.revision = 8;
    new
}

impl Pair {
    fn new() -> Self {
        let place = Place::new();
        let [old, new] = [old(), new()].map(|forge| forge.sign(&place.distributor));
        let [old_index, new_index] = [&old, &new].map(|bytes| place.open(bytes, &Limits::DEFAULT).expect("honest"));
        let options = BuildOptions::new(DISTRIBUTION, "site".parse().expect("valid"), KeyHash::from_bytes([0; 32]), 1);
        let files =
            [(&old_index, &old), (&new_index, &new)].map(|(index, bytes)| PackageFiles::new(index.clone(), bytes));
        let [from, to] = [(&old_index, &files[0]), (&new_index, &files[1])].map(|(index, files)| RevisionContent {
            number: index.root().revision,
            entries: index.catalog(),
            files,
        });
        let mut bytes = vec![];
        build_delta(&from, &to, &options, &place.distributor, &mut bytes, &|_| {}).expect("built");
        drop(files);
        Self { delta: take_apart(&bytes), place, old }
    }

    /// What a Subscriber does with a delta before it writes anything to a target: judge it, and make every file.
    fn receive(&self, bytes: &[u8]) -> Result<(), Error> {
        let limits = Limits::DEFAULT;
        let old = self.place.open(&self.old, &limits)?;
        let bytes = bytes.to_vec();
        let index =
            read_delta_index(&bytes, &limits, |root, bytes, signature| self.place.judge(root, bytes, signature))?;
        let files = PackageFiles::new(old.clone(), &self.old);
        let made = || -> Result<(), DeltaError> {
            let resolved = index.resolve(old.catalog(), &limits)?;
            let mut applier = Applier::new(&index, &resolved, &bytes, (old.catalog(), &files));
            resolved.contents.iter().try_for_each(|content| applier.write(content, &mut std::io::sink()))
        };
        Ok(made()?)
    }

    fn refuses(&self, (code, says): (&str, &str)) {
        let before = self.place.look();
        let error = self.receive(&self.delta.sign(&self.place)).expect_err("it must be refused");
        assert_eq!(self.place.look(), before, "something was written");
        let told = chain(&error);
        assert_eq!(error.code(), code, "{told}");
        assert!(told.contains(says), "`{told}` does not say `{says}`");
    }
}

/// Reads a delta with one catalog frame as its format says.
fn take_apart(bytes: &[u8]) -> Delta {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight")) as usize;
    let tail = bytes.len() - 72 + 16;
    let [catalog, _, table, _, root_at] = [0, 1, 2, 3, 4].map(|field| number(tail + 8 * field));
    let root_bytes = u32::from_le_bytes(bytes[root_at + 8..root_at + 12].try_into().expect("four")) as usize;
    let root: Root = codec::decode("root", &bytes[root_at + 12..][..root_bytes], 1 << 16).expect("a root");
    assert_eq!(root.catalog_frames, 1);
    let mut at = 16;
    let rows = bytes[table + 8..][..40 * root.body_frames as usize].chunks(40);
    let frames = rows.map(|row| {
        let [stored_bytes, raw_bytes] = [0, 4].map(|at| u32::from_le_bytes(row[at..at + 4].try_into().expect("four")));
        let stored = bytes[at..][..stored_bytes as usize].to_vec();
        at += stored_bytes as usize;
        Frame { stored, raw_bytes }
    });
    let frames = frames.collect();
    let raw = zstd::bulk::decompress(&bytes[catalog + 8..table], 1 << 24).expect("a frame");
    let (base, mut rest) = raw.split_at(40);
    let columns = COLUMNS.map(|(name, bytes)| {
        let (count, behind) = rest.split_at(8);
        let length = u64::from_le_bytes(count.try_into().expect("eight")) as usize * bytes;
        let (column, behind) = behind.split_at(length);
        rest = behind;
        (name, column.to_vec())
    });
    assert!(rest.is_empty());
    let disclosure = root.disclosure.expect("not sealed");
    let forge = Forge {
        revision: root.revision.number(),
        kind: root.kind,
        frames,
        disclosed: Some((disclosure.content, disclosure.entries)),
        ..Forge::of(&[])
    };
    Delta { forge, base: base.to_vec(), columns: columns.into() }
}

#[test]
fn what_the_other_cases_change_is_accepted_as_it_is() {
    let pair = Pair::new();
    assert_eq!(pair.delta.columns["operations"], [0, 0], "what the cases rely on");
    assert_eq!(pair.delta.columns["rows"], [64, 65, 65]);
    pair.receive(&pair.delta.sign(&pair.place)).expect("nothing is wrong with it");
}

macro_rules! refused {
    ($($name:ident: $code:ident, $says:literal, $change:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let mut pair = Pair::new();
                let change: fn(&mut Delta) = $change;
                change(&mut pair.delta);
                pair.refuses(($code, $says));
            }
        )*
    };
}

refused! {
    an_added_path_that_is_absolute: STRUCTURE, "a path that is none", |delta| delta.set("path bytes", 0, b'/'.into());
    an_added_path_that_climbs_out: STRUCTURE, "a path that is none", |delta| {
        delta.set("path lengths", 0, 4);
        delta.columns.get_mut("path bytes").expect("there").splice(0..1, *b"../c");
    };
    an_added_path_with_a_nul: STRUCTURE, "a path that is none", |delta| delta.set("path bytes", 0, 0);
    an_added_path_through_a_symlink: CATALOG, "`out/c`", |delta| {
        // Behind `e`, which is added too.
        delta.set("path lengths", 1, 5);
        delta.columns.get_mut("path bytes").expect("there").splice(1..2, *b"out/c");
    };
    an_added_path_that_is_there: CATALOG, "duplicate", |delta| delta.set("path bytes", 0, b'd'.into());
    an_added_device: STRUCTURE, "a kind of entry", |delta| delta.set("kinds", 0, 4);
    added_entries_in_disorder: CATALOG, "out of order", |delta| delta.set("path bytes", 0, b'z'.into());
    a_path_of_four_gibibytes: STRUCTURE, "ends early", |delta| delta.set("path lengths", 0, u32::MAX.into());
    a_removed_root: CATALOG, "root folder", |delta| delta.set("removed", 0, 0);
    a_removed_folder_with_files_left_in_it: CATALOG, "`d/x`", |delta| delta.set("removed", 0, 3);
    a_removed_entry_that_is_none: STRUCTURE, "", |delta| delta.set("removed", 0, u32::MAX.into());
    an_entry_removed_and_changed: STRUCTURE, "removed and changed", |delta| delta.set("removed", 0, 1);
    a_changed_entry_that_is_none: STRUCTURE, "", |delta| delta.set("changed", 0, u32::MAX.into());
    a_row_that_says_something_unknown: STRUCTURE, "does not know", |delta| delta.set("rows", 0, 192);
    a_column_that_is_not_used_up: STRUCTURE, "all that it has", |delta| delta.push("modes", 0);
    a_column_that_ends_early: STRUCTURE, "ends early", |delta| delta.columns.get_mut("sizes").expect("there").clear();
    a_column_without_end: VALUE, "malformed", |delta| {
        // The number of elements lies behind the base, where the first column begins.
        delta.base.extend(u64::MAX.to_le_bytes());
    };

    a_copy_beyond_the_old_file: STRUCTURE, "", |delta| delta.copy(1, 8);
    a_copy_beyond_all_numbers: STRUCTURE, "", |delta| delta.copy(1, u64::MAX);
    a_copy_of_a_folder: STRUCTURE, "", |delta| delta.copy(3, 0);
    a_copy_of_a_symlink: STRUCTURE, "", |delta| delta.copy(5, 0);
    a_copy_of_what_is_not_there: STRUCTURE, "", |delta| delta.copy(u32::MAX.into(), 0);
    a_copy_in_place_of_new_content: STRUCTURE, "all that it has", |delta| delta.copy(1, 0);
    a_copy_of_another_content_than_the_stated: CONTENT, "`a`", |delta| {
        delta.copy(1, 0);
        // What it needed of the body goes, so that all of it is taken.
        delta.forge.frames = vec![Frame::of(b"content of e")];
        delta.set("prefix counts", 0, 0);
        for column in ["prefix files", "prefix offsets", "prefix bytes"] {
            delta.columns.get_mut(column).expect("there").clear();
        }
    };
    an_operation_that_is_none: STRUCTURE, "", |delta| delta.set("operations", 0, 2);
    an_operation_that_does_nothing: STRUCTURE, "", |delta| delta.set("operation bytes", 0, 0);
    an_operation_beyond_the_body: STRUCTURE, "", |delta| delta.set("operation bytes", 0, 1 << 40);
    an_operation_beyond_all_numbers: STRUCTURE, "", |delta| delta.set("operation bytes", 0, u64::MAX);
    operations_without_end: STRUCTURE, "", |delta| delta.set("operation counts", 0, u32::MAX.into());
    a_size_that_lies: STRUCTURE, "", |delta| delta.set("sizes", 0, 1 << 50);
    the_content_of_a_folder: STRUCTURE, "", |delta| delta.set("same as", 0, 3);
    the_content_of_another_file: STRUCTURE, "content id", |delta| delta.set("same as", 0, 2);
    content_from_nowhere: STRUCTURE, "", |delta| delta.set("content from", 0, 3);
    content_with_another_hash: STRUCTURE, "content id", |delta| delta.columns.get_mut("contents").expect("there")[0] ^= 1;

    a_prefix_of_a_folder: STRUCTURE, "", |delta| delta.set("prefix files", 0, 3);
    a_prefix_beyond_the_old_file: STRUCTURE, "", |delta| delta.set("prefix offsets", 0, 1);
    a_prefix_of_four_gibibytes: STRUCTURE, "", |delta| delta.set("prefix bytes", 0, u32::MAX.into());
    a_prefix_without_end: STRUCTURE, "", |delta| delta.set("prefix counts", 0, u32::MAX.into());
    another_prefix_than_the_frame_was_made_with: CONTENT, "`a`", |delta| {
        delta.set("prefix files", 0, 4);
        delta.set("prefix bytes", 0, 12);
    };

    a_frame_that_becomes_a_gibibyte: CONTENT, "`a`", |delta| delta.forge.frames[0].stored = endless(8192);
    a_frame_that_becomes_less_than_stated: CONTENT, "`a`", |delta| delta.forge.frames[0].stored = compress(b"x");
    a_frame_that_is_stated_to_become_four_gibibytes: STRUCTURE, "longer than allowed", |delta| {
        delta.forge.lie_in_table = |rows| rows[0].1 = u32::MAX;
    };
    a_frame_with_another_hash: FRAME, "the hash", |delta| delta.forge.lie_in_table = |rows| rows[0].2 = Hash::of(b"");
    a_catalog_that_becomes_gigabytes: FRAME, "", |delta| {
        delta.forge.lie_in_table = |rows| rows.last_mut().expect("one").1 = 8 << 20;
    };
    a_base_that_is_later: STRUCTURE, "later revision", |delta| {
        delta.forge.kind = PackageKind::Delta { base: Revision::from_number(9) };
    };
    a_base_that_is_itself: STRUCTURE, "later revision", |delta| {
        delta.forge.kind = PackageKind::Delta { base: Revision::from_number(8) };
    };
    a_baseline_that_says_it_is_a_delta: VALUE, "malformed", |delta| {
        delta.forge = Forge { kind: PackageKind::Delta { base: Revision::from_number(7) }, ..new() };
        (delta.base, delta.columns) = (vec![0xff; 48], COLUMNS.map(|(name, _)| (name, vec![])).into());
    };
    another_base: BASE, "another revision", |delta| delta.base[0] ^= 1;
    a_base_with_another_number_of_entries: BASE, "another revision", |delta| delta.base[32] ^= 1;
    more_entries_than_allowed: STRUCTURE, "more entries than allowed", |delta| {
        let content = delta.forge.disclosed.expect("there").0;
        delta.forge.disclosed = Some((content, u64::MAX));
    };
    fewer_entries_than_there_are: STRUCTURE, "more entries than stated", |delta| {
        let content = delta.forge.disclosed.expect("there").0;
        delta.forge.disclosed = Some((content, 3));
    };
    another_content_id: STRUCTURE, "content id", |delta| {
        delta.forge.disclosed = Some((ted_core::id::ContentId::from_bytes([0; 32]), 7));
    };
}

#[test]
fn paths_that_become_gigabytes_out_of_a_few_bytes() {
    let mut pair = Pair::new();
    let limits = Limits { catalog_bytes_max: 2_000, ..Limits::DEFAULT };
    let bytes = pair.delta.sign(&pair.place);
    let old = pair.place.open(&pair.old, &Limits::DEFAULT).expect("honest");
    let resolve = |limits: &Limits| {
        let index = read_delta_index(&bytes, limits, |root, bytes, signature| pair.place.judge(root, bytes, signature));
        index?.resolve(old.catalog(), limits).map(drop).map_err(Error::from)
    };
    resolve(&limits).expect("seven short entries fit");
    let few = Limits { catalog_bytes_max: 500, ..Limits::DEFAULT };
    let error = resolve(&few).expect_err("more than allowed");
    assert!(error.to_string().contains("longer entries than allowed"), "{error}");
    // A delta is no way around what a baseline may be.
    pair.delta.forge.kind = PackageKind::Baseline;
    pair.refuses((UNSUPPORTED, "a baseline where a delta is needed"));
}
