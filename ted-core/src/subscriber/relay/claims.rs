//! Receptions that a child's request has begun, from the first byte that it waits for until the driver takes them up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::id::PackageId;
use crate::node::Live;
use crate::security::PackageRef;
use crate::subscriber::arriving::{Arrival, Arrivals};
use crate::subscriber::state::lock;

/// What children claimed and nobody receives yet. The lock is held while a right is claimed, so that whoever waits for
/// that right finds it here.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<PackageId, Arrival>>);

impl Claims {
    /// What arrives of a package, or is about to.
    pub(super) fn claim(&self, arrivals: &Arc<Arrivals>, package: &PackageRef) -> Arc<Live> {
        let mut claims = lock(&self.0);
        match arrivals.claim(package) {
            Ok(arrival) => claims.entry(package.id).insert_entry(arrival).get().live().clone(),
            Err(live) => live,
        }
    }

    /// The right to receive a package, which a child may have claimed; else what arrives of it otherwise.
    pub(super) fn take(&self, arrivals: &Arc<Arrivals>, package: &PackageRef) -> Result<Arrival, Arc<Live>> {
        let mut claims = lock(&self.0);
        claims.remove(&package.id).map_or_else(|| arrivals.claim(package), Ok)
    }

    /// Whether a child waits for what nobody has taken up.
    pub(super) fn holds(&self, package: &PackageId) -> bool {
        lock(&self.0).contains_key(package)
    }

    /// Nobody receives it: who waits is told so.
    pub(super) fn forget(&self, package: &PackageId) {
        let claimed = lock(&self.0).remove(package);
        drop(claimed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Revision;
    use crate::security::Carried;

    #[tokio::test]
    async fn what_a_child_claims_while_another_reception_ends_is_taken_up_by_whoever_waited_for_that() {
        let (claims, arrivals) = (Claims::default(), Arc::new(Arrivals::default()));
        let carried = Carried::Baseline { revision: Revision::from_number(1) };
        let package = PackageRef { id: PackageId::from_bytes([1; 32]), carried, bytes: 10 };
        let own = arrivals.claim(&package).ok().unwrap();
        let waited_for = claims.take(&arrivals, &package).err().unwrap();
        drop(own);
        let seen = claims.claim(&arrivals, &package);
        assert!(!waited_for.ended().await && claims.holds(&package.id));
        let arrival = claims.take(&arrivals, &package).ok().unwrap();
        assert!(Arc::ptr_eq(arrival.live(), &seen), "the child waits for what is received");
        assert!(!claims.holds(&package.id));
        // And one that is demanded by nobody ends the waiting.
        drop(arrival);
        let seen = claims.claim(&arrivals, &package);
        claims.forget(&package.id);
        assert!(!seen.ended().await);
    }
}
