//! What lies on disk: catalog, package files, data directory.

mod read_at;
