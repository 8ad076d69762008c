//! Tar files that mean harm, and tar files that are only odd. Those of the public collections of archives that leave their
//! folder ("zip slip") are made anew from their descriptions.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::write::{Raw, Tar, raw};
use super::*;
use crate::error::Coded;
use crate::package::judge_entries;

/// A tar source of a file with these bytes, with whatever options.
fn source(folder: &Path, bytes: &[u8], change: impl FnOnce(&mut TarOptions)) -> TarSource {
    let file = folder.join("archive");
    std::fs::write(&file, bytes).expect("written");
    let mut options = TarOptions {
        file,
        place: "archive".to_owned(),
        spool: folder.join("spool"),
        selection: Selection::default(),
        unreadable: Unreadable::Refuse,
        limits: Limits::DEFAULT,
        progress: Arc::new(|_, _, _| {}),
        known: Arc::default(),
        selected: String::new(),
        now: UnixMillis::from_millis(0),
    };
    change(&mut options);
    TarSource::new(options)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::stream::encode_all(bytes, 1).expect("memory")
}

/// What a tar file with these bytes is refused with, however it is compressed; nothing of it stays in the spool.
fn refused_with(bytes: &[u8], change: impl Fn(&mut TarOptions)) -> SourceError {
    let mut told: Option<SourceError> = None;
    for packed in [bytes.to_vec(), gzip(bytes), zstd(bytes)] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let source = source(folder.path(), &packed, &change);
        let error = source.entries(&mut |_| {}).expect_err("refused");
        let spool = folder.path().join("spool");
        let left = std::fs::read_dir(&spool).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing stays in the spool");
        let listed: Vec<_> = std::fs::read_dir(folder.path()).expect("there").flatten().collect();
        assert!(listed.iter().all(|item| item.file_name() == "archive" || item.path() == spool), "{listed:?}");
        if let Some(told) = told.as_ref().filter(|told| told.code() == "TED-1732") {
            assert_eq!(told.to_string(), error.to_string(), "the same, however it is compressed");
        }
        told = Some(error);
    }
    told.expect("three were tried")
}

fn refused(bytes: &[u8]) -> SourceError {
    refused_with(bytes, |_| {})
}

/// The archive is refused for one entry, which is named.
#[track_caller]
fn refuses_entry(tar: Tar, entry: &str, because: &str) {
    let error = refused(&tar.end());
    assert_eq!(error.code(), "TED-1732", "{error}");
    assert!(error.to_string().contains(&format!("`{entry}`")), "{error} does not name {entry}");
    assert!(error.to_string().contains(because), "{error}: not because {because}");
}

fn listed_with(bytes: &[u8], change: impl FnOnce(&mut TarOptions)) -> Vec<(String, Entry)> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let source = source(folder.path(), bytes, change);
    let entries = source.entries(&mut |_| {}).expect("it can be built from");
    judge_entries(&entries, &Limits::DEFAULT).expect("no Subscriber refuses it");
    entries.into_iter().map(|entry| (entry.path.to_string(), entry)).collect()
}

fn names(bytes: &[u8]) -> Vec<String> {
    listed_with(bytes, |_| {}).into_iter().map(|(name, _)| name).collect()
}

fn ok() -> Tar {
    Tar::default().dir("d/").file("d/f", b"fine")
}

#[test]
fn absolute_paths_are_refused() {
    refuses_entry(ok().file("/etc/cron.d/evil", b"x"), "/etc/cron.d/evil", "absolute");
    refuses_entry(ok().dir("/"), "/", "absolute");
    refuses_entry(ok().file("//etc/passwd", b"x"), "//etc/passwd", "absolute");
    refuses_entry(ok().pax(b'x', &[("path", b"/etc/\xc3\xa4")]).file("a", b"x"), "/etc/\\xc3\\xa4", "absolute");
    let long = format!("/{}", "x/".repeat(60));
    refuses_entry(ok().long(b'L', &long).file("x", b""), &long, "absolute");
}

#[test]
fn paths_with_parents_in_them_are_refused() {
    for path in
        ["..", "../evil", "../../../../../../../../tmp/evil.sh", "d/../../evil", "d/..", "./../evil", "d/../d/g"]
    {
        refuses_entry(ok().file(path, b"x"), path, "`..`");
    }
    refuses_entry(ok().dir("../evil/"), "../evil/", "`..`");
    let in_prefix = Raw { prefix: b"d/..".to_vec(), ..raw("evil", b'0') };
    refuses_entry(ok().raw(&in_prefix, b""), "d/../evil", "`..`");
}

#[test]
fn backslashes_are_part_of_a_name() {
    assert_eq!(names(&Tar::default().file("..\\..\\evil", b"").end()), [".", "..\\\\..\\\\evil"]);
}

#[test]
fn nul_bytes_in_paths_and_links_are_refused() {
    let path = "x".repeat(120);
    let named = format!("{path}\0y");
    refuses_entry(ok().pax(b'x', &[("path", named.as_bytes())]).file("x", b""), &format!("{path}\\x00y"), "NUL");
    let link = ok().pax(b'x', &[("linkpath", named.as_bytes())]).link("l", b'2', "x");
    refuses_entry(link, "l", "NUL");
}

#[test]
fn a_file_through_a_symlink_is_refused() {
    refuses_entry(ok().link("s", b'2', "/tmp").file("s/evil", b"x"), "s/evil", "`s`, which is no folder");
    refuses_entry(ok().link("s", b'2', "d").file("s/f", b"x"), "s/f", "no folder");
    refuses_entry(ok().link("s", b'2', "..").link("s/t", b'2', "..").file("s/t/evil", b"x"), "s/t", "no folder");
    refuses_entry(ok().link("d/s", b'2', "/").file("d/s/a/b/c/evil", b"x"), "d/s/a/b/c/evil", "no folder");
    refuses_entry(ok().link("s", b'2', "/tmp/file").file("s", b"x"), "s", "twice");
    // The folder that is a symlink in the end, and the link that is named like a folder.
    refuses_entry(Tar::default().file("s/f", b"x").link("s", b'2', "/tmp"), "s", "no folder");
    refuses_entry(Tar::default().dir("s").link("s", b'2', "/tmp").file("s/f", b"x"), "s", "twice");
    refuses_entry(ok().link("s/", b'2', "/tmp").file("s/evil", b"x"), "s/evil", "no folder");
}

#[test]
fn a_file_in_a_file_is_refused() {
    refuses_entry(ok().file("d/f/g", b"x"), "d/f/g", "no folder");
    refuses_entry(Tar::default().file("a/b", b"x").file("a", b"x"), "a", "no folder");
    refuses_entry(ok().file(".", b"x"), ".", "no folder");
}

#[test]
fn hard_links_to_what_is_no_file_of_the_archive_are_refused() {
    for target in ["/etc/passwd", "../../etc/passwd", "d/../../etc/shadow", "missing", "later", "d", "", "l"] {
        let tar = ok().link("l", b'1', target).file("later", b"x");
        refuses_entry(tar, "l", "hard link target");
    }
    // Through a symlink, the file that is meant is another one's.
    refuses_entry(ok().link("s", b'2', "/etc").link("l", b'1', "s/passwd"), "l", "hard link target");
    // The link and then its content: what it means would be written to.
    refuses_entry(ok().link("l", b'1', "d/f").file("l", b"x"), "l", "twice");
    refuses_entry(ok().raw(&raw("l", b'1').link("d/f").size(4), b"evil"), "l", "content");
}

#[test]
fn hard_links_become_those_of_a_folder() {
    let tar = Tar::default().file("z", b"content").link("a", b'1', "./z").link("m", b'1', "a").link("s", b'2', "/x");
    let entries = listed_with(&tar.link("t", b'1', "s").end(), |_| {});
    let kinds: Vec<_> =
        entries.iter().map(|(name, entry)| (name.as_str(), entry.kind, entry.link.as_slice(), entry.size)).collect();
    let expected: [(&str, EntryKind, &[u8], u64); 6] = [
        (".", EntryKind::Directory, b"", 0),
        ("a", EntryKind::File, b"", 7),
        ("m", EntryKind::HardLink, b"a", 0),
        ("s", EntryKind::Symlink, b"/x", 0),
        ("t", EntryKind::HardLink, b"s", 0),
        ("z", EntryKind::HardLink, b"a", 0),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn names_that_collide_where_case_folds_are_left_to_each_subscriber() {
    let tar = Tar::default().file("Readme", b"").file("README", b"").file("\u{e9}", b"").file("e\u{301}", b"");
    assert_eq!(names(&tar.end()).len(), 5, "as in a folder: only the Subscriber knows what its file system folds");
}

#[test]
fn devices_and_fifos_are_refused_or_left_out() {
    for (kind, what) in [(b'3', "device node"), (b'4', "device node"), (b'6', "FIFO")] {
        refuses_entry(ok().raw(&raw("dev/sda", kind), b""), "dev/sda", what);
    }
    let tar = ok().raw(&raw("dev/sda", b'4'), b"").end();
    let skipping = listed_with(&tar, |options| options.unreadable = Unreadable::Skip);
    assert_eq!(skipping.len(), 3, "root, d and d/f");
    let excluding = listed_with(&tar, |options| options.selection = Selection::new(&["dev"], &[]).expect("a pattern"));
    assert_eq!(excluding.len(), 3);
}

#[test]
fn what_is_there_twice_is_refused() {
    refuses_entry(ok().file("d/f", b"other"), "d/f", "twice");
    refuses_entry(ok().file("./d//f", b"other"), "d/f", "twice");
    refuses_entry(ok().dir("d"), "d", "twice");
    refuses_entry(ok().link("d", b'2', "x"), "d", "twice");
    refuses_entry(Tar::default().dir("./").dir("."), ".", "twice");
}

#[test]
fn sizes_that_lie_are_refused() {
    let large = |size_field: [u8; 12]| Raw { size_field: Some(size_field), ..raw("f", b'0') };
    // More than there is.
    assert_eq!(refused(&ok().raw(&raw("f", b'0').size(1 << 20), b"short").end()).code(), "TED-1731");
    // Less than there is: content stands where a header should.
    let tar = ok().raw(&raw("f", b'0').size(3), &[7; 1024]);
    assert_eq!(refused(&tar.end()).code(), "TED-1731");
    // Beyond what a file can have; below nothing; no number at all.
    let mut over = [0xff; 12];
    over[0] = 0x80;
    refuses_entry(ok().raw(&large(over), b""), "f", "size");
    refuses_entry(ok().raw(&large([0xff; 12]), b""), "f", "size");
    refuses_entry(ok().raw(&large(*b"0000000000x\0"), b""), "f", "size");
    refuses_entry(ok().raw(&large(*b"-0000000001\0"), b""), "f", "size");
    let mut many = [0; 12];
    (many[0], many[4]) = (0x80, 0x7f);
    let code = refused(&ok().raw(&large(many), b"").end()).code();
    assert!(matches!(code, "TED-1731" | "TED-1733"), "{code}: more than any file has");
    // A folder with content.
    refuses_entry(ok().raw(&raw("e", b'5').size(512), &[0; 512]), "e", "content");
    refuses_entry(ok().raw(&raw("e/", b'0').size(4), b"evil"), "e/", "kind");
}

#[test]
fn more_entries_than_there_may_be_are_refused() {
    let many = (0..200).fold(Tar::default(), |tar, number| tar.file(format!("f{number}"), b"")).end();
    let error = refused_with(&many, |options| options.limits.entries_max = 100);
    assert_eq!(error.code(), "TED-1733");
    assert!(error.to_string().contains("100 entries"), "{error}");
    // Folders that only paths speak of count too.
    let deep = Tar::default().file("a/b/c/d/e/f/g", b"").end();
    assert_eq!(refused_with(&deep, |options| options.limits.entries_max = 4).code(), "TED-1733");
    let names = refused_with(&many, |options| options.limits.archive_names_bytes_max = 300);
    assert!(names.to_string().contains("bytes of names"), "{names}");
}

#[test]
fn a_million_entries_are_beyond_a_limit_of_less_and_are_not_all_read() {
    let mut bytes = Vec::new();
    let mut encoder = ::zstd::stream::Encoder::new(&mut bytes, 1).expect("memory");
    // One header, in which only the digits of the name and what they add up to change.
    let mut block = Tar::default().file("0000000", b"").unfinished();
    let sum = |block: &[u8]| -> u64 { block[..7].iter().map(|&byte| u64::from(byte)).sum() };
    let rest = u64::from_str_radix(std::str::from_utf8(&block[148..154]).expect("digits"), 8).expect("octal");
    let rest = rest - sum(&block);
    for number in 0..1_000_001 {
        block[..7].copy_from_slice(format!("{number:07}").as_bytes());
        let checksum = format!("{:06o}", rest + sum(&block));
        block[148..154].copy_from_slice(checksum.as_bytes());
        encoder.write_all(&block).expect("memory");
    }
    encoder.write_all(&[0; 1024]).expect("memory");
    encoder.finish().expect("memory");
    let folder = tempfile::tempdir().expect("temporary folder");
    let source = source(folder.path(), &bytes, |options| options.limits.entries_max = 1_000_000);
    assert_eq!(source.entries(&mut |_| {}).expect_err("one too many").code(), "TED-1733");
}

#[test]
fn what_unpacks_to_more_than_there_may_be_is_refused() {
    let bomb = Tar::default().file("zeros", &vec![0; 8 << 20]).end();
    for packed in [gzip(&bomb), zstd(&bomb)] {
        assert!(packed.len() < 100_000, "{} bytes", packed.len());
        let folder = tempfile::tempdir().expect("temporary folder");
        let source = source(folder.path(), &packed, |options| options.limits.spool_bytes_max = 1 << 20);
        let error = source.entries(&mut |_| {}).expect_err("a bomb");
        assert_eq!(error.code(), "TED-1733", "{error}");
        assert_eq!(std::fs::read_dir(folder.path().join("spool")).map_or(0, Iterator::count), 0);
    }
    // What many small ones unpack to is bounded too, and what pads them.
    let many = (0..100).fold(Tar::default(), |tar, number| tar.file(format!("f{number}"), &[7; 20_000])).end();
    for packed in [gzip(&many), zstd(&many)] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let source = source(folder.path(), &packed, |options| options.limits.spool_bytes_max = 1 << 20);
        assert_eq!(source.entries(&mut |_| {}).expect_err("a bomb").code(), "TED-1733");
    }
}

#[test]
fn what_claims_more_than_there_is_room_for_is_refused_before_it_is_unpacked() {
    let claims = Tar::default().raw(&raw("f", b'0').size(0o777_7777_7777), b"").end();
    let folder = tempfile::tempdir().expect("temporary folder");
    let spool = SpoolFile::unnamed(folder.path(), &Limits::DEFAULT).expect("made");
    let free = crate::store::free_bytes(folder.path()).expect("measured");
    assert_eq!(spool.expect(free + (1 << 40)).expect_err("no room").code(), "TED-1736");
    let limited = |options: &mut TarOptions| options.limits.spool_bytes_max = 1 << 30;
    for packed in [gzip(&claims), zstd(&claims)] {
        let source = source(folder.path(), &packed, limited);
        assert_eq!(source.entries(&mut |_| {}).expect_err("it claims 8 GiB").code(), "TED-1733");
    }
}

#[test]
fn extended_headers_that_contradict_the_header_are_refused() {
    // Two readers would see different archives: one of them the entry that is hidden in the content.
    let hidden = Tar::default().file("evil", b"x").unfinished();
    let nested = ok().pax(b'x', &[("size", hidden.len().to_string().as_bytes())]).raw(&raw("f", b'0'), &hidden);
    refuses_entry(nested, "f", "disagree about its size");
    let shorter = ok().pax(b'x', &[("size", b"0")]).raw(&raw("f", b'0').size(hidden.len() as u64), &hidden);
    refuses_entry(shorter, "f", "disagree about its size");
    refuses_entry(ok().pax(b'x', &[("path", b"other")]).file("f", b""), "other", "disagree about its path");
    refuses_entry(ok().pax(b'x', &[("linkpath", b"/etc")]).link("l", b'2', "d"), "l", "disagree about its link");
    refuses_entry(ok().long(b'L', "other").file("f", b""), "other", "disagree about its path");
    let (one, two) = ("x".repeat(120), "y".repeat(120));
    let both = ok().long(b'L', &one).pax(b'x', &[("path", two.as_bytes())]).file("x", b"");
    refuses_entry(both, &two, "disagree about its path");
}

#[test]
fn extended_headers_of_all_entries_say_nothing_that_changes_how_it_is_read() {
    for (key, value) in [("path", "f"), ("size", "512"), ("linkpath", "x"), ("GNU.sparse.major", "1")] {
        let tar = ok().pax(b'g', &[(key, value.as_bytes())]).file("f", b"");
        refuses_entry(tar, "PaxHeaders/x", "of all entries");
    }
    let tar = Tar::default().pax(b'g', &[("comment", b"0123456789"), ("mtime", b"5.5")]).file("f", b"").end();
    let entries = listed_with(&tar, |_| {});
    assert_eq!(entries[1].1.mtime, crate::package::Mtime { seconds: 5, nanoseconds: 500_000_000 });
}

#[test]
fn extended_headers_that_are_none_are_refused() {
    refuses_entry(ok().raw(&raw("x", b'x').size(5), b"wrong").file("f", b""), "x", "extended header");
    refuses_entry(ok().pax(b'x', &[("path", b"f")]).pax(b'x', &[("path", b"f")]).file("f", b""), "PaxHeaders/x", "two");
    refuses_entry(ok().long(b'L', "f").long(b'L', "f").file("f", b""), "././@LongLink", "two");
    refuses_entry(ok().raw(&raw("x", b'x').size(0o777_7777_7777), b""), "x", "too long");
    refuses_entry(ok().raw(&raw("x", b'L').size(2 << 20), b""), "x", "too long");
    assert_eq!(refused(&ok().pax(b'x', &[("path", b"f")]).end()).code(), "TED-1731", "it speaks of nothing");
}

#[test]
fn long_names_are_understood_in_every_form() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let folder = "d".repeat(120);
    for tar in [
        Tar::default().long(b'L', &long).file(&long.as_bytes()[..100], b"x"),
        Tar::default().pax(b'x', &[("path", long.as_bytes())]).file("short", b"x"),
    ] {
        assert_eq!(names(&tar.end()), [".", folder.as_str(), long.as_str()]);
    }
    let split = Raw { prefix: b"usr/share".to_vec(), ..raw("doc/x", b'0') };
    assert_eq!(
        names(&Tar::default().raw(&split, b"").end()),
        [".", "usr", "usr/share", "usr/share/doc", "usr/share/doc/x"]
    );
    // GNU's own format has times where POSIX has the first part of the path.
    let gnu = Raw { magic: *b"ustar  \0", prefix: b"14721375416".to_vec(), ..raw("x", b'0') };
    assert_eq!(names(&Tar::default().raw(&gnu, b"").end()), [".", "x"]);
    let old = Raw { magic: [0; 8], kind: 0, ..raw("old/", b'0') };
    assert_eq!(listed_with(&Tar::default().raw(&old, b"").end(), |_| {})[1].1.kind, EntryKind::Directory);
    let far = "t/".repeat(80);
    let link = Tar::default().long(b'K', &far).link("l", b'2', &far[..100]).end();
    assert_eq!(listed_with(&link, |_| {})[1].1.link, far.as_bytes());
    let over = "x".repeat(300);
    refuses_entry(Tar::default().long(b'L', &over).file("x", b""), &over, "too long");
}

#[test]
fn sparse_files_are_refused_in_every_form() {
    refuses_entry(ok().raw(&raw("f", b'S').size(512), &[0; 512]), "f", "--sparse");
    for key in ["GNU.sparse.major", "GNU.sparse.size", "GNU.sparse.name", "SUN.holesdata"] {
        refuses_entry(ok().pax(b'x', &[(key, b"1")]).file("f", b"x"), "f", "--sparse");
    }
}

#[test]
fn links_that_lead_nowhere_or_out_are_data_and_empty_ones_refused() {
    let tar = Tar::default().link("a", b'2', "/etc/passwd").link("b", b'2', "../../..").link("c", b'2', "c").end();
    assert_eq!(names(&tar), [".", "a", "b", "c"]);
    refuses_entry(ok().link("l", b'2', ""), "l", "empty");
}

#[test]
fn kinds_that_nobody_knows_are_refused() {
    for kind in [b'9', b'A', b'D', b'M', b'N', b'X', 0xff] {
        let error = refused(&ok().raw(&raw("f", kind), b"").end());
        assert_eq!(error.code(), "TED-1732", "{error}");
    }
}

#[test]
fn what_is_no_tar_file_is_refused() {
    for (bytes, code) in [
        (b"".as_slice(), "TED-1731"),
        (b"a text", "TED-1731"),
        (&[7; 1024], "TED-1731"),
        (&[0; 512 + 7], "TED-1731"),
        (&[[0_u8; 512], [7; 512]].concat(), "TED-1731"),
    ] {
        assert_eq!(refused(bytes).code(), code, "{} bytes", bytes.len());
    }
    for start in
        [b"\xfd7zXZ\0 rest".as_slice(), b"BZh91AY", b"PK\x03\x04 rest", b"\x1f\x8b rest", b"\x28\xb5\x2f\xfd rest"]
    {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = source(folder.path(), start, |_| {}).entries(&mut |_| {}).expect_err("refused");
        assert_eq!(error.code(), "TED-1734", "{error}");
    }
    assert_eq!(names(&Tar::default().end()), ["."], "an archive of nothing is one");
}

#[test]
fn an_archive_that_ends_early_is_refused_wherever_that_is() {
    let whole = Tar::default().dir("d").pax(b'x', &[("path", "d/\u{e4}".as_bytes())]).file("d/a", &[7; 700]).end();
    let last = whole.len() - 512;
    for length in (0..last).step_by(64).chain([last - 1, last - 512 + 1]) {
        let error = refused(&whole[..length]);
        assert!(matches!(error.code(), "TED-1731"), "{length}: {error}");
    }
    assert_eq!(names(&whole[..last]), [".", "d", "d/\u{e4}"], "half an end marker at the very end is one");
    let packed = zstd(&whole);
    for length in [5, packed.len() / 2, packed.len() - 5] {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = source(folder.path(), &packed[..length], |_| {}).entries(&mut |_| {}).expect_err("cut off");
        assert!(matches!(error.code(), "TED-1731" | "TED-1734"), "{length}: {error}");
    }
}

#[test]
fn any_changed_byte_gives_an_error_or_a_tree_that_no_subscriber_refuses() {
    let whole = ok().pax(b'x', &[("path", "d/\u{e4}".as_bytes())]).file("d/a", b"x").link("l", b'1', "d/f").end();
    let folder = tempfile::tempdir().expect("temporary folder");
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= bit;
            if let Ok(entries) = source(folder.path(), &changed, |_| {}).entries(&mut |_| {}) {
                judge_entries(&entries, &Limits::DEFAULT).expect("no Subscriber refuses it");
            }
        }
    }
}

#[test]
fn patterns_hold_in_archives_too_and_content_follows_the_name_that_is_taken() {
    let tar = Tar::default().file("b/f", b"content").link("c/f", b'1', "b/f").file("x.tmp", b"").dir("empty").end();
    let selection = Selection::new(&["b", "*.tmp"], &["f"]).expect("patterns");
    let folder = tempfile::tempdir().expect("temporary folder");
    let source = source(folder.path(), &tar, |options| options.selection = selection);
    let entries = source.entries(&mut |_| {}).expect("listed");
    let paths: Vec<_> = entries.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths, [".", "c", "c/f"]);
    let mut content = String::new();
    source.open(&entries[2], 0).expect("there").read_to_string(&mut content).expect("read");
    assert_eq!(content, "content");
}

#[test]
fn a_compressed_archive_that_stays_the_same_is_not_unpacked_to_look_at_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let unpacked = Arc::new(Mutex::new(0));
    let counting = unpacked.clone();
    let (known, progress): (Arc<KnownArchives>, Progress) =
        (Arc::default(), Arc::new(move |_, _, _| *counting.lock().expect("whole") += 1));
    let later = UnixMillis::from_millis(u64::MAX / 4);
    let again = |bytes: &[u8]| {
        source(folder.path(), bytes, |options| {
            (options.known, options.progress, options.now) = (known.clone(), progress.clone(), later);
        })
    };
    let packed = zstd(&ok().end());
    let first = again(&packed);
    let entries = first.entries(&mut |_| {}).expect("listed");
    let before = *unpacked.lock().expect("whole");
    assert!(before > 0);
    let options = TarOptions { known: known.clone(), progress: progress.clone(), now: later, ..first.options };
    let second = TarSource::new(options);
    assert_eq!(second.entries(&mut |_| {}).expect("listed"), entries);
    assert_eq!(*unpacked.lock().expect("whole"), before, "nothing was unpacked");
    let mut content = String::new();
    second.open(&entries[2], 0).expect("there").read_to_string(&mut content).expect("read");
    assert_eq!(content, "fine", "it is unpacked when its content is wanted");
    let third = again(&zstd(&ok().file("new", b"").end()));
    assert_eq!(third.entries(&mut |_| {}).expect("listed").len(), 4, "another file is another archive");
}
