//! The file of a local store: one redb database, written by one thread in group commits.
//!
//! Whoever writes waits for the commit that carries the write. What arrives while a commit is under way shares the next one.

use std::path::Path;
use std::sync::mpsc as std_mpsc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;
use tracing::error;

use crate::{Checkpoint, Domain, EntryId, LogError, PartitionKey, Record};

const LOG: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("log");
const CHECKPOINTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("checkpoints");
const EPOCHS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("epochs");
const DOMAINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("domains");

/// Writes of one commit: enough to share a sync, few enough for a commit of some megabytes.
const GROUP_MAX: usize = 1_024;

/// One change of the file.
pub(super) enum Change {
    Append(PartitionKey, EntryId, Vec<u8>),
    /// Stores a checkpoint and removes the entries up to its position.
    Checkpoint(PartitionKey, Checkpoint, Vec<EntryId>),
    Epoch(PartitionKey, u64),
    Domain(Domain),
}

/// Changes that are made together, and who waits for them.
struct Write {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), String>>,
}

/// What a file held when it was opened.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) log: Vec<(PartitionKey, EntryId, Record)>,
    pub(super) checkpoints: Vec<(PartitionKey, Checkpoint)>,
    pub(super) epochs: Vec<(PartitionKey, u64)>,
    pub(super) domains: Vec<Domain>,
}

/// The open file. The writer thread ends when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Disk(std_mpsc::Sender<Write>);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DiskError(String);

fn failed(error: impl std::fmt::Display) -> LogError {
    LogError::unavailable(DiskError(error.to_string()))
}

impl Disk {
    /// Opens or makes the file; in memory without a path.
    pub(super) fn open(path: Option<&Path>, sync: bool) -> Result<(Self, Contents), LogError> {
        let database = match path {
            Some(path) => Database::create(path).map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    failed(format!("{} is in use by another process", path.display()))
                }
                other => failed(other),
            })?,
            None => Database::builder()
                .create_with_backend(redb::backends::InMemoryBackend::new())
                .map_err(failed)?,
        };
        let contents = read(&database)?;
        let (sender, receiver) = std_mpsc::channel();
        std::thread::Builder::new()
            .name("hebb-log-writer".to_owned())
            .spawn(move || write_loop(&database, &receiver, sync))
            .map_err(failed)?;
        Ok((Self(sender), contents))
    }

    /// Makes changes durable.
    pub(super) async fn write(&self, changes: Vec<Change>) -> Result<(), LogError> {
        let (done, committed) = oneshot::channel();
        self.0.send(Write { changes, done }).map_err(|_| failed("the writer has ended"))?;
        match committed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(failed(why)),
            Err(_) => Err(failed("the writer has ended")),
        }
    }
}

fn write_loop(database: &Database, receiver: &std_mpsc::Receiver<Write>, sync: bool) {
    while let Ok(first) = receiver.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(more) = receiver.try_recv()
        {
            group.push(more);
        }
        let result = commit(database, &group, sync).map_err(|error| {
            error!(%error, "a commit failed");
            error.to_string()
        });
        for write in group {
            // An error says that nobody waits any more.
            let _ = write.done.send(result.clone());
        }
    }
}

fn commit(database: &Database, group: &[Write], sync: bool) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(if sync { redb::Durability::Immediate } else { redb::Durability::None })?;
    {
        let mut log = transaction.open_table(LOG)?;
        let mut checkpoints = transaction.open_table(CHECKPOINTS)?;
        let mut epochs = transaction.open_table(EPOCHS)?;
        let mut domains = transaction.open_table(DOMAINS)?;
        for change in group.iter().flat_map(|write| &write.changes) {
            match change {
                Change::Append(key, id, entry) => {
                    log.insert(entry_key(key, *id).as_slice(), entry.as_slice())?;
                }
                Change::Checkpoint(key, checkpoint, trimmed) => {
                    let bytes = postcard::to_stdvec(&(checkpoint.position, checkpoint.epoch, &checkpoint.state))
                        .unwrap_or_default();
                    checkpoints.insert(partition_key(key).as_slice(), bytes.as_slice())?;
                    for id in trimmed {
                        log.remove(entry_key(key, *id).as_slice())?;
                    }
                }
                Change::Epoch(key, epoch) => {
                    epochs.insert(partition_key(key).as_slice(), epoch)?;
                }
                Change::Domain(domain) => {
                    let bytes = serde_json::to_vec(domain).unwrap_or_default();
                    domains.insert(domain.name.as_str(), bytes.as_slice())?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<Contents, LogError> {
    let mut contents = Contents::default();
    // Makes the tables of a new file, so that all of them can be read.
    commit(database, &[], true).map_err(failed)?;
    let transaction = database.begin_read().map_err(failed)?;
    for row in transaction.open_table(LOG).map_err(failed)?.iter().map_err(failed)? {
        let (key, entry) = row.map_err(failed)?;
        let (partition, id) = split_entry_key(key.value())?;
        // Whoever waited for the answer is gone with the process that asked.
        contents.log.push((partition, id, Record { entry: entry.value().to_vec(), reply_to: None }));
    }
    for row in transaction.open_table(CHECKPOINTS).map_err(failed)?.iter().map_err(failed)? {
        let (key, bytes) = row.map_err(failed)?;
        let (position, epoch, state) =
            postcard::from_bytes(bytes.value()).map_err(|error| LogError::Corrupt(error.to_string()))?;
        contents.checkpoints.push((split_partition_key(key.value())?, Checkpoint { position, epoch, state }));
    }
    for row in transaction.open_table(EPOCHS).map_err(failed)?.iter().map_err(failed)? {
        let (key, epoch) = row.map_err(failed)?;
        contents.epochs.push((split_partition_key(key.value())?, epoch.value()));
    }
    for row in transaction.open_table(DOMAINS).map_err(failed)?.iter().map_err(failed)? {
        let (_, bytes) = row.map_err(failed)?;
        let domain = serde_json::from_slice(bytes.value()).map_err(|error| LogError::Corrupt(error.to_string()))?;
        contents.domains.push(domain);
    }
    Ok(contents)
}

/// The domain's name, a zero byte (no name has one), the index.
fn partition_key(key: &PartitionKey) -> Vec<u8> {
    let mut bytes = key.domain.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend(key.index.to_be_bytes());
    bytes
}

/// The partition's key and the id, so that the table's order is the log's.
fn entry_key(key: &PartitionKey, id: EntryId) -> Vec<u8> {
    let mut bytes = partition_key(key);
    bytes.extend(id.at_ms.to_be_bytes());
    bytes.extend(id.seq.to_be_bytes());
    bytes
}

fn odd_key() -> LogError {
    LogError::Corrupt("a key of the local log".to_owned())
}

fn split_partition_key(bytes: &[u8]) -> Result<PartitionKey, LogError> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(odd_key)?;
    let domain = std::str::from_utf8(&bytes[..end]).map_err(|_| odd_key())?.to_owned();
    let index = u32::from_be_bytes(bytes[end + 1..].try_into().map_err(|_| odd_key())?);
    Ok(PartitionKey { domain, index })
}

fn split_entry_key(bytes: &[u8]) -> Result<(PartitionKey, EntryId), LogError> {
    let (partition, id) = bytes.split_at_checked(bytes.len().wrapping_sub(16)).ok_or_else(odd_key)?;
    let (at_ms, seq) = id.split_at(8);
    let at_ms = u64::from_be_bytes(at_ms.try_into().map_err(|_| odd_key())?);
    let seq = u64::from_be_bytes(seq.try_into().map_err(|_| odd_key())?);
    Ok((split_partition_key(partition)?, EntryId { at_ms, seq }))
}
