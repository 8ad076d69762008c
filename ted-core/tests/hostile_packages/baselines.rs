//! Catalogs.

use ted_core::extract::{ExtractOptions, judge_entries};
use ted_core::limits::Limits;

use super::forge::{FILE, FOLDER, Forge, Frame, HARD_LINK, Row, SYMLINK, header, row};
use super::place::{Place, honest};

/// The code of a refused catalog, and of values that no catalog can hold.
const CATALOG: &str = "TED-1017";
const VALUE: &str = "TED-1002";
const STRUCTURE: &str = "TED-1013";
const ENTRY: &str = "TED-1401";

macro_rules! refused {
    ($($name:ident: $code:ident, $says:literal, $forge:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let place = Place::new();
                let forge: Forge = $forge;
                place.refuses(&forge.sign(&place.distributor), &Limits::DEFAULT, ($code, $says));
            }
        )*
    };
}

/// An honest package with one more entry in it, in its place.
fn with(path: &[u8], kind: u32, data: &[u8]) -> Forge {
    let mut entries: Vec<(&[u8], u32, &[u8])> = vec![(b"dir", FOLDER, b""), (b"file", FILE, b"x"), (path, kind, data)];
    entries.sort_by_key(|entry| entry.0);
    Forge::of(&entries)
}

fn changed(path: &[u8], change: fn(&mut Row)) -> Forge {
    let mut forge = honest();
    change(forge.row(path));
    forge
}

refused! {
    an_absolute_path: VALUE, "it is absolute", with(b"/etc/cron.d/x", FILE, b"x");
    an_absolute_path_of_a_folder: VALUE, "it is absolute", with(b"/tmp", FOLDER, b"");
    a_path_that_climbs_out: VALUE, "`..`", with(b"../outside/sentinel", FILE, b"x");
    a_path_that_climbs_out_from_within: VALUE, "`..`", with(b"dir/../../outside/sentinel", FILE, b"x");
    a_path_that_ends_by_climbing: VALUE, "`..`", with(b"dir/..", FOLDER, b"");
    a_path_with_a_dot: VALUE, "`.`", with(b"./file", FILE, b"x");
    a_path_with_an_empty_component: VALUE, "empty", with(b"dir//x", FILE, b"x");
    a_path_that_ends_with_a_slash: VALUE, "empty", with(b"dir/x/", FOLDER, b"");
    a_path_with_a_nul: VALUE, "NUL", with(b"x\0.txt", FILE, b"x");
    a_path_with_a_name_of_256_bytes: VALUE, "too long", with(&[b'n'; 256], FOLDER, b"");
    a_path_of_more_than_4096_bytes: VALUE, "too long", with([[b'n'; 255].as_slice(); 17].join(&b'/').as_slice(), FOLDER, b"");
    a_path_of_more_than_1024_folders: VALUE, "too deep", with([b"n".as_slice(); 1025].join(&b'/').as_slice(), FOLDER, b"");

    a_device_node: VALUE, "malformed", with(b"null", 4, b"");
    a_block_device: VALUE, "malformed", with(b"sda", 5, b"");
    a_fifo: VALUE, "malformed", with(b"pipe", 6, b"");
    a_socket: VALUE, "malformed", with(b"socket", 7, b"");
    a_kind_that_is_none: VALUE, "malformed", with(b"what", u32::MAX, b"");

    a_file_through_a_symlink_of_the_package: CATALOG, "`link/sentinel`",
        Forge::of(&[(b"link", SYMLINK, b"../outside"), (b"link/sentinel", FILE, b"x")]);
    a_folder_through_a_symlink_of_the_package: CATALOG, "`link/below`",
        Forge::of(&[(b"link", SYMLINK, b"/tmp"), (b"link/below", FOLDER, b""), (b"link/below/x", FILE, b"x")]);
    a_file_through_a_hard_link_to_a_symlink: CATALOG, "`z/sentinel`",
        Forge::of(&[(b"link", SYMLINK, b"../outside"), (b"z", HARD_LINK, b"link"), (b"z/sentinel", FILE, b"x")]);
    a_file_below_a_file: CATALOG, "`file/x`", with(b"file/x", FILE, b"x");
    a_file_through_a_symlink_that_an_earlier_revision_left: CATALOG, "`out/sentinel`",
        Forge::of(&[(b"out/sentinel", FILE, b"x")]);
    a_symlink_instead_of_the_root: CATALOG, "root folder",
        changed(b"", |root| { root.kind = SYMLINK; root.link = b"/etc".to_vec(); });

    a_hard_link_to_an_absolute_path: CATALOG, "hard link", with(b"link", HARD_LINK, b"/etc/passwd");
    a_hard_link_that_climbs_out: CATALOG, "hard link", with(b"link", HARD_LINK, b"../outside/sentinel");
    a_hard_link_through_a_symlink: CATALOG, "hard link",
        Forge::of(&[(b"a", SYMLINK, b"../outside"), (b"link", HARD_LINK, b"a/sentinel")]);
    a_hard_link_to_what_only_the_target_has: CATALOG, "hard link", with(b"link", HARD_LINK, b"dir/inner");
    a_hard_link_to_itself: CATALOG, "hard link", with(b"link", HARD_LINK, b"link");
    a_hard_link_to_a_folder: CATALOG, "hard link", with(b"link", HARD_LINK, b"dir");

    the_same_entry_twice: CATALOG, "duplicate", Forge::of(&[(b"a", FILE, b"1"), (b"a", FILE, b"2")]);
    a_symlink_and_a_file_of_one_name: CATALOG, "duplicate",
        Forge::of(&[(b"a", SYMLINK, b"../outside/sentinel"), (b"a", FILE, b"2")]);
    a_second_root: CATALOG, "duplicate", Forge::of(&[(b"", FOLDER, b"")]);
    entries_in_disorder: CATALOG, "out of order", Forge::of(&[(b"b", FILE, b"1"), (b"a", FILE, b"2")]);
    no_root: CATALOG, "root folder", { let mut forge = honest(); forge.rows.remove(0); forge };

    a_name_that_extraction_keeps_for_itself: ENTRY, "staging", with(b".ted-staging-09090909090909090909090909090909", FOLDER, b"");
    mode_bits_that_make_a_device: CATALOG, "mode", changed(b"file", |row| row.mode = 0o20_666);
    a_time_that_is_none: CATALOG, "time", changed(b"file", |row| row.mtime.1 = u32::MAX);
    a_symlink_to_a_nul: CATALOG, "NUL", with(b"link", SYMLINK, b"a\0b");
    a_symlink_of_more_than_4096_bytes: CATALOG, "too long", with(b"link", SYMLINK, &[b'x'; 4097]);
    a_symlink_to_nothing: CATALOG, "lacks one", with(b"link", SYMLINK, b"");
    a_symlink_with_content: CATALOG, "field that its kind", changed(b"out", |row| row.size = 5);
    a_folder_with_content: CATALOG, "field that its kind", changed(b"dir", |row| row.content = [7; 32]);

    a_file_of_four_gibibytes_in_a_small_body: CATALOG, "does not lie in the body", changed(b"file", |row| row.size = 4 << 30);
    a_file_of_all_bytes_there_are: CATALOG, "does not lie in the body", changed(b"file", |row| row.size = u64::MAX);
    a_file_larger_than_any_file_system: CATALOG, "does not lie in the body", changed(b"file", |row| row.size = i64::MAX as u64 + 1);
    a_file_one_byte_longer_than_its_content: CATALOG, "does not lie in the body", changed(b"file", |row| row.size = 513);
    a_file_that_hides_what_follows_it: CATALOG, "does not lie in the body", changed(b"dir/inner", |row| row.size = 600);
    content_over_another_content: CATALOG, "does not lie in the body", changed(b"file", |row| row.offset = 1536);
    content_in_a_tar_header: CATALOG, "does not lie in the body", changed(b"file", |row| row.offset = 0);
    content_behind_the_body: CATALOG, "does not lie in the body", changed(b"file", |row| row.offset = 1 << 40);
    content_at_the_last_byte_of_all: CATALOG, "does not lie in the body", changed(b"file", |row| row.offset = u64::MAX);
    content_one_block_later: CATALOG, "does not lie in the body", changed(b"file", |row| row.offset += 512);

    too_many_extensions: CATALOG, "extensions", changed(b"file", |row| row.extensions = (0..65).map(|kind| (kind, vec![])).collect());
    an_extension_twice: CATALOG, "extensions", changed(b"file", |row| row.extensions = vec![(900, vec![]), (900, vec![])]);
    extensions_in_disorder: CATALOG, "extensions", changed(b"file", |row| row.extensions = vec![(901, vec![]), (900, vec![])]);
    an_extension_that_is_too_long: CATALOG, "extensions", changed(b"file", |row| row.extensions = vec![(900, vec![0; 65_537])]);

    more_entries_than_stated: CATALOG, "more entries", changed_disclosure(3);
    fewer_entries_than_stated: STRUCTURE, "another number of entries", changed_disclosure(7);
    a_number_of_entries_without_end: STRUCTURE, "more entries than allowed", changed_disclosure(u64::MAX);
    a_million_entries_more_than_allowed: STRUCTURE, "more entries than allowed", changed_disclosure(5_000_000);
    another_content_id: STRUCTURE, "content id", { let mut forge = honest(); forge.disclosed = Some((ted_core::id::ContentId::from_bytes([0; 32]), 6)); forge };
}

/// The content id is right, and the number of entries is not.
fn changed_disclosure(entries: u64) -> Forge {
    let place = Place::new();
    let index = place.open(&honest().sign(&place.distributor), &Limits::DEFAULT).expect("honest");
    let mut forge = honest();
    forge.disclosed = Some((index.disclosure().content, entries));
    forge
}

/// A catalog frame that says how many rows follow, and has this many.
fn counted(said: u64, there: usize) -> Forge {
    let mut forge = honest();
    let mut raw = said.to_le_bytes().to_vec();
    let mut one = vec![];
    one.extend(0_u64.to_le_bytes());
    one.resize(one.len() + 4 + 4 + 4 + 4 + 12 + 8 + 8 + 32 + 8 + 8, 0);
    raw.extend(one.repeat(there));
    forge.catalog = Some(vec![raw]);
    forge
}

refused! {
    a_million_entries_that_are_not_there: VALUE, "malformed", counted(1_000_000, 1);
    entries_without_end: VALUE, "malformed", counted(u64::MAX, 1);
    a_catalog_frame_full_of_one_entry: CATALOG, "duplicate", counted(40_000, 40_000);
}

#[test]
fn more_entries_than_the_limits_allow() {
    let place = Place::new();
    let limits = Limits { entries_max: 99_999, ..Limits::DEFAULT };
    // Many small frames, as an honest builder makes them.
    let rows: Vec<_> = (0..100_000_u32).map(|number| row(format!("{number:06}").as_bytes(), FOLDER, b"")).collect();
    let mut forge = honest();
    let frames = rows.chunks(4_000).enumerate().map(|(at, rows)| {
        let root = if at == 0 { vec![row(b"", FOLDER, b"")] } else { vec![] };
        Forge { rows: root.into_iter().chain(rows.iter().cloned()).collect(), ..honest() }.raw_rows()
    });
    forge.catalog = Some(frames.collect());
    let header = header(&rows[0]);
    // As much body as the entries need, so that nothing but their number is wrong.
    let stretch = Frame::of(&header.repeat(8192));
    forge.frames = vec![stretch; 100_001_usize.div_ceil(8192)];
    forge.disclosed = Some((ted_core::id::ContentId::from_bytes([0; 32]), 99_999));
    place.refuses(&forge.sign(&place.distributor), &limits, (CATALOG, "more entries than allowed"));
}

#[test]
fn a_catalog_that_becomes_gigabytes() {
    let place = Place::new();
    let mut forge = honest();
    // Nothing is decompressed: the table says what it would become.
    forge.catalog = Some(vec![vec![0; 8 << 20]; 129]);
    place.refuses(&forge.sign(&place.distributor), &Limits::DEFAULT, (STRUCTURE, "longer than allowed"));
}

#[test]
fn names_that_a_file_system_takes_for_one() {
    let place = Place::new();
    let pairs: [(&str, &str); 6] = [
        ("README", "readme"),
        ("STRASSE", "stra\u{df}e"),
        ("caf\u{e9}", "cafe\u{301}"),
        ("\u{212a}", "k"),
        ("a\u{200d}b", "ab"),
        ("dir/\u{fb01}le", "dir/FILE"),
    ];
    for (one, other) in pairs {
        let mut entries: Vec<(&[u8], u32, &[u8])> =
            vec![(b"dir", FOLDER, b""), (one.as_bytes(), FILE, b"1"), (other.as_bytes(), FILE, b"2")];
        entries.sort_by_key(|entry| entry.0);
        let bytes = Forge::of(&entries).sign(&place.distributor);
        let index = place.open(&bytes, &Limits::DEFAULT).expect("what it is depends on the target");
        let judged = |folding| judge_entries(index.catalog(), &ExtractOptions::default(), folding);
        assert!(judged(false).is_ok(), "two names for Linux: {one} and {other}");
        let error = judged(true).expect_err("the same name");
        assert!(error.to_string().contains("the same name as"), "{error}");
    }
}

#[test]
fn the_longest_names_and_the_deepest_paths_that_are_allowed_are_extracted() {
    let place = Place::new();
    let long = [b'n'; 255];
    let mut entries: Vec<(Vec<u8>, u32)> =
        (1..=100).map(|depth| (vec![b"d".as_slice(); depth].join(&b'/'), FOLDER)).collect();
    entries.push((long.to_vec(), FOLDER));
    entries.sort();
    let borrowed: Vec<(&[u8], u32, &[u8])> =
        entries.iter().map(|(path, kind)| (path.as_slice(), *kind, &b""[..])).collect();
    let forge = Forge::of(&borrowed);
    place.receive(&forge.sign(&place.distributor), &Limits::DEFAULT).expect("allowed");
    assert!(place.at("target").join(std::str::from_utf8(&long).expect("ASCII")).is_dir());
    assert!(place.at("target").join(vec!["d"; 100].join("/")).is_dir());
}
