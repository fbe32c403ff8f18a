//! Regression: a linear model, the nearest experiences and the last target, weighted by their recent error.

use serde::{Deserialize, Serialize};

use super::Pace;
use super::linear::LeastSquares;
use super::memory::{self, Memory, Neighbours};
use super::scale::Scale;
use crate::math::exp;
use crate::origin::Origin;

/// Names of the members, in the order of their weights.
pub const MEMBERS: [&str; 3] = ["linear", "memory", "last"];
/// How strongly one event moves the weights.
const RATE: f64 = 0.5;
/// An error counts as so many usual ones at most.
const FAR: f64 = 10.0;
/// An error that is a smaller share of the targets' deviation is as good as none: after a time in which nothing changed, the
/// usual error is nothing, and every other one is far beyond it.
const LEAST: f64 = 0.01;
/// Share of the weight that is dealt out anew with each event.
const SHARE: f64 = 0.005;

/// Moves the weights by each member's error, in units of the usual one.
pub fn reweigh(weights: &mut [f64; MEMBERS.len()], errors: [f64; MEMBERS.len()], unit: f64, pace: Pace) {
    let (rate, dealt) = (RATE * pace.rate, SHARE * pace.share);
    let unit = unit.max(f64::MIN_POSITIVE);
    let mut sum = 0.0;
    for (weight, error) in weights.iter_mut().zip(errors) {
        *weight *= exp(-rate * (error / unit).min(FAR) / FAR);
        sum += *weight;
    }
    for weight in weights {
        *weight = *weight / sum * (1.0 - dealt) + dealt / MEMBERS.len() as f64;
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    scale: Scale,
    /// Of the targets: what `linear` and `memory` learn is counted from it.
    origin: Origin,
    linear: LeastSquares,
    memory: Memory,
    last: f64,
    /// Fading mean of the best member's absolute error: the unit of surprise.
    unit: f64,
    weights: [f64; MEMBERS.len()],
}

/// A regression of versions 1 to 4 of the snapshot, whose targets were counted from 0. What is known of those is in these units,
/// so they stay.
#[derive(Deserialize)]
pub struct RegressionOf4 {
    scale: Scale,
    linear: LeastSquares,
    memory: Memory,
    last: f64,
    unit: f64,
    weights: [f64; MEMBERS.len()],
}

impl From<RegressionOf4> for Regression {
    fn from(old: RegressionOf4) -> Self {
        let RegressionOf4 { scale, linear, memory, last, unit, weights } = old;
        Self { scale, origin: Origin::Zero, linear, memory, last, unit, weights }
    }
}

impl Regression {
    pub fn new(memory_max: u32) -> Self {
        Self {
            scale: Scale::default(),
            origin: Origin::default(),
            linear: LeastSquares::default(),
            memory: Memory::new(memory_max),
            last: 0.0,
            unit: 0.0,
            weights: [1.0 / MEMBERS.len() as f64; MEMBERS.len()],
        }
    }

    /// The present weights, which sum to 1.
    pub fn weights(&self) -> &[f64; MEMBERS.len()] {
        &self.weights
    }

    /// The usual error of the best member.
    pub fn unit(&self) -> f64 {
        self.unit
    }

    /// Experiences in memory.
    pub fn experiences(&self) -> usize {
        self.memory.len()
    }

    /// Takes up another bound of the memory.
    pub fn limit(&mut self, memory_max: u32) {
        self.memory.limit(memory_max);
    }

    /// What every member expects, and whether the memory found anything like the row.
    pub fn consider(&self, row: &[f32]) -> ([f64; MEMBERS.len()], bool) {
        let (mut standard, mut found) = (Vec::new(), Neighbours::default());
        self.scale.standard(row, &mut standard);
        self.memory.search(&standard, &[], &mut found);
        let near = memory::mean(&found.long).map(|near| self.origin.absolute(near));
        let linear = self.origin.absolute(self.linear.predict(&standard));
        ([linear, near.unwrap_or(self.last), self.last], near.is_some())
    }

    /// The mixture of what the members expect.
    pub fn mix(&self, members: &[f64; MEMBERS.len()]) -> f64 {
        self.weights.iter().zip(members).map(|(weight, member)| weight * member).sum()
    }

    /// 0 where the members are as far apart as they err, towards 1 where they agree.
    pub fn confidence(&self, members: &[f64; MEMBERS.len()]) -> f64 {
        let mixed = self.mix(members);
        let apart: f64 = self.weights.iter().zip(members).map(|(weight, member)| weight * (member - mixed).abs()).sum();
        if self.unit > 0.0 { 1.0 / (1.0 + apart / self.unit) } else { 0.0 }
    }

    /// Moves the weights, whether or not the gate lets the event through.
    pub fn see(&mut self, target: f64, members: &[f64; MEMBERS.len()], pace: Pace) {
        // Where a target decides the origin, what the members expected was counted from another one: that it is so far off says
        // nothing of how they err.
        let expected = members.map(|member| self.origin.relative(member));
        self.origin.learn(target);
        let target = self.origin.relative(target);
        let errors = expected.map(|expected| (expected - target).abs());
        let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
        // One target that is wrong must not make every other error look small.
        let known = self.unit.max(LEAST * self.linear.deviation());
        self.unit = if known > 0.0 { self.unit * 0.99 + least.min(FAR * known) * 0.01 } else { least };
        reweigh(&mut self.weights, errors, self.unit, pace);
        self.last = self.origin.absolute(self.linear.plausible(target));
    }

    /// Learns a row, whose target was seen last.
    pub fn learn(&mut self, row: &[f32], target: f64) {
        let mut standard = Vec::new();
        self.scale.standard(row, &mut standard);
        self.scale.insert(row);
        let target = self.origin.relative(target);
        self.linear.learn(&standard, target);
        self.memory.insert(&standard, self.linear.plausible(target) as f32, &[]);
    }

    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}
