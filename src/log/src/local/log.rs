//! The log of a partition as rows of a table.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use redb::ReadableDatabase;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout_at;
use tracing::debug;

use super::layout::Encoded;
use super::pieces::{self, PIECE_BYTES, Pieces, SWEPT_AT_ONCE};
use super::state::{Effect, Owner, Partition, Serials, State};
use super::tables::{self, CHECKPOINTS, FALLBACKS, KEPT, Tables, beside, failed, place, read_after, stored};
use super::{LocalStore, Stopped, lock};
use crate::{Checkpoint, Claim, Claimed, EntryId, Kept, Log, LogError, PartitionKey, PartitionStatus, Record, bounds};

/// The longest that one read waits, as long as in Redis.
const MAX_WAIT: Duration = Duration::from_secs(10);

fn now_ms() -> u64 {
    // A clock before 1970 gives the ids of its last sane moment.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Makes the file know the partition's number before anything is stored under it.
fn enrol(tables: &mut Tables<'_>, key: &PartitionKey, partition: &mut Partition) -> Result<(), redb::Error> {
    if !partition.stored {
        tables.partitions.insert(key.to_string().as_str(), partition.number)?;
        partition.stored = true;
    }
    Ok(())
}

#[async_trait]
impl Log for LocalStore {
    async fn append(
        &self,
        partition: &PartitionKey,
        records: &[Record],
        waiting_max: u64,
    ) -> Result<Vec<EntryId>, LogError> {
        bounds::partition(partition)?;
        let records = Encoded::new(records, bounds::records(records)?);
        if records.len() == 0 {
            return Ok(Vec::new());
        }
        let key = partition.clone();
        self.write(move |tables, state| {
            let (number, ids) = {
                let mut state = lock(state);
                let partition = state.partition(&key);
                let waiting = partition.waiting();
                if waiting_max < waiting.saturating_add(records.len() as u64) {
                    return Ok(Err(LogError::Full { waiting, max: waiting_max }));
                }
                enrol(tables, &key, partition)?;
                (partition.number, partition.next_ids(now_ms(), records.len()))
            };
            for (count, value) in records.values() {
                tables.log.insert(place(number, ids[count - 1]), value)?;
            }
            let entries = ids.iter().copied().zip(records.into_records()).collect();
            tables.effects.push((key, Effect::Appended(entries)));
            Ok(Ok(ids))
        })
        .await
    }

    async fn read(
        &self,
        partition: &PartitionKey,
        after: EntryId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<(EntryId, Record)>, LogError> {
        bounds::partition(partition)?;
        if max == 0 {
            return Ok(Vec::new());
        }
        let until = tokio::time::Instant::now() + wait.min(MAX_WAIT);
        let max = max.min(bounds::MAX_READ);
        let (number, mut newest) = {
            let mut state = self.state();
            let partition = state.partition(partition);
            (partition.number, partition.newest.subscribe())
        };
        loop {
            let newest_id = *newest.borrow_and_update();
            if after < newest_id {
                let fresh = self.state().partition(partition).fresh.take(after, max);
                let entries = match fresh {
                    Some(entries) => entries,
                    None => self.read_blocking(move |database| read_after(database, number, after, max)).await?,
                };
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            match timeout_at(until, newest.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(LogError::unavailable(Stopped)),
                Err(_) => return Ok(Vec::new()),
            }
        }
    }

    async fn claim(
        &self,
        partition: &PartitionKey,
        owner: &str,
        previous: Option<&Claim>,
        lease: Duration,
    ) -> Result<Claimed, LogError> {
        bounds::partition(partition)?;
        bounds::name("the owner's name", owner)?;
        let (key, owner, previous) = (partition.clone(), owner.to_owned(), previous.map(|claim| claim.token.clone()));
        self.write(move |tables, state| {
            let mut state = lock(state);
            let partition = state.partition(&key);
            let now = Instant::now();
            let claimed = partition.claim(&key, &owner, previous.as_deref(), lease, now);
            if let Claimed::New(claim) = &claimed {
                enrol(tables, &key, partition)?;
                let Claim { partition: _, owner, epoch, token } = claim;
                tables.owners.insert(partition.number, (*epoch, token.as_str(), owner.as_str()))?;
                partition.owner = Some(Owner { epoch: *epoch, token: token.clone(), name: owner.clone() });
                partition.lease = Some((token.clone(), now + lease));
                partition.serials.begun = None;
                // The new owner restores the checkpoint and replays the tail, all of which waits.
                partition.applied = 0;
            }
            Ok(Ok(claimed))
        })
        .await
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<(), LogError> {
        let mut state = self.state();
        let partition = state.owned(claim)?;
        partition.lease = Some((claim.token.clone(), Instant::now() + lease));
        Ok(())
    }

    async fn release(&self, claim: &Claim) -> Result<(), LogError> {
        let mut state = self.state();
        if let Ok(partition) = state.owned(claim) {
            partition.lease = None;
        }
        Ok(())
    }

    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        bounds::partition(partition)?;
        let Some(number) = self.state().known(partition).map(|partition| partition.number) else {
            return Ok(None);
        };
        self.read_blocking(move |database| {
            let read = database.begin_read().map_err(failed)?;
            let Some(newest) = stored(&read, CHECKPOINTS, number)? else { return Ok(None) };
            let kept = read.open_table(KEPT).map_err(failed)?.get(number).map_err(failed)?;
            Ok(Some(Checkpoint { kept: kept.map(|kept| tables::kept(kept.value())), ..newest }))
        })
        .await
    }

    async fn checkpoint(
        &self,
        claim: &Claim,
        position: EntryId,
        state: &[u8],
        kept: Option<Kept>,
    ) -> Result<(), LogError> {
        bounds::size("the state", state.len(), bounds::MAX_STATE_BYTES)?;
        {
            let mut state = self.state();
            let partition = state.owned(claim)?;
            if partition.is_after(position) {
                return Ok(());
            }
            // One that was given up before it was whole is nobody's now.
            partition.serials.begun = None;
        }
        self.sweep(claim).await?;
        if let Some(kept) = kept {
            self.take_apart(claim, kept.position).await?;
        }
        let row = match Pieces::of(state) {
            Some(pieces) => {
                self.write_pieces(claim, pieces, state).await?;
                pieces.row()
            }
            None => state.to_vec(),
        };
        let stored = claim.clone();
        self.write(move |tables, state| store(tables, state, &stored, position, &row, kept)).await?;
        if let Err(error) = self.sweep(claim).await {
            debug!(partition = %claim.partition, %error, "pieces of earlier checkpoints are left for the next one to remove");
        }
        Ok(())
    }

    async fn fallback(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, LogError> {
        bounds::partition(partition)?;
        let Some(number) = self.state().known(partition).map(|partition| partition.number) else {
            return Ok(None);
        };
        self.read_blocking(move |database| stored(&database.begin_read().map_err(failed)?, FALLBACKS, number)).await
    }

    async fn progress(&self, claim: &Claim, applied_since_checkpoint: u64) -> Result<(), LogError> {
        let mut state = self.state();
        state.owned(claim)?.applied = applied_since_checkpoint;
        Ok(())
    }

    async fn status(&self, partition: &PartitionKey) -> Result<PartitionStatus, LogError> {
        bounds::partition(partition)?;
        let nothing =
            PartitionStatus { waiting: 0, length: 0, owner: None, epoch: 0, checkpointed: None, checkpoint_bytes: 0 };
        Ok(self.state().known(partition).map_or(nothing, |partition| partition.status(Instant::now())))
    }
}

impl LocalStore {
    /// The turn to write or remove pieces, which ends with the step that does so: what comes then is in a later commit.
    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.inner.turns).lock_owned().await
    }

    /// Writes the pieces of a state, each in a commit of its own, while others have theirs. They are nobody's until a row names
    /// them.
    async fn write_pieces(&self, claim: &Claim, pieces: Pieces, state: &[u8]) -> Result<(), LogError> {
        let serial = pieces.serial;
        {
            let mut state = self.state();
            let partition = state.owned(claim)?;
            (partition.serials.begun, partition.littered) = (Some(serial), true);
        }
        for (index, piece) in (0..).zip(state.chunks(PIECE_BYTES)) {
            let (claim, piece, turn) = (claim.clone(), piece.to_vec(), self.turn().await);
            let step = move |tables: &mut Tables<'_>, state: &Mutex<State>| {
                let _turn = turn;
                let number = match lock(state).writing(&claim, serial) {
                    Ok(partition) => partition.number,
                    Err(error) => return Ok(Err(error)),
                };
                tables.pieces.insert((number, serial, index), piece.as_slice())?;
                // Many that are synced together by a later commit would hold that one up.
                tables.is_synced = true;
                Ok(Ok(()))
            };
            self.write(step).await?;
        }
        Ok(())
    }

    /// Puts into pieces what an earlier version has stored in one, before it's kept as the fallback, which is to write it anew.
    async fn take_apart(&self, claim: &Claim, position: EntryId) -> Result<(), LogError> {
        let is_newest =
            move |partition: &Partition| partition.checkpointed == Some(position) && partition.serials.newest.is_none();
        if self
            .state()
            .owned(claim)
            .map(|partition| !is_newest(partition) || partition.checkpoint_bytes <= PIECE_BYTES as u64)?
        {
            return Ok(());
        }
        let Some(Checkpoint { epoch, state, .. }) = self.load(&claim.partition).await? else { return Ok(()) };
        let Some(pieces) = Pieces::of(&state) else { return Ok(()) };
        self.write_pieces(claim, pieces, &state).await?;
        let claim = claim.clone();
        self.write(move |tables, state| {
            let mut state = lock(state);
            let partition = match state.writing(&claim, pieces.serial) {
                Ok(partition) if is_newest(partition) => partition,
                Ok(_) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            tables
                .checkpoints
                .insert(partition.number, (position.at_ms, position.seq, epoch, pieces.row().as_slice()))?;
            partition.serials = Serials { newest: Some(pieces.serial), begun: None, ..partition.serials };
            Ok(Ok(()))
        })
        .await
    }

    /// Removes the pieces of a partition that belong to no checkpoint, some in a commit.
    async fn sweep(&self, claim: &Claim) -> Result<(), LogError> {
        let mut goes_on = self.state().owned(claim)?.littered;
        while goes_on {
            let (claim, turn) = (claim.clone(), self.turn().await);
            let step = move |tables: &mut Tables<'_>, state: &Mutex<State>| {
                let _turn = turn;
                let (number, serials) = match lock(state).owned(&claim) {
                    Ok(partition) => (partition.number, partition.serials),
                    Err(fenced) => return Ok(Err(fenced)),
                };
                let swept = pieces::sweep(tables, number, &serials.live(), SWEPT_AT_ONCE)?;
                let goes_on = swept == SWEPT_AT_ONCE;
                if !goes_on {
                    lock(state).partition(&claim.partition).littered = serials.begun.is_some();
                }
                Ok(Ok(goes_on))
            };
            goes_on = self.write(step).await?;
        }
        Ok(())
    }
}

/// Stores a checkpoint, keeps a fallback where one is wanted, and trims the log.
fn store(
    tables: &mut Tables<'_>,
    state: &Mutex<State>,
    claim: &Claim,
    position: EntryId,
    row: &[u8],
    kept: Option<Kept>,
) -> Result<Result<(), LogError>, redb::Error> {
    let pieces = Pieces::named_by(row);
    let (number, replaced, fallback) = {
        let mut state = lock(state);
        let partition = match pieces {
            Some(pieces) => state.writing(claim, pieces.serial),
            None => state.owned(claim),
        };
        let partition = match partition {
            Ok(partition) => partition,
            Err(error) => return Ok(Err(error)),
        };
        if partition.is_after(position) {
            return Ok(Ok(()));
        }
        (partition.number, partition.checkpointed, partition.fallback)
    };
    let stays = |kept: &Kept| fallback.is_some_and(|fallback| fallback.position == kept.position);
    let kept = kept.filter(|kept| stays(kept) || replaced == Some(kept.position));
    match &kept {
        Some(kept) => {
            if !stays(kept) {
                tables.keep(number)?;
            }
            tables.kept.insert(number, beside(*kept))?;
        }
        None if fallback.is_some() => {
            tables.fallbacks.remove(number)?;
            tables.kept.remove(number)?;
        }
        None => {}
    }
    tables.checkpoints.insert(number, (position.at_ms, position.seq, claim.epoch, row))?;
    let until = kept.map_or(position, |kept| kept.position);
    let trimmed = tables.trim(number, until)?;
    tables.effects.push((claim.partition.clone(), Effect::Trimmed { until }));
    // Only this thread changes what a checkpoint changes, so nothing has moved since.
    let mut state = lock(state);
    let partition = state.partition(&claim.partition);
    partition.length = partition.length.saturating_sub(trimmed);
    partition.applied = 0;
    partition.checkpointed = Some(position);
    partition.checkpoint_bytes = pieces::bytes(row);
    let was = partition.serials;
    partition.serials = Serials {
        newest: pieces.map(|pieces| pieces.serial),
        fallback: kept.and_then(|kept| if stays(&kept) { was.fallback } else { was.newest }),
        begun: None,
    };
    partition.littered |= !was.live().is_empty();
    partition.fallback = kept;
    partition.last = partition.last.max(position);
    Ok(Ok(()))
}
