//! Firings as they are kept: changed, persisted in batches, reported, and forgotten after a while.
//!
//! In memory are the open ones, with an index of whose parts are in them, and the heads of those that are over. So a
//! connection, a fetch, a receipt and a round cost what they concern, and history costs no memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::distributor::error::DistributorError;
use crate::distributor::events::DistributorEvent;
use crate::distributor::report::FiringReport;
use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::{FiringId, KeyHash, UnixMillis};
use crate::limits::Limits;
use crate::name::Label;
use crate::node::{BatchedRecords, Records, Ticket};
use crate::protocol::{Firing, FiringHead, FiringRecord, Outcome, Part, Until};

/// All firings on record.
#[derive(Default)]
pub(super) struct Firings {
    open: BTreeMap<FiringId, Firing>,
    /// The open firings that somebody's word may still change, by whose word that is.
    by_key: HashMap<KeyHash, BTreeSet<FiringId>>,
    /// Those that are over, the oldest first.
    over: BTreeMap<(UnixMillis, FiringId), FiringHead>,
    /// When those that are over began.
    began: HashMap<FiringId, UnixMillis>,
    /// The newest of each Channel.
    newest: HashMap<Label, (UnixMillis, FiringId)>,
}

/// Which open firings a change is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    All,
    One(FiringId),
    /// Those that concern one of these nodes.
    Of(&'a [KeyHash]),
}

/// What changing firings came to.
struct Changing {
    is_changed: bool,
    ended: Vec<FiringId>,
}

impl Firings {
    /// The firings that the catalog holds.
    pub(super) fn load(records: &Records) -> Result<Self, Error> {
        let mut firings = Self::default();
        for bytes in records.list_bytes(HEADS)? {
            let head = FiringHead::decode(&bytes, &Limits::DEFAULT)?;
            if head.is_over() && head.ended.is_some() {
                firings.file(head);
            } else {
                let parts = load_parts(records, &head.id)?;
                firings.put_in(Firing::restore(head, parts));
            }
        }
        Ok(firings)
    }

    /// An open firing.
    pub(super) fn get(&self, id: &FiringId) -> Option<&Firing> {
        self.open.get(id)
    }

    /// The open firings.
    pub(super) fn open(&self) -> impl Iterator<Item = &Firing> {
        self.open.values()
    }

    /// The open firings that concern a node: that have a part of it which is not done.
    pub(super) fn of(&self, key: &KeyHash) -> impl Iterator<Item = &Firing> {
        self.by_key.get(key).into_iter().flatten().filter_map(|id| self.open.get(id))
    }

    /// The heads of all firings on record, the newest first.
    pub(super) fn heads(&self) -> impl Iterator<Item = &FiringHead> {
        let mut heads: Vec<_> = self.open.values().map(Firing::head).chain(self.over.values()).collect();
        heads.sort_by_key(|head| std::cmp::Reverse((head.started, head.id)));
        heads.into_iter()
    }

    /// The head of a firing that is over.
    pub(super) fn over(&self, id: &FiringId) -> Option<&FiringHead> {
        self.over.get(&(*self.began.get(id)?, *id))
    }

    /// The head of a Channel's newest firing.
    pub(super) fn newest_of(&self, channel: &Label) -> Option<&FiringHead> {
        let (_, id) = self.newest.get(channel)?;
        self.open.get(id).map(Firing::head).or_else(|| self.over(id))
    }

    fn note_newest(&mut self, head: &FiringHead) {
        let came = (head.started, head.id);
        self.newest.entry(head.channel.clone()).and_modify(|known| *known = came.max(*known)).or_insert(came);
    }

    fn put_in(&mut self, firing: Firing) {
        self.note_newest(firing.head());
        let keys: BTreeSet<_> = firing.parts().iter().map(|part| part.subscriber).collect();
        for key in keys {
            if firing.concerns(&key) {
                self.by_key.entry(key).or_default().insert(firing.id());
            }
        }
        self.open.insert(firing.id(), firing);
    }

    fn file(&mut self, head: FiringHead) {
        self.note_newest(&head);
        self.began.insert(head.id, head.started);
        self.over.insert((head.started, head.id), head);
    }

    fn ids(&self, which: Which<'_>) -> Vec<FiringId> {
        match which {
            Which::All => self.open.keys().copied().collect(),
            Which::One(id) => self.open.contains_key(&id).then_some(id).into_iter().collect(),
            Which::Of(keys) => {
                let ids: BTreeSet<_> = keys.iter().filter_map(|key| self.by_key.get(key)).flatten().collect();
                ids.into_iter().copied().collect()
            }
        }
    }

    /// Keeps the index and the records in step with one firing that changed. Says whether it is over now.
    fn settle(&mut self, id: FiringId, kept: &BatchedRecords) -> Result<bool, Error> {
        let Some(firing) = self.open.get_mut(&id) else { return Ok(false) };
        let touched = firing.touched();
        let changes = firing.take_changes(&Limits::DEFAULT)?;
        kept.put(changes.into_iter().map(|(record, bytes)| (record_key(&id, record), bytes)));
        let is_over = firing.is_over();
        let indexed = if is_over { firing.parts().iter().map(|part| part.subscriber).collect() } else { touched };
        for key in indexed {
            let concerns = !is_over && firing.concerns(&key);
            let ids = self.by_key.entry(key).or_default();
            let _ = if concerns { ids.insert(id) } else { ids.remove(&id) };
            if ids.is_empty() {
                self.by_key.remove(&key);
            }
        }
        if is_over && let Some(firing) = self.open.remove(&id) {
            self.file(firing.head().clone());
        }
        Ok(is_over)
    }

    /// Takes those out that are not kept any longer: of each Channel the oldest beyond its share, and the oldest of all
    /// beyond the parts that there is room for.
    fn take_old(&mut self, limits: &Limits) -> Vec<FiringHead> {
        let (mut of_channel, mut parts) = (HashMap::<Label, usize>::new(), 0);
        let newest_first = self.over.iter().rev();
        let old: Vec<_> = newest_first
            .filter(|(_, head)| {
                let count = of_channel.entry(head.channel.clone()).or_default();
                *count += 1;
                parts += u64::from(head.numbers);
                *count > limits.firings_kept_max || (parts > limits.firing_parts_kept_max && *count > 1)
            })
            .map(|(key, _)| *key)
            .collect();
        let old: Vec<_> = old.iter().filter_map(|key| self.over.remove(key)).collect();
        old.iter().for_each(|head| _ = self.began.remove(&head.id));
        old
    }
}

impl State {
    /// Waits until the firing is done as far as `until` says, or ends otherwise, or the time is over.
    pub(super) async fn wait(
        &self,
        id: &FiringId,
        until: Until,
        patience: Option<Duration>,
    ) -> Result<FiringReport, Error> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut changes = self.firing_changes.subscribe();
        loop {
            changes.borrow_and_update();
            let head = self.firing_head(id)?;
            if head.counts.done(until) == head.counts.total() || head.outcome() != Outcome::Open {
                return self.report(id);
            }
            let timed_out = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = timed_out => return self.report(id),
            }
        }
    }

    pub(super) fn firing_head(&self, id: &FiringId) -> Result<FiringHead, Error> {
        let firings = lock(&self.firings);
        let head = firings.get(id).map(Firing::head).or_else(|| firings.over(id));
        Ok(head.cloned().ok_or(DistributorError::UnknownFiring(*id))?)
    }

    /// A firing's parts, as they are now or were when it was over. Blocks on the disk for one that is over.
    pub(super) fn parts_of_firing(&self, id: &FiringId) -> Result<Vec<Part>, Error> {
        if let Some(firing) = lock(&self.firings).get(id) {
            return Ok(firing.parts().to_vec());
        }
        self.kept.commit_all()?;
        let mut parts = load_parts(&self.records, id)?;
        parts.sort_by_key(|part| (part.subscriber, part.distribution));
        Ok(parts)
    }

    /// Changes one firing and tells those who wait. It is durable when somebody waits for that, or a moment later.
    pub(super) fn change_firing(&self, id: FiringId, change: impl FnMut(&mut Firing, UnixMillis) -> bool) -> Ticket {
        self.change_open(Which::One(id), change)
    }

    /// Changes every open firing that concerns one of these nodes, as [`State::change_firing`] does one.
    pub(super) fn change_firings_of(
        &self,
        keys: &[KeyHash],
        change: impl FnMut(&mut Firing, UnixMillis) -> bool,
    ) -> Ticket {
        self.change_open(Which::Of(keys), change)
    }

    /// Changes open firings and tells those who wait. The ticket is for [`State::durable`]; without it, what changed is
    /// written within a second.
    pub(super) fn change_open(
        &self,
        which: Which<'_>,
        mut change: impl FnMut(&mut Firing, UnixMillis) -> bool,
    ) -> Ticket {
        let now = self.now();
        let mut changing = Changing { is_changed: false, ended: vec![] };
        {
            let mut firings = lock(&self.firings);
            for id in firings.ids(which) {
                let changed = firings.open.get_mut(&id).is_some_and(|firing| change(firing, now));
                if !changed {
                    continue;
                }
                changing.is_changed = true;
                match firings.settle(id, &self.kept) {
                    Ok(is_over) => changing.ended.extend(is_over.then_some(id)),
                    Err(error) => tracing::error!(code = error.code(), %error, "a firing cannot be kept"),
                }
            }
        }
        self.tell_changed(&changing);
        // What somebody says again may have changed it a moment ago, and be on its way to the disk only now.
        self.kept.last()
    }

    fn tell_changed(&self, changing: &Changing) {
        if changing.is_changed {
            self.firing_changes.send_modify(|count| *count += 1);
        }
        if !changing.ended.is_empty() {
            self.sends.look_again();
        }
        for firing in &changing.ended {
            tracing::info!(%firing, "a firing is over");
            self.events.emit(DistributorEvent::FiringEnded { firing: *firing });
        }
    }

    /// Returns when what `ticket` is for is durable.
    pub(super) async fn durable(&self, ticket: Ticket) -> Result<(), Error> {
        Ok(self.kept.durable(ticket).await?)
    }

    /// As [`State::durable`], on a thread where blocking is allowed.
    pub(super) fn durable_now(&self, ticket: Ticket) -> Result<(), Error> {
        Ok(self.kept.commit(ticket)?)
    }

    /// Puts a new firing on record, durably; those of its Channel that are open end. Answers which did.
    pub(super) fn begin_firing(&self, firing: Firing) -> Result<Vec<FiringId>, Error> {
        let (id, channel, now) = (firing.id(), firing.channel().clone(), firing.started());
        let mut ended = vec![];
        {
            let mut firings = lock(&self.firings);
            for earlier in firings.ids(Which::All) {
                if let Some(open) = firings.open.get_mut(&earlier).filter(|open| *open.channel() == channel) {
                    open.supersede(now);
                    firings.settle(earlier, &self.kept)?;
                    ended.push(earlier);
                }
            }
            firings.put_in(firing);
            firings.settle(id, &self.kept)?;
        }
        self.durable_now(self.kept.last())?;
        self.firing_changes.send_modify(|count| *count += 1);
        Ok(ended)
    }

    /// Ends the firings of Channels that are gone: no other would ever follow them.
    pub(super) fn end_orphaned_firings(&self) -> Result<(), Error> {
        // Nobody holds the fleet while waiting for the firings.
        let mut gone: BTreeSet<Label> = lock(&self.firings).open().map(|firing| firing.channel().clone()).collect();
        {
            let fleet = lock(&self.fleet);
            gone.retain(|channel| fleet.channel(channel).is_err());
        }
        if gone.is_empty() {
            return Ok(());
        }
        let ticket = self.change_open(Which::All, |firing, now| {
            let is_orphan = gone.contains(firing.channel());
            if is_orphan {
                firing.cancel(now);
            }
            is_orphan
        });
        self.durable_now(ticket)
    }

    pub(super) fn forget_old_firings(&self) -> Result<(), Error> {
        let old = lock(&self.firings).take_old(&Limits::DEFAULT);
        for head in old {
            let parts = (0..head.numbers).map(|number| (record_key(&head.id, FiringRecord::Part(number)), None));
            self.kept.put(parts.chain([(record_key(&head.id, FiringRecord::Head), None)]));
            self.forget_mended(head.id)?;
        }
        Ok(())
    }

    /// Writes what changed and nobody waited for, off the async threads.
    pub(super) async fn keep_changes(&self) {
        if let Err(error) = self.durable(self.kept.last()).await {
            tracing::error!(code = error.code(), %error, "firings cannot be kept");
        }
        let events = self.events.clone();
        // The log itself says what is wrong with it.
        let _ = tokio::task::spawn_blocking(move || events.sync()).await;
    }
}

const HEADS: &str = "fired/";

fn record_key(id: &FiringId, record: FiringRecord) -> String {
    match record {
        FiringRecord::Head => format!("{HEADS}{id}"),
        FiringRecord::Part(number) => format!("part/{id}/{number:08x}"),
    }
}

pub(super) fn load_parts(records: &Records, id: &FiringId) -> Result<Vec<Part>, Error> {
    let bytes = records.list_bytes(&format!("part/{id}/"))?;
    let parts = bytes.iter().map(|bytes| Ok(Part::decode(bytes, &Limits::DEFAULT)?));
    parts.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::distributor::{DistributionSpec, Distributor};
    use crate::id::{DistributionId, Revision};
    use crate::model::Priority;
    use crate::protocol::{Cause, FiringStart, FiringTarget, PartState};
    use crate::security::{Receipt, Stage};
    use crate::store::MemoryCatalog;

    const SITE: DistributionId = DistributionId::from_bytes([5; 16]);

    fn key(number: u8) -> KeyHash {
        KeyHash::from_bytes([number; 32])
    }

    fn at(seconds: u64) -> UnixMillis {
        UnixMillis::from_millis(seconds * 1000)
    }

    fn firing(number: u8, channel: &str, subscribers: u8) -> Firing {
        let start = FiringStart {
            id: FiringId::from_bytes([number; 16]),
            channel: channel.parse().expect("a label"),
            priority: Priority::Medium,
            until: Until::Extracted,
            cause: Cause::Schedule,
            closes: None,
        };
        let revision = Revision::from_number(7);
        let target = |number| FiringTarget { subscriber: key(number), distribution: SITE, revision };
        Firing::start(start, (1..=subscribers).map(target), at(u64::from(number)))
    }

    fn extracted(id: FiringId) -> Receipt {
        let (revision, stage) = (Revision::from_number(7), Stage::Extracted);
        let (code, detail) = (None, String::new());
        Receipt { firing: Some(id), distribution: SITE, revision, package: None, stage, code, detail, at: at(9) }
    }

    fn done(firings: &mut Firings, id: FiringId, subscriber: u8, kept: &BatchedRecords) -> bool {
        let firing = firings.open.get_mut(&id).expect("open");
        firing.receipt(&key(subscriber), &extracted(id), at(9));
        firings.settle(id, kept).expect("kept")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_firing_ends_with_its_channel_at_once_or_at_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = "dist.example".parse().expect("a name");
        let builder = Distributor::builder(folder.path().join("data")).name(name);
        let distributor = builder.open().await.expect("opened");
        let [site, daily, other, ghost] =
            ["site", "daily", "other", "ghost"].map(|text| text.parse::<Label>().unwrap());
        let spec = DistributionSpec::new(site.clone(), folder.path());
        distributor.create_distribution(spec).await.expect("declared");
        for channel in [&daily, &other] {
            distributor.create_channel(channel.clone(), std::slice::from_ref(&site), &[]).await.expect("declared");
        }
        let state = &distributor.state;
        for (number, channel) in (1..).zip([&daily, &other]) {
            state.begin_firing(firing(number, channel.as_str(), 2)).expect("begun");
        }
        distributor.delete_channel(&daily).await.expect("deleted");
        let head = |number| state.firing_head(&FiringId::from_bytes([number; 16])).expect("known");
        assert_eq!((head(1).outcome(), head(2).outcome()), (Outcome::Cancelled, Outcome::Open));
        state.begin_firing(firing(3, ghost.as_str(), 2)).expect("begun");
        state.resume_schedules().expect("resumed");
        assert_eq!((head(3).outcome(), head(2).outcome()), (Outcome::Cancelled, Outcome::Open));
    }

    #[test]
    fn a_firing_is_found_by_those_whom_it_concerns_and_comes_back_as_it_was() {
        let records = Records::new(Arc::new(MemoryCatalog::new()));
        let kept = BatchedRecords::new(records.clone());
        let mut firings = Firings::default();
        let ids = [1, 2].map(|number| FiringId::from_bytes([number; 16]));
        for (number, subscribers) in [(1, 1), (2, 3)] {
            firings.put_in(firing(number, "nightly", subscribers));
            firings.settle(ids[usize::from(number) - 1], &kept).expect("kept");
        }
        assert_eq!(firings.of(&key(1)).count(), 2);
        assert!(done(&mut firings, ids[0], 1, &kept), "it is over");
        assert!(!done(&mut firings, ids[1], 1, &kept) && !done(&mut firings, ids[1], 2, &kept));
        assert_eq!([1, 2, 3, 4].map(|number| firings.of(&key(number)).count()), [0, 0, 1, 0]);
        kept.commit_all().expect("written");
        let mut read = Firings::load(&records).expect("as it was written");
        assert_eq!((read.open.len(), read.over.len()), (1, 1));
        assert_eq!(read.of(&key(3)).count(), 1);
        assert_eq!(read.get(&ids[1]).expect("open").part(&key(2), &SITE).expect("there").state, PartState::Extracted);
        assert_eq!(load_parts(&records, &ids[0]).expect("readable").len(), 1, "history is on disk alone");
        assert!(done(&mut read, ids[1], 3, &kept));
        assert!(read.by_key.is_empty());
        assert_eq!(read.over(&ids[1]).expect("over").counts.extracted, 3);
    }

    #[test]
    fn the_oldest_firings_go_first_and_the_last_one_of_a_channel_stays() {
        let kept = BatchedRecords::new(Records::new(Arc::new(MemoryCatalog::new())));
        let mut firings = Firings::default();
        for (number, channel) in [(1, "rare"), (2, "often"), (3, "often"), (4, "often"), (5, "often")] {
            let id = FiringId::from_bytes([number; 16]);
            firings.put_in(firing(number, channel, 1));
            done(&mut firings, id, 1, &kept);
        }
        let started = |old: Vec<FiringHead>| old.iter().map(|head| head.started).collect::<Vec<_>>();
        let three = Limits { firings_kept_max: 3, ..Limits::DEFAULT };
        assert_eq!(started(firings.take_old(&three)), [at(2)]);
        let few = Limits { firing_parts_kept_max: 2, ..Limits::DEFAULT };
        assert_eq!(started(firings.take_old(&few)), [at(3)]);
        assert_eq!(firings.heads().map(|head| head.started).collect::<Vec<_>>(), [at(5), at(4), at(1)]);
    }
}
