//! Packages as others see them: `tar` and `zstd`, and a second reader written from `docs/format.md` alone.

mod python;
mod support;
mod tar;
