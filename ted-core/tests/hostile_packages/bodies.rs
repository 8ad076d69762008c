//! Bodies: frames that become something else than the table says, and tar streams that say something else than the
//! catalog.

use ted_core::Coded;
use ted_core::id::Hash;
use ted_core::limits::Limits;
use ted_core::package::{BodyDigest, verify_body};

use super::forge::{
    FILE, FOLDER, Forge, Frame, HARD_LINK, SYMLINK, compress, endless, header, pax, record, row, ustar,
};
use super::place::Place;

const TAR: &str = "TED-1030";
const FRAME: &str = "TED-1016";
const STRUCTURE: &str = "TED-1013";
const CATALOG: &str = "TED-1017";
const CONTENT: &str = "TED-1409";

macro_rules! refused {
    ($($name:ident: $code:ident, $says:literal, $change:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let place = Place::new();
                let change: fn(&mut Forge) = $change;
                let mut forge = update();
                change(&mut forge);
                place.refuses(&forge.sign(&place.distributor), &Limits::DEFAULT, ($code, $says));
            }
        )*
    };
}

/// What follows the honest revision: a file changed, and one that has a pax header.
fn update() -> Forge {
    let mut rows =
        vec![row(b"", FOLDER, b""), row(b"file", FILE, b"new content of a file"), row(b"late", FILE, b"late")];
    rows[2].mtime = (1_700_000_000, 5);
    rows.push(row(b"link", SYMLINK, b"file"));
    rows.push(row(b"same", HARD_LINK, b"file"));
    let mut forge = Forge::of(&[]);
    let mut stream = vec![];
    for row in &mut rows {
        stream.extend(header(row));
        if row.size > 0 {
            row.offset = stream.len() as u64;
            stream.extend(if row.path == b"file" { &b"new content of a file"[..] } else { b"late" });
            stream.resize(stream.len().next_multiple_of(512), 0);
        }
    }
    forge.rows = rows;
    forge.frames[0] = Frame::of(&stream);
    forge
}

/// Offsets in the stream of [`update`]: 512 bytes of the root, then `file`.
const FILE_HEADER: usize = 512;
const FILE_PADDING: usize = 1024 + 21;
const LATE_PAX: usize = 1536;
const LATE_HEADER: usize = LATE_PAX + 1024;
const LINK_HEADER: usize = LATE_HEADER + 1024;

fn replace(forge: &mut Forge, at: usize, bytes: &[u8]) {
    forge.change_stream(|stream| stream[at..at + bytes.len()].copy_from_slice(bytes));
}

/// Puts blocks before the header at `at`, and moves what follows in the catalog too.
fn insert(forge: &mut Forge, at: usize, blocks: &[u8]) {
    forge.change_stream(|stream| drop(stream.splice(at..at, blocks.iter().copied())));
    for row in forge.rows.iter_mut().filter(|row| row.offset > at as u64) {
        row.offset += blocks.len() as u64;
    }
}

fn file_header(kind: tar::EntryType, name: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    ustar((kind, 0o644), (b"", name), link, (size, 1_700_000_000))
}

#[test]
fn what_the_other_cases_change_is_accepted_as_it_is() {
    let place = Place::new();
    let forge = update();
    forge.clone().change_stream(|stream| {
        assert!(stream[FILE_HEADER..].starts_with(b"file\0") && stream[FILE_PADDING..FILE_PADDING + 491] == [0; 491]);
        assert!(stream[LATE_PAX..].starts_with(b"././@PaxHeader") && stream[LATE_HEADER..].starts_with(b"late\0"));
        assert!(stream[LINK_HEADER..].starts_with(b"link\0"));
    });
    place.receive(&forge.sign(&place.distributor), &Limits::DEFAULT).expect("nothing is wrong with it");
}

refused! {
    a_tar_header_with_another_name: TAR, "`file`", |forge| {
        replace(forge, FILE_HEADER, &file_header(tar::EntryType::Regular, b"../outside/sentinel", b"", 21));
    };
    a_tar_header_with_an_absolute_name: TAR, "`file`", |forge| {
        replace(forge, FILE_HEADER, &file_header(tar::EntryType::Regular, b"/etc/passwd", b"", 21));
    };
    a_tar_header_of_a_device: TAR, "`file`", |forge| {
        replace(forge, FILE_HEADER, &file_header(tar::EntryType::Char, b"file", b"", 21));
    };
    a_tar_header_of_a_symlink_where_the_catalog_has_a_file: TAR, "`file`", |forge| {
        replace(forge, FILE_HEADER, &file_header(tar::EntryType::Symlink, b"file", b"/etc/passwd", 0));
    };
    a_tar_header_of_a_sparse_file: TAR, "`file`", |forge| {
        replace(forge, FILE_HEADER, &file_header(tar::EntryType::GNUSparse, b"file", b"", 21));
    };
    a_tar_header_of_a_gnu_long_name: TAR, "`file`", |forge| {
        replace(forge, FILE_HEADER, &file_header(tar::EntryType::GNULongName, b"././@LongLink", b"", 21));
    };
    a_tar_header_with_another_size: TAR, "`file`", |forge| {
        replace(forge, FILE_HEADER, &file_header(tar::EntryType::Regular, b"file", b"", 4 << 30));
    };
    a_tar_header_with_a_setuid_mode: TAR, "`file`", |forge| {
        let bits = (tar::EntryType::Regular, 0o4755);
        replace(forge, FILE_HEADER, &ustar(bits, (b"", b"file"), b"", (21, 1_700_000_000)));
    };
    a_tar_header_with_another_time: TAR, "`file`", |forge| {
        let kind = (tar::EntryType::Regular, 0o644);
        replace(forge, FILE_HEADER, &ustar(kind, (b"", b"file"), b"", (21, 0)));
    };
    a_tar_header_with_a_wrong_checksum: TAR, "`file`", |forge| replace(forge, FILE_HEADER + 148, b"0000000\0");
    a_symlink_with_another_target_in_its_tar_header: TAR, "`link`", |forge| {
        let kind = (tar::EntryType::Symlink, 0o644);
        replace(forge, LINK_HEADER, &ustar(kind, (b"", b"link"), b"/etc/passwd", (0, 1_700_000_000)));
    };
    a_hard_link_with_another_target_in_its_tar_header: TAR, "`same`", |forge| {
        let kind = (tar::EntryType::Link, 0o644);
        replace(forge, LINK_HEADER + 512, &ustar(kind, (b"", b"same"), b"/etc/passwd", (0, 1_700_000_000)));
    };
    a_pax_path_where_ustar_says_another: TAR, "`late`", |forge| {
        replace(forge, LATE_PAX, &pax(&record("path", b"../outside/sentinel")));
    };
    a_pax_size_where_ustar_says_another: TAR, "`late`", |forge| {
        replace(forge, LATE_PAX, &pax(&record("size", b"1099511627776")));
    };
    a_pax_record_of_a_sparse_file_of_four_gibibytes: TAR, "`late`", |forge| {
        replace(forge, LATE_PAX, &pax(&record("GNU.sparse.realsize", b"4294967296")));
    };
    a_pax_link_path: TAR, "`late`", |forge| replace(forge, LATE_PAX, &pax(&record("linkpath", b"/etc/passwd")));
    a_pax_record_of_another_time: TAR, "`late`", |forge| {
        replace(forge, LATE_PAX, &pax(&record("mtime", b"1700000000.000000006")));
    };
    a_pax_header_more_than_the_catalog_makes: CATALOG, "does not lie in the body", |forge| {
        insert(forge, FILE_HEADER, &pax(&record("path", b"../outside/sentinel")));
    };
    a_global_pax_header: CATALOG, "does not lie in the body", |forge| {
        let mut global = pax(&record("path", b"x"));
        global[156] = b'g';
        insert(forge, 0, &global);
    };
    a_tar_entry_that_the_catalog_does_not_have: CATALOG, "does not lie in the body", |forge| {
        insert(forge, FILE_HEADER, &file_header(tar::EntryType::Symlink, b"evil", b"/etc", 0));
    };
    a_tar_entry_behind_those_of_the_catalog: STRUCTURE, "more than the catalog has", |forge| {
        forge.change_stream(|stream| stream.extend(file_header(tar::EntryType::Regular, b"/etc/cron.d/x", b"", 0)));
    };
    a_frame_of_tar_entries_behind_those_of_the_catalog: STRUCTURE, "more than the catalog has", |forge| {
        forge.frames.insert(1, Frame::of(&file_header(tar::EntryType::Regular, b"x", b"", 0)));
    };
    an_archive_behind_the_end_marker: STRUCTURE, "more than the catalog has", |forge| {
        forge.frames.push(Frame::of(&file_header(tar::EntryType::Regular, b"x", b"", 0)));
    };
    bytes_hidden_in_the_padding: TAR, "`file`", |forge| replace(forge, FILE_PADDING, b"hidden");
    a_tar_stream_that_is_none: TAR, "`.`", |forge| forge.change_stream(|stream| stream.fill(b'x'));

    a_frame_that_becomes_a_gibibyte: FRAME, "cannot be decompressed", |forge| forge.frames[0].stored = endless(8192);
    a_frame_that_says_it_becomes_64_mebibytes: FRAME, "cannot be decompressed", |forge| {
        forge.frames[0].stored = compress(&vec![0; 64 << 20]);
    };
    a_frame_that_becomes_less_than_stated: FRAME, "cannot be decompressed", |forge| forge.frames[0].stored = compress(b"x");
    a_frame_that_is_stated_to_become_four_gibibytes: STRUCTURE, "longer than allowed", |forge| {
        forge.lie_in_table = |rows| rows[0].1 = u32::MAX;
    };
    a_frame_that_is_stated_to_have_four_gibibytes: STRUCTURE, "longer than allowed", |forge| {
        forge.lie_in_table = |rows| rows[0].0 = u32::MAX;
    };
    a_frame_that_is_stated_to_become_nothing: STRUCTURE, "empty or longer", |forge| {
        forge.lie_in_table = |rows| rows[0].1 = 0;
    };
    a_frame_with_another_one_behind_it: FRAME, "cannot be decompressed", |forge| {
        let twice = [forge.frames[0].stored.clone(), compress(b"/etc/passwd")].concat();
        forge.frames[0].stored = twice;
    };
    a_frame_with_a_skippable_frame_behind_it: FRAME, "cannot be decompressed", |forge| {
        forge.frames[0].stored.extend([0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]);
    };
    a_frame_that_is_no_zstd: FRAME, "cannot be decompressed", |forge| forge.frames[0].stored = vec![b'x'; 500];
    a_frame_with_another_hash: FRAME, "the hash", |forge| forge.lie_in_table = |rows| rows[0].2 = Hash::of(b"x");
    a_catalog_frame_that_becomes_more_than_stated: FRAME, "cannot be decompressed", |forge| {
        forge.lie_in_table = |rows| rows[2].1 -= 1;
    };
    a_catalog_frame_with_another_hash: FRAME, "the hash", |forge| {
        forge.lie_in_table = |rows| rows[2].2 = Hash::of(b"x");
    };
    content_with_another_hash: CONTENT, "`file`", |forge| forge.rows[1].content = *blake3::hash(b"x").as_bytes();
    contents_changed_for_one_another: CONTENT, "`late`", |forge| {
        let hash = forge.rows[1].content;
        forge.rows[2].content = hash;
    };
    more_frames_than_there_are: STRUCTURE, "disagree", |forge| forge.lie_in_root = |root| root.body_frames += 1;
    frames_without_end: STRUCTURE, "more frames than allowed", |forge| {
        forge.lie_in_root = |root| root.body_frames = u64::MAX;
    };
    a_body_without_end: STRUCTURE, "disagree", |forge| forge.lie_in_root = |root| root.body_bytes = u64::MAX;
    a_raw_body_of_petabytes: STRUCTURE, "disagree", |forge| forge.lie_in_root = |root| root.body_raw_bytes = 1 << 50;
}

/// Nothing of it is extracted, so only those who read the whole body see it.
#[test]
fn an_end_marker_that_is_none_and_a_digest_that_lies_are_refused_when_the_package_is_verified() {
    let place = Place::new();
    let changes: [(fn(&mut Forge), &str); 2] = [
        (|forge| forge.frames[1] = Frame::of(&[b'x'; 1024]), STRUCTURE),
        (|forge| forge.lie_in_root = |root| root.digest = BodyDigest::Md5([0; 16]), "TED-1019"),
    ];
    for (change, code) in changes {
        let mut forge = update();
        change(&mut forge);
        let bytes = forge.sign(&place.distributor);
        let index = place.open(&bytes, &Limits::DEFAULT).expect("the body was not looked at");
        assert_eq!(verify_body(&index, &bytes, 1, &|_| {}).expect_err("a lie").code(), code);
    }
}

/// Zeros without end in a few kilobytes: right in everything, so it is extracted, with holes; or refused where
/// there is no room for what it says.
#[test]
fn a_sparse_file_needs_as_much_room_as_it_says_and_is_written_as_a_hole() {
    let place = Place::new();
    let zeros = Frame::of(&vec![0; 4 << 20]);
    let mut forge = Forge::of(&[]);
    let mut large = row(b"large", FILE, b"");
    large.size = 1 << 26;
    large.content = hash_of_zeros(large.size);
    let stream = [header(&row(b"", FOLDER, b"")), header(&large)].concat();
    large.offset = stream.len() as u64;
    forge.frames = vec![Frame::of(&stream)];
    forge.frames.extend(vec![zeros; 16]);
    forge.frames.push(Frame::of(&[0; 1024]));
    forge.rows.push(large);
    let bytes = forge.sign(&place.distributor);
    assert!(bytes.len() < 20_000);
    place.receive(&bytes, &Limits::DEFAULT).expect("there is room here");
    let facts = std::fs::metadata(place.at("target/large")).expect("extracted");
    assert_eq!(facts.len(), 1 << 26);
    assert!(std::os::unix::fs::MetadataExt::blocks(&facts) < 2048, "it is a hole");

    let mut beyond = Forge::of(&[]);
    let mut row = row(b"large", FILE, b"");
    // 2 TiB, in half as many frames as a table may have.
    row.size = (1 << 41) - (1 << 23);
    let stream = [header(&beyond.rows[0]), header_of_huge(&row)].concat();
    row.offset = stream.len() as u64;
    beyond.frames = vec![Frame::of(&stream)];
    beyond.frames.extend(vec![forge.frames[1].clone(); (row.size >> 22) as usize]);
    beyond.frames.push(Frame::of(&[0; 1024]));
    beyond.rows.push(row);
    place.refuses(&beyond.sign(&place.distributor), &Limits::DEFAULT, ("TED-1407", "bytes are needed"));
}

fn hash_of_zeros(bytes: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        hasher.update(&zeros);
    }
    *hasher.finalize().as_bytes()
}

/// A size beyond what ustar can say stands in a pax record.
fn header_of_huge(row: &super::forge::Row) -> Vec<u8> {
    let mut plain = row.clone();
    plain.size = 0;
    [pax(&record("size", row.size.to_string().as_bytes())), header(&plain)].concat()
}
