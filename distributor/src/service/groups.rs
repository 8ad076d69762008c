//! Groups, routes, and the fleet as a whole.

use serde_json::Value;
use ted_cli::api::{Done, Operation as _, handle};
use ted_cli::error::{ApiError, from_library};
use ted_core::distributor::Trial;
use ted_core::model::{Fleet, Group, Item, Subscriber, Undeclared};
use ted_core::name::{Label, NodeName};

use super::Service;
use crate::api::{
    ChangeView, FleetApply, FleetExport, FleetFile, FleetRefresh, GroupCreate, GroupDelete, GroupList, GroupShow,
    GroupUpdate, GroupView, Groups, RouteOf, RouteRow, RouteShow, RouteView, WarningView,
};

impl Service {
    pub(super) async fn group_operation(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            GroupCreate::NAME => handle(body, |it| self.create_group(it)).await,
            GroupUpdate::NAME => handle(body, |it| self.update_group(it)).await,
            GroupList::NAME => handle(body, |_: GroupList| self.list_groups()).await,
            GroupShow::NAME => handle(body, async |it: GroupShow| self.show_group(&it.name)).await,
            GroupDelete::NAME => handle(body, |it| self.delete_group(it)).await,
            RouteShow::NAME => handle(body, async |it: RouteShow| self.show_route(it.name)).await,
            FleetApply::NAME => handle(body, |it| self.apply(it)).await,
            FleetRefresh::NAME => handle(body, async |_: FleetRefresh| self.refresh().await).await,
            FleetExport::NAME => handle(body, async |_: FleetExport| self.export()).await,
            _ => self.keystore_operation(operation, body).await,
        }
    }

    async fn create_group(&self, request: GroupCreate) -> Result<GroupView, ApiError> {
        let GroupCreate { name, subscribers } = request;
        let group = Group { name: name.clone(), subscribers: subscribers.into_iter().collect() };
        self.distributor().create_group(group).await?;
        self.show_group(&name)
    }

    async fn update_group(&self, request: GroupUpdate) -> Result<GroupView, ApiError> {
        let known_as = request.changes.name.clone().unwrap_or_else(|| request.name.clone());
        self.distributor().change_group(&request.name, request.changes).await?;
        self.show_group(&known_as)
    }

    async fn list_groups(&self) -> Result<Groups, ApiError> {
        let groups = self.distributor().with_fleet(|fleet| fleet.groups().map(|group| view(fleet, group)).collect());
        Ok(Groups { groups })
    }

    fn show_group(&self, name: &Label) -> Result<GroupView, ApiError> {
        self.distributor().with_fleet(|fleet| Ok(view(fleet, fleet.group(name).map_err(from_library)?)))
    }

    async fn delete_group(&self, request: GroupDelete) -> Result<Done, ApiError> {
        self.distributor().delete_group(&request.name).await?;
        Ok(Done {})
    }

    fn show_route(&self, name: Option<NodeName>) -> Result<RouteView, ApiError> {
        let distributor = self.distributor().name();
        self.distributor().with_fleet(|fleet| {
            let Some(name) = name else {
                let routes = fleet.subscribers().map(|subscriber| route(fleet, subscriber)).collect();
                let warnings = fleet.warnings();
                let about_routes = warnings.iter().filter(|warning| matches!(warning.item(), Item::Subscriber(_)));
                return Ok(RouteView {
                    distributor,
                    routes,
                    of: None,
                    warnings: about_routes.map(WarningView::from).collect(),
                });
            };
            let subscriber = fleet.subscriber(&name).map_err(from_library)?;
            let item = Item::Subscriber(name.to_string());
            let warnings =
                fleet.warnings().iter().filter(|warning| *warning.item() == item).map(WarningView::from).collect();
            let named = |ids: std::collections::BTreeSet<_>| {
                let mut names: Vec<Label> =
                    ids.iter().filter_map(|id| Some(fleet.distribution_by_id(id)?.name.clone())).collect();
                names.sort();
                names
            };
            let of = RouteOf {
                children: fleet.children_of(&name).map(|child| child.name.clone()).collect(),
                descendants: fleet.descendants_of(&name).into_iter().collect(),
                receives: named(fleet.entitled(&name)),
                carries: named(fleet.entitled_behind(&name)),
                name: name.clone(),
            };
            Ok(RouteView { distributor, routes: vec![route(fleet, subscriber)], of: Some(of), warnings })
        })
    }

    async fn apply(&self, request: FleetApply) -> Result<ChangeView, ApiError> {
        let FleetApply { toml, prune, dry_run } = request;
        let undeclared = if prune { Undeclared::Remove } else { Undeclared::Keep };
        let trial = if dry_run { Trial::Only } else { Trial::Make };
        let change = self.distributor().apply(toml, undeclared, trial).await?;
        Ok(ChangeView::new(change, dry_run, prune))
    }

    async fn refresh(&self) -> Result<ChangeView, ApiError> {
        let prune = self.settings().config.refresh().is_some_and(|refresh| refresh.prune);
        Ok(ChangeView::new(self.distributor().refresh().await?, false, prune))
    }

    fn export(&self) -> Result<FleetFile, ApiError> {
        Ok(FleetFile { toml: self.distributor().export()? })
    }
}

fn view(fleet: &Fleet, group: &Group) -> GroupView {
    GroupView {
        name: group.name.clone(),
        subscribers: group.subscribers.iter().cloned().collect(),
        channels: fleet.channels_to(&group.name).map(|channel| channel.name.clone()).collect(),
    }
}

fn route(fleet: &Fleet, subscriber: &Subscriber) -> RouteRow {
    RouteRow {
        name: subscriber.name.clone(),
        parents: subscriber.parents.clone(),
        way: fleet.way_to(&subscriber.name),
        external: subscriber.external,
        active: subscriber.active,
    }
}
