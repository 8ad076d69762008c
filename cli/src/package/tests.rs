use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;
use ted_core::distributor::{Exclude, FolderSource, Unreadable};
use ted_core::id::{DistributionId, Revision, UnixMillis};
use ted_core::name::NodeName;
use ted_core::package::{BuildOptions, ROOT_CONTEXT, RootSigner, Source, build_baseline};
use ted_core::security::{Authority, AwsLc, Identity, Signature, Usage, sign};

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

fn build(source: &Path, package: &Path, authority: &Authority, signer: &Signer) {
    let exclude = Exclude::new::<&str>(&[]).expect("no patterns");
    let source = FolderSource::new(source.to_owned(), exclude, Unreadable::default());
    let entries = source.entries(&mut |_| ()).expect("readable");
    let distribution = DistributionId::from_bytes([1; 16]);
    let name = "site".parse().expect("valid");
    let mut options = BuildOptions::new(distribution, name, authority.root().key_hash(), 1);
    (options.created, options.revision) = (NOW, Revision::from_number(5));
    let mut file = File::create(package).expect("made");
    build_baseline(&source, entries, &options, signer, &mut file, &|_| ()).expect("built");
}

struct Made {
    folder: tempfile::TempDir,
    package: PathBuf,
    certificate: PathBuf,
}

impl Made {
    /// A package of three files, a folder and links, and the certificate of its Distributor.
    fn new() -> Self {
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
        build(&source, &package, &authority, &Signer(signer));
        fs::write(&certificate, authority.root().certificate().pem()).expect("written");
        Self { folder, package, certificate }
    }

    fn open(&self) -> PackageFile {
        PackageFile::open(&self.package, &Trust::from_option(Some(&self.certificate)).expect("read")).expect("opened")
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
    assert_eq!(shown.package_bytes, fs::metadata(&made.package).expect("there").len());
    assert!(matches!(&shown.origin, Origin::Distributor { name, .. } if name == "dist.example.com"));

    let anyone = PackageFile::open(&made.package, &Trust::Nobody).expect("opened");
    let origin = read::inspect(&anyone).origin;
    assert!(matches!(&origin, Origin::Nobody { claimed_name, .. } if claimed_name == "dist.example.com"));
    assert!(origin.sentence().starts_with("NOT VERIFIED"));
}

#[test]
fn listings_show_every_entry_as_ls_does() {
    let made = Made::new();
    let listing = read::list(&made.open());
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
    let refused = PackageFile::open(&made.package, &Trust::from_file(&other).expect("read")).err().expect("refused");
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
        let outcome = PackageFile::open(&made.package, &trust).and_then(|opened| read::verify(&opened, &progress));
        assert_ne!(outcome.expect_err(what).exit(), crate::exit::Exit::Success, "{what}");
    }
    fs::write(&made.package, &whole[..whole.len() - 1]).expect("written");
    assert!(PackageFile::open(&made.package, &trust).is_err(), "cut off");
    let folder = PackageFile::open(made.folder.path(), &trust).err().expect("a folder");
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
    let done = extract::extract(&arguments, &Progress::new(Format::Json)).expect("extracted");
    assert_eq!(done.files_written, 3);
    assert_eq!(fs::read(to.join("b.txt")).expect("there"), b"hello\n");
    assert_eq!(fs::read_link(to.join("link")).expect("there"), Path::new("/etc/passwd"));

    let untrusted = ExtractArgs { certificate: None, to: made.path("nowhere"), ..arguments };
    let refused = extract::extract(&untrusted, &Progress::new(Format::Json)).expect_err("nobody vouches");
    assert_eq!(refused.code, code::ORIGIN_UNKNOWN);
    assert!(!made.path("nowhere").exists());
}
