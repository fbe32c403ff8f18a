//! Running mean and deviation of every slot, so that learners needn't know units.

use serde::{Deserialize, Serialize};

use super::gauss::Gauss;

/// A value further out than this many deviations says no more than that.
const FAR: f32 = 5.0;
/// Weight that the past keeps at most: the scale follows a stream whose range drifts.
const WEIGHT_MAX: f32 = 20_000.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    slots: Vec<Gauss>,
}

impl Scale {
    /// Takes a row into account.
    pub fn insert(&mut self, row: &[f32]) {
        self.slots.resize(self.slots.len().max(row.len()), Gauss::default());
        for (slot, value) in self.slots.iter_mut().zip(row) {
            if !value.is_nan() {
                if slot.weight() > WEIGHT_MAX {
                    slot.fade(0.5);
                }
                slot.insert_robust(*value);
            }
        }
    }

    /// The row in deviations from the mean; what is missing is the mean.
    pub fn standard(&self, row: &[f32], standard: &mut Vec<f32>) {
        standard.clear();
        standard.extend(row.iter().enumerate().map(|(place, value)| {
            let Some(slot) = self.slots.get(place).filter(|_| !value.is_nan()) else { return 0.0 };
            let distance = value - slot.mean();
            // A slot that never changed says nothing; one that does for the first time says something.
            let deviation = slot.variance().sqrt();
            if deviation > 0.0 {
                (distance / deviation).clamp(-FAR, FAR)
            } else if distance == 0.0 {
                0.0
            } else {
                distance.signum()
            }
        }));
    }

    /// The deviation of a slot; 0 of one that never changed.
    pub fn deviation(&self, place: usize) -> f64 {
        self.slots.get(place).map_or(0.0, |slot| f64::from(slot.variance()).sqrt())
    }

    /// A value, or the nearest one that is no further out than ten deviations.
    pub fn plausible(&self, place: usize, value: f64) -> f64 {
        const DEVIATIONS: f64 = 10.0;
        match self.slots.get(place).filter(|slot| slot.variance() > 0.0) {
            Some(slot) => {
                let (mean, far) = (f64::from(slot.mean()), DEVIATIONS * f64::from(slot.variance()).sqrt());
                value.clamp(mean - far, mean + far)
            }
            None => value,
        }
    }

    /// A standardised value in the units that it had.
    pub fn original(&self, place: usize, standard: f32) -> f64 {
        self.slots
            .get(place)
            .map_or(0.0, |slot| f64::from(slot.mean()) + f64::from(standard) * f64::from(slot.variance()).sqrt())
    }
}
