//! What this node's operator permits Distributions to have beyond files, modes and times.

use std::collections::BTreeSet;

use crate::extract::{Ownership, Privilege};
use crate::id::KeyHash;
use crate::name::Label;
use crate::subscriber::reference::DistributionRef;
use crate::subscriber::state::State;

/// Nothing of it is done because a Distributor says so: it needs both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Permits {
    /// Who owns what is extracted, where a Distribution asks for its own owners.
    pub(crate) ownership: Ownership,
    /// Distributions whose setuid, setgid and file capabilities are kept where they ask for it.
    pub(crate) privileged: BTreeSet<DistributionRef>,
}

impl State {
    /// What is permitted to a Distribution: whether owners are kept, and whether setuid and file capabilities are.
    pub(super) fn permitted(&self, fleet: &KeyHash, distribution: &Label) -> (Ownership, Privilege) {
        let permits = &self.settings.permits;
        let full = DistributionRef::new(Some(self.distributor_name(fleet)), distribution.clone());
        let named = [full, DistributionRef::from(distribution.clone())];
        let privileged = named.iter().any(|known| permits.privileged.contains(known));
        (permits.ownership, if privileged { Privilege::KeepSetuid } else { Privilege::Drop })
    }
}
