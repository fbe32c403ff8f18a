//! What can be watched: the one list of indicators, with their units.

/// A number that is known of every LearningCluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indicator {
    /// The word in a rule.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

const fn indicator(name: &'static str, unit: &'static str, meaning: &'static str) -> Indicator {
    Indicator { name, unit, meaning }
}

/// The indicators that rules may name. An indicator that can't be told is missing, which isn't zero.
pub const INDICATORS: [Indicator; 24] = [
    indicator("update_rate", "updates per minute", "how often the models learn"),
    indicator("knn_failure_rate", "0 to 1", "share of look-ups of neighbours that failed"),
    indicator("mean_kl_divergence", "nats", "how far the answers' distribution is from what it used to be"),
    indicator("queue_size", "entries", "entries that wait in the longest queue of a partition"),
    indicator("memory_usage_ratio", "0 to 1", "memory of the fullest gateway, coordinator or worker, of its limit"),
    indicator("memory_bytes", "bytes", "memory of the largest gateway, coordinator or worker"),
    indicator(
        "inference_latency_p99",
        "seconds",
        "99th percentile of the time to an answer, in the last minute, of the slowest gateway",
    ),
    indicator(
        "latency_p95",
        "seconds",
        "95th percentile of the time to apply an event, in the last minute, of the slowest worker",
    ),
    indicator("accuracy", "0 to 1", "share of right answers among the recent ones"),
    indicator("rejection_rate", "0 to 1", "share of the events that the admission filter rejected"),
    indicator("up", "0 or 1", "whether the gateway answers"),
    indicator("leader_up", "0 or 1", "whether a coordinator leads"),
    indicator("redis_up", "0 or 1", "whether the log's store answers"),
    indicator("workers_ready_ratio", "0 to 1", "ready workers, of those that are wanted"),
    indicator("restarts", "restarts", "restarts of containers since the pods were made"),
    indicator("crash_loops", "pods", "pods that wait after one crash too many"),
    indicator(
        "continuous_active",
        "0 or 1",
        "whether the cycles of meta-learning run as they should; missing where they were ended",
    ),
    indicator("learning_velocity", "0 to 1", "how fast meta-learning gets better"),
    indicator("mean_improvement", "score per cycle", "mean gain of the last cycles of meta-learning"),
    indicator("meta_score", "0 to 1", "mean score of the experience that the last cycle of meta-learning looked at"),
    indicator("stuck_phase_seconds", "seconds", "how long the present cycle of meta-learning has run; 0 between two"),
    indicator("meta_memory_bytes", "bytes", "memory of the process that runs meta-learning"),
    indicator("meta_metric_min", "score", "the smallest of meta-learning's four metrics, which belong in 0 to 1"),
    indicator("meta_metric_max", "score", "the largest of meta-learning's four metrics, which belong in 0 to 1"),
];

/// The indicator of that name.
pub fn indicator_named(name: &str) -> Option<&'static Indicator> {
    INDICATORS.iter().find(|indicator| indicator.name == name)
}
