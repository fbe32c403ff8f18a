//! What a node says of itself with every heartbeat, and the coordinator passes on.

use std::sync::LazyLock;

use hebb_engine::Statistics;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::memory::Memory;

/// The report of one node that beats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Report {
    /// Of a gateway.
    Gateway(GatewayReport),
    /// Of a worker.
    Worker(WorkerReport),
}

/// The report of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Its memory.
    pub memory: Memory,
    /// 99th percentile of the time from a request to its answer over the last minute, in seconds; nothing without requests.
    pub answer_p99_seconds: Option<f64>,
    /// Requests that it has answered.
    #[serde(default)]
    pub answered: u64,
    /// Of them, those that weren't answered as they wished.
    #[serde(default)]
    pub failed: u64,
    /// When its process started, in seconds since 1970.
    #[serde(default)]
    pub started_at: u32,
}

/// The report of one worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Whether it is about to leave and should be given nothing more.
    pub draining: bool,
    /// What it owns.
    pub partitions: Vec<PartitionReport>,
    /// Its memory.
    pub memory: Memory,
    /// 95th percentile of the time to apply an entry over the last minute, in seconds; nothing without entries.
    pub apply_p95_seconds: Option<f64>,
    /// When its process started, in seconds since 1970.
    #[serde(default)]
    pub started_at: u32,
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

/// When this process started, or first was asked, in seconds since 1970.
pub fn started_at() -> u32 {
    static STARTED_AT: LazyLock<u32> =
        LazyLock::new(|| u32::try_from(Timestamp::now().as_second()).unwrap_or_default());
    *STARTED_AT
}
