//! Snapshots on their way into the store, beside the application of entries.

use std::mem;
use std::time::Duration;

use hebb_log::LogError;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{Owned, OwnerContext, RENEW_EVERY, renew};
use crate::task::at_length;
use crate::worker::WorkerMetrics;
use crate::worker::pace::SinceCheckpoint;

/// A snapshot on its way into the store. It is given up with the ownership.
pub(super) struct Storing {
    pub(super) task: JoinSet<Result<Duration, LogError>>,
    /// What it holds that the checkpoint before it doesn't.
    pub(super) since: SinceCheckpoint,
}

/// How a [`Storing`] ends: what it cost.
type Stored = Result<Result<Duration, LogError>, JoinError>;

/// Takes a snapshot and sends it on its way: entries are applied and answered while the store takes it in.
pub(super) fn snapshot(context: &OwnerContext, owned: &mut Owned) {
    let begun_at = Instant::now();
    let state = at_length(|| owned.partition.snapshot());
    owned.state_bytes = state.len() as u64;
    owned.checkpointed_at = begun_at;
    let (log, claim, position) = (context.store.log.clone(), owned.claim.clone(), owned.partition.position());
    owned.fallback = owned.fallback.filter(|fallback| !fallback.is_over(begun_at));
    let kept = owned.fallback.as_mut().map(|fallback| fallback.kept(position, begun_at));
    let mut task = JoinSet::new();
    task.spawn(async move { log.checkpoint(&claim, position, &state, kept).await.map(|()| begun_at.elapsed()) });
    owned.storing = Some(Storing { task, since: mem::take(&mut owned.since) });
}

/// Takes note of a snapshot that has arrived in the store, or couldn't.
pub(super) fn settle(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    match owned.storing.as_mut().and_then(|storing| storing.task.try_join_next()) {
        Some(stored) => conclude(&context.metrics, owned, stored),
        None => Ok(()),
    }
}

/// Waits for a snapshot that is on its way, and keeps the lease meanwhile: nobody is to replay what is about to be stored.
pub(super) async fn arrived(context: &OwnerContext, owned: &mut Owned) -> Result<(), LogError> {
    while let Some(storing) = &mut owned.storing {
        match timeout(RENEW_EVERY, storing.task.join_next()).await {
            Ok(Some(stored)) => return conclude(&context.metrics, owned, stored),
            Ok(None) => return Ok(()),
            Err(_) => {
                if let Err(error) = renew(context, owned).await {
                    debug!(partition = %owned.claim.partition, %error, "the lease can't be renewed; the checkpoint may still arrive");
                }
            }
        }
    }
    Ok(())
}

pub(super) fn conclude(metrics: &WorkerMetrics, owned: &mut Owned, stored: Stored) -> Result<(), LogError> {
    let Some(Storing { since, .. }) = owned.storing.take() else { return Ok(()) };
    let stored = stored.unwrap_or_else(|panic| Err(LogError::Unavailable(Box::new(panic))));
    let Ok(cost) = stored else {
        owned.since.entries += since.entries;
        owned.since.bytes += since.bytes;
        owned.since.failed = true;
        return stored.map(drop);
    };
    owned.checkpoint_cost = cost;
    owned.progress.0 = None;
    metrics.checkpointed(cost);
    Ok(())
}
