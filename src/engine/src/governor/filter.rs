//! The admission filter: a vector is accepted when its value reaches a threshold, which follows the share of acceptance.
//!
//! Each acceptance raises the threshold and each rejection lowers it, in steps whose ratio is that of the target: a gradient
//! descent to the quantile (Gibbs and Candès, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS 2021). While
//! the threshold is off its bounds, the share accepted among any `n` events is within `(most − least) / (STEP · n)` of the
//! target, whatever the values are.

use serde::{Deserialize, Serialize};

use crate::config::Thresholds;

/// How far one event moves the threshold at most.
const STEP: f64 = 0.02;
/// Weight of the newest event in the fading mean of what was accepted.
const NEWEST: f64 = 0.05;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    threshold: f64,
    acceptance: f64,
}

impl Filter {
    pub fn new(thresholds: &Thresholds) -> Self {
        Self { threshold: thresholds.initial_threshold, acceptance: thresholds.target_acceptance }
    }

    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Fading mean of what was accepted, 0 to 1.
    pub fn acceptance(&self) -> f64 {
        self.acceptance
    }

    /// Takes up other bounds.
    pub fn bound(&mut self, within: &Thresholds) {
        self.threshold = self.threshold.clamp(within.min_threshold, within.max_threshold);
    }

    /// Whether a value between 0 and 1 is accepted; the threshold moves.
    pub fn judge(&mut self, value: f64, within: &Thresholds) -> bool {
        let accepted = value >= self.threshold;
        let share = f64::from(u8::from(accepted));
        self.threshold += STEP * (share - within.target_acceptance);
        self.bound(within);
        self.acceptance += NEWEST * (share - self.acceptance);
        accepted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds() -> impl Strategy<Value = Thresholds> {
        prop::array::uniform4(0.0..=1.0f64).prop_map(|[a, b, c, target_acceptance]| {
            let mut order = [a, b, c];
            order.sort_by(f64::total_cmp);
            let [min_threshold, initial_threshold, max_threshold] = order;
            Thresholds { initial_threshold, min_threshold, max_threshold, target_acceptance }
        })
    }

    proptest! {
        #[test]
        fn the_threshold_stays_in_its_bounds_and_acceptance_comes_to_the_target(
            low in 0.15..0.3f64, width in 0.3..0.6f64, noise in prop::collection::vec(0.0..1.0f64, 4_000..5_000)
        ) {
            let within = Thresholds::default();
            let Thresholds { min_threshold: least, max_threshold: most, target_acceptance: target, .. } = within;
            let mut filter = Filter::new(&within);
            // The values' quantile of the target lies within the bounds, and jumps in the middle.
            let half = noise.len() / 2;
            let values = noise.iter().enumerate().map(|(at, unit)| low + unit * width + if at < half { 0.0 } else { 0.1 });
            let mut accepted = Vec::new();
            for value in values {
                accepted.push(filter.judge(value, &within));
                prop_assert!((least..=most).contains(&filter.threshold()));
            }
            for part in [&accepted[..half], &accepted[half..]] {
                let share = part.iter().filter(|accepted| **accepted).count() as f64 / part.len() as f64;
                prop_assert!((share - target).abs() <= (most - least) / (STEP * part.len() as f64) + 1e-9, "{share}");
            }
        }

        #[test]
        fn whatever_comes_and_whatever_the_bounds_become_the_threshold_is_within_them(
            first in thresholds(), second in thresholds(), values in prop::collection::vec(0.0..=1.0f64, 0..2_000)
        ) {
            let mut filter = Filter::new(&first);
            let half = values.len() / 2;
            for (place, value) in values.into_iter().enumerate() {
                let within = if place < half { &first } else { &second };
                filter.bound(within);
                let before = filter.threshold();
                prop_assert_eq!(filter.judge(value, within), value >= before);
                prop_assert!((within.min_threshold..=within.max_threshold).contains(&filter.threshold()));
                prop_assert!((0.0..=1.0).contains(&filter.acceptance()));
            }
        }
    }
}
