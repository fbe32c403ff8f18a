//! Members of the ensemble by themselves, to be measured.

use super::forest::Forest;
use super::linear::Softmax;
use super::scale::Scale;
use super::tree::{Favourites, Scratch, best};
use crate::random::Random;

/// The forest without the other members.
#[derive(Clone, Debug)]
pub struct ForestAlone {
    forest: Forest,
    random: Random,
    shares: Vec<f64>,
    favourites: Vec<Favourites>,
    scratch: Scratch,
}

impl ForestAlone {
    /// A forest that has seen nothing.
    pub fn new(seed: u64) -> Self {
        Self {
            forest: Forest::new(),
            random: Random::new(seed),
            shares: Vec::new(),
            favourites: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The class, of so many, that a row is predicted to be of.
    pub fn predict(&mut self, row: &[f32], classes: usize) -> Option<usize> {
        self.forest.shares(row, classes, &mut self.shares, &mut self.favourites, &mut self.scratch);
        best(&self.shares)
    }

    /// Learns the class of the row that was predicted last.
    pub fn learn(&mut self, row: &[f32], class: usize) {
        self.forest.learn(row, class, true, &self.favourites, &mut self.random, &mut self.scratch);
    }
}

/// The linear member without the others, as it is where rows are no series.
#[derive(Clone, Debug, Default)]
pub struct LinearAlone {
    scale: Scale,
    linear: Softmax,
    standard: Vec<f32>,
    shares: Vec<f64>,
}

impl LinearAlone {
    /// The class, of so many, that a row is predicted to be of.
    pub fn predict(&mut self, row: &[f32], classes: usize) -> Option<usize> {
        self.scale.standard(row, &mut self.standard);
        self.linear.shares(&self.standard, classes, &mut self.shares);
        best(&self.shares)
    }

    /// Learns the class of the row that was predicted last.
    pub fn learn(&mut self, row: &[f32], class: usize) {
        self.scale.insert(row);
        self.linear.learn(&self.standard, class, &self.shares);
    }
}
