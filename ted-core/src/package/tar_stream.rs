//! The canonical tar stream: the bytes before and after each entry's content. The one place that knows `tar`.
//!
//! A ustar header where it can say it all; before it a pax header with what it cannot (POSIX.1-2017, `pax`).

use tar::{EntryType, Header};

use super::attributes::{Xattr, XattrKind};
use super::entry::{Entry, EntryKind, Mtime};

/// Bytes of a tar block.
pub(super) const BLOCK_BYTES: u64 = 512;
/// Bytes of the end marker: two empty blocks.
pub(super) const END_BYTES: u64 = 2 * BLOCK_BYTES;
/// A header may take this much of a frame, pax records of two long paths included.
pub(super) const HEADER_BYTES_MAX: u64 = 16 * 1024;

const OCTAL_7_MAX: u64 = 0o777_7777;
const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// Bytes of pax records for extended attributes; an entry with more of them has none there.
const XATTR_BYTES_MAX: usize = 4096;
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// Zero bytes after a content of this length.
pub(super) fn padding(content_bytes: u64) -> u64 {
    content_bytes.wrapping_neg() % BLOCK_BYTES
}

/// Appends the blocks that stand before the content of `entry`.
pub(super) fn append_header(entry: &Entry, out: &mut Vec<u8>) {
    let mut pax = PaxRecords::default();
    let header = ustar(entry, &mut pax);
    pax.xattrs(entry);
    pax.append_blocks(out);
    out.extend_from_slice(header.as_bytes());
}

fn ustar(entry: &Entry, pax: &mut PaxRecords) -> Header {
    let mut header = Header::new_ustar();
    let name = tar_name(entry);
    if !set_name(&mut header, &name) {
        pax.text("path", &name);
    }
    if !set_link(&mut header, &entry.link) {
        pax.text("linkpath", &entry.link);
    }
    header.set_entry_type(match entry.kind {
        EntryKind::Directory => EntryType::Directory,
        EntryKind::File => EntryType::Regular,
        EntryKind::Symlink => EntryType::Symlink,
        EntryKind::HardLink => EntryType::Link,
    });
    header.set_mode(entry.mode);
    header.set_uid(pax.number("uid", u64::from(entry.uid), OCTAL_7_MAX));
    header.set_gid(pax.number("gid", u64::from(entry.gid), OCTAL_7_MAX));
    header.set_size(pax.number("size", entry.size, OCTAL_11_MAX));
    header.set_mtime(pax.time(entry.mtime));
    set_devices(&mut header);
    header.set_cksum();
    header
}

/// The root is `./`, a folder ends in a slash, everything else is its path.
fn tar_name(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.as_bytes().to_vec();
    if entry.path.is_root() {
        name.push(b'.');
    }
    if entry.kind == EntryKind::Directory {
        name.push(b'/');
    }
    name
}

/// Puts the name into `name`, or with its front part in `prefix`: cut at the first slash that makes both fit.
fn set_name(header: &mut Header, name: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if name.len() <= ustar.name.len() {
        ustar.name[..name.len()].copy_from_slice(name);
        return true;
    }
    let earliest = name.len() - ustar.name.len() - 1;
    let latest = ustar.prefix.len().min(name.len() - 2);
    let Some(cut) = (earliest.max(1)..=latest).find(|&at| name[at] == b'/') else { return false };
    let rest = &name[cut + 1..];
    ustar.prefix[..cut].copy_from_slice(&name[..cut]);
    ustar.name[..rest.len()].copy_from_slice(rest);
    true
}

fn set_link(header: &mut Header, link: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if link.len() > ustar.linkname.len() {
        return false;
    }
    ustar.linkname[..link.len()].copy_from_slice(link);
    true
}

fn set_devices(header: &mut Header) {
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(0);
        ustar.set_device_minor(0);
    }
}

/// Records of a pax extended header, in the order they were added.
#[derive(Default)]
struct PaxRecords {
    bytes: Vec<u8>,
    binary: bool,
}

impl PaxRecords {
    fn record(&mut self, key: &str, value: &[u8]) {
        // The length counts its own digits.
        let rest = 3 + key.len() + value.len();
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    /// A name; the first one that is not UTF-8 is announced as binary.
    fn text(&mut self, key: &str, value: &[u8]) {
        if !self.binary && std::str::from_utf8(value).is_err() {
            self.binary = true;
            self.record("hdrcharset", b"BINARY");
        }
        self.record(key, value);
    }

    /// The number for the ustar field: itself where it fits, else 0 and a record.
    fn number(&mut self, key: &str, value: u64, max: u64) -> u64 {
        if value <= max {
            return value;
        }
        self.record(key, value.to_string().as_bytes());
        0
    }

    /// The seconds for the ustar field: themselves where they say it all, else 0 and a record.
    fn time(&mut self, mtime: Mtime) -> u64 {
        match u64::try_from(mtime.seconds) {
            Ok(seconds) if mtime.nanoseconds == 0 && seconds <= OCTAL_11_MAX => seconds,
            _ => {
                self.record("mtime", decimal(mtime).as_bytes());
                0
            }
        }
    }

    /// Extended attributes as GNU tar, bsdtar and star write them, if they have room. Access control lists stand there as
    /// text, which is not made here.
    fn xattrs(&mut self, entry: &Entry) {
        let mut records = Self::default();
        for Xattr { name, value } in entry.xattrs() {
            // What stands between a key and its value does not stand in a key.
            let key = std::str::from_utf8(&name).ok().filter(|key| !key.contains(['=', '%', '\n']));
            if let Some(key) = key.filter(|_| XattrKind::of(&name) != Some(XattrKind::Acl)) {
                records.record(&format!("SCHILY.xattr.{key}"), &value);
            }
        }
        if records.bytes.len() <= XATTR_BYTES_MAX {
            self.bytes.append(&mut records.bytes);
        }
    }

    fn append_blocks(&self, out: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            return;
        }
        let mut header = Header::new_ustar();
        set_name(&mut header, PAX_NAME);
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(self.bytes.len() as u64);
        set_devices(&mut header);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&self.bytes);
        out.resize(out.len() + padding(self.bytes.len() as u64) as usize, 0);
    }
}

/// Seconds, and nine digits after the point unless they are all zero. −1.25 s is `seconds: -2` and 750,000,000 ns.
fn decimal(mtime: Mtime) -> String {
    let nanoseconds = i128::from(mtime.seconds) * 1_000_000_000 + i128::from(mtime.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (whole, fraction) = (nanoseconds.abs() / 1_000_000_000, nanoseconds.abs() % 1_000_000_000);
    if fraction == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction:09}") }
}

#[cfg(test)]
mod tests {
    use super::super::entry::EntryPath;
    use super::*;

    fn file(path: &[u8]) -> Entry {
        Entry {
            path: EntryPath::from_bytes(path).expect("valid"),
            kind: EntryKind::File,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            mtime: Mtime { seconds: 1, nanoseconds: 0 },
            size: 0,
            link: Vec::new(),
            content: Entry::NO_CONTENT,
            extensions: Vec::new(),
        }
    }

    fn header(entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        append_header(entry, &mut bytes);
        bytes
    }

    fn records(entry: &Entry) -> String {
        let bytes = header(entry);
        let end = bytes.len() - 512;
        if end == 0 {
            return String::new();
        }
        String::from_utf8_lossy(&bytes[512..end]).trim_end_matches('\0').to_owned()
    }

    #[test]
    fn what_ustar_can_say_takes_one_block() {
        for path in
            [b"a".to_vec(), vec![b'x'; 100], [[b'd'; 155].as_slice(), &[b'f'; 100]].join(&b'/'), b"\xff\xfe".to_vec()]
        {
            assert_eq!(header(&file(&path)).len(), 512, "{path:?}");
        }
    }

    #[test]
    fn what_ustar_cannot_say_stands_in_pax_records() {
        let mut late = file(b"a");
        late.mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 5 };
        assert_eq!(records(&late), "30 mtime=1700000000.000000005\n");
        late.mtime = Mtime { seconds: -2, nanoseconds: 750_000_000 };
        assert_eq!(records(&late), "22 mtime=-1.250000000\n");
        late.mtime = Mtime { seconds: -2, nanoseconds: 0 };
        assert_eq!(records(&late), "12 mtime=-2\n");

        let mut big = file(b"a");
        (big.size, big.uid) = (1 << 33, 1 << 21);
        assert_eq!(records(&big), "15 uid=2097152\n19 size=8589934592\n");

        let long = vec![b'n'; 101];
        assert_eq!(records(&file(&long)), format!("111 path={}\n", "n".repeat(101)));
        let binary = [[b'n'; 100].as_slice(), b"\xff"].concat();
        assert!(records(&file(&binary)).starts_with("21 hdrcharset=BINARY\n111 path="));
    }

    #[test]
    fn extended_attributes_stand_in_pax_records_if_they_have_room() {
        let with = |name: &str, value: &[u8]| {
            let mut entry = file(b"a");
            entry.set_xattrs(vec![Xattr { name: name.into(), value: value.to_vec() }]).expect("short");
            header(&entry).len()
        };
        let mut entry = file(b"a");
        entry.set_xattrs(vec![Xattr { name: b"user.mime".to_vec(), value: b"text/x".to_vec() }]).expect("short");
        assert_eq!(records(&entry), "33 SCHILY.xattr.user.mime=text/x\n");
        assert_eq!(with("user.a", &[0; 5000]), 512, "too long");
        assert_eq!(with("user.a=b", b"x"), 512, "no key of a record");
        assert_eq!(with("system.posix_acl_access", b"x"), 512, "text elsewhere");
    }

    #[test]
    fn the_longest_header_fits_the_room_that_the_cut_rule_leaves() {
        let mut entry = file(&[[b'd'; 255].as_slice(); 16].join(&b'/'));
        entry.kind = EntryKind::Symlink;
        entry.link = vec![0xff; 4096];
        (entry.uid, entry.gid, entry.size) = (u32::MAX, u32::MAX, u64::MAX);
        entry.mtime = Mtime { seconds: i64::MIN, nanoseconds: 999_999_999 };
        let value = vec![7; XATTR_BYTES_MAX - "4096 SCHILY.xattr.user.a=\n".len()];
        entry.set_xattrs(vec![Xattr { name: b"user.a".to_vec(), value }]).expect("short");
        assert!(records(&entry).contains("SCHILY.xattr.user.a="));
        assert!(header(&entry).len() as u64 <= HEADER_BYTES_MAX);
    }
}
