//! Tiered Electronic Distribution: trees of files from one place to thousands, provably intact.

pub mod codec;
pub mod distributor;
pub mod error;
pub mod extract;
pub mod id;
pub mod limits;
pub mod model;
pub mod name;
pub mod package;
pub mod protocol;
pub mod security;
pub mod store;
