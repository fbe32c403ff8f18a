//! Keeps the history beyond the life of a leader: what it measured goes into the store every ten seconds, and whoever
//! leads next goes on from there.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hebb_log::{Batch, LogError, MAX_HISTORY_BYTES, MAX_SERIES_BYTES, Samples, Tier};
use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::history::{Bucket, Extract, History, Metric, Scope};
use crate::coordinator::Shared;
use crate::stop::Stop;

/// How often somebody looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what was measured is stored: a crash costs this much of it.
const RECORD_EVERY: Duration = Duration::from_secs(10);
/// How often what is old is pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Most hours that can be asked for where the history is kept.
pub const HOURS_KEPT: f64 = (Tier::Coarse.length() * Tier::Coarse.kept() / 3600) as f64;

/// How far a leader is with its store.
struct Keeper {
    term: u64,
    /// The newest span of each tier that was stored; it may not have been over yet.
    recorded: [u32; Tier::ALL.len()],
    recorded_at: Instant,
    pruned_at: Option<Instant>,
    is_cut: bool,
}

/// Keeps the history while this coordinator leads, until the stop.
pub async fn keep(shared: &Shared, mut stop: Stop) {
    let Some(store) = shared.store.history.clone() else { return };
    let mut keeper: Option<Keeper> = None;
    let mut is_failing = false;
    while !stop.is_asked() {
        match step(shared, &store, &mut keeper).await {
            Ok(()) => is_failing = false,
            Err(LogError::Fenced) => keeper = None,
            Err(error) if is_failing => debug!(%error, "the history still can't be kept"),
            Err(error) => {
                warn!(%error, "the history can't be kept at the moment; it stays in memory");
                is_failing = true;
            }
        }
        tokio::select! {
            () = stop.asked() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    if let Some(keeper) = &mut keeper
        && let Err(error) = keeper.record(shared, &store).await
    {
        debug!(%error, "the last seconds of the history aren't kept");
    }
}

type Store = Arc<dyn hebb_log::History>;

async fn step(shared: &Shared, store: &Store, keeper: &mut Option<Keeper>) -> Result<(), LogError> {
    let term = {
        let view = shared.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.leadership.as_ref().filter(|_| view.leads).map(|leadership| leadership.term)
    };
    let Some(term) = term else {
        *keeper = None;
        return Ok(());
    };
    let keeper = match keeper {
        Some(keeper) if keeper.term == term => keeper,
        _ => keeper.insert(load(shared, store, term).await?),
    };
    if keeper.pruned_at.is_none_or(|at| PRUNE_EVERY <= at.elapsed()) {
        for tier in Tier::ALL {
            let before = now().saturating_sub(tier.length() * tier.kept());
            let pruned = store.prune(term, tier, tier.beginning(before)).await?;
            debug!(pruned, seconds = tier.length(), "pruned the history");
        }
        keeper.pruned_at = Some(Instant::now());
    }
    if RECORD_EVERY <= keeper.recorded_at.elapsed() {
        keeper.record(shared, store).await?;
        keeper.recorded_at = Instant::now();
    }
    Ok(())
}

/// Takes up what the leaders before this one have kept.
async fn load(shared: &Shared, store: &Store, term: u64) -> Result<Keeper, LogError> {
    let (now, day) = (now(), (super::history::HOURS_MAX * 3600.0) as u32);
    let mut recorded = [0; Tier::ALL.len()];
    let mut spans = 0;
    for (tier, recorded) in Tier::ALL.into_iter().zip(&mut recorded) {
        let since = now.saturating_sub(day.min(tier.length() * tier.kept()));
        let batches = store.read(tier, None, since, now).await?;
        *recorded = batches.last().map_or(0, |batch| batch.at);
        spans += batches.len();
        let mut state = shared.board.state.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in &batches {
            state.history.take_up(tier, batch);
        }
    }
    info!(term, spans, "took up the history");
    let long_ago = Instant::now().checked_sub(RECORD_EVERY).unwrap_or_else(Instant::now);
    Ok(Keeper { term, recorded, recorded_at: long_ago, pruned_at: None, is_cut: false })
}

impl Keeper {
    /// Stores what was measured since the last time.
    async fn record(&mut self, shared: &Shared, store: &Store) -> Result<(), LogError> {
        for (tier, recorded) in Tier::ALL.into_iter().zip(&mut self.recorded) {
            let batches = {
                let state = shared.board.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.history.batches(tier, *recorded)
            };
            for (batch, left_out) in batches {
                if left_out > 0 && !self.is_cut {
                    warn!(left_out, "there is more to measure than the history takes; of these series nothing is kept");
                    self.is_cut = true;
                }
                store.record(self.term, tier, &batch).await?;
                *recorded = batch.at;
            }
        }
        Ok(())
    }
}

/// What is kept of a series since `hours` ago, further back than the memory of a leader reaches.
pub async fn extract(
    store: &Store,
    now: u32,
    scope: &Scope,
    metric: Metric,
    hours: f64,
) -> Result<Option<Extract>, LogError> {
    let tier = Tier::Coarse;
    let since = now.saturating_sub((hours.clamp(0.0, HOURS_KEPT) * 3600.0) as u32);
    let name = series_name(scope, metric);
    let batches = store.read(tier, Some(&name), tier.beginning(since), now).await?;
    let buckets: Vec<Bucket> = batches
        .iter()
        .flat_map(|batch| batch.series.iter().map(|(_, samples)| Bucket::of(batch.at, samples)))
        .collect();
    Ok((!buckets.is_empty()).then_some(Extract { resolution: tier.length(), buckets }))
}

/// The present in seconds since 1970.
pub fn now() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(u32::MAX)
}

/// The name under which a series is kept, for example `domain/electricity/accuracy`.
fn series_name(scope: &Scope, metric: Metric) -> String {
    match scope {
        Scope::Cluster => format!("cluster//{}", metric.name()),
        Scope::Domain(domain) => format!("domain/{domain}/{}", metric.name()),
        Scope::Node(node) => format!("node/{node}/{}", metric.name()),
    }
}

/// The series of a name; nothing where another version has measured something of its own.
fn series_of(name: &str) -> Option<(Scope, Metric)> {
    let (kind, rest) = name.split_once('/')?;
    let (whose, metric) = rest.rsplit_once('/')?;
    let scope = match kind {
        "cluster" => Scope::Cluster,
        "domain" => Scope::Domain(whose.to_owned()),
        "node" => Scope::Node(whose.to_owned()),
        _ => return None,
    };
    Some((scope, Metric::of(metric)?))
}

impl Bucket {
    fn of(at: u32, samples: &Samples) -> Self {
        let Samples { count, min, max, sum } = *samples;
        Self { at, count, min, max, sum }
    }
}

impl History {
    /// What was measured in the spans from that beginning on, oldest first, each with the number of series that didn't fit:
    /// domains that nobody declared are left out first, then nodes, other domains, and the cluster.
    fn batches(&self, tier: Tier, from: u32) -> Vec<(Batch, usize)> {
        let mut batches: std::collections::BTreeMap<u32, (Batch, usize, usize)> = std::collections::BTreeMap::new();
        let mut all: Vec<_> = self.series.iter().collect();
        all.sort_by_key(|((scope, _), _)| self.is_undeclared(scope));
        for ((scope, metric), series) in all {
            let name = series_name(scope, *metric);
            let bytes = Batch::bytes_of(&name);
            let newest_first = series.tiers[tier as usize].iter().rev();
            for bucket in newest_first.take_while(|bucket| from <= bucket.at) {
                let empty = || (Batch { at: bucket.at, series: Vec::new() }, 0, 0);
                let (batch, size, left_out) = batches.entry(bucket.at).or_insert_with(empty);
                if MAX_HISTORY_BYTES < *size + bytes || MAX_SERIES_BYTES < name.len() {
                    *left_out += 1;
                    continue;
                }
                *size += bytes;
                let Bucket { at: _, count, min, max, sum } = *bucket;
                batch.series.push((name.clone(), Samples { count, min, max, sum }));
            }
        }
        batches.into_values().map(|(batch, _, left_out)| (batch, left_out)).collect()
    }

    /// Puts what was kept beside what is known. Of a span that both know of, the one with more samples stands: the rest of
    /// it was measured under another leader.
    fn take_up(&mut self, tier: Tier, batch: &Batch) {
        for (name, samples) in &batch.series {
            let Some(key) = series_of(name) else { continue };
            if !self.has_room(&key) {
                continue;
            }
            let buckets = &mut self.series.entry(key).or_default().tiers[tier as usize];
            let bucket = Bucket::of(batch.at, samples);
            match buckets.binary_search_by_key(&batch.at, |bucket| bucket.at) {
                Ok(place) if buckets[place].count < bucket.count => buckets[place] = bucket,
                Ok(_) => {}
                Err(place) => buckets.insert(place, bucket),
            }
        }
        self.trim(tier as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(times: impl Iterator<Item = u32>) -> History {
        let mut history = History::default();
        for now in times {
            history.put(now, Scope::Cluster, Metric::Lag, Some(f64::from(now % 97)));
            history.put(now, Scope::Domain("a".to_owned()), Metric::Accuracy, Some(0.5));
            history.put(now, Scope::Node("w/0".to_owned()), Metric::MemoryBytes, Some(7.0));
        }
        history
    }

    #[test]
    fn what_was_stored_is_what_was_measured() {
        let history = measured((100_000..103_000).step_by(2));
        let mut restored = History::default();
        for tier in Tier::ALL {
            for (batch, left_out) in history.batches(tier, 0) {
                assert_eq!(left_out, 0);
                restored.take_up(tier, &batch);
                restored.take_up(tier, &batch);
            }
        }
        assert_eq!(restored, history);
        let newest: Vec<u32> = history.batches(Tier::Fine, 102_980).iter().map(|(batch, _)| batch.at).collect();
        assert_eq!(newest, [102_980, 102_990]);
    }

    #[test]
    fn a_new_leader_goes_on_where_the_one_before_it_was() {
        let (before, mut after) = (measured((90_000..90_130).step_by(2)), measured((90_136..90_140).step_by(2)));
        for tier in Tier::ALL {
            before.batches(tier, 0).iter().for_each(|(batch, _)| after.take_up(tier, batch));
        }
        let fine = after.extract(90_140, Scope::Cluster, Metric::Lag, 1.0).unwrap();
        assert_eq!(fine.buckets.first().map(|bucket| bucket.at), Some(90_000));
        assert_eq!(fine.buckets.last().map(|bucket| (bucket.at, bucket.count)), Some((90_130, 2)));
        let coarse = after.batches(Tier::Coarse, 0);
        assert_eq!(coarse.len(), 1);
        assert_eq!(coarse[0].0.series[0].1.count, 65, "the span goes on with what was kept of it");
    }

    #[test]
    fn a_batch_is_cut_at_its_bound_and_the_cluster_and_declared_domains_come_first() {
        let mut history = History::default();
        history.declared.insert("z".to_owned());
        for name in (0..300).map(|number| format!("a-domain-of-anybody-{number}")).chain(["z".to_owned()]) {
            history.put(50, Scope::Domain(name), Metric::Lag, Some(1.0));
        }
        for number in 0..600 {
            history.put(50, Scope::Node(format!("a-node-of-a-large-cluster-{number}")), Metric::MemoryBytes, Some(1.0));
        }
        history.put(50, Scope::Cluster, Metric::Lag, Some(1.0));
        let (batch, left_out) = history.batches(Tier::Fine, 0).remove(0);
        assert!(batch.bytes() <= MAX_HISTORY_BYTES && left_out > 0);
        let first: Vec<&str> = batch.series.iter().take(2).map(|(name, _)| name.as_str()).collect();
        assert_eq!((first, batch.series.len() + left_out), (vec!["cluster//lag", "domain/z/lag"], 902));
    }

    #[test]
    fn names_are_read_back() {
        for scope in [Scope::Cluster, Scope::Domain("a.b-c".to_owned()), Scope::Node("a/b".to_owned())] {
            assert_eq!(series_of(&series_name(&scope, Metric::Lag)), Some((scope, Metric::Lag)));
        }
        for other in ["", "cluster", "cluster//", "moon//lag", "domain/a/charm"] {
            assert_eq!(series_of(other), None);
        }
    }
}
