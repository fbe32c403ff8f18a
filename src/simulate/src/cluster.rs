//! The processes of a cluster: each a role of `hebb-node` as it is, with a way to the store that can be cut.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hebb_engine::{Governance, Hyperparameters, PartitionConfig, Task as Problem};
use hebb_log::Domain;
use hebb_node::coordinator::{Coordinator, CoordinatorOptions};
use hebb_node::gateway::{Gateway, GatewayOptions};
use hebb_node::worker::{Worker, WorkerOptions};
use hebb_node::{MetaLearning, Stop, Stopper, stop_channel};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::info;

use crate::network::{Link, Network};
use crate::settings::Settings;

/// The one domain.
pub const DOMAIN: &str = "simulated";
/// Most entries of a partition that may wait; the default of a LearningCluster.
pub const QUEUE_MAX: u64 = 1_000;
/// How long a process may take to leave before it is killed: a pod's grace.
const GRACE: Duration = Duration::from_secs(30);

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It owns partitions.
    Worker,
    /// It stands for leader.
    Coordinator,
    /// It takes requests.
    Gateway,
}

/// A role can't be made; nothing of the outside world is involved, so this doesn't happen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A metric is registered twice.
    #[error("a metric can't be registered")]
    Metrics(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The coordinator's HTTP client, which is never used here.
    #[error("an HTTP client can't be made")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One life of a process.
struct Life {
    link: Link,
    stopper: Stopper,
    task: JoinHandle<()>,
    /// What clients reach, of a gateway.
    door: Option<Door>,
}

/// The door of a gateway, as clients see it.
#[derive(Clone)]
pub struct Door {
    /// Its API.
    pub router: Router,
    /// Wakes every connection when the process dies, in the order in which they were made: a `watch` would draw lots.
    broken: Arc<Notify>,
    link: Link,
}

impl Door {
    /// Returns when the process is dead.
    pub async fn broken(&self) {
        let mut broken = pin!(self.broken.notified());
        broken.as_mut().enable();
        if !self.link.is_dead() {
            broken.await;
        }
    }
}

struct Process {
    role: Role,
    lives: u64,
    life: Option<Life>,
}

/// All processes. Clones are the same ones.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    network: Network,
    settings: Settings,
    processes: Mutex<BTreeMap<String, Process>>,
}

impl Cluster {
    /// A cluster of which nothing runs yet.
    pub fn new(network: Network, settings: &Settings) -> Self {
        let named = |role: Role, name: &str, count: u32| {
            let process = move |number| (format!("{name}-{number}"), Process { role, lives: 0, life: None });
            (0..count).map(process).collect::<Vec<_>>()
        };
        let processes = [
            named(Role::Worker, "worker", settings.workers),
            named(Role::Coordinator, "coordinator", settings.coordinators),
            named(Role::Gateway, "gateway", settings.gateways),
        ];
        let processes = Mutex::new(processes.into_iter().flatten().collect());
        Self(Arc::new(Shared { network, settings: settings.clone(), processes }))
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<String, Process>> {
        self.0.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all processes, and what they are.
    pub fn names(&self) -> Vec<(String, Role)> {
        self.processes().iter().map(|(name, process)| (name.clone(), process.role)).collect()
    }

    /// Whether the process runs.
    pub fn is_up(&self, name: &str) -> bool {
        self.processes().get(name).is_some_and(|process| process.life.is_some())
    }

    /// The gateways that run.
    pub fn doors(&self) -> Vec<Door> {
        let door = |process: &Process| process.life.as_ref()?.door.clone();
        self.processes().values().filter_map(door).collect()
    }

    /// Starts what doesn't run.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_all(&self) -> Result<(), StartError> {
        self.names().into_iter().try_for_each(|(name, _)| self.start(&name))
    }

    /// Starts a process that doesn't run.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, name: &str) -> Result<(), StartError> {
        let mut processes = self.processes();
        let Some(process) = processes.get_mut(name).filter(|process| process.life.is_none()) else { return Ok(()) };
        process.lives += 1;
        let link = self.0.network.link(name, process.lives);
        let (stopper, stop) = stop_channel();
        let (task, door) = self.run(process.role, name, process.lives, &link, stop)?;
        process.life = Some(Life { link, stopper, task, door });
        Ok(())
    }

    fn run(
        &self,
        role: Role,
        name: &str,
        life: u64,
        link: &Link,
        stop: Stop,
    ) -> Result<(JoinHandle<()>, Option<Door>), StartError> {
        let settings = &self.0.settings;
        let metrics = |error| StartError::Metrics(Box::new(error));
        match role {
            Role::Worker => {
                let options = WorkerOptions {
                    id: name.to_owned(),
                    checkpoint_interval: settings.checkpoint_interval,
                    governance: Governance::default(),
                    max_queue_size: QUEUE_MAX,
                    skip_unreadable: false,
                };
                let worker = Worker::new(link.store(), options).map_err(metrics)?;
                Ok((tokio::spawn(async move { worker.run(stop).await }), None))
            }
            Role::Coordinator => {
                let options = CoordinatorOptions {
                    id: name.to_owned(),
                    address: format!("{name}:8000"),
                    domains: vec![domain(settings)],
                    token: None,
                    meta: MetaLearning { enabled: false, interval_ms: 300_000, max_cycles: 0 },
                    max_queue_size: QUEUE_MAX,
                    target_acceptance: Governance::default().admission.target_acceptance,
                };
                let client = |error| StartError::Client(Box::new(error));
                let coordinator = Coordinator::new(link.store(), options).map_err(client)?;
                Ok((tokio::spawn(async move { coordinator.run(stop).await }), None))
            }
            Role::Gateway => {
                let options = GatewayOptions {
                    // An answer to an earlier life finds nobody.
                    id: format!("{name}-{life}"),
                    max_queue_size: QUEUE_MAX,
                    allow_undeclared_domains: false,
                    hyperparameters: Hyperparameters::default(),
                    keys: None,
                    limits: None,
                    sync_interval: None,
                };
                let gateway = Gateway::new(link.store(), options).map_err(metrics)?;
                let door = Door { router: gateway.router(), broken: Arc::default(), link: link.clone() };
                Ok((tokio::spawn(async move { gateway.run(stop).await }), Some(door)))
            }
        }
    }

    /// Kills a process where it stands. What it has sent is under way.
    pub fn crash(&self, name: &str) {
        let life = self.processes().get_mut(name).and_then(|process| process.life.take());
        if let Some(life) = life {
            info!(process = name, "crashes");
            end(&life);
        }
    }

    /// Asks a process to leave, and kills it when its grace is over.
    pub async fn leave(&self, name: &str) {
        let life = self.processes().get_mut(name).and_then(|process| process.life.take());
        if let Some(mut life) = life {
            info!(process = name, "is asked to leave");
            // A gateway that leaves takes no new requests, and has a second for those that it has.
            if life.door.is_some() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            life.stopper.stop();
            // An error of either kind says that it didn't leave by itself.
            let _ = timeout(GRACE, &mut life.task).await;
            end(&life);
        }
    }
}

fn end(life: &Life) {
    life.link.kill();
    life.task.abort();
    if let Some(door) = &life.door {
        door.broken.notify_waiters();
    }
}

/// The domain that is declared.
pub fn domain(settings: &Settings) -> Domain {
    let hyperparameters = Hyperparameters {
        memory_max_vectors: settings.remembered,
        horizon_events: settings.remembered,
        cold_start_experiences: 20,
        ..Hyperparameters::default()
    };
    let config = PartitionConfig { task: Problem::Classification, hyperparameters, seed: settings.seed };
    Domain { name: DOMAIN.to_owned(), partitions: settings.partitions, config }
}
