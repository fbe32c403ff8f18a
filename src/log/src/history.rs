//! The history of a cluster's metrics: what was measured, by spans of time, for as long as a week.
//!
//! Two implementations pass one suite: a file of SQLite for one process, Redis for a cluster. Series are names here;
//! what they measure and what their samples tell, the coordinator knows.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::LogError;

/// Spans of one length, and for how long they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Ten seconds, for an hour.
    Fine,
    /// Five minutes, for a week.
    Coarse,
}

impl Tier {
    /// All of them, the shortest spans first.
    pub const ALL: [Tier; 2] = [Tier::Fine, Tier::Coarse];

    /// The length of a span in seconds.
    pub const fn length(self) -> u32 {
        match self {
            Tier::Fine => 10,
            Tier::Coarse => 300,
        }
    }

    /// How many spans are kept.
    pub const fn kept(self) -> u32 {
        match self {
            Tier::Fine => 3_600 / Tier::Fine.length(),
            Tier::Coarse => 7 * 86_400 / Tier::Coarse.length(),
        }
    }

    /// The beginning of the span that a moment is in; both in seconds since 1970.
    pub const fn beginning(self, at: u32) -> u32 {
        at / self.length() * self.length()
    }
}

/// What was measured of one series within a span.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// How many samples.
    pub count: u16,
    /// The smallest.
    pub min: f32,
    /// The greatest.
    pub max: f32,
    /// Their sum.
    pub sum: f32,
}

/// What was measured within a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The beginning of the span in seconds since 1970; a whole number of its lengths.
    pub at: u32,
    /// Each series that was measured, once.
    pub series: Vec<(String, Samples)>,
}

/// The most bytes of the series of one span, as [`Batch::bytes`] counts them. So all that is kept takes 38 MiB at most.
pub const MAX_HISTORY_BYTES: usize = 16 << 10;
/// The most bytes of the name of a series: that of a domain, and what is measured of it.
pub const MAX_SERIES_BYTES: usize = 320;

impl Batch {
    /// What one series takes: its name, its length, and its numbers.
    pub fn bytes_of(series: &str) -> usize {
        series.len() + 17
    }

    /// What the batch takes.
    pub fn bytes(&self) -> usize {
        self.series.iter().map(|(name, _)| Self::bytes_of(name)).sum()
    }
}

/// What was measured, kept beyond the life of whoever measured it. One writes: the leader.
#[async_trait]
pub trait History: Send + Sync {
    /// Keeps what was measured within a span, in place of what was kept of that span, in the name of the leader of `term`.
    ///
    /// # Errors
    /// [`LogError::Fenced`] where another term has begun, [`LogError::Invalid`] beyond [`MAX_HISTORY_BYTES`] and where a
    /// span doesn't begin at `at`, [`LogError::Unavailable`].
    async fn record(&self, term: u64, tier: Tier, batch: &Batch) -> Result<(), LogError>;

    /// What was kept of the spans that began from `since` to `until`, oldest first; of one series, or of all. Spans without
    /// anything are left out.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Corrupt`].
    async fn read(&self, tier: Tier, series: Option<&str>, since: u32, until: u32) -> Result<Vec<Batch>, LogError>;

    /// Forgets the spans that began before `before`; returns how many there were.
    ///
    /// # Errors
    /// [`LogError::Fenced`] where another term has begun, [`LogError::Unavailable`].
    async fn prune(&self, term: u64, tier: Tier, before: u32) -> Result<u64, LogError>;
}
