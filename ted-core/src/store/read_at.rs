//! Reading a file from any place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::package::ReadAt;

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }
}
