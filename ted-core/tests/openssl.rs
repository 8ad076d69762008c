//! Other tools read our certificates and requests, and we read theirs. Skipped, saying so, where openssl is missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ted_core::error::Coded;
use ted_core::id::UnixMillis;
use ted_core::security::{Authority, AwsLc, CertificateRequest, Crypto as _, ImportError, ImportedBundle, Usage};

const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

fn is_missing() -> bool {
    let missing = Command::new("openssl").arg("version").output().is_err();
    if missing {
        eprintln!("skipped: openssl is not installed");
    }
    missing
}

/// Runs openssl, which has to succeed, and gives what it printed.
fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let ran = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl runs");
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[test]
fn openssl_reads_every_certificate_and_verifies_its_chain() {
    if is_missing() {
        return;
    }
    for name in ["dist.example.com", "155.55.155.55", "2001:db8::1"] {
        let name = name.parse().unwrap();
        let authority = Authority::create(&AwsLc, &name, NOW).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = authority.root().file_name();
        std::fs::write(folder.path().join(&root), authority.root().certificate().pem()).unwrap();
        for usage in Usage::ISSUED {
            let identity = authority.issue_identity(&AwsLc, usage, &name, NOW).unwrap();
            std::fs::write(folder.path().join("leaf.cer"), identity.certificate.pem()).unwrap();
            let text = openssl(folder.path(), &["x509", "-noout", "-text", "-in", "leaf.cer"]);
            assert!(text.contains("2.25.89750531712634888496255718847187424211."), "{text}");
            let printed = openssl(folder.path(), &["x509", "-noout", "-fingerprint", "-sha256", "-in", "leaf.cer"]);
            let digits = printed.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
            assert_eq!(digits, identity.certificate.thumbprint(), "thumbprints are those that openssl prints");
            let verify = ["verify", "-x509_strict", "-purpose", "any", "-attime", "1800000000", "-CAfile"];
            openssl(folder.path(), &[&verify[..], &[root.as_str(), "leaf.cer"]].concat());
        }
    }
}

#[test]
fn openssl_reads_and_verifies_every_request() {
    if is_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, shown) in [
        ("sub.example.com", "DNS:sub.example.com"),
        ("155.55.155.55", "IP Address:155.55.155.55"),
        ("2001:db8::1", "IP Address:2001:DB8:0:0:0:0:0:1"),
    ] {
        let name = name.parse().unwrap();
        let identity = AwsLc.generate_key().unwrap();
        for usage in [Usage::SubscriberIdentity, Usage::SubscriberEncryption] {
            let key = AwsLc.generate_key().unwrap();
            let request = CertificateRequest::make(&AwsLc, &key, &name, usage).unwrap();
            let word = request.countersign(&AwsLc, &identity).unwrap();
            let word = (usage == Usage::SubscriberEncryption).then_some(&word[..]);
            let file = request.file_name();
            std::fs::write(folder.path().join(&file), request.to_pem(word)).unwrap();
            let text = openssl(folder.path(), &["req", "-noout", "-text", "-verify", "-in", &file]);
            for part in [shown, "prime256v1", "2.25.89750531712634888496255718847187424211."] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}

/// A CA of openssl's, and what it issues.
struct Ca(tempfile::TempDir);

impl Ca {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().expect("a folder"));
        this.run(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ca.key"]);
        this.run(&["req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=A CA", "-days", "3650", "-out", "ca.cer"]);
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> String {
        openssl(self.0.path(), arguments)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("it was made")
    }

    /// Makes a key as `genpkey` is told, as `<file>.key`.
    fn key(&self, file: &str, arguments: &[&str]) {
        let out = format!("{file}.key");
        self.run(&[&["genpkey"], arguments, &["-out", &out]].concat());
    }

    /// Issues `<file>.cer` for `<file>.key`, with these extensions and options of `openssl x509`.
    fn issue(&self, file: &str, extensions: &str, more: &[&str]) {
        let (key, request) = (format!("{file}.key"), format!("{file}.csr"));
        let (certificate, settings) = (format!("{file}.cer"), format!("{file}.cnf"));
        std::fs::write(self.path(&settings), extensions).expect("written");
        self.run(&["req", "-new", "-key", &key, "-subj", "/CN=a server", "-out", &request]);
        let issue = ["x509", "-req", "-in", &request, "-CA", "ca.cer", "-CAkey", "ca.key", "-CAcreateserial"];
        let to = ["-extfile", &settings, "-out", &certificate];
        self.run(&[&issue[..], more, &to[..]].concat());
    }
}

const SERVER: &str = "subjectAltName=DNS:www.example.com,DNS:*.wild.example.com,IP:155.55.155.55\n\
                      extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n";
const YEAR: [&str; 2] = ["-days", "365"];
const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P384: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const RSA: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

fn now() -> UnixMillis {
    UnixMillis::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64)
}

fn judge(files: &[&[u8]], password: Option<&str>, name: &str) -> Result<(), ImportError> {
    let identity = ImportedBundle::from_files(files, password)?.judge(name, now())?;
    assert_eq!(identity.name(), name);
    let key = identity.private_key().clone_key();
    let chain = identity.chain().iter().map(|der| der.clone().into()).collect();
    // What is taken does for a TLS server.
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    config.expect("TLS 1.3").with_no_client_auth().with_single_cert(chain, key).expect("they fit");
    Ok(())
}

#[test]
fn keys_and_certificates_that_openssl_makes_are_imported_from_pem_and_pfx() {
    if is_missing() {
        return;
    }
    let ca = Ca::new();
    for (file, kind) in [("p256", P256), ("p384", P384), ("rsa", RSA)] {
        ca.key(file, &kind);
        ca.issue(file, SERVER, &YEAR);
        let (key, certificate) = (ca.read(&format!("{file}.key")), ca.read(&format!("{file}.cer")));
        for name in ["www.example.com", "WWW.Example.com", "a.wild.example.com", "155.55.155.55"] {
            judge(&[&certificate, &key], None, name).unwrap();
        }
        let combined = [&ca.read("ca.cer")[..], &certificate, &key].concat();
        let chain = ImportedBundle::from_files(&[&combined], None).unwrap().judge("www.example.com", now()).unwrap();
        assert_eq!(chain.chain().len(), 2, "the server's own certificate comes first, wherever it stood");
        assert!(!format!("{chain:?}").contains("key"), "nothing secret is printed");

        let (key_file, certificate_file) = (format!("{file}.key"), format!("{file}.cer"));
        ca.run(&["pkcs8", "-topk8", "-in", &key_file, "-passout", "pass:säcret", "-out", "locked.key"]);
        judge(&[&certificate, &ca.read("locked.key")], Some("säcret"), "www.example.com").unwrap();
        assert_eq!(
            judge(&[&certificate, &ca.read("locked.key")], None, "www.example.com").unwrap_err().code(),
            "TED-1172"
        );
        let wrong = judge(&[&certificate, &ca.read("locked.key")], Some("secret"), "www.example.com");
        assert_eq!(wrong.unwrap_err().code(), "TED-1172");

        let export = ["pkcs12", "-export", "-inkey", &key_file, "-in", &certificate_file, "-certfile", "ca.cer"];
        for (more, password) in [
            (&["-passout", "pass:säcret"][..], "säcret"),
            (&["-passout", "pass:"], ""),
            (&["-passout", "pass:x", "-macalg", "sha512", "-certpbe", "AES-128-CBC", "-iter", "100000"], "x"),
            (&["-passout", "pass:x", "-keypbe", "NONE", "-certpbe", "NONE"], "x"),
            (&["-passout", "pass:x", "-nomac"], "x"),
        ] {
            ca.run(&[&export[..], more, &["-out", "bundle.pfx"]].concat());
            let bytes = ca.read("bundle.pfx");
            judge(&[&bytes], Some(password), "www.example.com").unwrap();
            let is_open = more.contains(&"NONE") && more.contains(&"-nomac");
            assert!(is_open || judge(&[&bytes], Some("another"), "www.example.com").is_err(), "{more:?}");
        }
        ca.run(&[&export[..], &["-passout", "pass:x", "-legacy", "-out", "old.pfx"]].concat());
        let old = judge(&[&ca.read("old.pfx")], Some("x"), "www.example.com").unwrap_err();
        assert_eq!(old.code(), "TED-1171", "{old}");
    }
    // What older programs write: keys in their own formats.
    ca.run(&["ec", "-in", "p256.key", "-out", "sec1.key"]);
    judge(&[&ca.read("p256.cer"), &ca.read("sec1.key")], None, "www.example.com").unwrap();
    ca.run(&["rsa", "-in", "rsa.key", "-traditional", "-out", "pkcs1.key"]);
    judge(&[&ca.read("rsa.cer"), &ca.read("pkcs1.key")], None, "www.example.com").unwrap();
    ca.run(&["rsa", "-in", "rsa.key", "-traditional", "-aes128", "-passout", "pass:x1234", "-out", "old.key"]);
    let old = judge(&[&ca.read("rsa.cer"), &ca.read("old.key")], Some("x1234"), "www.example.com").unwrap_err();
    assert_eq!(old.code(), "TED-1171", "{old}");
}

#[test]
fn each_reason_against_a_certificate_has_its_own_code() {
    if is_missing() {
        return;
    }
    let ca = Ca::new();
    let server = |change: (&str, &str)| SERVER.replace(change.0, change.1);
    for (file, kind, extensions, more, code) in [
        ("other", &P256[..], SERVER.to_owned(), &YEAR[..], "TED-1174"),
        ("small", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], SERVER.to_owned(), &YEAR, "TED-1175"),
        ("edwards", &["-algorithm", "ED25519"], SERVER.to_owned(), &YEAR, "TED-1175"),
        ("curve", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], SERVER.to_owned(), &YEAR, "TED-1175"),
        ("short", &P256, SERVER.to_owned(), &["-days", "29"], "TED-1176"),
        ("ended", &P256, SERVER.to_owned(), &["-days", "-1"], "TED-1176"),
        ("client", &P256, server(("serverAuth,", "")), &YEAR, "TED-1178"),
        ("silent", &P256, server(("extendedKeyUsage=serverAuth,clientAuth\n", "")), &YEAR, "TED-1178"),
        ("agreeing", &P256, server(("digitalSignature", "keyAgreement")), &YEAR, "TED-1178"),
        ("named", &P256, server(("www.example.com", "web.example.com")), &YEAR, "TED-1179"),
        ("deep", &P256, server(("DNS:www.example.com", "DNS:*.example.com.de")), &YEAR, "TED-1179"),
        ("nameless", &P256, SERVER.split_once('\n').unwrap().1.to_owned(), &YEAR, "TED-1179"),
        ("weak", &P256, SERVER.to_owned(), &["-days", "365", "-sha1"], "TED-1180"),
        ("authority", &P256, server(("CA:FALSE", "CA:TRUE")), &YEAR, "TED-1181"),
    ] {
        ca.key(file, kind);
        ca.issue(file, &extensions, more);
        if file == "other" {
            ca.key(file, kind);
        }
        let (key, certificate) = (ca.read(&format!("{file}.key")), ca.read(&format!("{file}.cer")));
        let error = judge(&[&certificate, &key], None, "www.example.com").unwrap_err();
        assert_eq!(error.code(), code, "{file}: {error}");
    }
    ca.key("good", &P256);
    ca.issue("good", SERVER, &YEAR);
    let (key, certificate) = (ca.read("good.key"), ca.read("good.cer"));
    let past = UnixMillis::from_millis(now().millis() - 86_400_000);
    let early = ImportedBundle::from_files(&[&certificate, &key], None).unwrap().judge("www.example.com", past);
    assert_eq!(early.unwrap_err().code(), "TED-1177");
    for (files, code) in [
        (&[&certificate[..]][..], "TED-1173"),
        (&[&key[..]], "TED-1173"),
        (&[&certificate[..], &key, &ca.read("ca.key")], "TED-1173"),
        (&[b"nothing of the kind".as_slice()], "TED-1170"),
        (&[&[0x30, 0x03, 0x02, 0x01, 0x03]], "TED-1170"),
        (&[&[0xff, 0xfe], &key], "TED-1170"),
        (&[&ca.read("good.csr")], "TED-1170"),
    ] {
        let error = judge(files, None, "www.example.com").unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn a_pfx_that_is_damaged_anywhere_is_refused_or_the_same() {
    if is_missing() {
        return;
    }
    let ca = Ca::new();
    ca.key("p256", &P256);
    ca.issue("p256", SERVER, &YEAR);
    // Few iterations: each byte costs a derivation.
    let export = ["pkcs12", "-export", "-inkey", "p256.key", "-in", "p256.cer", "-iter", "1", "-passout", "pass:x"];
    ca.run(&[&export[..], &["-out", "bundle.pfx"]].concat());
    let bytes = ca.read("bundle.pfx");
    let whole = ImportedBundle::from_files(&[&bytes], Some("x")).unwrap().judge("www.example.com", now()).unwrap();
    for at in 0..bytes.len() {
        assert!(ImportedBundle::from_files(&[&bytes[..at]], Some("x")).is_err(), "cut at {at}");
        for flip in [1, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= flip;
            let read = ImportedBundle::from_files(&[&flipped], Some("x"));
            if let Ok(identity) = read.and_then(|bundle| bundle.judge("www.example.com", now())) {
                assert_eq!(identity, whole, "byte {at}");
            }
        }
    }
}
