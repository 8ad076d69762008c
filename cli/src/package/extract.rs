//! `package extract`.

use std::sync::atomic::AtomicBool;

use ted_core::extract::{
    Contents, Create, ExtractJob, ExtractOptions, ExtractPhase, ExtractProgress, Links, Recovery, Target,
    extract as extract_to,
};
use ted_core::package::BodyReader;

use super::open::{KeyFinder, PackageFile, Trust};
use super::view::Extraction;
use super::{ExtractArgs, LinkChoice};
use crate::error::{ApiError, code, from_library};
use crate::progress::Progress;

pub(super) fn extract(args: &ExtractArgs, keys: &KeyFinder<'_>, progress: &Progress) -> Result<Extraction, ApiError> {
    let trust = match (&args.certificate, args.unverified_origin) {
        (Some(certificate), _) => Trust::from_file(certificate)?,
        (None, true) => Trust::Nobody,
        (None, false) => {
            return Err(ApiError::new(code::ORIGIN_UNKNOWN, "without a certificate nobody vouches for the package"));
        }
    };
    let package = PackageFile::open(&args.file, &trust, keys)?;
    let index = package.opened()?;
    let to = std::path::absolute(&args.to)
        .map_err(|error| ApiError::new(code::FILE, format!("{}: {error}", args.to.display())))?;
    let target = Target::open(&to, Create::Missing).map_err(from_library)?;
    let options = ExtractOptions {
        links: match args.links {
            LinkChoice::Any => Links::Any,
            LinkChoice::Inside => Links::Inside,
        },
        ..ExtractOptions::default()
    };
    let root = index.root();
    let body = BodyReader::new(index.clone(), &package.file);
    let job = ExtractJob {
        rows: index.catalog(),
        contents: Contents::Frames(&body),
        previous: None,
        distribution: root.distribution,
        revision: root.revision,
        options: &options,
        recovered: Recovery::Nothing,
    };
    let show = |at: ExtractProgress| {
        if at.phase == ExtractPhase::Staging {
            progress.set("extract", at.bytes, at.bytes_total);
        }
    };
    let done = extract_to(&target, &job, &show, &AtomicBool::new(false)).map_err(from_library)?;
    progress.clear();
    Ok(Extraction {
        target: to.display().to_string(),
        revision: root.revision.number(),
        files_written: done.files_written,
        bytes_written: done.bytes_written,
        links_made: done.links_made,
        folders_made: done.folders_made,
        unchanged: done.unchanged,
        recovered: done.recovered != Recovery::Nothing,
        origin: package.origin,
    })
}
