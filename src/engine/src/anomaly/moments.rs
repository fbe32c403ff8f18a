//! Mean and deviation of what came lately.

use serde::{Deserialize, Serialize};

/// Mean and variance that fade; of the first samples they are the plain ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub weight: f64,
    pub mean: f64,
    pub variance: f64,
    /// The root of the variance.
    pub deviation: f64,
    /// Of the newest number in the mean.
    share: f64,
}

/// From so many numbers on one that is far out doesn't count as it is. A wrong one among those before is remembered for as long as
/// they average over, so they are few.
const KNOWN: f64 = 8.0;
/// Deviations that a number may be out in any case.
const FAR: f64 = 30.0;

impl Moments {
    /// Whether it is known how far out a number is.
    #[inline]
    pub fn knows_spread(&self) -> bool {
        self.weight >= KNOWN && self.deviation > 0.0
    }

    /// A number, or the nearest one that is no further out than about doubles the variance: a single wrong one is soon
    /// forgotten, and a new range is followed within some numbers, however much wider it is.
    #[inline]
    pub fn plausible(&self, number: f64) -> f64 {
        if !self.knows_spread() {
            return number;
        }
        let far = FAR.max(self.weight.sqrt()) * self.deviation;
        number.clamp(self.mean - far, self.mean + far)
    }

    #[inline]
    pub fn add(&mut self, number: f64, window: f64) {
        if self.weight < window {
            self.weight += 1.0;
            self.share = 1.0 / self.weight;
        }
        let deviation = number - self.mean;
        self.mean += self.share * deviation;
        self.variance += self.share * (deviation * (number - self.mean) - self.variance);
        self.deviation = self.variance.sqrt();
    }
}
