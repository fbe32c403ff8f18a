//! The state machine of one partition.

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, AnswerPath, FeedbackOutcome, Outcome, Statistics};
use crate::config::PartitionConfig;
use crate::entry::{Control, Entry, EntryId, Query, event_digest};

/// One partition of a domain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Partition {
    config: PartitionConfig,
    statistics: Statistics,
}

/// Stored bytes that are no state.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Cut short, changed or not a snapshot at all.
    #[error("the snapshot is corrupt: {0}")]
    Corrupt(String),
    /// Written by a newer version.
    #[error("the snapshot has version {found}, this engine reads up to {supported}")]
    Version {
        /// The snapshot's version.
        found: u16,
        /// The newest that this engine reads.
        supported: u16,
    },
}

impl Partition {
    /// A partition that has seen nothing.
    pub fn new(config: PartitionConfig) -> Self {
        Self { config, statistics: Statistics::default() }
    }

    /// What the partition was told.
    pub fn config(&self) -> &PartitionConfig {
        &self.config
    }

    /// The last entry applied.
    pub fn position(&self) -> EntryId {
        self.statistics.position
    }

    /// Counts and quality.
    pub fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    /// Applies the entry at `id`.
    pub fn apply(&mut self, id: EntryId, entry: &Entry) -> Outcome {
        self.statistics.position = id;
        self.statistics.entries += 1;
        match entry {
            Entry::Event(event) => {
                self.statistics.events += 1;
                self.statistics.applied_digest = self.statistics.applied_digest.wrapping_add(event_digest(&event.id));
                Outcome::Answer(self.answer(&event.id))
            }
            Entry::Feedback { .. } => Outcome::Feedback(FeedbackOutcome::Unknown),
            Entry::Infer(_) => Outcome::Answer(self.answer("")),
            Entry::Query(Query::Statistics) => Outcome::Statistics(Box::new(self.statistics())),
            Entry::Query(Query::Event { .. }) => Outcome::Event(None),
            Entry::Query(Query::Patterns { .. }) => Outcome::Patterns(Vec::new()),
            Entry::Control(Control::Configure(config)) => {
                self.config = config.clone();
                Outcome::Done
            }
            Entry::Control(Control::Reset) => Outcome::Done,
        }
    }

    fn answer(&self, id: &str) -> Answer {
        Answer {
            id: id.to_owned(),
            duplicate: false,
            prediction: None,
            path: AnswerPath::ColdStart,
            confidence: 0.0,
            votes: Vec::new(),
            learned: false,
            drift: false,
            patterns: Vec::new(),
        }
    }

    /// The state as bytes: versioned and checksummed; equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads what [`Partition::snapshot`] wrote.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes are damaged or of a newer version.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        postcard::from_bytes(bytes).map_err(|error| SnapshotError::Corrupt(error.to_string()))
    }
}
