//! Tiered Electronic Distribution: trees of files from one place to thousands, provably intact.

pub mod codec;
pub mod error;
pub mod id;
pub mod limits;
pub mod model;
pub mod name;
pub mod package;
pub mod security;
pub mod store;
pub mod transport;
