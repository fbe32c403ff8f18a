//! The patterns of a domain, asked of its owners by way of their logs as a gateway does it, and remembered for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hebb_engine::{Entry, Outcome, PatternSummary, Query};
use hebb_log::{LogError, PartitionKey};
use serde::Serialize;
use tokio::sync::Mutex;

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

/// The patterns of a domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Patterns {
    /// Those with the most support.
    pub patterns: Vec<LibraryPattern>,
    /// How many partitions answered.
    pub answered: u32,
    /// How many were asked.
    pub asked: u32,
}

/// The answers of the last seconds.
#[derive(Default)]
pub struct Library(Mutex<BTreeMap<String, (Instant, Patterns)>>);

impl Library {
    /// The patterns of a domain with this many partitions. Who asks at once waits for one answer.
    ///
    /// # Errors
    /// The store's.
    pub async fn patterns(&self, store: &Store, domain: &str, partitions: u32) -> Result<Patterns, LogError> {
        let mut known = self.0.lock().await;
        known.retain(|_, (at, _)| at.elapsed() < HOLDS);
        if let Some((_, patterns)) = known.get(domain) {
            return Ok(patterns.clone());
        }
        let patterns = ask(store, domain, partitions.min(PARTITIONS_MAX)).await?;
        if known.len() < DOMAINS_MAX {
            known.insert(domain.to_owned(), (Instant::now(), patterns.clone()));
        }
        Ok(patterns)
    }
}

async fn ask(store: &Store, domain: &str, partitions: u32) -> Result<Patterns, LogError> {
    let mut asker = Asker::new(store, "dashboard").await?;
    let entry = Entry::Query(Query::Patterns { limit: PATTERNS_MAX as u32 });
    let asked = join_all((0..partitions).map(|index| {
        let (asker, entry, key) = (&asker, &entry, PartitionKey { domain: domain.to_owned(), index });
        async move { asker.ask(u64::from(index), &key, entry, WAITING_MAX).await.is_ok() }
    }))
    .await;
    let count = asked.iter().filter(|asked| **asked).count();
    // Whoever is late is left out; `answered` says so.
    let heard = asker.hear(count, DEADLINE).await;
    let found: Vec<(u64, Vec<PatternSummary>)> = heard
        .into_iter()
        .filter_map(|(partition, outcome)| match outcome {
            Outcome::Patterns(patterns) => Some((partition, patterns)),
            _ => None,
        })
        .collect();
    let answered = found.len() as u32;
    let mut patterns: Vec<LibraryPattern> = found
        .into_iter()
        .flat_map(|(partition, patterns)| patterns.into_iter().map(move |pattern| (partition, pattern)))
        .map(|(partition, pattern)| LibraryPattern::new(partition as u32, pattern))
        .collect();
    patterns.sort_by(|a, b| (b.support, a.partition, a.id).cmp(&(a.support, b.partition, b.id)));
    patterns.truncate(PATTERNS_MAX);
    Ok(Patterns { patterns, answered, asked: partitions })
}
