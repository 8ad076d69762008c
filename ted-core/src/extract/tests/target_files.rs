//! Files of a target as what others are made from.

use super::{Tree, below, noise, open, scratch};
use crate::extract::{ExtractOptions, TargetFiles};
use crate::limits::Limits;
use crate::package::delta::Files;

#[test]
fn files_are_read_where_they_are_as_they_were_extracted_and_nowhere_else() {
    let (_folder, at) = scratch();
    let names = ["same", "other content", "other size", "gone", "folder now", "link now", "touched"];
    let tree = names.iter().fold(Tree::new(), |tree, name| tree.file(name, &noise(name, 5000)));
    let built = tree.build();
    built.extract_with(&at, None, &ExtractOptions::default()).expect("extracted");
    let mut altered = noise("other content", 5000);
    altered[4999] ^= 1;
    let mtime = below(&at, "other content").metadata().expect("there").modified().expect("known");
    std::fs::write(below(&at, "other content"), altered).expect("written");
    let file = std::fs::File::options().write(true).open(below(&at, "other content")).expect("there");
    file.set_modified(mtime).expect("set");
    std::fs::write(below(&at, "other size"), "short").expect("written");
    std::fs::remove_file(below(&at, "gone")).expect("removed");
    std::fs::remove_file(below(&at, "folder now")).expect("removed");
    std::fs::create_dir(below(&at, "folder now")).expect("made");
    std::fs::remove_file(below(&at, "link now")).expect("removed");
    std::os::unix::fs::symlink("same", below(&at, "link now")).expect("made");
    let touched = std::fs::File::options().write(true).open(below(&at, "touched")).expect("there");
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");

    let entries = built.entries();
    let files = TargetFiles::open(&open(&at), &entries, &Limits::DEFAULT).expect("opened").expect("there");
    for (name, looks_right, holds) in [
        ("same", true, true),
        // Its facts lie; its content does not.
        ("other content", true, false),
        ("other size", false, false),
        ("gone", false, false),
        ("folder now", false, false),
        ("link now", false, false),
        // Somebody touched it, and did not change it.
        ("touched", false, true),
    ] {
        let number = entries.iter().position(|entry| entry.path == super::path(name)).expect("listed");
        assert_eq!((files.looks_right(number), files.holds(number)), (looks_right, holds), "{name}");
        let mut buffer = vec![0; 100];
        let read = files.read_at(number, 4900, &mut buffer);
        assert_eq!(read.is_ok(), holds, "{name}");
        if holds {
            assert_eq!(buffer, noise(name, 5000)[4900..], "{name}");
        }
    }
    assert!(!files.holds(0), "a folder holds nothing");
}

#[test]
fn a_file_that_changes_after_its_check_is_not_read_again() {
    let (_folder, at) = scratch();
    let built = Tree::new().file("a", &noise("a", 5000)).file("b", &noise("b", 5000)).build();
    built.extract_with(&at, None, &ExtractOptions::default()).expect("extracted");
    let entries = built.entries();
    let files = TargetFiles::open(&open(&at), &entries, &Limits::DEFAULT).expect("opened").expect("there");
    assert!(files.holds(1) && files.holds(2));
    std::fs::write(below(&at, "a"), noise("other", 5000)).expect("written");
    files.read_at(1, 0, &mut [0; 10]).expect_err("it is another one now");
    files.read_at(2, 0, &mut [0; 10]).expect("that one stayed");
}

#[test]
fn a_target_that_is_gone_has_no_files() {
    let (_folder, at) = scratch();
    let entries = Tree::new().file("a", b"a").build().entries();
    assert!(TargetFiles::open(&open(&at), &entries, &Limits::DEFAULT).expect("looked").is_none());
}
