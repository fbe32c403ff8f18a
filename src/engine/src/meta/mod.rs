//! Meta-learning: a partition looks at how it learns, tries other parameters on what it has lived through, and keeps one that
//! is better beyond noise.
//!
//! A cycle is one entry and four phases. **Assess** computes the [`MetaMetrics`]. **Explore** lets a bandit (UCB1: Auer,
//! Cesa-Bianchi and Fischer, Machine Learning 47, 2002) pick candidates, each of which a shadow learner tries on the recorded
//! experience, test then train. **Consolidate** adopts the best one whose paired gain is beyond noise. **Transfer** measures
//! what the adopted state gives to one that begins with it. The work is bounded by the bounds of the experience.

mod experience;

use serde::{Deserialize, Serialize};

pub use self::experience::{Estimate, Experience, Signal, Vote};
use crate::config::{Hyperparameters, Task};
use crate::learner::Pace;
use crate::math::ln;

/// Candidates of a cycle; while exploration is boosted every arm is one.
const CANDIDATES: usize = 2;
/// Cycles that a boost lasts at most.
const BOOST_MAX: u32 = 20;
/// Bounds of a factor.
const FACTOR_MIN: f64 = 1.0 / 16.0;
const FACTOR_MAX: f64 = 16.0;
/// A gain below this share of the score is not worth a change.
const MARGIN: f64 = 0.002;
/// Standard errors by which a gain has to be above nothing.
const BEYOND_NOISE: f64 = 3.0;
/// The first fifth of a replay warms the shadow up and isn't scored.
const WARM_UP: usize = 5;
/// The noise of a gain is that of the means of so many stretches: scores that follow upon each other are alike, and taken one
/// by one they would seem to say more than they do (batch means: Schmeiser, Operations Research 30, 1982).
const STRETCHES: usize = 20;

/// Factors on the configured parameters of learning; 1 leaves one as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// How strongly an event moves the ensemble's weights.
    pub rate: f64,
    /// The share of the weights that is dealt out anew.
    pub share: f64,
    /// `learning_rate`.
    pub learning_rate: f64,
    /// `exploration_rate`.
    pub exploration_rate: f64,
    /// `cluster_threshold`.
    pub cluster_threshold: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { rate: 1.0, share: 1.0, learning_rate: 1.0, exploration_rate: 1.0, cluster_threshold: 1.0 }
    }
}

impl Tuning {
    /// The pace at which an ensemble's weights move.
    pub(crate) fn pace(&self) -> Pace {
        Pace { rate: self.rate, share: self.share }
    }

    /// The configured parameters with the factors applied.
    pub(crate) fn tuned(&self, parameters: &Hyperparameters) -> Hyperparameters {
        let scale = |value: f32, factor: f64| (value * factor as f32).clamp(0.0, 1.0);
        Hyperparameters {
            learning_rate: scale(parameters.learning_rate, self.learning_rate),
            exploration_rate: scale(parameters.exploration_rate, self.exploration_rate),
            cluster_threshold: scale(parameters.cluster_threshold, self.cluster_threshold),
            ..parameters.clone()
        }
    }

    fn with(&self, arm: &Arm) -> Self {
        let mut tuning = self.clone();
        let factor = match arm.knob {
            Knob::Rate => &mut tuning.rate,
            Knob::Share => &mut tuning.share,
            Knob::LearningRate => &mut tuning.learning_rate,
            Knob::ExplorationRate => &mut tuning.exploration_rate,
            Knob::ClusterThreshold => &mut tuning.cluster_threshold,
        };
        *factor = (*factor * arm.step).clamp(FACTOR_MIN, FACTOR_MAX);
        tuning
    }
}

/// What can be turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Knob {
    /// [`Tuning::rate`].
    Rate,
    /// [`Tuning::share`].
    Share,
    /// [`Tuning::learning_rate`].
    LearningRate,
    /// [`Tuning::exploration_rate`].
    ExplorationRate,
    /// [`Tuning::cluster_threshold`].
    ClusterThreshold,
}

/// A step of a knob, and what came of it so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Arm {
    knob: Knob,
    step: f64,
    tries: u32,
    reward: f64,
}

/// The four metrics of a cycle, each 0 to 1. Scores are those of the predictions that were really given: 1 or 0 for a right or
/// wrong class, `unit / (unit + error)` for a number (`unit`: the usual error of the best member), and for a signal the share
/// of it that known patterns cover, weighted by likeness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaMetrics {
    /// `½ + (late − early) / 2`: mean scores of the later and of the earlier half of the experience. ½ holds steady.
    pub learning_velocity: f64,
    /// `1 − t/n`: after `t` of `n` replayed events a learner that begins anew scores, over a tenth of them, at least 95 % of
    /// its mean.
    pub adaptation_speed: f64,
    /// `min(1, now / then)`: what the present state scores on the oldest quarter, against what was scored when it was new.
    pub knowledge_retention: f64,
    /// `½ + (with − without) / 2`: scores on the later half of a learner that first saw the earlier half, and of one that did
    /// not. ½ transfers nothing.
    pub transfer_efficiency: f64,
}

/// A candidate and how it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explored {
    /// What was turned.
    pub knob: Knob,
    /// By which factor.
    pub step: f64,
    /// Mean gain in score over the present parameters.
    pub gain: f64,
    /// Its standard error.
    pub noise: f64,
}

/// What a cycle found and did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CycleReport {
    /// The cycle's number within the partition, from 1.
    pub cycle: u64,
    /// Recorded experiences that it looked at.
    pub experiences: u64,
    /// Those that came since the cycle before.
    pub fresh: u64,
    /// Mean score of the recorded experiences when they were new, 0 to 1.
    pub score: f64,
    /// The metrics; nothing below the least experience that says anything.
    pub metrics: Option<MetaMetrics>,
    /// The candidates.
    pub explored: Vec<Explored>,
    /// The one that was adopted.
    pub adopted: Option<Explored>,
    /// The factors from here on.
    pub tuning: Tuning,
    /// Whether exploration was boosted.
    pub boosted: bool,
}

/// The part of a partition's state that learns how to learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub tuning: Tuning,
    pub experience: Experience,
    arms: Vec<Arm>,
    boost: u32,
    cycles: u64,
    fresh: u64,
}

/// What the present state is, for the metrics that compare with it.
pub use self::experience::Present;

impl Meta {
    pub fn new(task: Task) -> Self {
        let steps: &[(Knob, f64)] = match task {
            Task::Classification | Task::Regression => {
                &[(Knob::Rate, 0.5), (Knob::Rate, 2.0), (Knob::Share, 0.25), (Knob::Share, 4.0)]
            }
            Task::Governed | Task::TimeSeriesClassification => &[],
            Task::Patterns => &[
                (Knob::LearningRate, 0.5),
                (Knob::LearningRate, 2.0),
                (Knob::ExplorationRate, 0.5),
                (Knob::ExplorationRate, 2.0),
                (Knob::ClusterThreshold, 0.95),
                (Knob::ClusterThreshold, 1.05),
            ],
        };
        Self {
            tuning: Tuning::default(),
            experience: Experience::new(task),
            arms: steps.iter().map(|(knob, step)| Arm { knob: *knob, step: *step, tries: 0, reward: 0.0 }).collect(),
            boost: 0,
            cycles: 0,
            fresh: 0,
        }
    }

    /// Counts an experience that was recorded.
    pub fn lived(&mut self) {
        self.fresh += 1;
    }

    /// Has the next cycles try every arm.
    pub fn boost(&mut self, cycles: u32) {
        self.boost = cycles.min(BOOST_MAX);
    }

    pub fn bytes(&self) -> usize {
        self.experience.bytes()
    }

    /// One cycle.
    pub fn cycle(&mut self, parameters: &Hyperparameters, present: &Present<'_>) -> CycleReport {
        self.cycles += 1;
        let boosted = self.boost > 0;
        self.boost = self.boost.saturating_sub(1);
        let mut report = CycleReport {
            cycle: self.cycles,
            experiences: self.experience.len() as u64,
            fresh: std::mem::take(&mut self.fresh),
            score: mean(&self.experience.scores()),
            metrics: None,
            explored: Vec::new(),
            adopted: None,
            tuning: self.tuning.clone(),
            boosted,
        };
        if !self.experience.says_something() {
            return report;
        }
        let incumbent = self.experience.replay(&self.tuning, parameters, 0);
        report.metrics = Some(self.assess(&incumbent, parameters, present));
        let count = if boosted { self.arms.len() } else { CANDIDATES };
        for place in self.choose(count) {
            let candidate = self.tuning.with(&self.arms[place]);
            let scores = self.experience.replay(&candidate, parameters, 0);
            let compared = compare(&incumbent, &scores);
            let arm = &mut self.arms[place];
            arm.tries = arm.tries.saturating_add(1);
            // A gain of a hundredth is a full reward.
            arm.reward += (compared.gain * 100.0).clamp(0.0, 1.0);
            let explored = Explored { knob: arm.knob, step: arm.step, gain: compared.gain, noise: compared.noise };
            if compared.beyond_noise() && report.adopted.as_ref().is_none_or(|best| best.gain < explored.gain) {
                report.adopted = Some(explored.clone());
                report.tuning = candidate;
            }
            report.explored.push(explored);
        }
        self.tuning = report.tuning.clone();
        report
    }

    fn assess(&self, incumbent: &[f64], parameters: &Hyperparameters, present: &Present<'_>) -> MetaMetrics {
        let lived = self.experience.scores();
        let half = lived.len() / 2;
        let window = (incumbent.len() / 10).max(1);
        let goal = mean(incumbent) * 0.95;
        let settled = incumbent.windows(window).position(|scores| mean(scores) >= goal).unwrap_or(incumbent.len());
        let (now, then) = self.experience.retention(parameters, present);
        let fresh_start = self.experience.replay(&self.tuning, parameters, half);
        let (with, without) = (mean(&incumbent[half..]), mean(&fresh_start));
        MetaMetrics {
            learning_velocity: half_and((mean(&lived[half..]) - mean(&lived[..half])) / 2.0),
            adaptation_speed: (1.0 - settled as f64 / incumbent.len().max(1) as f64).clamp(0.0, 1.0),
            knowledge_retention: if then > 0.0 { (now / then).clamp(0.0, 1.0) } else { 1.0 },
            transfer_efficiency: half_and((with - without) / 2.0),
        }
    }

    /// The arms with the highest upper confidence bounds.
    fn choose(&self, count: usize) -> Vec<usize> {
        let total: u32 = self.arms.iter().map(|arm| arm.tries).sum();
        let bound = |arm: &Arm| {
            if arm.tries == 0 {
                return f64::INFINITY;
            }
            let tries = f64::from(arm.tries);
            arm.reward / tries + (2.0 * ln(f64::from(total.max(1))) / tries).sqrt()
        };
        let mut places: Vec<usize> = (0..self.arms.len()).collect();
        places.sort_by(|a, b| bound(&self.arms[*b]).total_cmp(&bound(&self.arms[*a])).then(a.cmp(b)));
        places.truncate(count);
        places
    }
}

/// A paired comparison.
struct Compared {
    gain: f64,
    noise: f64,
    /// Whether neither half of the replay speaks against it.
    throughout: bool,
}

impl Compared {
    fn beyond_noise(&self) -> bool {
        self.throughout && self.gain >= MARGIN && self.gain > BEYOND_NOISE * self.noise
    }
}

fn compare(incumbent: &[f64], candidate: &[f64]) -> Compared {
    let warm = incumbent.len() / WARM_UP;
    let gains: Vec<f64> = candidate.iter().zip(incumbent).skip(warm).map(|(new, old)| new - old).collect();
    let gain = mean(&gains);
    let stretches: Vec<f64> = gains.chunks((gains.len() / STRETCHES).max(1)).map(mean).collect();
    let count = stretches.len().max(2) as f64;
    let variance = stretches.iter().map(|one| (one - gain) * (one - gain)).sum::<f64>() / (count - 1.0);
    let half = gains.len() / 2;
    Compared {
        gain,
        noise: (variance / count).sqrt(),
        throughout: mean(&gains[..half]) >= 0.0 && mean(&gains[half..]) >= 0.0,
    }
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

fn half_and(difference: f64) -> f64 {
    (0.5 + difference).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_within_noise_is_none() {
        let incumbent = vec![0.5; 100];
        let runs = |length: usize| -> Vec<f64> {
            (0..100).map(|place| if (place / length).is_multiple_of(2) { 0.9 } else { 0.12 }).collect()
        };
        // In runs of ten, as much of the gain is luck as if there were only ten events.
        assert!(!compare(&incumbent, &runs(10)).beyond_noise());
        assert!(compare(&incumbent, &[0.6; 100]).beyond_noise());
        assert!(!compare(&incumbent, &[0.501; 100]).beyond_noise(), "too little to be worth it");
    }

    #[test]
    fn the_bandit_tries_everything_and_then_what_gained() {
        let mut meta = Meta::new(Task::Classification);
        assert_eq!(meta.choose(2), [0, 1]);
        for arm in &mut meta.arms {
            arm.tries = 10;
        }
        meta.arms[3].reward = 9.0;
        assert_eq!(meta.choose(1), [3]);
        assert_eq!(meta.choose(9).len(), 4);
    }

    #[test]
    fn factors_stay_within_their_bounds_and_one_changes_nothing() {
        let parameters = Hyperparameters::default();
        assert_eq!(Tuning::default().tuned(&parameters), parameters);
        let arm = Arm { knob: Knob::Share, step: 4.0, tries: 0, reward: 0.0 };
        let tuning = (0..20).fold(Tuning::default(), |tuning, _| tuning.with(&arm));
        assert_eq!(tuning.share, FACTOR_MAX);
    }
}
