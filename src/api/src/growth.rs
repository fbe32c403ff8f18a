//! By how much counters grow of which some come and go: what partitions have learned, as their owners change.

use std::collections::BTreeMap;

/// A partition: its domain's name and its number.
type Partition = (String, u32);

/// The counters of the last look, and what all have grown by since the first.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    last: BTreeMap<Partition, u64>,
    total: u64,
}

impl Growth {
    /// Takes a look at the counters that are known now. What one has grown by counts if the look before knew it too: what a
    /// new one holds may be as old as the partition. The sum since the first look.
    pub fn look(&mut self, now: impl IntoIterator<Item = (Partition, u64)>) -> u64 {
        let before = std::mem::replace(&mut self.last, now.into_iter().collect());
        let known = self.last.iter().filter_map(|(partition, now)| Some(now.saturating_sub(*before.get(partition)?)));
        self.total += known.sum::<u64>();
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_known_before_is_not_new() {
        let mut growth = Growth::default();
        let mut look = |counters: &[(u32, u64)]| {
            growth.look(counters.iter().map(|(index, count)| (("a".to_owned(), *index), *count)))
        };
        assert_eq!(look(&[(0, 1_000)]), 0);
        assert_eq!(look(&[(0, 1_010), (1, 500)]), 10);
        assert_eq!(look(&[(1, 501)]), 11);
        assert_eq!(look(&[(0, 1_020), (1, 501)]), 11, "who comes back is new");
        assert_eq!(look(&[(0, 5), (1, 502)]), 12, "one that begins anew has not shrunk the others");
    }
}
