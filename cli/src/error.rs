//! The one error that commands and the control socket know: a stable code, a sentence, a remedy, an exit code.

use std::fmt;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::output::{Format, Paint, clean};
use crate::remedy;

/// The codes that this crate and the binaries give by themselves; the library's errors bring their own.
pub mod code {
    /// The daemon does not know the operation.
    pub const UNKNOWN_OPERATION: &str = "TED-1801";
    /// The request's body is not what the operation takes.
    pub const BAD_REQUEST: &str = "TED-1802";
    /// The control socket cannot be opened, used or replaced.
    pub const SOCKET: &str = "TED-1803";
    /// The command needs the daemon, and none runs on this data directory.
    pub const NO_DAEMON: &str = "TED-1804";
    /// The daemon's answer broke off or cannot be read.
    pub const BAD_ANSWER: &str = "TED-1805";
    /// Some Subscribers did not get the revision.
    pub const PARTLY_DELIVERED: &str = "TED-1806";
    /// The time that the command was given has passed.
    pub const TIMEOUT: &str = "TED-1807";
    /// A file that the command line names cannot be read or written.
    pub const FILE: &str = "TED-1808";
    /// A name or a number that is already taken, or what the command needs is not there yet.
    pub const STATE: &str = "TED-1809";
    /// Extraction was asked for without a certificate to verify the origin with.
    pub const ORIGIN_UNKNOWN: &str = "TED-1810";
    /// The package holds no such path, or it has no content to print.
    pub const NO_SUCH_ENTRY: &str = "TED-1811";
    /// The certificate named is not the one that made the package, or its signature does not hold.
    pub const ORIGIN_REFUSED: &str = "TED-1812";
    /// What a delta changes is asked for, and the package that it goes from is not there.
    pub const NO_BASE: &str = "TED-1027";
    /// A file is asked for of a delta, which holds none whole.
    pub const ONLY_CHANGES: &str = "TED-1028";
    /// A check of `doctor` failed.
    pub const DOCTOR: &str = "TED-1813";
    /// No Subscriber got the revision.
    pub const NOT_DELIVERED: &str = "TED-1815";
    /// Somebody ended the firing before it was done.
    pub const CANCELLED: &str = "TED-1816";
    /// A package or an extracted file is not what was signed.
    pub const NOT_WHOLE: &str = "TED-1817";
    /// Nobody confirmed what has to be confirmed.
    pub const NOT_CONFIRMED: &str = "TED-1848";
    /// No name was given, and this machine has none that a node could take.
    pub const NO_NAME: &str = "TED-1221";
    /// A passphrase is needed and there is none.
    pub const NO_PASSPHRASE: &str = "TED-1849";
    /// The certificate could not be copied to any Subscriber that lacks it.
    pub const NOT_RESOLVED: &str = "TED-1204A";
    /// The certificate was copied to some Subscribers and not to others.
    pub const PARTLY_RESOLVED: &str = "TED-1214";
    /// The configuration file cannot be read.
    pub const CONFIG_FILE: &str = "TED-1690";
    /// The configuration file holds something that it must not.
    pub const CONFIG_CONTENT: &str = "TED-1691";
    /// A variable `TED_…` of the environment cannot be understood.
    pub const CONFIG_VARIABLE: &str = "TED-1692";
}

/// A failure as the control socket carries it and the command line prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The stable code, `TED-` and four digits.
    pub code: String,
    /// What happened, one sentence.
    pub message: String,
    /// What to do about it, where something is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Whether the same call may succeed later without anybody mending anything.
    #[serde(default)]
    pub retryable: bool,
    /// The exit code's number; never 0.
    pub exit: u8,
}

impl ApiError {
    /// An error with this code; remedy and exit code are the ones that `remedy.rs` lists for it.
    pub fn new(code: &str, message: impl fmt::Display) -> Self {
        Self {
            code: code.to_owned(),
            message: message.to_string(),
            remedy: remedy::of(code).map(str::to_owned),
            retryable: false,
            exit: remedy::exit_of(code).number(),
        }
    }

    /// The same error with a remedy for this very case, such as the command that mends it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same error, marked as one that may go away by itself.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// How the process ends on it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        Exit::from_number(self.exit)
    }

    /// Writes it to standard error: as one JSON object, or as `error[TED-…]: …` and the remedy.
    pub fn report(&self, format: Format) {
        let mut out = std::io::stderr().lock();
        // There is no one left to tell when standard error itself fails.
        let _ = match format {
            Format::Json => writeln!(out, "{}", serde_json::json!({ "error": self })),
            Format::Text => out.write_all(self.to_text(Paint::for_stderr()).as_bytes()),
        };
    }

    fn to_text(&self, paint: Paint) -> String {
        let mut text = format!("{}: {}\n", paint.bad(&format!("error[{}]", clean(&self.code))), clean(&self.message));
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("{}: {}\n", paint.strong("remedy"), clean(remedy)));
        }
        text
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<ted_core::error::Error> for ApiError {
    fn from(error: ted_core::error::Error) -> Self {
        let mut answer = Self::new(error.code(), &error);
        answer.retryable = error.is_retryable();
        answer
    }
}

/// Any error of the library: its code, its sentence with its causes, and the remedy for that code.
pub fn from_library<E: ted_core::error::Coded + Send + Sync + 'static>(error: E) -> ApiError {
    ted_core::error::Error::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_code_sentence_and_remedy_without_control_characters() {
        let error = ApiError::new(code::NO_DAEMON, "no daemon\x1b[2J answers").with_remedy("start it");
        assert_eq!(error.to_text(Paint::Plain), "error[TED-1804]: no daemon\\u{1b}[2J answers\nremedy: start it\n");
        assert_eq!(error.exit(), Exit::Unreachable);
    }

    #[test]
    fn library_errors_keep_their_code() {
        let error = "a/b".parse::<ted_core::name::Label>().map_err(from_library).expect_err("no label");
        assert_eq!(error.code, "TED-1005");
        assert!(error.message.contains("a/b"));
        assert_eq!(error.exit(), Exit::Usage);
    }
}
