//! Backups that are made, altered, restored, and interrupted.

use std::sync::Arc;

use super::restore::{Overwrite, Restoring};
use super::*;
use crate::id::{DistributionId, KeyHash, Revision};
use crate::protocol::Floor;
use crate::security::{Authority, AwsLc, EnvelopeKind, Usage};
use crate::store::file::create_folders;
use crate::store::security_dir::SecurityDir;
use crate::store::security_state::{Floors, Sequences};
use crate::store::standing::{StandingEnvelope, StandingEnvelopes, StandingSlot};
use crate::store::steps::tests::StopAfter;

const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);
const PHRASE: &str = "correct horse battery";
/// Tests wait for no stretching.
const WORK: u8 = 2;

fn name() -> NodeName {
    "dist.example.com".parse().unwrap()
}

/// A Distributor's security state.
fn node(data: &Path) -> SecurityDir {
    create_folders(data).unwrap();
    let security = SecurityDir::create(&data.join("security"), NodeRole::Distributor).unwrap();
    let authority = Authority::create(&AwsLc, &name(), NOW).unwrap();
    let sign = authority.issue_identity(&AwsLc, Usage::Sign, &name(), NOW).unwrap();
    security
        .change_keystore(|keystore| -> Result<(), SecurityDirError> {
            keystore.hold_identity(authority.root().key_hash(), authority.identity());
            keystore.hold_identity(authority.root().key_hash(), sign);
            Ok(())
        })
        .unwrap();
    Sequences::open(&security).unwrap().next_sequence(NOW).unwrap();
    security.drop_certificate(authority.root()).unwrap();
    security
}

fn collect(data: &Path) -> Backup {
    Backup::collect(&data.join("security"), NodeRole::Distributor, &name(), NOW).unwrap()
}

fn restore(backup: &Backup, data: &Path, overwrite: Overwrite) -> Result<Option<PathBuf>, BackupError> {
    Restoring::prepare(backup, data, NodeRole::Distributor, overwrite)?.finish()
}

fn content(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let security = data.join("security");
    let files = stamps(&security).unwrap().into_iter();
    files.map(|(path, ..)| (path.clone(), std::fs::read(security.join(path)).unwrap())).collect()
}

#[test]
fn a_backup_brings_everything_back_and_shows_nothing_without_its_passphrase() {
    let work = tempfile::tempdir().unwrap();
    let (old, new) = (work.path().join("old"), work.path().join("new"));
    let security = node(&old);
    let backup = collect(&old).with_extra(7, b"more".to_vec());
    let sealed = backup.seal_with(PHRASE, WORK).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1\n-> scrypt "));
    let secret = security.load_keystore().unwrap().held()[0].key.pkcs8()[36..68].to_vec();
    assert!(!sealed.windows(32).any(|window| window == secret), "the key is not to be found in it");
    assert_eq!(Backup::open(&sealed, "correct horse").unwrap_err().code(), "TED-1183");
    assert_eq!(backup.seal("short").unwrap_err().code(), "TED-1182");

    let opened = Backup::open(&sealed, PHRASE).unwrap();
    assert_eq!((opened.node(), opened.made(), opened.extra(7)), (&name(), NOW, Some(&b"more"[..])));
    assert_eq!(format!("{opened:?}"), format!("Backup(distributor dist.example.com, {} files)", opened.files.len()));
    assert_eq!(restore(&opened, &new, Overwrite::Refuse).unwrap(), None);
    assert_eq!(content(&new), content(&old));
    SecurityDir::open(&new.join("security"), NodeRole::Distributor).unwrap();
}

#[test]
fn an_altered_backup_is_refused_wherever_it_was_altered() {
    let work = tempfile::tempdir().unwrap();
    node(work.path());
    let sealed = collect(work.path()).seal_with(PHRASE, WORK).unwrap();
    // The header, and enough of the content to meet each of its parts.
    for at in (0..300).chain((300..sealed.len()).step_by(13)) {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        assert!(Backup::open(&flipped, PHRASE).is_err(), "byte {at}");
    }
    for at in [0, 1, sealed.len() / 2, sealed.len() - 1] {
        assert!(Backup::open(&sealed[..at], PHRASE).is_err(), "cut at {at}");
    }
    for (plain, code) in [
        (&b""[..], "TED-1184"),
        (b"TEDB", "TED-1184"),
        (b"TEDB\x02\0", "TED-1185"),
        (b"TEDB\x01\0", "TED-1002"),
        (b"PK\x03\x04something else", "TED-1184"),
    ] {
        let sealed = sealed::seal(plain, PHRASE, WORK).unwrap();
        assert_eq!(Backup::open(&sealed, PHRASE).unwrap_err().code(), code);
    }
}

#[test]
fn files_that_would_lie_elsewhere_are_refused() {
    for path in ["../x", "/etc/x", "a/../b", "", ".", "private/../../x"] {
        let files = vec![StoredFile { path: path.to_owned(), bytes: vec![] }];
        let backup = Backup { role: "distributor".to_owned(), node: name(), made: NOW, files, extras: vec![] };
        let sealed = backup.seal_with(PHRASE, WORK).unwrap();
        assert_eq!(Backup::open(&sealed, PHRASE).unwrap_err().code(), "TED-1184", "{path}");
    }
}

#[test]
fn keys_are_not_overwritten_unasked_nor_by_another_role_nor_by_damaged_ones() {
    let work = tempfile::tempdir().unwrap();
    let (one, two) = (work.path().join("one"), work.path().join("two"));
    node(&one);
    node(&two);
    let before = content(&two);
    let backup = collect(&one);
    assert_eq!(restore(&backup, &two, Overwrite::Refuse).unwrap_err().code(), "TED-1186");
    let other = Restoring::prepare(&backup, &work.path().join("s"), NodeRole::Subscriber, Overwrite::Refuse);
    assert_eq!(other.err().unwrap().code(), "TED-1187");
    let mut damaged = collect(&one);
    for file in damaged.files.iter_mut().filter(|file| file.path == "private/.keystore") {
        file.bytes[40] ^= 1;
    }
    assert_eq!(restore(&damaged, &two, Overwrite::MoveAside).unwrap_err().code(), "TED-1125");
    assert_eq!(content(&two), before, "nothing was changed");

    let aside = restore(&backup, &two, Overwrite::MoveAside).unwrap().expect("something was there");
    assert!(aside.join("private/.keystore").exists());
    let keystore = |data: &Path| std::fs::read(data.join("security/private/.keystore")).unwrap();
    assert_eq!(keystore(&two), keystore(&one));
}

#[test]
fn numbers_and_floors_never_go_back_over_a_state_that_can_be_read() {
    let work = tempfile::tempdir().unwrap();
    let security = node(work.path());
    let (key, id) = (KeyHash::from_bytes([1; 32]), DistributionId::from_bytes([2; 16]));
    let backup = collect(work.path());
    let later = UnixMillis::from_millis(NOW.millis() + 5000);
    let given = Sequences::open(&security).unwrap().next_sequence(later).unwrap();
    let revision = Sequences::open(&security).unwrap().next_revision(&id, later).unwrap();
    let floor = Floor { revision: Revision::from_number(9), issued: later };
    Floors::open(&security).unwrap().raise(&key, &id, floor).unwrap();
    restore(&backup, work.path(), Overwrite::MoveAside).unwrap();

    let restored = SecurityDir::open(&work.path().join("security"), NodeRole::Distributor).unwrap();
    let sequences = Sequences::open(&restored).unwrap();
    // Even with a clock that went back.
    assert!(sequences.next_sequence(NOW).unwrap() > given);
    assert!(sequences.next_revision(&id, NOW).unwrap() > revision);
    assert_eq!(Floors::open(&restored).unwrap().get(&key, &id), floor);
    // Where nothing is left to read, the clock sees to it.
    let bare = work.path().join("bare");
    restore(&backup, &bare, Overwrite::Refuse).unwrap();
    let bare = SecurityDir::open(&bare.join("security"), NodeRole::Distributor).unwrap();
    let after = UnixMillis::from_millis(later.millis() + 1000);
    assert!(Sequences::open(&bare).unwrap().next_sequence(after).unwrap() > given);
}

#[test]
fn what_a_distributor_took_back_is_not_in_force_again_at_a_restored_subscriber() {
    let work = tempfile::tempdir().unwrap();
    create_folders(work.path()).unwrap();
    let security = SecurityDir::create(&work.path().join("security"), NodeRole::Subscriber).unwrap();
    security.change_keystore(|_| -> Result<(), SecurityDirError> { Ok(()) }).unwrap();
    let fleet = KeyHash::from_bytes([1; 32]);
    let slot = |page| StandingSlot { fleet, kind: EnvelopeKind::REPLACEMENT, recipient: None, page };
    let said = |sequence: u64| {
        let id = crate::id::EnvelopeId::from_bytes([sequence as u8; 32]);
        StandingEnvelope { id, sequence, issued: NOW, expires: NOW, bytes: vec![] }
    };
    let standing = StandingEnvelopes::open(&security).unwrap();
    standing.put(vec![(slot(0), said(4)), (slot(1), said(8))]).unwrap();
    let backup = Backup::collect(&work.path().join("security"), NodeRole::Subscriber, &name(), NOW).unwrap();
    standing.put(vec![(slot(0), said(5)), (slot(1), said(7)), (slot(2), said(6))]).unwrap();
    let restoring = Restoring::prepare(&backup, work.path(), NodeRole::Subscriber, Overwrite::MoveAside);
    restoring.unwrap().finish().unwrap();

    let restored = SecurityDir::open(&work.path().join("security"), NodeRole::Subscriber).unwrap();
    let standing = StandingEnvelopes::open(&restored).unwrap();
    assert_eq!([0, 1, 2].map(|page| standing.get(&slot(page)).map(|it| it.sequence)), [Some(5), Some(8), Some(6)]);
}

#[test]
fn a_crash_between_any_two_steps_of_restoring_leaves_the_old_keys_or_the_new() {
    let work = tempfile::tempdir().unwrap();
    let origin = work.path().join("origin");
    node(&origin);
    let backup = collect(&origin);
    let new = std::fs::read(origin.join("security/private/.keystore")).unwrap();
    let mut finished = false;
    for allowed in 0..200 {
        let data = work.path().join(format!("data-{allowed}"));
        node(&data);
        let old = std::fs::read(data.join("security/private/.keystore")).unwrap();
        let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::StorageFull));
        let role = NodeRole::Distributor;
        let prepared = Restoring::prepare_with(&backup, &data, role, Overwrite::MoveAside, steps);
        finished = prepared.and_then(|restoring| restoring.finish()).is_ok();
        SecurityDir::open(&data.join("security"), role).expect("it opens after any crash");
        let found = std::fs::read(data.join("security/private/.keystore")).unwrap();
        assert!(found == old || found == new, "{allowed} steps");
        assert!(!finished || found == new);
        restore(&backup, &data, Overwrite::MoveAside).expect("it can be done again");
        let all = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path().join("private/.keystore"));
        let kept = all.filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes == old));
        assert!(kept.count() >= 1, "{allowed} steps: the keys that were there are kept aside");
        assert_eq!(std::fs::read(data.join("security/private/.keystore")).unwrap(), new);
        if finished {
            break;
        }
    }
    assert!(finished);
}
