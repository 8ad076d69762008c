//! `.gitignore` files, read as git reads them. The only user of the crate `ignore`.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::OFlags;

use crate::limits::Limits;
use crate::package::EntryPath;

const NAME: &str = ".gitignore";

/// Git's own folder, which git never takes for content.
const REPOSITORY: &[u8] = b".git";

/// The patterns that hold in a folder: those of its own `.gitignore`, then those of the folders above.
#[derive(Debug)]
pub(super) struct Ignored {
    /// Where the file lies, below the source.
    folder: EntryPath,
    patterns: Gitignore,
    above: Option<Arc<Ignored>>,
}

impl Ignored {
    /// What holds in `folder`, which lies at `place`, and below it.
    ///
    /// # Errors
    /// When a `.gitignore` is there that cannot be read: leaving out nothing could give away what it names.
    pub(super) fn at(folder: &EntryPath, place: &Path, above: Option<Arc<Self>>) -> io::Result<Option<Arc<Self>>> {
        let Some(text) = read(&place.join(NAME))? else { return Ok(above) };
        let mut builder = GitignoreBuilder::new("");
        for line in String::from_utf8_lossy(&text).lines() {
            // As with git, a line that is no pattern names nothing.
            if let Err(error) = builder.add_line(None, line) {
                tracing::warn!(folder = %folder, line, %error, "a line of a .gitignore is no pattern");
            }
        }
        let patterns = builder.build().map_err(io::Error::other)?;
        Ok(Some(Arc::new(Self { folder: folder.clone(), patterns, above })))
    }

    /// Whether git would leave `path` out. It lies directly in the folder that this holds in, or below that.
    pub(super) fn leaves_out(&self, path: &EntryPath, is_folder: bool) -> bool {
        let prefix = if self.folder.is_root() { 0 } else { self.folder.as_bytes().len() + 1 };
        let within = Path::new(OsStr::from_bytes(path.as_bytes().get(prefix..).unwrap_or_default()));
        match self.patterns.matched(within, is_folder) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => self.above.as_ref().is_some_and(|above| above.leaves_out(path, is_folder)),
        }
    }
}

/// Whether the name is that of git's own folder or of the file that stands for it in a linked work tree.
pub(super) fn is_repository(path: &EntryPath) -> bool {
    path.file_name() == Some(REPOSITORY)
}

/// The text of the file; `None` where there is none that git would read, which a symlink is not.
fn read(place: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(place);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let (mut text, limit) = (Vec::new(), Limits::DEFAULT.gitignore_bytes_max);
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
    }
    Ok(Some(text))
}
