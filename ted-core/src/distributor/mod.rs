//! The Distributor: what drives builds and sends.

mod source;
mod walk;

pub use source::{Exclude, FolderSource, Unreadable};
