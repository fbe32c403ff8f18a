//! What only the owners of a domain's partitions know, asked by way of their logs as a gateway does it, and remembered for a
//! while: the patterns of a library, the quality of a classifier, the state of a governed memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures::future::join_all;
use hebb_engine::{Entry, LibraryPattern as Known, LibraryQuery, LibraryState, Outcome, Query, Task};
use hebb_log::{LogError, PartitionKey};
use serde::Serialize;
use tokio::sync::Mutex;

use super::quality::{self, Quality};
use crate::coordinator::ask::Asker;
use crate::gateway::LibraryPattern;
use crate::store::Store;

/// How long an answer holds: however many look, a partition is asked every ten seconds.
const HOLDS: Duration = Duration::from_secs(10);
/// An owner answers within this time or is left out.
const DEADLINE: Duration = Duration::from_secs(3);
/// Patterns that are drawn: those with the most support.
const PATTERNS_MAX: usize = 48;
/// Partitions that are asked.
const PARTITIONS_MAX: u32 = 64;
/// Domains that are remembered.
const DOMAINS_MAX: usize = 16;
/// A look doesn't add to a queue as long as this.
const WAITING_MAX: u64 = 1_000;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The patterns with the most support.
    Patterns,
    /// What was taken for what, and how surely.
    Quality,
    /// The state of the governed memories.
    Memory,
}

impl Question {
    /// Which domains can answer.
    pub fn asks(self) -> &'static [Task] {
        match self {
            Self::Patterns => &[Task::Patterns],
            Self::Quality => &[Task::Classification, Task::TimeSeriesClassification],
            Self::Memory => &[Task::Governed],
        }
    }
}

/// What the owners said, and how many of them.
#[derive(Debug, Serialize)]
struct Answer<T> {
    #[serde(flatten)]
    said: T,
    /// How many partitions answered.
    answered: u32,
    /// How many were asked.
    asked: u32,
}

/// The patterns of a domain: those with the most support.
#[derive(Debug, Serialize)]
struct Patterns {
    patterns: Vec<LibraryPattern>,
}

/// The governed memories of a domain, one a partition.
#[derive(Debug, Serialize)]
struct Memories {
    memories: Vec<Memory>,
}

#[derive(Debug, Serialize)]
struct Memory {
    partition: u32,
    #[serde(flatten)]
    state: hebb_engine::GovernorState,
}

/// The answers of the last seconds, as text.
#[derive(Default)]
pub struct Looks(Mutex<BTreeMap<String, (Instant, Bytes)>>);

impl Looks {
    /// What the owners of a domain with this many partitions say, as JSON. The domain has the question's task, so that there is
    /// one question to it. Who asks at once waits for one answer.
    ///
    /// # Errors
    /// The store's.
    pub async fn look(
        &self,
        store: &Store,
        domain: &str,
        question: Question,
        partitions: u32,
    ) -> Result<Bytes, LogError> {
        let mut known = self.0.lock().await;
        known.retain(|_, (at, _)| at.elapsed() < HOLDS);
        if let Some((_, answer)) = known.get(domain) {
            return Ok(answer.clone());
        }
        let answer = ask(store, domain, question, partitions.min(PARTITIONS_MAX)).await?;
        if known.len() < DOMAINS_MAX {
            known.insert(domain.to_owned(), (Instant::now(), answer.clone()));
        }
        Ok(answer)
    }
}

async fn ask(store: &Store, domain: &str, question: Question, partitions: u32) -> Result<Bytes, LogError> {
    let query = match question {
        Question::Patterns => Query::Library(LibraryQuery {
            state: LibraryState::All,
            limit: PATTERNS_MAX as u32,
            ..LibraryQuery::default()
        }),
        Question::Quality => Query::Quality,
        Question::Memory => Query::Governor,
    };
    let mut asker = Asker::new(store, "dashboard").await?;
    let entry = Entry::Query(query);
    let asked = join_all((0..partitions).map(|index| {
        let (asker, entry, key) = (&asker, &entry, PartitionKey { domain: domain.to_owned(), index });
        async move { asker.ask(u64::from(index), &key, entry, WAITING_MAX).await.is_ok() }
    }))
    .await;
    let count = asked.iter().filter(|asked| **asked).count();
    // Whoever is late is left out; `answered` says so.
    let heard = asker.hear(count, DEADLINE).await;
    let answered = heard.len() as u32;
    Ok(match question {
        Question::Patterns => encode(patterns(heard), answered, partitions),
        Question::Quality => encode(classes(heard), answered, partitions),
        Question::Memory => encode(memories(heard), answered, partitions),
    })
}

fn encode<T: Serialize>(said: T, answered: u32, asked: u32) -> Bytes {
    // Writing plain data has no way to fail.
    serde_json::to_vec(&Answer { said, answered, asked }).unwrap_or_default().into()
}

fn classes(heard: BTreeMap<u64, Outcome>) -> Quality {
    let said = heard.into_values().filter_map(|outcome| match outcome {
        Outcome::Quality(quality) => Some(*quality),
        _ => None,
    });
    quality::merge(&said.collect::<Vec<_>>())
}

fn memories(heard: BTreeMap<u64, Outcome>) -> Memories {
    let said = heard.into_iter().filter_map(|(partition, outcome)| match outcome {
        Outcome::Governor(state) => Some(Memory { partition: partition as u32, state: *state }),
        _ => None,
    });
    Memories { memories: said.collect() }
}

fn patterns(heard: BTreeMap<u64, Outcome>) -> Patterns {
    let found = heard.into_iter().filter_map(|(partition, outcome)| match outcome {
        Outcome::Library(patterns) => Some((partition, patterns)),
        _ => None,
    });
    let of_partition = |(partition, patterns): (u64, Vec<Known>)| {
        patterns.into_iter().map(move |pattern| LibraryPattern::new(partition as u32, pattern))
    };
    let mut patterns: Vec<LibraryPattern> = found.flat_map(of_partition).collect();
    patterns.sort_by(|a, b| (b.support, a.partition, a.id).cmp(&(a.support, b.partition, b.id)));
    patterns.truncate(PATTERNS_MAX);
    Patterns { patterns }
}
