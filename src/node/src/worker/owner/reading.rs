//! Reads the log, and what comes next while entries are applied.

use std::time::Duration;

use hebb_engine::EntryId;
use hebb_log::{LogError, PartitionKey, Record};
use tokio::task::JoinSet;

use super::OwnerContext;
use super::reports::PROGRESS_WITHIN;

/// Entries of one read: at 10,000/s they take 25 ms, so that answers, a renewal and a stop come in time.
pub(super) const BATCH_MAX: usize = 256;
/// Up to here what follows isn't read meanwhile: to begin that costs more than the entries do.
pub(super) const SMALL_BATCH: usize = 8;

/// Entries on their way from the store while those before them are applied. It is given up with the ownership.
pub(super) type Reading = JoinSet<Result<Vec<(EntryId, Record)>, LogError>>;

/// What a read that was begun brings, or else a new one.
pub(super) async fn read(
    context: &OwnerContext,
    partition: &PartitionKey,
    after: EntryId,
    begun: Option<Reading>,
    wait: Duration,
) -> Result<Vec<(EntryId, Record)>, LogError> {
    let begun = match begun {
        Some(mut reading) => reading.join_next().await,
        None => None,
    };
    match begun {
        Some(read) => read.unwrap_or_else(|panic| Err(LogError::Unavailable(Box::new(panic)))),
        None => context.store.log.read(partition, after, BATCH_MAX, wait).await,
    }
}

/// Begins to read while what was read before is applied: under load neither waits for the other.
pub(super) fn read_on(context: &OwnerContext, partition: &PartitionKey, after: EntryId) -> Reading {
    let (log, partition) = (context.store.log.clone(), partition.clone());
    let mut reading = JoinSet::new();
    reading.spawn(async move { log.read(&partition, after, BATCH_MAX, PROGRESS_WITHIN).await });
    reading
}
