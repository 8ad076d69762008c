//! Entitlements: the Distributor's signed word to a parent about who is behind it and what each of them may be given.
//! Bytes: `docs/protocol.md`, "Entitlements".

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::id::{DistributionId, KeyHash};
use crate::limits::Limits;
use crate::model::Endpoint;
use crate::name::NodeName;

const WHAT: &str = "entitlements";

/// A node behind a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descendant {
    /// Its identity key.
    pub key: KeyHash,
    /// Its name, a label.
    pub name: NodeName,
    /// What it may fetch itself.
    pub distributions: BTreeSet<DistributionId>,
    /// The identity keys of the parent's children through which it may be reached; its own, where it is one.
    pub through: BTreeSet<KeyHash>,
    /// Where the parent dials it; only of a child.
    pub endpoints: Vec<Endpoint>,
}

/// The payload of an envelope of kind 3: one page of what stands for a parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntitlementsPage {
    /// The identity key of the parent that it is for.
    pub recipient: KeyHash,
    /// Which page it is, from 0.
    pub page: u16,
    /// How many pages there are: a power of two. Which one a node is on follows from its key.
    pub pages: u16,
    /// The Distributions that the rows name by their place here, in ascending order.
    distributions: Vec<DistributionId>,
    /// The children that the rows name by their place here, in ascending order.
    children: Vec<KeyHash>,
    rows: Vec<Row>,
    /// What later versions add, ordered by kind.
    extensions: Vec<(u16, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    key: KeyHash,
    name: NodeName,
    distributions: Vec<u16>,
    through: Vec<u16>,
    endpoints: Vec<Endpoint>,
}

impl EntitlementsPage {
    /// The pages that say this to the parent `recipient`: as few as fit into envelopes, and always one.
    ///
    /// # Errors
    /// [`CodecError`] when there is more to say than [`Limits`] allow.
    pub fn all(recipient: &KeyHash, descendants: &[Descendant]) -> Result<Vec<Self>, CodecError> {
        let most = Limits::DEFAULT.entitlement_pages_max;
        let mut pages = 1;
        loop {
            let made: Result<Vec<_>, _> =
                (0..pages).map(|page| Self::make(recipient, descendants, page, pages)).collect();
            match made.and_then(|made| made.iter().try_for_each(|page| page.to_payload().map(drop)).map(|()| made)) {
                Ok(made) => return Ok(made),
                Err(error) if pages >= most => return Err(error),
                Err(_) => pages *= 2,
            }
        }
    }

    fn make(recipient: &KeyHash, descendants: &[Descendant], page: u16, pages: u16) -> Result<Self, CodecError> {
        let mut on_page: Vec<&Descendant> = descendants.iter().filter(|of| page_of(&of.key, pages) == page).collect();
        on_page.sort_by_key(|of| of.key);
        let distributions: BTreeSet<DistributionId> =
            on_page.iter().flat_map(|of| of.distributions.iter().copied()).collect();
        let children: BTreeSet<KeyHash> = on_page.iter().flat_map(|of| of.through.iter().copied()).collect();
        let places = |count: usize| u16::try_from(count).map_err(|_| malformed("it names too much"));
        places(distributions.len())?;
        places(children.len())?;
        let distributions: Vec<_> = distributions.into_iter().collect();
        let children: Vec<_> = children.into_iter().collect();
        let row = |of: &&Descendant| Row {
            key: of.key,
            name: of.name.clone(),
            distributions: places_of(&of.distributions, &distributions),
            through: places_of(&of.through, &children),
            endpoints: of.endpoints.clone(),
        };
        let rows = on_page.iter().map(row).collect();
        Ok(Self { recipient: *recipient, page, pages, distributions, children, rows, extensions: vec![] })
    }

    /// The payload's bytes.
    ///
    /// # Errors
    /// [`CodecError`] when it is beyond [`Limits`].
    pub fn to_payload(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(WHAT, self, Limits::DEFAULT.entitlements_bytes_max)
    }

    /// Reads the payload of an envelope of kind 3.
    ///
    /// # Errors
    /// [`CodecError`] when it is none, contradicts itself, or is beyond [`Limits`].
    pub fn from_payload(payload: &[u8]) -> Result<Self, CodecError> {
        let page: Self = codec::decode(WHAT, payload, Limits::DEFAULT.entitlements_bytes_max)?;
        page.within_limits()?;
        Ok(page)
    }

    fn within_limits(&self) -> Result<(), CodecError> {
        if !self.pages.is_power_of_two() || self.pages > Limits::DEFAULT.entitlement_pages_max {
            return Err(malformed("there is no such number of pages"));
        }
        if self.page >= self.pages {
            return Err(malformed("there is no such page"));
        }
        for row in &self.rows {
            if page_of(&row.key, self.pages) != self.page {
                return Err(malformed("a node stands on another page than its own"));
            }
            let known = |places: &[u16], count: usize| places.iter().all(|place| usize::from(*place) < count);
            if !known(&row.distributions, self.distributions.len()) || !known(&row.through, self.children.len()) {
                return Err(malformed("a row names what is not on the page"));
            }
        }
        Ok(())
    }

    fn descendants(&self) -> impl Iterator<Item = Descendant> {
        let distribution = |place: &u16| self.distributions.get(usize::from(*place)).copied();
        let child = |place: &u16| self.children.get(usize::from(*place)).copied();
        self.rows.iter().map(move |row| Descendant {
            key: row.key,
            name: row.name.clone(),
            distributions: row.distributions.iter().filter_map(distribution).collect(),
            through: row.through.iter().filter_map(child).collect(),
            endpoints: row.endpoints.clone(),
        })
    }
}

/// The page of a node: as many of its key's first bits as number the pages.
fn page_of(key: &KeyHash, pages: u16) -> u16 {
    let [first, second, ..] = *key.as_bytes();
    let bits = pages.trailing_zeros();
    u16::from_be_bytes([first, second]).checked_shr(16 - bits).unwrap_or(0)
}

fn places_of<T: Ord + Copy>(of: &BTreeSet<T>, all: &[T]) -> Vec<u16> {
    of.iter().filter_map(|one| u16::try_from(all.binary_search(one).ok()?).ok()).collect()
}

fn malformed(reason: &str) -> CodecError {
    CodecError::Malformed { what: WHAT, reason: reason.to_owned() }
}

/// Who is behind a parent and may be given what, as its Distributor said last.
#[derive(Debug, Clone, Default)]
pub struct Entitlements {
    descendants: HashMap<KeyHash, Descendant>,
    /// For each child, what it may fetch for itself and for those behind it.
    fetchable: HashMap<KeyHash, HashSet<DistributionId>>,
    complete: bool,
}

impl Entitlements {
    /// What the pages that stand say together, each with its envelope's sequence number. While newer pages are on their
    /// way, what the older ones say of nodes that no newer one names counts on.
    #[must_use]
    pub fn of(mut pages: Vec<(u64, EntitlementsPage)>) -> Self {
        pages.sort_by_key(|(sequence, _)| *sequence);
        let newest = pages.last().map_or(0, |(_, page)| page.pages);
        let of_newest = pages.iter().filter(|(_, page)| page.pages == newest);
        let numbers: HashSet<u16> = of_newest.map(|(_, page)| page.page).collect();
        let complete = newest > 0 && numbers.len() == usize::from(newest);
        let mut read = Self { complete, ..Self::default() };
        for (_, page) in pages.iter().filter(|(_, page)| !complete || page.pages == newest) {
            for descendant in page.descendants() {
                read.descendants.insert(descendant.key, descendant);
            }
        }
        for descendant in read.descendants.values() {
            for child in &descendant.through {
                read.fetchable.entry(*child).or_default().extend(&descendant.distributions);
            }
        }
        read
    }

    /// Whether every page is here, so that who is not named has no standing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the node with this key is a child of the parent.
    #[must_use]
    pub fn is_child(&self, key: &KeyHash) -> bool {
        self.is_behind(key, key)
    }

    /// Whether a node may be reached through a child. Every child is behind itself.
    #[must_use]
    pub fn is_behind(&self, child: &KeyHash, key: &KeyHash) -> bool {
        self.descendants.get(key).is_some_and(|descendant| descendant.through.contains(child))
    }

    /// Whether a child may fetch a Distribution, for itself or for a node behind it.
    #[must_use]
    pub fn may_fetch(&self, child: &KeyHash, distribution: &DistributionId) -> bool {
        self.fetchable.get(child).is_some_and(|all| all.contains(distribution))
    }

    /// What is known of a node behind the parent.
    #[must_use]
    pub fn get(&self, key: &KeyHash) -> Option<&Descendant> {
        self.descendants.get(key)
    }

    /// The parent's children, in no order.
    pub fn children(&self) -> impl Iterator<Item = &Descendant> {
        self.descendants.values().filter(|descendant| descendant.through.contains(&descendant.key))
    }

    /// All nodes behind the parent, in no order.
    pub fn descendants(&self) -> impl Iterator<Item = &Descendant> {
        self.descendants.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: KeyHash = KeyHash::from_bytes([1; 32]);
    const SITE: DistributionId = DistributionId::from_bytes([1; 16]);
    const TOOLS: DistributionId = DistributionId::from_bytes([2; 16]);
    const OTHER: DistributionId = DistributionId::from_bytes([3; 16]);

    fn key(number: u16) -> KeyHash {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        KeyHash::from_bytes(bytes)
    }

    fn descendant(number: u16, through: &[u16], distributions: &[DistributionId]) -> Descendant {
        Descendant {
            key: key(number),
            name: format!("n{number}.example").parse().unwrap(),
            distributions: distributions.iter().copied().collect(),
            through: through.iter().map(|number| key(*number)).collect(),
            endpoints: if through.contains(&number) { vec!["n.example:1229".parse().unwrap()] } else { vec![] },
        }
    }

    fn read(pages: &[EntitlementsPage], sequence: u64) -> Vec<(u64, EntitlementsPage)> {
        let one = |page: &EntitlementsPage| EntitlementsPage::from_payload(&page.to_payload().unwrap()).unwrap();
        pages.iter().map(|page| (sequence, one(page))).collect()
    }

    #[test]
    fn a_child_may_fetch_for_itself_and_for_those_behind_it_and_nothing_else() {
        let all = [descendant(1, &[1], &[SITE]), descendant(2, &[2], &[]), descendant(3, &[1, 2], &[TOOLS])];
        let pages = EntitlementsPage::all(&PARENT, &all).unwrap();
        let entitlements = Entitlements::of(read(&pages, 5));
        assert!(entitlements.is_complete());
        for (child, site, tools, other) in [(1, true, true, false), (2, false, true, false), (3, false, false, false)] {
            let may = |distribution| entitlements.may_fetch(&key(child), &distribution);
            assert_eq!((may(SITE), may(TOOLS), may(OTHER)), (site, tools, other), "{child}");
        }
        for (child, node, behind) in [(1, 1, true), (1, 3, true), (2, 3, true), (2, 1, false), (3, 3, false)] {
            assert_eq!(entitlements.is_behind(&key(child), &key(node)), behind, "{child} {node}");
        }
        let mut children: Vec<_> = entitlements.children().map(|child| child.key).collect();
        children.sort_unstable();
        assert_eq!(children, [key(1), key(2)]);
        assert_eq!(entitlements.get(&key(3)), Some(&all[2]));
    }

    #[test]
    fn a_parent_of_nobody_gets_one_page_that_says_so() {
        let pages = EntitlementsPage::all(&PARENT, &[]).unwrap();
        assert_eq!((pages.len(), pages[0].pages), (1, 1));
        let entitlements = Entitlements::of(read(&pages, 1));
        assert!(entitlements.is_complete() && entitlements.children().next().is_none());
        assert!(!Entitlements::of(vec![]).is_complete());
    }

    #[test]
    fn as_many_pages_are_made_as_it_takes_and_one_that_changes_leaves_the_others_as_they_are() {
        let mut all: Vec<_> = (0..3000).map(|n| descendant(n * 21, &[n * 21], &[SITE, TOOLS])).collect();
        let pages = EntitlementsPage::all(&PARENT, &all).unwrap();
        assert!(pages.len() > 1);
        for page in &pages {
            assert!(page.to_payload().unwrap().len() as u64 <= Limits::DEFAULT.entitlements_bytes_max);
        }
        assert_eq!(Entitlements::of(read(&pages, 1)).children().count(), 3000);
        all.push(descendant(5, &[5], &[OTHER]));
        let after = EntitlementsPage::all(&PARENT, &all).unwrap();
        let changed = pages.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert_eq!((after.len(), changed), (pages.len(), 1));
    }

    #[test]
    fn while_new_pages_come_nobody_loses_a_standing_that_the_old_ones_gave_and_then_the_new_ones_alone_count() {
        let (keeps, goes) = (descendant(9, &[9], &[SITE]), descendant(60_000, &[60_000], &[SITE]));
        let old = EntitlementsPage::all(&PARENT, &[keeps.clone(), goes]).unwrap();
        let two: Vec<_> =
            (0..2).map(|n| EntitlementsPage::make(&PARENT, std::slice::from_ref(&keeps), n, 2).unwrap()).collect();
        let mut pages = [read(&old, 1), read(&two[..1], 2)].concat();
        let between = Entitlements::of(pages.clone());
        assert!(!between.is_complete() && between.is_child(&key(9)) && between.is_child(&key(60_000)));
        pages.extend(read(&two[1..], 3));
        let after = Entitlements::of(pages);
        assert!(after.is_complete() && after.is_child(&key(9)) && !after.is_child(&key(60_000)));
    }

    #[test]
    fn pages_that_contradict_themselves_are_refused() {
        let good = EntitlementsPage::make(&PARENT, &[descendant(9, &[9], &[SITE])], 0, 2).unwrap();
        let row = |change: &dyn Fn(&mut Row)| {
            let mut page = good.clone();
            change(&mut page.rows[0]);
            page
        };
        for (bad, what) in [
            (EntitlementsPage { pages: 3, ..good.clone() }, "no power of two"),
            (EntitlementsPage { pages: 0, ..good.clone() }, "no page"),
            (EntitlementsPage { pages: 512, ..good.clone() }, "more pages than there may be"),
            (EntitlementsPage { page: 2, ..good.clone() }, "beyond the last page"),
            (EntitlementsPage { page: 1, ..good.clone() }, "another page"),
            (row(&|row| row.distributions = vec![1]), "a Distribution that is not named"),
            (row(&|row| row.through = vec![9]), "a child that is not named"),
        ] {
            assert!(EntitlementsPage::from_payload(&bad.to_payload().unwrap()).is_err(), "{what}");
        }
        assert!(EntitlementsPage::from_payload(&good.to_payload().unwrap()).is_ok());
        assert!(EntitlementsPage::from_payload(&[9; 40]).is_err());
    }
}
