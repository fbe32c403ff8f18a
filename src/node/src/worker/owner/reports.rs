//! What an owner says: answers to gateways, to the store how far it is, and how the partition is.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use futures::future::try_join_all;
use hebb_log::{Claim, LogError, Reply};

use super::{Owned, OwnerContext};
use crate::report::{PartitionReport, shorten};

/// How long a read waits for the first entry; short enough to renew and to stop in time.
pub(super) const READ_WAIT: Duration = Duration::from_millis(400);
/// How old the store's knowledge of what was applied may become, short of `progress_every` entries.
pub(super) const PROGRESS_WITHIN: Duration = Duration::from_millis(20);

impl Owned {
    /// Entries that were applied and aren't in the stored checkpoint.
    pub(super) fn ahead(&self) -> u64 {
        self.since.entries + self.storing.as_ref().map_or(0, |storing| storing.since.entries)
    }

    /// How much the store is to be told of, if it is to be told now. A word that crosses with a checkpoint counts entries
    /// twice; so there is another one as soon as that is known to be stored.
    pub(super) fn progress_due(&self, every: u64) -> Option<u64> {
        let (told, at) = self.progress;
        let ahead = self.ahead();
        let is_due = told.is_none_or(|told| {
            let news = ahead.saturating_sub(told);
            news > 0 && (news >= every || at.elapsed() >= PROGRESS_WITHIN)
        });
        is_due.then_some(ahead)
    }
}

pub(super) async fn progress(context: &OwnerContext, claim: &Claim, applied: Option<u64>) -> Result<(), LogError> {
    match applied {
        Some(applied) => context.store.log.progress(claim, applied).await,
        None => Ok(()),
    }
}

pub(super) async fn answer(context: &OwnerContext, mut replies: BTreeMap<String, Vec<Reply>>) -> Result<(), LogError> {
    let sends = replies.iter_mut().map(|(gateway, batch)| context.store.replies.send(gateway, mem::take(batch)));
    try_join_all(sends).await.map(drop)
}

pub(super) fn report(owned: &Owned) -> PartitionReport {
    let mut statistics = owned.partition.statistics();
    let class_count = statistics.classes.len() as u64;
    shorten(&mut statistics);
    PartitionReport {
        domain: owned.claim.partition.domain.clone(),
        index: owned.claim.partition.index,
        epoch: owned.claim.epoch,
        state_bytes: owned.state_bytes,
        checkpoint_ms: owned.checkpoint_cost.as_millis() as u64,
        class_count,
        learned: owned.partition.learned(),
        statistics,
    }
}
