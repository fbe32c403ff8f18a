//! Prequential quality: every prediction is scored before its label teaches (Dawid, 1984; Gama et al., 2013).

use serde::{Deserialize, Serialize};

use crate::answer::Statistics;
use crate::math::ln;

/// Share that the past keeps in the recent accuracy with each event.
const FADE: f64 = 0.999;
/// The least probability that the log-loss believes.
const PROBABILITY_MIN: f64 = 1e-6;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub labels: u64,
    pub correct: u64,
    faded_correct: f64,
    faded_labels: f64,
    log_loss: f64,
    absolute_error: f64,
    /// By class: how often it was predicted, and how often it was true.
    predicted: Vec<u64>,
    actual: Vec<u64>,
}

impl Score {
    /// Scores a classification.
    pub fn classified(&mut self, predicted: Option<usize>, probability: f64, actual: usize) {
        let right = predicted == Some(actual);
        self.labels += 1;
        self.correct += u64::from(right);
        self.faded_correct = self.faded_correct * FADE + f64::from(u8::from(right));
        self.faded_labels = self.faded_labels * FADE + 1.0;
        self.log_loss -= ln(probability.max(PROBABILITY_MIN));
        count(&mut self.actual, actual);
        if let Some(predicted) = predicted {
            count(&mut self.predicted, predicted);
        }
    }

    /// Scores a regression.
    pub fn estimated(&mut self, expected: f64, actual: f64) {
        self.labels += 1;
        self.absolute_error += (expected - actual).abs();
    }

    /// Puts the figures into the statistics.
    pub fn fill(&self, statistics: &mut Statistics) {
        let labels = self.labels.max(1) as f64;
        statistics.labels = self.labels;
        statistics.correct = self.correct;
        statistics.accuracy = self.correct as f64 / labels;
        statistics.recent_accuracy = if self.faded_labels > 0.0 { self.faded_correct / self.faded_labels } else { 0.0 };
        statistics.log_loss = self.log_loss / labels;
        statistics.mean_absolute_error = self.absolute_error / labels;
        let chance: f64 = self.predicted.iter().zip(&self.actual).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>()
            / (labels * labels);
        statistics.kappa = if chance < 1.0 { (statistics.accuracy - chance) / (1.0 - chance) } else { 0.0 };
    }
}

fn count(counts: &mut Vec<u64>, class: usize) {
    if counts.len() <= class {
        counts.resize(class + 1, 0);
    }
    counts[class] += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_is_nothing_by_chance_and_one_by_knowledge() {
        let (mut blind, mut knowing) = (Score::default(), Score::default());
        for number in 0..1_000 {
            blind.classified(Some(0), 0.5, number % 2);
            knowing.classified(Some(number % 2), 1.0, number % 2);
        }
        let mut statistics = Statistics::default();
        blind.fill(&mut statistics);
        assert!(statistics.kappa.abs() < 1e-9 && (statistics.accuracy - 0.5).abs() < 1e-9);
        knowing.fill(&mut statistics);
        assert_eq!((statistics.kappa, statistics.log_loss), (1.0, 0.0));
    }
}
