//! The online-learning engine of Hebb: one partition of a domain as a pure, deterministic state machine.
//!
//! [`Partition::apply`] takes one log entry and returns its [`Outcome`]; the state after a sequence of entries depends on
//! nothing else, so a replay equals the live run byte for byte. There is no I/O here, no clock, no randomness from
//! outside (the generator is seeded from the state, time is the entry's timestamp) and memory is bounded by construction.

mod anomaly;
mod answer;
mod config;
mod entry;
mod governor;
mod learner;
mod math;
mod meta;
mod origin;
mod partition;
mod pattern;
mod quality;
mod random;
mod recent;
mod rocket;
mod schema;
mod score;
mod snapshot;
mod vitals;

pub use anomaly::{Reading, RowDetector, SeriesDetector};
pub use answer::{
    Admission, Answer, AnswerPath, EventRecord, FeedbackOutcome, LibraryChanged, LibraryPattern, MergedPatterns,
    Outcome, PatternMatch, PatternSummary, Prediction, Rejection, SignalAnomaly, Statistics, Vote,
};
pub use config::{GateMode, Governance, Hyperparameters, PartitionConfig, Rhythm, Task, Thresholds};
pub use entry::{
    Control, DecodeError, Entry, EntryId, Event, Features, Input, Label, LibraryChange, LibraryQuery, LibraryState,
    Query, Value, event_digest,
};
pub use governor::{GovernorState, Phase, Verdict};
pub use math::NUMBER_MAX;
pub use meta::{CycleReport, Explored, Knob, MetaMetrics, Tuning};
pub use partition::Partition;
pub use quality::{CalibrationBin, Confused, Quality};
/// Of ids and of classes' names: short ones need no allocation, and a copy of a long one shares it.
pub use smol_str::SmolStr;
pub use snapshot::{SnapshotError, VERSION as SNAPSHOT_VERSION, version_of as snapshot_version};

/// Parts of the engine, to be measured by themselves.
pub mod parts {
    pub use crate::governor::Keep;
    pub use crate::learner::{Adwin, ForestAlone, LinearAlone, Memory, Neighbours};
}
