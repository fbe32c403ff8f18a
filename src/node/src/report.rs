//! What a node says of itself with every heartbeat, and the coordinator passes on.

use std::sync::LazyLock;

use hebb_engine::Statistics;
use hebb_log::bounds::MAX_REPORT_BYTES;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::memory::Memory;

/// Classes of a partition that are named in its report; the dashboard shows no more of a domain.
pub const CLASSES_MAX: usize = 50;
/// Characters of a class's name there.
const CLASS_NAME_MAX: usize = 64;

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
    /// How many classes were seen.
    #[serde(default)]
    pub class_count: u64,
    /// How often something was learned: [`hebb_engine::Partition::learned`].
    #[serde(default)]
    pub learned: u64,
    /// What the engine counts; of the classes, some.
    pub statistics: Statistics,
}

impl WorkerReport {
    /// The report as text that the store takes. A worker that isn't heard is taken for dead, so what is too much is left
    /// out: names of classes first, then what is said of partitions. Who owns them doesn't hang on it.
    pub fn encode(self) -> String {
        let mut report = Report::Worker(self);
        loop {
            let text = serde_json::to_string(&report).unwrap_or_default();
            let Report::Worker(WorkerReport { partitions, .. }) = &mut report else { return text };
            if text.len() <= MAX_REPORT_BYTES || partitions.is_empty() {
                return text;
            }
            if partitions.iter().any(|partition| !partition.statistics.classes.is_empty()) {
                partitions.iter_mut().for_each(|partition| partition.statistics.classes.clear());
            } else {
                partitions.truncate(partitions.len() / 2);
                warn!(partitions = partitions.len(), "too many partitions to report of all; these are reported of");
            }
        }
    }
}

/// Leaves of a partition's statistics what fits into a report.
pub fn shorten(statistics: &mut Statistics) {
    statistics.classes.truncate(CLASSES_MAX);
    for class in &mut statistics.classes {
        if let Some((end, _)) = class.char_indices().nth(CLASS_NAME_MAX) {
            class.truncate(end);
            class.push('…');
        }
    }
}

/// When this process started, or first was asked, in seconds since 1970.
pub fn started_at() -> u32 {
    static STARTED_AT: LazyLock<u32> =
        LazyLock::new(|| u32::try_from(Timestamp::now().as_second()).unwrap_or_default());
    *STARTED_AT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: u32, classes: Vec<String>) -> PartitionReport {
        PartitionReport {
            domain: "d".repeat(253),
            index,
            epoch: 1,
            state_bytes: 1,
            checkpoint_ms: 1,
            class_count: classes.len() as u64,
            learned: 0,
            statistics: Statistics { classes, ..Statistics::default() },
        }
    }

    fn decoded(report: WorkerReport) -> WorkerReport {
        let text = report.encode();
        assert!(text.len() <= MAX_REPORT_BYTES, "{} bytes", text.len());
        match serde_json::from_str(&text).unwrap() {
            Report::Worker(report) => report,
            Report::Gateway(_) => panic!("that is no worker"),
        }
    }

    #[test]
    fn whatever_a_worker_owns_its_report_is_taken() {
        // Each character takes six bytes in the text.
        let names: Vec<String> = (0..1_000).map(|name| format!("{name}{}", "\u{1}".repeat(250))).collect();
        let mut statistics = Statistics { classes: names, ..Statistics::default() };
        shorten(&mut statistics);
        assert_eq!(statistics.classes.len(), CLASSES_MAX);
        let of = |count: u32, classes: &[String]| WorkerReport {
            partitions: (0..count).map(|index| partition(index, classes.to_vec())).collect(),
            ..WorkerReport::default()
        };
        assert_eq!(decoded(of(40, &statistics.classes)), of(40, &statistics.classes));
        let without_names = decoded(of(200, &statistics.classes)).partitions;
        assert_eq!(without_names.len(), 200);
        assert!(without_names.iter().all(|partition| partition.class_count == CLASSES_MAX as u64));
        assert!(!decoded(of(4_096, &[])).partitions.is_empty());
    }
}
