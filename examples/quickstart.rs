//! Delivers a folder on loopback.
fn main() {}
