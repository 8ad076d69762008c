//! Sources that are fetched from a server on the loopback, which misbehaves in every way that counts.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::PrivatePkcs8KeyDer;

use super::super::Unreadable;
use super::super::conformance::{archive, conforms, samples};
use super::*;
use crate::error::Coded as _;
use crate::id::UnixMillis;
use crate::limits::Limits;
use crate::model::Sha256;

/// What came in: the first line and the headers, in lower case.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first byte that is asked for.
    fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

type Answers = dyn Fn(usize, &Request) -> Vec<u8> + Send + Sync;

/// A server that gives each request what `answers` says, the number of the request first, and closes the connection.
struct Server {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(tls: Option<Arc<rustls::ServerConfig>>, answers: Arc<Answers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let told = seen.clone();
        // It ends with the process: nothing waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = match &tls {
                    None => serve(&stream, &told, &*answers),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config.clone()).expect("a configuration");
                        let mut stream = rustls::StreamOwned::new(connection, stream);
                        let served = serve(&mut stream, &told, &*answers);
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                        served
                    }
                };
                // Clients that go away are part of what is tested.
                drop(served);
            }
        });
        Self { address, seen }
    }

    fn http(answers: impl Fn(usize, &Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answers))
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("whole").clone()
    }
}

fn serve(mut stream: impl Read + Write, seen: &Mutex<Vec<Request>>, answers: &Answers) -> io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((key, value)) = line.trim().split_once(':') else { break };
        headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let request = Request { path, headers };
    let number = {
        let mut seen = seen.lock().expect("whole");
        seen.push(request.clone());
        seen.len() - 1
    };
    stream.write_all(&answers(number, &request))?;
    stream.flush()
}

/// An answer with its headers and length.
fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

const ETAG: &str = "ETag: \"one\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

fn options(folder: &Path, url: String) -> UrlOptions {
    UrlOptions {
        url,
        folder: folder.to_owned(),
        sha256: None,
        size: None,
        ca: None,
        limits: Limits::DEFAULT,
        progress: Arc::new(|_, _, _| {}),
        pause: |_| {},
        now: UnixMillis::from_millis(1_700_000_000_000),
        fetching: Arc::default(),
    }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("temporary folder") }
    }

    fn source(&self, url: &str, change: impl FnOnce(&mut UrlOptions)) -> UrlSource {
        let mut options = options(self.folder.path(), url.to_owned());
        change(&mut options);
        UrlSource::new(options, Selection::default())
    }

    /// The content that is fetched.
    fn get(&self, url: &str, change: impl FnOnce(&mut UrlOptions)) -> Result<Vec<u8>, SourceError> {
        let source = self.source(url, change);
        let entries = source.entries(&mut |_| {})?;
        let file = entries.last().expect("the file");
        let mut content = vec![0; file.size as usize];
        let mut opened = source.open(file, 0)?;
        opened.read_exact(&mut content).expect("long enough");
        opened.finish()?;
        Ok(content)
    }

    fn refused(&self, url: &str, change: impl FnOnce(&mut UrlOptions)) -> SourceError {
        self.get(url, change).expect_err("refused")
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.folder.path()).expect("there").flatten().map(|item| item.path()).collect()
    }
}

fn hash_of(bytes: &[u8]) -> Sha256 {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256::from_bytes(hash.as_ref().try_into().expect("32 bytes"))
}

#[test]
fn a_file_is_fetched_once_and_then_only_asked_for() {
    let server = Server::http(|number, request| match request.header("if-none-match") {
        Some("\"one\"") => answer("304 Not Modified", ETAG, b""),
        _ if number == 0 => answer("200 OK", ETAG, b"content"),
        _ => answer("500 Wrong", "", b""),
    });
    let place = Place::new();
    let url = format!("http://{}/a/some%20tool?version=1", server.address);
    let source = place.source(&url, |_| {});
    let entries = source.entries(&mut |_| {}).expect("fetched");
    let file = entries.last().expect("the file");
    assert_eq!((file.path.to_string().as_str(), file.size, file.mode), ("some tool", 7, 0o644));
    assert_eq!(file.mtime.seconds, 784_111_777, "what the server says");
    let mark = source.mark(&file.path);
    assert!(mark.is_some());
    let again = place.source(&url, |_| {});
    assert_eq!(again.entries(&mut |_| {}).expect("as it was"), entries);
    assert_eq!(again.mark(&file.path), mark, "the quick check sees that it is the same");
    assert_eq!(place.get(&url, |_| {}).expect("as it was"), b"content");
    assert_eq!(server.seen().len(), 3);
    assert_eq!(server.seen()[1].header("if-modified-since"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(server.seen()[0].header("accept-encoding"), Some("identity"));
    assert_eq!(server.seen()[0].path, "/a/some%20tool?version=1");
}

#[test]
fn a_changed_file_takes_the_place_of_the_one_that_was_kept() {
    let server = Server::http(|number, _| {
        let etag = format!("ETag: \"{number}\"\r\n");
        answer("200 OK", &etag, format!("content {number}").as_bytes())
    });
    let place = Place::new();
    let url = format!("http://{}/tool", server.address);
    assert_eq!(place.get(&url, |_| {}).expect("fetched"), b"content 0");
    assert_eq!(place.get(&url, |_| {}).expect("fetched"), b"content 1");
    assert_eq!(place.files().len(), 2, "the newer one and the note about it: {:?}", place.files());
}

#[test]
fn the_same_content_from_a_server_that_knows_no_versions_is_no_change() {
    let server = Server::http(|_, _| answer("200 OK", "", b"content"));
    let place = Place::new();
    let url = format!("http://{}/", server.address);
    let first = place.source(&url, |_| {});
    let entries = first.entries(&mut |_| {}).expect("fetched");
    assert_eq!(entries[1].path.to_string(), "index");
    let later = place.source(&url, |options| options.now = UnixMillis::from_millis(1_800_000_000_000));
    assert_eq!(later.entries(&mut |_| {}).expect("fetched"), entries, "its time stays too");
    assert_eq!(later.mark(&entries[1].path), first.mark(&entries[1].path));
}

#[test]
fn what_breaks_off_is_completed_from_where_it_broke_off() {
    let content: Arc<Vec<u8>> = Arc::new((0..700_000_u32).map(|at| (at % 251) as u8).collect());
    let served = content.clone();
    let server = Server::http(move |_, request| {
        let from = request.from().unwrap_or(0);
        let rest = &served[from..];
        let total = served.len();
        let (status, range) = match from {
            0 => ("200 OK", String::new()),
            _ => ("206 Partial Content", format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1)),
        };
        let mut whole = answer(status, &format!("{ETAG}{range}"), rest);
        let cut = whole.len() - rest.len().saturating_sub(300_000);
        whole.truncate(cut);
        whole
    });
    let place = Place::new();
    let url = format!("http://{}/large", server.address);
    assert!(place.get(&url, |_| {}).expect("in three parts") == *content);
    let seen = server.seen();
    assert_eq!(seen.iter().map(|request| request.from().unwrap_or(0)).collect::<Vec<_>>(), [0, 300_000, 600_000]);
    assert!(seen[1..].iter().all(|request| request.header("if-range") == Some("\"one\"")));
}

#[test]
fn what_was_begun_in_a_build_before_is_completed_in_the_next() {
    let server = Server::http(|number, request| match (number, request.from()) {
        (0, _) => answer("200 OK", ETAG, b"content")[..answer("200 OK", ETAG, b"").len() + 3].to_vec(),
        (_, Some(3)) => answer("206 Partial Content", &format!("{ETAG}Content-Range: bytes 3-6/7\r\n"), b"tent"),
        _ => answer("500 Wrong", "", b""),
    });
    let place = Place::new();
    let url = format!("http://{}/tool", server.address);
    let error = place.refused(&url, |options| options.limits.download_attempts_max = 1);
    assert_eq!(error.code(), "TED-1741", "{error}");
    assert!(error.is_retryable());
    assert_eq!(place.get(&url, |_| {}).expect("completed"), b"content");
}

#[test]
fn a_part_of_what_has_changed_meanwhile_is_thrown_away() {
    for second in ["whole", "another part", "no part"] {
        let server = Server::http(move |number, request| match (number, second) {
            (0, _) => answer("200 OK", ETAG, b"old thing")[..answer("200 OK", ETAG, b"").len() + 3].to_vec(),
            (1, "another part") => answer("206 Partial Content", "Content-Range: bytes 1-6/7\r\n", b"xxxxxx"),
            (1, "no part") => answer("416 Range Not Satisfiable", "", b""),
            _ => {
                assert!(number == 1 || request.from().is_none());
                answer("200 OK", "ETag: \"two\"\r\n", b"content")
            }
        });
        let place = Place::new();
        let url = format!("http://{}/tool", server.address);
        assert_eq!(place.get(&url, |_| {}).expect(second), b"content", "{second}");
    }
}

#[test]
fn a_busy_server_is_asked_again_and_a_plain_no_is_one() {
    let server = Server::http(|number, _| match number {
        0 => answer("503 Busy", "Retry-After: 7\r\n", b"later"),
        1 => answer("429 Slow Down", "", b""),
        _ => answer("200 OK", "", b"content"),
    });
    let place = Place::new();
    let waited: fn(Duration) = |pause| assert!(pause >= Duration::from_millis(500) && pause <= Duration::from_secs(60));
    let url = format!("http://{}/tool", server.address);
    assert_eq!(place.get(&url, |options| options.pause = waited).expect("at last"), b"content");
    for (status, attempts) in [("404 Not Found", 1), ("403 Forbidden", 1), ("502 Bad Gateway", 5)] {
        let server = Server::http(move |_, _| answer(status, "", b"no"));
        let error = place.refused(&format!("http://{}/tool", server.address), |_| {});
        assert_eq!(error.code(), "TED-1742", "{error}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
        assert_eq!(server.seen().len(), attempts, "{status}");
    }
}

#[test]
fn nobody_there_is_an_error_that_may_pass() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let error = Place::new().refused(&format!("http://{nobody}/tool"), |_| {});
    assert_eq!((error.code(), error.is_retryable()), ("TED-1740", true), "{error}");
}

#[test]
fn what_is_not_as_expected_is_refused_and_not_kept() {
    let server = Server::http(|_, _| answer("200 OK", ETAG, b"content"));
    let url = format!("http://{}/tool", server.address);
    let place = Place::new();
    for (size, code) in [(6, "TED-1745"), (8, "TED-1745")] {
        assert_eq!(place.refused(&url, |options| options.size = Some(size)).code(), code);
    }
    let error = place.refused(&url, |options| options.sha256 = Some(hash_of(b"another")));
    assert_eq!(error.code(), "TED-1746");
    assert!(error.to_string().contains(&hash_of(b"content").to_string()), "{error}");
    assert_eq!(place.files().len(), 0, "{:?}", place.files());
    let right = |options: &mut UrlOptions| (options.size, options.sha256) = (Some(7), Some(hash_of(b"content")));
    assert_eq!(place.get(&url, right).expect("as expected"), b"content");
    // What is kept is judged by what is expected now.
    assert_eq!(place.refused(&url, |options| options.sha256 = Some(hash_of(b"newer"))).code(), "TED-1746");
}

#[test]
fn more_than_expected_is_not_taken_to_its_end() {
    let server = Server::http(|_, _| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        [head.as_bytes(), b"100000\r\n", &vec![7; 1 << 20], b"\r\n0\r\n\r\n"].concat()
    });
    let url = format!("http://{}/tool", server.address);
    let place = Place::new();
    assert_eq!(place.refused(&url, |options| options.size = Some(1000)).code(), "TED-1745");
    assert_eq!(place.refused(&url, |options| options.limits.spool_bytes_max = 1000).code(), "TED-1737");
    assert_eq!(place.files().len(), 0, "{:?}", place.files());
    assert_eq!(Place::new().get(&url, |_| {}).expect("within all bounds").len(), 1 << 20);
}

#[test]
fn an_answer_without_an_end_is_taken_only_where_something_vouches_for_it() {
    let server = Server::http(|_, _| b"HTTP/1.0 200 OK\r\n\r\ncontent".to_vec());
    let url = format!("http://{}/tool", server.address);
    assert_eq!(Place::new().refused(&url, |_| {}).code(), "TED-1748");
    let vouched = |options: &mut UrlOptions| options.sha256 = Some(hash_of(b"content"));
    assert_eq!(Place::new().get(&url, vouched).expect("whole"), b"content");
    let encoded = Server::http(|_, _| answer("200 OK", "Content-Encoding: gzip\r\n", b"xyz"));
    assert_eq!(Place::new().refused(&format!("http://{}/tool", encoded.address), |_| {}).code(), "TED-1748");
    assert_eq!(Place::new().get(&format!("http://{}/x.tgz", encoded.address), |_| {}).expect("as it is"), b"xyz");
}

#[test]
fn redirects_are_followed_to_a_bound() {
    let server = Server::http(|_, request| match request.path.strip_prefix("/hop/").and_then(|hop| hop.parse().ok()) {
        Some(0) => answer("200 OK", "", b"content"),
        Some::<u32>(more) => answer("302 Found", &format!("Location: /hop/{}\r\n", more - 1), b""),
        None => answer("301 Moved", "Location: /round\r\n", b""),
    });
    let place = Place::new();
    assert_eq!(place.get(&format!("http://{}/hop/8", server.address), |_| {}).expect("at the end"), b"content");
    for path in ["hop/9", "round"] {
        let error = place.refused(&format!("http://{}/{path}", server.address), |_| {});
        assert_eq!(error.code(), "TED-1743", "{error}");
    }
}

/// A certificate for 127.0.0.1 as PEM, and a server's configuration with it.
fn tls() -> (String, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("made");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a certificate");
    (made.cert.pem(), Arc::new(config))
}

#[test]
fn a_server_is_judged_by_the_certificates_that_are_named() {
    let (pem, config) = tls();
    let server = Server::start(Some(config), Arc::new(|_, _: &Request| answer("200 OK", ETAG, b"content")));
    let url = format!("https://{}/tool", server.address);
    let (place, files) = (Place::new(), tempfile::tempdir().expect("temporary folder"));
    let at = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let (own, other) = (at("own.pem", &pem), at("other.pem", &tls().0));
    assert_eq!(place.get(&url, |options| options.ca = Some(own.clone())).expect("trusted"), b"content");
    let error = Place::new().refused(&url, |options| options.ca = Some(other));
    assert_eq!((error.code(), error.is_retryable()), ("TED-1744", false), "{error}");
    // The name in the certificate counts as well.
    let named = format!("https://localhost:{}/tool", server.address.port());
    assert_eq!(Place::new().refused(&named, |options| options.ca = Some(own)).code(), "TED-1744");
    for none in [at("empty.pem", ""), files.path().join("missing.pem")] {
        assert_eq!(Place::new().refused(&url, |options| options.ca = Some(none)).code(), "TED-1747");
    }
}

#[test]
fn whoever_asked_for_https_is_not_led_to_http() {
    let plain = Server::http(|_, _| answer("200 OK", "", b"not to be trusted"));
    let to = format!("Location: http://{}/tool\r\n", plain.address);
    let (pem, config) = tls();
    let server = Server::start(Some(config), Arc::new(move |_, _: &Request| answer("302 Found", &to, b"")));
    let files = tempfile::tempdir().expect("temporary folder");
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, pem).expect("written");
    let error = Place::new().refused(&format!("https://{}/tool", server.address), |options| options.ca = Some(ca));
    assert_eq!(error.code(), "TED-1743", "{error}");
    assert_eq!(plain.seen().len(), 0);
}

#[test]
fn whoever_asked_for_http_is_led_to_https_and_judges_it() {
    let (pem, config) = tls();
    let secure = Server::start(Some(config), Arc::new(|_, _: &Request| answer("200 OK", ETAG, b"content")));
    let to = format!("Location: https://{}/tool\r\n", secure.address);
    let plain = Server::http(move |_, _| answer("301 Moved", &to, b""));
    let url = format!("http://{}/tool", plain.address);
    let files = tempfile::tempdir().expect("temporary folder");
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, pem).expect("written");
    assert_eq!(Place::new().get(&url, |options| options.ca = Some(ca)).expect("trusted"), b"content");
    assert_eq!(Place::new().refused(&url, |_| {}).code(), "TED-1744");
}

#[test]
fn content_that_a_crash_left_unnoted_is_removed_with_the_next_that_comes() {
    let server = Server::http(|_, _| answer("200 OK", ETAG, b"content"));
    let place = Place::new();
    let url = format!("http://{}/tool", server.address);
    place.get(&url, |_| {}).expect("fetched");
    let whole = place.files();
    let left = hash_of(b"left").to_string();
    std::fs::write(place.folder.path().join(left), "left").expect("written");
    place.get(&url, |_| {}).expect("fetched again");
    assert_eq!(place.files(), whole);
}

#[test]
fn a_tar_file_that_is_fetched_conforms_and_is_unpacked_again_only_when_it_changed() {
    let samples = samples();
    let packed = zstd::stream::encode_all(archive(&samples).as_slice(), 1).expect("memory");
    let server = Server::http(move |_, request| match request.header("if-none-match") {
        Some("\"one\"") => answer("304 Not Modified", ETAG, b""),
        _ => answer("200 OK", ETAG, &packed),
    });
    let folder = tempfile::tempdir().expect("temporary folder");
    let spool = folder.path().join("spool");
    let url = options(&spool.join("kept"), format!("http://{}/site.tar.zst", server.address));
    let tar = TarOptions {
        file: PathBuf::new(),
        place: String::new(),
        spool,
        selection: Selection::default(),
        unreadable: Unreadable::Refuse,
        limits: Limits::DEFAULT,
        progress: Arc::new(|_, _, _| {}),
        known: Arc::default(),
        selected: String::new(),
        now: UnixMillis::from_millis(u64::MAX / 4),
    };
    conforms(&TarUrlSource::new(url, tar), &samples);
}
