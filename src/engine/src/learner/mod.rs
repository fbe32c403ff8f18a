//! The temporal ensemble: different learners on different stretches of the past, weighted by how well they predicted lately.
//!
//! The weights are a fixed-share Bayesian mixture (Herbster and Warmuth, "Tracking the Best Expert", Machine Learning 32,
//! 1998): a member that was bad for long is back within some dozen events. The last member is itself a mixture of the others.
//!
//! While next to nothing is predicted wrong, rows that are easy by what some trees have seen leave early, and neither ask nor teach
//! the rest (a cascade: Viola and Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features", CVPR 2001).

mod adwin;
mod alone;
mod forest;
mod gauss;
mod index;
mod linear;
mod memory;
mod regression;
mod scale;
mod signature;
mod simple;
mod stack;
mod tree;
mod trend;

use serde::{Deserialize, Serialize};

pub use self::adwin::Adwin;
pub use self::alone::{ForestAlone, LinearAlone};
use self::forest::Forest;
use self::linear::{Linear, Softmax};
pub use self::memory::{Memory, Neighbours};
pub use self::regression::{MEMBERS as REGRESSION_MEMBERS, Regression, RegressionOf4, reweigh as reweigh_estimates};
use self::scale::Scale;
use self::simple::{Bayes, Sequence};
use self::stack::Stack;
pub use self::tree::best;
use self::tree::{Favourites, Scratch};
use crate::math::{exp_all, ln_all};
use crate::random::Random;

/// Names of the members, in the order of their weights.
pub const MEMBERS: [&str; 7] = ["forest", "memory", "recent_memory", "linear", "bayes", "sequence", "stack"];
/// Chance that a drift is told where there is none.
pub const DRIFT: f64 = 0.001;
/// The members whose opinions the stack joins: all before it.
const STACKED: usize = MEMBERS.len() - 1;
/// Lessons between two looks at which features tell the classes apart.
const RELEVANCE_EVERY: u64 = 50;
/// How strongly one event moves the weights.
const RATE: f64 = 0.15;
/// Share of the weight that is dealt out anew with each event.
const SHARE: f64 = 0.002;
/// A member that was sure of something else is punished no more than for this share.
const FLOOR: f64 = 0.01;

/// The errors, as a share of the detector's window, up to which rows may leave early, and how many events the last one must be ago.
const CALM_ERRORS: f64 = 0.005;
const CALM_EVENTS: u64 = 30;
/// Of so many events one doesn't leave early in any case.
const WHOLE_EVERY: u64 = 20;

/// Factors on [`RATE`] and [`SHARE`], or on those of regression.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rate: f64,
    pub share: f64,
}

/// Moves the weights by whether each member was wrong and by the share that it gave to what was true.
pub fn reweigh(weights: &mut [f64; MEMBERS.len()], said: [(bool, f64); MEMBERS.len()], pace: Pace) {
    let (rate, dealt) = (RATE * pace.rate, SHARE * pace.share);
    let mut factors = said.map(|(_, share)| share.max(FLOOR));
    ln_all(&mut factors);
    for (factor, (wrong, _)) in factors.iter_mut().zip(said) {
        *factor = -rate * (f64::from(u8::from(wrong)) - 0.5 * *factor);
    }
    exp_all(&mut factors);
    let mut sum = 0.0;
    for (weight, factor) in weights.iter_mut().zip(factors) {
        *weight *= factor;
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
    stack: Stack,
    /// How much each slot counts in the memory's distances; 1 where nothing is known yet.
    relevance: Vec<f32>,
    weights: [f64; MEMBERS.len()],
    /// Watches whether the mixture errs more often than before.
    drift: Adwin,
    random: Random,
    learned: u64,
}

/// A classifier of version 1 of the snapshot: without a stack, relevance and a detector of its own.
#[derive(Deserialize)]
pub struct ClassifierOf1 {
    scale: Scale,
    forest: Forest,
    memory: Memory,
    linear: Softmax,
    bayes: Bayes,
    sequence: Sequence,
    weights: [f64; STACKED],
    random: Random,
    learned: u64,
}

impl From<ClassifierOf1> for Classifier {
    fn from(old: ClassifierOf1) -> Self {
        let ClassifierOf1 { scale, forest, mut memory, linear, bayes, sequence, weights, random, learned } = old;
        memory.fit();
        let equal = 1.0 / MEMBERS.len() as f64;
        let weights = std::array::from_fn(|member| weights.get(member).map_or(equal, |weight| weight * (1.0 - equal)));
        let (linear, stack, relevance, drift) = (linear.into(), Stack::default(), Vec::new(), Adwin::new(DRIFT));
        Self { scale, forest, memory, linear, bayes, sequence, stack, relevance, weights, drift, random, learned }
    }
}

/// A classifier of versions 2 and 3 of the snapshot, which knew nothing of series.
#[derive(Deserialize)]
pub struct ClassifierOf3 {
    scale: Scale,
    forest: Forest,
    memory: Memory,
    linear: Softmax,
    bayes: Bayes,
    sequence: Sequence,
    stack: Stack,
    relevance: Vec<f32>,
    weights: [f64; MEMBERS.len()],
    drift: Adwin,
    random: Random,
    learned: u64,
}

impl From<ClassifierOf3> for Classifier {
    fn from(old: ClassifierOf3) -> Self {
        let ClassifierOf3 {
            scale,
            forest,
            memory,
            linear,
            bayes,
            sequence,
            stack,
            relevance,
            weights,
            drift,
            random,
            learned,
        } = old;
        let linear = linear.into();
        Self { scale, forest, memory, linear, bayes, sequence, stack, relevance, weights, drift, random, learned }
    }
}

/// What every member thinks of a row; kept between the prediction and the lesson.
#[derive(Clone, Debug, Default)]
pub struct Opinion {
    /// Whether the row is one of before: others came since, so that nothing is said of it as the next of a series.
    pub is_late: bool,
    standard: Vec<f32>,
    /// Shares over classes, by member.
    pub members: [Vec<f64>; MEMBERS.len()],
    /// The mixture.
    pub shares: Vec<f64>,
    favourites: Vec<Favourites>,
    neighbours: Neighbours,
    linear: linear::Said,
    /// Logarithms of the shares that the stack joins, by member.
    logs: Vec<f64>,
    scratch: Scratch,
    /// Whether the row left early: only the mixture is known.
    left_early: bool,
    /// Whether the row didn't stay for being hard: what it says of the trees' errors is true of all.
    is_fair: bool,
}

impl Opinion {
    /// Whether the memory found anything like the row.
    pub fn found_neighbours(&self) -> bool {
        !self.neighbours.long.is_empty()
    }

    /// Whether the row was so easy that only the leading trees were asked: what the members think isn't known then.
    pub fn left_early(&self) -> bool {
        self.left_early
    }

    /// The mixture as it is told and remembered.
    pub fn told(&self) -> Vec<f32> {
        self.shares.iter().map(|share| *share as f32).collect()
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
            stack: Stack::default(),
            relevance: Vec::new(),
            weights: [1.0 / MEMBERS.len() as f64; MEMBERS.len()],
            drift: Adwin::new(DRIFT),
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

    /// Asks about a row of a domain that has so many classes: every member, unless it may leave early.
    pub fn consider(&self, row: &[f32], classes: usize, opinion: &mut Opinion) {
        let is_calm = self.drift.mean_at_most() <= CALM_ERRORS && self.drift.is_quiet(CALM_EVENTS);
        let may_leave = is_calm && !self.drift.ticks().is_multiple_of(WHOLE_EVERY);
        if may_leave && self.forest.is_sure(row, classes, &mut opinion.shares) {
            // The series goes on.
            self.scale.standard(row, &mut opinion.standard);
            opinion.left_early = true;
        } else {
            self.ask_all(row, classes, opinion);
            opinion.is_fair = !may_leave;
        }
    }

    /// Asks every member about a row of a domain that has so many classes.
    pub fn ask_all(&self, row: &[f32], classes: usize, opinion: &mut Opinion) {
        (opinion.left_early, opinion.is_fair) = (false, true);
        let Opinion { is_late, standard, members, shares, favourites, neighbours, linear: said, logs, scratch, .. } =
            opinion;
        self.scale.standard(row, standard);
        let [forest, long, short, linear, bayes, sequence, _] = &mut *members;
        self.forest.shares(row, classes, forest, favourites, scratch);
        self.memory.search(standard, &self.relevance, neighbours);
        memory::shares(&neighbours.long, classes, long);
        memory::shares(&neighbours.short, classes, short);
        self.linear.shares(standard, classes, *is_late, said, linear);
        self.bayes.shares(standard, classes, bayes);
        self.sequence.shares(classes, sequence);
        let (stacked, stack) = members.split_at_mut(STACKED);
        self.stack.shares(stacked, classes, logs, &mut stack[0]);
        shares.clear();
        shares.resize(classes, 0.0);
        for (weight, member) in self.weights.iter().zip(members.iter()) {
            for (share, vote) in shares.iter_mut().zip(member) {
                *share += weight * vote;
            }
        }
    }

    /// Follows the sequence of labels, whether or not the gate lets the event through; whether the ensemble as a whole
    /// has begun to err more often. About a row that left early and shouldn't have, every member is asked after all.
    pub fn see(&mut self, row: &[f32], class: usize, opinion: &mut Opinion, pace: Pace) -> bool {
        let before = self.drift.mean();
        let wrong = best(&opinion.shares) != Some(class);
        let drifted = self.drift.insert(f64::from(u8::from(wrong))) && self.drift.mean() > before;
        if drifted {
            // What was before is over: the same drift isn't told twice.
            self.drift = Adwin::new(DRIFT);
        }
        if opinion.left_early && !wrong {
            self.sequence.learn(class);
            return drifted;
        }
        if opinion.left_early {
            self.ask_all(row, opinion.shares.len(), opinion);
        }
        let said = |member: &Vec<f64>| (best(member) != Some(class), member.get(class).copied().unwrap_or(0.0));
        reweigh(&mut self.weights, opinion.members.each_ref().map(said), pace);
        self.stack.learn(class, &opinion.logs, &opinion.members[STACKED]);
        self.sequence.learn(class);
        drifted
    }

    /// Follows the series of rows, whether or not they have labels: takes in the one that was considered last.
    pub fn follow(&mut self, opinion: &Opinion) {
        self.linear.follow(&opinion.standard);
    }

    /// Learns the row that was considered last; of one that left early there is nothing more to learn.
    pub fn learn(&mut self, row: &[f32], class: usize, opinion: &mut Opinion) {
        if opinion.left_early {
            return;
        }
        self.learned += 1;
        self.scale.insert(row);
        self.forest.learn(row, class, opinion.is_fair, &opinion.favourites, &mut self.random, &mut opinion.scratch);
        self.linear.learn(&opinion.standard, class, &mut opinion.linear);
        self.bayes.learn(&opinion.standard, class);
        self.memory.insert(&opinion.standard, class as f32, &self.relevance);
        if self.learned.is_multiple_of(RELEVANCE_EVERY) {
            self.bayes.relevance(&mut self.relevance);
        }
    }

    pub fn bytes(&self) -> usize {
        self.forest.bytes() + self.memory.bytes() + self.linear.bytes() + self.bayes.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors among the 1,000 events after two classes have changed places, and how many rows left early before.
    fn errors_after_a_drift(seed: u64, always_asks_all: bool) -> (u32, u32) {
        let (mut classifier, mut opinion, mut random) =
            (Classifier::new(seed, 20_000), Opinion::default(), Random::new(seed));
        let (mut errors, mut early) = (0, 0);
        for number in 0..7_000 {
            let group = random.below(2);
            let row = [group as f32 * 0.6 + random.unit() as f32 * 0.4, random.unit() as f32];
            let drifted = number >= 6_000;
            let class = if drifted { 1 - group } else { group };
            if always_asks_all {
                classifier.ask_all(&row, 2, &mut opinion);
            } else {
                classifier.consider(&row, 2, &mut opinion);
            }
            early += u32::from(!drifted && opinion.left_early());
            errors += u32::from(drifted && best(&opinion.shares) != Some(class));
            classifier.see(&row, class, &mut opinion, Pace { rate: 1.0, share: 1.0 });
            classifier.learn(&row, class, &mut opinion);
        }
        (errors, early)
    }

    #[test]
    fn a_drift_is_followed_as_soon_as_by_one_that_always_asks_all() {
        let mut errors = [0; 2];
        for seed in 0..10 {
            let (of_early, early) = errors_after_a_drift(seed, false);
            let (of_all, none) = errors_after_a_drift(seed, true);
            assert!(early > 3_000 && none == 0, "{early}");
            errors = [errors[0] + of_early, errors[1] + of_all];
        }
        // As the weights moved less before, those of fast members are somewhat smaller.
        assert!(errors[0] <= 2 * errors[1], "{errors:?}");
    }

    #[test]
    fn a_classifier_of_version_1_goes_on_where_it_stood() {
        let (mut new, mut opinion) = (Classifier::new(1, 100), Opinion::default());
        for number in 0..300 {
            let row = [(number % 7) as f32, 1.0];
            new.consider(&row, 2, &mut opinion);
            new.learn(&row, usize::from(number % 7 > 3), &mut opinion);
        }
        let weights = [1.0 / STACKED as f64; STACKED];
        let Classifier { scale, forest, memory, linear, bayes, sequence, random, learned, .. } = &new;
        // A tuple is stored as a struct with the same fields.
        let old = (scale, forest, memory, &linear.levels, bayes, sequence, weights, random, learned);
        let old: ClassifierOf1 = postcard::from_bytes(&postcard::to_stdvec(&old).unwrap()).unwrap();
        let read = Classifier::from(old);
        assert_eq!((&read.forest, read.experiences(), read.learned), (&new.forest, 100, 300));
        assert!((read.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        read.consider(&[6.0, 1.0], 2, &mut opinion);
        assert_eq!(best(&opinion.shares), Some(1));
    }
}
