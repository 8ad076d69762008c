use std::time::Duration;

use super::*;
use crate::security::{Authority, AwsLc, EnvelopeBody, EpochSecret, Identity, SALT_BYTES};

const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
const MONTH: Duration = Duration::from_secs(30 * 86_400);
const YEAR: Duration = Duration::from_secs(366 * 86_400);

fn package(number: u8) -> PackageId {
    PackageId::from_bytes([number; 32])
}

fn authority() -> Authority {
    Authority::create(&AwsLc, &"dist.example.com".parse().unwrap(), NOW).unwrap()
}

fn content_key() -> ContentKey {
    EpochSecret::generate(&AwsLc).unwrap().content_key(&[7; SALT_BYTES])
}

fn identity(number: u32) -> KeyHash {
    KeyHash::of_spki(&number.to_le_bytes())
}

fn recipient(number: u32) -> (Recipient, SecretKey) {
    let key = AwsLc.generate_key().unwrap();
    (Recipient { identity: identity(number), encryption: key.spki().to_vec() }, key)
}

/// Grants without a key inside, where only the tree matters.
fn hollow(count: u32) -> Vec<Grant> {
    let wrap = Wrap::HpkeP256(HpkeSealed { enc: vec![4; 65], ciphertext: vec![0; 48] });
    let grant = |number| Grant { recipient: identity(number), encryption: identity(0), wrap: wrap.clone() };
    (0..count).map(grant).collect()
}

fn tree_over(grants: &[Grant]) -> GrantTree {
    GrantTree::over(grants.iter().map(|grant| grant.leaf().unwrap()).collect()).unwrap()
}

fn proven(tree: &GrantTree, grants: &[Grant], index: u32) -> ProvenGrant {
    ProvenGrant { grant: grants[index as usize].clone(), index, path: tree.path(index).unwrap() }
}

fn signed(authority: &Authority, package: PackageId, tree: &GrantTree) -> Vec<u8> {
    signed_by(authority, &signer(authority, Usage::Sign), package, tree)
}

fn signer(authority: &Authority, usage: Usage) -> Identity {
    authority.issue_identity(&AwsLc, usage, authority.root().name(), NOW).unwrap()
}

fn signed_by(authority: &Authority, signer: &Identity, package: PackageId, tree: &GrantTree) -> Vec<u8> {
    let payload = Grants { package, count: tree.count(), merkle_root: tree.root() }.to_payload().unwrap();
    let body = EnvelopeBody {
        kind: EnvelopeKind::GRANTS,
        distributor: authority.root().key_hash(),
        issuer: signer.certificate.key_hash(),
        sequence: 1,
        issued: NOW,
        expires: NOW.plus(MONTH),
        payload,
    };
    Envelope::seal(&AwsLc, signer, body).unwrap().to_bytes().to_vec()
}

#[test]
fn a_grant_gives_the_content_key_to_its_recipient_and_for_its_package_alone() {
    let key = content_key();
    let ((ours, our_key), (_, their_key)) = (recipient(1), recipient(2));
    let grant = Grant::issue(&AwsLc, &key, &package(1), &ours).unwrap();
    assert_eq!(grant.open(&package(1), &our_key).unwrap().as_bytes(), key.as_bytes());
    assert_eq!(grant.open(&package(2), &our_key).unwrap_err().code(), "TED-1161");
    assert_eq!(grant.open(&package(1), &their_key).unwrap_err().code(), "TED-1165");
    let passed_on = Grant { recipient: identity(2), ..grant.clone() };
    assert_eq!(passed_on.open(&package(1), &our_key).unwrap_err().code(), "TED-1161");
    let relabelled = Grant { encryption: their_key.key_hash(), ..grant.clone() };
    assert_eq!(relabelled.open(&package(1), &their_key).unwrap_err().code(), "TED-1161");
    let short = AwsLc.seal_to(our_key.spki(), &info(&package(1), &ours.identity), b"short").unwrap();
    let no_key = Grant { wrap: Wrap::HpkeP256(short), ..grant };
    assert_eq!(no_key.open(&package(1), &our_key).unwrap_err().code(), "TED-1166");
}

#[test]
fn every_leaf_of_a_tree_of_any_shape_is_proved_and_nothing_else_is() {
    for count in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 100] {
        let grants = hollow(count);
        let tree = tree_over(&grants);
        let stated = Grants { package: package(1), count, merkle_root: tree.root() };
        for index in 0..count {
            let good = proven(&tree, &grants, index);
            good.check(&stated).unwrap();
            let other_place = ProvenGrant { index: (index + 1) % count, ..good.clone() };
            assert_eq!(other_place.check(&stated).is_ok(), count == 1, "{index} of {count} in another place");
            let beyond = ProvenGrant { index: index + count, ..good.clone() };
            assert!(beyond.check(&stated).is_err(), "{index} of {count} beyond the end");
            let mut longer = good.clone();
            longer.path.push(tree.root());
            assert!(longer.check(&stated).is_err(), "{index} of {count} with a longer path");
            for at in 0..good.path.len() {
                let mut shorter = good.clone();
                shorter.path.remove(at);
                assert!(shorter.check(&stated).is_err(), "{index} of {count} without hash {at}");
            }
            let mut foreign = good.clone();
            foreign.grant.recipient = identity(u32::MAX);
            assert!(foreign.check(&stated).is_err(), "{index} of {count} for somebody else");
        }
        assert!(tree.path(count).is_none());
    }
    assert_eq!(GrantTree::over(vec![]).unwrap_err().code(), "TED-1167");
}

#[test]
fn a_tree_that_grows_keeps_its_leaves_and_serves_what_was_signed_before() {
    let mut grants = hollow(5);
    let before = tree_over(&grants);
    grants.extend(hollow(9).split_off(5));
    let after = tree_over(&grants);
    assert_ne!(before.root(), after.root());
    let first = tree_over(&grants[..5]);
    assert_eq!(first.root(), before.root(), "the tree of the first five is as it was");
    let stated = Grants { package: package(1), count: 9, merkle_root: after.root() };
    assert!(proven(&before, &grants, 4).check(&stated).is_err(), "a proof of the smaller tree is none of the larger");
    proven(&after, &grants, 4).check(&stated).unwrap();
}

#[test]
fn a_node_of_the_tree_never_passes_for_a_leaf() {
    let grants = hollow(4);
    let tree = tree_over(&grants);
    // Two leaves in a row have the bytes of a node; hashed as a leaf they are another hash.
    let children = [tree.levels[0][0].as_bytes().as_slice(), tree.levels[0][1].as_bytes()].concat();
    assert_ne!(leaf(&children), tree.levels[1][0]);
    assert_ne!(Hash::of(&children), tree.levels[1][0]);
}

#[test]
fn a_grant_counts_only_signed_in_time_for_this_package_and_this_recipient() {
    let (ours, stranger) = (authority(), authority());
    let grants = hollow(3);
    let tree = tree_over(&grants);
    let kept = KeptGrant { envelope: signed(&ours, package(1), &tree), proven: proven(&tree, &grants, 1) };
    let signed_with = Envelope::from_bytes(&kept.envelope).unwrap().body().issuer;
    let judge = |kept: &KeptGrant, package: &PackageId, recipient: u32, now| {
        kept.judge(ours.root(), package, &identity(recipient), now).map_err(|error| error.code())
    };
    assert_eq!(judge(&kept, &package(1), 1, NOW), Ok(signed_with));
    assert_eq!(judge(&kept, &package(2), 1, NOW), Err("TED-1162"), "replayed for another package");
    assert_eq!(judge(&kept, &package(1), 2, NOW), Err("TED-1163"), "foreign");
    assert_eq!(judge(&kept, &package(1), 1, NOW.plus(MONTH + MONTH)), Err("TED-1123"), "out of time");
    let theirs = KeptGrant { envelope: signed(&stranger, package(1), &tree), ..kept.clone() };
    assert_eq!(judge(&theirs, &package(1), 1, NOW), Err("TED-1121"), "another Distributor's");
    let other_tree = tree_over(&hollow(4));
    let other = KeptGrant { envelope: signed(&ours, package(1), &other_tree), ..kept.clone() };
    assert_eq!(judge(&other, &package(1), 1, NOW), Err("TED-1164"), "not of this tree");
    for usage in [Usage::DistributorTls, Usage::SubscriberIdentity, Usage::SubscriberEncryption] {
        let envelope = signed_by(&ours, &signer(&ours, usage), package(1), &tree);
        let forged = KeptGrant { envelope, ..kept.clone() };
        assert_eq!(judge(&forged, &package(1), 1, NOW), Err("TED-1104"), "{usage} signs no grants");
    }
    assert_eq!(KeptGrant::from_bytes(&kept.to_bytes().unwrap()).unwrap(), kept);
}

#[test]
fn no_byte_of_a_grant_can_change() {
    let authority = authority();
    let (ours, our_key) = recipient(1);
    let key = content_key();
    let mut grants = hollow(4);
    grants[2] = Grant::issue(&AwsLc, &key, &package(1), &ours).unwrap();
    let tree = tree_over(&grants);
    let kept = KeptGrant { envelope: signed(&authority, package(1), &tree), proven: proven(&tree, &grants, 2) };
    let bytes = kept.to_bytes().unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let verdict = KeptGrant::from_bytes(&flipped).map_err(GrantError::from).and_then(|kept| {
            kept.judge(authority.root(), &package(1), &ours.identity, NOW)?;
            kept.proven.grant.open(&package(1), &our_key)
        });
        assert!(verdict.is_err(), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn a_grant_costs_its_recipient_a_few_hundred_bytes_in_a_fleet_of_ten_thousand() {
    let grants = hollow(10_000);
    let tree = tree_over(&grants);
    let bytes = proven(&tree, &grants, 4711).to_bytes().unwrap();
    assert!(bytes.len() < 800, "{} bytes", bytes.len());
}

#[test]
fn only_a_subscriber_with_a_certificate_of_its_name_that_holds_is_granted_anything() {
    let ours = authority();
    let name: NodeName = "sub.example.com".parse().unwrap();
    let issue = |usage| ours.issue_identity(&AwsLc, usage, &name, NOW).unwrap().certificate;
    let good = issue(Usage::SubscriberEncryption);
    let judge = |name: &str, certificate: Option<&Certificate>, now| {
        let der = certificate.map(Certificate::der);
        judge_recipient(&identity(1), &name.parse().unwrap(), der, now).map_err(|unfit| unfit.code())
    };
    let granted = judge("sub.example.com", Some(&good), NOW).unwrap();
    assert_eq!(granted, Recipient { identity: identity(1), encryption: good.spki().to_vec() });
    assert_eq!(judge("sub.example.com", None, NOW), Err("TED-1842"));
    assert_eq!(judge("sub.example.com", Some(&good), NOW.plus(YEAR)), Err("TED-1843"));
    assert_eq!(judge("renamed.example.com", Some(&good), NOW), Err("TED-1844"));
    let identity_certificate = issue(Usage::SubscriberIdentity);
    assert_eq!(judge("sub.example.com", Some(&identity_certificate), NOW), Err("TED-1843"));
}
