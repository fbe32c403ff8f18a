//! The two simplest members: naive Bayes, and what usually follows the last label.

use serde::{Deserialize, Serialize};

use super::gauss::{Gauss, LogDensity};
use crate::math::{exp, ln};

/// Share that the past keeps with each event: naive Bayes looks back some thousands of events.
const KEEP: f32 = 0.9995;
/// The same for the sequence of labels.
const KEEP_SEQUENCE: f32 = 0.998;

/// What a slot counts whose mean is the same in every class: it may still matter beside others.
const RELEVANCE_MIN: f32 = 0.1;

/// Gaussian naive Bayes whose past fades.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bayes {
    counts: Vec<f32>,
    /// By class and slot.
    slots: Vec<Vec<Gauss>>,
}

impl Bayes {
    /// Shares over classes, from a standardised row.
    pub fn shares(&self, standard: &[f32], classes: usize, shares: &mut Vec<f64>) {
        const FLOOR: f64 = 1e-3;
        shares.clear();
        shares.extend((0..classes).map(|class| {
            let count = self.counts.get(class).copied().unwrap_or(0.0);
            let known = self.slots.get(class).map(Vec::as_slice).unwrap_or_default();
            let mut density = LogDensity::new();
            for (gauss, value) in known.iter().zip(standard) {
                density.insert(gauss, *value, FLOOR);
            }
            ln(f64::from(count) + 0.01) + if known.is_empty() { -20.0 } else { density.sum(ln(density.variances())) }
        }));
        let top = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // Many features that aren't independent make it too sure of itself.
        for share in shares.iter_mut() {
            *share = exp(*share - top).max(1e-4);
        }
        let sum: f64 = shares.iter().sum();
        for share in shares.iter_mut() {
            *share /= sum;
        }
    }

    /// Learns a standardised row.
    pub fn learn(&mut self, standard: &[f32], class: usize) {
        if self.counts.len() <= class {
            self.counts.resize(class + 1, 0.0);
            self.slots.resize(class + 1, Vec::new());
        }
        for count in &mut self.counts {
            *count *= KEEP;
        }
        self.counts[class] += 1.0;
        let slots = &mut self.slots[class];
        slots.resize(slots.len().max(standard.len()), Gauss::default());
        for (gauss, value) in slots.iter_mut().zip(standard) {
            gauss.fade(KEEP);
            gauss.insert(*value, 1.0);
        }
    }

    /// How much each slot tells the classes apart by itself: the share of its variance that lies between the classes (the
    /// correlation ratio, Pearson, 1905) and a least one.
    pub fn relevance(&self, relevance: &mut Vec<f32>) {
        let width = self.slots.iter().map(Vec::len).max().unwrap_or(0);
        let total: f32 = self.counts.iter().sum();
        relevance.clear();
        relevance.extend((0..width).map(|slot| {
            let known = self.slots.iter().zip(&self.counts);
            let known = known.filter_map(|(slots, count)| slots.get(slot).map(|gauss| (gauss, count / total)));
            let mean: f32 = known.clone().map(|(gauss, share)| share * gauss.mean()).sum();
            let within: f32 = known.clone().map(|(gauss, share)| share * gauss.variance()).sum();
            let between: f32 = known.map(|(gauss, share)| share * (gauss.mean() - mean) * (gauss.mean() - mean)).sum();
            RELEVANCE_MIN + between / (between + within + 1e-6)
        }));
    }

    pub fn bytes(&self) -> usize {
        self.slots.iter().map(|slots| slots.len() * size_of::<Gauss>()).sum()
    }
}

/// What followed each label lately.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    last: Option<usize>,
    follows: Vec<Vec<f32>>,
}

impl Sequence {
    /// Shares over classes.
    pub fn shares(&self, classes: usize, shares: &mut Vec<f64>) {
        shares.clear();
        let counts = self.last.and_then(|last| self.follows.get(last)).map(Vec::as_slice).unwrap_or_default();
        shares.extend((0..classes).map(|class| f64::from(counts.get(class).copied().unwrap_or(0.0)) + 0.1));
        // Before it has seen what follows, the same again.
        if let Some(share) = self.last.and_then(|last| shares.get_mut(last)) {
            *share += 1.0;
        }
        let sum: f64 = shares.iter().sum();
        for share in shares.iter_mut() {
            *share /= sum;
        }
    }

    /// Learns the next label.
    pub fn learn(&mut self, class: usize) {
        if let Some(last) = self.last {
            if self.follows.len() <= last {
                self.follows.resize(last + 1, Vec::new());
            }
            let counts = &mut self.follows[last];
            if counts.len() <= class {
                counts.resize(class + 1, 0.0);
            }
            for count in counts.iter_mut() {
                *count *= KEEP_SEQUENCE;
            }
            counts[class] += 1.0;
        }
        self.last = Some(class);
    }
}
