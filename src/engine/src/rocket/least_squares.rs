//! Ridge regression of every class against the others, by recursive least squares (Plackett, "Some Theorems in Least
//! Squares", Biometrika 37, 1950): after each lesson the weights are those that solving for all lessons would give.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

/// Penalty on squared weights.
const PENALTY: f64 = 50.0;

/// The weights, and what the next lesson needs to better them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeastSquares {
    /// The inverse of the features' penalised second moments. It is symmetric: row by row, each up to its diagonal.
    inverse: Vec<f64>,
    /// By class: the weight of every feature. The last feature is a constant.
    weights: Vec<Vec<f64>>,
    width: usize,
}

impl LeastSquares {
    /// A model of so many features, the constant with them.
    pub fn new(width: usize) -> Self {
        let mut inverse = vec![0.0; width * (width + 1) / 2];
        for place in 0..width {
            // The constant is hardly penalised.
            inverse[place * (place + 3) / 2] = if place + 1 < width { 1.0 / PENALTY } else { 1.0 };
        }
        Self { inverse, weights: Vec::new(), width }
    }

    /// By class that a lesson was of: near 1 for a signal that is of it, near −1 for one that isn't.
    pub fn scores(&self, features: &[f64]) -> impl Iterator<Item = f64> {
        self.weights.iter().map(|weights| dot(weights, features))
    }

    /// Learns that these features are of this class and of no other.
    pub fn learn(&mut self, features: &[f64], class: usize) {
        while self.weights.len() <= class {
            // Nothing was of this class so far.
            let mut weights = vec![0.0; self.width];
            weights[self.width - 1] = -1.0;
            self.weights.push(weights);
        }
        let mut gain = vec![0.0; self.width];
        product(&self.inverse, features, &mut gain);
        let scale = 1.0 / (1.0 + dot(&gain, features));
        for (number, weights) in self.weights.iter_mut().enumerate() {
            let wanted = if number == class { 1.0 } else { -1.0 };
            let step = (wanted - dot(weights, features)) * scale;
            for (weight, gain) in weights.iter_mut().zip(&gain) {
                *weight += step * gain;
            }
        }
        subtract_square(&mut self.inverse, &gain, scale);
    }

    pub fn bytes(&self) -> usize {
        (self.inverse.len() + self.weights.len() * self.width) * 8
    }
}

/// Adds the product of a symmetric matrix, of which `triangle` holds the rows up to the diagonal, and a vector.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512dq+avx512f+avx512vl", "x86_64+avx2"))]
fn product(triangle: &[f64], vector: &[f64], product: &mut [f64]) {
    let mut rest = triangle;
    for (place, value) in vector.iter().enumerate() {
        let (row, below) = rest.split_at(place + 1);
        rest = below;
        let (before, at) = product.split_at_mut(place);
        for (sum, entry) in before.iter_mut().zip(row) {
            *sum += entry * value;
        }
        at[0] += dot(row, &vector[..=place]);
    }
}

/// Subtracts `scale` times the products of all pairs of a vector's numbers.
#[multiversion(targets("x86_64+avx2+avx512bw+avx512dq+avx512f+avx512vl", "x86_64+avx2"))]
fn subtract_square(triangle: &mut [f64], vector: &[f64], scale: f64) {
    let mut rest = triangle;
    for (place, value) in vector.iter().enumerate() {
        let (row, below) = rest.split_at_mut(place + 1);
        rest = below;
        let factor = value * scale;
        for (entry, other) in row.iter_mut().zip(vector) {
            *entry -= factor * other;
        }
    }
}

/// In lanes that a processor adds at once; always in the same order.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn each_lesson_leaves_the_weights_that_solving_for_all_would_give() {
        let mut random = Random::new(5);
        let lessons: Vec<([f64; 4], f64)> = (0..40)
            .map(|number| {
                let row = [random.unit(), random.unit(), random.unit(), 1.0];
                (row, if number % 3 == 0 { 1.0 } else { -1.0 })
            })
            .collect();
        let mut model = LeastSquares { weights: vec![vec![0.0; 4]; 2], ..LeastSquares::new(4) };
        for (row, wanted) in &lessons {
            model.learn(row, usize::from(*wanted > 0.0));
        }
        // Where the gradient of the penalised loss is 0.
        for slot in 0..4 {
            let penalty = if slot < 3 { PENALTY } else { 1.0 };
            let weights = &model.weights[1];
            let residuals = lessons.iter().map(|(row, wanted)| (wanted - dot(weights, row)) * row[slot]).sum::<f64>();
            assert!((residuals - penalty * weights[slot]).abs() < 1e-9, "slot {slot}");
        }
    }
}
