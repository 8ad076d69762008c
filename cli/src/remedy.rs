//! What to do about each error, and how a command ends on it. The words are those of `docs/errors.md`, which is built
//! in, so that what is printed and what is documented are the same.

use crate::error::code;
use crate::exit::Exit;

/// `docs/errors.md`; a link, so that the packaged crate has it too.
const DOCUMENT: &str = include_str!("../errors.md");

/// The remedy for `code`, where the document knows one.
#[must_use]
pub fn of(code: &str) -> Option<&'static str> {
    let remedy = row(code)?;
    // One step is enough: no row refers to a row that refers on.
    match remedy.strip_prefix("As for ").and_then(|rest| rest.get(..code.len())).and_then(row) {
        Some(other) => Some(other),
        None => Some(remedy),
    }
}

/// The last cell of the code's row in the document's table.
fn row(code: &str) -> Option<&'static str> {
    let mut rows = DOCUMENT.lines().filter(|line| line.starts_with("| TED-"));
    let line = rows.find(|line| {
        line.strip_prefix("| ").and_then(|rest| rest.strip_prefix(code)).is_some_and(|rest| rest.starts_with(" | "))
    })?;
    line.strip_suffix(" |")?.rsplit_once(" | ").map(|(_, remedy)| remedy)
}

/// How a command ends on `code`: [`Exit::Failure`] unless the code says more.
#[must_use]
pub fn exit_of(code: &str) -> Exit {
    match code {
        // What was typed on the command line, and a body that a command made of it.
        "TED-1003" | "TED-1004" | "TED-1005" | "TED-1201" | "TED-1372" | "TED-1373" | "TED-1607" | "TED-1609"
        | "TED-1705" => Exit::Usage,
        code::BAD_REQUEST => Exit::Usage,
        _ if code.starts_with("TED-161") => Exit::Usage,
        code::PARTLY_DELIVERED | code::PARTLY_RESOLVED => Exit::PartlyDelivered,
        code::TIMEOUT => Exit::Timeout,
        code::SOCKET | code::NO_DAEMON | code::BAD_ANSWER => Exit::Unreachable,
        // Nobody answers at the other end, or the connection broke.
        "TED-1310" | "TED-1311" | "TED-1312" | "TED-1313" | "TED-1323" | "TED-1324" => Exit::Unreachable,
        "TED-1855" => Exit::Unreachable,
        code::ORIGIN_UNKNOWN | code::ORIGIN_REFUSED => Exit::Refused,
        // Nobody is trusted, or the other side does not let this node in.
        "TED-1853" | "TED-1856" | "TED-1857" | "TED-1867" => Exit::Refused,
        // Damaged packages, certificates and signatures that do not hold, and connections that are judged badly.
        _ if ["TED-110", "TED-112", "TED-130"].iter().any(|range| code.starts_with(range)) => Exit::Refused,
        "TED-1011" | "TED-1013" | "TED-1015" | "TED-1016" | "TED-1017" | "TED-1018" | "TED-1019" => Exit::Refused,
        "TED-1110" | "TED-1111" | "TED-1144" | "TED-1150" | "TED-1151" | "TED-1152" | "TED-1202" | "TED-1203"
        | "TED-1217" | "TED-1314" | "TED-1401" => Exit::Refused,
        _ => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_the_documents_own_words() {
        assert_eq!(of("TED-1012"), Some("Update this node."));
        assert_eq!(of("TED-1002"), of("TED-1001"), "a reference is followed");
        assert_eq!(of("TED-1016").map(|remedy| remedy.starts_with("Fetch it again")), Some(true));
        for unknown in ["TED-99999", "TED-101", "", "code", "TED-1011 |"] {
            assert_eq!(of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_reference_leads_to_a_remedy() {
        for line in DOCUMENT.lines().filter(|line| line.starts_with("| TED-")) {
            let code = line.split(' ').nth(1).expect("a code");
            let remedy = of(code).expect(code);
            assert!(!remedy.is_empty() && !remedy.starts_with("As for"), "{code}: {remedy}");
        }
    }

    #[test]
    fn no_error_reads_as_success() {
        for (code, exit) in [
            (code::PARTLY_DELIVERED, Exit::PartlyDelivered),
            (code::TIMEOUT, Exit::Timeout),
            (code::NO_DAEMON, Exit::Unreachable),
            ("TED-1324", Exit::Unreachable),
            ("TED-1105", Exit::Refused),
            ("TED-1217", Exit::Refused),
            ("TED-1373", Exit::Usage),
            ("TED-1016", Exit::Refused),
            ("TED-1004", Exit::Usage),
            ("TED-1501", Exit::Failure),
            ("TED-99999", Exit::Failure),
        ] {
            assert_eq!(exit_of(code), exit, "{code}");
        }
    }
}
