//! What a partition has lived through lately, as far as a shadow learner needs it, and its replay.
//!
//! The members of an ensemble learn the same whatever their weights are, so what they said is recorded, and a shadow is an
//! ensemble with other parameters over it: exact, and a thousand times cheaper than learning anew. Patterns are replayed whole.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Tuning;
use crate::answer::PatternMatch;
use crate::config::{Hyperparameters, Task};
use crate::learner::{self, MEMBERS, Pace, REGRESSION_MEMBERS};
use crate::pattern::Patterns;
use crate::random::Random;

/// Labelled events that are kept; a replay of them takes about half a millisecond.
const LABELS: usize = 600;
/// Classes of an event beside the true one: those that a member thought of first.
const RIVALS: usize = 7;
/// Signals that are kept, and samples of each.
const SIGNALS: usize = 32;
const SAMPLES: usize = 256;
/// Patterns of a shadow, so that the noisiest signals are replayed within some ten milliseconds.
const SHADOW_PATTERNS: u32 = 200;
/// The oldest signals that are asked of the present library, whose size isn't bounded so closely.
const ASKED: usize = 4;
/// Below these nothing is said.
const LABELS_MIN: usize = 100;
const SIGNALS_MIN: usize = 16;

/// What the members said of a labelled event: the shares of the true class first, then of its rivals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    pub score: f32,
    /// Empty where the members weren't asked, as the event was easy.
    pub shares: Vec<[f32; MEMBERS.len()]>,
}

impl Vote {
    /// From the shares over all classes, by member, and of the mixture.
    pub fn new(right: bool, actual: usize, members: &[Vec<f64>; MEMBERS.len()], mixture: &[f64]) -> Self {
        let (mut classes, mut count) = ([actual; RIVALS + 1], 1);
        for shares in std::iter::once(mixture).chain(members.iter().map(Vec::as_slice)) {
            match learner::best(shares) {
                Some(class) if count < classes.len() && !classes[..count].contains(&class) => {
                    classes[count] = class;
                    count += 1;
                }
                _ => {}
            }
        }
        let of = |class: &usize| std::array::from_fn(|member| share(&members[member], *class));
        Self { score: f32::from(u8::from(right)), shares: classes[..count].iter().map(of).collect() }
    }

    /// Of an event about which the members weren't asked: whatever the weights are, it is predicted the same.
    pub fn unasked(right: bool) -> Self {
        Self { score: f32::from(u8::from(right)), shares: Vec::new() }
    }

    /// Whether the weights make the true class the first; then the weights learn from it.
    fn step(&self, weights: &mut [f64; MEMBERS.len()], pace: Option<Pace>) -> f64 {
        if self.shares.is_empty() {
            return f64::from(self.score);
        }
        let mixed = |shares: &[f32; MEMBERS.len()]| -> f64 {
            weights.iter().zip(shares).map(|(weight, share)| weight * f64::from(*share)).sum()
        };
        let mut all = self.shares.iter().map(mixed);
        let actual = all.next().unwrap_or(0.0);
        let right = all.all(|rival| rival < actual);
        if let Some(pace) = pace {
            let said: [(bool, f64); MEMBERS.len()] = std::array::from_fn(|member| {
                let mut shares = self.shares.iter().map(|shares| shares[member]);
                let actual = shares.next().unwrap_or(0.0);
                (shares.any(|rival| rival >= actual), f64::from(actual))
            });
            learner::reweigh(weights, said, pace);
        }
        f64::from(u8::from(right))
    }
}

fn share(shares: &[f64], class: usize) -> f32 {
    shares.get(class).copied().unwrap_or(0.0) as f32
}

/// What the members expected of a labelled event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    score: f32,
    members: [f64; REGRESSION_MEMBERS.len()],
    target: f64,
    unit: f64,
}

impl Estimate {
    /// `unit` is the usual error of the best member.
    pub fn new(predicted: Option<f64>, members: [f64; REGRESSION_MEMBERS.len()], target: f64, unit: f64) -> Self {
        let score = predicted.map_or(0.0, |number| closeness(number, target, unit)) as f32;
        Self { score, members, target, unit }
    }

    fn step(&self, weights: &mut [f64; REGRESSION_MEMBERS.len()], pace: Option<Pace>) -> f64 {
        let mixed = weights.iter().zip(&self.members).map(|(weight, member)| weight * member).sum();
        if let Some(pace) = pace {
            learner::reweigh_estimates(
                weights,
                self.members.map(|member| (member - self.target).abs()),
                self.unit,
                pace,
            );
        }
        closeness(mixed, self.target, self.unit)
    }
}

/// 1 for no error, ½ for the usual one.
fn closeness(number: f64, target: f64, unit: f64) -> f64 {
    let error = (number - target).abs();
    if error <= 0.0 {
        return 1.0;
    }
    let score = unit / (unit + error);
    if score.is_finite() { score } else { 0.0 }
}

/// The beginning of a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    score: f32,
    samples: Vec<f32>,
}

impl Signal {
    pub fn new(samples: &[f32], found: &[PatternMatch]) -> Self {
        let score = covered(found, samples.len()) as f32;
        Self { score, samples: samples[..samples.len().min(SAMPLES)].to_vec() }
    }
}

/// The share of a signal that patterns of samples cover which were known before, by likeness.
fn covered(found: &[PatternMatch], samples: usize) -> f64 {
    let known = found.iter().filter(|found| found.level == 0 && !found.new);
    let sum: f64 = known.map(|found| f64::from(found.length) * f64::from(found.similarity)).sum();
    (sum / samples.max(1) as f64).clamp(0.0, 1.0)
}

/// The newest experiences, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Experience {
    Votes(VecDeque<Vote>),
    Estimates(VecDeque<Estimate>),
    Signals(VecDeque<Signal>),
}

/// What the partition knows now.
pub enum Present<'a> {
    Votes(&'a [f64; MEMBERS.len()]),
    Estimates(&'a [f64; REGRESSION_MEMBERS.len()]),
    Signals(&'a Patterns),
    Nothing,
}

impl Experience {
    pub fn new(task: Task) -> Self {
        match task {
            Task::Classification => Self::Votes(VecDeque::new()),
            Task::Regression => Self::Estimates(VecDeque::new()),
            // Of governed memories and of whole signals nothing is recorded: they have nothing to tune.
            Task::Patterns | Task::Governed | Task::TimeSeriesClassification => Self::Signals(VecDeque::new()),
        }
    }

    pub fn vote(&mut self, vote: Vote) {
        if let Self::Votes(votes) = self {
            push(votes, vote, LABELS);
        }
    }

    pub fn estimate(&mut self, estimate: Estimate) {
        if let Self::Estimates(estimates) = self {
            push(estimates, estimate, LABELS);
        }
    }

    pub fn signal(&mut self, signal: Signal) {
        if let Self::Signals(signals) = self {
            push(signals, signal, SIGNALS);
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Votes(votes) => votes.len(),
            Self::Estimates(estimates) => estimates.len(),
            Self::Signals(signals) => signals.len(),
        }
    }

    /// Whether there is enough of it.
    pub fn says_something(&self) -> bool {
        self.len() >= if matches!(self, Self::Signals(_)) { SIGNALS_MIN } else { LABELS_MIN }
    }

    /// What was scored when each was new.
    pub fn scores(&self) -> Vec<f64> {
        match self {
            Self::Votes(votes) => votes.iter().map(|vote| f64::from(vote.score)).collect(),
            Self::Estimates(estimates) => estimates.iter().map(|estimate| f64::from(estimate.score)).collect(),
            Self::Signals(signals) => signals.iter().map(|signal| f64::from(signal.score)).collect(),
        }
    }

    /// The scores of a shadow that knows nothing at `from` and learns from there on, each before it learns.
    pub fn replay(&self, tuning: &Tuning, parameters: &Hyperparameters, from: usize) -> Vec<f64> {
        match self {
            Self::Votes(votes) => {
                let mut weights = [1.0 / MEMBERS.len() as f64; MEMBERS.len()];
                votes.iter().skip(from).map(|vote| vote.step(&mut weights, Some(tuning.pace()))).collect()
            }
            Self::Estimates(estimates) => {
                let mut weights = [1.0 / REGRESSION_MEMBERS.len() as f64; REGRESSION_MEMBERS.len()];
                estimates.iter().skip(from).map(|estimate| estimate.step(&mut weights, Some(tuning.pace()))).collect()
            }
            Self::Signals(signals) => {
                let tuned = tuning.tuned(parameters);
                let max_local_patterns = tuned.max_local_patterns.min(SHADOW_PATTERNS);
                let tuned = Hyperparameters { max_local_patterns, ..tuned };
                let (mut library, mut random) = (Patterns::default(), Random::new(1));
                let mut step = |signal: &Signal| {
                    let found = library.perceive(&signal.samples, &tuned, &mut random, true);
                    covered(&found, signal.samples.len())
                };
                signals.iter().skip(from).map(&mut step).collect()
            }
        }
    }

    /// Mean scores on the oldest quarter: of the present state, which doesn't learn, and those of then.
    pub fn retention(&self, parameters: &Hyperparameters, present: &Present<'_>) -> (f64, f64) {
        let quarter = self.len() / 4;
        let asked = if matches!(self, Self::Signals(_)) { quarter.min(ASKED) } else { quarter };
        let now: Vec<f64> = match (self, present) {
            (Self::Votes(votes), Present::Votes(weights)) => {
                votes.iter().take(asked).map(|vote| vote.step(&mut (*weights).clone(), None)).collect()
            }
            (Self::Estimates(estimates), Present::Estimates(weights)) => {
                estimates.iter().take(asked).map(|estimate| estimate.step(&mut (*weights).clone(), None)).collect()
            }
            (Self::Signals(signals), Present::Signals(library)) => {
                let (mut library, mut random) = ((*library).clone(), Random::new(1));
                let mut ask = |signal: &Signal| {
                    let found = library.perceive(&signal.samples, parameters, &mut random, false);
                    covered(&found, signal.samples.len())
                };
                signals.iter().take(asked).map(&mut ask).collect()
            }
            _ => Vec::new(),
        };
        (super::mean(&now), super::mean(&self.scores()[..asked]))
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Votes(votes) => votes.iter().map(|vote| vote.shares.len() * MEMBERS.len() * 4 + 32).sum(),
            Self::Estimates(estimates) => estimates.len() * size_of::<Estimate>(),
            Self::Signals(signals) => signals.iter().map(|signal| signal.samples.len() * 4 + 32).sum(),
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, max: usize) {
    if ring.len() == max {
        ring.pop_front();
    }
    ring.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_members_were_not_asked_about_scores_as_it_did_and_moves_no_weight() {
        let mut weights = [1.0 / MEMBERS.len() as f64; MEMBERS.len()];
        weights[0] += 0.1;
        let before = weights;
        for right in [true, false] {
            let vote = Vote::unasked(right);
            assert_eq!(vote.step(&mut weights, Some(Pace { rate: 1.0, share: 1.0 })), f64::from(u8::from(right)));
        }
        assert_eq!(weights, before);
    }
}
