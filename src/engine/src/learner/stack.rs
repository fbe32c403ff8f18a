//! A geometric mixture of the other members: the product of their shares, each raised to a weight that is learned online by
//! the slope of the log-loss (Mattern, "Mixing Strategies in Data Compression", DCC 2012). Where a mean of opinions only
//! chooses between members, a product joins what they know independently, such as the features and the sequence of labels.

use serde::{Deserialize, Serialize};

use crate::math::{exp, ln_all};

/// Weight of a member before anything is known of it.
const WEIGHT: f64 = 0.3;
/// Most that a weight may become: beyond it one member would silence the rest.
const WEIGHT_MAX: f64 = 3.0;
/// The first step of a weight; it shrinks with the slopes so far (AdaGrad), which fade by [`KEEP`] an event.
const STEP: f64 = 0.15;
const KEEP: f64 = 0.999;
/// No member rules a class out by itself.
const SHARE_MIN: f64 = 1e-3;

/// The weights of `N` members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// By member: its weight, and the faded sum of its squared slopes. Empty until the first label.
    members: Vec<(f64, f64)>,
}

impl Stack {
    /// Shares over classes, summing to 1, from those of the members, whose logarithms are left in `logs`.
    pub fn shares(&self, members: &[Vec<f64>], classes: usize, logs: &mut Vec<f64>, shares: &mut Vec<f64>) {
        logs.clear();
        logs.extend(members.iter().flatten().map(|vote| vote.max(SHARE_MIN)));
        ln_all(logs);
        shares.clear();
        shares.resize(classes, 0.0);
        for (place, logs) in logs.chunks_exact(classes.max(1)).enumerate() {
            let weight = self.members.get(place).map_or(WEIGHT, |(weight, _)| *weight);
            for (share, log) in shares.iter_mut().zip(logs) {
                *share += weight * log;
            }
        }
        let top = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        for share in shares.iter_mut() {
            *share = exp(*share - top);
            sum += *share;
        }
        for share in shares.iter_mut() {
            *share /= sum;
        }
    }

    /// One step against the log-loss of `shares`, which [`Stack::shares`] made with `logs`.
    pub fn learn(&mut self, class: usize, logs: &[f64], shares: &[f64]) {
        let logs = logs.chunks_exact(shares.len().max(1));
        self.members.resize(logs.len(), (WEIGHT, 0.0));
        for ((weight, slopes), logs) in self.members.iter_mut().zip(logs) {
            let slope: f64 = shares
                .iter()
                .zip(logs)
                .enumerate()
                .map(|(place, (share, log))| (share - f64::from(u8::from(place == class))) * log)
                .sum();
            *slopes = *slopes * KEEP + slope * slope;
            *weight = (*weight - STEP * slope / (slopes.sqrt() + 1.0)).clamp(0.0, WEIGHT_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn two_weak_members_that_err_independently_make_a_better_one_and_chance_is_left_out() {
        let (mut stack, mut random) = (Stack::default(), Random::new(7));
        let (mut logs, mut shares) = (Vec::new(), Vec::new());
        let mut right = [0; 2];
        for number in 0..6_000 {
            let class = random.below(3);
            let mut member = |sure: f64| {
                let told = if random.unit() < sure { class } else { random.below(3) };
                (0..3).map(|other| if other == told { sure } else { (1.0 - sure) / 2.0 }).collect::<Vec<f64>>()
            };
            let members = [member(0.7), member(0.6), member(0.6), member(0.0)];
            stack.shares(&members, 3, &mut logs, &mut shares);
            if number >= 3_000 {
                right[0] += usize::from(crate::learner::best(&shares) == Some(class));
                right[1] += usize::from(crate::learner::best(&members[0]) == Some(class));
            }
            stack.learn(class, &logs, &shares);
        }
        assert!(right[0] > right[1] + 60, "{right:?}");
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
