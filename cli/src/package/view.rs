//! What the `package` commands answer.

use serde::{Deserialize, Serialize};
use ted_core::id::UnixMillis;
use ted_core::package::{Aspect, Change, Entry, EntryKind, Mtime};

use super::open::Origin;
use crate::output::{Render, Text, count};
use crate::units::{self, Time};

/// What a package says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Its id, 64 hex digits.
    pub package: String,
    /// The Distribution's name, unless it stayed sealed.
    pub distribution: Option<String>,
    /// The Distribution's id, 32 hex digits.
    pub distribution_id: String,
    /// The revision it carries.
    pub revision: u64,
    /// When it was built.
    pub created: Time,
    /// `baseline`, or `delta from …`.
    pub kind: String,
    /// `no`, or how it is sealed.
    pub sealed: String,
    /// Whether the catalog was seen: it is not sealed, or there was its key.
    pub opened: bool,
    /// The content id of the revision that a delta goes from, unless it stayed sealed.
    #[serde(default)]
    pub base_content: Option<String>,
    /// The content id of the revision, unless it stayed sealed.
    pub content: Option<String>,
    /// What it asks of whoever extracts it, beyond modes and times: `owners`, `privileged`.
    #[serde(default)]
    pub asks: Vec<String>,
    /// Entries of the revision, unless it stayed sealed.
    pub entries: Option<u64>,
    /// Bytes of all files together, unless it stayed sealed or is a delta.
    pub content_bytes: Option<u64>,
    /// Bytes of the package.
    pub package_bytes: u64,
    /// Frames of its body.
    pub body_frames: u64,
    /// zstd's level.
    pub level: i32,
    /// The operator's digest.
    pub digest: Option<DigestView>,
    /// Serial number of the signing certificate.
    pub signed_with: String,
    /// Until when that certificate holds.
    pub signer_until: Time,
    /// The hash of the CA key it claims to come from.
    pub distributor_key: String,
    /// What is known of its origin.
    pub origin: Origin,
}

/// The operator's digest, and what it is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestView {
    /// `md5` or `blake3`.
    pub algorithm: String,
    /// The digest in hex digits.
    pub hex: String,
    /// The first byte of the package that it is of.
    pub from: u64,
    /// How many bytes from there on it is of.
    pub bytes: u64,
}

impl DigestView {
    fn sentence(&self) -> String {
        format!("{} {}, of {} bytes from byte {} on", self.algorithm, self.hex, self.bytes, self.from)
    }
}

impl Inspection {
    fn sealing(&self) -> String {
        match (self.sealed.as_str(), self.opened) {
            ("no", _) => self.sealed.clone(),
            (suite, true) => format!("{suite}, opened with this node's key"),
            (suite, false) => format!("{suite}; without its key, names, entries and contents are not seen"),
        }
    }
}

impl Render for Inspection {
    fn render(&self, out: &mut Text) {
        let name = self.distribution.as_deref().unwrap_or("(sealed)");
        out.fields([
            ("package", Some(self.package.clone())),
            ("distribution", Some(format!("{name} ({})", self.distribution_id))),
            ("revision", Some(self.revision.to_string())),
            ("created", Some(self.created.to_string())),
            ("kind", Some(self.kind.clone())),
            ("sealed", Some(self.sealing())),
            ("base's content id", self.base_content.clone()),
            ("content id", self.content.clone()),
            ("asks for", (!self.asks.is_empty()).then(|| self.asks.join(", "))),
            ("entries", self.entries.map(|entries| entries.to_string())),
            ("content", self.content_bytes.map(units::bytes)),
            ("package size", Some(units::bytes(self.package_bytes))),
            ("body", Some(format!("{}, zstd level {}", count(self.body_frames, "frame", "frames"), self.level))),
            ("digest", self.digest.as_ref().map(DigestView::sentence)),
            ("distributor key", Some(self.distributor_key.clone())),
            ("signed with", Some(format!("certificate {}, valid until {}", self.signed_with, self.signer_until))),
            ("origin", Some(self.origin.sentence())),
        ]);
    }
}

impl Origin {
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Distributor { name, fingerprint } => format!("verified: built by {name} (key {fingerprint})"),
            Self::Nobody { claimed_name, claimed_fingerprint } => format!(
                "NOT VERIFIED: it claims to come from {claimed_name} (key {claimed_fingerprint}); \
                 give --certificate to have that checked"
            ),
        }
    }
}

/// The entries of a package in path order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<EntryView>,
}

/// One entry of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Its path, `.` for the root; bytes that are not UTF-8 are escaped.
    pub path: String,
    /// The path's bytes as hex digits, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// `directory`, `file`, `symlink` or `hardlink`.
    pub kind: String,
    /// Permission bits as four octal digits.
    pub mode: String,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Bytes of content.
    pub size: u64,
    /// When its content last changed, RFC 3339.
    pub mtime: String,
    /// What a link names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// BLAKE3 of a file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    #[serde(skip)]
    mode_bits: u32,
}

impl EntryView {
    pub(super) fn of(entry: &Entry) -> Self {
        let bytes = entry.path.as_bytes();
        let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            path: entry.path.to_string(),
            path_hex: std::str::from_utf8(bytes).is_err().then(hex),
            kind: match entry.kind {
                EntryKind::Directory => "directory",
                EntryKind::File => "file",
                EntryKind::Symlink => "symlink",
                EntryKind::HardLink => "hardlink",
            }
            .to_owned(),
            mode: format!("{:04o}", entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            mtime: mtime(entry.mtime),
            link: (!entry.link.is_empty()).then(|| String::from_utf8_lossy(&entry.link).into_owned()),
            blake3: (entry.kind == EntryKind::File).then(|| entry.content.to_string()),
            mode_bits: entry.mode,
        }
    }

    fn permissions(&self) -> String {
        let kind = match self.kind.as_str() {
            "directory" => 'd',
            "symlink" => 'l',
            "hardlink" => 'h',
            _ => '-',
        };
        let mut text = String::from(kind);
        for (shift, special, sign) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let bits = self.mode_bits >> shift;
            text.push(if bits & 4 != 0 { 'r' } else { '-' });
            text.push(if bits & 2 != 0 { 'w' } else { '-' });
            text.push(match (self.mode_bits & special != 0, bits & 1 != 0) {
                (true, true) => sign,
                (true, false) => sign.to_ascii_uppercase(),
                (false, true) => 'x',
                (false, false) => '-',
            });
        }
        text
    }
}

/// Whole seconds, since that is what people compare; times before 1970 as seconds.
fn mtime(mtime: Mtime) -> String {
    match u64::try_from(mtime.seconds).ok().and_then(|seconds| seconds.checked_mul(1000)) {
        Some(millis) => Time(UnixMillis::from_millis(millis)).to_string(),
        None => format!("@{}s", mtime.seconds),
    }
}

impl Render for Listing {
    // A table would hold every cell of a few million entries; lines with known widths do not.
    fn render(&self, out: &mut Text) {
        let width = |of: fn(&EntryView) -> u64| self.entries.iter().map(of).max().unwrap_or(0).to_string().len();
        let (uid, gid, size) = (width(|e| u64::from(e.uid)), width(|e| u64::from(e.gid)), width(|e| e.size));
        for entry in &self.entries {
            let arrow = if entry.kind == "hardlink" { " => " } else { " -> " };
            let link = entry.link.as_ref().map(|link| format!("{arrow}{link}")).unwrap_or_default();
            out.line(format_args!(
                "{}  {:>uid$} {:>gid$}  {:>size$}  {}  {}{link}",
                entry.permissions(),
                entry.uid,
                entry.gid,
                entry.size,
                entry.mtime,
                entry.path
            ));
        }
    }
}

/// What became of each path from one revision to another, in path order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The revision that it was.
    pub from: u64,
    /// The revision that it is.
    pub to: u64,
    /// What is not as it was.
    pub changes: Vec<ChangeView>,
}

/// What became of one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// `added`, `removed`, `moved` or `changed`.
    pub change: String,
    /// Where a file that moved was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Bytes of content that it had, where it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_before: Option<u64>,
    /// In what it differs from what it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs_in: Vec<Aspect>,
    /// What it is now; what is removed, as it was.
    pub entry: EntryView,
}

impl ChangeView {
    pub(super) fn of(change: &Change<'_>) -> Self {
        let (word, before) = match *change {
            Change::Added(_) => ("added", None),
            Change::Removed(_) => ("removed", None),
            Change::Moved { from, .. } => ("moved", Some(from)),
            Change::Changed { from, .. } => ("changed", Some(from)),
        };
        Self {
            change: word.to_owned(),
            from: before.filter(|_| word == "moved").map(|from| from.path.to_string()),
            size_before: before.map(|from| from.size),
            differs_in: change.differs_in(),
            entry: EntryView::of(change.entry()),
        }
    }

    fn sign(&self) -> char {
        match self.change.as_str() {
            "added" => '+',
            "removed" => '-',
            "moved" => '>',
            _ => '~',
        }
    }

    /// What a line says behind the path.
    fn remark(&self) -> String {
        let words = self.differs_in.iter().map(|aspect| match aspect {
            Aspect::Content if self.size_before != Some(self.entry.size) => {
                format!("content (was {} bytes)", self.size_before.unwrap_or_default())
            }
            aspect => format!("{aspect:?}").to_lowercase(),
        });
        let words: Vec<_> = words.collect();
        if words.is_empty() { String::new() } else { format!("  [{}]", words.join(", ")) }
    }
}

impl Render for Changes {
    fn render(&self, out: &mut Text) {
        let size = self.changes.iter().map(|change| change.entry.size).max().unwrap_or(0).to_string().len();
        for change in &self.changes {
            let moved = change.from.as_ref().map(|from| format!("{from} -> ")).unwrap_or_default();
            out.line(format_args!(
                "{} {:>size$}  {moved}{}{}",
                change.sign(),
                change.entry.size,
                change.entry.path,
                change.remark()
            ));
        }
        let of = |word: &str| self.changes.iter().filter(|change| change.change == word).count();
        out.line(format_args!(
            "revision {} to {}: {} added, {} removed, {} moved, {} changed",
            self.from,
            self.to,
            of("added"),
            of("removed"),
            of("moved"),
            of("changed")
        ));
    }
}

/// What `package verify` found; there is none for a package that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// The package's id.
    pub package: String,
    /// Its revision.
    pub revision: u64,
    /// Whether catalog and files were checked too: it is not sealed, or there was its key.
    pub opened: bool,
    /// Whether it is a delta, whose files are checked where they are made.
    #[serde(default)]
    pub delta: bool,
    /// Entries in its catalog, unless it stayed sealed or is a delta.
    pub entries: Option<u64>,
    /// Bytes of the package.
    pub package_bytes: u64,
    /// Frames that were checked.
    pub frames: u64,
    /// The operator's digest that was checked.
    pub digest: Option<DigestView>,
    /// How long it took.
    pub milliseconds: u64,
    /// What is known of its origin.
    pub origin: Origin,
}

impl Render for Verification {
    fn render(&self, out: &mut Text) {
        let paint = out.paint();
        let entries = self.entries.map(|entries| format!(", {}", count(entries, "entry", "entries")));
        let whole = format!(
            "whole: {}{}, {}, in {}",
            count(self.frames, "frame", "frames"),
            entries.unwrap_or_default(),
            units::bytes(self.package_bytes),
            units::duration(std::time::Duration::from_millis(self.milliseconds))
        );
        out.painted(&paint.good(&whole));
        match &self.digest {
            Some(digest) => out.line(format_args!("digest: {} {} matches", digest.algorithm, digest.hex)),
            None => out.line("digest: the package has none"),
        }
        if self.delta {
            out.line("a delta: the files that it makes are checked where they are made");
        }
        if !self.opened {
            let unseen = "not seen: catalog and files; the package is sealed, and there is no key to open it with";
            out.painted(&paint.warn(unseen));
        }
        let origin = crate::output::clean(&format!("origin: {}", self.origin.sentence()));
        let verified = matches!(self.origin, Origin::Distributor { .. });
        out.painted(&if verified { paint.good(&origin) } else { paint.warn(&origin) });
    }
}

/// What `package extract` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extraction {
    /// Where the files are now.
    pub target: String,
    /// The revision they are.
    pub revision: u64,
    /// Files written.
    pub files_written: u64,
    /// Bytes of content in them.
    pub bytes_written: u64,
    /// Hard and symbolic links made.
    pub links_made: u64,
    /// Folders made.
    pub folders_made: u64,
    /// Entries that were in place already.
    pub unchanged: u64,
    /// Owners and extended attributes that could not be kept.
    pub not_kept: u64,
    /// The first of them, `path: what: why`.
    pub not_kept_first: Vec<String>,
    /// Whether an interrupted extraction was finished or undone first.
    pub recovered: bool,
    /// What is known of the package's origin.
    pub origin: Origin,
}

impl Render for Extraction {
    fn render(&self, out: &mut Text) {
        if self.recovered {
            out.line("an interrupted extraction was put in order first");
        }
        out.line(format_args!(
            "extracted revision {} to {}: {} ({}), {}, {}; {} unchanged",
            self.revision,
            self.target,
            count(self.files_written, "file", "files"),
            units::bytes(self.bytes_written),
            count(self.links_made, "link", "links"),
            count(self.folders_made, "folder", "folders"),
            self.unchanged
        ));
        for lost in &self.not_kept_first {
            out.line(format_args!("not kept: {lost}"));
        }
        if self.not_kept > self.not_kept_first.len() as u64 {
            out.line(format_args!("not kept in all: {}", count(self.not_kept, "attribute", "attributes")));
        }
        out.line(format_args!("origin: {}", self.origin.sentence()));
    }
}
