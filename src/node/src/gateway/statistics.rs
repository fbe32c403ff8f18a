//! What the engine counts in one partition, as the API tells it.

use hebb_engine::{Statistics, Task};
use serde::Serialize;

/// The counts and the quality of a partition. Null: its task has no such figure, or nothing has told it yet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatistics {
    entries: u64,
    events: u64,
    duplicates: u64,
    labels: u64,
    updates: u64,
    rejected: u64,
    /// As hexadecimal digits: most readers of JSON keep 53 bits of a number.
    applied_digest: String,
    drifts: u64,
    correct: u64,
    accuracy: Option<f64>,
    recent_accuracy: Option<f64>,
    kappa: Option<f64>,
    log_loss: Option<f64>,
    mean_absolute_error: Option<f64>,
    experiences: u64,
    patterns: u64,
    classes: Vec<String>,
    features: u32,
    memory_bytes: u64,
    position: String,
    knn_failure_rate: Option<f64>,
    kl_divergence: Option<f64>,
    rejection_rate: Option<f64>,
}

impl PartitionStatistics {
    /// What the API tells of a partition of a domain of this task.
    pub fn new(counted: Statistics, task: Task) -> Self {
        let of_classes = |value| (task.has_classes() && counted.labels > 0).then_some(value);
        let of_numbers = |value| (task == Task::Regression && counted.labels > 0).then_some(value);
        Self {
            entries: counted.entries,
            events: counted.events,
            duplicates: counted.duplicates,
            labels: counted.labels,
            updates: counted.updates,
            rejected: counted.rejected,
            applied_digest: digest(counted.applied_digest),
            drifts: counted.drifts,
            correct: counted.correct,
            accuracy: of_classes(counted.accuracy),
            recent_accuracy: of_classes(counted.recent_accuracy),
            kappa: of_classes(counted.kappa),
            log_loss: of_classes(counted.log_loss),
            mean_absolute_error: of_numbers(counted.mean_absolute_error),
            experiences: counted.experiences,
            patterns: counted.patterns,
            features: counted.features,
            memory_bytes: counted.memory_bytes,
            position: counted.position.to_string(),
            knn_failure_rate: counted.knn_failure_rate,
            kl_divergence: counted.kl_divergence,
            rejection_rate: counted.rejection_rate,
            classes: counted.classes,
        }
    }
}

/// A digest as it is written: 16 hexadecimal digits.
pub fn digest(digest: u64) -> String {
    format!("{digest:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_figure_that_nothing_has_told_is_null_and_a_digest_keeps_its_bits() {
        let told = |task, labels| {
            let counted =
                Statistics { labels, applied_digest: u64::MAX - 1, mean_absolute_error: 0.5, ..Statistics::default() };
            json!(PartitionStatistics::new(counted, task))
        };
        let classes = told(Task::Classification, 4);
        assert_eq!(classes["appliedDigest"], json!("fffffffffffffffe"));
        assert_eq!((&classes["accuracy"], &classes["meanAbsoluteError"]), (&json!(0.0), &json!(null)));
        assert_eq!(told(Task::Classification, 0)["accuracy"], json!(null));
        let numbers = told(Task::Regression, 4);
        assert_eq!((&numbers["accuracy"], &numbers["meanAbsoluteError"]), (&json!(null), &json!(0.5)));
    }
}
