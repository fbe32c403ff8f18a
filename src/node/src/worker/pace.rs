//! Decides when a partition is checkpointed.

use std::time::Duration;

/// Checkpoints may take this share of the time: one part in twenty.
const COST_SHARE: u32 = 20;

/// A replay of this many bytes takes seconds, so the log grows no further between checkpoints.
pub const LOG_BYTES_MAX: u64 = 32 << 20;

/// What happened since the last checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinceCheckpoint {
    /// Entries applied.
    pub entries: u64,
    /// Their bytes in the log.
    pub bytes: u64,
    /// The time that has passed, also since one that failed was begun.
    pub elapsed: Duration,
    /// Whether one has failed since.
    pub failed: bool,
}

/// Whether a checkpoint is due: `interval` has passed and the last one's cost is paid off, or the log has grown too long.
/// One that failed is tried again after the interval, however long the log is: to make a snapshot is dear in itself.
pub fn is_due(since: SinceCheckpoint, interval: Duration, last_cost: Duration) -> bool {
    let is_long = since.bytes >= LOG_BYTES_MAX && (!since.failed || since.elapsed >= interval);
    since.entries > 0 && (is_long || since.elapsed >= interval.max(last_cost.saturating_mul(COST_SHARE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn since(entries: u64, bytes: u64, seconds: u64) -> SinceCheckpoint {
        SinceCheckpoint { entries, bytes, elapsed: Duration::from_secs(seconds), failed: false }
    }

    #[test]
    fn nothing_applied_needs_no_checkpoint() {
        assert!(!is_due(since(0, 0, 3600), INTERVAL, Duration::ZERO));
    }

    #[test]
    fn the_interval_rules_while_checkpoints_are_cheap() {
        assert!(!is_due(since(1, 10, 4), INTERVAL, Duration::from_millis(10)));
        assert!(is_due(since(1, 10, 5), INTERVAL, Duration::from_millis(10)));
    }

    #[test]
    fn an_expensive_checkpoint_is_taken_less_often() {
        assert!(!is_due(since(1, 10, 19), INTERVAL, Duration::from_secs(1)));
        assert!(is_due(since(1, 10, 20), INTERVAL, Duration::from_secs(1)));
    }

    #[test]
    fn a_long_log_is_checkpointed_at_once() {
        assert!(is_due(since(1, LOG_BYTES_MAX, 0), INTERVAL, Duration::from_secs(100)));
    }

    #[test]
    fn a_long_log_waits_for_the_interval_after_a_checkpoint_that_failed() {
        let failed = |seconds| SinceCheckpoint { failed: true, ..since(1, LOG_BYTES_MAX, seconds) };
        assert!(!is_due(failed(4), INTERVAL, Duration::from_secs(100)));
        assert!(is_due(failed(5), INTERVAL, Duration::from_secs(100)));
    }
}
