//! What snapshots of version 3 hold, and how it becomes what is known now.

use serde::Deserialize;

use super::{Counts, Learned, State};
use crate::config::PartitionConfig;
use crate::entry::EntryId;
use crate::meta::Meta;
use crate::recent::RecentOf3;
use crate::score::Score;
use crate::vitals::Vitals;

/// A state of version 3, which knew no event beyond the horizon.
#[derive(Deserialize)]
pub struct StateOf3 {
    config: PartitionConfig,
    position: EntryId,
    counts: Counts,
    score: Score,
    recent: RecentOf3,
    learned: Learned,
    meta: Meta,
    vitals: Vitals,
}

impl From<StateOf3> for State {
    fn from(old: StateOf3) -> Self {
        let StateOf3 { config, position, counts, score, recent, learned, meta, vitals } = old;
        Self { config, position, counts, score, recent: recent.into(), learned, meta, vitals }
    }
}
