//! Holds ARCHITECTURE.md to its word: a module uses only modules above it, and pure modules touch neither the network
//! nor the disk, the clock or the system's randomness.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The layers from the top down. A module may use those in the rows above its own, and itself.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["name", "id", "limits", "codec"],
    &["schedule"],
    &["model"],
    &["security"],
    &["package"],
    &["protocol"],
    &["extract"],
    &["store"],
    &["transport"],
    &["node"],
    &["distributor", "subscriber"],
    &["lib"],
];

/// Modules that may use each other within their row.
const NEIGHBOURS: &[&str] = &["name", "id", "limits", "codec"];

const PURE: &[&str] =
    &["error", "name", "id", "limits", "codec", "model", "schedule", "security", "package", "protocol"];

/// Paths that a pure module never names, its tests included.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "quinn",
    "socket2",
    "sled",
    "cap_std",
    "cap_fs_ext",
    "rustix",
    "tempfile",
    "std::fs",
    "std::env",
    "std::process",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::os::unix",
    "std::time::SystemTime",
    "std::time::Instant",
    "SystemTime",
    "OffsetDateTime::now_utc",
    "time::OffsetDateTime::now_utc",
    "Instant",
    "Timestamp::now",
    "Zoned::now",
    "TimeZone::get",
    "TimeZone::system",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "jiff::tz::db",
    "jiff::tz::TimeZone::get",
    "jiff::tz::TimeZone::system",
    "getrandom",
    "rand",
    "rand_core",
    "aws_lc_rs::rand",
    "SystemRandom",
];

/// The implementation of `trait Crypto`, the one pure file that may ask the system for randomness.
const RANDOMNESS: &str = "security/aws_lc.rs";

#[test]
fn every_module_uses_only_what_stands_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    for path in rust_files(&source) {
        let relative = path.strip_prefix(&source).expect("below the sources").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("readable");
        violations.extend(judge(&relative, &text));
    }
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn planted_violations_are_found() {
    for (file, text) in [
        ("package/root.rs", "use crate::store::Depot;"),
        ("package/root.rs", "use crate::{id::Hash, store::{Depot, Catalog}};"),
        ("package/root.rs", "use crate::{\n    id::Hash,\n    transport,\n};"),
        ("package/deep/file.rs", "use super::super::super::store::Depot;"),
        ("package/mod.rs", "use super::store::Depot;"),
        ("package/root.rs", "fn f() -> crate::protocol::Fetch { todo() }"),
        ("package/root.rs", "use crate as ted; use ted_core::store::Depot;"),
        ("package/root.rs", "#[cfg(test)] mod tests { use crate::subscriber::Run; }"),
        ("distributor/run.rs", "use crate::subscriber::Run;"),
        ("store/mod.rs", "use crate::Error;\nuse crate::transport::Connection;"),
        ("unknown/mod.rs", ""),
        ("protocol/mod.rs", "use std::{io, fs::File};"),
        ("protocol/mod.rs", "use std::time::{Duration, Instant};"),
        ("protocol/mod.rs", "fn f() { let t = std::time::SystemTime::now(); }"),
        ("protocol/mod.rs", "use std::net::{IpAddr, UdpSocket};"),
        ("model/mod.rs", "#[tokio::test]\nasync fn f() {}"),
        ("name.rs", "use sled::Db;"),
        ("schedule/mod.rs", "use crate::model::Fleet;"),
        ("schedule/zone.rs", "fn f() { jiff::Timestamp::now() }"),
        ("schedule/zone.rs", "use jiff::tz::TimeZone; fn f() { TimeZone::system() }"),
        ("codec.rs", "use r#std::fs;"),
        ("security/judge.rs", "use aws_lc_rs::rand::SystemRandom;"),
    ] {
        assert!(!judge(file, text).is_empty(), "{file} may not say: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    for (file, text) in [
        ("store/mod.rs", "use crate::package::Root;\nuse std::fs::File;\nuse sled::Db;"),
        ("package/root.rs", "use crate::{id::Hash, limits::Limits};\nuse std::net::IpAddr;"),
        ("package/root.rs", "// use crate::store::Depot\n/* tokio::spawn /* std::fs */ */ fn f() {}"),
        ("package/root.rs", "const TEXT: &str = \"crate::store std::fs\\\" tokio::x\"; const C: char = '\"';"),
        ("package/root.rs", "const TEXT: &str = r#\"crate::store \" tokio::x\"#; fn f<'a>(x: &'a str) {}"),
        ("package/deep/file.rs", "use super::super::entry::Entry; use super::sibling::X;"),
        ("security/aws_lc.rs", "use aws_lc_rs::rand::SystemRandom;"),
        ("id.rs", "use crate::error::Coded; use crate::name::NodeName;"),
        ("package/root.rs", "#[cfg(test)] mod tests { use super::*; use super::super::table::TableRow; }"),
        ("lib.rs", "pub mod store; pub use store::Depot;"),
    ] {
        assert_eq!(judge(file, text), Vec::<String>::new(), "{file} may say: {text}");
    }
}

/// What is wrong with the file `relative` to the source folder.
fn judge(relative: &str, text: &str) -> Vec<String> {
    let module = relative.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let Some(layer) = layer_of(module) else {
        return vec![format!("{relative}: `{module}` has no layer yet: give it one in tests/layering.rs")];
    };
    let mut violations = BTreeSet::new();
    for path in named_paths(text) {
        if let Some(used) = used_module(&path, relative) {
            let used_layer = layer_of(&used);
            let neighbour = NEIGHBOURS.contains(&module) && NEIGHBOURS.contains(&used.as_str());
            let runs_up = used_layer.is_some_and(|used_layer| used_layer >= layer);
            if used != module && runs_up && !neighbour {
                violations.insert(format!("{relative}: `{module}` uses `{used}`, which does not stand above it"));
            }
        }
        if PURE.contains(&module) {
            let bare = path.strip_prefix("::").unwrap_or(&path);
            for impure in IMPURE {
                let allowed = relative == RANDOMNESS && matches!(*impure, "aws_lc_rs::rand" | "SystemRandom");
                let named = bare == *impure || bare.strip_prefix(impure).is_some_and(|rest| rest.starts_with("::"));
                // A lone word is only a violation as the first of a path or as an imported or called type.
                if named && !allowed && (bare.contains("::") || impure.starts_with(char::is_uppercase)) {
                    violations.insert(format!("{relative}: `{module}` is pure and names `{bare}`"));
                }
            }
        }
    }
    violations.into_iter().collect()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The module of this crate that `path` leads into, if it leads to one from the file `relative`.
fn used_module(path: &str, relative: &str) -> Option<String> {
    let mut parts = path.split("::");
    let first = parts.next()?;
    if matches!(first, "crate" | "ted_core") {
        return parts.next().filter(|module| layer_of(module).is_some()).map(str::to_owned);
    }
    if first != "super" {
        return None;
    }
    // `super` of `a/b.rs` is `a`; of `a/mod.rs` and `a.rs` it is the crate's root. Modules inside a file go one deeper,
    // which makes this count err towards reporting, except for names that are no module of the crate's root.
    let file_depth = relative.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let ups = 1 + parts.clone().take_while(|part| *part == "super").count();
    let target = parts.find(|part| *part != "super")?;
    (ups >= file_depth && layer_of(target).is_some()).then(|| target.to_owned())
}

/// Every path that the code names, groups written out: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
fn named_paths(text: &str) -> Vec<String> {
    let tokens = tokens(&without_comments_and_texts(text));
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_word(&tokens[at]) && (at == 0 || tokens[at - 1] != "::") {
            at = read_path(&tokens, at, "", &mut paths);
        } else {
            at += 1;
        }
    }
    paths
}

/// Reads one path or group that begins at `at` and returns where it ends.
fn read_path(tokens: &[String], mut at: usize, prefix: &str, paths: &mut Vec<String>) -> usize {
    let mut path = prefix.to_owned();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    at = if is_word(&tokens[at]) || tokens[at] == "{" {
                        read_path(tokens, at, &path, paths)
                    } else {
                        at + 1
                    };
                }
                return at + 1;
            }
            Some(word) if is_word(word) => {
                if !path.is_empty() {
                    path.push_str("::");
                }
                path.push_str(word.trim_start_matches("r#"));
                at += 1;
            }
            _ => return at,
        }
        if tokens.get(at).map(String::as_str) == Some("::") {
            at += 1;
            let goes_on = tokens.get(at).is_some_and(|next| is_word(next) || next == "{");
            if goes_on {
                continue;
            }
        }
        paths.push(path);
        return at;
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphanumeric() || first == '_')
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if let Some(word) = rest.strip_prefix("r#") {
            2 + word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len())
        } else if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !token.trim().is_empty() {
            tokens.push(token.to_owned());
        }
        rest = after;
    }
    tokens
}

/// The code with comments and texts blanked out.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skip_comment(rest).or_else(|| skip_raw_text(rest)).or_else(|| skip_text(rest));
        match skipped {
            Some(length) => {
                code.push(' ');
                rest = &rest[length..];
            }
            // A word is taken whole, so that the `r` at its end begins no raw text.
            None if first.is_alphanumeric() || first == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                code.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            None => {
                code.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    code
}

fn skip_comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

fn skip_raw_text(rest: &str) -> Option<usize> {
    let after = ["br", "cr", "r"].iter().find_map(|start| rest.strip_prefix(start))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].strip_prefix('"')?;
    let begin = rest.len() - after.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest[begin..].find(&end).map_or(rest.len(), |found| begin + found + end.len()))
}

fn skip_text(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let quote = bytes[0];
    // `'a` is a lifetime; `'a'`, `'\n'` and `'ä'` are characters.
    if quote == b'\'' {
        let mut inner = rest[1..].chars();
        let first = inner.next()?;
        if first != '\\' && inner.next() != Some('\'') {
            return None;
        }
    } else if quote != b'"' {
        return None;
    }
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    Some((at + 1).min(rest.len()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}
