//! How often something happened that the simulation is there for. Worlds without it prove nothing about it.

use std::collections::BTreeMap;

macro_rules! seen {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default, Clone, Copy)]
        pub(crate) struct Seen {
            $(pub(crate) $name: u64,)*
        }

        impl Seen {
            pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
                BTreeMap::from([$((stringify!($name), self.$name),)*])
            }

            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

seen! {
    worlds_without_faults,
    partitions,
    crashes_of_parents,
    crashes_with_unsynced_writes,
    bad_frames,
    corrupt_packages,
    rotten_packages_at_parents,
    mended_packages,
    resumed_receptions,
    frames_passed_on_before_the_end,
    waiting_blocks,
    packages_passed_on_blind,
    fetches_that_waited,
    offers_while_upstream_was_away,
    moves_to_a_fallback_parent,
    moves_back,
    resumed_after_a_move,
    refused_to_the_unentitled,
    lies_about_presence,
    offers_below_the_floor,
    firings_timed_out,
}
