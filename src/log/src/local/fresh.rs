//! What was committed and not read yet: whoever reads it right after the commit needs no look into the file.

use std::collections::VecDeque;

use crate::{EntryId, Record};

/// The most bytes of what waits in memory: about ten times an ordinary queue. Who is further behind reads the file.
const MAX_BYTES: usize = 1 << 20;
/// What an entry takes beside its bytes.
const ENTRY_BYTES: usize = 96;

/// The newest entries of a log. Each is handed out once; to read it again is to read the file.
pub(super) struct Fresh {
    /// What the log has after this place is here. Nothing is known where it isn't known what the file holds.
    after: Option<EntryId>,
    entries: VecDeque<(EntryId, Record)>,
    bytes: usize,
}

impl Fresh {
    /// Of a log that ends here.
    pub(super) fn after(newest: EntryId) -> Self {
        Self { after: Some(newest), entries: VecDeque::new(), bytes: 0 }
    }

    /// Of a log of which nobody knows where it ends, which is so until it's read.
    pub(super) fn unknown() -> Self {
        Self { after: None, entries: VecDeque::new(), bytes: 0 }
    }

    /// Takes in what was committed: all of an append, whose entries share a buffer, or nothing.
    pub(super) fn push(&mut self, entries: Vec<(EntryId, Record)>) {
        let Some((last, _)) = entries.last().filter(|_| self.after.is_some()) else { return };
        let bytes = entries.iter().map(|(_, record)| weight(record)).sum::<usize>();
        if bytes > MAX_BYTES {
            *self = Self::after(*last);
            return;
        }
        self.bytes += bytes;
        self.entries.extend(entries);
        while self.bytes > MAX_BYTES {
            self.pop();
        }
    }

    /// Lets go of what the log doesn't have any more.
    pub(super) fn trim(&mut self, until: EntryId) {
        while self.entries.front().is_some_and(|(id, _)| *id <= until) {
            self.pop();
        }
    }

    /// Hands out the entries after a place, at most `max`; nothing where only the file tells what they are.
    pub(super) fn take(&mut self, after: EntryId, max: usize) -> Option<Vec<(EntryId, Record)>> {
        if self.after.is_none_or(|known| after < known) {
            return None;
        }
        self.trim(after);
        Some((0..self.entries.len().min(max)).map_while(|_| self.pop()).collect())
    }

    fn pop(&mut self) -> Option<(EntryId, Record)> {
        let (id, record) = self.entries.pop_front()?;
        self.bytes -= weight(&record);
        self.after = Some(id);
        Some((id, record))
    }
}

fn weight(record: &Record) -> usize {
    record.entry.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> EntryId {
        EntryId { at_ms: 1, seq }
    }

    fn entries(seqs: std::ops::Range<u64>, bytes: usize) -> Vec<(EntryId, Record)> {
        seqs.map(|seq| (id(seq), Record { entry: vec![seq as u8; bytes].into(), reply_to: None })).collect()
    }

    fn seqs(taken: Option<Vec<(EntryId, Record)>>) -> Option<Vec<u64>> {
        taken.map(|entries| entries.into_iter().map(|(id, _)| id.seq).collect())
    }

    #[test]
    fn what_follows_is_handed_out_once_and_the_file_has_it_again() {
        let mut fresh = Fresh::after(id(4));
        fresh.push(entries(5..10, 1));
        assert_eq!(seqs(fresh.take(id(3), 9)), None, "the file may have more");
        assert_eq!(seqs(fresh.take(id(4), 2)), Some(vec![5, 6]));
        assert_eq!(seqs(fresh.take(id(4), 2)), None);
        assert_eq!(seqs(fresh.take(id(8), 9)), Some(vec![9]));
        assert_eq!(seqs(fresh.take(id(9), 9)), Some(vec![]));
        fresh.push(entries(10..12, 1));
        assert_eq!(seqs(fresh.take(id(9), 9)), Some(vec![10, 11]));
        assert_eq!(fresh.bytes, 0);
    }

    #[test]
    fn what_was_trimmed_is_not_handed_out() {
        let mut fresh = Fresh::after(id(0));
        fresh.push(entries(1..6, 1));
        fresh.trim(id(3));
        assert_eq!(seqs(fresh.take(id(0), 9)), None);
        assert_eq!(seqs(fresh.take(id(3), 9)), Some(vec![4, 5]));
    }

    #[test]
    fn who_is_far_behind_reads_the_file() {
        let mut fresh = Fresh::after(id(0));
        for first in [1, 3, 5, 7] {
            fresh.push(entries(first..first + 2, MAX_BYTES / 4));
        }
        assert!(fresh.bytes <= MAX_BYTES);
        assert_eq!(seqs(fresh.take(id(0), 9)), None);
        assert_eq!(seqs(fresh.take(id(6), 1)), Some(vec![7]));
        fresh.push(entries(9..14, MAX_BYTES / 4));
        assert_eq!((fresh.bytes, seqs(fresh.take(id(7), 9))), (0, None), "more at once than is kept");
        assert_eq!(seqs(fresh.take(id(13), 9)), Some(vec![]));
    }

    #[test]
    fn nothing_is_known_until_the_file_is_read() {
        let mut fresh = Fresh::unknown();
        fresh.push(entries(1..3, 1));
        assert_eq!(seqs(fresh.take(id(0), 9)), None);
        assert_eq!(seqs(fresh.take(id(9), 9)), None);
        assert!(fresh.entries.is_empty());
    }
}
