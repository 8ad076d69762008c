//! Who is reached through whom: the presence of descendants, at a parent and at the Distributor.

use std::collections::{HashMap, HashSet};

use crate::id::KeyHash;
use crate::protocol::Presence;

/// Which nodes are reached, and through which of the peers that are connected. A peer is reached through itself.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// For each node the peers through which it is reached; the one that said so last is the last one.
    hops: HashMap<KeyHash, Vec<KeyHash>>,
    /// What each peer said that is not believed of it, or not yet: who may be behind it changes.
    unproven: HashMap<KeyHash, HashSet<KeyHash>>,
}

/// Nodes that are remembered for each peer although they are not believed to be behind it.
const UNPROVEN_MAX: usize = 1000;

/// What a change of presence changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// Nodes that are reached through that peer since, and were not through it before.
    pub up: Vec<KeyHash>,
    /// Nodes that are not reached through anybody any more.
    pub down: Vec<KeyHash>,
}

impl Reach {
    /// A peer has connected.
    pub fn connected(&mut self, peer: &KeyHash) -> Reached {
        Reached { up: self.add(peer, peer).then_some(*peer).into_iter().collect(), down: vec![] }
    }

    /// The connection to a peer has ended: neither it nor anybody is reached through it.
    pub fn disconnected(&mut self, peer: &KeyHash) -> Reached {
        self.unproven.remove(peer);
        Reached { up: vec![], down: self.retract(peer, |_| true) }
    }

    /// A connected peer says who is reached through it. Only what `believed` allows counts.
    pub fn told(&mut self, peer: &KeyHash, presence: &Presence, believed: impl Fn(&KeyHash) -> bool) -> Reached {
        let said: HashSet<&KeyHash> = presence.up.iter().collect();
        let gone: HashSet<&KeyHash> = presence.down.iter().collect();
        let mut reached = Reached::default();
        let unproven = self.unproven.entry(*peer).or_default();
        unproven.retain(|key| !gone.contains(key) && !presence.reset);
        let (proven, others): (Vec<_>, Vec<_>) =
            presence.up.iter().filter(|key| *key != peer).copied().partition(&believed);
        unproven.extend(others.into_iter().take(UNPROVEN_MAX.saturating_sub(unproven.len())));
        if unproven.is_empty() {
            self.unproven.remove(peer);
        }
        for key in proven {
            if self.add(&key, peer) {
                reached.up.push(key);
            }
        }
        let over = |key: &KeyHash| key != peer && (gone.contains(key) || (presence.reset && !said.contains(key)));
        reached.down = self.retract(peer, over);
        reached
    }

    /// Takes back what is not believed any more of any peer, and takes what was said before and is believed now.
    pub fn judge_again(&mut self, believed: impl Fn(&KeyHash, &KeyHash) -> bool) -> Reached {
        let mut down = vec![];
        let unproven = &mut self.unproven;
        let mut proven = vec![];
        for (hop, said) in &mut *unproven {
            proven.extend(said.extract_if(|key| believed(hop, key)).map(|key| (*hop, key)));
        }
        self.hops.retain(|key, hops| {
            hops.retain(|hop| {
                let stays = hop == key || believed(hop, key);
                // It may be believed again, and is not said twice.
                if !stays {
                    let said = unproven.entry(*hop).or_default();
                    if said.len() < UNPROVEN_MAX {
                        said.insert(*key);
                    }
                }
                stays
            });
            if hops.is_empty() {
                down.push(*key);
            }
            !hops.is_empty()
        });
        self.unproven.retain(|_, said| !said.is_empty());
        let up = proven.into_iter().filter(|(hop, key)| self.add(key, hop)).map(|(_, key)| key).collect();
        Reached { up, down }
    }

    /// What is not believed any more and still stands: each peer, with a node that is reached through it.
    #[must_use]
    pub fn doubted(&self, believed: impl Fn(&KeyHash, &KeyHash) -> bool) -> Vec<(KeyHash, KeyHash)> {
        let mut doubted = vec![];
        for (key, hops) in &self.hops {
            doubted.extend(hops.iter().filter(|hop| *hop != key && !believed(hop, key)).map(|hop| (*hop, *key)));
        }
        doubted
    }

    /// The peer through which a node is reached now: the node itself where it is connected, else the peer that said so
    /// last.
    #[must_use]
    pub fn hop_of(&self, key: &KeyHash) -> Option<KeyHash> {
        let hops = self.hops.get(key)?;
        if hops.contains(key) { Some(*key) } else { hops.last().copied() }
    }

    /// Whether a node is reached through this peer, whoever else it is reached through.
    #[must_use]
    pub fn is_through(&self, peer: &KeyHash, key: &KeyHash) -> bool {
        self.hops.get(key).is_some_and(|hops| hops.contains(peer))
    }

    /// The nodes behind a peer that are reached through it; the peer itself is not among them.
    #[must_use]
    pub fn behind(&self, peer: &KeyHash) -> Vec<KeyHash> {
        let through = self.hops.iter().filter(|(key, _)| *key != peer && self.hop_of(key) == Some(*peer));
        through.map(|(key, _)| *key).collect()
    }

    /// All nodes that are reached.
    #[must_use]
    pub fn all(&self) -> HashSet<KeyHash> {
        self.hops.keys().copied().collect()
    }

    fn add(&mut self, key: &KeyHash, hop: &KeyHash) -> bool {
        let hops = self.hops.entry(*key).or_default();
        let known = hops.iter().position(|known| known == hop);
        if let Some(place) = known {
            hops.remove(place);
        }
        hops.push(*hop);
        known.is_none()
    }

    fn retract(&mut self, hop: &KeyHash, over: impl Fn(&KeyHash) -> bool) -> Vec<KeyHash> {
        let mut down = vec![];
        self.hops.retain(|key, hops| {
            if over(key) {
                let before = hops.len();
                hops.retain(|known| known != hop);
                if hops.is_empty() && before > 0 {
                    down.push(*key);
                }
            }
            !hops.is_empty()
        });
        down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(number: u8) -> KeyHash {
        KeyHash::from_bytes([number; 32])
    }

    const ONE: KeyHash = key(1);
    const TWO: KeyHash = key(2);
    const LEAF: KeyHash = key(9);
    const FOREIGN: KeyHash = key(66);

    fn says(reset: bool, up: &[KeyHash], down: &[KeyHash]) -> Presence {
        Presence { reset, up: up.to_vec(), down: down.to_vec() }
    }

    fn believed(key: &KeyHash) -> bool {
        *key != FOREIGN
    }

    #[test]
    fn what_was_said_too_early_counts_once_it_is_believed_and_no_more_is_remembered_than_allowed() {
        let mut reach = Reach::default();
        reach.connected(&ONE);
        assert_eq!(reach.told(&ONE, &says(true, &[FOREIGN, LEAF], &[]), believed).up, [LEAF]);
        assert_eq!(reach.judge_again(|_, key| believed(key)), Reached::default());
        assert_eq!(reach.judge_again(|_, _| true).up, [FOREIGN]);
        assert_eq!(reach.hop_of(&FOREIGN), Some(ONE));
        // Taken back and given again, without a word from the peer.
        assert_eq!(reach.judge_again(|_, key| believed(key)).down, [FOREIGN]);
        assert_eq!(reach.judge_again(|_, _| true).up, [FOREIGN]);
        reach.judge_again(|_, key| believed(key));
        reach.told(&ONE, &says(false, &[], &[FOREIGN]), believed);
        assert_eq!(reach.judge_again(|_, _| true), Reached::default());
        let strange = |number: u16| {
            let mut bytes = [7; 32];
            bytes[..2].copy_from_slice(&number.to_le_bytes());
            KeyHash::from_bytes(bytes)
        };
        for number in 0..=UNPROVEN_MAX as u16 {
            reach.told(&ONE, &says(false, &[strange(number)], &[]), |_| false);
        }
        assert_eq!(reach.unproven[&ONE].len(), UNPROVEN_MAX);
        reach.disconnected(&ONE);
        assert!(reach.unproven.is_empty());
    }

    #[test]
    fn a_node_is_reached_through_whoever_said_so_last_and_first_of_all_itself() {
        let mut reach = Reach::default();
        assert_eq!(reach.connected(&ONE).up, [ONE]);
        reach.connected(&TWO);
        assert_eq!(reach.told(&ONE, &says(true, &[LEAF], &[]), believed).up, [LEAF]);
        assert_eq!(reach.hop_of(&LEAF), Some(ONE));
        assert_eq!(reach.told(&TWO, &says(true, &[LEAF], &[]), believed).up, [LEAF]);
        assert_eq!(reach.hop_of(&LEAF), Some(TWO));
        assert_eq!((reach.behind(&ONE), reach.behind(&TWO)), (vec![], vec![LEAF]));
        // The one that it came from notices later, which is not the end of it.
        assert_eq!(reach.told(&ONE, &says(false, &[], &[LEAF]), believed), Reached::default());
        assert_eq!(reach.hop_of(&LEAF), Some(TWO));
        reach.connected(&LEAF);
        assert_eq!(reach.hop_of(&LEAF), Some(LEAF));
        assert_eq!(reach.disconnected(&LEAF), Reached::default());
        assert_eq!(reach.hop_of(&LEAF), Some(TWO));
        let mut down = reach.disconnected(&TWO).down;
        down.sort_unstable();
        assert_eq!(down, [TWO, LEAF]);
        assert_eq!((reach.hop_of(&LEAF), reach.hop_of(&ONE)), (None, Some(ONE)));
    }

    #[test]
    fn what_is_not_believed_counts_for_nothing_and_may_cease_to_count() {
        let mut reach = Reach::default();
        reach.connected(&ONE);
        assert_eq!(reach.told(&ONE, &says(true, &[FOREIGN, LEAF, ONE], &[]), believed).up, [LEAF]);
        assert_eq!(reach.hop_of(&FOREIGN), None);
        assert_eq!(reach.doubted(|_, _| true), []);
        assert_eq!(reach.doubted(|_, _| false), [(ONE, LEAF)]);
        assert_eq!(reach.judge_again(|_, _| false).down, [LEAF]);
        assert_eq!(reach.hop_of(&ONE), Some(ONE), "it is connected, whatever is behind it");
    }

    #[test]
    fn a_reset_takes_back_what_is_not_said_again() {
        let mut reach = Reach::default();
        reach.connected(&ONE);
        reach.told(&ONE, &says(true, &[LEAF, key(8)], &[]), believed);
        let reached = reach.told(&ONE, &says(true, &[LEAF, key(7)], &[]), believed);
        assert_eq!(reached, Reached { up: vec![key(7)], down: vec![key(8)] });
        assert_eq!(reach.told(&ONE, &says(false, &[], &[ONE]), believed), Reached::default());
        assert_eq!(reach.all(), HashSet::from([ONE, LEAF, key(7)]), "what a peer says about itself is its connection");
    }
}
