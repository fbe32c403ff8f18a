//! Restores a backup into a store that holds nothing.
//!
//! States come first and domains last, and nobody works on a domain that isn't known: a run that was killed leaves what the
//! next run of the same backup recognises, and goes on from.

use std::path::Path;
use std::time::Duration;

use hebb_log::{Claim, Claimed, EntryId, Log, LogError, PartitionKey};
use tracing::info;

use super::folder::{FolderError, Summary, check, open};
use super::format::Block;
use crate::store::Store;

/// Who claims the partitions.
const OWNER: &str = "restore";
/// How long a claim lasts: as long as the largest state may take to be stored.
const LEASE: Duration = Duration::from_secs(60);
/// How often a claim is asked for while an earlier run's lasts.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Why nothing, or not everything, was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store doesn't answer.
    #[error("the store can't be filled")]
    Log(#[from] LogError),
    /// The backup can't be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Restoring would overwrite or mix.
    #[error("the target is not empty: {0}; nothing was overwritten, restore into a new cluster")]
    NotEmpty(String),
}

/// Restores the backup of this name; does nothing where that has been done.
///
/// # Errors
/// [`RestoreError`]. Before the whole file was checked and the store was found empty, nothing is written.
pub async fn restore(store: &Store, folder: &Path, backup: &str) -> Result<Summary, RestoreError> {
    let summary = check(folder, backup)?;
    let known = store.directory.domains().await?;
    if let Some(domain) = known.iter().find(|domain| !summary.domains.contains(domain)) {
        return Err(RestoreError::NotEmpty(format!("it has a domain {} that is not as in the backup", domain.name)));
    }
    for partition in &summary.partitions {
        let key = PartitionKey { domain: partition.domain.clone(), index: partition.index };
        let status = store.log.status(&key).await?;
        if status.length > 0 || status.checkpointed.is_some_and(|position| position != partition.position) {
            return Err(RestoreError::NotEmpty(format!("the partition {key} has learned something")));
        }
    }
    let mut reader = open(folder, backup)?;
    let broken = |source| FolderError::Backup { name: backup.to_owned(), source };
    while let Some(block) = reader.next().map_err(broken)? {
        let Block::Partition(head, state) = block else { continue };
        let key = PartitionKey { domain: head.domain, index: head.index };
        put(store.log.as_ref(), &key, head.position, &state).await?;
        info!(partition = %key, position = %head.position, bytes = state.len(), "restored");
    }
    for domain in &summary.domains {
        let stands = store.directory.declare(domain).await?;
        if stands != *domain {
            return Err(RestoreError::NotEmpty(format!("somebody else has made the domain {}", domain.name)));
        }
    }
    Ok(summary)
}

/// Stores a state where none is, or leaves it where it is already.
async fn put(log: &dyn Log, key: &PartitionKey, position: EntryId, state: &[u8]) -> Result<(), RestoreError> {
    if let Some(stands) = log.load(key).await? {
        return match stands.position == position && stands.state == state {
            true => Ok(()),
            false => Err(RestoreError::NotEmpty(format!("the partition {key} has learned something"))),
        };
    }
    let claim = claim(log, key).await?;
    let stored = log.checkpoint(&claim, position, state, None).await;
    log.release(&claim).await?;
    Ok(stored?)
}

/// Claims a partition, after the end of an earlier run's claim if need be.
async fn claim(log: &dyn Log, key: &PartitionKey) -> Result<Claim, RestoreError> {
    loop {
        match log.claim(key, OWNER, None, LEASE).await? {
            Claimed::New(claim) | Claimed::Resumed(claim) => return Ok(claim),
            Claimed::Held { owner, .. } if owner == OWNER => tokio::time::sleep(ASK_EVERY).await,
            Claimed::Held { owner, .. } => {
                return Err(RestoreError::NotEmpty(format!("{owner} works on the partition {key}")));
            }
        }
    }
}
