//! Random fleets: whatever they hold, their text and their records give them back.

use crate::id::DistributionId;
use crate::model::fleet::tests::{label, node};
use crate::model::{
    CertificateWay, Channel, CompressionLevel, Digest, Distribution, ExtractMode, Fleet, FleetParts, Group, Priority,
    Setting, Settings, Sha256, SourceSpec, Sources, Subscriber, Undeclared,
};

/// A small generator: the same seed gives the same fleet everywhere.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64, by Sebastiano Vigna (public domain).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).expect("below sides")
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())].clone()
    }

    fn some_of<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        all.iter().filter(|_| self.roll(3) == 0).cloned().collect()
    }

    fn heads(&mut self) -> bool {
        self.roll(2) == 0
    }
}

const SCHEDULES: [&str; 5] = [
    "never",
    "now",
    "every 30m between 22:00 and 05:00 jitter 10m",
    "at 2027-01-31T02:00",
    "cron \"0 2 * * mon-fri\" in Europe/Berlin",
];

/// Characters that text files and shells find hard.
const HARD: &str = "a b\"c'd\\e#f=g[h]\u{e9}\u{1f600}";

fn settings(dice: &mut Dice) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in [("rate.low", "7M"), ("scrub.interval", "7d"), ("variable.SITE", HARD)] {
        if dice.heads() {
            settings.set(name.parse::<Setting>().expect(name), value).expect(value);
        }
    }
    settings
}

fn distribution(dice: &mut Dice, number: u8) -> Distribution {
    let pinned = SourceSpec {
        sha256: Some(Sha256::from_bytes([number; 32])),
        size: Some(u64::from(number)),
        ..SourceSpec::parse("bin=https://a.example/x?y=z")
    };
    let sources =
        [Sources::from(format!("/srv/{HARD}")), Sources::new(vec![SourceSpec::parse("/a"), pinned]), "-".into()];
    let id = DistributionId::from_bytes([number; 16]);
    let mut made = Distribution::new(id, label(&format!("d{number}")), dice.one_of(&sources));
    made.exclude = dice.some_of(&["*.log".to_owned(), format!("{}/**", HARD.replace(['[', '\\'], ""))]);
    made.include = dice.some_of(&["*.html".to_owned()]);
    (made.gitignore, made.skip_unreadable, made.encrypt) = (dice.heads(), dice.heads(), dice.heads());
    made.digest = dice.one_of(&[Digest::None, Digest::Md5, Digest::Blake3]);
    made.target = dice.one_of(&[None, Some("/srv/%NODE_NAME%".to_owned()), Some(format!("/{HARD}"))]);
    made.priority = dice.one_of(&[Priority::Low, Priority::Medium, Priority::High]);
    (made.keep.xattrs, made.keep.ownership, made.keep.privileged) = (dice.heads(), dice.heads(), dice.heads());
    made.max_revisions = dice.one_of(&[1, 10, 32]);
    made.level = dice.one_of(&[CompressionLevel::default(), CompressionLevel::try_from(19).expect("a level")]);
    made.delta_level = dice.one_of(&[CompressionLevel::default(), CompressionLevel::try_from(1).expect("a level")]);
    made.mode = dice.one_of(&[ExtractMode::Merge, ExtractMode::Sync, ExtractMode::Release]);
    made.active = dice.heads();
    made.build =
        dice.one_of(&["with send"].iter().chain(&SCHEDULES).copied().collect::<Vec<_>>()).parse().expect("a schedule");
    made
}

fn subscriber(dice: &mut Dice, number: usize) -> Subscriber {
    let mut made = Subscriber::new(node(&format!("n{number}.example")));
    made.endpoints = dice.some_of(&["[::1]:7".parse().expect("valid"), "host:1229".parse().expect("valid")]);
    made.certificate = dice.one_of(&[
        None,
        Some(CertificateWay::directory(&format!("/mnt/{HARD}")).expect("absolute")),
        Some(CertificateWay::command("scp '{cer} x' root@{address}:/x").expect("it can work")),
    ]);
    made.active = dice.heads();
    // A parent is one before it, so that no route goes in a circle; every fourth one is External, and nobody's.
    made.external = number % 4 == 3;
    let before: Vec<usize> = (0..number).filter(|other| other % 4 != 3).collect();
    if !before.is_empty() {
        made.parents =
            dice.some_of(&before).into_iter().take(3).map(|other| node(&format!("n{other}.example"))).collect();
    }
    if dice.heads() {
        made.parents.push(node("dist.example"));
    }
    if !made.external {
        made.settings = settings(dice);
    }
    made.labels =
        dice.some_of(&[("site", "berlin"), ("role", "till")]).iter().map(|(k, v)| (label(k), label(v))).collect();
    made.rate = dice.one_of(&[None, Some("20MB/s; 2MB/s between 08:00 and 18:00".parse().expect("rates"))]);
    made
}

fn fleet(seed: u64) -> Fleet {
    let dice = &mut Dice(seed);
    let distributions: Vec<Distribution> =
        (0..=u8::try_from(dice.roll(4)).expect("small")).map(|number| distribution(dice, number)).collect();
    let subscribers: Vec<Subscriber> = (0..dice.roll(12)).map(|number| subscriber(dice, number)).collect();
    let names: Vec<_> = subscribers.iter().map(|subscriber| subscriber.name.clone()).collect();
    let groups: Vec<Group> = (0..dice.roll(3))
        .map(|number| Group {
            name: label(&format!("g{number}")),
            subscribers: dice.some_of(&names).into_iter().collect(),
        })
        .collect();
    let group_names: Vec<_> = groups.iter().map(|group| group.name.clone()).collect();
    let channels = (0..dice.roll(5)).map(|number| Channel {
        subscribers: dice.some_of(&names).into_iter().collect(),
        groups: dice.some_of(&group_names).into_iter().collect(),
        active: dice.heads(),
        schedule: dice.one_of(&SCHEDULES).parse().expect("a schedule"),
        ..Channel::new(label(&format!("c{number}")), [dice.one_of(&distributions).name])
    });
    let channels = channels.collect();
    let distributor = Some(node("dist.example"));
    let settings = settings(dice);
    Fleet::from_parts(FleetParts { distributor, settings, distributions, channels, groups, subscribers })
        .expect("valid")
}

#[test]
fn every_fleet_comes_back_from_its_text_and_the_same_fleet_gives_the_same_text() {
    for seed in 0..300 {
        let (fleet, dist) = (fleet(seed), node("dist.example"));
        let text = fleet.to_toml().expect("writable");
        let read = Fleet::from_toml(&text, Some(&dist), &mut |name| panic!("{name} has an id")).expect(&text);
        assert_eq!(read, fleet, "seed {seed}");
        assert_eq!(read.to_toml().expect("writable"), text, "seed {seed}");
        assert_eq!(read.index, fleet.index, "seed {seed}");
    }
}

#[test]
fn any_fleet_becomes_any_other_by_the_records_between_them_and_by_its_file() {
    for seed in 0..150 {
        let (old, new) = (fleet(seed), fleet(seed + 1000));
        let mut by_records = old.clone();
        by_records.take(old.records_to(&new));
        assert_eq!((&by_records, &by_records.index), (&new, &new.index), "seed {seed}");
        assert!(by_records.diff(&new).is_empty());
        assert_eq!(old.diff(&new).is_empty(), old == new, "seed {seed}");

        let mut by_file = old.clone();
        let parts =
            FleetParts::from_toml(&new.export().expect("writable"), &mut |name| panic!("{name}")).expect("valid");
        let ((), changes) = by_file.attempt(|fleet| fleet.apply(parts, Undeclared::Remove).map(drop)).expect("valid");
        assert_eq!((&by_file, &by_file.index), (&old, &old.index), "seed {seed}: only tried");
        by_file.take(changes);
        assert_eq!((&by_file, &by_file.index), (&new, &new.index), "seed {seed}");
    }
}
