//! The quality of a classifier over its partitions: one matrix of confusion and one diagram of reliability. Pure.

use std::collections::BTreeMap;

use hebb_engine::{CalibrationBin, Quality as OfPartition};
use serde::Serialize;

/// Classes that are told apart: those with the most labels. The others count as one.
const CLASSES_MAX: usize = 32;

/// Confusion and calibration of a domain, over the last labels of each partition since its owner took over.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Predictions that are counted.
    pub labels: u64,
    /// Share of them that was right; nothing without any.
    pub accuracy: Option<f64>,
    /// Names of the rows and columns but the last, which is that of all other classes together.
    pub classes: Vec<String>,
    /// Counts by true class, and in each row by predicted class; side by side one more than `classes`.
    pub confusion: Vec<Vec<u64>>,
    /// How many of the other classes' predictions were right.
    pub others_right: u64,
    /// Equal parts of the confidence from 0 to 1.
    pub bins: Vec<Bin>,
    /// Expected calibration error: mean distance of confidence and accuracy over the bins, weighted by their counts (Naeini,
    /// Cooper and Hauskrecht, AAAI 2015).
    pub calibration_error: Option<f64>,
}

/// The predictions of one part of the confidence.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bin {
    /// How many.
    pub count: u64,
    /// Share of them that was right; nothing without any.
    pub accuracy: Option<f64>,
    /// Their mean confidence.
    pub confidence: Option<f64>,
}

/// One quality out of those of the partitions, whose classes may have other numbers.
pub fn merge(partitions: &[OfPartition]) -> Quality {
    let mut labels_of: BTreeMap<&str, u64> = BTreeMap::new();
    for partition in partitions {
        for class in &partition.classes {
            labels_of.entry(class).or_default();
        }
        for one in &partition.confusion {
            if let Some(class) = partition.classes.get(one.actual as usize) {
                *labels_of.entry(class).or_default() += one.count;
            }
        }
    }
    let mut known: Vec<(&str, u64)> = labels_of.into_iter().collect();
    known.sort_by_key(|(class, labels)| (std::cmp::Reverse(*labels), *class));
    known.truncate(CLASSES_MAX);
    // In the order of their names a class keeps its place while counts change.
    known.sort();
    let place_of: BTreeMap<&str, usize> = known.iter().enumerate().map(|(place, (class, _))| (*class, place)).collect();
    let others = known.len();
    let mut confusion = vec![vec![0; others + 1]; others + 1];
    let (mut labels, mut right, mut others_right) = (0, 0, 0);
    let mut bins: Vec<CalibrationBin> = Vec::new();
    for partition in partitions {
        let place = |class: u32| {
            let name = partition.classes.get(class as usize);
            name.and_then(|name| place_of.get(name.as_str())).copied().unwrap_or(others)
        };
        for one in &partition.confusion {
            let (actual, predicted) = (place(one.actual), place(one.predicted));
            confusion[actual][predicted] += one.count;
            labels += one.count;
            right += one.right;
            others_right += if actual == others { one.right } else { 0 };
        }
        bins.resize(bins.len().max(partition.bins.len()), CalibrationBin::default());
        for (sum, bin) in bins.iter_mut().zip(&partition.bins) {
            sum.count += bin.count;
            sum.right += bin.right;
            sum.confidence += bin.confidence;
        }
    }
    let share = |part: f64, of: u64| (of > 0).then(|| part / of as f64);
    let gaps: f64 = bins.iter().map(|bin| (bin.right as f64 - bin.confidence).abs()).sum();
    Quality {
        labels,
        accuracy: share(right as f64, labels),
        classes: known.into_iter().map(|(class, _)| class.to_owned()).collect(),
        confusion,
        others_right,
        calibration_error: share(gaps, labels),
        bins: bins
            .into_iter()
            .map(|bin| Bin {
                count: bin.count,
                accuracy: share(bin.right as f64, bin.count),
                confidence: share(bin.confidence, bin.count),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use hebb_engine::Confused;

    use super::*;

    fn confused(actual: u32, predicted: u32, right: u64, count: u64) -> Confused {
        Confused { actual, predicted, right, count }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn classes_meet_by_name_and_errors_of_calibration_are_weighted() {
        let bin = |count, right, confidence| CalibrationBin { count, right, confidence };
        let one = OfPartition {
            labels: 4,
            classes: names(&["b", "a"]),
            confusion: vec![confused(0, 0, 3, 3), confused(1, 0, 0, 1)],
            bins: vec![bin(0, 0, 0.0), bin(4, 3, 3.6)],
        };
        let other = OfPartition {
            labels: 2,
            classes: names(&["a", "b"]),
            confusion: vec![confused(0, 0, 2, 2)],
            bins: vec![bin(2, 2, 0.8), bin(0, 0, 0.0)],
        };
        let quality = merge(&[one, other]);
        assert_eq!(quality.classes, ["a", "b"]);
        assert_eq!(quality.confusion, [[2, 1, 0], [0, 3, 0], [0, 0, 0]]);
        assert_eq!((quality.labels, quality.accuracy), (6, Some(5.0 / 6.0)));
        assert!(quality.calibration_error.is_some_and(|error| (error - (1.2 + 0.6) / 6.0).abs() < 1e-9));
        assert_eq!(quality.bins[0].accuracy, Some(1.0));
    }

    #[test]
    fn the_least_frequent_classes_are_the_others() {
        let classes: Vec<String> = (0..32).map(|class| format!("first {class:02}")).collect();
        let confusion = (0..32).map(|class| confused(class, class, 2, 2)).chain([confused(32, 32, 1, 3)]).collect();
        let one = OfPartition { labels: 67, classes, confusion, bins: Vec::new() };
        let two = OfPartition {
            labels: 9,
            classes: names(&["frequent"]),
            confusion: vec![confused(0, 0, 9, 9)],
            bins: Vec::new(),
        };
        let quality = merge(&[one, two]);
        assert_eq!(quality.classes.len(), CLASSES_MAX);
        assert!(quality.classes.contains(&"frequent".to_owned()));
        assert_eq!(
            (quality.confusion[32][32], quality.others_right),
            (5, 3),
            "one known class became one of the others"
        );
        assert_eq!(quality.labels, 76);
        assert_eq!(merge(&[]), Quality { confusion: vec![vec![0]], ..Quality::default() });
    }
}
