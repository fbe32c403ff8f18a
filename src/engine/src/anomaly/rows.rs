//! Anomalies among rows of features.

use serde::{Deserialize, Serialize};

use super::moments::Moments;
use crate::math::ln;

/// Rows that mean and deviation of a feature average over.
const LONG: f64 = 5_000.0;
/// Bins of a feature on either side of its mean: two an octave, the first a quarter of a deviation wide.
const SIDE: usize = 15;
const BINS: usize = 2 * SIDE + 1;
/// Counts are halved when there are so many: what is older fades.
const COUNTED_MAX: u32 = 10_000;
/// Features of a row; further ones aren't looked at.
const FEATURES_MAX: usize = 4_096;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Feature {
    moments: Moments,
    counts: Vec<u32>,
    counted: u32,
}

/// A detector of unusual rows: a histogram of each feature, on a scale of its deviations, that fades (after Goldstein and
/// Dengel, "Histogram-based Outlier Score", KI 2012, made incremental).
///
/// Features are taken one by one: a row whose values are usual each, and unusual together, isn't found.
///
/// ```
/// let mut detector = hebb_engine::RowDetector::default();
/// let usual = (0..1_000).map(|row| detector.step(&[(row % 7) as f32, (row % 3) as f32])).fold(0.0, f64::max);
/// assert!(detector.step(&[80.0, -20.0]) > usual);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowDetector {
    features: Vec<Feature>,
}

impl Feature {
    fn new() -> Self {
        Self { moments: Moments::default(), counts: vec![0; BINS], counted: 0 }
    }

    /// How probable the value is, smoothed over neighbouring bins; learns it.
    #[inline]
    fn step(&mut self, value: f64) -> f64 {
        let deviations = if self.moments.deviation > 0.0 {
            (value - self.moments.mean) / self.moments.deviation
        } else {
            value - self.moments.mean
        };
        let bin = bin(deviations);
        let beside = |bin: Option<&u32>| f64::from(bin.copied().unwrap_or(0)) / 2.0;
        let near = f64::from(self.counts[bin])
            + beside(bin.checked_sub(1).and_then(|bin| self.counts.get(bin)))
            + beside(self.counts.get(bin + 1));
        let share = (near + 1.0) / (2.0 * f64::from(self.counted) + BINS as f64);
        self.counts[bin] += 1;
        self.counted += 1;
        if self.counted == COUNTED_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.counted = self.counts.iter().sum();
        }
        self.moments.add(self.moments.plausible(value), LONG);
        share
    }
}

#[inline]
fn bin(deviations: f64) -> usize {
    // The exponent and the first bit of the mantissa of a number from 1 on.
    let steps = ((1.0 + 4.0 * deviations.abs()).to_bits() >> 51).saturating_sub(1023 << 1);
    let steps = (steps as usize).min(SIDE);
    if deviations < 0.0 { SIDE - steps } else { SIDE + steps }
}

impl RowDetector {
    /// How unusual a row is among those before it, 0 to 1; then learns it. What isn't finite isn't looked at.
    pub fn step(&mut self, row: &[f32]) -> f64 {
        let known = row.len().min(FEATURES_MAX);
        if self.features.len() < known {
            self.features.resize_with(known, Feature::new);
        }
        let (mut looked_at, mut sum) = (0, 0.0);
        for (feature, value) in self.features.iter_mut().zip(row) {
            if value.is_finite() {
                sum -= ln(feature.step(f64::from(*value)));
                looked_at += 1;
            }
        }
        let most = ln(2.0 * f64::from(COUNTED_MAX));
        if looked_at == 0 { 0.0 } else { (sum / f64::from(looked_at) / most).clamp(0.0, 1.0) }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.features.len() * (size_of::<Feature>() + BINS * size_of::<u32>())
    }
}
