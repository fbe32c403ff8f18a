//! From the claim to a partition in memory: its checkpoint, or what is made of a fallback, or the checkpoint of nothing that
//! a new partition begins with.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::time::Duration;

use hebb_engine::{Partition, SNAPSHOT_VERSION};
use hebb_log::{Checkpoint, Claim, Claimed, Domain, LogError, PartitionKey};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::turn::SHORT_STRETCH;
use super::{LEASE, LEASE_MARGIN, Owned, OwnerContext, RENEW_EVERY};
use crate::stop::Stop;
use crate::stored::{self, Restored, StoredError};
use crate::task::at_length;
use crate::worker::fallback::Fallback;
use crate::worker::pace::SinceCheckpoint;

/// Claims, and says since when the lease counts at the latest.
pub(super) async fn claim(
    context: &OwnerContext,
    key: &PartitionKey,
    previous: Option<&Claim>,
) -> Result<(Claimed, Instant), LogError> {
    let asked_at = Instant::now();
    let claimed = context.store.log.claim(key, &context.worker, previous, LEASE).await?;
    Ok((claimed, asked_at))
}

/// Loads the partition, or gives it up at the stop: the replay from a fallback can take minutes.
pub(super) async fn load_until(
    context: &OwnerContext,
    claim: Claim,
    domain: &watch::Receiver<Domain>,
    asked_at: Instant,
    stop: &Stop,
) -> Result<Option<Owned>, StoredError> {
    let (mut stop, given_up) = (stop.clone(), claim.clone());
    tokio::select! {
        biased;
        loaded = load(context, claim, domain, asked_at) => loaded.map(Some),
        () = stop.asked() => {
            context.store.log.release(&given_up).await?;
            Ok(None)
        }
    }
}

/// Restores the checkpoint, or begins with one, so that what a partition started from is never in doubt. What was made of a
/// fallback is stored at once too: whoever comes next can read it.
async fn load(
    context: &OwnerContext,
    claim: Claim,
    domain: &watch::Receiver<Domain>,
    asked_at: Instant,
) -> Result<Owned, StoredError> {
    let started = Instant::now();
    let log = context.store.log.as_ref();
    let mut renewed_at = asked_at;
    let (partition, mut fallback, stored) = match log.load(&claim.partition).await? {
        Some(newest) => {
            let restored = restore(context, &claim, &newest, &mut renewed_at).await?;
            let fallback = fallback(&newest, &restored);
            (restored.partition, fallback, (!restored.is_fallback).then_some(newest.state.len()))
        }
        None => (Partition::governed(domain.borrow().config.clone(), context.governance), None, None),
    };
    let state_bytes = match stored {
        Some(bytes) => bytes as u64,
        None => {
            let state = at_length(|| partition.snapshot());
            let kept = fallback.as_mut().map(|fallback| fallback.kept(partition.position(), Instant::now()));
            log.checkpoint(&claim, partition.position(), &state, kept).await?;
            state.len() as u64
        }
    };
    info!(
        partition = %claim.partition, epoch = claim.epoch, position = %partition.position(), bytes = state_bytes,
        milliseconds = started.elapsed().as_millis() as u64, "took over the partition"
    );
    Ok(Owned {
        claim,
        partition,
        valid_until: renewed_at + LEASE - LEASE_MARGIN,
        renewed_at,
        checkpointed_at: Instant::now(),
        checkpoint_cost: Duration::ZERO,
        state_bytes,
        since: SinceCheckpoint::default(),
        fallback,
        storing: None,
        reading: None,
        unapplied: VecDeque::new(),
        progress: (Some(0), Instant::now()),
        outcomes: BTreeMap::new(),
        // Nobody knows yet.
        entry_cost: SHORT_STRETCH,
        asked_config: None,
        asked_governance: None,
    })
}

/// Restores the partition, and renews the lease meanwhile: a fallback can have a long log behind it.
async fn restore(
    context: &OwnerContext,
    claim: &Claim,
    newest: &Checkpoint,
    renewed_at: &mut Instant,
) -> Result<Restored, StoredError> {
    let log = context.store.log.as_ref();
    let mut restoring = pin!(stored::restore(log, &claim.partition, newest, context.skip_unreadable));
    loop {
        if let Ok(restored) = timeout_at(*renewed_at + RENEW_EVERY, &mut restoring).await {
            return restored;
        }
        let asked_at = Instant::now();
        log.renew(claim, LEASE).await?;
        *renewed_at = asked_at;
    }
}

/// What to keep with the next checkpoints, so that workers of the version before this one could go on: what was written
/// by one, or what is kept already.
fn fallback(newest: &Checkpoint, restored: &Restored) -> Option<Fallback> {
    let is_older = restored.version < SNAPSHOT_VERSION;
    match newest.kept {
        _ if is_older && !restored.is_fallback => Some(Fallback::begun(newest.position)),
        Some(kept) if is_older || !restored.is_fallback => {
            Some(Fallback::taken_over(kept, newest.position, Instant::now()))
        }
        _ => None,
    }
}
