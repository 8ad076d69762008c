//! The rules of identity and trust, each test named after the one it proves, with real nodes over loopback.

mod names;
mod no_going_back;
mod replace;
mod rotation;
#[path = "../support/mod.rs"]
mod support;
