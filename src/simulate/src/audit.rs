//! What nobody within the cluster can see: whether its states are what one uninterrupted run would have made of the log.
//!
//! For every partition the audit has a replica of its own, which applies each entry once, in the order of the log, when a
//! checkpoint passes it. Every checkpoint has to be that replica, byte for byte, whoever wrote it after whatever crash.

use std::collections::BTreeMap;

use hebb_engine::{Entry, Partition, PartitionConfig};
use hebb_log::{Claim, EntryId, PartitionKey, Record};

/// Faults that are told in full; of more, only the number.
const TOLD_MAX: usize = 20;

/// Sees every claim and every checkpoint of a store.
#[derive(Default)]
pub struct Audit {
    replicas: BTreeMap<PartitionKey, Replica>,
    /// Checkpoints that were stored.
    pub checkpoints: u64,
    /// The most entries that have waited in one partition.
    pub waiting_max: u64,
    /// Claims that began an epoch.
    pub claims: u64,
    broken: BTreeMap<&'static str, u64>,
    told: Vec<String>,
}

struct Replica {
    partition: Partition,
    /// Who checkpointed last: epoch and token.
    by: (u64, String),
}

/// A state was not what a replay of the log gives.
pub const REPLAY: &str = "state_replays";
/// Two owners have checkpointed in one epoch, or an earlier epoch after a later one.
pub const FENCED: &str = "one_owner_an_epoch";

impl Audit {
    /// Takes note of the entries that wait.
    pub fn waiting(&mut self, waiting: u64) {
        self.waiting_max = self.waiting_max.max(waiting);
    }

    /// Takes note of a new epoch.
    pub fn claimed(&mut self) {
        self.claims += 1;
    }

    /// Compares a checkpoint with the replica, which first applies what the checkpoint has taken from the log.
    pub fn checkpointed<'a>(
        &mut self,
        claim: &Claim,
        config: Option<&PartitionConfig>,
        applied: impl Iterator<Item = &'a (EntryId, Record)>,
        position: EntryId,
        state: &[u8],
    ) {
        self.checkpoints += 1;
        let key = &claim.partition;
        let by = (claim.epoch, claim.token.clone());
        let Some(replica) = self.replicas.get_mut(key) else {
            let began_as = config.map(|config| Partition::new(config.clone()));
            match began_as.filter(|partition| partition.snapshot() == state) {
                Some(partition) => drop(self.replicas.insert(key.clone(), Replica { partition, by })),
                None => self.fault(REPLAY, format!("{key} didn't begin with a checkpoint of nothing")),
            }
            return;
        };
        let (epoch, token) = &replica.by;
        let is_fenced = *epoch < claim.epoch || (*epoch == claim.epoch && *token == claim.token);
        for (id, record) in applied {
            // What can't be read is applied as a read is, in every replay alike.
            let entry = Entry::decode(&record.entry).unwrap_or(Entry::Query(hebb_engine::Query::Statistics));
            replica.partition.apply(*id, &entry);
        }
        let replays = replica.partition.snapshot() == state;
        replica.by = by;
        if !is_fenced {
            self.fault(FENCED, format!("{key} at {position}: {} checkpointed in epoch {}", claim.owner, claim.epoch));
        }
        if !replays {
            self.fault(REPLAY, format!("{key} at {position}: the state of {} isn't its log's", claim.owner));
            // What follows is judged by what stands, so that one fault is told once.
            if let (Ok(partition), Some(replica)) = (Partition::restore(state), self.replicas.get_mut(key)) {
                replica.partition = partition;
            }
        }
    }

    fn fault(&mut self, kind: &'static str, what: String) {
        *self.broken.entry(kind).or_insert(0) += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what);
        }
    }

    /// How often a rule was broken.
    pub fn broken(&self, kind: &'static str) -> u64 {
        self.broken.get(kind).copied().unwrap_or(0)
    }

    /// What was broken, in words.
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// The largest share of look-ups of neighbours that found none, over the partitions.
    pub fn knn_failure_rate(&self) -> f64 {
        let rates = self.replicas.values().filter_map(|replica| replica.partition.statistics().knn_failure_rate);
        rates.fold(0.0, f64::max)
    }
}
