//! One Distribution at one Subscriber: which offers are taken, in which order packages are received, and when the
//! floor rises.

use std::collections::VecDeque;

use crate::id::{FiringId, PackageId, Revision, UnixMillis};
use crate::limits::Limits;
use crate::protocol::chain::{baseline_chain, cheapest_chain};
use crate::protocol::{Floor, Have, OfferAnswer, Refused, Statement, Verdict, code, judge_offer};
use crate::security::{Carried, PackageRef, ReleaseStatement};

/// What the driver does about a delivery, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryAction {
    /// Make this floor durable before anything else happens, the answer to the offer included.
    RaiseFloor(Floor),
    /// Receive this package; report its end with [`Delivery::ended`].
    Receive {
        /// The firing on whose behalf.
        firing: FiringId,
        /// The package.
        package: PackageRef,
    },
    /// All packages of this revision are here and verified: it may be extracted.
    Complete {
        /// The firing on whose behalf.
        firing: FiringId,
        /// The revision.
        revision: Revision,
    },
    /// Tell the operator.
    Alarm(Refused),
}

/// How the reception of a package ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// It is complete on disk and was verified whole.
    Verified,
    /// It is damaged; nothing more is tried before the next firing.
    Corrupt,
    /// It is a delta, and what it goes from is not here after all: the baseline is taken instead.
    NoBase,
    /// It stopped for another reason; the next offer resumes.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Accepted {
    firing: FiringId,
    statement: Statement,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct InFlight {
    firing: FiringId,
    revision: Revision,
    /// What is still to come; the first is being received.
    chain: VecDeque<PackageRef>,
    /// What does without any base, where one is named.
    baseline: Option<PackageRef>,
}

/// The state of one Distribution at one Subscriber. What must outlive the process is the floor and the verified
/// packages themselves; the rest is offered again.
#[derive(Debug, Clone)]
pub struct Delivery {
    floor: Floor,
    verified: Option<Revision>,
    starts: Vec<Revision>,
    in_flight: Option<InFlight>,
    next: Option<Accepted>,
    corrupt: Option<(FiringId, Revision)>,
    limits: Limits,
}

impl Delivery {
    /// Goes on with this floor and the newest revision of which verified packages are on disk.
    #[must_use]
    pub fn new(floor: Floor, verified: Option<Revision>, limits: Limits) -> Self {
        Self { floor, verified, starts: Vec::new(), in_flight: None, next: None, corrupt: None, limits }
    }

    /// The floor.
    #[must_use]
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// What is here and what is coming.
    #[must_use]
    pub fn have(&self) -> Have {
        Have { verified: self.verified, receiving: self.in_flight.as_ref().map(|in_flight| in_flight.revision) }
    }

    /// The firing on whose behalf something is being received.
    #[must_use]
    pub fn firing(&self) -> Option<FiringId> {
        self.in_flight.as_ref().map(|in_flight| in_flight.firing)
    }

    /// The revisions that are here, so that a delta may go from them. To be told before each offer and each end.
    pub fn start_from(&mut self, starts: Vec<Revision>) {
        self.starts = starts;
    }

    /// What is here of `revision` leads to no files, although it is verified: the baseline of the newest statement that
    /// was accepted is received. Nothing happens while something is in flight, and where none is named.
    pub fn fall_back(&mut self, firing: FiringId, release: &ReleaseStatement) -> Option<DeliveryAction> {
        if self.in_flight.is_some() {
            return None;
        }
        self.verified = None;
        self.starts.clear();
        self.start(firing, release, baseline_chain(release)?)
    }

    /// The packages of `revision` are damaged and were set aside: it counts as not here any more. What `firing`, the
    /// last one that was heard of, offers of it is refused; another one brings what lacks.
    pub fn set_aside(&mut self, revision: Revision, firing: Option<FiringId>) {
        self.verified = self.verified.filter(|verified| *verified != revision);
        if let Some(firing) = firing
            && self.corrupt.is_none_or(|(_, known)| known <= revision)
        {
            self.corrupt = Some((firing, revision));
        }
    }

    /// A parent offers a revision in the course of a firing. `now` is the node's idea of the time.
    pub fn offer(
        &mut self,
        firing: FiringId,
        statement: &Statement,
        now: UnixMillis,
    ) -> (OfferAnswer, Vec<DeliveryAction>) {
        let revision = statement.release.revision;
        match judge_offer(&self.floor, statement, now, &self.have(), &self.limits) {
            Verdict::Refused(refused) => (OfferAnswer::Refused(refused), Vec::new()),
            Verdict::Expired(refused) => (OfferAnswer::Refused(refused.clone()), vec![DeliveryAction::Alarm(refused)]),
            Verdict::Current => {
                self.next = None;
                (OfferAnswer::Current, self.accept(statement))
            }
            Verdict::InFlight => {
                self.next = None;
                let actions = self.accept(statement);
                let mut packages = Vec::new();
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.firing = firing;
                    packages.extend(in_flight.chain.iter().map(|package| package.id));
                }
                (OfferAnswer::Want { packages }, actions)
            }
            Verdict::Take | Verdict::TakeNext if self.corrupt == Some((firing, revision)) => {
                let reason = format!("revision {revision} arrived damaged; the Channel's next firing is awaited");
                (OfferAnswer::Refused(Refused::new(code::CORRUPT, reason)), Vec::new())
            }
            verdict @ (Verdict::Take | Verdict::TakeNext) => {
                let Some(chain) = cheapest_chain(&statement.release, &self.starts_for(&verdict)) else {
                    let reason = format!("nothing that leads to revision {revision} is named");
                    return (OfferAnswer::Refused(Refused::new(code::NO_USABLE_PACKAGE, reason)), Vec::new());
                };
                let answer = OfferAnswer::Want { packages: chain.iter().map(|package| package.id).collect() };
                let mut actions = self.accept(statement);
                if verdict == Verdict::Take {
                    actions.extend(self.start(firing, &statement.release, chain));
                } else {
                    self.next = Some(Accepted { firing, statement: statement.clone() });
                }
                (answer, actions)
            }
        }
    }

    /// The reception of `package` ended. A package that is not being received changes nothing.
    pub fn ended(&mut self, package: &PackageId, end: DeliveryEnd, now: UnixMillis) -> Vec<DeliveryAction> {
        let Some(mut in_flight) = self.in_flight.take_if(|in_flight| is_first(in_flight, package)) else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        match end {
            DeliveryEnd::Verified => {
                let revision = in_flight.chain.pop_front().map_or(in_flight.revision, |done| match done.carried {
                    Carried::Baseline { revision } | Carried::Delta { revision, .. } => revision,
                });
                self.verified = self.verified.max(Some(revision));
                self.starts.push(revision);
                actions.extend(self.raise(Floor { revision, ..Floor::NONE }));
                if let Some(package) = in_flight.chain.front() {
                    actions.push(DeliveryAction::Receive { firing: in_flight.firing, package: *package });
                    self.in_flight = Some(in_flight);
                    return actions;
                }
                actions.push(DeliveryAction::Complete { firing: in_flight.firing, revision });
            }
            DeliveryEnd::Corrupt => self.corrupt = Some((in_flight.firing, in_flight.revision)),
            DeliveryEnd::NoBase => {
                let baseline = in_flight.baseline.filter(|baseline| baseline.id != *package);
                if let Some(baseline) = baseline {
                    self.starts.clear();
                    actions.push(DeliveryAction::Receive { firing: in_flight.firing, package: baseline });
                    self.in_flight = Some(InFlight { chain: VecDeque::from([baseline]), ..in_flight });
                    return actions;
                }
            }
            DeliveryEnd::Stopped => {}
        }
        if let Some(next) = self.next.take() {
            // It waited, so that it is judged again: its time may be over, or the floor above it by now.
            let (_, more) = self.offer(next.firing, &next.statement, now);
            actions.extend(more);
        }
        actions
    }

    fn accept(&mut self, statement: &Statement) -> Vec<DeliveryAction> {
        self.raise(Floor { issued: statement.issued, ..Floor::NONE })
    }

    fn raise(&mut self, to: Floor) -> Vec<DeliveryAction> {
        let raised = self.floor.raised_to(to);
        if raised == self.floor {
            return Vec::new();
        }
        self.floor = raised;
        vec![DeliveryAction::RaiseFloor(raised)]
    }

    /// Where a chain may begin: what waits for something in flight will find that here.
    fn starts_for(&self, verdict: &Verdict) -> Vec<Revision> {
        let coming = self.in_flight.as_ref().filter(|_| *verdict == Verdict::TakeNext);
        self.starts.iter().copied().chain(coming.map(|in_flight| in_flight.revision)).collect()
    }

    fn start(
        &mut self,
        firing: FiringId,
        release: &ReleaseStatement,
        chain: Vec<PackageRef>,
    ) -> Option<DeliveryAction> {
        let package = *chain.first()?;
        let (revision, baseline) = (release.revision, release.baseline().copied());
        self.in_flight = Some(InFlight { firing, revision, chain: chain.into(), baseline });
        Some(DeliveryAction::Receive { firing, package })
    }
}

fn is_first(in_flight: &InFlight, package: &PackageId) -> bool {
    in_flight.chain.front().is_some_and(|first| first.id == *package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DistributionId;

    const FIRST: FiringId = FiringId::from_bytes([1; 16]);
    const SECOND: FiringId = FiringId::from_bytes([2; 16]);
    const NOW: UnixMillis = UnixMillis::from_millis(500);

    fn revision(number: u64) -> Revision {
        Revision::from_number(number)
    }

    fn package(number: u8) -> PackageRef {
        let carried = Carried::Baseline { revision: revision(number.into()) };
        PackageRef { id: PackageId::from_bytes([number; 32]), carried, bytes: 10 }
    }

    fn statement(number: u8, issued: u64) -> Statement {
        Statement {
            release: ReleaseStatement {
                distribution: DistributionId::from_bytes([2; 16]),
                revision: revision(number.into()),
                packages: vec![package(number)],
                extensions: Vec::new(),
            },
            issued: UnixMillis::from_millis(issued),
            expires: UnixMillis::from_millis(1000),
        }
    }

    fn floor(revision_number: u64, issued: u64) -> DeliveryAction {
        DeliveryAction::RaiseFloor(Floor {
            revision: revision(revision_number),
            issued: UnixMillis::from_millis(issued),
        })
    }

    fn receive(firing: FiringId, number: u8) -> DeliveryAction {
        DeliveryAction::Receive { firing, package: package(number) }
    }

    fn want(number: u8) -> OfferAnswer {
        OfferAnswer::Want { packages: vec![package(number).id] }
    }

    fn fresh() -> Delivery {
        Delivery::new(Floor::NONE, None, Limits::DEFAULT)
    }

    #[test]
    fn the_floor_rises_on_acceptance_and_on_verification() {
        let mut delivery = fresh();
        let (answer, actions) = delivery.offer(FIRST, &statement(5, 100), NOW);
        assert_eq!((answer, actions), (want(5), vec![floor(0, 100), receive(FIRST, 5)]));
        let actions = delivery.ended(&package(5).id, DeliveryEnd::Verified, NOW);
        let complete = DeliveryAction::Complete { firing: FIRST, revision: revision(5) };
        assert_eq!(actions, [floor(5, 100), complete]);
        assert_eq!(delivery.offer(FIRST, &statement(5, 100), NOW), (OfferAnswer::Current, vec![]));
        assert_eq!(delivery.offer(FIRST, &statement(5, 101), NOW), (OfferAnswer::Current, vec![floor(5, 101)]));
        let (answer, _) = delivery.offer(SECOND, &statement(4, 200), NOW);
        assert!(matches!(answer, OfferAnswer::Refused(refused) if refused.code() == code::BELOW_FLOOR));
    }

    #[test]
    fn a_newer_statement_lets_what_is_in_flight_finish_first() {
        let mut delivery = fresh();
        delivery.offer(FIRST, &statement(5, 100), NOW);
        assert_eq!(delivery.offer(SECOND, &statement(6, 110), NOW), (want(6), vec![floor(0, 110)]));
        let actions = delivery.ended(&package(5).id, DeliveryEnd::Verified, NOW);
        let complete = DeliveryAction::Complete { firing: FIRST, revision: revision(5) };
        assert_eq!(actions, [floor(5, 110), complete, receive(SECOND, 6)]);
    }

    #[test]
    fn a_statement_that_waited_is_judged_again() {
        let mut delivery = fresh();
        delivery.offer(FIRST, &statement(5, 100), NOW);
        delivery.offer(SECOND, &statement(6, 110), NOW);
        let late = UnixMillis::from_millis(1000);
        let actions = delivery.ended(&package(5).id, DeliveryEnd::Stopped, late);
        assert!(matches!(&actions[..], [DeliveryAction::Alarm(refused)] if refused.code() == code::STATEMENT_EXPIRED));
    }

    #[test]
    fn what_is_in_flight_is_confirmed_when_it_is_offered_again() {
        let mut delivery = fresh();
        delivery.offer(FIRST, &statement(5, 100), NOW);
        assert_eq!(delivery.offer(SECOND, &statement(5, 100), NOW), (want(5), vec![]));
        let actions = delivery.ended(&package(5).id, DeliveryEnd::Verified, NOW);
        assert_eq!(actions[1], DeliveryAction::Complete { firing: SECOND, revision: revision(5) });
    }

    #[test]
    fn a_damaged_package_is_tried_again_only_by_another_firing() {
        let mut delivery = fresh();
        delivery.offer(FIRST, &statement(5, 100), NOW);
        assert_eq!(delivery.ended(&package(5).id, DeliveryEnd::Corrupt, NOW), []);
        let (answer, actions) = delivery.offer(FIRST, &statement(5, 100), NOW);
        assert!(matches!(answer, OfferAnswer::Refused(refused) if refused.code() == code::CORRUPT));
        assert_eq!(actions, []);
        assert_eq!(delivery.offer(SECOND, &statement(5, 100), NOW), (want(5), vec![receive(SECOND, 5)]));
    }

    #[test]
    fn a_package_that_was_set_aside_comes_again_with_the_next_firing_and_not_before() {
        let mut delivery = fresh();
        delivery.offer(FIRST, &statement(5, 100), NOW);
        delivery.ended(&package(5).id, DeliveryEnd::Verified, NOW);
        delivery.set_aside(revision(5), Some(FIRST));
        assert_eq!(delivery.have(), Have::default());
        let (answer, actions) = delivery.offer(FIRST, &statement(5, 100), NOW);
        assert!(matches!(answer, OfferAnswer::Refused(refused) if refused.code() == code::CORRUPT));
        assert_eq!(actions, []);
        assert_eq!(delivery.offer(SECOND, &statement(5, 100), NOW), (want(5), vec![receive(SECOND, 5)]));
    }

    #[test]
    fn setting_an_older_revision_aside_does_not_free_a_newer_one_that_arrived_damaged() {
        let mut delivery = fresh();
        delivery.offer(FIRST, &statement(5, 100), NOW);
        delivery.ended(&package(5).id, DeliveryEnd::Verified, NOW);
        delivery.offer(SECOND, &statement(6, 110), NOW);
        delivery.ended(&package(6).id, DeliveryEnd::Corrupt, NOW);
        delivery.set_aside(revision(5), Some(SECOND));
        let (answer, _) = delivery.offer(SECOND, &statement(6, 110), NOW);
        assert!(matches!(answer, OfferAnswer::Refused(refused) if refused.code() == code::CORRUPT));
    }

    #[test]
    fn a_stopped_reception_resumes_with_the_next_offer() {
        let mut delivery = fresh();
        delivery.offer(FIRST, &statement(5, 100), NOW);
        assert_eq!(delivery.ended(&package(9).id, DeliveryEnd::Verified, NOW), [], "not that one");
        assert_eq!(delivery.ended(&package(5).id, DeliveryEnd::Stopped, NOW), []);
        assert_eq!(delivery.offer(FIRST, &statement(5, 100), NOW), (want(5), vec![receive(FIRST, 5)]));
    }

    #[test]
    fn a_statement_without_a_usable_package_raises_no_floor() {
        let mut delivery = fresh();
        let mut empty = statement(5, 100);
        empty.release.packages.clear();
        let (answer, actions) = delivery.offer(FIRST, &empty, NOW);
        assert!(matches!(answer, OfferAnswer::Refused(refused) if refused.code() == code::NO_USABLE_PACKAGE));
        assert_eq!(actions, []);
        assert_eq!(delivery.floor(), Floor::NONE);
    }

    fn delta(base: u8, number: u8) -> PackageRef {
        let carried = Carried::Delta { base: revision(base.into()), revision: revision(number.into()) };
        PackageRef { id: PackageId::from_bytes([base * 16 + number; 32]), carried, bytes: 2 }
    }

    /// A baseline and these deltas.
    fn with_deltas(number: u8, issued: u64, deltas: &[(u8, u8)]) -> Statement {
        let mut statement = statement(number, issued);
        statement.release.packages.extend(deltas.iter().map(|&(base, number)| delta(base, number)));
        statement
    }

    fn received(package: PackageRef) -> DeliveryAction {
        DeliveryAction::Receive { firing: FIRST, package }
    }

    #[test]
    fn a_chain_is_received_step_by_step_and_each_step_counts() {
        let mut delivery = fresh();
        delivery.start_from(vec![revision(3)]);
        let statement = with_deltas(5, 100, &[(3, 4), (4, 5)]);
        let (answer, actions) = delivery.offer(FIRST, &statement, NOW);
        assert_eq!(answer, OfferAnswer::Want { packages: vec![delta(3, 4).id, delta(4, 5).id] });
        assert_eq!(actions, [floor(0, 100), received(delta(3, 4))]);
        let actions = delivery.ended(&delta(3, 4).id, DeliveryEnd::Verified, NOW);
        assert_eq!(actions, [floor(4, 100), received(delta(4, 5))]);
        assert_eq!(delivery.have(), Have { verified: Some(revision(4)), receiving: Some(revision(5)) });
        let actions = delivery.ended(&delta(4, 5).id, DeliveryEnd::Verified, NOW);
        assert_eq!(actions, [floor(5, 100), DeliveryAction::Complete { firing: FIRST, revision: revision(5) }]);
    }

    #[test]
    fn a_chain_that_stopped_in_the_middle_goes_on_from_there() {
        let mut delivery = fresh();
        delivery.start_from(vec![revision(3)]);
        let statement = with_deltas(5, 100, &[(3, 4), (4, 5)]);
        delivery.offer(FIRST, &statement, NOW);
        delivery.ended(&delta(3, 4).id, DeliveryEnd::Verified, NOW);
        delivery.ended(&delta(4, 5).id, DeliveryEnd::Stopped, NOW);
        let (_, actions) = delivery.offer(FIRST, &statement, NOW);
        assert_eq!(actions, [received(delta(4, 5))]);
    }

    #[test]
    fn without_its_base_a_delta_makes_way_for_the_baseline_in_the_same_firing() {
        let mut delivery = fresh();
        delivery.start_from(vec![revision(3)]);
        delivery.offer(FIRST, &with_deltas(5, 100, &[(3, 4), (4, 5)]), NOW);
        delivery.ended(&delta(3, 4).id, DeliveryEnd::Verified, NOW);
        let actions = delivery.ended(&delta(4, 5).id, DeliveryEnd::NoBase, NOW);
        assert_eq!(actions, [receive(FIRST, 5)]);
        let actions = delivery.ended(&package(5).id, DeliveryEnd::Verified, NOW);
        assert_eq!(actions, [floor(5, 100), DeliveryAction::Complete { firing: FIRST, revision: revision(5) }]);
    }

    #[test]
    fn without_base_and_baseline_nothing_more_is_tried() {
        let mut delivery = fresh();
        delivery.start_from(vec![revision(4)]);
        let mut statement = with_deltas(5, 100, &[(4, 5)]);
        statement.release.packages.remove(0);
        delivery.offer(FIRST, &statement, NOW);
        assert_eq!(delivery.ended(&delta(4, 5).id, DeliveryEnd::NoBase, NOW), []);
        assert_eq!(delivery.have().receiving, None);
    }

    #[test]
    fn what_turns_out_to_be_of_no_use_is_followed_by_the_baseline() {
        let mut delivery = fresh();
        delivery.start_from(vec![revision(4)]);
        let statement = with_deltas(5, 100, &[(4, 5)]);
        delivery.offer(FIRST, &statement, NOW);
        assert_eq!(delivery.fall_back(FIRST, &statement.release), None, "while it is in flight");
        delivery.ended(&delta(4, 5).id, DeliveryEnd::Verified, NOW);
        assert_eq!(delivery.fall_back(FIRST, &statement.release), Some(receive(FIRST, 5)));
        assert_eq!(delivery.offer(SECOND, &statement, NOW).0, want(5), "it goes on with that");
        let actions = delivery.ended(&package(5).id, DeliveryEnd::Verified, NOW);
        assert_eq!(actions, [DeliveryAction::Complete { firing: SECOND, revision: revision(5) }]);
    }

    #[test]
    fn what_waits_begins_with_what_is_in_flight() {
        let mut delivery = fresh();
        delivery.start_from(vec![revision(4)]);
        delivery.offer(FIRST, &with_deltas(5, 100, &[(4, 5)]), NOW);
        let (answer, _) = delivery.offer(FIRST, &with_deltas(6, 110, &[(4, 5), (5, 6)]), NOW);
        assert_eq!(answer, OfferAnswer::Want { packages: vec![delta(5, 6).id] });
        let actions = delivery.ended(&delta(4, 5).id, DeliveryEnd::Verified, NOW);
        assert_eq!(actions.last(), Some(&received(delta(5, 6))));
    }

    #[test]
    fn an_expired_statement_raises_an_alarm_and_nothing_else() {
        let mut delivery = fresh();
        let (answer, actions) = delivery.offer(FIRST, &statement(5, 100), UnixMillis::from_millis(1000));
        assert!(matches!(answer, OfferAnswer::Refused(refused) if refused.code() == code::STATEMENT_EXPIRED));
        assert!(matches!(&actions[..], [DeliveryAction::Alarm(_)]));
        assert_eq!(delivery.have(), Have::default());
    }
}
