//! The temporal ensemble: different learners on different stretches of the past, weighted by how well they predicted lately.
//!
//! The weights are a fixed-share Bayesian mixture (Herbster and Warmuth, "Tracking the Best Expert", Machine Learning 32,
//! 1998): a member that was bad for long is back within some dozen events.

mod adwin;
mod forest;
mod gauss;
mod linear;
mod memory;
mod regression;
mod scale;
mod simple;
mod tree;

use serde::{Deserialize, Serialize};

use self::forest::Forest;
use self::linear::Linear;
use self::memory::{Memory, Neighbours};
pub use self::regression::{MEMBERS as REGRESSION_MEMBERS, Regression, reweigh as reweigh_estimates};
use self::scale::Scale;
use self::simple::{Bayes, Sequence};
pub use self::tree::best;
use crate::math::{exp, ln};
use crate::random::Random;

/// Names of the members, in the order of their weights.
pub const MEMBERS: [&str; 6] = ["forest", "memory", "recent_memory", "linear", "bayes", "sequence"];
/// How strongly one event moves the weights.
const RATE: f64 = 0.15;
/// Share of the weight that is dealt out anew with each event.
const SHARE: f64 = 0.002;
/// A member that was sure of something else is punished no more than for this share.
const FLOOR: f64 = 0.01;

/// Factors on [`RATE`] and [`SHARE`], or on those of regression.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rate: f64,
    pub share: f64,
}

/// Moves the weights by whether each member was wrong and by the share that it gave to what was true.
pub fn reweigh(weights: &mut [f64; MEMBERS.len()], said: [(bool, f64); MEMBERS.len()], pace: Pace) {
    let (rate, dealt) = (RATE * pace.rate, SHARE * pace.share);
    let mut sum = 0.0;
    for (weight, (wrong, share)) in weights.iter_mut().zip(said) {
        *weight *= exp(-rate * (f64::from(u8::from(wrong)) - 0.5 * ln(share.max(FLOOR))));
        sum += *weight;
    }
    for weight in weights {
        *weight = *weight / sum * (1.0 - dealt) + dealt / MEMBERS.len() as f64;
    }
}

/// Classification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classifier {
    scale: Scale,
    forest: Forest,
    memory: Memory,
    linear: Linear,
    bayes: Bayes,
    sequence: Sequence,
    weights: [f64; MEMBERS.len()],
    random: Random,
    learned: u64,
}

/// What every member thinks of a row; kept between the prediction and the lesson.
#[derive(Clone, Debug, Default)]
pub struct Opinion {
    standard: Vec<f32>,
    /// Shares over classes, by member.
    pub members: [Vec<f64>; MEMBERS.len()],
    /// The mixture.
    pub shares: Vec<f64>,
    favourites: Vec<Option<usize>>,
    neighbours: Neighbours,
    scratch: Vec<f64>,
}

impl Opinion {
    /// Whether the memory found anything like the row.
    pub fn found_neighbours(&self) -> bool {
        !self.neighbours.long.is_empty()
    }
}

impl Classifier {
    pub fn new(seed: u64, memory_max: u32) -> Self {
        Self {
            scale: Scale::default(),
            forest: Forest::new(),
            memory: Memory::new(memory_max),
            linear: Linear::default(),
            bayes: Bayes::default(),
            sequence: Sequence::default(),
            weights: [1.0 / MEMBERS.len() as f64; MEMBERS.len()],
            random: Random::new(seed),
            learned: 0,
        }
    }

    /// The present weights of the members, which sum to 1.
    pub fn weights(&self) -> &[f64; MEMBERS.len()] {
        &self.weights
    }

    /// Experiences in memory.
    pub fn experiences(&self) -> usize {
        self.memory.len()
    }

    /// Takes up another bound of the memory.
    pub fn limit(&mut self, memory_max: u32) {
        self.memory.limit(memory_max);
    }

    /// Asks every member about a row of a domain that has so many classes.
    pub fn consider(&self, row: &[f32], classes: usize, opinion: &mut Opinion) {
        let Opinion { standard, members, shares, favourites, neighbours, scratch } = opinion;
        self.scale.standard(row, standard);
        let [forest, long, short, linear, bayes, sequence] = members;
        self.forest.shares(row, classes, forest, favourites, scratch);
        self.memory.search(standard, neighbours);
        memory::shares(&neighbours.long, classes, long);
        memory::shares(&neighbours.short, classes, short);
        self.linear.shares(standard, classes, linear);
        self.bayes.shares(standard, classes, bayes);
        self.sequence.shares(classes, sequence);
        shares.clear();
        shares.resize(classes, 0.0);
        for (weight, member) in self.weights.iter().zip(members.iter()) {
            for (share, vote) in shares.iter_mut().zip(member) {
                *share += weight * vote;
            }
        }
    }

    /// Follows the sequence of labels, whether or not the gate lets the event through.
    pub fn see(&mut self, class: usize, opinion: &Opinion, pace: Pace) {
        let said = |member: &Vec<f64>| (best(member) != Some(class), member.get(class).copied().unwrap_or(0.0));
        reweigh(&mut self.weights, opinion.members.each_ref().map(said), pace);
        self.sequence.learn(class);
    }

    /// Learns a row; the number of drifts that were noticed.
    pub fn learn(&mut self, row: &[f32], class: usize, opinion: &mut Opinion) -> usize {
        self.learned += 1;
        self.scale.insert(row);
        let drifts = self.forest.learn(row, class, &opinion.favourites, &mut self.random, &mut opinion.scratch);
        self.linear.learn(&opinion.standard, class, &opinion.members[3]);
        self.bayes.learn(&opinion.standard, class);
        self.memory.insert(&opinion.standard, class as f32);
        drifts
    }

    pub fn bytes(&self) -> usize {
        self.forest.bytes() + self.memory.bytes() + self.linear.bytes() + self.bayes.bytes()
    }
}
