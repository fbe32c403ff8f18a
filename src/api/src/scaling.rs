//! What `spec.workers.autoscaling` decides: pure, from how many entries waited lately. The operator does so for pods, and a
//! process with workers of its own for these.
//!
//! The window rules are those of the HorizontalPodAutoscaler: growing follows the smallest recommendation of its window,
//! shrinking the largest, so that a dip or a peak shorter than the window changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::AutoscalingSpec;

/// One part of the fallback's patience.
const SILENCE_UNIT: Duration = Duration::from_secs(10);

/// What was seen of the queue in a span of time that ended `age` ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How long ago.
    pub age: Duration,
    /// Fewest waiting entries.
    pub min: u64,
    /// Most waiting entries.
    pub max: u64,
}

/// The load of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// What was seen, the newest first.
    pub samples: Vec<Sample>,
    /// Since when there are answers without a long gap.
    pub known_for: Duration,
    /// For how long no coordinator has answered.
    pub silent_for: Duration,
    /// Partitions of all domains: more workers than these would be idle.
    pub partitions: u64,
}

/// The number of workers and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The number.
    pub desired: i32,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

/// Decides between the bounds. `settled` says that the last change has come to its end, so that workers drain a few at a time.
pub fn decide(spec: &AutoscalingSpec, current: i32, settled: bool, load: &Load) -> Decision {
    let (min, max) = (spec.min_replicas, spec.max_replicas.max(spec.min_replicas));
    let decision = |desired: i32, reason, message: String| Decision { desired, reason, message };
    let bounded = current.clamp(min, max);
    if bounded != current {
        return decision(bounded, "OutOfBounds", format!("{current} is not between {min} and {max}"));
    }
    let patience = SILENCE_UNIT.saturating_mul(u32::try_from(spec.fallback.failure_threshold).unwrap_or(1));
    if load.silent_for >= patience {
        let desired = current.max(spec.fallback.replicas.min(max));
        return decision(
            desired,
            "Fallback",
            format!(
                "no coordinator has said for {} s how many entries wait; there are at least {} workers until one does",
                patience.as_secs(),
                spec.fallback.replicas.min(max)
            ),
        );
    }
    let Some(newest) = load.samples.first() else {
        return decision(current, "NoMetric", "no coordinator has said yet how many entries wait".to_owned());
    };
    let per_worker = u64::try_from(spec.queue_depth_per_worker).unwrap_or(1).max(1);
    let useful = i32::try_from(load.partitions).unwrap_or(i32::MAX).clamp(min, max);
    let workers = |lag: u64| i32::try_from(lag.div_ceil(per_worker)).unwrap_or(i32::MAX).clamp(min, useful);
    let within = |window: Duration| load.samples.iter().take_while(move |sample| sample.age <= window);

    let up = spec.scale_up.stabilization.0;
    let enough_known = up.is_zero() || load.known_for >= up;
    let least = within(up).map(|sample| sample.min).min().unwrap_or(newest.min);
    let lag = if up.is_zero() { newest.max } else { least };
    let wanted = workers(lag);
    if wanted > current && enough_known {
        let desired = wanted.min(current.saturating_add(spec.scale_up.max_step));
        let message = format!("{lag} entries wait, {per_worker} are for one worker: from {current} to {desired}");
        return decision(desired, "QueueGrew", message);
    }
    let down = spec.scale_down.stabilization.0;
    let most = within(down).map(|sample| sample.max).max().unwrap_or(newest.max);
    let wanted = workers(most);
    if wanted < current && load.known_for >= down && settled {
        let desired = wanted.max(current.saturating_sub(spec.scale_down.max_step));
        let message = format!(
            "at most {most} entries waited in the last {}, {per_worker} are for one worker: from {current} to {desired}",
            spec.scale_down.stabilization
        );
        return decision(desired, "QueueShrank", message);
    }
    decision(current, "Steady", "the number of workers fits the queue".to_owned())
}

/// The workers that go when `count` of them must: those with the least state, by name where it is equal.
pub fn victims(state_bytes: &BTreeMap<String, u64>, count: usize) -> Vec<String> {
    let mut workers: Vec<(&String, &u64)> = state_bytes.iter().collect();
    workers.sort_by_key(|(name, bytes)| (**bytes, std::cmp::Reverse((*name).clone())));
    workers.into_iter().take(count).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use crate::{AutoscalingSpec, Duration as Span};
    use proptest::prelude::*;

    use super::*;

    fn spec() -> AutoscalingSpec {
        AutoscalingSpec::default()
    }

    fn load(lags: &[u64]) -> Load {
        let samples = lags.iter().enumerate().map(|(place, lag)| Sample {
            age: Duration::from_secs(5 * place as u64),
            min: *lag,
            max: *lag,
        });
        Load {
            samples: samples.collect(),
            known_for: Duration::from_secs(5 * lags.len() as u64),
            silent_for: Duration::ZERO,
            partitions: 64,
        }
    }

    proptest! {
        #[test]
        fn no_decision_leaves_the_bounds_or_takes_more_than_a_step(
            current in 0i32..80, lags in prop::collection::vec(0u64..20_000, 0..100), silent in 0u64..60, settled: bool,
            partitions in 0u64..80,
        ) {
            let spec = spec();
            let load = Load { silent_for: Duration::from_secs(silent), partitions, ..load(&lags) };
            let decision = decide(&spec, current, settled, &load);
            prop_assert!((2..=50).contains(&decision.desired));
            if (2..=50).contains(&current) {
                prop_assert!(decision.desired <= current + 10 && decision.desired >= current - 1);
                prop_assert!(settled || decision.desired >= current);
            }
        }

        #[test]
        fn a_square_wave_shorter_than_the_window_never_shrinks_what_it_grew(half in 1usize..20, high in 300u64..2_000) {
            let spec = spec();
            let mut current = 2;
            let mut falls = 0;
            let mut seen: Vec<u64> = Vec::new();
            for second in 0..400 {
                seen.insert(0, if (second / half) % 2 == 0 { high } else { 0 });
                let next = decide(&spec, current, true, &load(&seen)).desired;
                falls += i32::from(next < current);
                current = next;
            }
            prop_assert_eq!(falls, 0);
            prop_assert_eq!(current, (high.div_ceil(100) as i32).clamp(2, 50));
        }
    }

    #[test]
    fn no_answer_is_not_an_empty_queue() {
        let silent = |seconds| Load { silent_for: Duration::from_secs(seconds), ..load(&[0; 100]) };
        assert_eq!(decide(&spec(), 10, true, &silent(29)).reason, "QueueShrank");
        let fallback = decide(&spec(), 10, true, &silent(30));
        assert_eq!((fallback.desired, fallback.reason), (10, "Fallback"));
        assert_eq!(decide(&spec(), 2, true, &silent(300)).desired, 3);
        assert_eq!(decide(&spec(), 5, true, &Load::default()).desired, 5);
    }

    #[test]
    fn shrinking_waits_for_its_window_and_for_the_drain_before() {
        let full = load(&[0; 61]);
        assert_eq!(decide(&spec(), 6, true, &full).desired, 5);
        assert_eq!(decide(&spec(), 6, false, &full).desired, 6);
        assert_eq!(decide(&spec(), 6, true, &load(&[0; 30])).desired, 6);
        let mut peak = [0; 61];
        peak[40] = 600;
        assert_eq!(decide(&spec(), 6, true, &load(&peak)).desired, 6);
    }

    #[test]
    fn growing_may_have_to_wait_too_and_idle_workers_are_not_made() {
        let mut patient = spec();
        patient.scale_up.stabilization = Span::from_secs(20);
        assert_eq!(decide(&patient, 2, true, &load(&[900, 0, 0, 0, 0, 0])).desired, 2);
        assert_eq!(decide(&patient, 2, true, &load(&[900; 6])).desired, 9);
        let few = Load { partitions: 4, ..load(&[5_000]) };
        assert_eq!(decide(&spec(), 2, true, &few).desired, 4);
    }

    #[test]
    fn the_least_state_goes_first() {
        let states = [("w-a", 500), ("w-b", 0), ("w-c", 20), ("w-d", 0)];
        let states = states.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        assert_eq!(victims(&states, 3), ["w-d", "w-b", "w-c"]);
    }
}
