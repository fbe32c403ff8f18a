//! A stored partition as a partition: from its newest checkpoint, or, where that has a layout of the future, from the
//! fallback beside it and what the log has kept since. It reads, and never claims.

use std::time::Duration;

use hebb_engine::{EntryId, Partition, SnapshotError, snapshot_version};
use hebb_log::{Checkpoint, Kept, Log, LogError, PartitionKey};
use tracing::warn;

use crate::replay;
use crate::task::at_length;

/// Entries of one read, and applied at a stretch.
const BATCH: usize = 256;

/// Why a stored partition can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The store.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The checkpoint is damaged, or it has a layout of the future and there is no fallback.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A part of what follows the fallback is missing.
    #[error(
        "the snapshot is of a newer version, and of {wanted} entries since the one before it the log has {found}; run the version that wrote it, or a newer one"
    )]
    Incomplete {
        /// Entries that are there.
        found: u64,
        /// Entries that the newest checkpoint contains beyond the fallback.
        wanted: u64,
    },
    /// A newer version may have applied and acknowledged what this one can't read.
    #[error(
        "the entry at {0} is of a newer version, and would be lost; run the version that wrote it, or a newer one, or have workers skip such entries (HEBB_SKIP_UNREADABLE)"
    )]
    Unreadable(EntryId),
}

/// A partition as its newest checkpoint has it.
pub struct Restored {
    /// The partition, at the position of the newest checkpoint.
    pub partition: Partition,
    /// The layout of what it was restored from.
    pub version: u16,
    /// Whether that was the fallback.
    pub is_fallback: bool,
}

/// Restores a partition from its newest checkpoint, which was just loaded. `skip_unreadable` lets entries go that only a
/// newer version can read.
///
/// # Errors
/// [`StoredError`].
pub async fn restore(
    log: &dyn Log,
    key: &PartitionKey,
    newest: &Checkpoint,
    skip_unreadable: bool,
) -> Result<Restored, StoredError> {
    let unread = match at_length(|| Partition::restore(&newest.state)) {
        Ok(partition) => {
            let version = snapshot_version(&newest.state)?;
            return Ok(Restored { partition, version, is_fallback: false });
        }
        Err(damaged @ SnapshotError::Corrupt(_)) => return Err(damaged.into()),
        Err(future @ SnapshotError::Version { .. }) => future,
    };
    let Some(kept) = newest.kept else { return Err(unread.into()) };
    let fallback = log.fallback(key).await?.filter(|fallback| fallback.position == kept.position);
    let Some(fallback) = fallback else { return Err(unread.into()) };
    warn!(partition = %key, why = %unread, entries = kept.entries, "taking the fallback");
    let version = snapshot_version(&fallback.state)?;
    let mut partition = at_length(|| Partition::restore(&fallback.state))?;
    drop(fallback);
    follow(log, key, &mut partition, newest.position, kept, skip_unreadable).await?;
    Ok(Restored { partition, version, is_fallback: true })
}

/// Applies everything between the fallback and the newest checkpoint.
async fn follow(
    log: &dyn Log,
    key: &PartitionKey,
    partition: &mut Partition,
    until: EntryId,
    kept: Kept,
    skip_unreadable: bool,
) -> Result<(), StoredError> {
    let (mut found, mut skipped) = (0, 0_u64);
    while partition.position() < until {
        let mut entries = log.read(key, partition.position(), BATCH, Duration::ZERO).await?;
        entries.retain(|(id, _)| *id <= until);
        if entries.is_empty() {
            break;
        }
        at_length(|| {
            for (id, record) in &entries {
                if replay::is_lost(&replay::apply(partition, *id, &record.entry), &record.entry) {
                    if !skip_unreadable {
                        return Err(StoredError::Unreadable(*id));
                    }
                    skipped += 1;
                }
            }
            Ok(())
        })?;
        found += entries.len() as u64;
    }
    if skipped > 0 {
        warn!(partition = %key, skipped, "entries of a newer version were skipped, as it was told");
    }
    match found == kept.entries && partition.position() == until {
        true => Ok(()),
        false => Err(StoredError::Incomplete { found, wanted: kept.entries }),
    }
}

#[cfg(test)]
mod tests {
    use hebb_engine::{Control, Entry, Event, Features, Input, Label, SNAPSHOT_VERSION};
    use hebb_log::{Claimed, LocalStore, Record};
    use proptest::prelude::*;

    use super::*;

    type Failed = Box<dyn std::error::Error>;

    /// A state in the layout before this one.
    const OLD: &[u8] = include_bytes!("../../engine/tests/version2/classification.snapshot");
    /// What nobody can read, and what nobody can read but is known to be a read.
    const UNKNOWN: [u8; 2] = [99, 1];
    const UNKNOWN_READ: [u8; 3] = [3, 200, 1];

    fn key() -> PartitionKey {
        PartitionKey { domain: "d".to_owned(), index: 0 }
    }

    /// The same state as the version after this one would write it.
    fn future(mut state: Vec<u8>) -> Vec<u8> {
        // Behind the magic; the checksum is that of the body.
        state[4..6].copy_from_slice(&(SNAPSHOT_VERSION + 1).to_le_bytes());
        state
    }

    fn event(number: u32) -> Vec<u8> {
        let row = vec![f64::from(number % 5), f64::from(number % 3)];
        let label = (!number.is_multiple_of(4)).then(|| Label::Class((number % 2).to_string().into()));
        Entry::Event(Event { id: format!("e-{number}").into(), input: Input::Features(Features::Dense(row)), label })
            .encode()
    }

    /// What an upgrade leaves: the old state as the fallback, entries, a future state, and an entry behind it. The state is
    /// returned as the newer version has it; `kept` may be altered.
    async fn upgraded(
        store: &LocalStore,
        entries: &[Vec<u8>],
        alter: impl FnOnce(Kept) -> Option<Kept>,
    ) -> Result<Partition, Failed> {
        let mut live = Partition::restore(OLD)?;
        let old = live.position();
        let Claimed::New(claim) = store.claim(&key(), "worker", None, Duration::from_secs(600)).await? else {
            return Err("held".into());
        };
        store.checkpoint(&claim, old, OLD, None).await?;
        let records = entries.iter().map(|entry| Record { entry: entry.clone().into(), reply_to: None });
        let ids = store.append(&key(), &records.collect::<Vec<_>>(), u64::MAX).await?;
        for (id, entry) in ids.iter().zip(entries) {
            replay::apply(&mut live, *id, entry);
        }
        store.append(&key(), &[Record { entry: event(9_999).into(), reply_to: None }], u64::MAX).await?;
        let kept = Kept { position: old, since: live.position(), entries: entries.len() as u64, bytes: 1 };
        store.checkpoint(&claim, live.position(), &future(live.snapshot()), alter(kept)).await?;
        Ok(live)
    }

    async fn restored(store: &LocalStore, skip_unreadable: bool) -> Result<Result<Restored, StoredError>, Failed> {
        let newest = store.load(&key()).await?.ok_or("no checkpoint")?;
        Ok(restore(store, &key(), &newest, skip_unreadable).await)
    }

    fn entry() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => (0u32..400).prop_map(event),
            2 => (0u32..400, 0u8..2).prop_map(|(number, class)| {
                Entry::Feedback { id: format!("e-{number}").into(), label: Label::Class(class.to_string().into()) }.encode()
            }),
            1 => Just(Entry::Infer(Input::Features(Features::Dense(vec![1.0, 2.0]))).encode()),
            1 => Just(Entry::Control(Control::Cycle).encode()),
            1 => Just(UNKNOWN_READ.to_vec()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_made_of_a_fallback_is_the_newest_state_byte_for_byte(
            entries in prop::collection::vec(entry(), 1..3 * BATCH),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store = LocalStore::in_memory()?;
                let live = upgraded(&store, &entries, Some).await?;
                let restored = restored(&store, false).await??;
                assert!(restored.partition.snapshot() == live.snapshot(), "the states differ");
                assert_eq!(restored.partition.statistics(), live.statistics());
                assert_eq!((restored.version, restored.is_fallback), (2, true));
                Ok::<_, Failed>(())
            }).unwrap();
        }
    }

    #[tokio::test]
    async fn a_state_that_can_be_read_needs_no_fallback() -> Result<(), Failed> {
        let store = LocalStore::in_memory()?;
        upgraded(&store, &[event(1)], Some).await?;
        let mut newest = store.load(&key()).await?.ok_or("no checkpoint")?;
        newest.state = OLD.to_vec();
        let restored = restore(&store, &key(), &newest, false).await?;
        assert_eq!((restored.version, restored.is_fallback), (2, false));
        assert!(restored.partition.snapshot() == Partition::restore(OLD)?.snapshot());
        newest.state.truncate(100);
        let damaged = restore(&store, &key(), &newest, false).await;
        assert!(
            matches!(damaged, Err(StoredError::Snapshot(SnapshotError::Corrupt(_)))),
            "that is no matter of versions"
        );
        Ok(())
    }

    #[tokio::test]
    async fn without_a_fallback_the_error_names_the_versions() -> Result<(), Failed> {
        let store = LocalStore::in_memory()?;
        upgraded(&store, &[event(1)], |_| None).await?;
        let error = restored(&store, true).await?.err().ok_or("a state")?;
        let (found, supported) = (SNAPSHOT_VERSION + 1, SNAPSHOT_VERSION);
        assert_eq!(error.to_string(), SnapshotError::Version { found, supported }.to_string());
        Ok(())
    }

    #[tokio::test]
    async fn a_log_with_a_hole_is_no_way_to_the_state() -> Result<(), Failed> {
        let store = LocalStore::in_memory()?;
        upgraded(&store, &[event(1), event(2)], |kept| Some(Kept { entries: 3, ..kept })).await?;
        let error = restored(&store, true).await?.err().ok_or("a state")?;
        assert!(matches!(error, StoredError::Incomplete { found: 2, wanted: 3 }), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn what_only_the_newer_version_reads_is_let_go_on_a_persons_word_alone() -> Result<(), Failed> {
        let store = LocalStore::in_memory()?;
        upgraded(&store, &[event(1), UNKNOWN.to_vec(), event(2)], Some).await?;
        let at = store.read(&key(), Partition::restore(OLD)?.position(), 2, Duration::ZERO).await?[1].0;
        let error = restored(&store, false).await?.err().ok_or("a state")?;
        assert!(matches!(error, StoredError::Unreadable(unread) if unread == at), "{error}");
        let restored = restored(&store, true).await??;
        assert_eq!(restored.partition.statistics().events, Partition::restore(OLD)?.statistics().events + 2);
        Ok(())
    }
}
