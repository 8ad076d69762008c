//! Other tools read our certificates. Skipped where openssl is not installed.

use std::process::Command;

use ted_core::id::UnixMillis;
use ted_core::security::{Authority, AwsLc, Usage};

#[test]
fn openssl_reads_every_certificate_and_verifies_its_chain() {
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let now = UnixMillis::from_millis(1_800_000_000_000);
    for name in ["dist.example.com", "155.55.155.55", "2001:db8::1"] {
        let name = name.parse().unwrap();
        let authority = Authority::create(&AwsLc, &name, now).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join(authority.root().file_name());
        std::fs::write(&root, authority.root().certificate().pem()).unwrap();
        for usage in Usage::ISSUED {
            let identity = authority.issue_identity(&AwsLc, usage, &name, now).unwrap();
            let leaf = folder.path().join("leaf.cer");
            std::fs::write(&leaf, identity.certificate.pem()).unwrap();
            let shown = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&leaf).output().unwrap();
            let text = String::from_utf8_lossy(&shown.stdout);
            assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
            assert!(text.contains("2.25.89750531712634888496255718847187424211."), "{text}");
            let verified = Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", "any", "-attime", "1800000000", "-CAfile"])
                .args([&root, &leaf])
                .output()
                .unwrap();
            assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        }
    }
}
