//! How the models learn: domains, the engine, its memory, meta-learning.

use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::yes;
use crate::duration::Duration;

/// One learning problem.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainSpec {
    /// Name of the domain, part of its address: lower-case letters, digits and '-', at most 63.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What is to be learned: which class (Classification) or number (Regression) belongs to an event, which shapes recur in
    /// signals (Patterns), which vectors are worth keeping (Governed), or which class a whole signal belongs to
    /// (TimeSeriesClassification). Can't change.
    pub task: Task,
    /// Number of partitions that the domain's events are split into, by key. Can't change. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub partitions: i32,
}

fn one() -> i32 {
    1
}

/// A kind of learning problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Task {
    /// Which class an event belongs to.
    #[default]
    Classification,
    /// Which number belongs to an event.
    Regression,
    /// Which shapes recur in a signal.
    Patterns,
    /// Which vectors are worth keeping: governed memory, by `POST /event` and `GET /state`.
    Governed,
    /// Which class a whole signal, of one channel or several, belongs to.
    TimeSeriesClassification,
}

/// What `engine.syncInterval` may be.
pub const SYNC_INTERVALS: RangeInclusive<Duration> =
    Duration(std::time::Duration::from_millis(500))..=Duration::from_secs(5);

/// How the engine learns. A change is taken up by running partitions without a restart of what they learned.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.checkpointInterval) >= duration('100ms') && duration(self.checkpointInterval) <= duration('5m')",
    "message": "spec.engine.checkpointInterval: must be between 100ms and 5m",
}, {
    "rule": "duration(self.syncInterval) >= duration('500ms') && duration(self.syncInterval) <= duration('5s')",
    "message": "spec.engine.syncInterval: must be between 500ms and 5s",
}]))]
pub struct EngineSpec {
    /// Smallest change between two samples that counts as an edge, as a share of the signal's range. Default: 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub edge_threshold: f64,
    /// Smallest likeness, 0 to 1, at which a segment joins a pattern. Default: 0.7.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub cluster_threshold: f64,
    /// How far a pattern moves towards a segment that joins it, 0 to 1. Default: 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub learning_rate: f64,
    /// Share of the segments just below the threshold that found a pattern of their own, 0 to 1. Default: 0.2.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub exploration_rate: f64,
    /// The confidence, 0 to 1, at which the gate stands. Default: 0.7.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence_gate: f64,
    /// Which labels update the learner: `Always`; `Uncertain`: when wrong or below the gate, fewer updates; `Confident`: at
    /// or above the gate, measured to cost accuracy under drift. Default: Always.
    pub gate_mode: GateMode,
    /// Labelled events before the ensemble votes. Default: 100.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cold_start_experiences: i32,
    /// The memory of experiences.
    pub memory: MemorySpec,
    /// Entries of a partition that may wait to be applied; beyond it clients get 429, those of low priority from half of
    /// it on and those of normal priority from 95 %. Default: 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queue_size: i32,
    /// How often a partition is checkpointed at most; an expensive checkpoint is taken less often.
    /// 100ms to 5m. Default: 5s.
    pub checkpoint_interval: Duration,
    /// How far the copy of a partition from which a gateway answers reads with `consistency=Eventual` may be behind its
    /// log. 500ms to 5s. A change restarts the gateways. Default: 1s.
    pub sync_interval: Duration,
    /// Patterns that a partition keeps, and so each copy of it. Default: 10000.
    #[schemars(range(min = 16, max = 50_000))]
    pub max_local_patterns: i32,
    /// Events of a partition that are remembered for retries and for labels that come later. Default: 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub horizon_events: i32,
    /// How long a governed memory is awake and asleep.
    #[serde(skip_serializing_if = "RhythmSpec::is_default")]
    pub rhythm: RhythmSpec,
    /// What a governed memory accepts.
    #[serde(skip_serializing_if = "AdmissionSpec::is_default")]
    pub admission: AdmissionSpec,
}

impl Default for EngineSpec {
    fn default() -> Self {
        Self {
            edge_threshold: 0.1,
            cluster_threshold: 0.7,
            learning_rate: 0.1,
            exploration_rate: 0.2,
            confidence_gate: 0.7,
            gate_mode: GateMode::Always,
            cold_start_experiences: 100,
            memory: MemorySpec::default(),
            max_queue_size: 1000,
            checkpoint_interval: Duration::from_secs(5),
            sync_interval: Duration::from_secs(1),
            max_local_patterns: 10_000,
            horizon_events: 10_000,
            rhythm: RhythmSpec::default(),
            admission: AdmissionSpec::default(),
        }
    }
}

/// How long a governed memory takes in, and how long it consolidates. A changed rhythm begins with waking.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RhythmSpec {
    /// Vectors for which it is awake. Default: 8.
    #[schemars(range(min = 1, max = 100))]
    pub wake: i32,
    /// Vectors for which it is asleep; what is accepted meanwhile waits for the next waking. Default: 3.
    #[schemars(range(min = 1, max = 100))]
    pub sleep: i32,
}

impl Default for RhythmSpec {
    fn default() -> Self {
        Self { wake: 8, sleep: 3 }
    }
}

impl RhythmSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a governed memory accepts: vectors whose value reaches a threshold, which each of them moves.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minThreshold <= self.initialThreshold && self.initialThreshold <= self.maxThreshold",
    "message": "spec.engine.admission: initialThreshold must be between minThreshold and maxThreshold",
}]))]
pub struct AdmissionSpec {
    /// Where the threshold begins, 0 to 1. A memory that has judged a vector keeps its own. Default: 0.5.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub initial_threshold: f64,
    /// The least that the threshold becomes, 0 to 1: what is worth less is never accepted. Default: 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_threshold: f64,
    /// The most that the threshold becomes, 0 to 1: what is worth as much is always accepted. Default: 0.9.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_threshold: f64,
    /// The share of the vectors, 0 to 1, that the threshold homes in on accepting. Default: 0.7.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub target_acceptance: f64,
}

impl Default for AdmissionSpec {
    fn default() -> Self {
        Self { initial_threshold: 0.5, min_threshold: 0.1, max_threshold: 0.9, target_acceptance: 0.7 }
    }
}

impl AdmissionSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which labels update the learner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateMode {
    /// Every label.
    #[default]
    Always,
    /// When the prediction was wrong or unsure.
    Uncertain,
    /// Only when the prediction was sure.
    Confident,
}

/// The memory of experiences.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySpec {
    /// Experiences that a partition holds. Default: 20000.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub max_vectors: i32,
}

impl Default for MemorySpec {
    fn default() -> Self {
        Self { max_vectors: 20_000 }
    }
}

/// Learning how to learn.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaLearningSpec {
    /// Whether the cycles run by themselves. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// From the end of one cycle to the next, 1s to 168h. Default: 5m.
    #[serde(default = "five_minutes_between")]
    pub interval: Duration,
    /// After how many cycles they end; 0 for never. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_cycles: i32,
}

fn five_minutes_between() -> Duration {
    Duration::from_secs(300)
}

impl MetaLearningSpec {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for MetaLearningSpec {
    fn default() -> Self {
        Self { enabled: true, interval: five_minutes_between(), max_cycles: 0 }
    }
}
