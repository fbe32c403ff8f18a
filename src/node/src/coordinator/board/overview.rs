//! The cluster at a glance: the status, and what only people look at. Pure; the time is an argument.

use std::collections::{BTreeMap, VecDeque};

use hebb_engine::{Statistics, Task};
use serde::{Deserialize, Serialize};

use crate::coordinator::ClusterStatus;
use crate::coordinator::status::Said;
use crate::memory::Memory;
use crate::report::{CLASSES_MAX, PartitionReport};

/// Digits that a gateway's id ends with: another number in every life of its process.
const LIFE_DIGITS: usize = 8;

/// Seconds that a rate is taken over: a point of the history, so that both agree.
const RATE_OVER: f64 = 10.0;
/// Seconds in which what didn't fit is news.
const NEWS_FOR: u64 = 3_600;

/// The whole cluster, as people look at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// When, in seconds since 1970.
    pub at: u32,
    /// What the status API says.
    #[serde(flatten)]
    pub status: ClusterStatus,
    /// Events applied a second over the last ten seconds, of all domains.
    pub events_per_second: Option<f64>,
    /// Requests answered a second since the sample before, by all gateways.
    #[serde(default)]
    pub requests_per_second: Option<f64>,
    /// Share of them that were answered as they wished, 0 to 1.
    #[serde(default)]
    pub success_rate: Option<f64>,
    /// Alerts that fire, of the policies that tell this leader.
    #[serde(default)]
    pub firing: u64,
    /// The nodes that live.
    pub nodes: Vec<Node>,
    /// More about each domain, by name.
    pub details: BTreeMap<String, DomainDetail>,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads.
    Coordinator,
    /// Takes events in.
    Gateway,
    /// Learns.
    Worker,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id; a gateway's without the number of its life.
    pub id: String,
    /// What it does.
    pub role: Role,
    /// Resident bytes; 0 where its system doesn't say.
    pub memory_bytes: u64,
    /// What it may take, if that is limited.
    pub memory_limit: Option<u64>,
    /// Of a gateway the 99th percentile of the time to an answer over the last minute, of a worker the 95th of the time
    /// to apply an entry.
    pub latency_seconds: Option<f64>,
    /// When its process started, in seconds since 1970; unknown of a node of an older version.
    pub started_at: Option<u32>,
    /// How often its process was started anew under this id since the leader began to lead.
    pub restarts: u32,
}

/// What the engine says of a domain, over all partitions whose owners report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainDetail {
    /// Events applied a second over the last ten seconds.
    pub events_per_second: Option<f64>,
    /// Drifts detected since the sample before: for the history.
    #[serde(skip)]
    pub new_drifts: Option<u64>,
    /// Labels that updated a learner.
    pub updates: u64,
    /// Entries that repeated an event's id.
    pub duplicates: u64,
    /// Entries that did not fit.
    pub rejected: u64,
    /// Those of the last hour, as far as this leader has seen it.
    #[serde(default)]
    pub rejected_lately: u64,
    /// Experiences in memory.
    pub experiences: u64,
    /// Features of the widest partition's schema.
    pub features: u32,
    /// Bytes of the states in memory, estimated.
    pub memory_bytes: u64,
    /// Mean log-loss in nats over the labels since the sample before; of classes.
    pub recent_log_loss: Option<f64>,
    /// Cohen's kappa, weighted by the partitions' labels.
    pub kappa: Option<f64>,
    /// The classes seen, the first fifty.
    pub classes: Vec<String>,
    /// How many classes were seen.
    pub class_count: u64,
    /// The longest of the partitions' last checkpoints, in milliseconds.
    pub checkpoint_ms: u64,
}

/// A domain's name and a partition's number.
type Partition = (String, u32);

/// Makes overviews, and remembers of the one before what the next is compared with.
#[derive(Debug, Default)]
pub struct Observer {
    /// The looks that rates are taken over, oldest first, with their times.
    looks: VecDeque<(f64, BTreeMap<Partition, Totals>)>,
    rejections: BTreeMap<String, Rejections>,
    /// The requests answered by each gateway and life, and those that failed.
    answered: BTreeMap<String, (u64, u64)>,
    lives: BTreeMap<String, Life>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    events: u64,
    labels: u64,
    drifts: u64,
    log_loss: f64,
}

impl From<&Statistics> for Totals {
    fn from(of: &Statistics) -> Self {
        let log_loss = of.log_loss * of.labels as f64;
        Self { events: of.events, labels: of.labels, drifts: of.drifts, log_loss }
    }
}

impl Totals {
    /// With what a partition has grown by since `before`. One that was told to begin anew has not grown.
    fn grown(self, now: Totals, before: Totals) -> Self {
        Self {
            events: self.events + now.events.saturating_sub(before.events),
            labels: self.labels + now.labels.saturating_sub(before.labels),
            drifts: self.drifts + now.drifts.saturating_sub(before.drifts),
            log_loss: self.log_loss + (now.log_loss - before.log_loss).max(0.0),
        }
    }
}

/// What didn't fit into a domain, as far as it was seen to happen.
#[derive(Debug, Default)]
struct Rejections {
    /// Whether the leader has known the domain from its beginning, so that all that it tells of is news.
    is_new: bool,
    /// The most that each partition has told of: one that is between two owners tells nothing for a while.
    known: BTreeMap<u32, u64>,
    /// How many came in which minute since 1970, oldest first.
    came: VecDeque<(u64, u64)>,
}

impl Rejections {
    /// Takes in what the partitions tell at `now`, in seconds since 1970, and says how many came in the last hour.
    fn take(&mut self, now: u64, partitions: &[&PartitionReport]) -> u64 {
        let mut new = 0;
        for report in partitions {
            let told = report.statistics.rejected;
            let known = self.known.entry(report.index).or_insert(if self.is_new { 0 } else { told });
            new += told.saturating_sub(*known);
            *known = told.max(*known);
        }
        match self.came.back_mut() {
            Some((minute, count)) if *minute == now / 60 => *count += new,
            _ if new > 0 => self.came.push_back((now / 60, new)),
            _ => {}
        }
        while self.came.front().is_some_and(|(minute, _)| minute * 60 + NEWS_FOR < now) {
            self.came.pop_front();
        }
        self.came.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Clone, Copy, Debug)]
struct Life {
    started_at: u32,
    restarts: u32,
}

impl Observer {
    /// The cluster at `now`; the leading coordinator started at `leader_started_at`. Both in seconds since 1970.
    pub fn observe(&mut self, now: f64, status: ClusterStatus, said: &Said<'_>, leader_started_at: u32) -> Overview {
        // Before its first look, and while another leads, a coordinator doesn't see what becomes of a domain.
        let is_first = self.looks.back().is_none_or(|(at, _)| now - at > RATE_OVER);
        // A clock that was set back begins anew.
        self.looks.retain(|(at, _)| *at < now);
        while self.looks.get(1).is_some_and(|(at, _)| *at <= now - RATE_OVER) {
            self.looks.pop_front();
        }
        let elapsed = self.looks.back().map(|(at, _)| now - at);
        let mut totals = BTreeMap::new();
        let mut details = BTreeMap::new();
        let mut all_rates = None;
        for domain in &status.domains {
            let partitions: Vec<&PartitionReport> = said.newest(&domain.name).into_values().collect();
            let mut detail = describe(domain.task, &partitions);
            let mut growth: Option<Totals> = None;
            for partition in &partitions {
                let (key, total) = ((domain.name.clone(), partition.index), Totals::from(&partition.statistics));
                // What a partition had learned before anybody looked is not new.
                let known = |(at, totals): &(f64, BTreeMap<Partition, Totals>)| Some((*at, *totals.get(&key)?));
                if let Some((at, before)) = self.looks.iter().find_map(known) {
                    let new = total.events.saturating_sub(before.events) as f64;
                    *detail.events_per_second.get_or_insert(0.0) += new / (now - at);
                }
                if let Some((_, before)) = self.looks.back().and_then(known) {
                    growth = Some(growth.unwrap_or_default().grown(total, before));
                }
                totals.insert(key, total);
            }
            if let Some(rate) = detail.events_per_second {
                *all_rates.get_or_insert(0.0) += rate;
            }
            detail.new_drifts = growth.map(|growth| growth.drifts);
            let labelled = growth.filter(|growth| growth.labels > 0 && domain.log_loss.is_some());
            detail.recent_log_loss = labelled.map(|growth| growth.log_loss / growth.labels as f64);
            let rejections = self
                .rejections
                .entry(domain.name.clone())
                .or_insert_with(|| Rejections { is_new: !is_first, ..Rejections::default() });
            detail.rejected_lately = rejections.take(now as u64, &partitions);
            details.insert(domain.name.clone(), detail);
        }
        self.rejections.retain(|name, _| details.contains_key(name));
        self.looks.push_back((now, totals));
        let nodes = self.nodes(&status.leader, leader_started_at, said);
        let (answered, failed) = self.requests(said);
        Overview {
            at: now as u32,
            status,
            events_per_second: all_rates,
            requests_per_second: answered.zip(elapsed).map(|(answered, elapsed)| answered as f64 / elapsed),
            success_rate: answered.filter(|answered| *answered > 0).map(|all| 1.0 - failed as f64 / all as f64),
            firing: 0,
            nodes,
            details,
        }
    }

    /// How many requests were answered since the look before, and how many of them failed. What a gateway that is new did
    /// before this look isn't known to lie in that time.
    fn requests(&mut self, said: &Said<'_>) -> (Option<u64>, u64) {
        let counts = said.gateways.iter().map(|(id, report)| (id.clone(), (report.answered, report.failed)));
        let before = std::mem::replace(&mut self.answered, counts.collect());
        let known = self.answered.iter().filter_map(|(id, now)| Some((before.get(id)?, now)));
        known.fold((None, 0), |(answered, failed), (before, now)| {
            let (new, new_failed) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            (Some(answered.unwrap_or(0) + new), failed + new_failed)
        })
    }

    fn nodes(&mut self, leader: &str, leader_started_at: u32, said: &Said<'_>) -> Vec<Node> {
        let node = |id: &str, role, memory: Memory, latency_seconds, started_at: u32| Node {
            id: id.to_owned(),
            role,
            memory_bytes: memory.bytes,
            memory_limit: memory.limit,
            latency_seconds,
            started_at: (started_at > 0).then_some(started_at),
            restarts: 0,
        };
        let mut nodes = vec![node(leader, Role::Coordinator, said.own, None, leader_started_at)];
        nodes.extend(said.gateways.iter().map(|(id, report)| {
            node(without_life(id), Role::Gateway, report.memory, report.answer_p99_seconds, report.started_at)
        }));
        nodes.extend(
            said.workers
                .iter()
                .map(|(id, report)| node(id, Role::Worker, report.memory, report.apply_p95_seconds, report.started_at)),
        );
        // A gateway that was started anew beats under both ids for some seconds.
        nodes.sort_by(|a, b| (a.role, &a.id, b.started_at).cmp(&(b.role, &b.id, a.started_at)));
        nodes.dedup_by(|a, b| (a.role, &a.id) == (b.role, &b.id));
        let mut lives = BTreeMap::new();
        for node in &mut nodes {
            let key = format!("{:?} {}", node.role, node.id);
            let started_at = node.started_at.unwrap_or(0);
            let known = self.lives.get(&key).copied().unwrap_or(Life { started_at, restarts: 0 });
            let is_anew = known.started_at < started_at;
            let life = Life {
                started_at: known.started_at.max(started_at),
                restarts: known.restarts + u32::from(is_anew && known.started_at > 0),
            };
            node.restarts = life.restarts;
            lives.insert(key, life);
        }
        // Who is gone for a moment is remembered as long as there aren't too many.
        if self.lives.len() <= 4 * lives.len().max(16) {
            lives.extend(
                self.lives
                    .iter()
                    .filter(|(key, _)| !lives.contains_key(*key))
                    .map(|(key, life)| (key.clone(), *life))
                    .collect::<Vec<_>>(),
            );
        }
        self.lives = lives;
        nodes
    }
}

fn without_life(id: &str) -> &str {
    match id.rsplit_once('-') {
        Some((name, life)) if life.len() == LIFE_DIGITS && life.bytes().all(|digit| digit.is_ascii_hexdigit()) => name,
        _ => id,
    }
}

fn describe(task: Task, partitions: &[&PartitionReport]) -> DomainDetail {
    let statistics = || partitions.iter().map(|report| &report.statistics);
    let sum = |field: fn(&Statistics) -> u64| statistics().map(field).sum::<u64>();
    let labels = sum(|one| one.labels);
    let weighed = |field: fn(&Statistics) -> f64| statistics().map(|one| field(one) * one.labels as f64).sum::<f64>();
    let mut classes: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for class in statistics().flat_map(|one| &one.classes) {
        if seen.insert(class.as_str()) && classes.len() < CLASSES_MAX {
            classes.push(class.clone());
        }
    }
    DomainDetail {
        events_per_second: None,
        new_drifts: None,
        updates: sum(|one| one.updates),
        duplicates: sum(|one| one.duplicates),
        rejected: sum(|one| one.rejected),
        rejected_lately: 0,
        experiences: sum(|one| one.experiences),
        features: statistics().map(|one| one.features).max().unwrap_or(0),
        memory_bytes: sum(|one| one.memory_bytes),
        recent_log_loss: None,
        kappa: (task.has_classes() && labels > 0).then(|| weighed(|one| one.kappa) / labels as f64),
        // A report names some; of those that it leaves out, at least one partition has seen so many.
        class_count: partitions.iter().map(|report| report.class_count).fold(seen.len() as u64, u64::max),
        classes,
        checkpoint_ms: partitions.iter().map(|report| report.checkpoint_ms).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::DomainStatus;
    use crate::report::{GatewayReport, WorkerReport};

    fn status(domains: &[(&str, Task)]) -> ClusterStatus {
        let domains = domains.iter().map(|(name, task)| DomainStatus {
            name: (*name).to_owned(),
            task: *task,
            declared: false,
            events: 0,
            labels: 0,
            learned: 0,
            accuracy: None,
            recent_accuracy: None,
            log_loss: task.has_classes().then_some(0.5),
            mean_absolute_error: None,
            patterns: None,
            knn_failure_rate: None,
            kl_divergence: None,
            rejection_rate: None,
            drifts: 0,
            lag: 0,
            partitions: Vec::new(),
        });
        ClusterStatus {
            leader: "coordinator-0".to_owned(),
            term: 1,
            workers: Vec::new(),
            domains: domains.collect(),
            lag: 0,
            unowned: 0,
            answer_p99_seconds: None,
            apply_p95_seconds: None,
            memory_bytes: 0,
            memory_ratio: None,
            meta: BTreeMap::new(),
        }
    }

    fn partition(domain: &str, index: u32, epoch: u64, statistics: Statistics) -> PartitionReport {
        PartitionReport {
            domain: domain.to_owned(),
            index,
            epoch,
            state_bytes: 0,
            checkpoint_ms: 0,
            class_count: 0,
            learned: 0,
            statistics,
        }
    }

    fn said(workers: &[(String, WorkerReport)]) -> Said<'_> {
        Said { workers, held: &[], gateways: &[], own: Memory::default(), meta: BTreeMap::new() }
    }

    fn worker(partitions: Vec<PartitionReport>) -> [(String, WorkerReport); 1] {
        [("worker-0".to_owned(), WorkerReport { partitions, ..WorkerReport::default() })]
    }

    #[test]
    fn rates_and_the_recent_loss_are_of_the_time_between_two_looks() {
        let statistics = |events, labels, log_loss| Statistics { events, labels, log_loss, ..Statistics::default() };
        let mut observer = Observer::default();
        let first = worker(vec![partition("a", 0, 1, statistics(100, 100, 0.5))]);
        let looked = observer.observe(10.0, status(&[("a", Task::Classification)]), &said(&first), 1);
        assert_eq!((looked.events_per_second, looked.details["a"].recent_log_loss), (None, None));
        let second = worker(vec![partition("a", 0, 1, statistics(300, 200, 0.3))]);
        let looked = observer.observe(12.0, status(&[("a", Task::Classification)]), &said(&second), 1);
        assert_eq!((looked.events_per_second, looked.details["a"].events_per_second), (Some(100.0), Some(100.0)));
        assert!(looked.details["a"].recent_log_loss.is_some_and(|loss| (loss - 0.1).abs() < 1e-9));
        let lost = observer.observe(14.0, status(&[("a", Task::Classification)]), &said(&[]), 1);
        assert_eq!(lost.details["a"].events_per_second, None, "what nobody knows tells nothing");
    }

    #[test]
    fn what_was_learned_before_somebody_looked_is_not_new() {
        let statistics = |events| Statistics { events, labels: events, drifts: events / 100, ..Statistics::default() };
        let mut observer = Observer::default();
        let mut look = |now, partitions: &[(u32, u64)]| {
            let partitions = partitions.iter().map(|(index, events)| partition("a", *index, 1, statistics(*events)));
            let workers = worker(partitions.collect());
            let looked = observer.observe(now, status(&[("a", Task::Classification)]), &said(&workers), 1);
            (looked.events_per_second, looked.details["a"].new_drifts)
        };
        assert_eq!(look(10.0, &[]), (None, None), "a restart: no owner has reported yet");
        assert_eq!(look(12.0, &[(0, 1_000)]), (None, None), "what it has learned, it has learned before");
        assert_eq!(look(14.0, &[(0, 1_200), (1, 5_000)]), (Some(100.0), Some(2)));
        assert_eq!(look(16.0, &[(0, 1_200), (1, 5_100)]), (Some(100.0), Some(1)));
    }

    #[test]
    fn a_rate_is_of_the_last_ten_seconds_however_uneven_they_were() {
        let mut observer = Observer::default();
        let mut look = |now: f64, events: u64| {
            let statistics = Statistics { events, ..Statistics::default() };
            let workers = worker(vec![partition("a", 0, 1, statistics)]);
            observer.observe(now, status(&[("a", Task::Regression)]), &said(&workers), 1).events_per_second
        };
        let counts = [0, 900, 900, 900, 900, 1_000, 1_000, 1_000];
        let rates: Vec<_> = (0u32..).zip(counts).map(|(turn, events)| look(f64::from(turn) * 2.0, events)).collect();
        assert_eq!(rates[..2], [None, Some(450.0)]);
        assert_eq!(rates[5..], [Some(100.0), Some(10.0), Some(10.0)]);
        assert_eq!(look(1.0, 1_000), None, "a clock that was set back");
    }

    #[test]
    fn what_did_not_fit_is_news_for_an_hour_and_what_was_before_is_none() {
        let mut observer = Observer::default();
        let mut look = |now: f64, told: &[(&str, u32, u64)]| {
            let reports = told.iter().map(|(domain, index, rejected)| {
                partition(domain, *index, 1, Statistics { rejected: *rejected, ..Statistics::default() })
            });
            let workers = worker(reports.collect());
            let mut names: Vec<&str> = told.iter().map(|(name, ..)| *name).collect();
            names.dedup();
            let domains: Vec<_> = names.into_iter().map(|name| (name, Task::Regression)).collect();
            let looked = observer.observe(now, status(&domains), &said(&workers), 1);
            looked.details.values().map(|detail| detail.rejected_lately).collect::<Vec<_>>()
        };
        assert_eq!(look(1_000.0, &[("a", 0, 5), ("a", 1, 2)]), [0], "before this leader");
        assert_eq!(look(1_002.0, &[("a", 0, 6), ("a", 1, 2), ("b", 0, 1)]), [1, 1], "one that begins with it");
        assert_eq!(look(1_004.0, &[("a", 0, 6), ("b", 0, 1)]), [1, 1]);
        assert_eq!(look(1_006.0, &[("a", 0, 6), ("a", 1, 2), ("b", 0, 1)]), [1, 1], "a handover makes no news");
        assert_eq!(look(4_000.0, &[("a", 0, 6), ("a", 1, 4), ("b", 0, 1)]), [3, 1]);
        assert_eq!(look(4_700.0, &[("a", 0, 6), ("a", 1, 4), ("b", 0, 1)]), [2, 0]);
    }

    #[test]
    fn the_success_rate_is_of_the_requests_between_two_looks() {
        let mut observer = Observer::default();
        let gateway = |id: &str, answered, failed| {
            (id.to_owned(), GatewayReport { answered, failed, ..GatewayReport::default() })
        };
        let mut look = |now, gateways: &[(String, GatewayReport)]| {
            let said = Said { workers: &[], held: &[], gateways, own: Memory::default(), meta: BTreeMap::new() };
            let looked = observer.observe(now, status(&[]), &said, 1);
            (looked.requests_per_second, looked.success_rate)
        };
        assert_eq!(look(10.0, &[gateway("a", 100, 50)]), (None, None));
        assert_eq!(look(12.0, &[gateway("a", 108, 51), gateway("b", 70, 70)]), (Some(4.0), Some(0.875)));
        assert_eq!(look(14.0, &[gateway("a", 108, 51), gateway("b", 70, 70)]), (Some(0.0), None));
        assert_eq!(look(16.0, &[]), (None, None));
    }

    #[test]
    fn after_a_handover_the_newer_epoch_counts_once() {
        let events = |events| Statistics { events, rejected: 1, ..Statistics::default() };
        let workers = [
            (
                "old".to_owned(),
                WorkerReport { partitions: vec![partition("a", 0, 3, events(7))], ..WorkerReport::default() },
            ),
            (
                "new".to_owned(),
                WorkerReport { partitions: vec![partition("a", 0, 4, events(9))], ..WorkerReport::default() },
            ),
        ];
        let looked = Observer::default().observe(1.0, status(&[("a", Task::Regression)]), &said(&workers), 1);
        assert_eq!(looked.details["a"].rejected, 1);
        assert_eq!(looked.details["a"].kappa, None, "there are no classes");
    }

    #[test]
    fn a_node_that_starts_anew_is_counted_and_a_new_one_is_not() {
        let mut observer = Observer::default();
        let gateway = |id: &str, started_at| (id.to_owned(), GatewayReport { started_at, ..GatewayReport::default() });
        let mut look = |gateways: &[(String, GatewayReport)]| {
            let said = Said { workers: &[], held: &[], gateways, own: Memory::default(), meta: BTreeMap::new() };
            observer.observe(1.0, status(&[]), &said, 1).nodes
        };
        assert_eq!(look(&[gateway("gateway-a-0011aabb", 5)])[1].restarts, 0);
        let both = look(&[gateway("gateway-a-0011aabb", 5), gateway("gateway-a-ffffffff", 9)]);
        assert_eq!(both.len(), 2, "two lives of one gateway are one node: {both:?}");
        assert_eq!((both[1].id.as_str(), both[1].restarts, both[1].started_at), ("gateway-a", 1, Some(9)));
        look(&[]);
        assert_eq!(look(&[gateway("gateway-a-ffffffff", 9)])[1].restarts, 1);
    }
}
