//! The built `ted-distributor`, driven by its command line as an operator would.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use ted_core::security::{RootFile, Token};

use crate::Failure;
use crate::process::Server;

const NAME: &str = "dist.load.example";

/// How long the daemon may take until it listens.
const PATIENCE: Duration = Duration::from_secs(120);

/// A data directory and the binary that works in it.
pub(crate) struct Distributor {
    binary: PathBuf,
    data: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Distributor {
    /// Makes a Distributor in `folder` that will listen on a free port.
    pub(crate) fn create(binary: PathBuf, folder: &Path) -> Result<Self, Failure> {
        // Taken for a moment, so that the port is known before the daemon has it.
        let address = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let distributor = Self { binary, data: folder.join("distributor"), address };
        distributor.cli(&["init", "--name", NAME, "--listen", &address.to_string()])?;
        Ok(distributor)
    }

    /// Runs a command to its end; answers its JSON.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let output =
            Command::new(&self.binary).arg("--json").arg("--data-dir").arg(&self.data).args(arguments).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{}: {said}", arguments.join(" ").chars().take(200).collect::<String>()).into());
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    /// Starts the daemon; answers it with the time until it answered `status`.
    pub(crate) fn run(&self) -> Result<(Server, Duration), Failure> {
        let began = Instant::now();
        let log = std::fs::File::create(self.data.with_extension("log"))?;
        let mut command = Command::new(&self.binary);
        command.arg("--data-dir").arg(&self.data).arg("run").env("TED_LOG", "warn");
        let server = Server::start(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))?;
        while !self.data.join("control.sock").exists() {
            if began.elapsed() > PATIENCE {
                return Err("the daemon does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok((server, began.elapsed()))
    }

    pub(crate) fn root(&self) -> Result<RootFile, Failure> {
        let file = self.data.with_extension("cer");
        self.cli(&["certificate", "export", "--output", &file.display().to_string()])?;
        Ok(RootFile::from_pem(&std::fs::read_to_string(file)?)?)
    }

    /// A token for so many enrolments; one has at most 10,000 uses.
    pub(crate) fn token(&self, uses: usize) -> Result<Token, Failure> {
        let made = self.cli(&["token", "create", "--uses", &uses.to_string()])?;
        Ok(made["token"].as_str().ok_or("no token")?.parse()?)
    }
}
