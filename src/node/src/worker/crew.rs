//! The workers of one process: as many as are said, or as the queue asks for within bounds.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use futures::future::try_join_all;
use hebb_api::AutoscalingSpec;
use hebb_api::scaling::{self, Load, Sample};
use hebb_log::{Domain, LogError, PartitionKey};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Worker, WorkerOptions};
use crate::stop::{Stop, Stopper, stop_channel};
use crate::store::Store;
use crate::task::Task;

/// How often the queue is looked at, and whether the workers still run.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// As long as a window of `spec.workers.autoscaling` can be.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// A gap after which what was seen before says nothing.
const GAP_MAX: Duration = Duration::from_secs(10);

/// How many workers a process runs.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerCount {
    /// Always as many, one at least.
    Fixed(u16),
    /// As the queue asks for.
    ByQueue {
        /// As many at first.
        first: u16,
        /// The bounds, and how the number changes.
        scaling: AutoscalingSpec,
    },
}

impl From<u16> for WorkerCount {
    fn from(count: u16) -> Self {
        Self::Fixed(count)
    }
}

impl WorkerCount {
    fn first(&self) -> usize {
        usize::from(*match self {
            Self::Fixed(count) => count,
            Self::ByQueue { first, .. } => first,
        })
        .max(1)
    }
}

/// Workers that share a process, and so its health and its metrics.
pub struct Crew {
    /// The first, and what the others are made like.
    model: Worker,
}

struct Running {
    number: u64,
    stopper: Stopper,
    task: Task,
}

impl Crew {
    /// Workers that wait to be run. The first has the id of the options, the others have it with a number.
    ///
    /// # Errors
    /// A metric that can't be registered.
    pub fn new(store: Store, options: WorkerOptions) -> Result<Self, prometheus::Error> {
        Ok(Self { model: Worker::new(store, options)? })
    }

    /// Health and metrics of all of them.
    pub fn router(&self) -> Router {
        self.model.router()
    }

    /// Works until the stop; returns when everybody has handed over what they owned.
    pub async fn run(&self, count: WorkerCount, mut stop: Stop) {
        let (mut running, mut leaving) = (Vec::new(), Vec::<Task>::new());
        let mut queue = Queue::default();
        let mut started = 0;
        let mut wanted = count.first();
        while !stop.is_asked() {
            leaving.retain(|task| !task.is_finished());
            for worker in running.iter_mut().filter(|worker: &&mut Running| worker.task.is_finished()) {
                warn!(number = worker.number, "a worker failed; it is started again");
                *worker = self.start(worker.number);
            }
            while running.len() < wanted {
                running.push(self.start(started));
                started += 1;
            }
            for Running { stopper, task, .. } in running.drain(wanted..) {
                stopper.stop();
                leaving.push(task);
            }
            tokio::select! {
                () = stop.asked() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let WorkerCount::ByQueue { scaling, .. } = &count
                && !stop.is_asked()
            {
                queue.look(&self.model.context.store).await;
                wanted = decide(scaling, running.len(), leaving.is_empty(), &queue);
            }
        }
        for Running { stopper, task, .. } in running {
            stopper.stop();
            leaving.push(task);
        }
        for task in leaving {
            if task.ended().await.is_err() {
                warn!("a worker failed while it was stopped");
            }
        }
    }

    fn start(&self, number: u64) -> Running {
        let worker = match number {
            0 => self.model.clone(),
            _ => self.model.beside(format!("{}-{number}", self.model.context.worker)),
        };
        let (stopper, stop) = stop_channel();
        Running { number, stopper, task: Task::spawn(async move { worker.run(stop).await }) }
    }
}

fn decide(spec: &AutoscalingSpec, current: usize, settled: bool, queue: &Queue) -> usize {
    let current = i32::try_from(current).unwrap_or(i32::MAX);
    let decision = scaling::decide(spec, current, settled, &queue.load(Instant::now()));
    if decision.desired != current {
        info!(workers = decision.desired, reason = decision.reason, message = decision.message, "scaling");
    }
    usize::try_from(decision.desired).unwrap_or_default().max(1)
}

/// How many entries waited lately.
#[derive(Default)]
struct Queue {
    /// The oldest first.
    seen: VecDeque<(Instant, u64)>,
    partitions: u64,
}

impl Queue {
    async fn look(&mut self, store: &Store) {
        match waiting(store).await {
            Ok((waiting, partitions)) => self.take(Instant::now(), waiting, partitions),
            Err(error) => debug!(%error, "how many entries wait isn't known"),
        }
    }

    fn take(&mut self, now: Instant, waiting: u64, partitions: u64) {
        if self.seen.back().is_some_and(|(at, _)| now.duration_since(*at) > GAP_MAX) {
            self.seen.clear();
        }
        while self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > REMEMBERED) {
            self.seen.pop_front();
        }
        self.seen.push_back((now, waiting));
        self.partitions = partitions;
    }

    fn load(&self, now: Instant) -> Load {
        let since = |at: Option<&(Instant, u64)>| at.map_or(Duration::ZERO, |(at, _)| now.duration_since(*at));
        let sample = |(at, waiting): &(Instant, u64)| Sample { age: now - *at, min: *waiting, max: *waiting };
        Load {
            samples: self.seen.iter().rev().map(sample).collect(),
            known_for: since(self.seen.front()),
            silent_for: since(self.seen.back()),
            partitions: self.partitions,
        }
    }
}

/// How many entries wait, and in how many partitions they could.
async fn waiting(store: &Store) -> Result<(u64, u64), LogError> {
    let domains = store.directory.domains().await?;
    let partitions: Vec<PartitionKey> = domains.iter().flat_map(Domain::keys).collect();
    let statuses = try_join_all(partitions.iter().map(|key| store.log.status(key))).await?;
    Ok((statuses.iter().map(|status| status.waiting).sum(), partitions.len() as u64))
}

#[cfg(test)]
mod tests {
    use hebb_api::Duration as Span;

    use super::*;

    fn spec() -> AutoscalingSpec {
        let mut spec = AutoscalingSpec { max_replicas: 5, queue_depth_per_worker: 10, ..AutoscalingSpec::default() };
        spec.scale_down.stabilization = Span::from_secs(6);
        spec
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_calls_workers_and_sends_them_away_after_the_window() {
        let mut queue = Queue::default();
        let mut workers = 2;
        let mut seen = Vec::new();
        for waiting in [0, 45, 45, 0, 0, 0, 0, 0, 0] {
            tokio::time::advance(LOOK_EVERY).await;
            queue.take(Instant::now(), waiting, 8);
            workers = decide(&spec(), workers, true, &queue);
            seen.push(workers);
        }
        assert_eq!(seen[..4], [2, 5, 5, 5], "grows at once, and a dip changes nothing");
        assert_eq!(seen.last(), Some(&2), "{seen:?}");
        // What was seen before a gap says nothing about now.
        queue.take(Instant::now(), 45, 8);
        tokio::time::advance(GAP_MAX * 2).await;
        queue.take(Instant::now(), 0, 8);
        assert_eq!(queue.load(Instant::now()).samples.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_workers_are_made_than_there_are_partitions() {
        let mut queue = Queue::default();
        queue.take(Instant::now(), 1_000, 3);
        assert_eq!(decide(&spec(), 2, true, &queue), 3);
    }
}
