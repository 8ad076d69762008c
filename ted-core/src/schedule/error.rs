//! Why a text is no schedule.

use crate::error::Coded;
use crate::schedule::Purpose;

/// A text that is no schedule, with the place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at} of the schedule, {}: {problem}", place(.found))]
pub struct ScheduleError {
    /// The place, counted in characters from 1.
    pub at: usize,
    /// What stands there; nothing where the text ends.
    pub found: String,
    /// What is wrong with it.
    pub problem: Problem,
}

fn place(found: &str) -> String {
    if found.is_empty() { "where it ends".to_owned() } else { format!("`{found}`") }
}

/// What can be wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It does not begin as schedules do.
    #[error("a schedule begins with never, now, with send, at, every or cron")]
    Start,
    /// `at` is not followed by a time that there is.
    #[error("after `at` comes a local time such as 2027-01-31T02:00; its zone is given with `in Europe/Berlin`")]
    Time,
    /// A length of time is not understood or not allowed.
    #[error("a time such as 30m, 12h or 7d is needed here, {bounds}")]
    Duration {
        /// Which are allowed.
        bounds: String,
    },
    /// The cron pattern is none.
    #[error("this is not a cron pattern such as \"0 2 * * mon-fri\" in double quotes: {reason}")]
    Cron {
        /// What is wrong with it.
        reason: String,
    },
    /// A clause is unknown, incomplete, or there twice.
    #[error("{expected}")]
    Clause {
        /// What it would have to be.
        expected: String,
    },
    /// There is no such time zone.
    #[error("there is no such time zone: take a name of the IANA database, such as Europe/Berlin or UTC")]
    Zone,
    /// No time meets all that it says.
    #[error("this never comes, or never when `between` and `on` let it: choose another time, or take those out")]
    Impossible,
    /// It is of a kind that the purpose does not have.
    #[error("{purpose} schedules have no such kind: only build schedules say `with send`")]
    Purpose {
        /// What it would be for.
        purpose: Purpose,
    },
    /// It is too long, or has characters that nobody can see.
    #[error("a schedule has at most {most} bytes and no control characters")]
    Text {
        /// The most bytes that it may have.
        most: usize,
    },
}

impl Coded for ScheduleError {
    fn code(&self) -> &'static str {
        match self.problem {
            Problem::Start => "TED-1610",
            Problem::Time => "TED-1611",
            Problem::Duration { .. } => "TED-1612",
            Problem::Cron { .. } => "TED-1613",
            Problem::Clause { .. } => "TED-1614",
            Problem::Zone => "TED-1615",
            Problem::Impossible => "TED-1616",
            Problem::Purpose { .. } => "TED-1617",
            Problem::Text { .. } => "TED-1618",
        }
    }
}
