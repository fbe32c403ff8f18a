//! Softmax regression on standardised features, with a step a weight that shrinks as the weight is used
//! (Duchi, Hazan and Singer, "Adaptive Subgradient Methods", JMLR 2011) and never to nothing, so that it follows drift; in a
//! series beside a second one, which also knows how far the row is from those before it.

use serde::{Deserialize, Serialize};

use super::scale::Scale;
use super::trend::Trend;
use crate::math::{exp, larger, ln};

/// The first step of a weight.
const STEP: f32 = 0.15;
/// Share of the accumulated gradient that stays with each event: the steps look back about a thousand events.
const KEEP: f32 = 0.999;
/// How strongly the lead of one regression over the other moves their weights, and the share of it that stays with each event.
const LEAD_RATE: f64 = 0.2;
const LEAD_KEEP: f64 = 0.998;
/// A regression that was sure of something else falls behind by no more than for this share.
const SHARE_MIN: f64 = 0.01;

/// Both regressions, mixed by how they did lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    pub(super) levels: Softmax,
    /// Of the row beside those before it; nothing until there is a series.
    trends: Softmax,
    trend: Trend,
    /// Faded sum of what it was better by, in log-loss.
    lead: f64,
}

/// What both say of a row.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// The row beside those before it; empty where it isn't known or says nothing.
    beside: Vec<f32>,
    levels: Vec<f64>,
    trends: Vec<f64>,
}

impl From<Softmax> for Linear {
    /// One that knew nothing of series.
    fn from(levels: Softmax) -> Self {
        Self { levels, ..Self::default() }
    }
}

impl Linear {
    /// Shares over `classes`, summing to 1, of a standardised row. `is_late` when others came since, so that it isn't known
    /// what it was beside those before it.
    pub fn shares(&self, standard: &[f32], classes: usize, is_late: bool, said: &mut Said, shares: &mut Vec<f64>) {
        let Said { beside, levels, trends } = said;
        self.levels.shares(standard, classes, levels);
        shares.clone_from(levels);
        if is_late {
            beside.clear();
        } else {
            self.trend.compare(standard, beside);
        }
        if !beside.is_empty() && self.trends.knows_something() {
            self.trends.shares(beside, classes, trends);
            let weight = 1.0 / (1.0 + exp(-LEAD_RATE * self.lead));
            for (share, other) in shares.iter_mut().zip(trends) {
                *share += weight * (*other - *share);
            }
        }
    }

    /// Learns the row that [`Linear::shares`] was asked about last.
    pub fn learn(&mut self, standard: &[f32], class: usize, said: &mut Said) {
        let Said { beside, levels, trends } = said;
        self.levels.learn(standard, class, levels);
        if beside.is_empty() {
            return;
        }
        if self.trends.knows_something() {
            let loss = |shares: &[f64]| -ln(larger(SHARE_MIN, shares.get(class).copied().unwrap_or(0.0)));
            self.lead = self.lead * LEAD_KEEP + loss(levels) - loss(trends);
        } else {
            self.trends.shares(beside, levels.len(), trends);
        }
        self.trends.learn(beside, class, trends);
    }

    /// Takes in the next row of the series, whether or not it is learned.
    pub fn follow(&mut self, standard: &[f32]) {
        self.trend.insert(standard);
    }

    pub fn bytes(&self) -> usize {
        self.levels.bytes() + self.trends.bytes()
    }
}

/// Softmax regression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Softmax {
    /// By class: the weights of the slots, then the bias.
    weights: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
}

impl Softmax {
    fn knows_something(&self) -> bool {
        !self.weights.is_empty()
    }

    /// Adds nothing of what it has not seen: shares over `classes`, summing to 1.
    pub fn shares(&self, standard: &[f32], classes: usize, shares: &mut Vec<f64>) {
        shares.clear();
        shares.extend((0..classes).map(|class| {
            let Some((bias, weights)) = self.weights.get(class).and_then(|weights| weights.split_last()) else {
                return 0.0;
            };
            let sum: f32 = weights.iter().zip(standard).map(|(weight, value)| weight * value).sum();
            f64::from(sum + bias)
        }));
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

    /// One step against the log-loss. `shares` is what the row was predicted.
    pub fn learn(&mut self, standard: &[f32], class: usize, shares: &[f64]) {
        let width = standard.len() + 1;
        for table in [&mut self.weights, &mut self.gradients] {
            if table.len() < shares.len() {
                table.resize(shares.len(), vec![0.0; width]);
            }
            for row in table.iter_mut().filter(|row| row.len() < width) {
                // The bias stays last.
                let bias = row.pop().unwrap_or(0.0);
                row.resize(width - 1, 0.0);
                row.push(bias);
            }
        }
        for (place, share) in shares.iter().enumerate() {
            let error = *share as f32 - f32::from(u8::from(place == class));
            let (weights, gradients) = (&mut self.weights[place], &mut self.gradients[place]);
            let step = |weight: &mut f32, gradient: &mut f32, value: f32| {
                let slope = error * value;
                *gradient = *gradient * KEEP + slope * slope;
                *weight -= STEP * slope / (gradient.sqrt() + 1.0);
            };
            // The bias apart, so that the rest is computed many at once.
            let (Some((bias, weights)), Some((of_bias, gradients))) =
                (weights.split_last_mut(), gradients.split_last_mut())
            else {
                continue;
            };
            for ((weight, gradient), value) in weights.iter_mut().zip(gradients).zip(standard) {
                step(weight, gradient, *value);
            }
            step(bias, of_bias, 1.0);
        }
    }

    pub fn bytes(&self) -> usize {
        self.weights.iter().map(|row| row.len() * 8).sum()
    }
}

/// Least squares by normalised steps, for regression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeastSquares {
    weights: Vec<f32>,
    target: Scale,
}

impl LeastSquares {
    /// The expected target.
    pub fn predict(&self, standard: &[f32]) -> f64 {
        let sum: f32 = self.weights.iter().skip(1).zip(standard).map(|(weight, value)| weight * value).sum();
        let bias = self.weights.first().copied().unwrap_or(0.0);
        self.target.original(0, sum + bias)
    }

    /// How far the targets are from their mean, usually.
    pub fn deviation(&self) -> f64 {
        self.target.deviation(0)
    }

    /// The target, or the nearest one that isn't far beyond those before it.
    pub fn plausible(&self, target: f64) -> f64 {
        self.target.plausible(0, target)
    }

    /// One step, as long as the row is short (Nagumo and Noda, 1967).
    pub fn learn(&mut self, standard: &[f32], target: f64) {
        const RATE: f32 = 0.1;
        self.target.insert(&[target as f32]);
        let mut scaled = Vec::new();
        self.target.standard(&[target as f32], &mut scaled);
        self.weights.resize(self.weights.len().max(standard.len() + 1), 0.0);
        let known: f32 = self.weights.iter().skip(1).zip(standard).map(|(weight, value)| weight * value).sum();
        let error = scaled[0] - known - self.weights[0];
        let length: f32 = 1.0 + standard.iter().map(|value| value * value).sum::<f32>();
        let step = RATE * error / length;
        self.weights[0] += step;
        for (weight, value) in self.weights.iter_mut().skip(1).zip(standard) {
            *weight += step * value;
        }
    }
}
