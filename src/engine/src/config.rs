//! What a partition is told about its domain.

use serde::{Deserialize, Serialize};

/// The kind of learning problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Which class an event belongs to.
    Classification,
    /// Which number belongs to an event.
    Regression,
    /// Which shapes recur in a signal.
    Patterns,
    /// Which vectors are worth keeping.
    Governed,
    /// Which class a whole signal belongs to.
    TimeSeriesClassification,
}

impl Task {
    /// Whether its labels and predictions are classes.
    pub fn has_classes(self) -> bool {
        matches!(self, Self::Classification | Self::TimeSeriesClassification)
    }

    /// Whether its events take labels.
    pub fn has_labels(self) -> bool {
        self.has_classes() || self == Self::Regression
    }
}

/// When a labelled event updates the learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateMode {
    /// Every label.
    Always,
    /// Only when the prediction was wrong or its confidence below the gate: fewer updates.
    Uncertain,
    /// Only at or above the gate. Measured to cost accuracy under drift.
    Confident,
}

/// The parameters of learning. Every one has a default that suits an unknown stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hyperparameters {
    /// Smallest normalised change between two samples that counts as an edge, in units of the signal's range. Default 0.1.
    pub edge_threshold: f32,
    /// Smallest similarity, 0 to 1, at which a segment joins a prototype. Default 0.7.
    pub cluster_threshold: f32,
    /// How far a prototype moves towards a segment that joins it, 0 to 1. Default 0.1.
    pub learning_rate: f32,
    /// Share of the segments just below the threshold that found a prototype of their own, 0 to 1. Default 0.2.
    pub exploration_rate: f32,
    /// The confidence at which the gate stands, 0 to 1. Default 0.7.
    pub confidence_gate: f32,
    /// Which events the gate lets through. Default [`GateMode::Always`].
    pub gate_mode: GateMode,
    /// Labelled events before the ensemble votes. Default 100.
    pub cold_start_experiences: u32,
    /// Most experiences that the memory holds. Default 20,000.
    pub memory_max_vectors: u32,
    /// Most event ids and unlabelled events that are remembered for retries and feedback. Default 10,000.
    pub horizon_events: u32,
    /// Most patterns that a partition keeps. Default 10,000.
    pub max_local_patterns: u32,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            edge_threshold: 0.1,
            cluster_threshold: 0.7,
            learning_rate: 0.1,
            exploration_rate: 0.2,
            confidence_gate: 0.7,
            gate_mode: GateMode::Always,
            cold_start_experiences: 100,
            memory_max_vectors: 20_000,
            horizon_events: 10_000,
            max_local_patterns: 10_000,
        }
    }
}

/// Everything that a new partition starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionConfig {
    /// The kind of problem; fixed for the life of the partition.
    pub task: Task,
    /// The parameters of learning.
    pub hyperparameters: Hyperparameters,
    /// Seeds the partition's random generator.
    pub seed: u64,
}

impl PartitionConfig {
    /// The defaults for a task.
    pub fn new(task: Task) -> Self {
        Self { task, hyperparameters: Hyperparameters::default(), seed: 1 }
    }
}

/// How a governed memory is run. It is taken up by [`crate::Control::Govern`] and kept in the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Governance {
    /// Waking and sleeping.
    pub rhythm: Rhythm,
    /// What is accepted.
    pub admission: Thresholds,
}

/// How many events a governed memory is awake, then asleep. Each from 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rhythm {
    /// Events awake. Default 8.
    pub wake: u8,
    /// Events asleep. Default 3.
    pub sleep: u8,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self { wake: 8, sleep: 3 }
    }
}

/// What the admission filter of a governed memory begins with, homes in on, and stays within. Each from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thresholds {
    /// Where the threshold begins. Default 0.5.
    pub initial_threshold: f64,
    /// The least that it becomes: what is worth less is never accepted. Default 0.1.
    pub min_threshold: f64,
    /// The most that it becomes: what is worth as much always is. Default 0.9.
    pub max_threshold: f64,
    /// The share of the events that should be accepted. Default 0.7.
    pub target_acceptance: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { initial_threshold: 0.5, min_threshold: 0.1, max_threshold: 0.9, target_acceptance: 0.7 }
    }
}

/// Steps of a phase; what is accepted in sleep waits, so that this bounds it.
const STEPS_MAX: u8 = 100;

impl Governance {
    /// Whether every value is within its bounds, and the thresholds are in their order.
    pub fn is_sound(&self) -> bool {
        let Thresholds { initial_threshold, min_threshold, max_threshold, target_acceptance } = self.admission;
        // Whatever isn't a number is in no order.
        let ordered = [0.0, min_threshold, initial_threshold, max_threshold, 1.0].is_sorted();
        let phases = [self.rhythm.wake, self.rhythm.sleep];
        ordered
            && phases.iter().all(|steps| (1..=STEPS_MAX).contains(steps))
            && (0.0..=1.0).contains(&target_acceptance)
    }
}
