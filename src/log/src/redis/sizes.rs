//! How many entries to ask for. Redis counts entries, not bytes, and one has a hundred bytes or a million: so an answer gets
//! as many as it may have of the size that they have had lately, and few of a partition of which nothing is known.

use std::collections::HashMap;
use std::sync::Mutex;

use super::link::lock;
use crate::{EntryId, PartitionKey, Record};

/// The most bytes of an answer whose entries are no larger than expected.
const ANSWER_BYTES: usize = 16 << 20;
/// The most entries of an answer: should they be the largest all of a sudden, it still has no more than 256 MiB.
const ANSWER_ENTRIES: usize = 256;
/// What an entry counts as of which nothing is known: as much as a body or a line may have.
const UNKNOWN: usize = 1 << 20;

/// The size that is expected of a partition's next entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(usize);

impl Size {
    /// How many entries to ask for, of `max` that are wanted.
    pub(super) fn count(self, max: usize) -> usize {
        (ANSWER_BYTES / self.0).clamp(1, ANSWER_ENTRIES).min(max)
    }

    /// The bytes of so many.
    pub(super) fn bytes(self, count: usize) -> usize {
        self.0 * count
    }

    /// What is expected once these have come of `count`. A reader that is behind asks for twice as many each time, and one
    /// that isn't slowly comes back to what is safe: what it asks for one day may be another stream.
    #[must_use]
    pub(super) fn learned(self, count: usize, entries: &[(EntryId, Record)]) -> Self {
        let Some(largest) = entries.iter().map(|(_, record)| record.entry.len()).max() else { return self };
        let expected = match entries.len() {
            all if all == count => self.0 / 2,
            most if count / 2 < most => self.0,
            _ => UNKNOWN.min(self.0 + self.0 / 8 + 1),
        };
        Self(expected.max(largest).clamp(1, ANSWER_BYTES))
    }

    /// What is expected after no answer came. It may have been too large for its deadline, so that half of it is next.
    #[must_use]
    pub(super) fn doubted(self) -> Self {
        Self((2 * self.0).clamp(UNKNOWN, ANSWER_BYTES))
    }
}

/// The sizes of all partitions that this process has read.
#[derive(Default)]
pub(super) struct Sizes(Mutex<HashMap<PartitionKey, Size>>);

impl Sizes {
    pub(super) fn expected(&self, partition: &PartitionKey) -> Size {
        lock(&self.0).get(partition).copied().unwrap_or(Size(UNKNOWN))
    }

    pub(super) fn expect(&self, partition: &PartitionKey, size: Size) {
        let mut sizes = lock(&self.0);
        match sizes.get_mut(partition) {
            Some(known) => *known = size,
            None => {
                sizes.insert(partition.clone(), size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize, bytes: usize) -> Vec<(EntryId, Record)> {
        vec![(EntryId::default(), Record { entry: vec![0; bytes].into(), reply_to: None }); count]
    }

    #[test]
    fn a_reader_that_is_behind_asks_for_twice_as_many_while_entries_are_small() {
        let mut size = Size(UNKNOWN);
        let mut asked = Vec::new();
        for _ in 0..6 {
            let count = size.count(256);
            asked.push(count);
            size = size.learned(count, &entries(count, 100));
        }
        assert_eq!(asked, [16, 32, 64, 128, 256, 256]);
        assert_eq!(size.count(10), 10);
        // A usual answer is waited for no longer than any other call.
        for _ in 0..10 {
            size = size.learned(256, &entries(256, 100));
        }
        assert!(size.bytes(256) < 1 << 20, "{size:?}");
    }

    #[test]
    fn large_entries_come_in_answers_of_a_bounded_size() {
        for bytes in [0, 1, 100_000, 300_000, 1 << 20, 3 << 20, 20 << 20, 64 << 20] {
            let mut size = Size(UNKNOWN);
            for _ in 0..20 {
                let count = size.count(10_000);
                size = size.learned(count, &entries(count.min(2), bytes));
            }
            let count = size.count(10_000);
            assert!(count == 1 || count * bytes <= ANSWER_BYTES, "{count} of {bytes}");
        }
        // One that is large among small ones isn't forgotten at once.
        let size = Size(100).learned(256, &entries(1, 1 << 20));
        assert_eq!(size.count(256), 16);
        assert_eq!(size.learned(16, &entries(16, 100)).count(256), 32);
    }

    #[test]
    fn a_reader_that_keeps_up_comes_back_to_what_is_safe() {
        let mut size = Size(100);
        for _ in 0..100 {
            size = size.learned(size.count(256), &entries(1, 100));
        }
        assert_eq!(size.count(256), 16);
        assert_eq!(size.learned(16, &[]), size);
    }

    #[test]
    fn an_answer_that_never_comes_is_asked_for_in_halves() {
        let mut size = Size(100);
        let mut asked = Vec::new();
        for _ in 0..6 {
            size = size.doubted();
            asked.push(size.count(256));
        }
        assert_eq!(asked, [16, 8, 4, 2, 1, 1]);
        assert_eq!(size.learned(1, &entries(1, 100)).count(256), 2);
    }
}
