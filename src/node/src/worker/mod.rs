//! A worker: beats, reads the assignment, owns the partitions that it names.
//!
//! The assignment is advice. What a worker owns is decided by the claims of its [`owner`] tasks, so two workers that
//! follow different assignments for a while do no harm.

mod crew;
mod fallback;
mod owner;
mod pace;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hebb_engine::Governance;
use hebb_log::{Domain, LogError, Member, PartitionKey};
use hebb_telemetry::metrics;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

pub use self::crew::{Crew, WorkerCount};
pub use self::owner::LEASE;
use crate::gateway::{expose, families};
use crate::health::Health;
use crate::memory::Memory;
use crate::report::{PartitionReport, WorkerReport, started_at};
use crate::stop::{Stop, Stopper, stop_channel};
use crate::store::Store;
use crate::task::Task;
use crate::window::Window;

/// How often a worker beats.
const BEAT_EVERY: Duration = Duration::from_millis(700);
/// Three beats and a bit: one lost beat is no death.
const BEAT_TTL: Duration = Duration::from_millis(2500);
/// How often a worker looks for a new assignment; part of the time to recover.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Entries that are taken for waiting although they are applied, at most.
const PROGRESS_EVERY_MAX: u64 = 16;
/// A partition's report is renewed at most this often.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What a worker is told.
pub struct WorkerOptions {
    /// Its id, unique among the workers that live.
    pub id: String,
    /// How often a partition is checkpointed at most.
    pub checkpoint_interval: Duration,
    /// How governed memories are run.
    pub governance: Governance,
    /// Most entries of a partition that may wait.
    pub max_queue_size: u64,
    /// Whether to let entries go that only a newer version can read, where its checkpoint can't be read either.
    pub skip_unreadable: bool,
}

/// What the owners say of their partitions.
#[derive(Default)]
pub struct Board {
    reports: Mutex<BTreeMap<PartitionKey, (Instant, PartitionReport)>>,
    broken: Mutex<BTreeMap<PartitionKey, Trouble>>,
}

/// Why a partition can't be served.
struct Trouble {
    why: String,
    /// Until when that counts although the partition reports; without it, until it does.
    until: Option<Instant>,
}

impl Trouble {
    fn outlasts(&self, report: Instant) -> bool {
        self.until.is_some_and(|until| report < until)
    }
}

impl Board {
    fn put(&self, key: &PartitionKey, report: impl FnOnce() -> PartitionReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.get(key).is_some_and(|(at, _)| at.elapsed() < REPORT_EVERY) {
            return;
        }
        let now = Instant::now();
        reports.insert(key.clone(), (now, report()));
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.get(key).is_some_and(|trouble| !trouble.outlasts(now)) {
            broken.remove(key);
        }
    }

    fn remove(&self, key: &PartitionKey) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// The partition is no longer this worker's, so neither is its trouble.
    fn forget(&self, key: &PartitionKey) {
        self.remove(key);
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// The partition can't be served. One that fails again and again works for a moment each time: `until` then it counts
    /// as broken whatever it reports.
    fn broken(&self, key: &PartitionKey, why: String, until: Option<Instant>) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.insert(key.clone(), Trouble { why, until });
    }

    fn trouble(&self) -> Option<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.values().next().map(|trouble| trouble.why.clone())
    }

    fn partitions(&self) -> Vec<PartitionReport> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.values().map(|(_, report)| report.clone()).collect()
    }
}

/// What a worker counts.
#[derive(Clone)]
pub struct WorkerMetrics {
    registry: Registry,
    tasks_processed: IntCounter,
    checkpoint_seconds: Histogram,
    partitions: IntGauge,
    apply_seconds: Arc<Window>,
}

impl WorkerMetrics {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let tasks_processed = IntCounter::new("tasks_processed", "Entries applied since the process started")?;
        let checkpoint_seconds = Histogram::with_opts(
            HistogramOpts::new("hebb_checkpoint_seconds", "Time to snapshot and store a partition, in seconds")
                .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0]),
        )?;
        let partitions = IntGauge::new("hebb_owned_partitions", "Partitions that this worker owns")?;
        registry.register(Box::new(tasks_processed.clone()))?;
        registry.register(Box::new(checkpoint_seconds.clone()))?;
        registry.register(Box::new(partitions.clone()))?;
        Ok(Self { registry, tasks_processed, checkpoint_seconds, partitions, apply_seconds: Arc::default() })
    }

    fn applied(&self, entries: u32, took: Duration) {
        self.tasks_processed.inc_by(u64::from(entries));
        self.apply_seconds.observe(took.as_secs_f64() / f64::from(entries.max(1)), entries);
    }

    fn checkpointed(&self, cost: Duration) {
        self.checkpoint_seconds.observe(cost.as_secs_f64());
    }
}

/// What one worker adds to a gauge of its process.
struct Share {
    gauge: IntGauge,
    value: i64,
}

impl Share {
    fn set(&mut self, value: i64) {
        self.gauge.add(value - self.value);
        self.value = value;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A worker and its HTTP routes.
#[derive(Clone)]
pub struct Worker {
    context: Arc<owner::OwnerContext>,
    health: Health,
    /// Its part of the health.
    part: Cow<'static, str>,
}

/// An owner task that runs.
struct Running {
    domain: watch::Sender<Domain>,
    stopper: Stopper,
    task: Task,
}

impl Worker {
    /// A worker that waits to be run.
    ///
    /// # Errors
    /// A metric that can't be registered.
    pub fn new(store: Store, options: WorkerOptions) -> Result<Self, prometheus::Error> {
        let metrics = WorkerMetrics::new()?;
        let (health, part) = (Health::default(), Cow::Borrowed("membership"));
        health.expect(part.clone());
        let context = owner::OwnerContext {
            store,
            worker: options.id,
            board: Arc::new(Board::default()),
            metrics,
            checkpoint_interval: options.checkpoint_interval,
            governance: options.governance,
            skip_unreadable: options.skip_unreadable,
            // Of a queue that is short, a small part makes the difference between full and not.
            progress_every: (options.max_queue_size / 64).clamp(1, PROGRESS_EVERY_MAX),
            turn: owner::TURN,
            restart_after: owner::RESTART_AFTER,
        };
        Ok(Self { context: Arc::new(context), health, part })
    }

    /// Another worker of the same process, which shares health and metrics.
    fn beside(&self, id: String) -> Self {
        let part: Cow<'static, str> = format!("membership of {id}").into();
        self.health.expect(part.clone());
        let context = owner::OwnerContext { worker: id, board: Arc::default(), ..(*self.context).clone() };
        Self { context: Arc::new(context), health: self.health.clone(), part }
    }

    /// Health and metrics.
    pub fn router(&self) -> Router {
        let registry = self.context.metrics.registry.clone();
        let offered = registry.clone();
        metrics::offer("worker", move || families(&offered).unwrap_or_default());
        let metrics = move || std::future::ready(expose(families(&registry)));
        self.health.router().route("/metrics", get(metrics))
    }

    /// Works until the stop; then checkpoints and releases everything before it returns.
    pub async fn run(&self, stop: Stop) {
        let mut running: BTreeMap<PartitionKey, Running> = BTreeMap::new();
        let mut leaving: Vec<Task> = Vec::new();
        let mut beaten_at: Option<Instant> = None;
        let mut owned = Share { gauge: self.context.metrics.partitions.clone(), value: 0 };
        while !stop.is_asked() {
            if beaten_at.is_none_or(|at| at.elapsed() >= BEAT_EVERY) {
                self.beat(false, &mut owned).await;
                beaten_at = Some(Instant::now());
            }
            match self.wanted().await {
                Ok(wanted) => self.follow(&mut running, &mut leaving, wanted),
                Err(error) => self.health.fails(self.part.clone(), error.to_string()),
            }
            leaving.retain(|task| !task.is_finished());
            let mut stop = stop.clone();
            tokio::select! {
                () = stop.asked() => {}
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
        }
        self.drain(running, leaving, owned).await;
    }

    async fn beat(&self, draining: bool, owned: &mut Share) {
        let partitions = self.context.board.partitions();
        owned.set(partitions.len() as i64);
        let apply_p95_seconds = self.context.metrics.apply_seconds.quantile(0.95);
        let report =
            WorkerReport { draining, partitions, memory: Memory::now(), apply_p95_seconds, started_at: started_at() };
        let member = Member { id: self.context.worker.clone(), report: report.encode() };
        match (self.context.store.directory.beat(&member, BEAT_TTL).await, self.context.board.trouble()) {
            (Ok(()), None) => self.health.works(self.part.clone()),
            (Ok(()), Some(trouble)) => self.health.fails(self.part.clone(), trouble),
            (Err(error), _) => self.health.fails(self.part.clone(), error.to_string()),
        }
    }

    /// The partitions that this worker should own, with their domains.
    async fn wanted(&self) -> Result<BTreeMap<PartitionKey, Domain>, LogError> {
        let directory = &self.context.store.directory;
        let assignment = directory.assignment().await?;
        let mine: Vec<PartitionKey> = assignment
            .owners
            .into_iter()
            .filter(|(_, owner)| *owner == self.context.worker)
            .map(|(key, _)| key)
            .collect();
        if mine.is_empty() {
            return Ok(BTreeMap::new());
        }
        let domains: BTreeMap<String, Domain> =
            directory.domains().await?.into_iter().map(|domain| (domain.name.clone(), domain)).collect();
        Ok(mine.into_iter().filter_map(|key| domains.get(&key.domain).cloned().map(|domain| (key, domain))).collect())
    }

    /// Starts what is new, stops what is no longer wanted, restarts what failed, and passes changed domains on.
    fn follow(
        &self,
        running: &mut BTreeMap<PartitionKey, Running>,
        leaving: &mut Vec<Task>,
        wanted: BTreeMap<PartitionKey, Domain>,
    ) {
        let gone: Vec<PartitionKey> = running.keys().filter(|key| !wanted.contains_key(key)).cloned().collect();
        for key in gone {
            if let Some(owner) = running.remove(&key) {
                owner.stopper.stop();
                leaving.push(owner.task);
            }
        }
        for (key, domain) in wanted {
            if running.get(&key).is_some_and(|owner| owner.task.is_finished()) {
                warn!(partition = %key, "the owner task failed; starting it again");
                running.remove(&key);
            }
            match running.get(&key) {
                Some(owner) => {
                    owner.domain.send_if_modified(|known| {
                        let changed = *known != domain;
                        if changed {
                            *known = domain;
                        }
                        changed
                    });
                }
                None => {
                    let (stopper, stop) = stop_channel();
                    let (sender, receiver) = watch::channel(domain);
                    let task = Task::spawn(owner::own(self.context.clone(), key.clone(), receiver, stop));
                    running.insert(key, Running { domain: sender, stopper, task });
                }
            }
        }
    }

    async fn drain(&self, running: BTreeMap<PartitionKey, Running>, mut leaving: Vec<Task>, mut owned: Share) {
        info!(partitions = running.len(), "draining");
        // Said first, so that the coordinator gives the partitions to others while they are checkpointed.
        self.beat(true, &mut owned).await;
        for owner in running.into_values() {
            owner.stopper.stop();
            leaving.push(owner.task);
        }
        for task in leaving {
            if task.ended().await.is_err() {
                warn!("an owner task failed while it was stopped");
            }
        }
        if let Err(error) = self.context.store.directory.leave(&self.context.worker).await {
            warn!(%error, "could not sign off; the heartbeat expires by itself");
        }
        self.health.ends(&self.part);
    }
}
