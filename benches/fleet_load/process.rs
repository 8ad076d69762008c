//! A server process that is watched from outside: what it has in memory, and what it has computed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::Failure;

/// The kernel's ticks in a second, as `/proc` counts time for every program (`USER_HZ`).
const TICKS: f64 = 100.0;

/// How long a process may take to end by itself.
const GOODBYE: Duration = Duration::from_secs(30);

/// A child process; ended when dropped.
pub(crate) struct Server {
    child: Child,
}

/// What a process has used up to a moment.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_kib: u64,
    /// The most that it ever had in memory.
    pub(crate) peak_kib: u64,
    pub(crate) cpu: Duration,
    pub(crate) at: Instant,
}

impl Usage {
    /// The share of one core that was used since `before`, in percent.
    pub(crate) fn cpu_percent_since(&self, before: &Self) -> f64 {
        100.0 * (self.cpu - before.cpu).as_secs_f64() / (self.at - before.at).as_secs_f64()
    }

    /// KiB for each of `connections` since `before`.
    pub(crate) fn kib_each_since(&self, before: &Self, connections: usize) -> f64 {
        (self.rss_kib as f64 - before.rss_kib as f64) / connections as f64
    }
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self { child: command.spawn()? })
    }

    /// The first line that it prints on its standard output, which has to be piped.
    pub(crate) fn first_line(&mut self) -> Result<String, Failure> {
        let out = self.child.stdout.take().ok_or("the server's standard output is not piped")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        Ok(line)
    }

    /// What it uses now, as the kernel says.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let process = Path::new("/proc").join(self.child.id().to_string());
        let status = std::fs::read_to_string(process.join("status"))?;
        let kib = |name: &str| -> Result<u64, Failure> {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("the kernel does not say it")?;
            Ok(value.trim().trim_end_matches("kB").trim().parse()?)
        };
        let (rss_kib, peak_kib) = (kib("VmRSS:")?, kib("VmHWM:")?);
        let stat = std::fs::read_to_string(process.join("stat"))?;
        // After the name, which stands in parentheses and may hold anything, fields 14 and 15 are user and system time.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).ok_or("no times");
        let cpu = Duration::from_secs_f64((ticks(11)? + ticks(12)?) as f64 / TICKS);
        Ok(Usage { rss_kib, peak_kib, cpu, at: Instant::now() })
    }

    /// The files that it has open, and the threads that it has.
    pub(crate) fn files_and_threads(&self) -> Result<(usize, usize), Failure> {
        let process = Path::new("/proc").join(self.child.id().to_string());
        Ok((std::fs::read_dir(process.join("fd"))?.count(), std::fs::read_dir(process.join("task"))?.count()))
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        // Its own process id, from the handle that has not waited for it yet.
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let began = Instant::now();
        while began.elapsed() < GOODBYE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the server does not end".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
