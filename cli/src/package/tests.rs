use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser as _;
use ted_core::distributor::{FolderSource, Selection, Unreadable};
use ted_core::id::{DistributionId, PackageId, Revision, UnixMillis};
use ted_core::name::NodeName;
use ted_core::package::{
    BuildOptions, DigestKind, ROOT_CONTEXT, Root, RootSigner, Seal, Source, Suite, build_baseline,
};
use ted_core::security::{Authority, AwsLc, ContentKey, EpochSecret, Identity, Signature, Usage, sign};

use super::open::{PackageFile, Trust};
use super::*;
use crate::error::code;

const NOW: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

struct Signer(Identity);

impl RootSigner for Signer {
    fn sign_root(&self, root_bytes: &[u8]) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(sign(&AwsLc, &self.0, ROOT_CONTEXT, root_bytes)?)
    }
}

fn build(source: &Path, package: &Path, authority: &Authority, signer: &Signer, seal: Option<Seal>) {
    let source = FolderSource::new(source.to_owned(), Selection::default(), Unreadable::default());
    let entries = source.entries(&mut |_| ()).expect("readable");
    let distribution = DistributionId::from_bytes([1; 16]);
    let name = "site".parse().expect("valid");
    let mut options = BuildOptions::new(distribution, name, authority.root().key_hash(), 1);
    (options.created, options.revision) = (NOW, Revision::from_number(5));
    (options.digest, options.seal) = (DigestKind::Md5, seal);
    let mut file = File::create(package).expect("made");
    build_baseline(&source, entries, &options, signer, &mut file, &|_| ()).expect("built");
}

fn secret() -> EpochSecret {
    EpochSecret::from_bytes([3; 32])
}

/// The key of the Distributor of these tests.
fn keys(_: &PackageId, root: &Root) -> Result<Option<ContentKey>, ApiError> {
    let Suite::Aes256Gcm { salt, .. } = root.suite else { panic!("a key of an unsealed package is not looked for") };
    Ok(Some(secret().content_key(&salt)))
}

struct Made {
    folder: tempfile::TempDir,
    package: PathBuf,
    certificate: PathBuf,
}

impl Made {
    /// A package of three files, a folder and links, and the certificate of its Distributor.
    fn new() -> Self {
        Self::with_seal(None)
    }

    fn with_seal(seal: Option<Seal>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let source = at("source");
        fs::create_dir_all(source.join("sub")).expect("made");
        fs::write(source.join("a.txt"), "hello\n").expect("written");
        fs::write(source.join("sub/large"), vec![7; 5 << 20]).expect("written");
        fs::write(source.join(OsStr::from_bytes(b"sub/odd\xff")), "odd").expect("written");
        fs::hard_link(source.join("a.txt"), source.join("b.txt")).expect("linked");
        std::os::unix::fs::symlink("/etc/passwd", source.join("link")).expect("linked");

        let name: NodeName = "dist.example.com".parse().expect("valid");
        let authority = Authority::create(&AwsLc, &name, NOW).expect("made");
        let signer = authority.issue_identity(&AwsLc, Usage::Sign, &name, NOW).expect("issued");
        let (package, certificate) = (at("distfile.ted"), at("dist.example.com.cer"));
        build(&source, &package, &authority, &Signer(signer), seal);
        fs::write(&certificate, authority.root().certificate().pem()).expect("written");
        Self { folder, package, certificate }
    }

    fn open(&self) -> PackageFile {
        self.open_with(&no_keys)
    }

    fn open_with(&self, keys: &KeyFinder<'_>) -> PackageFile {
        let trust = Trust::from_option(Some(&self.certificate)).expect("read");
        PackageFile::open(&self.package, &trust, keys).expect("opened")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[derive(clap::Parser)]
struct Cli {
    #[command(subcommand)]
    command: PackageCommand,
}

fn parse(arguments: &[&str]) -> Result<PackageCommand, clap::Error> {
    Cli::try_parse_from([&["package"], arguments].concat()).map(|cli| cli.command)
}

#[test]
fn extracting_without_saying_whose_package_it_is_is_a_usage_error() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
    assert!(parse(&["extract", "f", "--to", "d"]).is_err());
    assert!(parse(&["extract", "f", "--to", "d", "--certificate", "c", "--unverified-origin"]).is_err());
    assert!(parse(&["extract", "f", "--to", "d", "--certificate", "c"]).is_ok());
    assert!(parse(&["extract", "f", "--to", "d", "--unverified-origin", "--links", "inside"]).is_ok());
}

#[test]
fn what_a_package_says_is_shown_with_what_is_known_of_its_origin() {
    let made = Made::new();
    let shown = read::inspect(&made.open());
    assert_eq!(shown.distribution.as_deref(), Some("site"));
    assert_eq!((shown.kind.as_str(), shown.sealed.as_str()), ("baseline", "no"));
    assert_eq!((shown.opened, shown.entries), (true, Some(7)));
    assert_eq!(shown.package_bytes, fs::metadata(&made.package).expect("there").len());
    assert!(matches!(&shown.origin, Origin::Distributor { name, .. } if name == "dist.example.com"));

    let anyone = PackageFile::open(&made.package, &Trust::Nobody, &no_keys).expect("opened");
    let origin = read::inspect(&anyone).origin;
    assert!(matches!(&origin, Origin::Nobody { claimed_name, .. } if claimed_name == "dist.example.com"));
    assert!(origin.sentence().starts_with("NOT VERIFIED"));
}

#[test]
fn listings_show_every_entry_as_ls_does() {
    let made = Made::new();
    let listing = read::list(&made.open()).expect("not sealed");
    let paths: Vec<_> = listing.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, [".", "a.txt", "b.txt", "link", "sub", "sub/large", "sub/odd\\xff"]);
    assert_eq!(listing.entries[6].path_hex.as_deref(), Some("7375622f6f6464ff"));
    let mut text = crate::output::Text::new(crate::output::Paint::Plain);
    crate::output::Render::render(&listing, &mut text);
    let text = text.into_string();
    assert!(text.lines().nth(3).is_some_and(|line| line.ends_with("link -> /etc/passwd")), "{text}");
    assert!(
        text.lines().nth(2).is_some_and(|line| line.starts_with('h') && line.ends_with("b.txt => a.txt")),
        "{text}"
    );
}

#[test]
fn a_package_of_another_distributor_or_with_a_foreign_certificate_is_refused() {
    let made = Made::new();
    let name: NodeName = "dist.example.com".parse().expect("valid");
    let twin = Authority::create(&AwsLc, &name, NOW.plus(Duration::from_secs(1))).expect("made");
    let other = made.path("other.cer");
    fs::write(&other, twin.root().certificate().pem()).expect("written");
    let refused =
        PackageFile::open(&made.package, &Trust::from_file(&other).expect("read"), &no_keys).err().expect("refused");
    assert_eq!(refused.code, code::ORIGIN_REFUSED);
    assert_eq!(refused.exit(), crate::exit::Exit::Refused);

    let leaf = twin.issue_identity(&AwsLc, Usage::Sign, &name, NOW.plus(Duration::from_secs(2))).expect("issued");
    fs::write(&other, leaf.certificate.pem()).expect("written");
    assert_eq!(Trust::from_file(&other).err().expect("no root").code, "TED-1111");
    assert_eq!(Trust::from_file(&made.path("missing")).err().expect("missing").code, code::FILE);
}

#[test]
fn damage_is_an_error_and_never_a_success() {
    let made = Made::new();
    let progress = Progress::new(Format::Json);
    assert!(read::verify(&made.open(), &progress).is_ok());
    let whole = fs::read(&made.package).expect("readable");
    let trust = Trust::from_file(&made.certificate).expect("read");
    for (at, what) in [(100, "body"), (whole.len() - 10, "tail"), (whole.len() - 700, "root or signature")] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&made.package, damaged).expect("written");
        let outcome =
            PackageFile::open(&made.package, &trust, &no_keys).and_then(|opened| read::verify(&opened, &progress));
        assert_ne!(outcome.expect_err(what).exit(), crate::exit::Exit::Success, "{what}");
    }
    fs::write(&made.package, &whole[..whole.len() - 1]).expect("written");
    assert!(PackageFile::open(&made.package, &trust, &no_keys).is_err(), "cut off");
    let folder = PackageFile::open(made.folder.path(), &trust, &no_keys).err().expect("a folder");
    assert_eq!(folder.code, code::FILE);
}

#[test]
fn only_files_can_be_printed() {
    let made = Made::new();
    let package = made.open();
    for path in ["sub", "link", "none", "../a.txt", "/a.txt", ""] {
        let error = read::cat(&package, OsStr::new(path)).expect_err(path);
        assert_eq!(error.code, code::NO_SUCH_ENTRY, "{path}");
    }
}

#[test]
fn a_package_extracts_by_hand() {
    let made = Made::new();
    let to = made.path("to");
    let arguments = ExtractArgs {
        file: made.package.clone(),
        to: to.clone(),
        certificate: Some(made.certificate.clone()),
        unverified_origin: false,
        links: LinkChoice::Any,
    };
    let done = extract::extract(&arguments, &no_keys, &Progress::new(Format::Json)).expect("extracted");
    assert_eq!(done.files_written, 3);
    assert_eq!(fs::read(to.join("b.txt")).expect("there"), b"hello\n");
    assert_eq!(fs::read_link(to.join("link")).expect("there"), Path::new("/etc/passwd"));

    let untrusted = ExtractArgs { certificate: None, to: made.path("nowhere"), ..arguments };
    let refused = extract::extract(&untrusted, &no_keys, &Progress::new(Format::Json)).expect_err("nobody vouches");
    assert_eq!(refused.code, code::ORIGIN_UNKNOWN);
    assert!(!made.path("nowhere").exists());
}

/// What `tail | head | md5sum` says of the bytes that the digest is of.
fn md5sum(package: &Path, from: u64, bytes: u64) -> String {
    let script = format!("tail -c +{} \"$1\" | head -c {bytes} | md5sum", from + 1);
    let output = Command::new("sh").args(["-c", &script, "sh"]).arg(package).output().expect("sh is there");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn md5sum_of_the_documented_bytes_is_the_digest_that_is_shown() {
    for (seal, from) in [(None, 0), (Some(Seal::of(&secret(), [4; 32])), 16)] {
        let made = Made::with_seal(seal);
        let digest = read::inspect(&made.open()).digest.expect("asked for");
        assert_eq!((digest.algorithm.as_str(), digest.from), ("md5", from));
        assert_eq!(digest.hex, md5sum(&made.package, digest.from, digest.bytes));
        assert!(text(&read::inspect(&made.open())).contains(&format!("of {} bytes from byte {from} on", digest.bytes)));
    }
}

#[test]
fn without_its_key_a_sealed_package_is_inspected_and_verified_and_says_what_is_not_seen() {
    let made = Made::with_seal(Some(Seal::of(&secret(), [4; 32])));
    let package = made.open();
    let shown = read::inspect(&package);
    assert_eq!((shown.sealed.as_str(), shown.opened), ("AES-256-GCM", false));
    assert_eq!((shown.distribution, shown.content, shown.entries, shown.content_bytes), (None, None, None, None));
    assert!(matches!(&shown.origin, Origin::Distributor { name, .. } if name == "dist.example.com"));
    assert!(text(&read::inspect(&package)).contains("names, entries and contents are not seen"));
    let verified = read::verify(&package, &Progress::new(Format::Json)).expect("whole");
    assert_eq!((verified.opened, verified.entries), (false, None));
    assert!(text(&verified).contains("not seen: catalog and files"));

    let arguments = ExtractArgs {
        file: made.package.clone(),
        to: made.path("to"),
        certificate: Some(made.certificate.clone()),
        unverified_origin: false,
        links: LinkChoice::Any,
    };
    for refused in [
        read::list(&package).expect_err("sealed"),
        read::cat(&package, OsStr::new("a.txt")).expect_err("sealed"),
        extract::extract(&arguments, &no_keys, &Progress::new(Format::Json)).expect_err("sealed"),
    ] {
        assert_eq!((refused.code.as_str(), refused.exit()), ("TED-1151", crate::exit::Exit::Refused));
        assert!(refused.remedy.is_some_and(|remedy| remedy.contains("ted-subscriber package")));
    }
    assert!(!made.path("to").exists());
    let mut bytes = fs::read(&made.package).expect("readable");
    bytes[100] ^= 1;
    fs::write(&made.package, bytes).expect("written");
    let damaged = read::verify(&made.open(), &Progress::new(Format::Json)).expect_err("damaged");
    // Frames and digest are checked at the same time; the frame is told, whichever is found first.
    assert_eq!(damaged.code, "TED-1016", "{}", damaged.message);
}

#[test]
fn with_its_key_a_sealed_package_is_like_any_other() {
    let made = Made::with_seal(Some(Seal::of(&secret(), [4; 32])));
    let package = made.open_with(&keys);
    let shown = read::inspect(&package);
    assert_eq!((shown.distribution.as_deref(), shown.entries, shown.opened), (Some("site"), Some(7), true));
    assert!(read::verify(&package, &Progress::new(Format::Json)).expect("whole").opened);
    assert_eq!(read::list(&package).expect("opened").entries.len(), 7);
    let arguments = ExtractArgs {
        file: made.package.clone(),
        to: made.path("to"),
        certificate: Some(made.certificate.clone()),
        unverified_origin: false,
        links: LinkChoice::Any,
    };
    extract::extract(&arguments, &keys, &Progress::new(Format::Json)).expect("extracted");
    assert_eq!(fs::read(made.path("to/sub/large")).expect("there"), vec![7; 5 << 20]);
    let wrong = |_: &PackageId, _: &Root| Ok(Some(secret().content_key(&[0; 32])));
    let refused = PackageFile::open(&made.package, &Trust::Nobody, &wrong).err().expect("another key");
    assert_eq!((refused.code.as_str(), refused.exit()), ("TED-1152", crate::exit::Exit::Refused));
}

fn text(view: &impl crate::output::Render) -> String {
    let mut text = crate::output::Text::new(crate::output::Paint::Plain);
    view.render(&mut text);
    text.into_string()
}
