//! The state of a cluster as one value: what the status API answers and the operator reads.

use std::collections::BTreeMap;

use hebb_engine::{Statistics, Task};
use hebb_log::{Domain, Leadership, PartitionKey, PartitionStatus};
use serde::{Deserialize, Serialize};

use crate::memory::Memory;
use crate::report::{GatewayReport, PartitionReport, WorkerReport};

/// The whole cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The id of the leading coordinator.
    pub leader: String,
    /// The fencing number of its leadership.
    pub term: u64,
    /// The workers that live.
    pub workers: Vec<WorkerStatus>,
    /// The known domains.
    pub domains: Vec<DomainStatus>,
    /// Entries appended and not yet applied, of all partitions.
    pub lag: u64,
    /// Partitions that nobody owns.
    pub unowned: u64,
    /// 99th percentile of the time to an answer over the last minute, in seconds, of the slowest gateway.
    #[serde(default)]
    pub answer_p99_seconds: Option<f64>,
    /// 95th percentile of the time to apply an entry over the last minute, in seconds, of the slowest worker.
    #[serde(default)]
    pub apply_p95_seconds: Option<f64>,
    /// Memory of the largest process in bytes: gateways, workers and the coordinator that leads.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Memory of the fullest process, as a share of its limit; nothing where none has a limit.
    #[serde(default)]
    pub memory_ratio: Option<f64>,
    /// Indicators of meta-learning, by the names that rules give them. One that can't be told is missing.
    #[serde(default)]
    pub meta: BTreeMap<String, f64>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its id.
    pub id: String,
    /// How many partitions it owns.
    pub partitions: u64,
    /// Entries that wait for it.
    pub lag: u64,
    /// Whether it is leaving.
    pub draining: bool,
}

/// One domain, summed over its partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainStatus {
    /// Its name.
    pub name: String,
    /// Its task.
    pub task: Task,
    /// Whether `spec.domains` names it; others are there at the wish of a client.
    #[serde(default)]
    pub declared: bool,
    /// Distinct events applied.
    pub events: u64,
    /// Labels seen.
    pub labels: u64,
    /// Labels that updated a learner, signals whose patterns were learned, or vectors that were accepted, by the task.
    #[serde(default)]
    pub learned: u64,
    /// Prequential accuracy, 0 to 1; classification only, and nothing before the first label.
    #[serde(default)]
    pub accuracy: Option<f64>,
    /// The same with a fading factor of 0.999 an event, weighted by the partitions' labels.
    #[serde(default)]
    pub recent_accuracy: Option<f64>,
    /// Mean log-loss in nats, weighted likewise; classification only, and nothing before the first label.
    #[serde(default)]
    pub log_loss: Option<f64>,
    /// Mean absolute error, weighted likewise; regression only, and nothing before the first label.
    #[serde(default)]
    pub mean_absolute_error: Option<f64>,
    /// Patterns in the libraries; of a domain of signals.
    #[serde(default)]
    pub patterns: Option<u64>,
    /// Share of the look-ups of neighbours that found none: a mean over the partitions, weighted by their events.
    #[serde(default)]
    pub knn_failure_rate: Option<f64>,
    /// Divergence of the answers from the usual ones, in nats; a mean likewise.
    #[serde(default)]
    pub kl_divergence: Option<f64>,
    /// Share of the vectors of a governed memory that were rejected lately; a mean likewise.
    #[serde(default)]
    pub rejection_rate: Option<f64>,
    /// Drifts detected.
    pub drifts: u64,
    /// Entries appended and not yet applied.
    pub lag: u64,
    /// Its partitions.
    pub partitions: Vec<PartitionView>,
}

/// Up to `most` domains, for places where there is no room for all: declared ones first, then those with the most events. So
/// nobody pushes a declared one out by making others.
pub fn foremost(domains: &[DomainStatus], most: usize) -> Vec<&DomainStatus> {
    let mut domains: Vec<&DomainStatus> = domains.iter().collect();
    domains.sort_by(|a, b| (b.declared, b.events, &a.name).cmp(&(a.declared, a.events, &b.name)));
    domains.truncate(most);
    domains
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionView {
    /// Its number.
    pub index: u32,
    /// Who owns it.
    pub owner: Option<String>,
    /// The newest epoch.
    pub epoch: u64,
    /// Entries appended and not yet applied.
    pub lag: u64,
    /// Bytes of the last checkpoint.
    pub state_bytes: u64,
    /// How often it has learned; nothing before an owner has told this leader.
    #[serde(default)]
    pub learned: Option<u64>,
}

/// What the nodes say of themselves.
pub struct Said<'a> {
    /// The workers, with their ids.
    pub workers: &'a [(String, WorkerReport)],
    /// The newest reports of the partitions as of the look before: what nobody reports now is what it was then.
    pub held: &'a [PartitionReport],
    /// The gateways, with their ids.
    pub gateways: &'a [(String, GatewayReport)],
    /// The memory of this coordinator.
    pub own: Memory,
    /// Indicators of meta-learning.
    pub meta: BTreeMap<String, f64>,
}

impl Said<'_> {
    /// The newest reports of a domain's partitions, by index. One that is further in its log is newer: an owner that replays
    /// counts again from its checkpoint on. Right after a handover two workers may report; the newer epoch counts.
    pub fn newest(&self, domain: &str) -> BTreeMap<u32, &PartitionReport> {
        let mut newest: BTreeMap<u32, &PartitionReport> = BTreeMap::new();
        let reported = self.workers.iter().flat_map(|(_, worker)| &worker.partitions);
        for report in self.held.iter().chain(reported).filter(|report| report.domain == domain) {
            let known = newest.entry(report.index).or_insert(report);
            let age = |report: &PartitionReport| (report.statistics.position, report.epoch);
            if age(known) <= age(report) {
                *known = report;
            }
        }
        newest
    }

    /// What the next look holds: the newest reports of the partitions of these domains.
    pub fn hold(&self, domains: &[Domain]) -> Vec<PartitionReport> {
        let newest = domains.iter().flat_map(|domain| {
            self.newest(&domain.name).into_values().filter(|report| report.index < domain.partitions)
        });
        newest.cloned().collect()
    }
}

/// Puts together what the store and the nodes say.
pub fn summarise(
    leadership: &Leadership,
    domains: &[Domain],
    partitions: &[PartitionKey],
    views: &[PartitionStatus],
    said: &Said<'_>,
) -> ClusterStatus {
    let reports = said.workers;
    let memories = || {
        let others = said.workers.iter().map(|(_, worker)| worker.memory);
        others.chain(said.gateways.iter().map(|(_, gateway)| gateway.memory)).chain([said.own])
    };
    let greatest = |numbers: &mut dyn Iterator<Item = f64>| numbers.max_by(f64::total_cmp);
    let by_key: BTreeMap<&PartitionKey, &PartitionStatus> = partitions.iter().zip(views).collect();
    let workers = reports
        .iter()
        .map(|(id, report)| {
            let owned = views.iter().filter(|view| view.owner.as_ref() == Some(id));
            WorkerStatus {
                id: id.clone(),
                partitions: owned.clone().count() as u64,
                lag: owned.map(|view| view.waiting).sum(),
                draining: report.draining,
            }
        })
        .collect();
    let domains = domains.iter().map(|domain| domain_status(domain, &by_key, said)).collect();
    ClusterStatus {
        leader: leadership.leader.clone(),
        term: leadership.term,
        workers,
        domains,
        lag: views.iter().map(|view| view.waiting).sum(),
        unowned: views.iter().filter(|view| view.owner.is_none()).count() as u64,
        answer_p99_seconds: greatest(&mut said.gateways.iter().filter_map(|(_, gateway)| gateway.answer_p99_seconds)),
        apply_p95_seconds: greatest(&mut reports.iter().filter_map(|(_, worker)| worker.apply_p95_seconds)),
        memory_bytes: memories().map(|memory| memory.bytes).max().unwrap_or(0),
        memory_ratio: greatest(&mut memories().filter_map(|memory| memory.ratio())),
        meta: said.meta.clone(),
    }
}

fn domain_status(domain: &Domain, views: &BTreeMap<&PartitionKey, &PartitionStatus>, said: &Said<'_>) -> DomainStatus {
    let task = domain.config.task;
    let mut status = DomainStatus {
        name: domain.name.clone(),
        task,
        declared: false,
        events: 0,
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
    let newest = said.newest(&domain.name);
    let (mut correct, mut patterns) = (0, 0);
    let (mut recent, mut log_loss, mut error) = (Mean::default(), Mean::default(), Mean::default());
    let (mut failures, mut divergence, mut rejections) = (Mean::default(), Mean::default(), Mean::default());
    for index in 0..domain.partitions {
        let key = PartitionKey { domain: domain.name.clone(), index };
        let Some(view) = views.get(&key) else { continue };
        let report = newest.get(&index);
        let nothing = Statistics::default();
        let statistics = report.map_or(&nothing, |report| &report.statistics);
        status.events += statistics.events;
        status.labels += statistics.labels;
        status.learned += report.map_or(0, |report| report.learned);
        status.drifts += statistics.drifts;
        correct += statistics.correct;
        patterns += statistics.patterns;
        recent.add(Some(statistics.recent_accuracy), statistics.labels);
        log_loss.add(Some(statistics.log_loss), statistics.labels);
        error.add(Some(statistics.mean_absolute_error), statistics.labels);
        failures.add(statistics.knn_failure_rate, statistics.events);
        divergence.add(statistics.kl_divergence, statistics.events);
        rejections.add(statistics.rejection_rate, statistics.events);
        status.lag += view.waiting;
        status.partitions.push(PartitionView {
            index,
            owner: view.owner.clone(),
            epoch: view.epoch,
            lag: view.waiting,
            state_bytes: report.map_or(0, |report| report.state_bytes),
            learned: report.map(|report| report.learned),
        });
    }
    if task.has_classes() {
        status.accuracy = (status.labels > 0).then(|| correct as f64 / status.labels as f64);
        (status.recent_accuracy, status.log_loss) = (recent.value(), log_loss.value());
    }
    status.mean_absolute_error = error.value().filter(|_| task == Task::Regression);
    status.patterns = (task == Task::Patterns).then_some(patterns);
    (status.knn_failure_rate, status.kl_divergence) = (failures.value(), divergence.value());
    status.rejection_rate = rejections.value();
    status
}

/// A weighted mean of what is known.
#[derive(Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: Option<f64>, weight: u64) {
        if let Some(value) = value {
            self.sum += value * weight as f64;
            self.weight += weight as f64;
        }
    }

    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use hebb_engine::{EntryId, PartitionConfig};

    use super::*;

    #[test]
    fn each_task_has_its_own_measure_weighted_by_labels_and_no_other() {
        let domain = |name: &str, task, partitions| Domain {
            name: name.to_owned(),
            partitions,
            config: PartitionConfig::new(task),
        };
        let domains = [
            domain("classes", Task::Classification, 2),
            domain("numbers", Task::Regression, 1),
            domain("signals", Task::Patterns, 1),
            domain("unlabelled", Task::Classification, 1),
        ];
        let report = |domain: &str, index, labels, recent_accuracy| PartitionReport {
            domain: domain.to_owned(),
            index,
            epoch: 1,
            state_bytes: 0,
            checkpoint_ms: 0,
            class_count: 0,
            learned: 7,
            statistics: Statistics {
                labels,
                recent_accuracy,
                correct: labels / 2,
                log_loss: 1.0 - recent_accuracy,
                mean_absolute_error: 2.5,
                patterns: 7,
                ..Statistics::default()
            },
        };
        let partitions = vec![
            report("classes", 0, 300, 0.9),
            report("classes", 1, 100, 0.5),
            report("numbers", 0, 10, 0.0),
            report("signals", 0, 0, 0.0),
            report("unlabelled", 0, 0, 0.0),
        ];
        let keys: Vec<PartitionKey> = partitions
            .iter()
            .map(|report| PartitionKey { domain: report.domain.clone(), index: report.index })
            .collect();
        let view =
            PartitionStatus { waiting: 0, length: 0, owner: None, epoch: 1, checkpointed: None, checkpoint_bytes: 0 };
        let views = vec![view; keys.len()];
        let workers = [("worker-0".to_owned(), WorkerReport { partitions, ..WorkerReport::default() })];
        let leader = Leadership { leader: String::new(), address: String::new(), term: 1 };
        let said = Said { workers: &workers, held: &[], gateways: &[], own: Memory::default(), meta: BTreeMap::new() };
        let status = summarise(&leader, &domains, &keys, &views, &said);
        let measures = |domain: &DomainStatus| {
            let rounded = |value: Option<f64>| value.map(|value| (value * 1e6).round() / 1e6);
            (
                rounded(domain.accuracy),
                rounded(domain.recent_accuracy),
                rounded(domain.log_loss),
                domain.mean_absolute_error,
                domain.patterns,
            )
        };
        assert_eq!(measures(&status.domains[0]), (Some(0.5), Some(0.8), Some(0.2), None, None));
        assert_eq!(measures(&status.domains[1]), (None, None, None, Some(2.5), None));
        assert_eq!(measures(&status.domains[2]), (None, None, None, None, Some(7)));
        assert_eq!(measures(&status.domains[3]), (None, None, None, None, None), "no label, no measure");
        assert_eq!((status.domains[0].learned, status.domains[1].learned), (14, 7), "of all partitions");
    }

    #[test]
    fn what_nobody_reports_is_what_it_was() {
        let domain = Domain { name: "a".to_owned(), partitions: 2, config: PartitionConfig::new(Task::Classification) };
        let report = |index, epoch, position, events| PartitionReport {
            domain: "a".to_owned(),
            index,
            epoch,
            state_bytes: 0,
            checkpoint_ms: 0,
            class_count: 0,
            learned: 0,
            statistics: Statistics { events, position: EntryId { at_ms: position, seq: 0 }, ..Statistics::default() },
        };
        let mut held = Vec::new();
        let mut look = |partitions: Vec<PartitionReport>| {
            let workers = [("worker-0".to_owned(), WorkerReport { partitions, ..WorkerReport::default() })];
            let said =
                Said { workers: &workers, held: &held, gateways: &[], own: Memory::default(), meta: BTreeMap::new() };
            let events: u64 = said.newest("a").values().map(|report| report.statistics.events).sum();
            held = said.hold(std::slice::from_ref(&domain));
            events
        };
        assert_eq!(look(vec![report(0, 1, 100, 100), report(1, 1, 50, 50), report(2, 1, 9, 9)]), 159);
        assert_eq!(look(vec![report(1, 1, 51, 51)]), 151, "a partition that was lost; and one that there is no more");
        assert_eq!(look(vec![report(0, 2, 80, 80), report(1, 1, 51, 51)]), 151, "its new owner replays");
        assert_eq!(look(vec![report(0, 2, 104, 104), report(1, 1, 51, 51)]), 155);
        assert_eq!(look(vec![report(0, 2, 105, 1), report(1, 1, 51, 51)]), 52, "it was told to begin anew");
    }

    #[test]
    fn the_slowest_and_the_fullest_speak_for_the_cluster() {
        let memory = |bytes, limit| Memory { bytes, limit };
        let gateway = |memory, answer_p99_seconds| {
            ("gateway".to_owned(), GatewayReport { memory, answer_p99_seconds, ..GatewayReport::default() })
        };
        let gateways = [gateway(memory(10, Some(100)), Some(0.2)), gateway(memory(20, None), None)];
        let worker =
            WorkerReport { memory: memory(90, Some(300)), apply_p95_seconds: Some(0.01), ..WorkerReport::default() };
        let workers = [("worker-0".to_owned(), worker)];
        let leader = Leadership { leader: String::new(), address: String::new(), term: 1 };
        let said = Said {
            workers: &workers,
            held: &[],
            gateways: &gateways,
            own: memory(40, Some(50)),
            meta: BTreeMap::new(),
        };
        let status = summarise(&leader, &[], &[], &[], &said);
        assert_eq!((status.answer_p99_seconds, status.apply_p95_seconds), (Some(0.2), Some(0.01)));
        assert_eq!((status.memory_bytes, status.memory_ratio), (90, Some(0.8)));
        assert_eq!(status.workers.len(), 1, "a gateway is no worker");
        let nobody = Said { workers: &[], held: &[], gateways: &[], own: memory(40, None), meta: BTreeMap::new() };
        let status = summarise(&leader, &[], &[], &[], &nobody);
        assert_eq!((status.answer_p99_seconds, status.memory_ratio), (None, None), "what can't be told is missing");
    }
}
