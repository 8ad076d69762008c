//! Lists of entries that are refused before anything is written.

use super::{Built, Tree, look, path, scratch};
use crate::error::Coded;
use crate::extract::judge::judge_places;
use crate::extract::{ExtractError, ExtractOptions, Links, Refusal, judge_entries};
use crate::package::{CatalogFault, CatalogRow, Entry, EntryKind, EntryPath};

fn refusal(rows: &[CatalogRow], options: &ExtractOptions, folding: bool) -> Option<(EntryPath, Refusal)> {
    refused(judge_entries(rows, options, folding))
}

fn refused(judged: Result<(), ExtractError>) -> Option<(EntryPath, Refusal)> {
    match judged {
        Ok(()) => None,
        Err(ExtractError::Refused { path, reason }) => Some((path, reason)),
        Err(other) => panic!("judging only refuses: {other}"),
    }
}

/// Path, kind and link target of an entry.
type Part = (&'static str, EntryKind, &'static str);

/// Rows in the order given, whether that is a good one or not.
fn rows(parts: &[Part]) -> Vec<CatalogRow> {
    let one = |&(at, kind, link): &Part| {
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
    let catalog = Refusal::Catalog;
    let cases: &[(&[Part], &str, Refusal)] = &[
        (&[("a", FILE, ""), ("a", FILE, "")], "a", catalog(CatalogFault::Order)),
        (&[("a", FILE, ""), ("a", SYM, "/etc")], "a", catalog(CatalogFault::Order)),
        (&[("b", FILE, ""), ("a", FILE, "")], "a", catalog(CatalogFault::Order)),
        (&[("a/b", FILE, "")], "a/b", catalog(CatalogFault::Parent)),
        (&[("a", FILE, ""), ("a/b", FILE, "")], "a/b", catalog(CatalogFault::Parent)),
        (&[("a", SYM, "/etc"), ("a/b", FILE, "")], "a/b", catalog(CatalogFault::Parent)),
        (&[("a", SYM, "/etc"), ("a/b", DIR, ""), ("a/b/c", FILE, "")], "a/b", catalog(CatalogFault::Parent)),
        (&[("a", FILE, ""), ("b", HARD, "a"), ("b/c", FILE, "")], "b/c", catalog(CatalogFault::Parent)),
        (&[(".ted-staging-x", DIR, "")], ".ted-staging-x", Refusal::StagingName),
        (&[(".TED-Staging-x", FILE, "")], ".TED-Staging-x", Refusal::StagingName),
        (&[("a", HARD, "/etc/passwd")], "a", catalog(CatalogFault::HardLink)),
        (&[("a", HARD, "../x")], "a", catalog(CatalogFault::HardLink)),
        (&[("a", HARD, "")], "a", catalog(CatalogFault::HardLink)),
        (&[("a", HARD, "nowhere")], "a", catalog(CatalogFault::HardLink)),
        (&[("a", HARD, "b"), ("b", FILE, "")], "a", catalog(CatalogFault::HardLink)),
        (&[("a", HARD, "a")], "a", catalog(CatalogFault::HardLink)),
        (&[("a", DIR, ""), ("b", HARD, "a")], "b", catalog(CatalogFault::HardLink)),
        (&[("a", FILE, ""), ("b", HARD, "a"), ("c", HARD, "b")], "c", catalog(CatalogFault::HardLink)),
        (&[("a", SYM, "")], "a", catalog(CatalogFault::Kind)),
        (&[("a", SYM, "x\0y")], "a", catalog(CatalogFault::Link)),
        (&[("a", FILE, "x")], "a", catalog(CatalogFault::Kind)),
    ];
    for (parts, at, reason) in cases {
        let found = refusal(&rows(parts), &ExtractOptions::default(), false);
        assert_eq!(found, Some((path(at), reason.clone())), "{parts:?}");
    }
}

#[test]
fn fields_that_an_entry_cannot_have_are_refused() {
    let breaks: [fn(&mut Entry); 5] = [
        |entry| entry.mode = 0o10_000,
        |entry| entry.mtime.nanoseconds = 1_000_000_000,
        |entry| entry.size = 1,
        |entry| entry.link = b"x".to_vec(),
        |entry| entry.extensions = vec![(1, Vec::new()); 65],
    ];
    for spoil in breaks {
        let mut list = rows(&[("a", DIR, "")]);
        assert_eq!(refusal(&list, &ExtractOptions::default(), false), None);
        spoil(&mut list[1].entry);
        let (at, reason) = refusal(&list, &ExtractOptions::default(), false).expect("refused");
        assert_eq!(at, path("a"));
        assert!(matches!(reason, Refusal::Catalog(_)), "{reason}");
    }
    let rootless = &rows(&[("a", DIR, "")])[1..];
    let reason = Refusal::Catalog(CatalogFault::NoRoot);
    assert_eq!(refusal(rootless, &ExtractOptions::default(), false), Some((path("a"), reason)));
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
    let judged = |list: &[CatalogRow]| refused(judge_places(list, 1000));
    assert_eq!(judged(&two([0, 10], [10, 10])), None);
    assert_eq!(judged(&two([0, 9], [10, 10])), Some((path("b"), Refusal::Catalog(CatalogFault::Offset))));
    assert_eq!(judged(&two([10, 0], [10, 10])), Some((path("b"), Refusal::Catalog(CatalogFault::Offset))));
    assert_eq!(judged(&two([u64::MAX, 0], [10, 10])), Some((path("a"), Refusal::Catalog(CatalogFault::Offset))));
    assert_eq!(judged(&two([0, 0], [u64::MAX, 10])), Some((path("a"), Refusal::Catalog(CatalogFault::Offset))));
    assert_eq!(judged(&two([0, 10], [10, 991])), Some((path("b"), Refusal::Catalog(CatalogFault::Offset))));
    let endless = two([0, 0], [u64::MAX, 10]);
    let reason = Refusal::Catalog(CatalogFault::Offset);
    assert_eq!(refusal(&endless, &ExtractOptions::default(), false), Some((path("a"), reason)), "wherever it lies");

    let mut outside = Tree::new().file("a", b"content").build();
    outside.rows[1].offset += 1;
    let (_folder, at) = scratch();
    assert_refused(&outside, &at, "a", &Refusal::Catalog(CatalogFault::Offset));
    assert!(!at.exists());
}

#[test]
fn more_entries_than_the_limits_allow_are_refused() {
    let mut options = ExtractOptions::default();
    options.limits.entries_max = 2;
    let list = rows(&[("a", FILE, ""), ("b", FILE, "")]);
    let reason = Refusal::Catalog(CatalogFault::TooMany);
    assert_eq!(refusal(&list, &options, false).map(|refused| refused.1), Some(reason));
    options.limits.entries_max = 3;
    assert_eq!(refusal(&list, &options, false), None);
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
    assert_refused(&built, &at, "s/x", &Refusal::Catalog(CatalogFault::Parent));
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
