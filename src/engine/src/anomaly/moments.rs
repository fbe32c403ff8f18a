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

impl Moments {
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
