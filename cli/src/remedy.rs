//! What to do about each error: one table by code. The library's errors carry codes only; the words are here.

use crate::error::code;
use crate::exit::Exit;

/// What is known about one code.
struct Entry {
    code: &'static str,
    exit: Exit,
    remedy: &'static str,
}

/// The remedy for `code`, where one is known.
#[must_use]
pub fn of(code: &str) -> Option<&'static str> {
    find(code).map(|entry| entry.remedy).filter(|remedy| !remedy.is_empty())
}

/// How a command ends on `code`: [`Exit::Failure`] where the table says nothing else.
#[must_use]
pub fn exit_of(code: &str) -> Exit {
    find(code).map_or(Exit::Failure, |entry| entry.exit)
}

fn find(code: &str) -> Option<&'static Entry> {
    TABLE.binary_search_by(|entry| entry.code.cmp(code)).ok().map(|place| &TABLE[place])
}

const fn entry(code: &'static str, exit: Exit, remedy: &'static str) -> Entry {
    Entry { code, exit, remedy }
}

/// Ordered by code.
const TABLE: &[Entry] = &[
    entry("TED-1003", Exit::Usage, "copy the identifier as `list` or `show` print it"),
    entry("TED-1004", Exit::Usage, "name nodes by a DNS name such as dist.example.com, or by an IP address"),
    entry("TED-1005", Exit::Usage, "use 1 to 64 letters, digits, dots, hyphens and underscores"),
    entry(code::CONFIG_FILE, Exit::Failure, "correct the path after --config, or make the file readable"),
    entry(code::CONFIG_CONTENT, Exit::Failure, "correct the configuration file at the place named"),
    entry(code::CONFIG_VARIABLE, Exit::Failure, "correct or unset the variable"),
    entry(code::UNKNOWN_OPERATION, Exit::Failure, "the daemon may be older than this command: restart it"),
    entry(code::BAD_REQUEST, Exit::Usage, "the daemon may be older than this command: restart it"),
    entry(code::SOCKET, Exit::Unreachable, "run the command as the user the daemon runs as, and see its log"),
    entry(code::NO_DAEMON, Exit::Unreachable, "start it with the command `run`, or name its --data-dir"),
    entry(code::BAD_ANSWER, Exit::Unreachable, "see the daemon's log; it may have ended meanwhile"),
    entry(code::PARTLY_DELIVERED, Exit::PartlyDelivered, "see the failed deliveries above, mend them and send again"),
    entry(code::TIMEOUT, Exit::Timeout, "the firing goes on; look at `status`, or end it with `cancel`"),
    entry(code::FILE, Exit::Failure, "check the path and its permissions"),
    entry(code::STATE, Exit::Failure, ""),
    entry(code::ORIGIN_UNKNOWN, Exit::Refused, "name the Distributor's certificate with --certificate NAME.cer"),
    entry(code::NO_SUCH_ENTRY, Exit::Failure, "`package ls` lists what the package holds"),
    entry(code::ORIGIN_REFUSED, Exit::Refused, "bring the .cer of the Distributor that built the package"),
    entry(code::DOCTOR, Exit::Failure, "follow the remedies above"),
    entry(code::ARGUMENT, Exit::Usage, ""),
    entry(code::NOT_DELIVERED, Exit::Failure, "see the failed deliveries above, mend them and send again"),
    entry(code::CANCELLED, Exit::Failure, "send again when it should be delivered after all"),
    entry(code::NOT_WHOLE, Exit::Failure, "run `extract`: it puts the files in order; damaged packages come again"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_by_code_and_no_entry_reads_as_success() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(TABLE.iter().all(|entry| entry.exit != Exit::Success));
        assert!(TABLE.iter().all(|entry| entry.code.len() >= 8 && entry.code.starts_with("TED-")));
    }

    #[test]
    fn unknown_codes_fail_without_a_remedy() {
        assert_eq!(of("TED-9999"), None);
        assert_eq!(exit_of("TED-9999"), Exit::Failure);
        assert_eq!(exit_of(code::TIMEOUT), Exit::Timeout);
    }
}
