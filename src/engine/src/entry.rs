//! What passes through the log of a partition.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::config::{Governance, PartitionConfig};

/// The place of an entry in the log of its partition, ordered as in a Redis Stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryId {
    /// When the entry was appended, in milliseconds since the Unix epoch. It is the clock of the state machine.
    pub at_ms: u64,
    /// Tells entries of the same millisecond apart.
    pub seq: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at_ms, self.seq)
    }
}

/// One entry of a partition's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// Predict, then learn: from the label when there is one, else when feedback brings it.
    Event(Event),
    /// The label of an earlier event, joined by the event's id.
    Feedback {
        /// The id of the event.
        id: SmolStr,
        /// What was true.
        label: Label,
    },
    /// Predict without learning.
    Infer(Input),
    /// A read that is answered at this place of the log. It changes nothing but the position.
    Query(Query),
    /// A change of the partition itself.
    Control(Control),
}

/// One observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Names the event within its domain; a repeated id is answered from the record of the first, not learned twice.
    pub id: SmolStr,
    /// What was observed.
    pub input: Input,
    /// What was true, when it is already known.
    pub label: Option<Label>,
}

/// What the engine looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// A record of features, for `Classification` and `Regression`; for `Governed` a dense one of always the same length.
    Features(Features),
    /// Consecutive samples of one signal, for `Patterns`; for `TimeSeriesClassification` all of it.
    Signal(Vec<f32>),
    /// A whole signal of several channels, for `TimeSeriesClassification`: the samples of each, equally many.
    Channels(Vec<Vec<f32>>),
}

impl Input {
    /// The channels of a signal; none of features.
    pub fn channels(&self) -> Vec<&[f32]> {
        match self {
            Input::Features(_) => Vec::new(),
            Input::Signal(samples) => vec![samples],
            Input::Channels(channels) => channels.iter().map(Vec::as_slice).collect(),
        }
    }
}

/// The features of one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Features {
    /// Numbers by position.
    Dense(Vec<f64>),
    /// Values by name; the schema is learned from the events.
    Named(Vec<(String, Value)>),
}

impl Features {
    /// The number of features, missing ones included.
    pub fn len(&self) -> usize {
        match self {
            Features::Dense(values) => values.len(),
            Features::Named(values) => values.len(),
        }
    }

    /// Whether there is no feature at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The value of a named feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A finite number.
    Number(f64),
    /// A category.
    Text(String),
    /// Known to be absent.
    Missing,
}

/// What was true of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Label {
    /// The class, for `Classification` and `TimeSeriesClassification`.
    Class(SmolStr),
    /// The target, for `Regression`; for `Governed` what the vector is worth, 0 to 1.
    Number(f64),
}

/// A read of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Query {
    /// [`crate::Statistics`] of the partition.
    Statistics,
    /// The record of one event, while it is within the horizon.
    Event {
        /// The id of the event.
        id: SmolStr,
    },
    /// The patterns with the most support.
    Patterns {
        /// At most this many.
        limit: u32,
    },
    /// [`crate::GovernorState`] of a `Governed` partition.
    Governor,
    /// [`crate::Quality`] of the answers of late. It is no part of the state: of all answers this one alone may differ in a
    /// replay.
    Quality,
    /// Patterns of the library and of its archive, by what is asked of them.
    Library(LibraryQuery),
}

/// Which patterns are asked for. They come by support, most first, of equals the oldest; with `like` by likeness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LibraryQuery {
    /// Those that are found, those that are archived, or both.
    pub state: LibraryState,
    /// Those of one level.
    pub level: Option<u8>,
    /// Those with at least this support.
    pub min_support: u64,
    /// Those whose segments are at least so alike, 0 to 1.
    pub min_confidence: f32,
    /// Those at or after this place: a support, and an id among those that have it.
    pub from: Option<(u64, u64)>,
    /// The samples of a shape that they should be like. Then `from` says nothing.
    pub like: Option<Vec<f32>>,
    /// At most this many.
    pub limit: u32,
}

/// Where patterns are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LibraryState {
    /// In the library: they are found in signals.
    #[default]
    Active,
    /// In the archive: they are kept and not found.
    Archived,
    /// In either.
    All,
}

/// A change of the partition itself, ordered with its events so that a replay makes it at the same place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// Takes up new hyperparameters. The task of a partition never changes.
    Configure(PartitionConfig),
    /// Forgets everything learned and how good it was, and what waits for labels; the record of applied events stays.
    Reset,
    /// One cycle of meta-learning; answered by a [`crate::CycleReport`].
    Cycle,
    /// Has so many of the next cycles try everything there is to try; at most 20.
    Boost {
        /// How many.
        cycles: u32,
    },
    /// Forgets what meta-learning has found; what was learned stays.
    ResetMeta,
    /// Takes up another rhythm and other thresholds of a governed memory.
    Govern(Governance),
    /// Changes the library of patterns; answered by a [`crate::LibraryChanged`].
    Library {
        /// Names the change: one that is repeated among the next ones is answered as the first time and does nothing.
        id: SmolStr,
        /// What is to be done.
        change: LibraryChange,
    },
}

/// A change of a library of patterns. Ids of patterns that were merged stand for those that they became; at most 1,000.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LibraryChange {
    /// Makes these patterns of one level one.
    Merge {
        /// The patterns.
        ids: Vec<u64>,
    },
    /// Makes one of all patterns of a level that are at least so alike.
    MergeAlike {
        /// Likeness of two prototypes, above 0, at most 1.
        similarity: f32,
    },
    /// Moves these patterns into the archive.
    Archive {
        /// The patterns.
        ids: Vec<u64>,
    },
    /// Moves the patterns of which both is true into the archive.
    ArchiveRule {
        /// Their support is below this.
        support_below: Option<u64>,
        /// They weren't found in so many signals, the newest ones.
        unseen_for: Option<u64>,
    },
    /// Brings these patterns back from the archive.
    Restore {
        /// The patterns.
        ids: Vec<u64>,
    },
}

/// Stored or sent bytes that are no entry or outcome.
#[derive(Debug, thiserror::Error)]
#[error("not an entry or outcome of this version")]
pub struct DecodeError(#[from] postcard::Error);

impl Entry {
    /// The entry as it stands in the log.
    pub fn encode(&self) -> Vec<u8> {
        // Writing plain data to a growable buffer has no way to fail.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are cut short, too long, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match postcard::take_from_bytes(bytes)? {
            (entry, []) => Ok(entry),
            // A version that has added something has written it.
            _ => Err(DecodeError(postcard::Error::DeserializeBadEncoding)),
        }
    }

    /// Whether an entry that this version can't read may be left out of a replay, because nothing is lost with it: it was a
    /// read, or settings, of which every owner tells its partition anew.
    pub fn is_expendable(bytes: &[u8]) -> bool {
        // The variants' numbers: Infer and Query; Configure and Govern among the controls.
        matches!(bytes, [2 | 3, ..] | [4, 0 | 5, ..])
    }
}

/// The digest of one event id: FNV-1a of 64 bits, then the finaliser of SplitMix64.
///
/// [`crate::Statistics::applied_digest`] is the wrapping sum of these, so a client that sums the digests of the ids
/// that were acknowledged to it knows whether exactly those were applied, each once.
pub fn event_digest(id: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Task;

    #[test]
    fn reads_and_settings_alone_are_expendable() {
        let event = Event { id: "a".into(), input: Input::Signal(vec![1.0]), label: None };
        let library = Control::Library { id: "a".into(), change: LibraryChange::Archive { ids: vec![1] } };
        for (entry, expendable) in [
            (Entry::Event(event), false),
            (Entry::Feedback { id: "a".into(), label: Label::Number(1.0) }, false),
            (Entry::Infer(Input::Signal(vec![1.0])), true),
            (Entry::Query(Query::Statistics), true),
            (Entry::Control(Control::Configure(PartitionConfig::new(Task::Patterns))), true),
            (Entry::Control(Control::Reset), false),
            (Entry::Control(Control::Cycle), false),
            (Entry::Control(Control::Boost { cycles: 1 }), false),
            (Entry::Control(Control::ResetMeta), false),
            (Entry::Control(Control::Govern(Governance::default())), true),
            (Entry::Control(library), false),
        ] {
            assert_eq!(Entry::is_expendable(&entry.encode()), expendable, "{entry:?}");
        }
    }

    #[test]
    fn an_entry_that_holds_more_than_is_known_of_it_is_not_read() {
        let mut bytes = Entry::Control(Control::Boost { cycles: 7 }).encode();
        assert!(Entry::decode(&bytes).is_ok());
        bytes.push(0);
        assert!(Entry::decode(&bytes).is_err());
    }
}
