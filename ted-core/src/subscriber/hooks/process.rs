//! One program run to its end: no shell, no input, a bounded environment, time and memory.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, PipeReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::limits::Limits;

/// How often a program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Bytes that are read at one look: a program that prints without end is slowed down, and its time passes all the same.
const READ_BYTES_MAX: usize = 256 * 1024;

/// What is taken over from this process's own environment; nothing else is.
const TAKEN_OVER: [&str; 3] = ["PATH", "HOME", "LANG"];

/// The search path where this process has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run.
pub(super) struct Program<'a> {
    /// The program and its arguments.
    pub(super) words: &'a [String],
    pub(super) variables: Vec<(&'static str, OsString)>,
    pub(super) folder: PathBuf,
    pub(super) timeout: Duration,
}

/// How a program ended.
#[derive(Debug)]
pub(super) enum End {
    Exited(ExitStatus),
    /// It could not be started, or not be waited for.
    Failed(io::Error),
    /// It was ended because its time was over.
    TimedOut,
    /// It was ended because the node stops.
    Stopped,
}

/// How a program ended, and the end of what it printed.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) end: End,
    pub(super) output: String,
}

impl Program<'_> {
    /// Runs it. Blocks; `stop` ends it before its time. Whatever ends it early ends all of its process group.
    pub(super) fn run(&self, stop: &AtomicBool, limits: &Limits) -> Ran {
        let mut tail = Tail { bytes: VecDeque::new(), bytes_max: limits.hook_output_bytes_max };
        let end = self.start().map_or_else(End::Failed, |(mut child, mut reader)| {
            let grace = Duration::from_secs(limits.hook_grace_seconds);
            let end = self.wait(&mut child, stop, grace, &mut || tail.read(&mut reader)).unwrap_or_else(End::Failed);
            // What it left running may hold the pipe open: what is there now is all that is waited for.
            tail.read(&mut reader);
            end
        });
        Ran { end, output: tail.text() }
    }

    fn start(&self) -> io::Result<(Child, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let flags = fcntl_getfl(&reader)?;
        fcntl_setfl(&reader, flags | OFlags::NONBLOCK)?;
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", PATH);
        let own = TAKEN_OVER.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.envs(own).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(if self.folder.is_dir() { &*self.folder } else { Path::new("/") });
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        Ok((command.spawn()?, reader))
    }

    fn wait(&self, child: &mut Child, stop: &AtomicBool, grace: Duration, read: &mut dyn FnMut()) -> io::Result<End> {
        let began = Instant::now();
        let why = loop {
            read();
            if let Some(status) = child.try_wait()? {
                return Ok(End::Exited(status));
            }
            if stop.load(Ordering::Relaxed) {
                break End::Stopped;
            }
            if began.elapsed() >= self.timeout {
                break End::TimedOut;
            }
            std::thread::sleep(LOOK_EVERY);
        };
        // Not waited for yet, so that the number cannot have become another process's.
        signal_group(child, Signal::TERM);
        let asked = Instant::now();
        while !has_ended(child)? && asked.elapsed() < grace {
            read();
            std::thread::sleep(LOOK_EVERY);
        }
        // What the program started has had as long as the program itself. The ended program still holds its number.
        signal_group(child, Signal::KILL);
        child.wait()?;
        Ok(why)
    }
}

/// Whether a program has ended; unlike asking the child, this leaves its number taken.
fn has_ended(child: &Child) -> io::Result<bool> {
    let Some(process) = process_of(child) else { return Ok(true) };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(process), look)?.is_some())
}

fn process_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn signal_group(child: &Child, signal: Signal) {
    if let Some(group) = process_of(child) {
        // It may have ended meanwhile.
        let _ = kill_process_group(group, signal);
    }
}

/// The end of what was printed.
struct Tail {
    bytes: VecDeque<u8>,
    bytes_max: usize,
}

impl Tail {
    /// Reads what is there now.
    fn read(&mut self, reader: &mut PipeReader) {
        let mut buffer = [0; 4096];
        let mut read_bytes = 0;
        while read_bytes < READ_BYTES_MAX {
            // Nothing there is an error too, and no other one can be helped.
            let Ok(length @ 1..) = reader.read(&mut buffer) else { return };
            read_bytes += length;
            self.bytes.extend(&buffer[..length]);
            let over = self.bytes.len().saturating_sub(self.bytes_max);
            self.bytes.drain(..over);
        }
    }

    fn text(self) -> String {
        let bytes: Vec<u8> = self.bytes.into();
        // A character that was cut in two at the beginning says nothing.
        let cut = bytes.iter().take_while(|byte| (0x80..0xc0).contains(*byte)).count();
        let text = String::from_utf8_lossy(&bytes[cut.min(bytes.len())..]).into_owned();
        let kept = |letter: char| letter == '\n' || letter == '\t' || !letter.is_control();
        text.chars().filter(|letter| kept(*letter)).collect::<String>().trim().to_owned()
    }
}
