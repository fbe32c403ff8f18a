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
pub const INDICATORS: [Indicator; 26] = [
    indicator(
        "update_rate",
        "updates per minute",
        "how often the models learn: labels that the gate lets through, signals, vectors that a governed memory accepts",
    ),
    indicator("knn_failure_rate", "0 to 1", "share of look-ups of neighbours that failed"),
    indicator("mean_kl_divergence", "nats", "how far the answers' distribution is from what it used to be"),
    indicator("queue_size", "entries", "entries that wait in the longest queue of a partition"),
    indicator("queue_usage_ratio", "0 to 1", "the same, of engine.maxQueueSize"),
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
    indicator(
        "accuracy",
        "0 to 1",
        "share of right answers among the recent ones, of the worst domain; one with fewer than 100 labels doesn't count",
    ),
    indicator(
        "rejection_rate",
        "0 to 1",
        "share of the vectors that the admission filter rejected, of the domain with most",
    ),
    indicator(
        "acceptance_shortfall",
        "0 to 1",
        "how far acceptance is below engine.admission.targetAcceptance, as a share of it: 0.5 where half as many are accepted",
    ),
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

/// Labels of a domain before which its accuracy isn't told: a few of them say nothing.
pub const ACCURACY_LABELS_MIN: u64 = 100;

/// How far an admission filter that rejects this share of the vectors is below the acceptance that it should come to, as a share
/// of that: 0 where it accepts as many or more, 1 where it accepts none.
pub fn acceptance_shortfall(rejection_rate: f64, target_acceptance: f64) -> f64 {
    if target_acceptance <= 0.0 {
        return 0.0;
    }
    (1.0 - (1.0 - rejection_rate) / target_acceptance).clamp(0.0, 1.0)
}

/// The indicator of that name.
pub fn indicator_named(name: &str) -> Option<&'static Indicator> {
    INDICATORS.iter().find(|indicator| indicator.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_short_is_measured_by_what_was_asked_for() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(acceptance_shortfall(0.3, 0.7), 0.0), "as configured");
        assert!(near(acceptance_shortfall(0.7, 0.3), 0.0), "as configured, although most are rejected");
        assert!(near(acceptance_shortfall(0.1, 0.7), 0.0), "more than asked for");
        assert!(near(acceptance_shortfall(0.65, 0.7), 0.5));
        assert!(near(acceptance_shortfall(1.0, 0.1), 1.0));
        assert!(near(acceptance_shortfall(1.0, 0.0), 0.0), "none was asked for");
    }
}
