//! What a firing makes of what it hears about a delivery: offers, answers, hints and receipts.

use crate::id::{DistributionId, KeyHash, Revision, UnixMillis};
use crate::protocol::firing::{Firing, PartState, Waiting, WaitingFor};
use crate::protocol::{OfferAnswer, code};
use crate::security::{Receipt, Stage};

impl Firing {
    /// An offer went out, on a connection of the Subscriber's own. Says whether the firing changed.
    pub fn offered(&mut self, subscriber: &KeyHash, distribution: &DistributionId, now: UnixMillis) -> bool {
        self.offered_over(subscriber, distribution, None, now)
    }

    /// An offer went out to the node `hop`, for this Subscriber behind it. Says whether the firing changed.
    pub fn offered_over(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        hop: Option<KeyHash>,
        now: UnixMillis,
    ) -> bool {
        self.change(subscriber, distribution, now, |part| {
            part.not_before = None;
            part.waiting = None;
            part.hop = hop;
            if part.state.progress().is_none_or(|progress| progress < 2) {
                part.enter(PartState::Offered, now);
            }
        })
    }

    /// An offer was answered. Says whether the firing changed.
    pub fn answered(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        answer: &OfferAnswer,
        now: UnixMillis,
    ) -> bool {
        self.change(subscriber, distribution, now, |part| match answer {
            OfferAnswer::Current => part.advance(PartState::Verified, now),
            OfferAnswer::Want { .. } => part.advance(PartState::Receiving, now),
            // What came another way meanwhile stays.
            OfferAnswer::Later { .. } if part.is_final() => {}
            OfferAnswer::Later { until } => {
                part.enter(PartState::Pending, now);
                part.not_before = Some(*until);
            }
            OfferAnswer::Refused(refused) if refused.waits_for_offer() && !part.is_final() => {
                part.enter(PartState::Pending, now);
                let same = part.waiting.filter(|before| before.waiting_for == WaitingFor::Pause);
                let since = same.map_or(now, |before| before.since);
                part.waiting = Some(Waiting { waiting_for: WaitingFor::Pause, since, until: None });
            }
            OfferAnswer::Refused(refused) if part.state != PartState::Extracted => {
                let corrupt = refused.code() == code::CORRUPT;
                part.enter(if corrupt { PartState::Corrupt } else { PartState::Failed }, now);
                part.code = Some(refused.code().to_owned());
                part.detail = refused.reason().to_owned();
            }
            // It passes the offer on; how far it is itself, its receipts say.
            OfferAnswer::Relays => part.advance(PartState::Receiving, now),
            OfferAnswer::Refused(_) => {}
        })
    }

    /// It cannot be offered to this Subscriber, for a reason of its own. Says whether the firing changed.
    pub fn withheld(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        (code, detail): (&str, &str),
        now: UnixMillis,
    ) -> bool {
        self.change(subscriber, distribution, now, |part| {
            if part.state != PartState::Extracted {
                part.enter(PartState::Failed, now);
                part.code = Some(code.to_owned());
                part.detail = detail.to_owned();
            }
        })
    }

    /// The Subscriber fetches something of this Distribution, or is sent bytes of it: it is not silent.
    pub fn heard(&mut self, subscriber: &KeyHash, distribution: &DistributionId, now: UnixMillis) {
        self.change(subscriber, distribution, now, |_| {});
    }

    /// So many bytes of so many are at the node: a hint, which is not persisted by itself. Says whether the state
    /// changed.
    pub fn receiving(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        (bytes, bytes_total): (u64, u64),
        now: UnixMillis,
    ) -> bool {
        self.change(subscriber, distribution, now, |part| {
            (part.bytes, part.bytes_total) = (bytes, bytes_total);
            if matches!(part.state, PartState::Pending | PartState::Offered) {
                part.enter(PartState::Receiving, now);
            }
            if part.state == PartState::Receiving {
                part.waiting = None;
            }
        })
    }

    /// The delivery waits for something, or for nothing that is known any more. It does not count as silent meanwhile.
    /// Says whether the firing changed.
    pub fn waits(
        &mut self,
        subscriber: &KeyHash,
        distribution: &DistributionId,
        waiting: Option<(WaitingFor, Option<UnixMillis>)>,
        now: UnixMillis,
    ) -> bool {
        self.change(subscriber, distribution, now, |part| {
            if part.is_final() {
                return;
            }
            let before = part.waiting;
            part.waiting = waiting.map(|(waiting_for, until)| {
                let same = before.filter(|before| before.waiting_for == waiting_for);
                Waiting { waiting_for, since: same.map_or(now, |before| before.since), until }
            });
        })
    }

    /// A receipt whose signature was verified as the Subscriber's. Says whether the firing changed.
    ///
    /// Receipts may come late, twice, and in another order than they were made. What was reached stays reached;
    /// a failure counts only if it is this firing's and not older than what is known. What another firing reached with
    /// the same revision says nothing: it may have been damaged since. A Subscriber that has it says so again when it is
    /// offered.
    pub fn receipt(&mut self, subscriber: &KeyHash, receipt: &Receipt, now: UnixMillis) -> bool {
        let ours = receipt.firing == Some(self.head.id);
        self.change(subscriber, &receipt.distribution, now, |part| {
            let is_stale = part.receipt_at.is_some_and(|known| receipt.at < known);
            let of_another = !ours && receipt.firing.is_some() && receipt.revision == part.revision;
            // One that could not even read the statement cannot say which revision it refuses.
            let of_any = ours && receipt.stage == Stage::Failed && receipt.revision == Revision::from_number(0);
            if receipt.revision < part.revision && !of_any || part.state == PartState::Extracted || of_another {
                return;
            }
            let reached = match receipt.stage {
                Stage::Extracted => Some(PartState::Extracted),
                Stage::Received | Stage::Verified if part.state == PartState::Failed && is_stale => return,
                Stage::Verified => Some(PartState::Verified),
                Stage::Received => Some(PartState::Received),
                Stage::Corrupt | Stage::Failed => None,
            };
            match reached {
                Some(state) => {
                    part.advance(state, now);
                    if state == PartState::Extracted {
                        // What it did there, what it found changed, and what failed beside it, such as a hook.
                        part.code.clone_from(&receipt.code);
                        part.detail.clone_from(&receipt.detail);
                    }
                }
                None if !ours || is_stale => return,
                None => {
                    let corrupt = receipt.stage == Stage::Corrupt;
                    part.enter(if corrupt { PartState::Corrupt } else { PartState::Failed }, now);
                    part.code.clone_from(&receipt.code);
                    part.detail.clone_from(&receipt.detail);
                }
            }
            part.receipt_at = part.receipt_at.max(Some(receipt.at));
        })
    }

    /// The Subscriber is not reached any more: what was offered waits for the next connection. Says whether the firing
    /// changed.
    pub fn disconnected(&mut self, subscriber: &KeyHash, now: UnixMillis) -> bool {
        let distributions: Vec<_> = self.parts_of(subscriber).iter().map(|part| part.distribution).collect();
        let mut changed = false;
        for distribution in distributions {
            changed |= self.change(subscriber, &distribution, now, |part| {
                part.unlink();
            });
        }
        changed
    }
}
