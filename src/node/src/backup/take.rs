//! Takes a backup: reads each partition's checkpoint and what follows it, and replays that here.
//!
//! It reads and never claims. An owner may checkpoint, and so trim the log, at any moment: what was read counts only when
//! no checkpoint had moved past it by then, else the newer checkpoint is read.

use std::path::Path;
use std::time::Duration;

use hebb_engine::{EntryId, Partition};
use hebb_log::{Domain, Log, LogError, PartitionKey};
use jiff::Timestamp;
use tracing::debug;

use super::folder::{FolderError, Pending, Summary, name};
use super::format::{FormatError, Head, PartitionHead, Writer, digest};
use crate::replay;
use crate::store::Store;
use crate::stored::{self, StoredError};

/// Entries of one read.
const BATCH: usize = 1_000;
/// How often a partition is begun anew. A checkpoint takes at least as long as reading it, and leaves a short log.
const ATTEMPTS: usize = 100;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The store doesn't answer.
    #[error("the state can't be read")]
    Log(#[from] LogError),
    /// A stored state is of another version, or broken.
    #[error("the state of {0} can't be read")]
    State(PartitionKey, #[source] StoredError),
    /// Its owner stores checkpoints faster than they are read.
    #[error("the checkpoint of {0} changed {ATTEMPTS} times while it was read; raise spec.engine.checkpointInterval")]
    Unsettled(PartitionKey),
    /// The file can't be written.
    #[error("the file can't be written")]
    File(#[from] FormatError),
    /// The folder can't be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Writes a backup of everything that was acknowledged before `now`, and of some that came since.
///
/// # Errors
/// [`TakeError`]; no file is left then.
pub async fn take(store: &Store, cluster: &str, folder: &Path, now: Timestamp) -> Result<Summary, TakeError> {
    // As fine as the file's name.
    let created_at = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
    let head = Head { cluster: cluster.to_owned(), created_at };
    let backup = name(&head);
    let (pending, file) = Pending::begin(folder, backup.clone())?;
    let mut writer = Writer::begin(file, &head)?;
    let domains = store.directory.domains().await?;
    for domain in &domains {
        writer.domain(domain)?;
    }
    let mut partitions = Vec::new();
    for domain in &domains {
        for index in 0..domain.partitions {
            let key = PartitionKey { domain: domain.name.clone(), index };
            let partition = capture(store.log.as_ref(), &key, domain).await?;
            let state = partition.snapshot();
            let statistics = partition.statistics();
            let captured = PartitionHead {
                domain: key.domain,
                index,
                position: statistics.position,
                events: statistics.events,
                applied_digest: statistics.applied_digest,
                digest: digest(&state),
            };
            writer.partition(&captured, &state)?;
            partitions.push(captured);
        }
    }
    let file = writer.end()?;
    let bytes = file.get_ref().metadata().map_err(FormatError::from)?.len();
    pending.publish(file)?;
    Ok(Summary { backup, head, bytes, domains, partitions })
}

/// The state of a partition with every entry that was in its log when this began.
async fn capture(log: &dyn Log, key: &PartitionKey, domain: &Domain) -> Result<Partition, TakeError> {
    for _ in 0..ATTEMPTS {
        let checkpoint = log.load(key).await?;
        let status = log.status(key).await?;
        // With the same checkpoint before and after, the log is exactly what follows it.
        if status.checkpointed != checkpoint.as_ref().map(|checkpoint| checkpoint.position) {
            continue;
        }
        let mut partition = match checkpoint {
            Some(checkpoint) => match stored::restore(log, key, &checkpoint, false).await {
                Ok(restored) => restored.partition,
                Err(StoredError::Log(error)) => return Err(error.into()),
                Err(source) => return Err(TakeError::State(key.clone(), source)),
            },
            // Its first owner would begin with this.
            None => Partition::new(domain.config.clone()),
        };
        match follow(log, key, &mut partition, status.length).await {
            Ok(true) => return Ok(partition),
            Ok(false) => {}
            Err(StoredError::Log(error)) => return Err(error.into()),
            Err(source) => return Err(TakeError::State(key.clone(), source)),
        }
        debug!(partition = %key, "its owner has stored a newer checkpoint, which is read instead");
    }
    Err(TakeError::Unsettled(key.clone()))
}

/// Applies the next `count` entries; whether none of them had been trimmed. One that only a newer version can read may have
/// been acknowledged by it.
async fn follow(
    log: &dyn Log,
    key: &PartitionKey,
    partition: &mut Partition,
    mut count: u64,
) -> Result<bool, StoredError> {
    while count > 0 {
        let after = partition.position();
        let room = usize::try_from(count).unwrap_or(BATCH).min(BATCH);
        let entries = log.read(key, after, room, Duration::ZERO).await?;
        // Checkpoints only move on: one that is not past `after` now wasn't when the entries after it were read.
        let checkpointed = log.status(key).await?.checkpointed.unwrap_or(EntryId::default());
        if checkpointed > after {
            return Ok(false);
        }
        if entries.is_empty() {
            return Ok(true);
        }
        for (id, record) in &entries {
            if replay::is_lost(&replay::apply(partition, *id, &record.entry), &record.entry) {
                return Err(StoredError::Unreadable(*id));
            }
        }
        count = count.saturating_sub(entries.len() as u64);
    }
    Ok(true)
}
