//! One request over HTTP(S). The only user of the crate `ureq`.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, ResponseExt as _};

use super::error::DownloadError;
use crate::limits::Limits;

/// A server that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// What is known of a thing that was fetched, for asking whether it is still the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

impl Validators {
    /// The one that vouches for every byte, if there is one: only then a part can be completed.
    pub(super) fn strong(&self) -> Option<&str> {
        let etag = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        etag.or(self.last_modified.as_deref().filter(|_| self.etag.is_none()))
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    /// All of it.
    Whole,
    /// All of it, unless it is still this.
    Changed(&'a Validators),
    /// What comes after so many bytes, if it is still this; else all of it.
    From(u64, &'a str),
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) validators: Validators,
    /// Bytes that follow, where the server says it.
    pub(super) length: Option<u64>,
    /// Whether its end can be told from a broken connection.
    pub(super) has_end: bool,
    /// Where in the whole the body begins, and how long the whole is, for a part.
    pub(super) part: Option<(u64, Option<u64>)>,
    pub(super) encoding: Option<String>,
    pub(super) retry_after_s: Option<u64>,
    pub(super) body: Box<dyn Read>,
}

/// A client that judges servers by the certificates in `ca`, or the system's.
pub(super) struct Client {
    agent: Agent,
    url: String,
}

impl Client {
    pub(super) fn new(url: &str, ca: Option<&Path>, limits: &Limits) -> Result<Self, DownloadError> {
        let is_https = url.starts_with("https://");
        let roots = match roots(url, ca) {
            // It is needed only if the server leads on to https, which is then not trusted.
            Err(_) if !is_https && ca.is_none() => vec![],
            roots => roots?,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            // Whoever asked for https is never led to http.
            .https_only(is_https)
            .http_status_as_error(false)
            .max_redirects(limits.redirects_max)
            .max_redirects_will_error(true)
            .user_agent(concat!("ted-distributor/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(SILENCE))
            .timeout_connect(Some(SILENCE))
            .timeout_send_request(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build();
        Ok(Self { agent: config.new_agent(), url: url.to_owned() })
    }

    pub(super) fn get(&self, ask: Ask<'_>) -> Result<Answer, DownloadError> {
        let mut request = self.agent.get(&self.url);
        match ask {
            Ask::Whole => {}
            Ask::Changed(Validators { etag, last_modified }) => {
                if let Some(etag) = etag {
                    request = request.header("If-None-Match", etag);
                }
                if let Some(time) = last_modified {
                    request = request.header("If-Modified-Since", time);
                }
            }
            Ask::From(bytes, validator) => {
                request = request.header("Range", format!("bytes={bytes}-")).header("If-Range", validator);
            }
        }
        let response = request.call().map_err(|error| self.error(error))?;
        tracing::debug!(url = %self.url, from = %response.get_uri(), status = %response.status(), "answered");
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let length = header("content-length").and_then(|value| value.parse().ok());
        let chunked = header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        Ok(Answer {
            status: response.status().as_u16(),
            validators: Validators { etag: header("etag"), last_modified: header("last-modified") },
            length,
            has_end: chunked || length.is_some(),
            part: header("content-range").and_then(|value| content_range(&value)),
            encoding: header("content-encoding").filter(|value| value != "identity"),
            retry_after_s: header("retry-after").and_then(|value| value.parse().ok()),
            body: Box::new(response.into_body().into_with_config().limit(u64::MAX).reader()),
        })
    }

    fn error(&self, error: ureq::Error) -> DownloadError {
        let url = self.url.clone();
        match error {
            ureq::Error::TooManyRedirects => {
                DownloadError::Redirect { url, reason: "too many times, one after the other".to_owned() }
            }
            ureq::Error::RequireHttpsOnly(to) => {
                DownloadError::Redirect { url, reason: format!("to {to}, which is no https") }
            }
            ureq::Error::RedirectFailed => DownloadError::Redirect { url, reason: "to no place".to_owned() },
            ureq::Error::Rustls(error) => DownloadError::Untrusted { url, source: io::Error::other(error) },
            ureq::Error::Io(source) if is_of_tls(&source) => DownloadError::Untrusted { url, source },
            ureq::Error::Io(source) => DownloadError::Unreachable { url, source },
            other => DownloadError::Unreachable { url, source: io::Error::other(other) },
        }
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    // A connection that breaks off in the handshake says nothing about trust.
    inner.is_some()
}

fn roots(url: &str, ca: Option<&Path>) -> Result<Vec<Certificate<'static>>, DownloadError> {
    let place = ca.map_or("the system".to_owned(), |path| path.display().to_string());
    let failed = |reason| DownloadError::Roots { url: url.to_owned(), place: place.clone(), reason };
    let found: Vec<Vec<u8>> = match ca {
        Some(path) => {
            let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            let blocks = pem::parse_many(text).map_err(|error| failed(error.to_string()))?;
            blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect()
        }
        None => {
            let loaded = rustls_native_certs::load_native_certs();
            for error in &loaded.errors {
                tracing::warn!(%error, "some of the system's certificates cannot be read");
            }
            loaded.certs.iter().map(|certificate| certificate.as_ref().to_vec()).collect()
        }
    };
    if found.is_empty() {
        return Err(failed("there is none".to_owned()));
    }
    Ok(found.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}

/// `bytes 5-99/100`: where a part begins, and how long the whole is.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let begin = range.split_once('-')?.0.parse().ok()?;
    Some((begin, total.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_vouches_for_every_byte_lets_a_part_be_completed() {
        let validators = |etag: Option<&str>, time: Option<&str>| Validators {
            etag: etag.map(str::to_owned),
            last_modified: time.map(str::to_owned),
        };
        assert_eq!(validators(Some("\"x\""), Some("then")).strong(), Some("\"x\""));
        assert_eq!(validators(Some("W/\"x\""), Some("then")).strong(), None);
        assert_eq!(validators(None, Some("then")).strong(), Some("then"));
        assert_eq!(validators(None, None).strong(), None);
        assert_eq!(content_range("bytes 5-99/100"), Some((5, Some(100))));
        assert_eq!(content_range("bytes 5-99/*"), Some((5, None)));
        assert_eq!(content_range("pages 5-99/*"), None);
    }
}
