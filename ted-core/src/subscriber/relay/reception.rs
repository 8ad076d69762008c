//! Receiving a package for the children: without opening it, whether it is sealed or not.

use std::sync::Arc;

use crate::error::{Coded as _, Error};
use crate::id::{DistributionId, KeyHash};
use crate::node::wait;
use crate::package::Opening;
use crate::protocol::{Asked, Refused, RelayEnd, code};
use crate::security::{PackageRef, Stage};
use crate::store::{Depot as _, FinishedFile, PartFile};
use crate::subscriber::arriving::{Arrival, Arrived};
use crate::subscriber::deliveries::{revision_of, what_is_damaged};
use crate::subscriber::receive::ReceptionError;
use crate::subscriber::relay::worker_gone;
use crate::subscriber::state::{State, lock};

impl State {
    /// Receives a package that a child asks for, and tells the machine how that ended.
    pub(super) async fn receive_for_children(
        self: Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
        package: PackageRef,
    ) {
        let (key, revision) = ((fleet, distribution), revision_of(&package));
        let ended = self.relay_package(fleet, distribution, &package).await;
        let (state, of) = (self.clone(), package);
        let telling = move || match ended {
            Ok(came) => {
                // Who receives for itself says so itself.
                if came && !lock(&state.deliveries).contains_key(&key) {
                    state.say_relayed(key, &of, Stage::Received, None, String::new());
                    state.say_relayed(key, &of, Stage::Verified, None, String::new());
                }
                RelayEnd::Whole
            }
            Err(ReceptionError::Corrupt { frame, from, part }) => {
                if let Some(Err(error)) = part.map(PartFile::set_corrupt) {
                    tracing::error!(code = error.code(), %error, "a damaged package cannot be set aside");
                }
                state.say_relayed(key, &of, Stage::Corrupt, Some(code::CORRUPT), what_is_damaged(frame, from.as_ref()));
                RelayEnd::Corrupt
            }
            Err(error) => {
                tracing::info!(code = error.code(), %error, package = %of.id, %revision, "receiving for others stopped");
                RelayEnd::Stopped
            }
        };
        let Ok(end) = tokio::task::spawn_blocking(telling).await else { return };
        if let Err(error) = self.with_relay(&fleet, |relay| relay.package_ended(&package.id, end)) {
            tracing::error!(code = error.code(), %error, "what was received for others cannot be told");
        }
        // Who asked while this ended was told to wait, and nothing was demanded for it.
        if self.relays.claimed.holds(&package.id)
            && !matches!(self.with_relay(&fleet, |relay| relay.asked(&package.id)), Ok(Asked::Wait))
        {
            self.relays.claimed.forget(&package.id);
        }
    }

    /// Receives a package as a relay; says whether it came, or was here already when its turn came.
    async fn relay_package(
        self: &Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
        package: &PackageRef,
    ) -> Result<bool, ReceptionError> {
        let stop = self.run().stop;
        let arrival = loop {
            let other = match self.relays.claimed.take(&self.arrivals, package) {
                Ok(arrival) => break arrival,
                Err(other) => other,
            };
            tokio::select! {
                () = stop.cancelled() => return Err(ReceptionError::Stopping),
                _ = other.ended() => {}
            }
        };
        let (state, id) = (self.clone(), package.id);
        let looking = move || wait(state.depot.info(id));
        let here = tokio::task::spawn_blocking(looking).await.map_err(|_| ReceptionError::Stopping)?;
        if here.map_err(Error::from)?.is_some() {
            return Ok(false);
        }
        let received = self.relay_into(fleet, distribution, package, &arrival).await;
        if let Err(error) = &received {
            // The children learn what keeps it from here. They ask again, unless this node is told not to either.
            let word = match error {
                ReceptionError::Refused(refused) | ReceptionError::Held(refused) => refused.code(),
                _ => code::BUSY,
            };
            arrival.live().is_over(Refused::new(word, format!("at {}: {error}", self.name())));
        }
        received.map(|()| true)
    }

    async fn relay_into(
        self: &Arc<Self>,
        fleet: KeyHash,
        distribution: DistributionId,
        package: &PackageRef,
        arrival: &Arrival,
    ) -> Result<(), ReceptionError> {
        let root = self.trusted_root(&fleet)?;
        let judge = self.judges_root(&root, distribution, *package, |_| Ok(Opening::Unread));
        let mut reception = self.reception((fleet, distribution), *package, judge, arrival);
        let (index, pieces) = reception.index().await?;
        let index = index.blind().clone();
        tracing::info!(package = %package.id, revision = %index.root().revision, bytes = package.bytes, "receiving for others");
        let arrived = self.bring((fleet, distribution), reception, &index, pieces, root.name()).await?;
        let state = self.clone();
        let keeping = move || -> Result<(), ReceptionError> {
            state.trusted_root(&fleet)?;
            let Arrived { part, place } = arrived.complete(&index)?;
            let _nothing_goes = lock(&state.holding);
            wait(state.depot.put(FinishedFile { path: part.finish()?, place })).map_err(Error::from)?;
            Ok(())
        };
        tokio::task::spawn_blocking(keeping).await.map_err(worker_gone)??;
        arrival.is_whole();
        tracing::info!(package = %package.id, revision = %revision_of(package), "here for others");
        Ok(())
    }
}
