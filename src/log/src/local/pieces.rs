//! How a state is laid out. A small one is in the row of its checkpoint. A large one is in pieces, each a row of a table of
//! its own and a commit of its own, so that no commit takes long; then the row of the checkpoint names them.
//!
//! Pieces that no row names belong to a checkpoint that was given up, or to one that another has replaced: they go.

use redb::{ReadTransaction, ReadableTable};

use super::tables::{PIECES, Tables, failed};
use crate::{LogError, MAX_STATE_BYTES};

/// The most bytes of a piece: with its key, and what redb adds, it fits into a page of 512 KiB.
pub(super) const PIECE_BYTES: usize = (512 << 10) - 256;
/// Pieces that go in one commit: to find them is to read them.
pub(super) const SWEPT_AT_ONCE: usize = 16;

/// Where a piece is: the partition's number, the serial of its state, and its own number in that.
pub(super) type PiecePlace = (u32, u64, u32);

/// Begins a row that names pieces, as a snapshot of a version that will never be begins: an earlier version of this store says
/// that it can't read it, and its owner takes the fallback where there is one.
const MARK: [u8; 6] = *b"HEBB\xff\xff";

/// A state that is in pieces. In a row: [`MARK`], the serial and the bytes in 8 bytes each, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Tells the pieces from those of the partition's other states.
    pub(super) serial: u64,
    /// The bytes of the state.
    pub(super) bytes: u64,
}

impl Pieces {
    /// Of a state that doesn't go into a row: it is large, or would be taken for the name of pieces.
    pub(super) fn of(state: &[u8]) -> Option<Self> {
        let bytes = state.len();
        (PIECE_BYTES < bytes || state.starts_with(&MARK)).then(|| Self { serial: rand::random(), bytes: bytes as u64 })
    }

    pub(super) fn row(self) -> Vec<u8> {
        [&MARK[..], &self.serial.to_le_bytes(), &self.bytes.to_le_bytes()].concat()
    }

    /// What a row names, unless it has the state itself.
    pub(super) fn named_by(row: &[u8]) -> Option<Self> {
        let (serial, rest) = row.strip_prefix(&MARK)?.split_first_chunk()?;
        let bytes = rest.try_into().ok()?;
        Some(Self { serial: u64::from_le_bytes(*serial), bytes: u64::from_le_bytes(bytes) })
    }
}

/// The bytes of the state of a row.
pub(super) fn bytes(row: &[u8]) -> u64 {
    Pieces::named_by(row).map_or(row.len() as u64, |pieces| pieces.bytes)
}

/// The state of a row.
pub(super) fn read(read: &ReadTransaction, number: u32, row: &[u8]) -> Result<Vec<u8>, LogError> {
    let Some(Pieces { serial, bytes }) = Pieces::named_by(row) else { return Ok(row.to_vec()) };
    let table = read.open_table(PIECES).map_err(failed)?;
    let mut state =
        Vec::with_capacity(usize::try_from(bytes).map_or(MAX_STATE_BYTES, |bytes| bytes.min(MAX_STATE_BYTES)));
    for piece in table.range((number, serial, 0)..=(number, serial, u32::MAX)).map_err(failed)? {
        state.extend_from_slice(piece.map_err(failed)?.1.value());
    }
    match state.len() as u64 == bytes {
        true => Ok(state),
        false => Err(LogError::Corrupt(format!("of a state of {bytes} bytes there are {}", state.len()))),
    }
}

/// Removes pieces of a partition but for those of the states with these serials, at most `max`; how many they were.
pub(super) fn sweep(tables: &mut Tables<'_>, number: u32, live: &[u64], max: usize) -> Result<usize, redb::Error> {
    let (mut from, mut removed) = ((number, 0, 0), 0);
    while removed < max {
        let next = tables.pieces.range(from..=(number, u64::MAX, u32::MAX))?.next().transpose()?;
        let Some(place) = next.map(|(place, _)| place.value()) else { break };
        let (_, serial, _) = place;
        if !live.contains(&serial) {
            tables.pieces.remove(place)?;
            removed += 1;
            continue;
        }
        let Some(after) = serial.checked_add(1) else { break };
        from = (number, after, 0);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use hebb_engine::{Partition, PartitionConfig, SnapshotError, Task};

    use super::*;

    #[test]
    fn a_row_has_the_state_or_names_its_pieces() {
        for small in [Vec::new(), b"state".to_vec(), MARK[..5].to_vec(), vec![7; PIECE_BYTES]] {
            assert_eq!((Pieces::of(&small), Pieces::named_by(&small)), (None, None));
            assert_eq!(bytes(&small), small.len() as u64);
        }
        let snapshot = Partition::new(PartitionConfig::new(Task::Classification)).snapshot();
        assert_eq!(Pieces::of(&snapshot), None);
        for state in [vec![7; PIECE_BYTES + 1], MARK.to_vec(), Pieces { serial: 1, bytes: 2 }.row()] {
            let pieces = Pieces::of(&state).unwrap();
            let row = pieces.row();
            assert_eq!((Pieces::named_by(&row), bytes(&row)), (Some(pieces), state.len() as u64));
        }
    }

    #[test]
    fn an_earlier_version_says_that_it_cannot_read_a_row_that_names_pieces() {
        let row = Pieces { serial: u64::MAX, bytes: 95 << 20 }.row();
        let error = Partition::restore(&row).unwrap_err();
        assert!(matches!(error, SnapshotError::Version { found: u16::MAX, .. }), "{error}");
    }
}
