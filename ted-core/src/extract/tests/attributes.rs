//! Owners, extended attributes and access control lists. What only root may do is tested where the tests run as root.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use super::{Built, DISTRIBUTION, Tree, look, open, scratch};
use crate::extract::run::extract_with;
use crate::extract::step::{Hook, Step};
use crate::extract::{ExtractOptions, Ownership, Privilege, compare, recover};
use crate::package::{Asked, Owners, Xattr};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const CAPABILITY: &str = "security.capability";
/// `cap_net_bind_service=ep`, as the kernel has it.
const CAPABILITY_VALUE: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The owner and user 1234 may read and write, the mask is `rwx`: version 2, then tag, rights and number.
fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, number) in
        [(1_u16, 6_u16, u32::MAX), (2, 6, 1234), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(number.to_le_bytes());
    }
    bytes
}

fn with(tree: Tree, at: &str, xattrs: &[(&str, &[u8])]) -> Tree {
    let xattrs = xattrs.iter().map(|(name, value)| Xattr { name: (*name).into(), value: value.to_vec() });
    tree.entry(at, |entry| entry.set_xattrs(xattrs.collect()).expect("short"))
}

fn asking(tree: Tree, asked: &Asked) -> Tree {
    tree.entry("", |root| asked.put(root).expect("short"))
}

fn xattr(at: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 70_000];
    let length = fgetxattr(File::open(at).expect("there"), name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

/// Whether the file system that tests write to has extended attributes and access control lists.
fn can_keep(at: &Path) -> bool {
    let probe = File::create(at.with_extension("probe")).expect("made");
    let can = |name, value: &[u8]| fsetxattr(&probe, name, value, XattrFlags::empty()).is_ok();
    let both = can("user.probe", b"x") && can(ACCESS, &acl());
    if !both {
        eprintln!("not run: the file system has no extended attributes");
    }
    both
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run: only root may give owners");
    }
    root
}

#[test]
fn extended_attributes_and_access_control_lists_are_kept_changed_and_taken_away() {
    let (_folder, at) = scratch();
    if !can_keep(&at) {
        return;
    }
    let tree = Tree::new().dir("d").file("d/f", b"content").mode("d/f", 0o660).mode("d", 0o770);
    let tree = with(tree, "d/f", &[("user.a", b"1"), ("user.b", b"\xff\0"), (ACCESS, &acl())]);
    let tree = with(tree, "d", &[("user.d", b"folder"), (DEFAULT, &acl())]);
    let tree = with(tree, "", &[("user.root", b"")]);
    let first = tree.build();
    let done = first.extract_to(&at, None).expect("fresh");
    assert_eq!(done.not_kept.count, 0, "{:?}", done.not_kept);
    assert_eq!(look(&at), tree.seen(), "modes are those of the list");
    let file = at.join("d/f");
    assert_eq!((xattr(&file, "user.a"), xattr(&file, "user.b")), (Some(b"1".to_vec()), Some(b"\xff\0".to_vec())));
    assert_eq!((xattr(&file, ACCESS), xattr(&at.join("d"), DEFAULT)), (Some(acl()), Some(acl())));
    assert_eq!((xattr(&at.join("d"), "user.d"), xattr(&at, "user.root")), (Some(b"folder".to_vec()), Some(vec![])));
    assert!(differences(&at, &first).is_empty());

    let again = first.extract_to(&at, Some(&first.entries())).expect("nothing to do");
    assert_eq!((again.files_written, again.unchanged), (0, 3));

    let tree = with(with(with(tree, "d/f", &[("user.a", b"2")]), "d", &[("user.d", b"other")]), "", &[]);
    let second = tree.build();
    let done = second.extract_to(&at, Some(&first.entries())).expect("an update");
    assert_eq!((done.files_written, done.not_kept.count), (1, 0));
    assert_eq!(look(&at), tree.seen());
    assert_eq!(
        (xattr(&file, "user.a"), xattr(&file, "user.b"), xattr(&file, ACCESS)),
        (Some(b"2".to_vec()), None, None)
    );
    assert_eq!((xattr(&at.join("d"), "user.d"), xattr(&at.join("d"), DEFAULT)), (Some(b"other".to_vec()), None));
    assert_eq!(xattr(&at, "user.root"), None);
    fsetxattr(File::open(&file).expect("there"), "user.a", b"3", XattrFlags::empty()).expect("set");
    assert_eq!(differences(&at, &second), ["d/f: other extended attributes"]);
}

fn differences(at: &Path, built: &Built) -> Vec<String> {
    let found = compare(&open(at), &built.rows, &ExtractOptions::default()).expect("readable");
    found.into_iter().map(|difference| format!("{}: {}", difference.path, difference.what)).collect()
}

/// The process ends before this step.
struct EndsAt {
    left: AtomicUsize,
}

impl Hook for EndsAt {
    fn before(&self, _: Step) -> io::Result<()> {
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)));
        if before == Ok(0) { Err(io::Error::other("ended")) } else { Ok(()) }
    }
}

#[test]
fn after_a_crash_at_any_step_the_next_extraction_leaves_every_attribute_as_it_should_be() {
    let (_probe, probe) = scratch();
    if !can_keep(&probe) {
        return;
    }
    let tree = Tree::new().dir("d").file("d/f", b"1");
    let old = with(with(tree.clone(), "d/f", &[("user.f", b"old")]), "d", &[("user.d", b"old"), ("user.gone", b"x")]);
    let new = with(with(tree, "d/f", &[("user.f", b"new")]), "d", &[("user.d", b"new")]);
    let (old, new) = (old.build(), new.build());
    let (previous, options) = (old.entries(), ExtractOptions { threads: 1, ..ExtractOptions::default() });
    for step in 0.. {
        let (_folder, at) = scratch();
        old.extract_to(&at, None).expect("the revision before");
        let hook = EndsAt { left: AtomicUsize::new(step) };
        let ended = extract_with(&open(&at), &new.job(Some(&previous), &options), &hook).is_err();
        recover(&open(&at), &DISTRIBUTION).expect("finished or undone");
        let found = [xattr(&at.join("d"), "user.d"), xattr(&at.join("d/f"), "user.f")].map(Option::unwrap_or_default);
        assert!(found == [b"old", b"old"] || found == [b"new", b"new"], "step {step}: {found:?}");
        new.extract_to(&at, Some(&previous)).expect("the next extraction");
        assert_eq!(differences(&at, &new), [""; 0], "step {step}");
        assert_eq!(xattr(&at.join("d"), "user.gone"), None, "step {step}");
        if !ended {
            assert!(step > 15, "the test has seen {step} steps");
            break;
        }
    }
}

#[test]
fn what_the_file_system_cannot_keep_is_counted_and_named_and_fails_nothing() {
    let (_folder, at) = scratch();
    // More than most file systems keep of one file; an access control list that is none.
    let tree = Tree::new().file("long", b"1").file("odd", b"2");
    let tree = with(with(tree, "long", &[("user.long", &[7; 60_000])]), "odd", &[(ACCESS, b"none")]);
    let done = tree.build().extract_to(&at, None).expect("extracted");
    assert_eq!(look(&at), tree.seen());
    let kept = xattr(&at.join("long"), "user.long").is_some();
    assert_eq!(done.not_kept.count, 2 - u64::from(kept));
    let named: Vec<_> = done.not_kept.first.iter().map(|(path, what)| format!("{path}: {what}")).collect();
    assert!(named.iter().any(|lost| lost.starts_with("odd: system.posix_acl_access: ")), "{named:?}");
}

#[test]
fn no_more_are_named_than_the_limits_say() {
    let (_folder, at) = scratch();
    let tree = (0..20).fold(Tree::new(), |tree, number| {
        with(tree.file(format!("{number:02}"), b"x"), &format!("{number:02}"), &[(ACCESS, b"none")])
    });
    let done = tree.build().extract_to(&at, None).expect("extracted");
    assert_eq!((done.not_kept.count, done.not_kept.first.len()), (20, 8));
}

fn owned(asked: Owners) -> Tree {
    let asked = Asked { owners: Some(asked), privileged: true };
    let tree = Tree::new().dir("d").file("d/f", b"1").mode("d/f", 0o6755).symlink("link", "f").file("mine", b"2");
    let tree = tree.mode("mine", 0o4755);
    let give = |tree: Tree, at: &str, uid: u32, gid: u32| tree.entry(at, |entry| (entry.uid, entry.gid) = (uid, gid));
    asking(give(give(give(tree, "d", 61_001, 61_002), "d/f", 61_001, 61_003), "link", 61_001, 61_002), &asked)
}

#[test]
fn owners_are_kept_by_name_and_number_where_that_is_permitted_and_root_extracts() {
    let (_folder, at) = scratch();
    // A name that is known here goes before the number it had at the source.
    let names = Owners { users: vec![(61_001, "no such user".to_owned())], groups: vec![(61_003, "root".to_owned())] };
    let first = owned(names).build();
    let options = ExtractOptions { ownership: Ownership::Keep, ..ExtractOptions::default() };
    let done = first.extract_with(&at, None, &options).expect("extracted");
    let owner = |below: &str| at.join(below).symlink_metadata().map(|facts| (facts.uid(), facts.gid())).expect("there");
    if !is_root() {
        assert_eq!(done.not_kept.first[0].1, "owners: only root may give them");
        return;
    }
    assert_eq!(done.not_kept.count, 0);
    assert_eq!((owner("d"), owner("d/f"), owner("link")), ((61_001, 61_002), (61_001, 0), (61_001, 61_002)));
    assert_eq!((owner(""), owner("mine")), ((0, 0), (0, 0)));
    assert!(compare(&open(&at), &first.rows, &options).expect("readable").is_empty());

    let again = first.extract_with(&at, Some(&first.entries()), &options).expect("nothing to do");
    assert_eq!((again.files_written, again.unchanged), (0, 5));
    // Not permitted any more: what is written from now on is the extractor's.
    let changed = owned(Owners::default()).file("d/g", b"new").entry("d/g", |entry| entry.uid = 61_001).build();
    changed.extract_to(&at, Some(&first.entries())).expect("an update");
    assert_eq!(owner("d/g"), (0, 0));
}

#[test]
fn setuid_and_capabilities_are_kept_only_if_permitted_and_setuid_only_of_those_who_own_the_file_here() {
    if !is_root() {
        return;
    }
    let mode = |at: &Path, below: &str| at.join(below).metadata().map(|facts| facts.mode() & 0o7777).expect("there");
    let tree = with(owned(Owners::default()), "mine", &[(CAPABILITY, &CAPABILITY_VALUE)]);
    for (privilege, ownership, others, own) in [
        (Privilege::Drop, Ownership::Keep, 0o755, 0o755),
        (Privilege::Drop, Ownership::Extractor, 0o755, 0o755),
        // Given to root, it would be root whom it makes whoever starts it.
        (Privilege::KeepSetuid, Ownership::Extractor, 0o755, 0o4755),
        (Privilege::KeepSetuid, Ownership::Keep, 0o6755, 0o4755),
    ] {
        let (_folder, at) = scratch();
        let options = ExtractOptions { privilege, ownership, ..ExtractOptions::default() };
        let done = tree.build().extract_with(&at, None, &options).expect("extracted");
        assert_eq!((mode(&at, "d/f"), mode(&at, "mine")), (others, own), "{privilege:?} {ownership:?}");
        let capability = xattr(&at.join("mine"), CAPABILITY);
        if privilege == Privilege::Drop {
            assert_eq!(capability, None);
        } else {
            assert!(capability.is_some() || done.not_kept.count > 0, "a container may forbid it");
        }
    }
}
