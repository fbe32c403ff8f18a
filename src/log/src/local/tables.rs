//! The tables of the file and how a record is laid out in it.

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use tokio::sync::watch;

use crate::{Checkpoint, EntryId, Kept, LogError, Record, ReplyTo, bounds};

/// Where an entry is: the partition's number, then its id.
pub(super) type Place = (u32, u64, u64);
/// Position, epoch, state.
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
    pub(super) owners: Table<'a, u32, Owned>,
    pub(super) domains: Table<'a, &'static str, &'static [u8]>,
    pub(super) notes: Table<'a, &'static str, &'static [u8]>,
    /// Who is to be woken after the commit.
    pub(super) appended: Vec<(watch::Sender<EntryId>, EntryId)>,
}

impl<'a> Tables<'a> {
    pub(super) fn open(write: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            partitions: write.open_table(PARTITIONS)?,
            log: write.open_table(LOG)?,
            checkpoints: write.open_table(CHECKPOINTS)?,
            fallbacks: write.open_table(FALLBACKS)?,
            kept: write.open_table(KEPT)?,
            owners: write.open_table(OWNERS)?,
            domains: write.open_table(DOMAINS)?,
            notes: write.open_table(NOTES)?,
            appended: Vec::new(),
        })
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
    for found in log.range::<Place>(from).map_err(failed)?.take(max) {
        let (key, value) = found.map_err(failed)?;
        let ((_, at_ms, seq), value) = (key.value(), value.value());
        let record = decode(value)?;
        bytes += record.entry.len();
        entries.push((EntryId { at_ms, seq }, record));
        if bounds::READ_ENOUGH_BYTES <= bytes {
            break;
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
    let (at_ms, seq, epoch, state) = stored.value();
    Ok(Some(Checkpoint { position: EntryId { at_ms, seq }, epoch, state: state.to_vec(), kept: None }))
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

/// The records of an append in one buffer: copied once, on the way to the writer.
pub(super) struct Encoded {
    buffer: Vec<u8>,
    ends: Vec<usize>,
}

impl Encoded {
    pub(super) fn new(records: &[Record], bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + records.len() * 11);
        let mut ends = Vec::with_capacity(records.len());
        for Record { entry, reply_to } in records {
            match reply_to {
                None => buffer.push(0),
                // A name has at most 253 bytes, so its length and one fit into the first byte.
                Some(ReplyTo { gateway, request }) => {
                    buffer.push(u8::try_from(gateway.len() + 1).unwrap_or(u8::MAX));
                    buffer.extend_from_slice(gateway.as_bytes());
                    buffer.extend_from_slice(&request.to_le_bytes());
                }
            }
            buffer.extend_from_slice(entry);
            ends.push(buffer.len());
        }
        Self { buffer, ends }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.buffer[start..*end])
    }
}

fn decode(value: &[u8]) -> Result<Record, LogError> {
    let corrupt = || LogError::Corrupt("a record is cut off".to_owned());
    let (first, rest) = value.split_first().ok_or_else(corrupt)?;
    let Some(length) = first.checked_sub(1) else {
        return Ok(Record { entry: rest.to_vec(), reply_to: None });
    };
    let (gateway, rest) = rest.split_at_checked(usize::from(length)).ok_or_else(corrupt)?;
    let (request, entry) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let gateway = std::str::from_utf8(gateway).map_err(|_| corrupt())?.to_owned();
    let reply_to = Some(ReplyTo { gateway, request: u64::from_le_bytes(*request) });
    Ok(Record { entry: entry.to_vec(), reply_to })
}
