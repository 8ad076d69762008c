//! What this node's operator permits Distributions to have beyond files, modes and times.

use std::collections::BTreeSet;

use crate::extract::{ExtractOptions, Ownership, Privilege};
use crate::id::KeyHash;
use crate::name::Label;
use crate::package::{AsEntry, Asked};
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
    /// How a Distribution with these entries is extracted, and compared with its target.
    pub(super) fn extract_options<E: AsEntry>(
        &self,
        fleet: &KeyHash,
        distribution: &Label,
        entries: &[E],
    ) -> ExtractOptions {
        let permits = &self.settings.permits;
        let full = DistributionRef::new(Some(self.distributor_name(fleet)), distribution.clone());
        let permitted =
            [full, DistributionRef::from(distribution.clone())].iter().any(|known| permits.privileged.contains(known));
        let privilege =
            if permitted && Asked::of(entries).privileged { Privilege::KeepSetuid } else { Privilege::Drop };
        ExtractOptions {
            links: self.settings.links,
            threads: self.settings.threads.map_or(0, usize::from),
            privilege,
            ownership: permits.ownership,
            ..ExtractOptions::default()
        }
    }
}
