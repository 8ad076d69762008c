//! Reading a tar file from its first header to its end. Nothing in it is believed: whatever two readers could
//! understand differently is refused.

use super::error::{ArchiveError, EntryFault};
use super::header::{BLOCK_BYTES, Block, Header, OCTAL_SIZE_MAX};
use super::input::Input;
use super::members::{Members, Stored, StoredKind};
use super::pax::Extended;
use crate::limits::Limits;
use crate::package::{EntryPath, Mtime, PathError};

/// What stands before an entry and speaks of it.
#[derive(Default)]
struct Before {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    extended: Option<Extended>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.long_path.is_none() && self.long_link.is_none() && self.extended.is_none()
    }
}

/// Everything in the archive.
///
/// # Errors
/// [`ArchiveError`] at the first thing that is wrong; nothing that comes after it was read.
pub(super) fn read<'a>(
    input: &mut dyn Input,
    limits: &Limits,
    mut members: Members<'a>,
) -> Result<Members<'a>, ArchiveError> {
    let mut global = Extended::default();
    let mut before = Before::default();
    while let Some(block) = next_header(input)? {
        let header = Header::of(&block).ok_or_else(|| input.damaged("a header has a wrong checksum"))?;
        let refuse =
            |fault| ArchiveError::Entry { place: input.place().to_owned(), entry: named(&header.path()), fault };
        match header.kind() {
            kind @ (b'x' | b'g') => {
                let size = header.size().map_err(refuse)?;
                let data = data(input, size, limits, &header)?;
                let extended = Extended::parse(&data);
                let extended = extended.map_err(|fault| at_header(input, &header, fault))?;
                match kind {
                    b'g' => global = global_header(extended).map_err(|fault| at_header(input, &header, fault))?,
                    _ if before.extended.replace(extended).is_none() => {}
                    _ => return Err(at_header(input, &header, EntryFault::Header("there are two of them"))),
                }
            }
            kind @ (b'L' | b'K') => {
                let size = header.size().map_err(refuse)?;
                let mut text = data(input, size, limits, &header)?;
                if text.last() == Some(&0) {
                    text.pop();
                }
                let place = if kind == b'L' { &mut before.long_path } else { &mut before.long_link };
                if place.replace(text).is_some() {
                    return Err(at_header(input, &header, EntryFault::Header("there are two of them")));
                }
            }
            // The label of a volume names nothing.
            b'V' if before.is_empty() => {}
            _ => member(input, &header, (std::mem::take(&mut before), &global), &mut members)?,
        }
    }
    if !before.is_empty() {
        return Err(input.damaged("an extended header speaks of nothing"));
    }
    Ok(members)
}

/// The next block that is no end marker; `None` at the end, which has to be marked.
fn next_header(input: &mut dyn Input) -> Result<Option<Block>, ArchiveError> {
    let empty = |block: &Block| block.iter().all(|&byte| byte == 0);
    let Some(block) = input.block()? else { return Err(input.damaged("it ends without an end marker")) };
    if !empty(&block) {
        return Ok(Some(block));
    }
    match input.block()? {
        // One empty block at the very end is what some writers leave.
        None => Ok(None),
        Some(second) if empty(&second) => Ok(None),
        Some(_) => Err(input.damaged("something follows half an end marker")),
    }
}

/// The data of an extended header.
fn data(input: &mut dyn Input, size: u64, limits: &Limits, header: &Header<'_>) -> Result<Vec<u8>, ArchiveError> {
    if size > limits.archive_header_bytes_max {
        return Err(at_header(input, header, EntryFault::Header("it is too long")));
    }
    let mut data = Vec::new();
    while (data.len() as u64) < size {
        let block = input.block()?.ok_or_else(|| input.damaged("an extended header ends early"))?;
        let rest = (size - data.len() as u64).min(BLOCK_BYTES as u64) as usize;
        data.extend_from_slice(&block[..rest]);
    }
    Ok(data)
}

/// What is said of all entries may only be what one of them could say otherwise without changing how the archive is
/// read.
fn global_header(extended: Extended) -> Result<Extended, EntryFault> {
    let Extended { path, link, size, sparse, .. } = &extended;
    if path.is_some() || link.is_some() || size.is_some() || *sparse {
        return Err(EntryFault::Header("it speaks of the path, link or size of all entries"));
    }
    Ok(extended)
}

fn at_header(input: &dyn Input, header: &Header<'_>, fault: EntryFault) -> ArchiveError {
    ArchiveError::Entry { place: input.place().to_owned(), entry: named(&header.path()), fault }
}

/// A path for people, whatever its bytes are.
fn named(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

/// Takes one entry, and its content.
fn member(
    input: &mut dyn Input,
    header: &Header<'_>,
    (before, global): (Before, &Extended),
    members: &mut Members<'_>,
) -> Result<(), ArchiveError> {
    let told = match before.extended.as_ref().and_then(|extended| extended.path.clone()).or(before.long_path.clone()) {
        Some(path) => path,
        None => header.path(),
    };
    let place = input.place().to_owned();
    let refuse = |fault| ArchiveError::Entry { place: place.clone(), entry: named(&told), fault };
    let extended = before.extended.clone().unwrap_or_default();
    if extended.sparse {
        return Err(refuse(EntryFault::Sparse));
    }
    let path = agreed(header.path(), before.long_path, extended.path.clone(), "path").map_err(refuse)?;
    let link = agreed(header.link(), before.long_link, extended.link.clone(), "link target").map_err(refuse)?;
    let size = agreed_size(header.size().map_err(refuse)?, extended.size).map_err(refuse)?;
    let is_named_folder = path.ends_with(b"/");
    let path = checked(&path).map_err(|error| refuse(EntryFault::Path(error)))?;
    let kind = match header.kind() {
        b'0' | 0 | b'7' if is_named_folder && size == 0 => StoredKind::Directory,
        b'0' | 0 | b'7' if is_named_folder => return Err(refuse(EntryFault::Disagrees("kind"))),
        b'0' | 0 | b'7' => StoredKind::File { at: 0 },
        b'5' => StoredKind::Directory,
        b'2' => StoredKind::Symlink(link),
        b'1' => StoredKind::HardLink(link),
        b'S' => return Err(refuse(EntryFault::Sparse)),
        special @ (b'3' | b'4' | b'6') => {
            let what = if special == b'6' { "FIFO" } else { "device node" };
            return members.special(&path, what).map_err(refuse);
        }
        other => return Err(refuse(EntryFault::Kind(other.escape_ascii().to_string()))),
    };
    let is_file = matches!(kind, StoredKind::File { .. });
    if size > 0 && !is_file {
        return Err(refuse(EntryFault::Content));
    }
    let own = || Ok(Mtime { seconds: header.mtime()?, nanoseconds: 0 });
    let mut stored = Stored {
        kind,
        mode: header.mode().map_err(refuse)?,
        uid: extended.uid.or(global.uid).map_or_else(|| header.uid(), Ok).map_err(refuse)?,
        gid: extended.gid.or(global.gid).map_or_else(|| header.gid(), Ok).map_err(refuse)?,
        mtime: extended.mtime.or(global.mtime).map_or_else(own, Ok).map_err(refuse)?,
        size,
    };
    // Judged first, so that no content of what is refused is kept.
    members.judge(&path, &stored).map_err(|fault| at_member(&place, &path, fault))?;
    if is_file {
        stored.kind = StoredKind::File { at: input.content(size)? };
    }
    members.add(path, stored, input.place())
}

fn at_member(place: &str, path: &EntryPath, fault: EntryFault) -> ArchiveError {
    ArchiveError::Entry { place: place.to_owned(), entry: path.to_string(), fault }
}

/// What holds of the header's own text and those of the extended headers. Where the header's own has room for the whole,
/// another text is a contradiction that two readers would solve in two ways.
fn agreed(
    own: Vec<u8>,
    long: Option<Vec<u8>>,
    extended: Option<Vec<u8>>,
    what: &'static str,
) -> Result<Vec<u8>, EntryFault> {
    if let (Some(long), Some(extended)) = (&long, &extended)
        && long != extended
    {
        return Err(EntryFault::Disagrees(what));
    }
    let Some(told) = long.or(extended) else { return Ok(own) };
    if told != own && told.len() <= 100 && told.is_ascii() {
        return Err(EntryFault::Disagrees(what));
    }
    Ok(told)
}

fn agreed_size(own: u64, extended: Option<u64>) -> Result<u64, EntryFault> {
    match extended {
        Some(told) if told != own && told <= OCTAL_SIZE_MAX => Err(EntryFault::Disagrees("size")),
        Some(told) => Ok(told),
        None => Ok(own),
    }
}

/// The path that the bytes say, without what makes no difference: `./` and doubled slashes.
pub(super) fn checked(bytes: &[u8]) -> Result<EntryPath, PathError> {
    if bytes.first() == Some(&b'/') {
        return Err(PathError::Absolute);
    }
    if bytes.is_empty() {
        return Err(PathError::Component);
    }
    let parts: Vec<&[u8]> = bytes.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    EntryPath::from_bytes(&parts.join(&b'/'))
}
