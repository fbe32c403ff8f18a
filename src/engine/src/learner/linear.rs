//! Softmax regression on standardised features, with a step a weight that shrinks as the weight is used
//! (Duchi, Hazan and Singer, "Adaptive Subgradient Methods", JMLR 2011) and never to nothing, so that it follows drift.

use serde::{Deserialize, Serialize};

use super::scale::Scale;
use crate::math::exp;

/// The first step of a weight.
const STEP: f32 = 0.15;
/// Share of the accumulated gradient that stays with each event: the steps look back about a thousand events.
const KEEP: f32 = 0.999;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// By class: the weights of the slots, then the bias.
    weights: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
}

impl Linear {
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
            let values = standard.iter().copied().chain(std::iter::once(1.0));
            for ((weight, gradient), value) in weights.iter_mut().zip(gradients.iter_mut()).zip(values) {
                let slope = error * value;
                *gradient = *gradient * KEEP + slope * slope;
                *weight -= STEP * slope / (gradient.sqrt() + 1.0);
            }
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
