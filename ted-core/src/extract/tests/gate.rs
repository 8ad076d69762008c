//! What is asked before a target changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Tree, look, scratch};
use crate::extract::{ExtractError, ExtractOptions, Gate};

#[test]
fn a_shut_gate_is_asked_once_all_is_staged_and_leaves_the_target_as_it_was() {
    let (_folder, at) = scratch();
    let old = Tree::new().file("a", b"old").build();
    old.extract_to(&at, None).expect("extracted");
    let before = look(&at).but_root_time();
    let new = Tree::new().file("a", b"new!").file("b", b"more").build();
    let asked = Arc::new(AtomicUsize::new(0));
    let gate = |open: bool| {
        let (asked, folder) = (asked.clone(), at.clone());
        Gate::new(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let staged = std::fs::read_dir(&folder).expect("there").flatten();
            let staged = staged.filter(|entry| entry.file_name().to_string_lossy().starts_with(".ted-staging-"));
            assert_eq!(staged.count(), 1, "everything is staged");
            open
        })
    };
    let options = |open| ExtractOptions { threads: 1, gate: gate(open), ..ExtractOptions::default() };
    let refused = new.extract_with(&at, Some(&old.entries()), &options(false));
    assert!(matches!(refused, Err(ExtractError::Cancelled)), "{refused:?}");
    assert_eq!(look(&at).but_root_time(), before);
    new.extract_with(&at, Some(&old.entries()), &options(true)).expect("extracted");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    new.extract_with(&at, Some(&new.entries()), &options(false)).expect("nothing changes, so nobody is asked");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}
