//! What a fleet may not hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::Limits;
use crate::model::fleet::duplicate;
use crate::model::{Channel, Fleet, FleetError, Item, Subscriber};
use crate::name::NodeName;
use crate::schedule::Purpose;

impl Fleet {
    pub(super) fn check_channel(&self, channel: &Channel) -> Result<(), FleetError> {
        let by = || channel.item();
        if channel.distributions.is_empty() {
            let reason = "names none, so there is nothing to send".to_owned();
            return Err(FleetError::BadField { item: by(), field: "distributions", reason });
        }
        if let Some(name) = channel.distributions.iter().find(|name| self.distribution(name).is_err()) {
            let missing = Item::Distribution(name.to_string());
            return Err(FleetError::UnknownReference { by: by(), missing });
        }
        if let Some(name) = channel.subscribers.iter().find(|name| !self.subscribers.contains_key(*name)) {
            let missing = Item::Subscriber(name.to_string());
            return Err(FleetError::UnknownReference { by: by(), missing });
        }
        if let Some(name) = channel.groups.iter().find(|name| !self.groups.contains_key(*name)) {
            let missing = Item::Group(name.to_string());
            return Err(FleetError::UnknownReference { by: by(), missing });
        }
        if !channel.schedule.fits(Purpose::Send) {
            let reason = format!("cannot be `{}`, which is for builds", channel.schedule);
            return Err(FleetError::BadField { item: by(), field: "schedule", reason });
        }
        Ok(())
    }

    pub(super) fn refuse_taken(&self, subscriber: &Subscriber) -> Result<(), FleetError> {
        if self.subscribers.contains_key(&subscriber.name) {
            return Err(duplicate(subscriber.item(), ""));
        }
        Ok(())
    }

    pub(super) fn check_subscriber(&self, subscriber: &Subscriber) -> Result<(), FleetError> {
        refuse_twice(subscriber, "endpoints", &subscriber.endpoints)?;
        self.check_route(subscriber)?;
        if !subscriber.external {
            return Ok(());
        }
        if let Some(child) = self.children_of(&subscriber.name).next() {
            return Err(FleetError::ExternalParent { by: child.item(), parent: subscriber.name.clone() });
        }
        if !subscriber.settings.is_empty() {
            let settings = subscriber.settings.to_string();
            return Err(FleetError::ExternalSettings { item: subscriber.item(), settings });
        }
        Ok(())
    }

    fn check_route(&self, subscriber: &Subscriber) -> Result<(), FleetError> {
        let item = || subscriber.item();
        refuse_twice(subscriber, "parents", &subscriber.parents)?;
        let most = Limits::DEFAULT.parents_max;
        if subscriber.parents.len() > most {
            let reason = format!("names {} nodes, and {most} are allowed", subscriber.parents.len());
            return Err(FleetError::BadField { item: item(), field: "parents", reason });
        }
        for parent in &subscriber.parents {
            if self.is_distributor(parent) || *parent == subscriber.name {
                continue;
            }
            match self.subscribers.get(parent) {
                None => {
                    let (parent, distributor) = (parent.clone(), self.distributor.clone());
                    return Err(FleetError::UnknownParent { by: item(), parent, distributor });
                }
                Some(found) if found.external => {
                    return Err(FleetError::ExternalParent { by: item(), parent: parent.clone() });
                }
                Some(_) => {}
            }
        }
        self.circle_of(subscriber).map_or(Ok(()), |circle| Err(FleetError::RouteCircle { circle }))
    }

    /// The way up from a Subscriber that comes back to it, over any of the parents that routes name.
    fn circle_of(&self, subscriber: &Subscriber) -> Option<Vec<NodeName>> {
        // Who was reached from whom, for the way back down.
        let mut reached: BTreeMap<&NodeName, &NodeName> = BTreeMap::new();
        let mut open: Vec<(&NodeName, &[NodeName])> = vec![(&subscriber.name, &subscriber.parents)];
        while let Some((at, parents)) = open.pop() {
            for parent in parents.iter().filter(|parent| !self.is_distributor(parent)) {
                if *parent == subscriber.name {
                    let mut way = vec![parent.clone(), at.clone()];
                    let mut below = at;
                    while let Some(next) = reached.get(below) {
                        way.push((*next).clone());
                        below = next;
                    }
                    way.reverse();
                    return Some(way);
                }
                if !reached.contains_key(parent) {
                    reached.insert(parent, at);
                    if let Some(found) = self.subscribers.get(parent) {
                        open.push((parent, &found.parents));
                    }
                }
            }
        }
        None
    }
}

fn refuse_twice<T: Ord + std::fmt::Display>(
    subscriber: &Subscriber,
    field: &'static str,
    values: &[T],
) -> Result<(), FleetError> {
    let mut seen = BTreeSet::new();
    match values.iter().find(|value| !seen.insert(*value)) {
        None => Ok(()),
        Some(value) => {
            let reason = format!("lists {value} twice");
            Err(FleetError::BadField { item: subscriber.item(), field, reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded;
    use crate::model::fleet::tests::node;
    use crate::model::{FleetParts, Setting, Settings};

    fn behind(name: &str, parents: &[&str]) -> Subscriber {
        let parents = parents.iter().map(|name| node(name)).collect();
        Subscriber { parents, ..Subscriber::new(node(name)) }
    }

    fn external(name: &str, parents: &[&str]) -> Subscriber {
        Subscriber { external: true, ..behind(name, parents) }
    }

    fn tiers() -> Fleet {
        Fleet::from_parts(FleetParts {
            distributor: Some(node("dist")),
            subscribers: vec![
                behind("leaf", &["p2", "p1"]),
                behind("p2", &["p1", "dist"]),
                behind("p1", &[]),
                external("guest", &["p1"]),
            ],
            ..FleetParts::default()
        })
        .expect("a valid fleet")
    }

    #[test]
    fn routes_that_cannot_work_are_refused_and_the_mistake_is_named() {
        let many: Vec<String> = (0..9).map(|number| format!("n{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (subscriber, code, named) in [
            (behind("p1", &["p1"]), "TED-1374", "p1 -> p1"),
            (behind("p1", &["leaf"]), "TED-1374", "p1 -> leaf -> p1"),
            (behind("p1", &["dist", "p2"]), "TED-1374", "p1 -> p2 -> p1"),
            (behind("leaf", &["guest"]), "TED-1375", "`guest`, which is External"),
            (external("p1", &[]), "TED-1375", "`p1`, which is External"),
            (
                behind("leaf", &["p3"]),
                "TED-1377",
                "`p3`, which is neither a Subscriber of the fleet nor its Distributor, `dist`",
            ),
            (behind("leaf", &["p1", "p1"]), "TED-1606", "lists p1 twice"),
            (behind("leaf", &many), "TED-1606", "9 nodes, and 8"),
        ] {
            let mut changed = tiers();
            let error = changed.update_subscriber(subscriber).expect_err(named);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(named), "{error} does not name {named}");
            assert_eq!(changed, tiers(), "{error}: something changed");
        }
        for fine in [behind("leaf", &["p1", "p2", "dist"]), behind("p1", &["dist"]), external("leaf", &["p2"])] {
            assert_eq!(tiers().update_subscriber(fine), Ok(()));
        }
    }

    #[test]
    fn circles_are_found_however_long_they_are_and_wherever_they_are_declared() {
        let names: Vec<String> = (0..300).map(|number| format!("n{number}")).collect();
        let subscribers = names.iter().enumerate().map(|(number, name)| behind(name, &[&names[(number + 1) % 300]]));
        let parts = FleetParts { subscribers: subscribers.collect(), ..FleetParts::default() };
        let error = Fleet::from_parts(parts).expect_err("a circle");
        let FleetError::RouteCircle { circle } = &error else { panic!("{error}") };
        assert_eq!((circle.len(), circle.first()), (301, circle.last()));
    }

    #[test]
    fn nothing_is_set_at_an_external_one() {
        let mut settings = Settings::default();
        settings.set(Setting::InputRate, "2M").expect("fits");
        let error = tiers().set_settings(Some(&node("guest")), settings.clone()).expect_err("External");
        assert_eq!(error.code(), "TED-1376");
        let mut fleet = tiers();
        fleet.set_settings(Some(&node("leaf")), settings).expect("its own");
        let leaf = fleet.subscriber(&node("leaf")).expect("there").clone();
        let error = fleet.update_subscriber(Subscriber { external: true, ..leaf }).expect_err("settings");
        assert!(error.to_string().contains("rate.input=2MB/s"), "{error}");
    }

    #[test]
    fn a_parent_is_not_deleted_and_its_new_name_stands_in_routes() {
        let mut fleet = tiers();
        let error = fleet.delete_subscriber(&node("p2")).expect_err("a parent");
        assert_eq!((error.code(), error.to_string().contains("the route of Subscriber `leaf`")), ("TED-1604", true));
        fleet.rename_subscriber(&node("p2"), &node("p9")).expect("free");
        assert_eq!(fleet.subscriber(&node("leaf")).expect("there").parents, [node("p9"), node("p1")]);
        assert_eq!(fleet.way_to(&node("leaf")), [node("p1"), node("p9")]);
    }
}
