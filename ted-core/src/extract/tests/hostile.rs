//! Lists of entries that are refused before anything is written.

use super::{Built, Tree, look, path, scratch};
use crate::error::Coded;
use crate::extract::{ExtractError, ExtractOptions, Links, Refusal, judge_entries};
use crate::package::{CatalogRow, Entry, EntryKind, EntryPath};

fn refusal(rows: &[CatalogRow], options: &ExtractOptions, folding: bool) -> Option<(EntryPath, Refusal)> {
    match judge_entries(rows, options, folding) {
        Ok(()) => None,
        Err(ExtractError::Refused { path, reason }) => Some((path, reason)),
        Err(other) => panic!("judging only refuses: {other}"),
    }
}

/// Rows in the order given, whether that is a good one or not.
fn rows(parts: &[(&str, EntryKind, &str)]) -> Vec<CatalogRow> {
    let one = |&(at, kind, link): &(&str, EntryKind, &str)| {
        let entry = Entry {
            path: path(at),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: super::MTIME,
            size: 0,
            link: link.as_bytes().to_vec(),
            content: if kind == EntryKind::File { crate::id::Hash::of(b"") } else { Entry::NO_CONTENT },
            extensions: Vec::new(),
        };
        CatalogRow { entry, offset: 0 }
    };
    std::iter::once(&("", EntryKind::Directory, "")).chain(parts).map(one).collect()
}

const DIR: EntryKind = EntryKind::Directory;
const FILE: EntryKind = EntryKind::File;
const SYM: EntryKind = EntryKind::Symlink;
const HARD: EntryKind = EntryKind::HardLink;

#[test]
fn lists_that_could_harm_are_refused_with_the_entry_named() {
    let cases: &[(&[(&str, EntryKind, &str)], &str, Refusal)] = &[
        (&[("a", FILE, ""), ("a", FILE, "")], "a", Refusal::Duplicate),
        (&[("a", FILE, ""), ("a", SYM, "/etc")], "a", Refusal::Duplicate),
        (&[("b", FILE, ""), ("a", FILE, "")], "a", Refusal::Disorder),
        (&[("a/b", FILE, "")], "a/b", Refusal::NoFolder),
        (&[("a", FILE, ""), ("a/b", FILE, "")], "a/b", Refusal::BelowNonFolder(path("a"))),
        (&[("a", SYM, "/etc"), ("a/b", FILE, "")], "a/b", Refusal::BelowNonFolder(path("a"))),
        (&[("a", SYM, "/etc"), ("a/b", DIR, ""), ("a/b/c", FILE, "")], "a/b", Refusal::BelowNonFolder(path("a"))),
        (&[("a", FILE, ""), ("b", HARD, "a"), ("b/c", FILE, "")], "b/c", Refusal::BelowNonFolder(path("b"))),
        (&[(".ted-staging-x", DIR, "")], ".ted-staging-x", Refusal::StagingName),
        (&[(".TED-Staging-x", FILE, "")], ".TED-Staging-x", Refusal::StagingName),
        (&[("a", HARD, "/etc/passwd")], "a", Refusal::LinkOutside),
        (&[("a", HARD, "../x")], "a", Refusal::LinkOutside),
        (&[("a", HARD, "")], "a", Refusal::LinkOutside),
        (&[("a", HARD, "nowhere")], "a", Refusal::LinkMissing(path("nowhere"))),
        (&[("a", HARD, "b"), ("b", FILE, "")], "a", Refusal::LinkMissing(path("b"))),
        (&[("a", HARD, "a")], "a", Refusal::LinkMissing(path("a"))),
        (&[("a", DIR, ""), ("b", HARD, "a")], "b", Refusal::LinkKind(path("a"))),
        (&[("a", FILE, ""), ("b", HARD, "a"), ("c", HARD, "b")], "c", Refusal::LinkKind(path("b"))),
        (&[("a", SYM, "")], "a", Refusal::LinkText),
        (&[("a", SYM, "x\0y")], "a", Refusal::LinkText),
        (&[("a", FILE, "x")], "a", Refusal::Field("link target")),
    ];
    for (parts, at, reason) in cases {
        let found = refusal(&rows(parts), &ExtractOptions::default(), false);
        assert_eq!(found, Some((path(at), reason.clone())), "{parts:?}");
    }
}

#[test]
fn fields_that_an_entry_cannot_have_are_refused() {
    let breaks: [(&str, fn(&mut Entry)); 5] = [
        ("mode", |entry| entry.mode = 0o10_000),
        ("time", |entry| entry.mtime.nanoseconds = 1_000_000_000),
        ("size", |entry| entry.size = 1),
        ("content hash", |entry| entry.content = crate::id::Hash::of(b"x")),
        ("link target", |entry| entry.link = b"x".to_vec()),
    ];
    for (field, spoil) in breaks {
        let mut list = rows(&[("a", DIR, "")]);
        spoil(&mut list[1].entry);
        assert_eq!(refusal(&list, &ExtractOptions::default(), false), Some((path("a"), Refusal::Field(field))));
    }
    let mut list = rows(&[]);
    list[0].entry.kind = FILE;
    list[0].entry.content = crate::id::Hash::of(b"");
    assert_eq!(refusal(&list, &ExtractOptions::default(), false), Some((path(""), Refusal::RootKind)));
}

#[test]
fn contents_that_overlap_or_overflow_or_lie_outside_are_refused() {
    let two = |offsets: [u64; 2], sizes: [u64; 2]| {
        let mut list = rows(&[("a", FILE, ""), ("b", FILE, "")]);
        for at in 0..2 {
            list[at + 1].offset = offsets[at];
            list[at + 1].entry.size = sizes[at];
        }
        list
    };
    let judged = |list: &[CatalogRow]| refusal(list, &ExtractOptions::default(), false);
    assert_eq!(judged(&two([0, 10], [10, 10])), None);
    assert_eq!(judged(&two([0, 9], [10, 10])), Some((path("b"), Refusal::ContentPlace)));
    assert_eq!(judged(&two([10, 0], [10, 10])), Some((path("b"), Refusal::ContentPlace)));
    assert_eq!(judged(&two([u64::MAX, 0], [10, 10])), Some((path("a"), Refusal::ContentPlace)));
    assert_eq!(judged(&two([0, 0], [u64::MAX, 10])), Some((path("a"), Refusal::Field("size"))));

    let mut outside = Tree::new().file("a", b"content").build();
    outside.rows[1].offset += 1;
    let (_folder, at) = scratch();
    assert_refused(&outside, &at, "a", &Refusal::ContentPlace);
    assert!(!at.exists());
}

#[test]
fn more_than_the_limits_allow_is_refused() {
    let mut options = ExtractOptions::default();
    options.limits.entries_max = 2;
    let list = rows(&[("a", FILE, ""), ("b", FILE, "")]);
    assert_eq!(refusal(&list, &options, false), Some((path("b"), Refusal::Limit("more entries"))));
    options.limits.entries_max = 3;
    assert_eq!(refusal(&list, &options, false), None);
    let mut list = rows(&[("a", FILE, "")]);
    list[1].entry.extensions = vec![(1, Vec::new()); options.limits.extensions_max + 1];
    assert_eq!(refusal(&list, &options, false), Some((path("a"), Refusal::Limit("more extensions"))));
    list[1].entry.extensions = vec![(1, vec![0; options.limits.extension_bytes_max + 1])];
    assert_eq!(refusal(&list, &options, false), Some((path("a"), Refusal::Limit("a longer extension"))));
}

#[test]
fn links_inside_refuses_those_that_leave_and_no_others() {
    let inside = ExtractOptions { links: Links::Inside, ..ExtractOptions::default() };
    for (text, leaves) in [
        ("/etc/x", true),
        ("..", false),
        ("../..", true),
        ("../x", false),
        ("../../x", true),
        ("x/../../../x", true),
        ("x/../..", false),
        ("././/../b", false),
        ("x", false),
    ] {
        let list = rows(&[("d", DIR, ""), ("d/link", SYM, text)]);
        let expected = leaves.then(|| (path("d/link"), Refusal::LinkLeaves));
        assert_eq!(refusal(&list, &inside, false), expected, "{text}");
        assert_eq!(refusal(&list, &ExtractOptions::default(), false), None, "any text is data");
    }
}

#[test]
fn names_that_collide_are_refused_where_the_file_system_folds() {
    for (one, other) in [("README", "readme"), ("cafe\u{301}", "caf\u{e9}")] {
        let list = rows(&[(one, FILE, ""), (other, FILE, "")]);
        let expected = Some((path(other), Refusal::Collision(path(one))));
        assert_eq!(refusal(&list, &ExtractOptions::default(), true), expected);
        assert_eq!(refusal(&list, &ExtractOptions::default(), false), None);
    }
    // The file systems that tests run on do not fold, and take both.
    let tree = Tree::new().file("README", b"1").file("readme", b"2").file("cafe\u{301}", b"3").file("caf\u{e9}", b"4");
    let (_folder, at) = scratch();
    tree.build().extract_to(&at, None).expect("two names");
    assert_eq!(look(&at), tree.seen());
}

#[test]
fn a_hostile_list_leaves_the_target_untouched() {
    let (_folder, at) = scratch();
    let tree = Tree::new().file("a", b"old");
    tree.build().extract_to(&at, None).expect("fresh");
    let mut built = Tree::new().file("a", b"new").symlink("s", "/tmp").build();
    let mut below = built.rows[1].clone();
    below.entry.path = path("s/x");
    below.offset += 3;
    built.rows.push(below);
    assert_refused(&built, &at, "s/x", &Refusal::BelowNonFolder(path("s")));
    assert_eq!(look(&at), tree.seen());
}

fn assert_refused(built: &Built, at: &std::path::Path, entry: &str, wanted: &Refusal) {
    let error = built.extract_to(at, None).expect_err("hostile");
    assert_eq!(error.code(), "TED-1401");
    match error {
        ExtractError::Refused { path: found, reason } => assert_eq!((found, &reason), (path(entry), wanted)),
        other => panic!("{other}"),
    }
}
