//! A tree to deliver where none was named: text that compresses, noise that does not, links and odd names.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Makes the tree at `root`, about 100 MB in 2,000 files.
pub(crate) fn make(root: &Path) -> io::Result<PathBuf> {
    for folder in 0..20 {
        let folder = root.join(format!("folder-{folder:02}"));
        fs::create_dir_all(folder.join("empty"))?;
        for file in 0..100 {
            let text = format!("{} line {file}\n", folder.display()).repeat(50 + file * 3);
            fs::write(folder.join(format!("text-{file:03}.txt")), text)?;
        }
        symlink("text-000.txt", folder.join("latest"))?;
        fs::hard_link(folder.join("text-001.txt"), folder.join("text-001.again"))?;
    }
    fs::write(root.join(OsStr::from_bytes(b"not \xff UTF-8")), b"a name is bytes")?;
    let mut noise = blake3::Hasher::new().update(b"ted quickstart").finalize_xof();
    let mut large = io::BufWriter::new(fs::File::create(root.join("noise.bin"))?);
    let mut block = vec![0; 1 << 20];
    for _ in 0..64 {
        noise.fill(&mut block);
        large.write_all(&block)?;
    }
    large.flush()?;
    Ok(root.to_path_buf())
}
