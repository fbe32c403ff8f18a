//! The tables of the file.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::layout;
use super::pieces::{self, PiecePlace};
use super::state::{Effect, State};
use crate::{Checkpoint, EntryId, Kept, LogError, PartitionKey, Record, bounds};

/// Where entries are: the partition's number, then the id of the last one of a value.
pub(super) type Place = (u32, u64, u64);
/// Position, epoch, and the state or what names its pieces.
type Stored = (u64, u64, u64, &'static [u8]);
/// Position, since, entries, bytes.
type Beside = (u64, u64, u64, u64, u64, u64);
/// Epoch, token, owner.
type Owned = (u64, &'static str, &'static str);

/// `domain/index` to a number, which makes the keys of the log short.
pub(super) const PARTITIONS: TableDefinition<'_, &str, u32> = TableDefinition::new("partitions");
pub(super) const LOG: TableDefinition<'_, Place, &[u8]> = TableDefinition::new("log");
pub(super) const CHECKPOINTS: TableDefinition<'_, u32, Stored> = TableDefinition::new("checkpoints");
/// The fallbacks, and what is told of them with the newest checkpoint.
pub(super) const FALLBACKS: TableDefinition<'_, u32, Stored> = TableDefinition::new("fallbacks");
pub(super) const KEPT: TableDefinition<'_, u32, Beside> = TableDefinition::new("kept");
/// The pieces of large states, newest and fallbacks.
pub(super) const PIECES: TableDefinition<'_, PiecePlace, &[u8]> = TableDefinition::new("pieces");
pub(super) const OWNERS: TableDefinition<'_, u32, Owned> = TableDefinition::new("owners");
pub(super) const DOMAINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("domains");
pub(super) const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");

/// The tables within one write.
pub(super) struct Tables<'a> {
    pub(super) partitions: Table<'a, &'static str, u32>,
    pub(super) log: Table<'a, Place, &'static [u8]>,
    pub(super) checkpoints: Table<'a, u32, Stored>,
    pub(super) fallbacks: Table<'a, u32, Stored>,
    pub(super) kept: Table<'a, u32, Beside>,
    pub(super) pieces: Table<'a, PiecePlace, &'static [u8]>,
    pub(super) owners: Table<'a, u32, Owned>,
    pub(super) domains: Table<'a, &'static str, &'static [u8]>,
    pub(super) notes: Table<'a, &'static str, &'static [u8]>,
    /// What the process does when the commit has succeeded.
    pub(super) effects: Vec<(PartitionKey, Effect)>,
    /// Whether the commit is synced in any case.
    pub(super) is_synced: bool,
}

impl<'a> Tables<'a> {
    pub(super) fn open(write: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            partitions: write.open_table(PARTITIONS)?,
            log: write.open_table(LOG)?,
            checkpoints: write.open_table(CHECKPOINTS)?,
            fallbacks: write.open_table(FALLBACKS)?,
            kept: write.open_table(KEPT)?,
            pieces: write.open_table(PIECES)?,
            owners: write.open_table(OWNERS)?,
            domains: write.open_table(DOMAINS)?,
            notes: write.open_table(NOTES)?,
            effects: Vec::new(),
            is_synced: false,
        })
    }

    /// Takes the entries up to a place out of the log; how many they were.
    pub(super) fn trim(&mut self, number: u32, until: EntryId) -> Result<u64, redb::Error> {
        let mut trimmed = 0;
        self.log.retain_in((number, 0, 0)..=place(number, until), |_, value| {
            trimmed += layout::count(value);
            false
        })?;
        // What is left of the value that has the place in its midst.
        let next = self.log.range(place(number, until)..=(number, u64::MAX, u64::MAX))?.next().transpose()?;
        let rest = next.and_then(|(place, value)| {
            let (_, at_ms, seq) = place.value();
            Some((place.value(), layout::without(value.value(), EntryId { at_ms, seq }, until)?))
        });
        if let Some((place, (gone, rest))) = rest {
            self.log.insert(place, rest.as_slice())?;
            trimmed += gone;
        }
        Ok(trimmed)
    }

    /// Makes the newest checkpoint of a partition its fallback.
    pub(super) fn keep(&mut self, number: u32) -> Result<(), redb::Error> {
        if let Some(newest) = self.checkpoints.get(number)? {
            self.fallbacks.insert(number, newest.value())?;
        }
        Ok(())
    }
}

/// Makes the tables, so that a read finds them.
pub(super) fn create(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    drop(Tables::open(&write)?);
    Ok(write.commit()?)
}

/// Removes the pieces that belong to no checkpoint: their writer was killed, or an earlier version has replaced them.
pub(super) fn sweep(database: &Database, state: &State) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    let mut tables = Tables::open(&write)?;
    let mut swept = 0;
    for partition in state.partitions() {
        swept += pieces::sweep(&mut tables, partition.number, &partition.serials.live(), usize::MAX)?;
    }
    drop(tables);
    match swept {
        0 => Ok(write.abort()?),
        _ => Ok(write.commit()?),
    }
}

pub(super) fn failed(error: impl Into<redb::Error>) -> LogError {
    LogError::unavailable(error.into())
}

/// The entries after a place.
pub(super) fn read_after(
    database: &Database,
    number: u32,
    after: EntryId,
    max: usize,
) -> Result<Vec<(EntryId, Record)>, LogError> {
    let log = database.begin_read().map_err(failed)?.open_table(LOG).map_err(failed)?;
    let from =
        (std::ops::Bound::Excluded(place(number, after)), std::ops::Bound::Included((number, u64::MAX, u64::MAX)));
    let mut entries = Vec::new();
    let mut bytes = 0;
    for found in log.range::<Place>(from).map_err(failed)? {
        let (key, value) = found.map_err(failed)?;
        let (_, at_ms, seq) = key.value();
        // The place may be within the first value.
        let more = layout::decode(value.value(), EntryId { at_ms, seq })?.into_iter().filter(|(id, _)| after < *id);
        for (id, record) in more {
            bytes += record.entry.len();
            entries.push((id, record));
            if entries.len() == max || bounds::READ_ENOUGH_BYTES <= bytes {
                return Ok(entries);
            }
        }
    }
    Ok(entries)
}

/// A stored state of a partition.
pub(super) fn stored(
    read: &ReadTransaction,
    table: TableDefinition<'_, u32, Stored>,
    number: u32,
) -> Result<Option<Checkpoint>, LogError> {
    let table = read.open_table(table).map_err(failed)?;
    let Some(stored) = table.get(number).map_err(failed)? else {
        return Ok(None);
    };
    let (at_ms, seq, epoch, row) = stored.value();
    let state = pieces::read(read, number, row)?;
    Ok(Some(Checkpoint { position: EntryId { at_ms, seq }, epoch, state, kept: None }))
}

pub(super) fn beside(kept: Kept) -> Beside {
    let Kept { position, since, entries, bytes } = kept;
    (position.at_ms, position.seq, since.at_ms, since.seq, entries, bytes)
}

pub(super) fn kept((at_ms, seq, since_ms, since_seq, entries, bytes): Beside) -> Kept {
    let (position, since) = (EntryId { at_ms, seq }, EntryId { at_ms: since_ms, seq: since_seq });
    Kept { position, since, entries, bytes }
}

pub(super) fn place(number: u32, id: EntryId) -> Place {
    (number, id.at_ms, id.seq)
}
