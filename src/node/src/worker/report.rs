//! What a worker says of itself with every heartbeat, and the coordinator passes on.

use hebb_engine::Statistics;
use serde::{Deserialize, Serialize};

/// The report of one worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Whether it is about to leave and should be given nothing more.
    pub draining: bool,
    /// What it owns.
    pub partitions: Vec<PartitionReport>,
}

/// The report of one owned partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// The domain.
    pub domain: String,
    /// The partition's number.
    pub index: u32,
    /// The epoch of the ownership.
    pub epoch: u64,
    /// Bytes of the last snapshot.
    pub state_bytes: u64,
    /// How long the last checkpoint took, in milliseconds.
    pub checkpoint_ms: u64,
    /// What the engine counts.
    pub statistics: Statistics,
}
