//! The history of a cluster's metrics in bounded memory: the last hour by 10 s, the last day by 5 min.
//!
//! Pure: time is an argument. What is asked of a history is computed in `analysis`, and `kept` stores it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hebb_log::Tier;
use serde::{Deserialize, Serialize};

use super::overview::Overview;
use crate::coordinator::{DomainStatus, foremost};

/// Length of a bucket in seconds, and how many are kept: an hour, and a day.
const TIERS: [(u32, usize); Tier::ALL.len()] = [(Tier::Fine.length(), 360), (Tier::Coarse.length(), 288)];
/// Most hours that can be asked for: what the longest tier holds.
pub const HOURS_MAX: f64 = 24.0;
/// Series of one history. One takes at most 648 buckets of 20 bytes, so that all take 13 MB.
const SERIES_MAX: usize = 1_000;
/// Undeclared domains with a history. A domain has nine series at most, so that these take less than half of all.
const UNDECLARED_MAX: usize = 50;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Prequential accuracy over all labels, 0 to 1.
    Accuracy,
    /// The same, fading.
    RecentAccuracy,
    /// Mean log-loss over all labels, in nats.
    LogLoss,
    /// The same over the labels since the sample before.
    RecentLogLoss,
    /// Cohen's kappa.
    Kappa,
    /// Mean absolute error over all labels.
    MeanAbsoluteError,
    /// Drifts detected within the bucket.
    Drifts,
    /// Events applied a second.
    EventsPerSecond,
    /// Entries appended and not yet applied.
    Lag,
    /// Patterns in the library.
    Patterns,
    /// Share of the vectors of a governed memory that were rejected lately.
    RejectionRate,
    /// Bytes: of a state in memory, of a process.
    MemoryBytes,
    /// Seconds: of a gateway the 99th percentile to an answer, of a worker the 95th to apply an entry.
    LatencySeconds,
    /// Workers that live.
    Workers,
    /// Partitions that nobody owns.
    Unowned,
    /// Requests answered a second.
    RequestsPerSecond,
    /// Share of the requests that were answered as they wished, 0 to 1.
    SuccessRate,
}

impl Metric {
    const ALL: [Metric; 17] = [
        Metric::Accuracy,
        Metric::RecentAccuracy,
        Metric::LogLoss,
        Metric::RecentLogLoss,
        Metric::Kappa,
        Metric::MeanAbsoluteError,
        Metric::Drifts,
        Metric::EventsPerSecond,
        Metric::Lag,
        Metric::Patterns,
        Metric::RejectionRate,
        Metric::MemoryBytes,
        Metric::LatencySeconds,
        Metric::Workers,
        Metric::Unowned,
        Metric::RequestsPerSecond,
        Metric::SuccessRate,
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::RecentAccuracy => "recent_accuracy",
            Metric::LogLoss => "log_loss",
            Metric::RecentLogLoss => "recent_log_loss",
            Metric::Kappa => "kappa",
            Metric::MeanAbsoluteError => "mean_absolute_error",
            Metric::Drifts => "drifts",
            Metric::EventsPerSecond => "events_per_second",
            Metric::Lag => "lag",
            Metric::Patterns => "patterns",
            Metric::RejectionRate => "rejection_rate",
            Metric::MemoryBytes => "memory_bytes",
            Metric::LatencySeconds => "latency_seconds",
            Metric::Workers => "workers",
            Metric::Unowned => "unowned",
            Metric::RequestsPerSecond => "requests_per_second",
            Metric::SuccessRate => "success_rate",
        }
    }

    /// The metric of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether samples add up within a bucket; of the others their mean tells.
    pub fn adds_up(self) -> bool {
        self == Metric::Drifts
    }

    /// The values that it can take.
    pub fn range(self) -> (f64, f64) {
        match self {
            Metric::Accuracy | Metric::RecentAccuracy | Metric::RejectionRate | Metric::SuccessRate => (0.0, 1.0),
            Metric::Kappa => (-1.0, 1.0),
            _ => (0.0, f64::INFINITY),
        }
    }
}

/// Whose metric it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The whole cluster's.
    Cluster,
    /// A domain's.
    Domain(String),
    /// A node's.
    Node(String),
}

/// The samples of a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its beginning in seconds since 1970; a whole number of its lengths.
    pub at: u32,
    /// How many samples.
    pub count: u16,
    /// The smallest.
    pub min: f32,
    /// The greatest.
    pub max: f32,
    /// Their sum.
    pub sum: f32,
}

impl Bucket {
    /// What stands for the bucket: the mean, or the sum of what adds up.
    pub fn value(&self, metric: Metric) -> f64 {
        let sum = f64::from(self.sum);
        if metric.adds_up() { sum } else { sum / f64::from(self.count.max(1)) }
    }

    /// Takes in the samples of another one.
    fn add(&mut self, other: &Bucket) {
        self.count = self.count.saturating_add(other.count);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }
}

/// One metric over time, in every tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) tiers: [VecDeque<Bucket>; TIERS.len()],
}

impl Series {
    fn record(&mut self, now: u32, value: f32) {
        let sample = Bucket { at: now, count: 1, min: value, max: value, sum: value };
        for ((length, kept), buckets) in TIERS.into_iter().zip(&mut self.tiers) {
            let at = now / length * length;
            match buckets.back_mut() {
                // A clock that was set back adds to the newest bucket rather than to disorder.
                Some(bucket) if at <= bucket.at => bucket.add(&sample),
                _ => buckets.push_back(Bucket { at, ..sample }),
            }
            while buckets.len() > kept {
                buckets.pop_front();
            }
        }
    }

    fn newest(&self) -> u32 {
        self.tiers.iter().filter_map(|buckets| buckets.back()).map(|bucket| bucket.at).max().unwrap_or(0)
    }
}

/// The domains with a history: every declared one, and as many of the others as leave room for those.
fn recorded(domains: &[DomainStatus]) -> impl Iterator<Item = &DomainStatus> {
    let declared = domains.iter().filter(|domain| domain.declared).count();
    foremost(domains, declared + UNDECLARED_MAX).into_iter()
}

/// The history of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub(super) series: BTreeMap<(Scope, Metric), Series>,
    /// The domains that are declared, as of the last sample.
    pub(super) declared: BTreeSet<String>,
}

/// Buckets of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Extract {
    /// Their length in seconds.
    pub resolution: u32,
    /// In the order of time, without empty ones.
    pub buckets: Vec<Bucket>,
}

impl Extract {
    /// The same by longer buckets: of so many seconds, or the next whole number of those that there are.
    pub fn by(self, step: u32) -> Self {
        let resolution = step.div_ceil(self.resolution).max(1).saturating_mul(self.resolution);
        let mut buckets: Vec<Bucket> = Vec::with_capacity(self.buckets.len());
        for bucket in self.buckets {
            let at = bucket.at / resolution * resolution;
            match buckets.last_mut() {
                Some(last) if last.at == at => last.add(&bucket),
                _ => buckets.push(Bucket { at, ..bucket }),
            }
        }
        Self { resolution, buckets }
    }
}

impl History {
    /// Takes in what the cluster looks like at `now`, in seconds since 1970.
    pub fn record(&mut self, now: u32, overview: &Overview) {
        let status = &overview.status;
        self.put(now, Scope::Cluster, Metric::Lag, Some(status.lag as f64));
        self.put(now, Scope::Cluster, Metric::EventsPerSecond, overview.events_per_second);
        self.put(now, Scope::Cluster, Metric::Workers, Some(status.workers.len() as f64));
        self.put(now, Scope::Cluster, Metric::Unowned, Some(status.unowned as f64));
        self.put(now, Scope::Cluster, Metric::LatencySeconds, status.answer_p99_seconds);
        self.put(now, Scope::Cluster, Metric::RequestsPerSecond, overview.requests_per_second);
        self.put(now, Scope::Cluster, Metric::SuccessRate, overview.success_rate);
        self.declared =
            status.domains.iter().filter(|domain| domain.declared).map(|domain| domain.name.clone()).collect();
        for domain in recorded(&status.domains) {
            let scope = || Scope::Domain(domain.name.clone());
            self.put(now, scope(), Metric::Lag, Some(domain.lag as f64));
            self.put(now, scope(), Metric::RecentAccuracy, domain.recent_accuracy);
            self.put(now, scope(), Metric::RejectionRate, domain.rejection_rate);
            self.put(now, scope(), Metric::Accuracy, domain.accuracy);
            self.put(now, scope(), Metric::LogLoss, domain.log_loss);
            self.put(now, scope(), Metric::MeanAbsoluteError, domain.mean_absolute_error);
            self.put(now, scope(), Metric::Patterns, domain.patterns.map(|patterns| patterns as f64));
            let Some(detail) = overview.details.get(&domain.name) else { continue };
            self.put(now, scope(), Metric::Drifts, detail.new_drifts.map(|drifts| drifts as f64));
            self.put(now, scope(), Metric::EventsPerSecond, detail.events_per_second);
            self.put(now, scope(), Metric::RecentLogLoss, detail.recent_log_loss);
            self.put(now, scope(), Metric::Kappa, detail.kappa);
            self.put(now, scope(), Metric::MemoryBytes, Some(detail.memory_bytes as f64));
        }
        for node in &overview.nodes {
            let scope = || Scope::Node(node.id.clone());
            self.put(now, scope(), Metric::MemoryBytes, (node.memory_bytes > 0).then_some(node.memory_bytes as f64));
            self.put(now, scope(), Metric::LatencySeconds, node.latency_seconds);
        }
        self.forget(now);
    }

    /// Whether these are the metrics of a domain that is there at a client's wish.
    pub(super) fn is_undeclared(&self, scope: &Scope) -> bool {
        matches!(scope, Scope::Domain(name) if !self.declared.contains(name))
    }

    pub(super) fn put(&mut self, now: u32, scope: Scope, metric: Metric, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        let key = (scope, metric);
        if !self.has_room(&key) {
            // The one that was silent longest gives way, unless all are alive.
            let silent = self.series.iter().min_by_key(|(_, series)| series.newest());
            match silent.filter(|(_, series)| series.newest() + 2 * TIERS[0].0 < now).map(|(key, _)| key.clone()) {
                Some(silent) => drop(self.series.remove(&silent)),
                None => return,
            }
        }
        self.series.entry(key).or_default().record(now, value as f32);
    }

    /// Whether a series is there, or can be.
    pub(super) fn has_room(&self, key: &(Scope, Metric)) -> bool {
        self.series.len() < SERIES_MAX || self.series.contains_key(key)
    }

    /// Drops the oldest buckets of a tier beyond those that it holds.
    pub(super) fn trim(&mut self, tier: usize) {
        let (_, kept) = TIERS[tier];
        for series in self.series.values_mut() {
            let buckets = &mut series.tiers[tier];
            buckets.drain(..buckets.len().saturating_sub(kept));
        }
    }

    /// Drops what no longer can be asked for.
    fn forget(&mut self, now: u32) {
        let oldest = now.saturating_sub((HOURS_MAX * 3600.0) as u32);
        self.series.retain(|_, series| oldest <= series.newest());
    }

    /// The series that there are.
    pub fn names(&self) -> impl Iterator<Item = &(Scope, Metric)> {
        self.series.keys()
    }

    /// The buckets since `hours` ago, of the finest tier that reaches back as far as anything is known.
    pub fn extract(&self, now: u32, scope: Scope, metric: Metric, hours: f64) -> Option<Extract> {
        let since = now.saturating_sub((hours.clamp(0.0, HOURS_MAX) * 3600.0) as u32);
        let series = self.series.get(&(scope, metric))?;
        let known_since = series.tiers.iter().filter_map(|buckets| Some(buckets.front()?.at)).min()?.max(since);
        let reaches = |(length, buckets): &(u32, &VecDeque<Bucket>)| {
            buckets.front().is_some_and(|bucket| bucket.at <= known_since + TIERS[TIERS.len() - 1].0.max(*length))
        };
        let tiers = || TIERS.iter().map(|(length, _)| *length).zip(&series.tiers);
        let (resolution, buckets) = tiers().find(reaches).or_else(|| tiers().next_back())?;
        let buckets = buckets.iter().filter(|bucket| since < bucket.at + resolution).copied().collect();
        Some(Extract { resolution, buckets })
    }
}

#[cfg(test)]
mod tests {
    use hebb_engine::Task;
    use proptest::prelude::*;

    use super::*;

    fn put(history: &mut History, now: u32, value: f64) {
        history.put(now, Scope::Cluster, Metric::Lag, Some(value));
    }

    #[test]
    fn a_bucket_holds_the_samples_of_its_span() {
        let mut history = History::default();
        for (now, value) in [(1_000, 4.0), (1_004, 1.0), (1_009, 7.0), (1_010, 5.0)] {
            put(&mut history, now, value);
        }
        let extract = history.extract(1_010, Scope::Cluster, Metric::Lag, 1.0).unwrap();
        assert_eq!(extract.resolution, 10);
        assert_eq!(
            extract.buckets,
            [
                Bucket { at: 1_000, count: 3, min: 1.0, max: 7.0, sum: 12.0 },
                Bucket { at: 1_010, count: 1, min: 5.0, max: 5.0, sum: 5.0 }
            ]
        );
    }

    #[test]
    fn an_hour_comes_by_ten_seconds_and_a_day_by_five_minutes() {
        let mut history = History::default();
        let end = 2 * 86_400;
        for now in (0..end).step_by(10) {
            put(&mut history, now, f64::from(now));
        }
        let hour = history.extract(end, Scope::Cluster, Metric::Lag, 1.0).unwrap();
        assert_eq!((hour.resolution, hour.buckets.len()), (10, 360));
        let day = history.extract(end, Scope::Cluster, Metric::Lag, 24.0).unwrap();
        assert_eq!((day.resolution, day.buckets.len()), (300, 288));
        assert_eq!(day.buckets.first().map(|bucket| bucket.at), Some(86_400));
    }

    #[test]
    fn longer_buckets_hold_the_same_samples() {
        let mut history = History::default();
        for now in 1_000..1_060 {
            put(&mut history, now, f64::from(now - 1_000));
        }
        let extract = || history.extract(1_060, Scope::Cluster, Metric::Lag, 1.0).unwrap();
        assert_eq!(extract().by(1), extract());
        let longer = extract().by(25);
        assert_eq!(longer.resolution, 30);
        assert_eq!(
            longer.buckets,
            [
                Bucket { at: 990, count: 20, min: 0.0, max: 19.0, sum: 190.0 },
                Bucket { at: 1_020, count: 30, min: 20.0, max: 49.0, sum: 1_035.0 },
                Bucket { at: 1_050, count: 10, min: 50.0, max: 59.0, sum: 545.0 },
            ]
        );
    }

    #[test]
    fn a_young_history_comes_by_ten_seconds_however_much_is_asked_for() {
        let mut history = History::default();
        for now in (50_000..51_000).step_by(10) {
            put(&mut history, now, 1.0);
        }
        assert_eq!(history.extract(51_000, Scope::Cluster, Metric::Lag, 24.0).unwrap().resolution, 10);
    }

    #[test]
    fn a_series_that_is_silent_gives_way_and_one_that_lives_does_not() {
        let mut history = History::default();
        let node = |number: usize| Scope::Node(format!("worker-{number}"));
        for number in 0..SERIES_MAX {
            history.put(1_000, node(number), Metric::MemoryBytes, Some(1.0));
        }
        history.put(1_000, node(SERIES_MAX), Metric::MemoryBytes, Some(1.0));
        assert!(history.extract(1_000, node(SERIES_MAX), Metric::MemoryBytes, 1.0).is_none());
        history.put(1_100, node(SERIES_MAX), Metric::MemoryBytes, Some(1.0));
        assert!(history.extract(1_100, node(SERIES_MAX), Metric::MemoryBytes, 1.0).is_some());
        assert_eq!(history.names().count(), SERIES_MAX);
        history.forget(1_100 + 25 * 3600);
        assert_eq!(history.names().count(), 0);
    }

    #[test]
    fn undeclared_domains_leave_room_for_declared_ones() {
        let domain = |name: String, declared| DomainStatus {
            name,
            task: Task::Regression,
            declared,
            events: if declared { 0 } else { 9 },
            labels: 0,
            learned: 0,
            accuracy: None,
            recent_accuracy: None,
            log_loss: None,
            mean_absolute_error: None,
            patterns: None,
            knn_failure_rate: None,
            kl_divergence: None,
            rejection_rate: None,
            drifts: 0,
            lag: 0,
            partitions: Vec::new(),
        };
        let others = (0..1_000).map(|number| domain(format!("a{number}"), false));
        let domains: Vec<_> = others.chain((0..70).map(|number| domain(format!("z{number}"), true))).collect();
        let names: Vec<&str> = recorded(&domains).map(|domain| domain.name.as_str()).collect();
        assert_eq!(names.iter().filter(|name| name.starts_with('z')).count(), 70);
        assert_eq!(names.len(), 70 + UNDECLARED_MAX);
    }

    #[test]
    fn names_are_read_back() {
        for metric in Metric::ALL {
            assert_eq!(Metric::of(metric.name()), Some(metric));
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
        }
    }

    proptest! {
        #[test]
        fn buckets_stay_in_order_and_within_their_number(times in prop::collection::vec(0u32..200_000, 1..400)) {
            let mut history = History::default();
            for now in &times {
                put(&mut history, *now, 1.0);
            }
            let series = &history.series[&(Scope::Cluster, Metric::Lag)];
            for ((length, kept), buckets) in TIERS.iter().zip(&series.tiers) {
                prop_assert!(buckets.len() <= *kept);
                prop_assert!(buckets.iter().all(|bucket| bucket.at % length == 0));
                prop_assert!(buckets.iter().zip(buckets.iter().skip(1)).all(|(a, b)| a.at < b.at));
            }
        }
    }
}
