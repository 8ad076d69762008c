//! The security folder under faults, wrong modes and foreign files.

use std::fs::Permissions;

use super::safety::shell_word;
use super::*;
use crate::error::Coded as _;
use crate::security::CertificateRequest;
use crate::security::fixtures::{FleetFixture, NOW, name};
use crate::security::{AwsLc, Crypto as _, EnrolRequest, Usage};
use crate::store::steps::tests::StopAfter;

const ROLE: NodeRole = NodeRole::Subscriber;

fn folder() -> (tempfile::TempDir, SecurityDir) {
    let temp = tempfile::tempdir().unwrap();
    let security = SecurityDir::create(&temp.path().join("security"), ROLE).unwrap();
    (temp, security)
}

fn trusted(security: &SecurityDir) -> Vec<KeyHash> {
    security.trusted_roots().unwrap().0.iter().map(|trusted| trusted.root.key_hash()).collect()
}

#[test]
fn a_promotion_that_stops_anywhere_is_harmless_and_can_be_done_again() {
    let fleet = FleetFixture::new("dist.example.com");
    let all = [Step::WriteState, Step::SyncState, Step::RenameState, Step::SyncFolder, Step::RemoveCertificate];
    for allowed in 0..=all.len() {
        let (_temp, security) = folder();
        security.save_keystore(&Keystore::default()).unwrap();
        let file = security.drop_certificate(fleet.root()).unwrap();
        let steps = Arc::new(StopAfter::new(allowed, io::ErrorKind::Other));
        let stopped = security.clone().with_steps(Arc::<StopAfter>::clone(&steps) as _);
        assert_eq!(stopped.promote(&fleet.key()).is_ok(), allowed == all.len());
        assert_eq!(steps.asked(), all[..(allowed + 1).min(all.len())], "the order of the steps");
        let again = SecurityDir::open(security.path(), ROLE).unwrap();
        assert_eq!(trusted(&again), [fleet.key()], "trusted once after {allowed} steps");
        let in_keystore = !again.load_keystore().unwrap().trusted().is_empty();
        assert_eq!((in_keystore, file.exists()), (allowed >= 3, allowed < all.len()), "{allowed} steps");
        again.promote(&fleet.key()).unwrap();
        again.promote(&fleet.key()).unwrap();
        assert_eq!(trusted(&again), [fleet.key()]);
        assert!(!file.exists());
    }
}

#[test]
fn a_new_certificate_for_a_known_name_takes_over_when_it_is_promoted() {
    let (old, new) = (FleetFixture::new("dist.example.com"), FleetFixture::new("dist.example.com"));
    let (_temp, security) = folder();
    security.drop_certificate(old.root()).unwrap();
    security.promote(&old.key()).unwrap();
    security.drop_certificate(new.root()).unwrap();
    assert_eq!(trusted(&security), [old.key(), new.key()]);
    security.promote(&new.key()).unwrap();
    assert_eq!(trusted(&security), [new.key()]);
    assert_eq!(security.promote(&old.key()).unwrap_err().code(), "TED-1144");
}

#[test]
fn only_distributors_own_certificates_are_trusted_and_everything_else_is_named() {
    let fleet = FleetFixture::new("dist.example.com");
    let (_temp, security) = folder();
    let path = |name: &str| security.path().join(name);
    std::fs::write(path("sub.example.com.cer"), fleet.subscriber.certificate.pem()).unwrap();
    std::fs::write(path("other.example.com.cer"), fleet.root().certificate().pem()).unwrap();
    std::fs::write(path("notes.txt"), "hello").unwrap();
    std::fs::write(path("garbage.cer"), [0xff; 10]).unwrap();
    std::fs::write(path("large.cer"), vec![b'x'; 1 << 20]).unwrap();
    std::fs::write(path("elsewhere"), fleet.root().certificate().pem()).unwrap();
    std::os::unix::fs::symlink(path("elsewhere"), path("dist.example.com.cer")).unwrap();
    std::fs::create_dir(path("folder.cer")).unwrap();
    let (roots, ignored) = security.trusted_roots().unwrap();
    assert_eq!(roots, []);
    let names: Vec<_> = ignored.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
    let expected = [
        "dist.example.com.cer",
        "elsewhere",
        "folder.cer",
        "garbage.cer",
        "large.cer",
        "notes.txt",
        "other.example.com.cer",
        "sub.example.com.cer",
    ];
    assert_eq!(names, expected);
    assert_eq!(security.promote(&fleet.key()).unwrap_err().code(), "TED-1144");
}

#[test]
fn wrong_modes_are_refused_with_the_command_that_mends_them() {
    let (_temp, security) = folder();
    security.save_keystore(&Keystore::default()).unwrap();
    for (below, wrong, right) in [("", 0o755, 0o700), ("private", 0o750, 0o700), ("private/.keystore", 0o640, 0o600)] {
        let path = security.path().join(below);
        std::fs::set_permissions(&path, Permissions::from_mode(wrong)).unwrap();
        let error = SecurityDir::open(security.path(), ROLE).err().unwrap();
        assert_eq!(error.code(), "TED-1141");
        let SecurityDirError::Unsafe { remedy, .. } = error else { panic!("{error}") };
        assert!(remedy.starts_with(&format!("chmod {right:o} ")), "{remedy}");
        let mended = std::process::Command::new("sh").args(["-c", &remedy]).status().unwrap();
        assert!(mended.success() && SecurityDir::open(security.path(), ROLE).is_ok(), "{remedy}");
    }
    let odd = shell_word(Path::new("/a b/it's"));
    assert_eq!(odd, r"'/a b/it'\''s'");
}

#[test]
fn what_is_not_a_folder_or_not_there_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("security");
    assert_eq!(SecurityDir::open(&path, ROLE).err().unwrap().code(), "TED-1142");
    std::fs::create_dir(temp.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(temp.path().join("elsewhere"), &path).unwrap();
    assert_eq!(SecurityDir::open(&path, ROLE).err().unwrap().code(), "TED-1141");
    let (_temp, security) = folder();
    std::os::unix::fs::symlink("/etc/passwd", security.path().join("private/floors")).unwrap();
    assert_eq!(SecurityDir::open(security.path(), ROLE).err().unwrap().code(), "TED-1141");
}

#[test]
fn a_keystore_that_is_gone_is_told_from_one_that_never_was() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("security");
    let security = SecurityDir::create(&path, NodeRole::Distributor).unwrap();
    assert_eq!(security.load_keystore().unwrap().held().len(), 0);
    security.save_keystore(&Keystore::default()).unwrap();
    std::fs::remove_file(path.join("private/.keystore")).unwrap();
    let error = SecurityDir::open(&path, NodeRole::Distributor).err().unwrap();
    assert_eq!(error.code(), "TED-1143");
    let text = error.to_string();
    assert!(text.contains("certificate rekey") && text.contains("restore"), "{text}");
}

#[test]
fn requests_go_out_and_certificates_come_back_as_files() {
    let fleet = FleetFixture::new("dist.example.com");
    let (_temp, security) = folder();
    let (identity, encryption) = (AwsLc.generate_key().unwrap(), AwsLc.generate_key().unwrap());
    let enrolment = EnrolRequest::make(&AwsLc, &name("10.0.0.9"), &identity, &encryption, None).unwrap();
    let checked = enrolment.check().unwrap();
    let distributor = name("dist.example.com");
    let path = security.write_request(&distributor, &checked.encryption, Some(&enrolment.countersignature)).unwrap();
    assert!(path.ends_with("csr/dist.example.com/10.0.0.9.encryption.csr"), "{}", path.display());
    let (read, countersignature) = CertificateRequest::from_pem(&std::fs::read_to_string(path).unwrap()).unwrap();
    read.check_countersignature(identity.spki(), &countersignature.unwrap()).unwrap();
    let issued = fleet.authority.issue(&AwsLc, Usage::SubscriberEncryption, read.name(), read.spki(), NOW).unwrap();
    security.write_issued(&distributor, &issued).unwrap();
    assert_eq!(security.read_issued(&distributor).unwrap(), [issued]);
    assert_eq!(security.read_issued(&name("else.example.com")).unwrap(), []);
}

#[test]
fn changes_made_at_the_same_time_are_all_kept() {
    let (_temp, security) = folder();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let security = security.clone();
            scope.spawn(move || {
                let fleet = FleetFixture::new(&format!("dist{number}.example.com"));
                security.drop_certificate(fleet.root()).unwrap();
                security.promote(&fleet.key()).unwrap();
                let hold = |keystore: &mut Keystore| {
                    keystore.hold_identity(fleet.key(), fleet.subscriber.clone());
                    Ok::<(), SecurityDirError>(())
                };
                security.change_keystore(hold).unwrap();
            });
        }
    });
    let keystore = security.load_keystore().unwrap();
    assert_eq!((keystore.trusted().len(), keystore.held().len()), (4, 4));
}

#[test]
fn what_is_carried_in_or_taken_away_by_hand_counts_at_once_and_nothing_is_read_twice() {
    let (a, b) = (FleetFixture::new("a.example.com"), FleetFixture::new("b.example.com"));
    let (_temp, security) = folder();
    assert_eq!(trusted(&security), []);
    let first = security.trust().unwrap();
    assert!(Arc::ptr_eq(&first, &security.trust().unwrap()), "nothing has changed");
    let file = security.path().join("a.example.com.cer");
    std::fs::write(&file, a.root().certificate().pem()).unwrap();
    assert_eq!(trusted(&security), [a.key()]);
    let another = security.path().join("moved");
    std::fs::write(&another, b.root().certificate().pem()).unwrap();
    std::fs::rename(&another, security.path().join("b.example.com.cer")).unwrap();
    assert_eq!(trusted(&security), [a.key(), b.key()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(trusted(&security), [b.key()]);
    security.promote(&b.key()).unwrap();
    assert_eq!(security.trust().unwrap().keystore.trusted().len(), 1);
    security.change_keystore(|keystore| Ok::<_, SecurityDirError>(keystore.distrust(&b.key()))).unwrap();
    assert_eq!(trusted(&security), []);
}
