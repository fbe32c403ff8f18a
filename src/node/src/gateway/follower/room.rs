//! How many copies a gateway holds and how large they may be together. Pure: what is used, and for how long not, are
//! arguments.

use std::time::Duration;

/// What all copies may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Their number.
    pub copies: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A copy that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its bytes.
    pub bytes: u64,
    /// For how long nobody asked it.
    pub idle: Duration,
}

/// A copy that was asked within this time stays: else more partitions than there is room for would take turns, and each
/// turn costs a checkpoint to be read.
pub const KEPT_FOR: Duration = Duration::from_secs(5);

impl Room {
    /// The places of those among the others that go so that a copy of so many bytes has room, the longest unused first.
    /// Nothing where that isn't enough.
    pub fn make(&self, wanted: u64, others: &[Use]) -> Option<Vec<usize>> {
        let mut bytes = others.iter().fold(wanted, |sum, other| sum.saturating_add(other.bytes));
        let mut copies = others.len() + 1;
        let mut idle: Vec<usize> = (0..others.len()).filter(|place| others[*place].idle >= KEPT_FOR).collect();
        idle.sort_by_key(|place| others[*place].idle);
        let mut going = Vec::new();
        while copies > self.copies || bytes > self.bytes {
            let place = idle.pop()?;
            copies -= 1;
            bytes = bytes.saturating_sub(others[place].bytes);
            going.push(place);
        }
        Some(going)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_fits_and_what_goes_is_the_longest_unused(
            copies in 1usize..8, bytes in 1u64..1_000, wanted in 0u64..1_200,
            others in prop::collection::vec((0u64..600, 0u64..12), 0..12),
        ) {
            let others: Vec<Use> =
                others.into_iter().map(|(bytes, idle)| Use { bytes, idle: Duration::from_secs(idle) }).collect();
            let room = Room { copies, bytes };
            let total = |kept: &dyn Fn(usize) -> bool| {
                let kept: Vec<u64> = (0..others.len()).filter(|at| kept(*at)).map(|at| others[at].bytes).collect();
                (kept.len() + 1, kept.iter().sum::<u64>() + wanted)
            };
            let fits = |(number, sum): (usize, u64)| number <= copies && sum <= bytes;
            match room.make(wanted, &others) {
                Some(going) => {
                    prop_assert!(fits(total(&|at| !going.contains(&at))));
                    prop_assert!(going.iter().all(|at| others[*at].idle >= KEPT_FOR));
                    let latest = going.iter().map(|at| others[*at].idle).min();
                    let kept = (0..others.len()).filter(|at| !going.contains(at)).map(|at| others[at].idle).max();
                    prop_assert!(latest.is_none() || kept <= latest);
                    if let Some((_, fewer)) = going.split_last() {
                        prop_assert!(!fits(total(&|at| !fewer.contains(&at))), "one more than had to");
                    }
                }
                None => prop_assert!(!fits(total(&|at| others[at].idle < KEPT_FOR))),
            }
        }
    }
}
