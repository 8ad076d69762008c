//! Where a Distribution's files come from, as text that people write.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One place that files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourcePlace {
    /// A folder: an absolute path. Written as it is.
    Folder(String),
    /// A tar file, perhaps compressed with gzip or zstd: an absolute path. Written `tar:/PATH`.
    Tar(String),
    /// What a web server gives: one file. Written as the URL, `http://…` or `https://…`.
    Url(String),
    /// A tar file that a web server gives, perhaps compressed. Written `tar+http://…` or `tar+https://…`.
    TarUrl(String),
    /// A tar file that is fed to each build on standard input. Written `-`.
    Input,
}

impl SourcePlace {
    fn parse(text: &str) -> Self {
        let url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        if text == "-" {
            return Self::Input;
        }
        if let Some(path) = text.strip_prefix("tar:") {
            return Self::Tar(path.to_owned());
        }
        match text.strip_prefix("tar+") {
            Some(inner) if url(inner) => Self::TarUrl(inner.to_owned()),
            _ if url(text) => Self::Url(text.to_owned()),
            _ => Self::Folder(text.to_owned()),
        }
    }

    /// Whether `text` can only be a place, and not `PREFIX=PLACE`.
    fn is_bare(text: &str) -> bool {
        let starts = ["/", "./", "../", "tar:", "http://", "https://", "tar+http://", "tar+https://"];
        text == "-" || starts.iter().any(|start| text.starts_with(start))
    }

    /// The URL, of a place that is fetched.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Url(url) | Self::TarUrl(url) => Some(url),
            _ => None,
        }
    }
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) | Self::Url(path) => f.write_str(path),
            Self::Tar(path) => write!(f, "tar:{path}"),
            Self::TarUrl(url) => write!(f, "tar+{url}"),
            Self::Input => f.write_str("-"),
        }
    }
}

/// A SHA-256 hash, which other tools print of a file; 64 hex digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The hash with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| format!("`{text}` is no SHA-256: 64 hex digits"))?;
        Ok(Self(bytes))
    }
}

/// One source of a Distribution: a place, the folder that its files go to, and what is expected of what is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// The folder in the Distribution that it fills; empty for all of it. Components joined by `/`.
    pub prefix: String,
    /// Where its files come from.
    pub place: SourcePlace,
    /// What is fetched has this hash, or is refused.
    pub sha256: Option<Sha256>,
    /// What is fetched has this many bytes, or is refused.
    pub size: Option<u64>,
    /// The certificates, a PEM file with an absolute path, that a server is judged by, instead of the system's.
    pub ca: Option<String>,
}

impl SourceSpec {
    /// The source that `text` spells: `PLACE` or `PREFIX=PLACE`. What cannot work is found by the fleet's check.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (prefix, place) = match text.split_once('=') {
            Some((prefix, place)) if !SourcePlace::is_bare(text) => (prefix, place),
            _ => ("", text),
        };
        let place = SourcePlace::parse(place);
        Self { prefix: prefix.to_owned(), place, sha256: None, size: None, ca: None }
    }

    /// The same with a path that is not absolute taken from the folder `here`.
    #[must_use]
    pub fn seen_from(mut self, here: &Path) -> Self {
        if let SourcePlace::Folder(path) | SourcePlace::Tar(path) = &mut self.place {
            let joined = std::path::absolute(here.join(&*path)).unwrap_or_else(|_| here.join(&*path));
            // The folder that is meant is known; only text that is UTF-8 came here, and from `here` what is said aloud.
            *path = joined.to_string_lossy().into_owned();
        }
        self
    }

    fn written(&self) -> String {
        let Self { prefix, place, .. } = self;
        if prefix.is_empty() { place.to_string() } else { format!("{prefix}={place}") }
    }

    fn is_plain(&self) -> bool {
        self.sha256.is_none() && self.size.is_none() && self.ca.is_none()
    }

    fn check(&self) -> Result<(), String> {
        let component = |component: &str| !matches!(component, "" | "." | "..");
        if !self.prefix.is_empty() && (self.prefix.contains('\0') || !self.prefix.split('/').all(component)) {
            return Err(format!("the prefix `{}` is no folder below the Distribution's own", self.prefix));
        }
        match &self.place {
            SourcePlace::Folder(path) | SourcePlace::Tar(path) => absolute(path)?,
            SourcePlace::Url(url) | SourcePlace::TarUrl(url) => check_url(url)?,
            SourcePlace::Input => {}
        }
        if self.place.url().is_none() && !self.is_plain() {
            return Err(format!("`{}` is not fetched, so that nothing can be expected of it", self.place));
        }
        self.ca.as_deref().map_or(Ok(()), absolute)
    }
}

/// As it is written, and what is expected behind it in parentheses.
impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written())?;
        let sha256 = self.sha256.map(|hash| format!("SHA-256 {hash}"));
        let size = self.size.map(|size| format!("{size} bytes"));
        let ca = self.ca.as_ref().map(|ca| format!("judged by {ca}"));
        let expected: Vec<_> = [sha256, size, ca].into_iter().flatten().collect();
        if expected.is_empty() { Ok(()) } else { write!(f, " ({})", expected.join(", ")) }
    }
}

/// Where all files of a Distribution come from: one source or several, each below its own prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(Vec<SourceSpec>);

impl Sources {
    /// These sources, in their order.
    #[must_use]
    pub fn new(sources: Vec<SourceSpec>) -> Self {
        Self(sources)
    }

    /// Each of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &SourceSpec> {
        self.0.iter()
    }

    /// Whether each build has to be fed on standard input.
    #[must_use]
    pub fn is_input(&self) -> bool {
        self.0.iter().any(|source| source.place == SourcePlace::Input)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.0.is_empty() {
            return Err("names nothing".to_owned());
        }
        if self.is_input() && self.0.len() > 1 {
            return Err("`-` stands alone: a build is fed with all of a Distribution".to_owned());
        }
        self.0.iter().try_for_each(SourceSpec::check)
    }
}

impl From<&str> for Sources {
    fn from(text: &str) -> Self {
        Self(vec![SourceSpec::parse(text)])
    }
}

impl From<String> for Sources {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, source) in self.0.iter().enumerate() {
            write!(f, "{}{source}", if number > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

fn absolute(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("`{path}` is not an absolute path"));
    }
    if path.contains('\0') { Err("holds a NUL byte".to_owned()) } else { Ok(()) }
}

fn check_url(url: &str) -> Result<(), String> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("`{}` is no URL", url.escape_debug()));
    }
    if authority.contains('@') {
        return Err("a URL with a password in it would be shown to everyone who may see the fleet".to_owned());
    }
    if url.contains('#') { Err(format!("`{url}` has a fragment, which no server sees")) } else { Ok(()) }
}

/// The text form with expectations, as a table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

impl Serialize for SourceSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_plain() {
            return serializer.serialize_str(&self.written());
        }
        let sha256 = self.sha256.map(|hash| hash.to_string());
        Table { from: self.written(), sha256, size: self.size, ca: self.ca.clone() }.serialize(serializer)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = SourceSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source as text, or a table with `from`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SourceSpec, E> {
        Ok(SourceSpec::parse(text))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SourceSpec, A::Error> {
        let Table { from, sha256, size, ca } = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let sha256 = sha256.map(|text| text.parse()).transpose().map_err(de::Error::custom)?;
        Ok(SourceSpec { sha256, size, ca, ..SourceSpec::parse(&from) })
    }
}

impl<'de> Deserialize<'de> for SourceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpecVisitor)
    }
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => only.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Sources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source as text, a table with `from`, or a list of these")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sources, E> {
                Ok(Sources::from(text))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Sources, A::Error> {
                Ok(Sources(vec![SpecVisitor.visit_map(map)?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sources, A::Error> {
                let mut all = Vec::new();
                while let Some(source) = seq.next_element()? {
                    all.push(source);
                }
                Ok(Sources(all))
            }
        }
        deserializer.deserialize_any(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_place_is_read_as_it_is_written() {
        for (text, prefix, place) in [
            ("/srv/a=b", "", SourcePlace::Folder("/srv/a=b".to_owned())),
            ("docs=/srv/docs", "docs", SourcePlace::Folder("/srv/docs".to_owned())),
            ("tar:/srv/site.tar.zst", "", SourcePlace::Tar("/srv/site.tar.zst".to_owned())),
            ("usr/bin=tar:/srv/b=c.tar", "usr/bin", SourcePlace::Tar("/srv/b=c.tar".to_owned())),
            ("https://a.example/x?y=z", "", SourcePlace::Url("https://a.example/x?y=z".to_owned())),
            ("bin=http://a.example/x", "bin", SourcePlace::Url("http://a.example/x".to_owned())),
            ("tar+https://a.example/x.tgz", "", SourcePlace::TarUrl("https://a.example/x.tgz".to_owned())),
            ("-", "", SourcePlace::Input),
        ] {
            let source = SourceSpec::parse(text);
            assert_eq!((source.prefix.as_str(), &source.place), (prefix, &place), "{text}");
            assert_eq!(source.to_string(), text);
            assert_eq!(Sources::from(text).check(), Ok(()));
        }
    }

    #[test]
    fn sources_that_cannot_work_are_refused() {
        let check = |text: &str| Sources::from(text).check();
        for bad in [
            "srv",
            "",
            "tar:x.tar",
            "=/srv",
            "../x=/srv",
            "a//b=/srv",
            "https://",
            "https:///x",
            "https://user:secret@a.example/x",
            "https://a.example/a b",
            "https://a.example/x#part",
        ] {
            // A prefix of nothing is all of it, and written without `=`.
            assert!(check(bad).is_err() || bad == "=/srv", "{bad}");
        }
        assert!(Sources::new(vec![]).check().is_err());
        assert!(Sources::new(vec![SourceSpec::parse("-"), SourceSpec::parse("a=/srv")]).check().is_err());
        let folder = SourceSpec { size: Some(7), ..SourceSpec::parse("/srv") };
        assert!(Sources::new(vec![folder]).check().is_err(), "a folder has no size");
    }

    #[test]
    fn paths_are_taken_from_where_they_were_written() {
        let seen = |text: &str| SourceSpec::parse(text).seen_from(Path::new("/here")).to_string();
        assert_eq!(seen("site"), "/here/site");
        assert_eq!(seen("docs=site"), "docs=/here/site");
        assert_eq!(seen("./a=b"), "/here/a=b");
        assert_eq!(seen("tar:a.tar"), "tar:/here/a.tar");
        assert_eq!(seen("https://a.example/x"), "https://a.example/x");
    }
}
