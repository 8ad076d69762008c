//! What a node without a grant knows of an encrypted revision: canaries in a file's content and in its name are searched
//! for on its disk and in the memory of its processes.

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Node, Origin, Work, text, trees};
use ted_core::distributor::own_key;
use ted_core::limits::Limits;
use ted_core::package::{
    AnyIndex, BodyReader, Opening, PackageError, RawFrames as _, Root, read_any_index, verify_body, verify_frames,
};
use ted_core::security::Signature;
use ted_core::store::{Batch, Catalog as _, Committed, SledCatalog};

/// Names the package that the process `the_reader` looks at.
const READS: &str = "TED_CANARY_PACKAGE";

/// What is searched for.
struct Canaries(Vec<(&'static str, Vec<u8>)>);

impl Canaries {
    /// Random ones, put into a file of the source. Random bytes do not compress, so that they stand in an unsealed
    /// package as they are.
    fn plant(source: &Path) -> Self {
        let mut random = vec![0; 300_000];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("random bytes");
        let name: String = random[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(source.join(&name), &random).expect("written");
        let piece = |at: usize| random[at..at + 32].to_vec();
        Self(vec![
            ("the file's name", name.into_bytes()),
            ("the content's beginning", piece(64)),
            ("the content's middle", piece(150_000)),
            ("the content's end", piece(299_000)),
        ])
    }

    fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let holds = |wanted: &[u8]| find(bytes, wanted);
        self.0.iter().filter(|(_, wanted)| holds(wanted)).map(|(what, _)| *what).collect()
    }

    /// Those that stand in a file below `folder`, or in the name of one.
    fn on_disk(&self, folder: &Path) -> Vec<&'static str> {
        let mut found = vec![];
        for (path, (_, content)) in trees(&[folder]) {
            found.extend(self.found_in(path.as_os_str().as_encoded_bytes()));
            found.extend(self.found_in(&content));
        }
        found
    }

    fn in_memory(&self, process: u32) -> Vec<&'static str> {
        let mut found = vec![];
        each_region(process, |bytes| found.extend(self.found_in(bytes)));
        found
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return false };
    let mut left = bytes;
    // The standard library's own search for a byte is fast in a debug build too.
    while left.skip_until(*first).is_ok_and(|skipped| skipped > 0) {
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Everything that a core dump of the process would hold: its readable memory, region by region.
fn each_region(process: u32, mut look: impl FnMut(&[u8])) {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("it runs");
    let memory = File::open(format!("/proc/{process}/mem")).expect("its memory may be read");
    let mut total = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, modes) = (fields.next().expect("a range"), fields.next().expect("modes"));
        let special = line.ends_with("[vvar]") || line.ends_with("[vsyscall]") || line.ends_with("[vvar_vclock]");
        if !modes.starts_with('r') || special {
            continue;
        }
        let (from, to) = range.split_once('-').expect("two ends");
        let parse = |digits| u64::from_str_radix(digits, 16).expect("hex digits");
        let mut bytes = vec![0; (parse(to) - parse(from)) as usize];
        // A region may go while others are read.
        if memory.read_exact_at(&mut bytes, parse(from)).is_ok() {
            total += bytes.len();
            look(&bytes);
        }
    }
    assert!(total > 1 << 20, "the memory of a process was read, and not {total} bytes");
}

/// A process of this very program that reads a package as far as it can without a key, and then waits.
#[test]
fn the_reader() {
    let Some(path) = std::env::var_os(READS) else { return };
    let file = File::open(path).expect("the package");
    let judge = |_: &Root, _: &[u8], _: &Signature| Ok::<_, PackageError>(Opening::Blind);
    let index = read_any_index(&file, &Limits::DEFAULT, judge).expect("its index is whole");
    let mut raw = vec![];
    match &index {
        AnyIndex::Blind(blind) => verify_frames(blind, &file, 1, &|_| {}).expect("its frames are whole"),
        AnyIndex::Delta(delta) => verify_frames(delta.blind(), &file, 1, &|_| {}).expect("its frames are whole"),
        AnyIndex::Opened(opened) => {
            verify_body(opened, &file, 1, &|_| {}).expect("its body is whole");
            BodyReader::new(opened.clone(), &file).read_raw(0, &mut raw).expect("readable");
        }
    }
    println!("read {} bytes", index.blind().bytes());
    std::io::stdin().read_line(&mut String::new()).expect("the other side closes it");
    // Held until here, so that the search finds what there is to find.
    std::hint::black_box((&index, &raw));
}

/// The canaries in the memory of a process that has read the package, blind if it is sealed.
fn in_memory_of_a_reader(canaries: &Canaries, package: &Path) -> Vec<&'static str> {
    let mut reader = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "the_reader", "--nocapture"])
        .env(READS, package)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(reader.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("read ")), "it reads the package");
    let found = canaries.in_memory(reader.id());
    reader.stdin.take().expect("piped").write_all(b"\n").expect("it waits");
    for _ in lines {}
    assert!(reader.wait().expect("it ends").success());
    found
}

/// One delivery to a node that is granted it, and the same offered to one whose encryption certificate is not for its
/// name any more. That one has the package all the same, as a relay would.
struct Delivered {
    canaries: Canaries,
    package: PathBuf,
    on_disk: Vec<&'static str>,
    in_daemon: Vec<&'static str>,
    in_reader: Vec<&'static str>,
}

fn deliver(encrypt: &str) -> Delivered {
    let work = Work::new();
    let origin = Origin::start(&work, "d", "dist.example.com", &[encrypt]);
    let canaries = Canaries::plant(&origin.source);
    let (granted, other) = (Node::subscriber(work.path("granted")), Node::subscriber(work.path("other")));
    granted.ok(&["join", text(&origin.invite(&work, "granted.example.com"))]);
    other.ok(&["join", text(&origin.invite(&work, "other.example.com"))]);
    let daemon = granted.daemon();
    let _ = origin.node.run(&["send", "nightly", "--wait", "--timeout", "1s"]);
    granted.ok(&["verify", "site"]);
    let mut packages = trees(&[&granted.data]).into_keys().filter(|path| path.ends_with("distfile.ted"));
    let package = packages.next_back().expect("it keeps the package");

    let lies_in = other.data.join(package.strip_prefix(&granted.data).expect("below it"));
    std::fs::create_dir_all(lies_in.parent().expect("a folder")).expect("made");
    std::fs::copy(&package, &lies_in).expect("copied");
    rename(&other, "renamed.example.com");
    let without = other.daemon();
    let sent = origin.send();
    let shown = other.json(&["status"]).to_string();
    assert!(shown.contains("renamed.example.com"), "{shown}");
    if encrypt == "--encrypt" {
        assert!(sent.printed().contains("TED-1869"), "{}{}", sent.printed(), sent.errors());
    } else {
        assert_eq!(sent.code(), 0, "{}{}", sent.printed(), sent.errors());
    }
    assert_eq!(other.run(&["package", "verify", text(&lies_in)]).code(), 0, "whole, whoever looks");

    let known = Canaries(vec![("what is in its memory for sure", b"renamed.example.com".to_vec())]);
    assert!(!known.in_memory(without.process()).is_empty(), "the search finds what is there");
    let in_daemon = canaries.in_memory(without.process());
    assert_eq!(without.stop(), 0);
    let on_disk = canaries.on_disk(&other.data);
    let in_reader = in_memory_of_a_reader(&canaries, &lies_in);
    assert_key_is_nowhere(&origin, &package, &[&granted.data, &other.data]);
    assert_eq!(daemon.stop(), 0);
    Delivered { canaries, package: lies_in, on_disk, in_daemon, in_reader }
}

/// Gives a stopped Subscriber another name, as its operator would by hand.
fn rename(node: &Node, name: &str) {
    let catalog = SledCatalog::open(&node.data.join("catalog")).expect("nobody has it");
    let renaming = Batch::new().put(b"node", format!("{name:?}").into_bytes());
    assert_eq!(catalog.commit(&renaming).expect("written"), Committed::Done);
}

/// The content key is derived and unwrapped whenever it is needed, and lies on nobody's disk.
fn assert_key_is_nowhere(origin: &Origin, package: &Path, folders: &[&PathBuf]) {
    let file = File::open(package).expect("the package");
    let mut root = None;
    let judge = |found: &Root, _: &[u8], _: &Signature| {
        root = Some(found.clone());
        Ok::<_, PackageError>(Opening::Blind)
    };
    read_any_index(&file, &Limits::DEFAULT, judge).expect("its index is whole");
    let Some(key) = own_key(&origin.node.data, &root.expect("judged")) else { return };
    let key = Canaries(vec![("the content key", key.as_bytes().to_vec())]);
    for folder in folders.iter().copied().chain([&origin.node.data]) {
        assert_eq!(key.on_disk(folder), Vec::<&str>::new(), "{}", folder.display());
    }
}

#[test]
fn a_node_without_a_grant_learns_nothing_of_names_and_contents_and_the_same_search_finds_them_unsealed() {
    let sealed = deliver("--encrypt");
    assert!(sealed.package.ends_with("distfile.ted"));
    assert_eq!(sealed.on_disk, Vec::<&str>::new());
    assert_eq!(sealed.in_daemon, Vec::<&str>::new());
    assert_eq!(sealed.in_reader, Vec::<&str>::new());

    let open = deliver("--encrypt=false");
    for (what, _) in &open.canaries.0 {
        assert!(open.on_disk.contains(what), "{what} is on the disk");
        assert!(open.in_reader.contains(what), "{what} is in the memory of who reads the package");
    }
}
