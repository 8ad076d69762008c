//! The exit codes of both binaries. They never change their meaning; the man pages list them.

use std::process::ExitCode;

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: all that was asked for is done.
    Success,
    /// 1: it failed; the error's code says why.
    Failure,
    /// 2: the command line cannot be understood.
    Usage,
    /// 3: some Subscribers have the revision, others could not get it.
    PartlyDelivered,
    /// 4: `--timeout` passed; what was started goes on.
    Timeout,
    /// 5: the daemon, or the node that was dialled, cannot be reached.
    Unreachable,
    /// 6: a signature, certificate, hash or token was refused; nothing was accepted.
    Refused,
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::PartlyDelivered => 3,
            Self::Timeout => 4,
            Self::Unreachable => 5,
            Self::Refused => 6,
        }
    }

    /// The exit code that stands for `number`; [`Exit::Failure`] where none does, so that an error is never a success.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            2 => Self::Usage,
            3 => Self::PartlyDelivered,
            4 => Self::Timeout,
            5 => Self::Unreachable,
            6 => Self::Refused,
            _ => Self::Failure,
        }
    }

    /// The table that `--help` and the man page show.
    pub const TABLE: &str = "Exit status:\n  \
        0  success\n  \
        1  failure (the code TED-… says why)\n  \
        2  usage\n  \
        3  partly delivered\n  \
        4  timeout while waiting; what was started goes on\n  \
        5  daemon or node not reachable\n  \
        6  refused: a signature, certificate, hash or token does not hold";
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_documented() {
        let all = [
            Exit::Success,
            Exit::Failure,
            Exit::Usage,
            Exit::PartlyDelivered,
            Exit::Timeout,
            Exit::Unreachable,
            Exit::Refused,
        ];
        for (place, exit) in all.into_iter().enumerate() {
            assert_eq!(usize::from(exit.number()), place);
            assert!(Exit::TABLE.contains(&format!("\n  {place}  ")), "{exit:?} is not in the table");
        }
        assert_eq!(Exit::from_number(0), Exit::Failure, "an error is never a success");
        assert_eq!(Exit::from_number(200), Exit::Failure);
        assert_eq!(Exit::from_number(3), Exit::PartlyDelivered);
    }
}
