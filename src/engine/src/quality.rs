//! What a partition took for what of late, and how sure it was: the confusion of its classes and the calibration of its
//! confidence (reliability diagrams: DeGroot and Fienberg, The Statistician 32, 1983).
//!
//! It is counted beside the state and no part of it: whoever restores a snapshot begins to count anew.

use serde::{Deserialize, Serialize};

/// Classes that are told apart: the first of the partition. The others count as one.
const CLASSES_MAX: usize = 32;
const SIDE: usize = CLASSES_MAX + 1;
/// Equal parts of the confidence from 0 to 1.
const BINS: usize = 10;
/// Labels of a generation. The present one and the one before are told: the last 2,000 to 4,000 labels.
const GENERATION: u64 = 2_000;

/// Confusion and calibration over the last 2,000 to 4,000 predictions whose label is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Predictions that are counted. All of them came since the present owner took the partition over.
    pub labels: u64,
    /// The classes that are told apart, in the order of their numbers; at most 32.
    pub classes: Vec<String>,
    /// What was taken for what; only pairs that occurred.
    pub confusion: Vec<Confused>,
    /// Ten equal parts of the confidence from 0 to 1.
    pub bins: Vec<CalibrationBin>,
}

/// How often one class was taken for another, or for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confused {
    /// Number of the class that was true; 32 for all further ones together.
    pub actual: u32,
    /// Number of the class that was predicted; 32 likewise.
    pub predicted: u32,
    /// How often that was right; of the further classes the numbers don't tell.
    pub right: u64,
    /// How often.
    pub count: u64,
}

/// The predictions of one part of the confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// How many.
    pub count: u64,
    /// How many were right.
    pub right: u64,
    /// The sum of their confidences.
    pub confidence: f64,
}

#[derive(Clone, Debug, Default)]
struct Generation {
    labels: u64,
    /// Count and right ones by actual and predicted class; empty before the first label.
    cells: Vec<[u32; 2]>,
    bins: [CalibrationBin; BINS],
}

/// Counts it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    present: Generation,
    before: Generation,
}

impl Tally {
    /// Counts a prediction whose label has come.
    pub fn count(&mut self, predicted: usize, confidence: f32, actual: usize) {
        if self.present.labels == GENERATION {
            self.before = std::mem::take(&mut self.present);
        }
        let Generation { labels, cells, bins } = &mut self.present;
        let right = predicted == actual;
        *labels += 1;
        cells.resize(SIDE * SIDE, [0; 2]);
        let cell = &mut cells[actual.min(CLASSES_MAX) * SIDE + predicted.min(CLASSES_MAX)];
        cell[0] += 1;
        cell[1] += u32::from(right);
        let bin = &mut bins[((confidence * BINS as f32) as usize).min(BINS - 1)];
        bin.count += 1;
        bin.right += u64::from(right);
        bin.confidence += f64::from(confidence);
    }

    /// What was counted of these classes.
    pub fn quality(&self, classes: &[String]) -> Quality {
        let generations = [&self.before, &self.present];
        let cell = |place: usize, part: usize| {
            let of_all = generations.iter().filter_map(|one| one.cells.get(place));
            of_all.map(|cell| u64::from(cell[part])).sum::<u64>()
        };
        let confusion = (0..SIDE * SIDE).filter_map(|place| {
            let (actual, predicted) = ((place / SIDE) as u32, (place % SIDE) as u32);
            let count = cell(place, 0);
            (count > 0).then(|| Confused { actual, predicted, right: cell(place, 1), count })
        });
        let mut bins = self.before.bins;
        for (sum, bin) in bins.iter_mut().zip(&self.present.bins) {
            sum.count += bin.count;
            sum.right += bin.right;
            sum.confidence += bin.confidence;
        }
        Quality {
            labels: self.before.labels + self.present.labels,
            classes: classes.iter().take(CLASSES_MAX).cloned().collect(),
            confusion: confusion.collect(),
            bins: bins.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    #[test]
    fn what_is_told_is_bounded_and_of_the_last_labels() {
        let mut tally = Tally::default();
        for number in 0..5 * GENERATION as usize {
            tally.count(number % 100, 0.5, 0);
        }
        let quality = tally.quality(&names(100));
        assert_eq!((quality.labels, quality.classes.len()), (2 * GENERATION, CLASSES_MAX));
        assert_eq!(
            quality.confusion.len(),
            SIDE,
            "one class was taken for each that is told apart, and for the others"
        );
        assert_eq!(quality.confusion.iter().map(|one| one.count).sum::<u64>(), quality.labels);
        assert_eq!(quality.bins.iter().map(|bin| bin.count).sum::<u64>(), quality.labels);
        for _ in 0..GENERATION + 1 {
            tally.count(1, 0.5, 1);
        }
        let forgotten = tally.quality(&names(2));
        assert_eq!(forgotten.labels, GENERATION + 1, "what is older gives way a generation at a time");
        assert_eq!(
            forgotten.confusion,
            [Confused { actual: 1, predicted: 1, right: GENERATION + 1, count: GENERATION + 1 }]
        );
    }

    #[test]
    fn further_classes_are_one_and_still_right_or_wrong() {
        let mut tally = Tally::default();
        tally.count(40, 1.0, 40);
        tally.count(40, 0.0, 50);
        let quality = tally.quality(&names(60));
        assert_eq!(quality.confusion, [Confused { actual: 32, predicted: 32, right: 1, count: 2 }]);
        let ends = [quality.bins[0], quality.bins[BINS - 1]];
        assert_eq!(ends.map(|bin| (bin.count, bin.right, bin.confidence)), [(1, 0, 0.0), (1, 1, 1.0)]);
    }
}
