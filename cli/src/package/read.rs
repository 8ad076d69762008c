//! `package inspect`, `ls`, `verify` and `cat`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use ted_core::package::{
    AnyIndex, Asked, BlindIndex, BodyDigest, BodyReader, CatalogRow, EntryKind, EntryPath, PackageKind, RawFrames as _,
    Suite, verify_body, verify_frames,
};

use super::open::PackageFile;
use super::view::{DigestView, EntryView, Inspection, Listing, Verification};
use crate::error::{ApiError, code};
use crate::output::{self, Reader};
use crate::progress::Progress;
use crate::units::Time;

pub(super) fn inspect(package: &PackageFile) -> Inspection {
    let (index, opened) = (package.index.blind(), package.index.opened().ok());
    let root = index.root();
    let (disclosure, base) = match &package.index {
        AnyIndex::Opened(opened) => (Some(opened.disclosure()), None),
        AnyIndex::Delta(delta) => (Some(delta.disclosure()), Some(delta.base_content())),
        AnyIndex::Blind(_) => (None, None),
    };
    Inspection {
        package: index.id().to_string(),
        distribution: disclosure.map(|known| known.distribution_name.to_string()),
        distribution_id: root.distribution.to_string(),
        revision: root.revision.number(),
        created: Time(root.created),
        kind: match root.kind {
            PackageKind::Baseline => "baseline".to_owned(),
            PackageKind::Delta { base } => format!("delta from {base}"),
        },
        sealed: match root.suite {
            Suite::None => "no".to_owned(),
            Suite::Aes256Gcm { .. } => "AES-256-GCM".to_owned(),
        },
        opened: disclosure.is_some(),
        base_content: base.map(|content| content.to_string()),
        content: disclosure.map(|known| known.content.to_string()),
        asks: opened.map(|opened| asks(&Asked::of(opened.catalog()))).unwrap_or_default(),
        entries: disclosure.map(|known| known.entries),
        content_bytes: opened.map(|opened| opened.catalog().iter().map(|row| row.entry.size).sum()),
        package_bytes: index.bytes(),
        body_frames: index.body_frames(),
        level: root.level,
        digest: digest(index),
        signed_with: package.signer.serial_hex(),
        signer_until: Time(package.signer.not_after()),
        distributor_key: root.distributor.to_string(),
        origin: package.origin.clone(),
    }
}

fn asks(asked: &Asked) -> Vec<String> {
    let words = [(asked.owners.is_some(), "owners"), (asked.privileged, "privileged")];
    words.into_iter().filter(|(asked, _)| *asked).map(|(_, word)| word.to_owned()).collect()
}

pub(super) fn list(package: &PackageFile) -> Result<Listing, ApiError> {
    Ok(Listing { entries: package.opened()?.catalog().iter().map(|row| EntryView::of(&row.entry)).collect() })
}

pub(super) fn verify(package: &PackageFile, progress: &Progress) -> Result<Verification, ApiError> {
    let started = Instant::now();
    let index = package.index.blind();
    let root = index.root();
    let show = |at: ted_core::package::VerifyProgress| {
        let done = u128::from(root.body_bytes) * u128::from(at.frames) / u128::from(at.frames_total.max(1));
        progress.set("verify", done as u64, root.body_bytes);
    };
    match &package.index {
        AnyIndex::Opened(opened) => verify_body(opened, &package.file, threads(), &show)?,
        AnyIndex::Delta(delta) => verify_frames(delta.blind(), &package.file, threads(), &show)?,
        AnyIndex::Blind(blind) => verify_frames(blind, &package.file, threads(), &show)?,
    }
    progress.clear();
    Ok(Verification {
        package: index.id().to_string(),
        revision: root.revision.number(),
        opened: !matches!(package.index, AnyIndex::Blind(_)),
        delta: matches!(root.kind, PackageKind::Delta { .. }),
        entries: package.index.opened().ok().map(|opened| opened.catalog().len() as u64),
        package_bytes: index.bytes(),
        frames: index.rows().len() as u64,
        digest: digest(index),
        milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        origin: package.origin.clone(),
    })
}

pub(super) fn cat(package: &PackageFile, path: &OsStr) -> Result<(), ApiError> {
    let index = package.opened()?;
    let row = find(index.catalog(), path)?;
    let reader = BodyReader::new(index.clone(), &package.file);
    let (mut at, end) = (row.offset, row.offset + row.entry.size);
    let mut raw = Vec::new();
    while at < end {
        let frame = index.frame_at(at).ok_or_else(|| no_such(path, "its content lies outside the body"))?;
        let range = index.raw_range(frame);
        reader.read_raw(frame, &mut raw)?;
        let until = end.min(range.end);
        let wanted = raw.get((at - range.start) as usize..(until - range.start) as usize).unwrap_or_default();
        if output::write_more(wanted)? == Reader::Gone {
            return Ok(());
        }
        at = until;
    }
    Ok(())
}

/// The row that has the content of what `path` names. Hard links lead to it, symbolic links do not.
fn find<'a>(catalog: &'a [CatalogRow], path: &OsStr) -> Result<&'a CatalogRow, ApiError> {
    let bytes = path.as_bytes();
    let bytes = bytes.strip_prefix(b"./").unwrap_or(bytes);
    let wanted = EntryPath::from_bytes(bytes).map_err(|error| no_such(path, &error.to_string()))?;
    let row = lookup(catalog, &wanted).ok_or_else(|| no_such(path, "the package does not hold it"))?;
    let row = match row.entry.kind {
        EntryKind::HardLink => EntryPath::from_bytes(&row.entry.link)
            .ok()
            .and_then(|first| lookup(catalog, &first))
            .ok_or_else(|| no_such(path, "it is a hard link to what the package does not hold"))?,
        _ => row,
    };
    match row.entry.kind {
        EntryKind::File => Ok(row),
        EntryKind::Directory => Err(no_such(path, "it is a folder")),
        EntryKind::Symlink | EntryKind::HardLink => {
            let target = String::from_utf8_lossy(&row.entry.link);
            Err(no_such(path, &format!("it is a symbolic link to `{target}`, which is not followed")))
        }
    }
}

fn lookup<'a>(catalog: &'a [CatalogRow], path: &EntryPath) -> Option<&'a CatalogRow> {
    catalog.binary_search_by(|row| row.entry.path.cmp(path)).ok().map(|place| &catalog[place])
}

fn no_such(path: &OsStr, reason: &str) -> ApiError {
    ApiError::new(code::NO_SUCH_ENTRY, format!("`{}` cannot be printed: {reason}", path.display()))
}

fn digest(index: &BlindIndex) -> Option<DigestView> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (algorithm, hex) = match &index.root().digest {
        BodyDigest::None => return None,
        BodyDigest::Md5(bytes) => ("md5", hex(bytes)),
        BodyDigest::Blake3(hash) => ("blake3", hash.to_string()),
    };
    let range = index.body_range();
    Some(DigestView { algorithm: algorithm.to_owned(), hex, from: range.start, bytes: range.end - range.start })
}

pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
