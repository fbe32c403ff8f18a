//! What a partition says of an entry.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::config::Task;
use crate::entry::{DecodeError, EntryId, Label};
use crate::governor::{GovernorState, Verdict};
use crate::meta::CycleReport;
use crate::quality::Quality;

/// The result of applying one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Of an event or an inference.
    Answer(Answer),
    /// Of a label that came later.
    Feedback(FeedbackOutcome),
    /// Of [`crate::Query::Statistics`].
    Statistics(Box<Statistics>),
    /// Of [`crate::Query::Event`].
    Event(Option<EventRecord>),
    /// Of [`crate::Query::Patterns`].
    Patterns(Vec<PatternSummary>),
    /// Of a control message that was taken up.
    Done,
    /// The entry does not fit this partition; it changed nothing but the position.
    Rejected(Rejection),
    /// Of [`crate::Control::Cycle`].
    Cycle(Box<CycleReport>),
    /// Of an event of a `Governed` domain.
    Admission(Admission),
    /// Of [`crate::Query::Governor`].
    Governor(Box<GovernorState>),
    /// Of [`crate::Query::Quality`].
    Quality(Box<Quality>),
    /// Of [`crate::Query::Library`].
    Library(Vec<LibraryPattern>),
    /// Of [`crate::Control::Library`].
    LibraryChanged(Box<LibraryChanged>),
}

/// What became of a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    /// The event's id.
    pub id: SmolStr,
    /// Whether it repeats an earlier event: then nothing was done.
    pub duplicate: bool,
    /// Whether it was accepted, of a duplicate the first time.
    pub accepted: bool,
    /// The verdict; nothing of a duplicate.
    pub verdict: Option<Verdict>,
}

/// A prediction and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The event's id; empty for an inference.
    pub id: SmolStr,
    /// Whether this id was answered before; the answer is then the first one, or beyond the horizon what is predicted by now.
    pub duplicate: bool,
    /// What is predicted; none before the first label.
    pub prediction: Option<Prediction>,
    /// The way to the prediction.
    pub path: AnswerPath,
    /// How sure the ensemble is, 0 to 1.
    pub confidence: f32,
    /// What each member said that was asked, with its present weight; at most 16. About an easy event only the forest is.
    pub votes: Vec<Vote>,
    /// Whether the label that came along updated the learner.
    pub learned: bool,
    /// Whether with this event the ensemble has begun to err more often than before.
    pub drift: bool,
    /// The patterns found in a signal, in order; at most 1,024.
    pub patterns: Vec<PatternMatch>,
    /// What stands out in a signal; nothing for other input, and for a signal that was perceived before.
    pub anomaly: Option<SignalAnomaly>,
}

/// What stands out in a signal, judged by the signals of its partition before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalAnomaly {
    /// How anomalous its most anomalous sample is, 0 to 1.
    pub score: f32,
    /// Index of that sample; 0 where the score is.
    pub at: u32,
    /// The greatest deviation of a sample from the long mean, in standard deviations, with its sign.
    pub z_score: f32,
    /// How far the mean of about 40 samples in a row left the long mean, 0 to 1.
    pub change: f32,
    /// Index of the sample up to which it did; 0 where the change is.
    pub change_at: u32,
}

/// What is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Prediction {
    /// The most probable class.
    Class(SmolStr),
    /// The expected target.
    Number(f64),
}

/// The way to a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerPath {
    /// Too few experiences: the base model alone.
    ColdStart,
    /// The vote of the ensemble.
    Ensemble,
}

/// What one member of the ensemble said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vote {
    /// The member's name, for example `forest`.
    pub member: Cow<'static, str>,
    /// What it predicts.
    pub prediction: Prediction,
    /// Its share of the vote, 0 to 1.
    pub weight: f32,
}

/// One pattern found in a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatternMatch {
    /// The pattern's stable id within its partition.
    pub id: u64,
    /// 0 for patterns of samples, n for patterns of patterns of level n − 1.
    pub level: u8,
    /// Index of the first sample that it covers.
    pub start: u32,
    /// Number of samples that it covers.
    pub length: u32,
    /// Likeness to the prototype, 0 to 1.
    pub similarity: f32,
    /// Whether the pattern was founded by this very segment.
    pub new: bool,
}

/// One pattern of the library.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatternSummary {
    /// The pattern's stable id within its partition.
    pub id: u64,
    /// Its level.
    pub level: u8,
    /// How many segments have joined it.
    pub support: u64,
    /// Mean likeness of what joined it, 0 to 1.
    pub confidence: f32,
    /// The prototype's curve, in units of standard deviations.
    pub prototype: Vec<f32>,
}

/// One pattern of the library or its archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LibraryPattern {
    /// The pattern.
    pub summary: PatternSummary,
    /// Whether it is in the archive.
    pub archived: bool,
    /// Signals that were learned since it was found last.
    pub unseen_for: u64,
    /// Likeness to the shape that was asked for, 0 to 1.
    pub similarity: Option<f32>,
}

/// What a change of the library did. Ids are those of the first 1,000 that it did something to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LibraryChanged {
    /// Whether this change was made before; the answer is then the first one.
    pub duplicate: bool,
    /// Patterns that became part of others, went into the archive or came out of it.
    pub changed: u64,
    /// Those that became one.
    pub merged: Vec<MergedPatterns>,
    /// Those that are now in the archive: as asked, or to make room for those that came back.
    pub archived: Vec<u64>,
    /// Those that were asked for and are now in the library.
    pub restored: Vec<u64>,
    /// Ids that no pattern has.
    pub unknown: Vec<u64>,
    /// Whether everything was done. If not, there was more to compare than one change may; another goes on.
    pub complete: bool,
    /// Patterns in the library.
    pub active: u64,
    /// Patterns in the archive.
    pub in_archive: u64,
}

/// Patterns that became one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergedPatterns {
    /// The one that they are now; its support is the sum of theirs.
    pub into: u64,
    /// Those whose ids now stand for it.
    pub from: Vec<u64>,
}

/// What became of a label that came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedbackOutcome {
    /// It was joined with its event and learned.
    Joined,
    /// The event has a label already, or takes none since a reset; a retry is answered so.
    AlreadyLabelled,
    /// No such event within the horizon, or its input is kept no more.
    Unknown,
}

/// What is remembered of an event within the horizon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Where it was applied.
    pub applied_at: EntryId,
    /// What was predicted.
    pub prediction: Option<Prediction>,
    /// How surely.
    pub confidence: f32,
    /// The way to the prediction.
    pub path: AnswerPath,
    /// Whether its label has come, or would come too late: after a reset.
    pub labelled: bool,
}

/// The prediction that stands for a vector that a governed memory accepted.
pub(crate) const ACCEPTED: &str = "accepted";

impl EventRecord {
    /// Whether a governed memory accepted it.
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(&self.prediction, Some(Prediction::Class(class)) if class == ACCEPTED)
    }
}

/// Why an entry does not fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// A signal for a domain of features, or the other way round.
    #[error("a {task:?} domain takes {expected}")]
    WrongInput {
        /// The domain's task.
        task: Task,
        /// What it takes.
        expected: String,
    },
    /// A class for a regression, or the other way round.
    #[error("a {task:?} domain takes {expected} as label")]
    WrongLabel {
        /// The domain's task.
        task: Task,
        /// What it takes.
        expected: String,
    },
    /// More features than a partition's schema holds.
    #[error("more than {max} features")]
    TooManyFeatures {
        /// The bound.
        max: u32,
    },
    /// More classes than a partition holds.
    #[error("more than {max} classes")]
    TooManyClasses {
        /// The bound.
        max: u32,
    },
    /// A number beyond [`NUMBER_MAX`](crate::NUMBER_MAX), or none.
    #[error("{0} is beyond ±1e16, or no number")]
    OutOfRange(String),
    /// Bytes in the log that are no entry of this version.
    #[error("the entry could not be read")]
    Unreadable,
    /// A control message for another task.
    #[error("the task of a partition can't change")]
    TaskChange,
}

/// Counts and quality of a partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Entries applied, of any kind.
    pub entries: u64,
    /// Distinct events applied.
    pub events: u64,
    /// Entries that repeated an event's id.
    pub duplicates: u64,
    /// Labels learned from or gated, with their event or later.
    pub labels: u64,
    /// Labels that updated the learner.
    pub updates: u64,
    /// Entries that did not fit.
    pub rejected: u64,
    /// Wrapping sum of [`crate::event_digest`] of the distinct events applied.
    pub applied_digest: u64,
    /// Times that the ensemble began to err more often than before; classification only.
    pub drifts: u64,
    /// Labelled events whose prediction, made before the label was seen, was right; classification only.
    pub correct: u64,
    /// Prequential accuracy over all labels, 0 to 1; classification only.
    pub accuracy: f64,
    /// Prequential accuracy with a fading factor of 0.999 an event; classification only.
    pub recent_accuracy: f64,
    /// Cohen's kappa of the prequential predictions: accuracy beyond chance; classification only.
    pub kappa: f64,
    /// Mean log-loss of the predicted probabilities, in nats; classification only.
    pub log_loss: f64,
    /// Mean absolute error; regression only.
    pub mean_absolute_error: f64,
    /// Experiences in memory.
    pub experiences: u64,
    /// Patterns in the library.
    pub patterns: u64,
    /// Classes seen, in the order of their first appearance; at most 1,000.
    pub classes: Vec<String>,
    /// Number of features of the schema.
    pub features: u32,
    /// Bytes of memory that the state holds, estimated.
    pub memory_bytes: u64,
    /// The last entry applied.
    pub position: EntryId,
    /// Share of the look-ups of neighbours, among experiences that there are, that found none; of about the last thousand.
    #[serde(default)]
    pub knn_failure_rate: Option<f64>,
    /// Kullback-Leibler divergence of the distribution of the last hundred answers from that of the last thousand, in nats;
    /// classification only.
    #[serde(default)]
    pub kl_divergence: Option<f64>,
    /// Share of the vectors that were rejected, a fading mean over about the last twenty; governed memory only, from the first
    /// vector on.
    #[serde(default)]
    pub rejection_rate: Option<f64>,
}

impl From<Label> for Prediction {
    fn from(label: Label) -> Self {
        match label {
            Label::Class(class) => Prediction::Class(class),
            Label::Number(number) => Prediction::Number(number),
        }
    }
}

impl Outcome {
    /// The outcome as it travels from a worker to a gateway.
    pub fn encode(&self) -> Vec<u8> {
        // Writing plain data to a growable buffer has no way to fail.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads what [`Outcome::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are cut short or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(postcard::from_bytes(bytes)?)
    }
}
