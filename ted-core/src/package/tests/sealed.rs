//! What a sealed package shows, and to whom.

use proptest::prelude::*;

use super::super::frame::{FrameEncoder, open_frame};
use super::*;
use crate::error::Coded;
use crate::id::Hash;

const CANARY_NAME: &str = "canary-in-a-name";

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.dir("d").file(&format!("d/{CANARY_NAME}"), noise(3, 3000)).file("large", noise(4, 200_000));
    tree.link("link", EntryKind::Symlink, "canary-in-a-link");
    tree
}

fn with_key(bytes: &dyn ReadAt, opening: impl Fn() -> Opening) -> Result<PackageIndex, PackageError> {
    read_index(bytes, &Limits::DEFAULT, |_: &Root, _: &[u8], _: &Signature| Ok::<_, PackageError>(opening()))
}

#[test]
fn nothing_of_what_is_in_it_stands_in_a_sealed_package() {
    let tree = tree();
    let has = |bytes: &[u8], canary: &[u8]| bytes.windows(canary.len()).any(|window| window == canary);
    let content = &noise(3, 3000)[1000..1032];
    // zstd keeps noise as it is, so that the search would find it.
    let (plain, _) = tree.build(&options(SMALL_FRAMES));
    assert!(has(&plain, content) && has(&plain, CANARY_NAME.as_bytes()) && has(&plain, b"site"));
    let (bytes, built) = tree.build(&sealed(SMALL_FRAMES));
    for canary in [content, CANARY_NAME.as_bytes(), b"canary", b"site", built.index.disclosure().content.as_bytes()] {
        assert!(!has(&bytes, canary));
    }
    assert_eq!(built.root.disclosure, None);
    assert_eq!(built.index.disclosure().distribution_name.as_str(), "site");
    assert_eq!(built.index.disclosure().entries, 5);
}

#[test]
fn it_begins_with_its_head_and_the_digest_is_of_the_bytes_behind_it() {
    let (bytes, built) = tree().build(&BuildOptions { digest: DigestKind::Blake3, ..sealed(SMALL_FRAMES) });
    assert_eq!(bytes[..16], *b"\x50\x2a\x4d\x18\x08\0\0\0TED\0\x01\0\0\0");
    let body = built.index.body_range();
    assert_eq!((body.start, body.end), (16, 16 + built.root.body_bytes));
    assert_eq!(built.index.frame_range(0).start, 16);
    assert_eq!(built.root.digest, BodyDigest::Blake3(Hash::of(&bytes[16..body.end as usize])));
    let (_, unsealed) = tree().build(&options(SMALL_FRAMES));
    assert_eq!(unsealed.index.body_range(), 0..unsealed.root.body_bytes);
}

#[test]
fn without_its_key_it_is_read_blind_or_not_at_all() {
    let (bytes, built) = tree().build(&BuildOptions { digest: DigestKind::Md5, ..sealed(SMALL_FRAMES) });
    for opening in [Opening::Unsealed, Opening::Blind] {
        let error = with_key(&bytes, || opening.clone()).expect_err("no key");
        assert_eq!(error.code(), "TED-1151");
    }
    let blind = read_blind(&bytes).expect("good");
    assert_eq!((blind.id(), blind.bytes()), (built.id, bytes.len() as u64));
    assert_eq!(blind.rows(), built.index.rows());
    assert_eq!(blind.frame_range(2), built.index.frame_range(2));
    verify_frames(&blind, &bytes, 2, &|_| {}).expect("whole");
    verify_digest(&blind, &bytes).expect("whole");
    let (plain, _) = tree().build(&options(SMALL_FRAMES));
    verify_body(&with_key(&plain, || Opening::Blind).expect("nothing is sealed"), &plain, 1, &|_| {}).expect("whole");
    with_key(&plain, || Opening::With(seal().key)).expect("a key that is not needed does no harm");
}

#[test]
fn a_wrong_key_is_noticed_before_a_frame_is_opened() {
    let (mut bytes, built) = tree().build(&sealed(SMALL_FRAMES));
    let other = || Opening::With(secret().content_key(&[9; SALT_BYTES]));
    assert_eq!(with_key(&bytes, other).expect_err("another key").code(), "TED-1152");
    // The same when the catalog is damaged, which is read later.
    let catalog = built.index.frame_range(built.index.body_frames());
    bytes[catalog.start as usize] ^= 1;
    assert_eq!(with_key(&bytes, other).expect_err("another key").code(), "TED-1152");
    assert_eq!(with_key(&bytes, || Opening::With(seal().key)).expect_err("damaged").code(), "TED-1016");
}

#[test]
fn a_frame_that_was_signed_and_does_not_open_is_named() {
    for row in [0, 2] {
        let mut forge = Forge::of(&tree(), &sealed(SMALL_FRAMES));
        // Frames in another place, or of another package, with a table that says so.
        if row == 0 {
            forge.body[0].0 = forge.body[2].0.clone();
        } else {
            let (tree, salt) = (tree(), [9; SALT_BYTES]);
            let other =
                Forge::of(&tree, &BuildOptions { seal: Some(Seal::of(&secret(), salt)), ..options(SMALL_FRAMES) });
            forge.body[row] = other.body[row].clone();
        }
        let bytes = forge.seal(|_, _| {});
        let index = read(&bytes).expect("table and root fit");
        let error = verify_body(&index, &bytes, 1, &|_| {}).expect_err("it does not open");
        assert!(matches!(error, PackageError::Frame { frame, .. } if frame == row as u64), "{error}");
        assert_eq!(error.code(), "TED-1150");
        let read = BodyReader::new(index.clone(), &bytes).read_raw(row as u64, &mut Vec::new());
        assert_eq!(read.expect_err("it does not open").code(), "TED-1150");
        verify_frames(&index, &bytes, 1, &|_| {}).expect("blind, all is as it was signed");
    }
}

#[test]
fn sealed_frames_have_a_content() {
    let mut forge = Forge::of(&tree(), &sealed(SMALL_FRAMES));
    forge.body[0].0.truncate(16);
    let bytes = forge.seal(|_, _| {});
    assert!(matches!(read_blind(&bytes), Err(PackageError::Structure { what: "a sealed frame has no content" })));
}

#[test]
fn the_longest_sealed_frame_fits_the_limits() {
    let limits = Limits::DEFAULT;
    let raw = noise(1, limits.frame_raw_bytes_max as usize);
    let sealer = seal().key.sealer(&seal().salt);
    for level in [1, 3, 19] {
        let mut encoder = FrameEncoder::new(level, Some(&sealer)).expect("zstd");
        let row = encoder.encode(0, &raw, &mut Vec::new()).expect("zstd");
        assert!(row.stored_bytes > row.raw_bytes && row.stored_bytes <= limits.frame_stored_bytes_max, "{level}");
    }
}

#[test]
fn the_same_seal_gives_the_same_bytes_and_another_salt_others_everywhere() {
    let tree = tree();
    let (first, built) = tree.build(&sealed(SMALL_FRAMES));
    assert_eq!(tree.build(&sealed(SMALL_FRAMES)).0, first);
    let seal = Some(Seal::of(&secret(), [8; SALT_BYTES]));
    let (_, other) = tree.build(&BuildOptions { seal, ..options(SMALL_FRAMES) });
    let pairs = built.index.rows().iter().zip(other.index.rows());
    assert!(pairs.clone().all(|(one, two)| one.hash != two.hash && one.raw_bytes == two.raw_bytes));
    assert_eq!(built.index.disclosure(), other.index.disclosure());
}

#[test]
fn debug_prints_no_key() {
    let (_, built) = tree().build(&sealed(SMALL_FRAMES));
    let printed = format!("{built:?} {:?} {:?}", sealed(SMALL_FRAMES), Opening::With(seal().key));
    let key = seal().key;
    for shape in [hex::encode(key.as_bytes()), format!("{:?}", &key.as_bytes()[..4]).replace(']', "")] {
        assert!(!printed.contains(&shape));
    }
}

#[test]
fn the_head_is_asked_for_before_table_and_catalog() {
    let mut tree = Tree::new();
    for number in 0..3000 {
        tree.file(&format!("{number}-{}", hex::encode(noise(number, 40))), Vec::new());
    }
    let (bytes, built) = tree.build(&sealed(SMALL_FRAMES));
    assert!(built.root.catalog_bytes > 100_000, "the first read is not all");
    for at_once in [1, 5, 8191, usize::MAX] {
        let mut reader = IndexReader::new(bytes.len() as u64, Limits::DEFAULT).expect("long enough");
        let mut asked = vec![];
        loop {
            match reader.next() {
                Step::Read { from, to } => {
                    asked.push(from);
                    let to = (to as usize).min((from as usize).saturating_add(at_once));
                    reader.feed(&bytes[from as usize..to]).expect("good");
                }
                Step::JudgeRoot => {
                    assert!(reader.accept_root().is_err(), "not without saying how");
                    reader.open_root(&Opening::With(seal().key)).expect("good");
                }
                Step::Done => break,
            }
        }
        assert!(asked.contains(&0));
        assert_eq!(reader.finish().expect("done").catalog(), built.catalog());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frame_comes_back_in_its_row_and_nowhere_else(
        raw in proptest::collection::vec(any::<u8>(), 1..5000),
        frame in any::<u64>(),
        other in any::<u64>(),
        at in any::<proptest::sample::Index>(),
        flip in 1_u8..,
    ) {
        let sealer = seal().key.sealer(&seal().salt);
        for sealer in [None, Some(&sealer)] {
            let (mut stored, mut out, mut decoder) = (Vec::new(), Vec::new(), FrameDecoder::default());
            let row = FrameEncoder::new(3, sealer).expect("zstd").encode(frame, &raw, &mut stored).expect("zstd");
            let good = stored.clone();
            check_frame(&row, &good).expect("as stated");
            open_frame(&mut decoder, sealer, (frame, &row), &mut stored, &mut out).expect("good");
            prop_assert_eq!(&out, &raw);
            let mut flipped = good.clone();
            flipped[at.index(good.len())] ^= flip;
            prop_assert!(check_frame(&row, &flipped).is_err());
            if sealer.is_some() {
                let moved = open_frame(&mut decoder, sealer, (other, &row), &mut good.clone(), &mut out);
                prop_assert_eq!(moved.is_ok(), other == frame);
                prop_assert!(open_frame(&mut decoder, sealer, (frame, &row), &mut flipped, &mut out).is_err());
                prop_assert!(decode_frame(&row, &good, &mut out).is_err(), "sealed bytes are no zstd frame");
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_package_and_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        at in any::<proptest::sample::Index>(),
    ) {
        prop_assert!(open(&bytes).is_err());
        let (mut package, _) = tree().build(&sealed(SMALL_FRAMES));
        let from = at.index(package.len());
        let until = (from + bytes.len()).min(package.len());
        let (written, before) = (&bytes[..until - from], package[from..until].to_vec());
        package[from..until].copy_from_slice(written);
        prop_assert_eq!(open(&package).is_ok(), before == written);
    }
}
