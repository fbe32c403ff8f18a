//! Decides which worker should own which partition: rendezvous hashing with bounded load.
//!
//! A partition prefers workers in the order of a hash of both names, so a change of members moves only what it must; no
//! worker is given more than its fair share rounded up (Mirrokni et al., "Consistent Hashing with Bounded Loads", SODA 2018).
//! Pure: the same members and partitions give the same assignment on every coordinator.

use std::collections::BTreeMap;

use hebb_engine::event_digest;
use hebb_log::PartitionKey;

/// The worker of each partition, in the order of the partitions; empty without workers.
pub fn assign(partitions: &[PartitionKey], workers: &[String]) -> Vec<(PartitionKey, String)> {
    if workers.is_empty() {
        return Vec::new();
    }
    let share = partitions.len().div_ceil(workers.len());
    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sorted: Vec<&PartitionKey> = partitions.iter().collect();
    sorted.sort();
    sorted.dedup();
    sorted
        .into_iter()
        .filter_map(|partition| {
            let mut preferred: Vec<(u64, &String)> =
                workers.iter().map(|worker| (preference(partition, worker), worker)).collect();
            preferred.sort_by(|a, b| b.cmp(a));
            let (_, worker) =
                preferred.into_iter().find(|(_, worker)| load.get(worker.as_str()).copied().unwrap_or(0) < share)?;
            *load.entry(worker).or_insert(0) += 1;
            Some((partition.clone(), worker.clone()))
        })
        .collect()
}

fn preference(partition: &PartitionKey, worker: &str) -> u64 {
    event_digest(&format!("{partition} {worker}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(count: u32) -> Vec<PartitionKey> {
        (0..count).map(|index| PartitionKey { domain: "electricity".to_owned(), index }).collect()
    }

    fn workers(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("worker-{number}")).collect()
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_no_worker_more_than_its_share(partitions in 0u32..80, count in 1usize..12) {
            let workers = workers(count);
            let assigned = assign(&keys(partitions), &workers);
            prop_assert_eq!(assigned.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), keys(partitions));
            let share = (partitions as usize).div_ceil(count);
            for worker in &workers {
                prop_assert!(assigned.iter().filter(|(_, owner)| owner == worker).count() <= share);
            }
        }

        #[test]
        fn the_order_of_members_and_partitions_does_not_matter(partitions in 0u32..40, count in 1usize..8) {
            let mut reversed_workers = workers(count);
            reversed_workers.reverse();
            let mut reversed_keys = keys(partitions);
            reversed_keys.reverse();
            prop_assert_eq!(assign(&keys(partitions), &workers(count)), assign(&reversed_keys, &reversed_workers));
        }

        #[test]
        fn a_lost_worker_moves_few_partitions_of_the_others(partitions in 10u32..60, count in 3usize..8) {
            let before = assign(&keys(partitions), &workers(count));
            let lost = format!("worker-{}", count - 1);
            let after = assign(&keys(partitions), &workers(count - 1));
            let moved = before.iter().zip(&after).filter(|(b, a)| b.1 != lost && b.1 != a.1).count();
            prop_assert!(moved <= partitions as usize / 2, "{} of {} moved", moved, partitions);
        }
    }

    #[test]
    fn without_workers_nothing_is_assigned() {
        assert!(assign(&keys(3), &[]).is_empty());
    }
}
