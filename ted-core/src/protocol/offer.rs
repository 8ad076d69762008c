//! Judging what is offered: floors, the time a statement holds, and what a package's root must say.

use serde::{Deserialize, Serialize};

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis};
use crate::limits::Limits;
use crate::package::{PackageKind, Root};
use crate::protocol::{Refused, code};
use crate::security::{Carried, PackageRef, ReleaseStatement};

/// Below what a Subscriber does not go for one Distribution of one Distributor, unless its operator rolls back.
///
/// `issued` rises when a statement is accepted, `revision` when one is verified. Both are kept fsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The newest revision that was verified.
    pub revision: Revision,
    /// When the newest statement that was accepted was issued.
    pub issued: UnixMillis,
}

impl Floor {
    /// The floor of a Distribution of which nothing has come yet.
    pub const NONE: Self = Self { revision: Revision::from_number(0), issued: UnixMillis::from_millis(0) };

    /// The higher of the two in each part: floors never sink.
    #[must_use]
    pub fn raised_to(self, other: Self) -> Self {
        Self { revision: self.revision.max(other.revision), issued: self.issued.max(other.issued) }
    }
}

/// A release statement whose envelope's signature was verified, with the times that stand in the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it states.
    pub release: ReleaseStatement,
    /// When it was issued.
    pub issued: UnixMillis,
    /// The first moment at which it does not hold any more.
    pub expires: UnixMillis,
}

/// What a Subscriber has of a Distribution when an offer comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Have {
    /// The revision whose packages are complete and verified.
    pub verified: Option<Revision>,
    /// The revision that is being received.
    pub receiving: Option<Revision>,
}

/// What to make of an offered statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Take it: nothing is in flight.
    Take,
    /// It names the revision that is in flight: go on with that.
    InFlight,
    /// Take it once what is in flight is finished.
    TakeNext,
    /// Its revision is here and verified.
    Current,
    /// Its time is over: keep what is here, take nothing new, raise an alarm.
    Expired(Refused),
    /// Not acceptable.
    Refused(Refused),
}

/// Judges a statement by the floor, the time and what is here already.
///
/// The rules are those of section 5 of the design, "Release statements". `now` is the node's idea of the time:
/// the later of its clock and the latest time that the Distributor signed.
#[must_use]
pub fn judge_offer(floor: &Floor, statement: &Statement, now: UnixMillis, have: &Have, limits: &Limits) -> Verdict {
    let revision = statement.release.revision;
    if let Some(reason) = contradiction(statement, limits) {
        return Verdict::Refused(Refused::new(code::BAD_STATEMENT, reason));
    }
    if statement.expires <= now {
        let reason = format!("the statement about revision {revision} has expired");
        return Verdict::Expired(Refused::new(code::STATEMENT_EXPIRED, reason));
    }
    if is_below(floor, statement) {
        let reason = format!(
            "revision {revision}, stated at {}, lies below revision {}, stated at {}",
            statement.issued.millis(),
            floor.revision,
            floor.issued.millis()
        );
        return Verdict::Refused(Refused::new(code::BELOW_FLOOR, reason));
    }
    match have.receiving {
        _ if have.verified == Some(revision) => Verdict::Current,
        Some(receiving) if receiving == revision => Verdict::InFlight,
        Some(_) => Verdict::TakeNext,
        None => Verdict::Take,
    }
}

fn is_below(floor: &Floor, statement: &Statement) -> bool {
    statement.issued < floor.issued || statement.release.revision < floor.revision
}

fn contradiction(statement: &Statement, limits: &Limits) -> Option<&'static str> {
    let release = &statement.release;
    let leads_back = |package: &PackageRef| match package.carried {
        Carried::Baseline { .. } => false,
        Carried::Delta { base, revision } => base >= revision,
    };
    if release.packages.len() > limits.statement_packages_max {
        Some("it names too many packages")
    } else if statement.expires <= statement.issued {
        Some("it expires before it is issued")
    } else if release.packages.iter().any(leads_back) {
        Some("it names a delta that does not lead forward")
    } else {
        None
    }
}

/// Whether a package's root, verified as the Distributor's, is what a statement says of that package.
///
/// # Errors
/// [`code::ROOT_DIFFERS`], naming what differs.
pub fn judge_root(
    root: &Root,
    distributor: &KeyHash,
    distribution: &DistributionId,
    package: &PackageRef,
) -> Result<(), Refused> {
    let (revision, kind) = match package.carried {
        Carried::Baseline { revision } => (revision, PackageKind::Baseline),
        Carried::Delta { base, revision } => (revision, PackageKind::Delta { base }),
    };
    let differs = if root.distributor != *distributor {
        "the Distributor"
    } else if root.distribution != *distribution {
        "the Distribution"
    } else if root.revision != revision {
        "the revision"
    } else if root.kind != kind {
        "what the package holds"
    } else {
        return Ok(());
    };
    Err(Refused::new(code::ROOT_DIFFERS, format!("the package's root and the release statement differ in {differs}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Hash, PackageId};
    use crate::package::{BodyDigest, ROOT_CONTEXT, Suite};

    fn revision(number: u64) -> Revision {
        Revision::from_number(number)
    }

    fn at(millis: u64) -> UnixMillis {
        UnixMillis::from_millis(millis)
    }

    fn statement(number: u64, issued: u64, expires: u64) -> Statement {
        let baseline = PackageRef {
            id: PackageId::from_bytes([1; 32]),
            carried: Carried::Baseline { revision: revision(number) },
            bytes: 1000,
        };
        Statement {
            release: ReleaseStatement {
                distribution: DistributionId::from_bytes([2; 16]),
                revision: revision(number),
                packages: vec![baseline],
                extensions: Vec::new(),
            },
            issued: at(issued),
            expires: at(expires),
        }
    }

    fn verdict(statement: &Statement, verified: Option<u64>, receiving: Option<u64>) -> String {
        let floor = Floor { revision: revision(10), issued: at(100) };
        let have = Have { verified: verified.map(revision), receiving: receiving.map(revision) };
        match judge_offer(&floor, statement, at(500), &have, &Limits::DEFAULT) {
            Verdict::Expired(refused) => format!("Expired {}", refused.code()),
            Verdict::Refused(refused) => format!("Refused {}", refused.code()),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn offers_are_judged_by_floor_time_and_what_is_here() {
        for (number, issued, expires, verified, receiving, expected) in [
            (11, 101, 900, Some(10), None, "Take"),
            (11, 101, 900, None, None, "Take"),
            (10, 100, 900, None, None, "Take"), // The floor itself: its package was lost.
            (10, 100, 900, Some(10), None, "Current"),
            (10, 400, 900, Some(10), None, "Current"), // A renewed statement.
            (11, 101, 900, Some(10), Some(11), "InFlight"),
            (12, 102, 900, Some(10), Some(11), "TakeNext"),
            (9, 101, 900, Some(10), None, "Refused TED-1351"),
            (11, 99, 900, Some(10), None, "Refused TED-1351"),
            (9, 99, 900, Some(9), None, "Refused TED-1351"), // What is here does not matter below the floor.
            (11, 101, 500, Some(10), None, "Expired TED-1350"),
            (11, 101, 501, Some(10), None, "Take"),
            (10, 100, 400, Some(10), None, "Expired TED-1350"), // Alarm even if nothing new is offered.
            (11, 600, 600, None, None, "Refused TED-1352"),
        ] {
            let offered = statement(number, issued, expires);
            assert_eq!(verdict(&offered, verified, receiving), expected, "{number} {issued} {expires}");
        }
    }

    #[test]
    fn statements_that_contradict_themselves_are_refused() {
        let mut many = statement(11, 101, 900);
        many.release.packages = vec![many.release.packages[0]; Limits::DEFAULT.statement_packages_max + 1];
        assert_eq!(verdict(&many, None, None), "Refused TED-1352");
        let mut back = statement(11, 101, 900);
        back.release.packages[0].carried = Carried::Delta { base: revision(11), revision: revision(11) };
        assert_eq!(verdict(&back, None, None), "Refused TED-1352");
    }

    #[test]
    fn floors_only_rise() {
        let floor = |number, issued| Floor { revision: revision(number), issued: at(issued) };
        for (from, to, raised) in [
            (Floor::NONE, floor(5, 50), floor(5, 50)),
            (floor(5, 50), floor(4, 60), floor(5, 60)),
            (floor(5, 60), floor(6, 1), floor(6, 60)),
            (floor(6, 60), floor(6, 60), floor(6, 60)),
        ] {
            assert_eq!(from.raised_to(to), raised);
        }
    }

    #[test]
    fn a_root_must_be_what_the_statement_says() {
        let good = Root {
            context: ROOT_CONTEXT.to_owned(),
            distribution: DistributionId::from_bytes([2; 16]),
            distributor: KeyHash::from_bytes([1; 32]),
            revision: revision(11),
            created: at(1),
            kind: PackageKind::Baseline,
            suite: Suite::None,
            frame_bytes: 4,
            level: 3,
            body_frames: 1,
            catalog_frames: 1,
            body_bytes: 1,
            body_raw_bytes: 1,
            catalog_bytes: 1,
            table: Hash::of(b""),
            digest: BodyDigest::None,
            disclosure: None,
        };
        let package = statement(11, 1, 2).release.packages[0];
        let judge = |root: &Root| judge_root(root, &good.distributor, &good.distribution, &package);
        assert_eq!(judge(&good), Ok(()));
        for bad in [
            Root { distributor: KeyHash::from_bytes([7; 32]), ..good.clone() },
            Root { distribution: DistributionId::from_bytes([7; 16]), ..good.clone() },
            Root { revision: revision(12), ..good.clone() },
            Root { kind: PackageKind::Delta { base: revision(10) }, ..good.clone() },
        ] {
            assert_eq!(judge(&bad).expect_err("differs").code(), code::ROOT_DIFFERS);
        }
    }
}
