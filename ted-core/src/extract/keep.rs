//! What entries have beside mode and time: owners, extended attributes and access control lists. Kept where the options
//! say so and the system can; what could not be kept is counted and never fails an extraction.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};

use crate::extract::accounts;
use crate::extract::disk::{self, Attributes, Disk, Facts};
use crate::extract::job::{ExtractOptions, Ownership, Privilege};
use crate::extract::step::Step;
use crate::package::{Asked, CatalogRow, Entry, EntryKind, EntryPath, Owners, Xattr, XattrKind};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// Attributes that could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotKept {
    /// How many.
    pub count: u64,
    /// The first of them: of which entry, and what and why.
    pub first: Vec<(EntryPath, String)>,
}

/// Counts what could not be kept; many threads do.
#[derive(Debug)]
pub(super) struct Losses {
    named_max: usize,
    lost: Mutex<NotKept>,
}

impl Losses {
    pub(super) fn new(named_max: usize) -> Self {
        Self { named_max, lost: Mutex::default() }
    }

    fn add(&self, path: &EntryPath, what: impl FnOnce() -> String) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.count += 1;
        if lost.first.len() < self.named_max {
            lost.first.push((path.clone(), what()));
        }
    }

    pub(super) fn so_far(&self) -> NotKept {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What an entry gets beside mode and time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extra {
    /// User and group, by their numbers here.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) xattrs: Vec<Xattr>,
    /// Names of extended attributes that the revision before gave it, and this one does not.
    pub(super) gone: Vec<Vec<u8>>,
}

impl Extra {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Gives all of it to an open file or folder. Mode and time are to be set afterwards: a new owner takes setuid away,
    /// and an access control list changes the mode.
    pub(super) fn write(&self, disk: Disk<'_>, step: Step, path: &EntryPath, file: impl AsFd, losses: &Losses) {
        if let Some(owner) = self.owner
            && let Err(error) = disk.set_owner(step, &file, owner)
        {
            losses.add(path, || format!("its owner: {error}"));
        }
        for name in &self.gone {
            // It may be gone already.
            let _ = disk.remove_xattr(step, &file, name);
        }
        for Xattr { name, value } in &self.xattrs {
            if let Err(error) = disk.set_xattr(step, &file, name, value) {
                losses.add(path, || format!("{}: {error}", name.escape_ascii()));
            }
        }
    }
}

/// What is kept in one extraction.
#[derive(Debug)]
pub(super) struct Keep {
    privilege: Privilege,
    /// `None`: everything belongs to whoever extracts.
    owners: Option<Numbers>,
    /// User and group of whoever extracts.
    own: (u32, u32),
    pub(super) losses: Losses,
}

/// Numbers here, by those at the source.
#[derive(Debug, Default)]
struct Numbers {
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
}

impl Numbers {
    /// A name that is known here goes before the number.
    fn of(owners: &Owners) -> Self {
        let known = |names: &[(u32, String)], find: fn(&str) -> Option<u32>| {
            names.iter().filter_map(|(number, name)| Some((*number, find(name)?))).collect()
        };
        Self {
            users: known(&owners.users, accounts::user_number),
            groups: known(&owners.groups, accounts::group_number),
        }
    }
}

impl Keep {
    /// For these rows, as the options say.
    pub(super) fn of(rows: &[CatalogRow], options: &ExtractOptions) -> Self {
        let own = (rustix::process::geteuid(), rustix::process::getegid());
        let losses = Losses::new(options.limits.not_kept_named_max);
        let asked = Asked::of(rows);
        let privilege = if asked.privileged { options.privilege } else { Privilege::Drop };
        let owners = match (options.ownership, asked.owners) {
            (Ownership::Keep, Some(owners)) if own.0.is_root() => Some(Numbers::of(&owners)),
            (Ownership::Keep, Some(_)) => {
                losses.add(&EntryPath::root(), || "owners: only root may give them".to_owned());
                None
            }
            _ => None,
        };
        Self { privilege, owners, own: (own.0.as_raw(), own.1.as_raw()), losses }
    }

    /// Mode and time that an entry gets. setuid and setgid are kept only where the file belongs to whom it belonged at
    /// the source: else a program would get the rights of whoever extracts it.
    pub(super) fn attributes(&self, entry: &Entry) -> Attributes {
        let mut mode = self.privilege.mask(entry.mode);
        if self.owners.is_none() && entry.kind == EntryKind::File {
            mode &= if self.own.0 == entry.uid { !0 } else { !SETUID };
            mode &= if self.own.1 == entry.gid { !0 } else { !SETGID };
        }
        Attributes { mode, mtime: entry.mtime }
    }

    /// The owner that an entry gets; `None` if it is whoever extracts.
    fn owner(&self, entry: &Entry) -> Option<(u32, u32)> {
        let Numbers { users, groups } = self.owners.as_ref()?;
        let known = |numbers: &HashMap<u32, u32>, number: u32| numbers.get(&number).copied().unwrap_or(number);
        Some((known(users, entry.uid), known(groups, entry.gid)))
    }

    /// What a file or folder gets; `before` is what the revision before had at its path.
    pub(super) fn extra(&self, entry: &Entry, before: Option<&Entry>) -> Extra {
        let kept = |xattr: &Xattr| match XattrKind::of(&xattr.name) {
            Some(XattrKind::Capability) => self.privilege == Privilege::KeepSetuid,
            other => other.is_some(),
        };
        let xattrs: Vec<Xattr> = entry.xattrs().into_iter().filter(kept).collect();
        let gone = before.map(Entry::xattrs).unwrap_or_default().into_iter().map(|xattr| xattr.name);
        let gone = gone.filter(|name| xattrs.iter().all(|xattr| xattr.name != *name)).collect();
        Extra { owner: self.owner(entry), xattrs, gone }
    }

    /// Gives a symbolic link its owner. It has no extended attributes.
    pub(super) fn write_link(&self, disk: Disk<'_>, entry: &Entry, (folder, name): (&Dir, &[u8])) {
        if let Some(owner) = self.owner(entry)
            && let Err(error) = disk.set_link_owner(folder, name, owner)
        {
            self.losses.add(&entry.path, || format!("its owner: {error}"));
        }
    }

    /// Whether what stands there, which the revision before left as `before`, has all of this already. What the system
    /// could not keep is not tried again.
    pub(super) fn agrees(&self, entry: &Entry, before: Option<&Entry>, facts: &Facts) -> bool {
        let owned = self.owner(entry).is_none_or(|owner| owner == (facts.uid, facts.gid));
        owned && entry.xattrs() == before.map(Entry::xattrs).unwrap_or_default()
    }

    /// Whether an open file or folder has it all.
    pub(super) fn compare(&self, entry: &Entry, file: impl AsFd, facts: &Facts) -> Option<&'static str> {
        if self.owner(entry).is_some_and(|owner| owner != (facts.uid, facts.gid)) {
            return Some("another owner");
        }
        let differs = |Xattr { name, value }: &Xattr| match disk::xattr(&file, name, value.len()) {
            Ok(found) => found != *value,
            Err(error) => error.raw_os_error() != Some(rustix::io::Errno::NOTSUP.raw_os_error()),
        };
        self.extra(entry, None).xattrs.iter().any(differs).then_some("other extended attributes")
    }
}
