//! Open folders of a target, kept so that ten thousand files in a few folders do not walk down from the top each time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use cap_std::fs::Dir;

use crate::extract::disk::{self, Disk};
use crate::extract::step::Step;

/// What a folder is opened for.
#[derive(Clone, Copy)]
pub(super) enum Access<'a> {
    /// To look into it.
    Look,
    /// To change what is in it: its owner is given the right to, where it lacks that.
    Change(Disk<'a>),
}

/// Folders below one root, by path. The oldest are closed when there are too many.
pub(super) struct Folders<'a> {
    root: Arc<Dir>,
    access: Access<'a>,
    open: HashMap<Box<[u8]>, Arc<Dir>>,
    age: VecDeque<Box<[u8]>>,
    open_max: usize,
}

impl<'a> Folders<'a> {
    pub(super) fn new(root: Arc<Dir>, access: Access<'a>, open_max: usize) -> Self {
        Self { root, access, open: HashMap::new(), age: VecDeque::new(), open_max }
    }

    /// The folder at `path` (bytes of an entry's path), opened component by component and through no link.
    pub(super) fn get(&mut self, path: &[u8]) -> io::Result<Arc<Dir>> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(folder) = self.open.get(path) {
            return Ok(Arc::clone(folder));
        }
        // The nearest folder above that is open, then down from there.
        let mut missing = vec![path.len()];
        let mut folder = Arc::clone(&self.root);
        let mut end = path.len();
        while let Some(cut) = path[..end].iter().rposition(|&byte| byte == b'/') {
            if let Some(known) = self.open.get(&path[..cut]) {
                folder = Arc::clone(known);
                break;
            }
            missing.push(cut);
            end = cut;
        }
        for end in missing.into_iter().rev() {
            let (_, name) = split(&path[..end]);
            folder = Arc::new(disk::open_folder(&*folder, name)?);
            if let Access::Change(disk) = self.access {
                disk.make_writable(Step::SetFolder, &folder)?;
            }
            self.keep(&path[..end], &folder);
        }
        Ok(folder)
    }

    fn keep(&mut self, path: &[u8], folder: &Arc<Dir>) {
        if self.open.len() >= self.open_max
            && let Some(oldest) = self.age.pop_front()
        {
            self.open.remove(&oldest);
        }
        self.open.insert(path.into(), Arc::clone(folder));
        self.age.push_back(path.into());
    }
}

/// The path of the folder that `path` lies in, and the name in it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(cut) => (&path[..cut], &path[cut + 1..]),
        None => (b"", path),
    }
}
