//! Where a Distribution's files come from, on the command line.

use clap::Args;
use ted_cli::error::{ApiError, code};
use ted_core::model::{Sha256, SourceSpec, Sources};

/// What is expected of what is fetched.
#[derive(Debug, Args)]
pub(crate) struct SourceExpectations {
    /// What is fetched has this SHA-256, or is refused. With several URLs, PREFIX says of which. May be repeated.
    #[arg(long, value_name = "[PREFIX=]HEX")]
    source_sha256: Vec<String>,
    /// What is fetched has this many bytes, or is refused. May be repeated, as before.
    #[arg(long, value_name = "[PREFIX=]BYTES")]
    source_size: Vec<String>,
    /// The certificates, a PEM file, that a server is judged by, instead of the system's. May be repeated, as before.
    #[arg(long, value_name = "[PREFIX=]FILE")]
    source_ca: Vec<String>,
}

impl SourceExpectations {
    /// Whether none is given.
    pub(crate) fn is_empty(&self) -> bool {
        self.source_sha256.is_empty() && self.source_size.is_empty() && self.source_ca.is_empty()
    }

    /// `sources` with these expectations.
    ///
    /// # Errors
    /// [`code::STATE`] for an expectation that is none, or of nothing that is fetched.
    pub(crate) fn apply(&self, sources: &Sources) -> Result<Sources, ApiError> {
        let mut all: Vec<SourceSpec> = sources.iter().cloned().collect();
        for given in &self.source_sha256 {
            let (source, text) = meant(&mut all, given)?;
            source.sha256 = Some(text.parse::<Sha256>().map_err(|reason| ApiError::new(code::STATE, reason))?);
        }
        for given in &self.source_size {
            let (source, text) = meant(&mut all, given)?;
            let size = text.parse().map_err(|_| ApiError::new(code::STATE, format!("`{text}` is no number of bytes")));
            source.size = Some(size?);
        }
        for given in &self.source_ca {
            let (source, text) = meant(&mut all, given)?;
            let path = ted_cli::common::absolute(text.as_ref())?;
            source.ca = Some(path.to_string_lossy().into_owned());
        }
        Ok(Sources::new(all))
    }
}

/// The source that `given`, `[PREFIX=]VALUE`, is about, and the value.
fn meant<'a, 'b>(all: &'a mut [SourceSpec], given: &'b str) -> Result<(&'a mut SourceSpec, &'b str), ApiError> {
    let (prefix, value) = given.split_once('=').map_or((None, given), |(prefix, value)| (Some(prefix), value));
    let mut fits = all.iter_mut().filter(|source| source.place.url().is_some());
    let found = match prefix {
        Some(prefix) => fits.find(|source| source.prefix == prefix),
        None => fits.next().filter(|_| fits.next().is_none()),
    };
    let found = found.ok_or_else(|| {
        ApiError::new(code::STATE, format!("`{given}` is expected of no source, or nobody knows of which"))
            .with_remedy("Only what is fetched can be expected to be something; PREFIX= says which source is meant.")
    })?;
    Ok((found, value))
}

/// The sources that `given` spells, with paths from the folder that the command runs in.
///
/// # Errors
/// [`code::FILE`] where that folder is unknown or has no name in UTF-8.
pub(crate) fn sources(given: &[String], expected: &SourceExpectations) -> Result<Sources, ApiError> {
    let here = ted_cli::common::absolute(".".as_ref())?;
    let all: Vec<_> = given.iter().map(|text| SourceSpec::parse(text).seen_from(&here)).collect();
    if here.to_str().is_none() && given.iter().zip(&all).any(|(text, source)| *text != source.to_string()) {
        return Err(ApiError::new(code::FILE, format!("{}: the path of a source has to be UTF-8", here.display()))
            .with_remedy("Name the source by an absolute path, if need be by that of a link to it."));
    }
    expected.apply(&Sources::new(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expectations(sha256: &[&str], size: &[&str]) -> SourceExpectations {
        let texts = |given: &[&str]| given.iter().map(|text| (*text).to_owned()).collect();
        SourceExpectations { source_sha256: texts(sha256), source_size: texts(size), source_ca: vec![] }
    }

    #[test]
    fn expectations_find_their_source() {
        let given = |sources: &[&str]| sources.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let one = sources(&given(&["/srv/site", "https://a/x"]), &expectations(&[], &["7"])).expect("one URL");
        assert_eq!(one.to_string(), "/srv/site, https://a/x (7 bytes)");
        let two = given(&["a=https://a/x", "b=https://b/x"]);
        let both = sources(&two, &expectations(&[], &["b=7", "a=8"])).expect("each is named");
        assert_eq!(both.to_string(), "a=https://a/x (8 bytes), b=https://b/x (7 bytes)");
        for (places, sha256, size) in [
            (&two, &[][..], &["7"][..]),
            (&two, &[], &["c=7"]),
            (&given(&["/srv"]), &[], &["7"]),
            (&given(&["https://a/x"]), &["xyz"], &[]),
            (&given(&["https://a/x"]), &[], &["many"]),
        ] {
            assert!(sources(places, &expectations(sha256, size)).is_err(), "{places:?} {sha256:?} {size:?}");
        }
    }
}
