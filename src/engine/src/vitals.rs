//! How a learner does in ways that its score doesn't tell: look-ups of neighbours that find nobody, and answers that are no
//! longer distributed as they used to be.

use serde::{Deserialize, Serialize};

use crate::answer::Statistics;
use crate::math::ln;

/// Share that the past keeps with each answer in what is recent: about the last hundred count.
const RECENT: f64 = 0.99;
/// And in what is usual: about the last thousand.
const USUAL: f64 = 0.999;
/// Answers before which nothing is usual.
const ANSWERS_MIN: f64 = 200.0;
/// What every class has for a start, so that none is impossible (Krichevsky and Trofimov, 1981).
const PRIOR: f64 = 0.5;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vitals {
    lookups: f64,
    failures: f64,
    /// By class.
    recent: Vec<f64>,
    usual: Vec<f64>,
}

impl Vitals {
    /// Counts a look-up among experiences.
    pub fn looked_up(&mut self, found: bool) {
        self.lookups = self.lookups * USUAL + 1.0;
        self.failures = self.failures * USUAL + f64::from(u8::from(!found));
    }

    /// Counts an answer by the shares that it gave to the classes.
    pub fn answered(&mut self, shares: &[f64]) {
        for (counts, fade) in [(&mut self.recent, RECENT), (&mut self.usual, USUAL)] {
            counts.resize(counts.len().max(shares.len()), 0.0);
            for (class, count) in counts.iter_mut().enumerate() {
                *count = *count * fade + shares.get(class).copied().unwrap_or(0.0);
            }
        }
    }

    /// Puts the figures into the statistics.
    pub fn fill(&self, statistics: &mut Statistics) {
        statistics.knn_failure_rate = (self.lookups > 0.0).then(|| self.failures / self.lookups);
        statistics.kl_divergence = self.divergence();
    }

    /// Kullback-Leibler divergence of the recent answers from the usual ones, in nats.
    fn divergence(&self) -> Option<f64> {
        let (recent, usual): (f64, f64) = (self.recent.iter().sum(), self.usual.iter().sum());
        if usual < ANSWERS_MIN {
            return None;
        }
        let prior = PRIOR * self.usual.len() as f64;
        let both = self.recent.iter().zip(&self.usual);
        let shares = both.map(|(a, b)| ((a + PRIOR) / (recent + prior), (b + PRIOR) / (usual + prior)));
        Some(shares.map(|(a, b)| a * ln(a / b)).sum::<f64>().max(0.0))
    }

    pub fn bytes(&self) -> usize {
        (self.recent.len() + self.usual.len()) * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divergence(vitals: &Vitals) -> Option<f64> {
        let mut statistics = Statistics::default();
        vitals.fill(&mut statistics);
        statistics.kl_divergence
    }

    #[test]
    fn answers_that_change_diverge_and_become_usual() {
        let mut vitals = Vitals::default();
        let mut answer = |share: f64, times: usize| {
            for _ in 0..times {
                vitals.answered(&[share, 1.0 - share]);
            }
            divergence(&vitals)
        };
        assert_eq!(answer(0.9, 50), None, "too few to say what is usual");
        assert!(answer(0.9, 1_000).is_some_and(|nats| nats < 0.01));
        assert!(answer(0.1, 150).is_some_and(|nats| nats > 0.2));
        assert!(answer(0.1, 5_000).is_some_and(|nats| nats < 0.01));
    }

    #[test]
    fn look_ups_that_find_nobody_are_a_share_of_the_recent_ones() {
        let mut vitals = Vitals::default();
        let mut statistics = Statistics::default();
        vitals.fill(&mut statistics);
        assert_eq!(statistics.knn_failure_rate, None);
        for number in 0..1_000 {
            vitals.looked_up(number % 10 != 0);
        }
        vitals.fill(&mut statistics);
        assert!(statistics.knn_failure_rate.is_some_and(|rate| (rate - 0.1).abs() < 0.01));
    }
}
