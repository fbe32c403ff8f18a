//! The admission filter: a vector is accepted when its value reaches a threshold, which follows the share of acceptance.
//!
//! Each acceptance raises the threshold and each rejection lowers it, in steps whose ratio is that of the target: a gradient
//! descent to the quantile (Gibbs and Candès, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS 2021). While
//! the threshold is off its bounds, the share accepted among any `n` events is within `(MOST − LEAST) / (STEP · n)` of the
//! target, whatever the values are.

use serde::{Deserialize, Serialize};

/// Where the threshold begins.
const INITIAL: f64 = 0.5;
/// Bounds of the threshold: what is worth less is never accepted, what is worth as much always is.
const LEAST: f64 = 0.1;
const MOST: f64 = 0.9;
/// Share of the events that should be accepted.
const TARGET: f64 = 0.7;
/// How far one event moves the threshold at most.
const STEP: f64 = 0.02;
/// Weight of the newest event in the fading mean of what was accepted.
const NEWEST: f64 = 0.05;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    threshold: f64,
    acceptance: f64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { threshold: INITIAL, acceptance: TARGET }
    }
}

impl Filter {
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Fading mean of what was accepted, 0 to 1.
    pub fn acceptance(&self) -> f64 {
        self.acceptance
    }

    /// Whether a value between 0 and 1 is accepted; the threshold moves.
    pub fn judge(&mut self, value: f64) -> bool {
        let accepted = value >= self.threshold;
        let share = f64::from(u8::from(accepted));
        self.threshold = (self.threshold + STEP * (share - TARGET)).clamp(LEAST, MOST);
        self.acceptance += NEWEST * (share - self.acceptance);
        accepted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_threshold_stays_in_its_bounds_and_acceptance_comes_to_the_target(
            low in 0.15..0.3f64, width in 0.3..0.6f64, noise in prop::collection::vec(0.0..1.0f64, 4_000..5_000)
        ) {
            let mut filter = Filter::default();
            // The values' quantile of the target lies within the bounds, and jumps in the middle.
            let half = noise.len() / 2;
            let values = noise.iter().enumerate().map(|(at, unit)| low + unit * width + if at < half { 0.0 } else { 0.1 });
            let mut accepted = Vec::new();
            for value in values {
                accepted.push(filter.judge(value));
                prop_assert!((LEAST..=MOST).contains(&filter.threshold()));
            }
            for part in [&accepted[..half], &accepted[half..]] {
                let share = part.iter().filter(|accepted| **accepted).count() as f64 / part.len() as f64;
                prop_assert!((share - TARGET).abs() <= (MOST - LEAST) / (STEP * part.len() as f64) + 1e-9, "{share}");
            }
        }

        #[test]
        fn whatever_comes_the_threshold_is_bounded(values in prop::collection::vec(0.0..=1.0f64, 0..2_000)) {
            let mut filter = Filter::default();
            for value in values {
                let before = filter.threshold();
                prop_assert_eq!(filter.judge(value), value >= before);
                prop_assert!((LEAST..=MOST).contains(&filter.threshold()));
                prop_assert!((0.0..=1.0).contains(&filter.acceptance()));
            }
        }
    }
}
