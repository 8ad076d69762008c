//! What a fleet may be and become.

use super::*;
use crate::error::Coded;

pub(in crate::model) fn label(text: &str) -> Label {
    text.parse().expect(text)
}

pub(in crate::model) fn node(text: &str) -> NodeName {
    text.parse().expect(text)
}

pub(in crate::model) fn distribution(number: u8, name: &str) -> Distribution {
    Distribution::new(DistributionId::from_bytes([number; 16]), label(name), format!("/srv/{name}"))
}

pub(in crate::model) fn channel(name: &str, distributions: &[&str], subscribers: &[&str]) -> Channel {
    let mut channel = Channel::new(label(name), distributions.iter().map(|name| label(name)));
    channel.subscribers = subscribers.iter().map(|name| node(name)).collect();
    channel
}

/// Two Distributions, two Subscribers; `nightly` sends both to `leaf1`, `hourly` sends `site` to both.
pub(in crate::model) fn fleet() -> Fleet {
    Fleet::from_parts(FleetParts {
        distributions: vec![distribution(1, "site"), distribution(2, "tools")],
        channels: vec![
            channel("nightly", &["site", "tools"], &["leaf1"]),
            channel("hourly", &["site"], &["leaf1", "leaf2"]),
        ],
        subscribers: vec![Subscriber::new(node("leaf1")), Subscriber::new(node("leaf2"))],
        ..FleetParts::default()
    })
    .expect("a valid fleet")
}

#[test]
fn a_subscriber_is_entitled_to_what_its_channels_send() {
    let fleet = fleet();
    let ids = |numbers: &[u8]| numbers.iter().map(|number| DistributionId::from_bytes([*number; 16])).collect();
    assert_eq!(fleet.entitled(&node("leaf1")), ids(&[1, 2]));
    assert_eq!(fleet.entitled(&node("leaf2")), ids(&[1]));
    assert_eq!(fleet.entitled(&node("stranger")), ids(&[]));
    let names = |channel| -> Vec<String> {
        let members = fleet.subscribers_of(&label(channel)).expect("known");
        members.iter().map(|subscriber| subscriber.name.to_string()).collect()
    };
    assert_eq!(names("hourly"), ["leaf1", "leaf2"]);
    assert_eq!(names("nightly"), ["leaf1"]);
    assert_eq!(fleet.channels_of(&node("leaf1")).count(), 2);
    assert_eq!(fleet.distributions_of(&label("nightly")).expect("known").len(), 2);
}

#[test]
fn each_mistake_is_refused_by_its_name_and_changes_nothing() {
    type Change = fn(&mut Fleet) -> Result<(), FleetError>;
    let cases: [(&str, &str, Change); 13] = [
        ("TED-1602", "Distribution `site`", |f| f.create_distribution(distribution(9, "site"))),
        ("TED-1602", "that of Distribution `site`", |f| f.create_distribution(distribution(1, "new"))),
        ("TED-1606", "id", |f| f.update_distribution(&label("site"), distribution(9, "site"))),
        ("TED-1602", "`tools`", |f| f.update_distribution(&label("site"), distribution(1, "tools"))),
        ("TED-1604", "Channel `hourly`, Channel `nightly`", |f| f.delete_distribution(&label("site")).map(drop)),
        ("TED-1605", "Distribution `none`", |f| f.delete_distribution(&label("none")).map(drop)),
        ("TED-1602", "Channel `hourly`", |f| f.create_channel(channel("hourly", &["site"], &[]))),
        ("TED-1603", "Distribution `none`", |f| f.create_channel(channel("new", &["none"], &[]))),
        ("TED-1603", "Subscriber `none`", |f| f.create_channel(channel("new", &["site"], &["none"]))),
        ("TED-1606", "distributions", |f| f.update_channel(&label("hourly"), channel("hourly", &[], &[]))),
        ("TED-1602", "`nightly`", |f| f.update_channel(&label("hourly"), channel("nightly", &["site"], &[]))),
        ("TED-1602", "Subscriber `leaf1`", |f| f.create_subscriber(Subscriber::new(node("leaf1")))),
        ("TED-1605", "Subscriber `none`", |f| f.add_to_channel(&label("hourly"), &node("none"))),
    ];
    for (code, named, change) in cases {
        let mut changed = fleet();
        let error = change(&mut changed).expect_err(named);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(named), "{error} does not name {named}");
        assert_eq!(changed, fleet(), "{error}: something changed");
    }
}

#[test]
fn a_renamed_distribution_stays_in_its_channels() {
    let mut fleet = fleet();
    fleet.update_distribution(&label("site"), distribution(1, "web")).expect("free name");
    assert!(fleet.distribution(&label("site")).is_err());
    assert_eq!(fleet.entitled(&node("leaf2")).len(), 1);
    assert!(fleet.channel(&label("hourly")).expect("there").distributions.contains(&label("web")));
}

#[test]
fn a_deleted_subscriber_leaves_its_channels() {
    let mut fleet = fleet();
    assert_eq!(fleet.delete_subscriber(&node("leaf1")).expect("there"), [label("hourly"), label("nightly")]);
    assert_eq!(fleet.channels_of(&node("leaf1")).count(), 0);
    assert!(fleet.entitled(&node("leaf1")).is_empty());
}

#[test]
fn membership_begins_and_ends() {
    let mut fleet = fleet();
    fleet.add_to_channel(&label("nightly"), &node("leaf2")).expect("both known");
    assert_eq!(fleet.entitled(&node("leaf2")).len(), 2);
    fleet.remove_from_channel(&label("nightly"), &node("leaf2")).expect("known");
    fleet.remove_from_channel(&label("nightly"), &node("leaf2")).expect("no member any more");
    assert_eq!(fleet.entitled(&node("leaf2")).len(), 1);
}

#[test]
fn an_endpoint_listed_twice_is_refused() {
    let mut subscriber = Subscriber::new(node("leaf1"));
    subscriber.endpoints = vec!["leaf1:1229".parse().expect("valid"), "LEAF1:1229".parse().expect("valid")];
    assert_eq!(fleet().update_subscriber(subscriber).expect_err("twice").code(), "TED-1606");
}
