//! Bringing this Distributor's certificate to the Subscribers that will need it.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::distributor::error::DistributorError;
use crate::distributor::report::{Resolving, ResolvingOutcome, ResolvingRow, ResolvingWay};
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::limits::Limits;
use crate::model::{CertificateWay, CommandTemplate, CommandValues, Endpoint, Subscriber};
use crate::name::NodeName;
use crate::store::{DurableFile, sync_folder};

/// How long one command may take: a slow link and a login, not a forgotten prompt.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// How often a command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Subscribers that are served at once.
const AT_ONCE: usize = 8;

/// Bytes that are read of what a command says, and characters of its last line that are kept.
const SAID_BYTES_MAX: u64 = 64 * 1024;
const SAID_CHARS_MAX: usize = 300;

/// How long the words of a command that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl State {
    /// Brings the certificate to every Subscriber that lacks it, or to those that are named, whatever their state.
    pub(super) fn resolve(&self, way: &ResolvingWay, names: &[NodeName]) -> Result<Resolving, Error> {
        let subscribers = self.to_resolve(names)?;
        let root = self.own().authority.root().clone();
        let pem = root.certificate().pem();
        let rows = match way {
            ResolvingWay::Look => {
                let row = |subscriber: &Subscriber| self.row(subscriber, ResolvingOutcome::Waiting);
                subscribers.iter().map(row).collect::<Result<_, Error>>()?
            }
            ResolvingWay::Save(folder) => {
                let path = folder.join(root.file_name());
                place(&path, pem.as_bytes())
                    .map_err(|reason| DistributorError::NotSaved { path: path.clone(), reason })?;
                let mut rows = vec![];
                for subscriber in &subscribers {
                    self.note_carried(&subscriber.name, format!("saved as {}", path.display()), None);
                    rows.push(self.row(subscriber, ResolvingOutcome::Saved { path: path.clone() })?);
                }
                rows
            }
            ResolvingWay::Copy => self.copy_all(&subscribers, &root.file_name(), &pem)?,
        };
        Ok(Resolving { file_name: root.file_name(), fingerprint: root.key_hash().fingerprint(), rows })
    }

    fn to_resolve(&self, names: &[NodeName]) -> Result<Vec<Subscriber>, Error> {
        let wanted = if names.is_empty() { self.unresolved(&[], &[])? } else { names.to_vec() };
        let fleet = lock(&self.fleet);
        wanted.iter().map(|name| Ok(fleet.subscriber(name)?.clone())).collect()
    }

    fn row(&self, subscriber: &Subscriber, outcome: ResolvingOutcome) -> Result<ResolvingRow, Error> {
        let pair = self.certificate_pair(subscriber)?;
        Ok(ResolvingRow { subscriber: pair.subscriber, state: pair.state, way: pair.way, outcome })
    }

    fn copy_all(&self, subscribers: &[Subscriber], file_name: &str, pem: &str) -> Result<Vec<ResolvingRow>, Error> {
        let own = self.own_file(file_name, pem)?;
        let next = Mutex::new(subscribers.iter().enumerate());
        let done = Mutex::new(Vec::with_capacity(subscribers.len()));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(subscribers.len()) {
                scope.spawn(|| {
                    loop {
                        let Some((at, subscriber)) = lock(&next).next() else { return };
                        let copied = copy(subscriber, &own, file_name, pem);
                        lock(&done).push((at, copied));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(at, _)| *at);
        let mut rows = Vec::with_capacity(done.len());
        for (at, copied) in done {
            let subscriber = &subscribers[at];
            let way = subscriber.certificate.as_ref().map_or_else(|| "by hand".to_owned(), ToString::to_string);
            let outcome = match copied {
                Ok(to) => {
                    tracing::info!(subscriber = %subscriber.name, to, "this Distributor's certificate was copied");
                    self.note_carried(&subscriber.name, to.clone(), None);
                    ResolvingOutcome::Copied { to }
                }
                Err(reason) => {
                    let code = NOT_COPIED;
                    tracing::warn!(subscriber = %subscriber.name, code, way, reason, "a certificate was not copied");
                    self.note_carried(&subscriber.name, way, Some(format!("{code}: {reason}")));
                    ResolvingOutcome::Failed { code: code.to_owned(), reason }
                }
            };
            rows.push(self.row(subscriber, outcome)?);
        }
        Ok(rows)
    }

    /// The certificate as a file beside the data: what commands are given.
    fn own_file(&self, file_name: &str, pem: &str) -> Result<PathBuf, Error> {
        let path = self.data.path().join(file_name);
        let there = DurableFile::new(path.clone()).read(Limits::DEFAULT.certificate_bytes_max * 4);
        if !matches!(&there, Ok(Some(bytes)) if bytes[..] == *pem.as_bytes()) {
            let placed = place(&path, pem.as_bytes());
            placed.map_err(|reason| DistributorError::NotSaved { path: path.clone(), reason })?;
        }
        Ok(path)
    }
}

/// The code with which a Subscriber is listed to which the certificate could not be copied.
const NOT_COPIED: &str = "TED-1204A";

/// Brings the certificate to one Subscriber; answers where it went, or why it did not, both in words.
fn copy(subscriber: &Subscriber, own: &Path, file_name: &str, pem: &str) -> Result<String, String> {
    match &subscriber.certificate {
        None => Err("no way is configured: set `certificate_directory` or `certificate_command`".to_owned()),
        Some(CertificateWay::Directory(folder)) => {
            let path = Path::new(folder).join(file_name);
            place(&path, pem.as_bytes()).map(|()| path.display().to_string())
        }
        Some(CertificateWay::Command(template)) => run(template, subscriber, own, COMMAND_PATIENCE),
    }
}

/// Puts a public file where others read it: beside its place first, whole and durable, then renamed. The folder has to
/// be there: one that is not may be a mount that is missing.
fn place(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Err(format!("the directory {} is not there", folder.display()));
    }
    let beside = path.with_extension("cer.tmp");
    let written = (|| {
        // A new file and none that is there: in a folder of others, that may be a link to anywhere.
        remove_if_there(&beside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    written.map_err(|error: io::Error| {
        // The first error is the one to tell.
        let _ = remove_if_there(&beside);
        format!("{}: {error}", path.display())
    })?;
    sync_folder(folder).map_err(|error| error.to_string())
}

/// Runs a command to its end. It gets no terminal and no input: one that asks for a password fails.
fn run(template: &CommandTemplate, subscriber: &Subscriber, own: &Path, patience: Duration) -> Result<String, String> {
    let cer = own.to_str().ok_or("the data directory's path is not UTF-8")?;
    let name = subscriber.name.to_string();
    let address = match subscriber.endpoints.first() {
        Some(Endpoint::Direct(direct)) => direct.host().to_string(),
        None => name.clone(),
    };
    let words = template.fill(&CommandValues { cer, name: &name, address: &address });
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let errors = child.stderr.take();
    // Read beside: a command that says much would else wait for a reader.
    let (tell, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(errors) = errors {
            let _ = errors.take(SAID_BYTES_MAX).read_to_end(&mut said);
        }
        // Nobody listens any more to a command that was ended.
        let _ = tell.send(String::from_utf8_lossy(&said).into_owned());
    });
    let began = Instant::now();
    let status: ExitStatus = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < patience => std::thread::sleep(LOOK_EVERY),
            Ok(None) => {
                end_group(child.id());
                let _ = child.wait();
                return Err(format!("{program} was not done after {} s and was ended", patience.as_secs()));
            }
            Err(error) => return Err(format!("{program} cannot be waited for: {error}")),
        }
    };
    if status.success() {
        return Ok(words.join(" "));
    }
    // What it left running may hold its standard error open.
    let said = heard.recv_timeout(LAST_WORDS).unwrap_or_default();
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
    let last: String = last.chars().filter(|letter| !letter.is_control()).take(SAID_CHARS_MAX).collect();
    Err(format!("{program} ended with {status}: {last}"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Ends a command and all that it started, which share its group.
fn end_group(process: u32) {
    let group = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributor::Distributor;
    use crate::distributor::report::CertificatePair;
    use crate::security::CertificateState;

    async fn distributor(folder: &Path) -> Distributor {
        Distributor::builder(folder).name("dist.example.com".parse().unwrap()).open().await.unwrap()
    }

    fn subscriber(name: &str, way: Option<CertificateWay>) -> Subscriber {
        Subscriber { certificate: way, ..Subscriber::new(name.parse().unwrap()) }
    }

    fn command(text: &str) -> Option<CertificateWay> {
        Some(CertificateWay::command(text).unwrap())
    }

    #[tokio::test]
    async fn each_subscriber_has_its_own_way_and_its_own_outcome() {
        let work = tempfile::tempdir().unwrap();
        let (mount, by_command) = (work.path().join("mount"), work.path().join("by command"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::create_dir(&by_command).unwrap();
        let distributor = distributor(&work.path().join("d")).await;
        for (name, way) in [
            ("a.example", Some(CertificateWay::directory(mount.to_str().unwrap()).unwrap())),
            ("b.example", command(&format!("cp {{cer}} '{}/{{name}}-{{address}}.cer'", by_command.display()))),
            ("c.example", None),
            ("d.example", Some(CertificateWay::directory("/nowhere/at/all").unwrap())),
            ("e.example", command("sh -c 'echo first >&2; echo no route to host >&2; exit 7' {cer}")),
            ("f.example", command("no-such-program-here {cer}")),
        ] {
            let create = |fleet: &mut crate::model::Fleet| Ok(fleet.create_subscriber(subscriber(name, way))?);
            distributor.state.change_fleet(create).unwrap();
        }
        let looked = distributor.resolve(ResolvingWay::Look, &[]).await.unwrap();
        assert!(looked.rows.iter().all(|row| row.outcome == ResolvingOutcome::Waiting));
        let done = distributor.resolve(ResolvingWay::Copy, &[]).await.unwrap();
        assert_eq!(done.failures(), 4);
        let failed = |at: usize| match &done.rows[at].outcome {
            ResolvingOutcome::Failed { code, reason } => {
                assert_eq!(code, "TED-1204A");
                reason.clone()
            }
            outcome => panic!("{outcome:?}"),
        };
        let pem = distributor.certificate_pem();
        assert_eq!(std::fs::read_to_string(mount.join("dist.example.com.cer")).unwrap(), pem);
        assert_eq!(std::fs::read_to_string(by_command.join("b.example-b.example.cer")).unwrap(), pem);
        assert!(failed(2).contains("no way is configured"), "{}", failed(2));
        assert!(failed(3).contains("/nowhere/at/all is not there"), "{}", failed(3));
        assert!(failed(4).contains("exit status: 7: no route to host"), "{}", failed(4));
        assert!(failed(5).contains("cannot be started"), "{}", failed(5));

        let pairs = distributor.certificate_pairs().await.unwrap();
        let states: Vec<CertificateState> = pairs.iter().map(|pair| pair.state).collect();
        use CertificateState::{Copied, Needed};
        assert_eq!(states, [Copied, Copied, Needed, Needed, Needed, Needed]);
        let CertificatePair { detail, .. } = &pairs[3];
        assert!(detail.as_deref().is_some_and(|detail| detail.starts_with("TED-1204A: ")), "{detail:?}");
        let again = distributor.resolve(ResolvingWay::Copy, &[]).await.unwrap();
        assert_eq!(again.rows.len(), 4, "what was copied is not copied again");
        let named = distributor.resolve(ResolvingWay::Copy, &["a.example".parse().unwrap()]).await.unwrap();
        assert!(matches!(named.rows[..], [ResolvingRow { outcome: ResolvingOutcome::Copied { .. }, .. }]));
    }

    #[tokio::test]
    async fn what_is_saved_counts_as_carried_and_a_folder_that_is_missing_is_an_error() {
        let work = tempfile::tempdir().unwrap();
        let distributor = distributor(&work.path().join("d")).await;
        distributor.create_subscriber("a.example".parse().unwrap(), &[], &[]).await.unwrap();
        let missing = ResolvingWay::Save(work.path().join("none"));
        assert_eq!(distributor.resolve(missing, &[]).await.unwrap_err().code(), "TED-1215");
        let saved = distributor.resolve(ResolvingWay::Save(work.path().to_owned()), &[]).await.unwrap();
        assert_eq!(saved.failures(), 0);
        let pem = std::fs::read_to_string(work.path().join("dist.example.com.cer")).unwrap();
        assert_eq!(pem, distributor.certificate_pem());
        assert_eq!(distributor.certificate_pairs().await.unwrap()[0].state, CertificateState::Copied);
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let template = CommandTemplate::parse("sh -c 'sleep 600 & wait' {cer}").unwrap();
        let began = Instant::now();
        let outcome = run(&template, &subscriber("a.example", None), Path::new("/x.cer"), Duration::from_millis(100));
        assert!(outcome.unwrap_err().contains("was not done"));
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn nothing_is_written_through_a_link_that_somebody_planted() {
        let work = tempfile::tempdir().unwrap();
        let (path, victim) = (work.path().join("d.cer"), work.path().join("victim"));
        std::fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, work.path().join("d.cer.tmp")).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        place(&path, b"certificate").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
        assert_eq!(std::fs::read(&path).unwrap(), b"certificate");
        assert!(!path.is_symlink());
    }
}
