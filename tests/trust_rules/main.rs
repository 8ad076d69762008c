//! The rules of identity and trust, each test named after the one it proves, with real nodes over loopback.

mod names;
mod rotation;
#[path = "../support/mod.rs"]
mod support;
