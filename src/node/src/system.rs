//! The learning system as a library: a system on this machine, or a part of a cluster over Redis.
//!
//! Both are the roles of a cluster without their ports: what is perceived and learned passes through the log, and is answered
//! once its owner has applied it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use hebb_api::{LearningCluster, names};
use hebb_engine::{Answer, Label, PartitionConfig, PatternMatch, Task, event_digest};
use hebb_log::{
    Address, Domain, Durability, LocalConfig, LocalStore, LogError, OpenError, RedisConfig, RedisStore, Topology,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::coordinator::{Coordinator, CoordinatorOptions};
use crate::gateway::{CallError, Gateway, GatewayOptions, Observation, is_domain_name};
use crate::roles::run_workers_within;
use crate::settings::{ClusterSettings, MetaLearning};
use crate::stop::{Stopper, stop_channel};
use crate::store::Store;

/// Workers of one process; as many as a cluster may have.
const WORKERS: RangeInclusive<usize> = 1..=500;
/// Partitions of a domain that is made here: beyond this they only share the workers.
const PARTITIONS_MAX: usize = 64;
/// Events of one call: most of a queue of the usual length.
pub const EVENTS_MAX: usize = 960;
/// A coordinator answers within this time or not at all.
const COORDINATOR_WITHIN: Duration = Duration::from_secs(5);
/// What a cluster is called that nobody gave a name.
const CLUSTER: &str = "local";

/// Why there is no system, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// Too few or too many.
    #[error("a system has {least} to {most} workers, not {0}", least = WORKERS.start(), most = WORKERS.end())]
    Workers(usize),
    /// Nobody there.
    #[error("no coordinator answers at {0}")]
    NoCoordinator(String),
    /// Not a name for a domain.
    #[error("{0:?} is no name for a domain: letters a to z, digits and '-', at most 63")]
    DomainName(String),
    /// The folder of a local system.
    #[error("the local store can't be opened")]
    Open(#[from] OpenError),
    /// The store.
    #[error("the store fails")]
    Store(#[from] LogError),
    /// A role that can't be made.
    #[error("a role can't be made: {0}")]
    Role(String),
    /// More than is under way at once.
    #[error("{0} events at once, at most {EVENTS_MAX} are taken")]
    TooMany(usize),
    /// A domain is of one task.
    #[error("the domain {name:?} is for {task:?} here")]
    OtherTask {
        /// The domain's name.
        name: String,
        /// What it is for.
        task: Task,
    },
    /// A signal or an event that was not answered.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Removes the folder of a local system with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing else can be done about a folder that stays.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running system: workers that each hold a part of the patterns, and the way to them.
pub struct System {
    gateway: Gateway,
    store: Store,
    partitions: u32,
    declared: Mutex<BTreeMap<String, Task>>,
    /// Asks the gateway to end, which comes before the rest does.
    front: Stopper,
    engine: Stopper,
    fronts: JoinSet<()>,
    engines: JoinSet<()>,
    // Last, so that the folder goes when nobody writes to it any more.
    _scratch: Option<Scratch>,
}

/// A system on this machine: `num_workers` workers in this process, with a log in a folder that goes with the system.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hebb_node::create_local;
///
/// let system = create_local(2).await?;
/// let wave: Vec<f32> = (0..64).map(|place| (place as f32 * 0.4).sin()).collect();
/// let first = system.perceive(&wave, "waves").await?;
/// assert!(!first.is_empty());
///
/// // Several at a time; the answers are in the order of the signals.
/// let found = system.batch_perceive(&vec![wave; 8], "waves", 4).await?;
/// assert_eq!(found.len(), 8);
/// system.close().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
/// ```
///
/// # Errors
/// [`SystemError`] for a number of workers out of bounds, or a folder that can't be written.
pub async fn create_local(num_workers: usize) -> Result<System, SystemError> {
    let folder = std::env::temp_dir().join(format!("hebb-{}-{:016x}", std::process::id(), rand::random::<u64>()));
    let scratch = Scratch(folder.clone());
    // What is in the folder goes with the process anyway.
    local(&folder, Durability::Async, num_workers, Some(scratch)).await
}

/// A system on this machine that keeps in `folder` what it learns: what was answered is on the disk, and the next system in the
/// same folder goes on with it. One process can have it open.
///
/// ```
/// use hebb_engine::{Features, Label};
/// use hebb_node::{Observation, open_local};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let system = open_local(folder.path(), 1).await?;
/// let events = (0..200).map(|number| {
///     let x = f64::from(number % 10);
///     let label = if x > 4.5 { "high" } else { "low" };
///     let (features, label) = (Features::Dense(vec![x]), Some(Label::Class(label.into())));
///     Observation { id: format!("event-{number}").into(), features, label }
/// });
/// let answers = system.infer_and_adapt(events.collect(), "levels").await?;
/// assert_eq!(answers.len(), 200);
/// system.close().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
/// ```
///
/// # Errors
/// [`SystemError`] for a number of workers out of bounds, or a folder that can't be written or is in use.
pub async fn open_local(folder: &Path, num_workers: usize) -> Result<System, SystemError> {
    local(folder, Durability::Always, num_workers, None).await
}

async fn local(
    folder: &Path,
    durability: Durability,
    num_workers: usize,
    scratch: Option<Scratch>,
) -> Result<System, SystemError> {
    let workers = checked(num_workers)?;
    let store = Store::new(LocalStore::open(folder, LocalConfig { durability }).await?);
    let mut system = System::new(store.clone(), workers, scratch)?;
    let settings = ClusterSettings::from(&LearningCluster::default());
    let options = CoordinatorOptions {
        id: CLUSTER.to_owned(),
        address: "in-process".to_owned(),
        domains: Vec::new(),
        token: None,
        meta: MetaLearning { enabled: false, interval_ms: 300_000, max_cycles: 0 },
        max_queue_size: settings.max_queue_size,
        target_acceptance: settings.governance.admission.target_acceptance,
    };
    let coordinator = Coordinator::new(store, options).map_err(|error| SystemError::Role(error.to_string()))?;
    let stop = system.engine.listen();
    system.engines.spawn(async move { coordinator.run(stop).await });
    Ok(system)
}

/// A part of a cluster: `num_workers` workers in this process that share the Redis of the others. `coordinator_host` is
/// `host` or `host:port`; `redis_hosts` is one `host:port` or URL, or several nodes of a Redis Cluster. The cluster is the one
/// that processes without a configuration are in.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let system = hebb_node::create_cluster("coordinator", &["redis:6379"], 4).await?;
/// let patterns = system.perceive(&[0.0, 1.0, 4.0, 1.0, 0.0, 1.0, 4.0, 1.0], "waves").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`SystemError`] for a number of workers out of bounds, a coordinator that isn't there, or a Redis that can't be used.
pub async fn create_cluster(
    coordinator_host: &str,
    redis_hosts: &[&str],
    num_workers: usize,
) -> Result<System, SystemError> {
    let workers = checked(num_workers)?;
    let config = redis(redis_hosts)?;
    let address = coordinator_address(coordinator_host);
    match timeout(COORDINATOR_WITHIN, TcpStream::connect(&address)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Err(SystemError::NoCoordinator(address)),
    }
    System::new(Store::new(RedisStore::connect(config).await?), workers, None)
}

/// Where a coordinator listens that is named by its host, or by `host:port`.
pub fn coordinator_address(host: &str) -> String {
    if host.contains(':') { host.to_owned() } else { format!("{host}:{}", names::COORDINATOR_PORT) }
}

fn checked(workers: usize) -> Result<u16, SystemError> {
    let number = u16::try_from(workers).ok().filter(|_| WORKERS.contains(&workers));
    number.ok_or(SystemError::Workers(workers))
}

fn redis(hosts: &[&str]) -> Result<RedisConfig, SystemError> {
    Ok(match hosts {
        [] => return Err(LogError::Invalid("no host of Redis is named".to_owned()).into()),
        [url] if url.contains("://") => RedisConfig::from_url(url, CLUSTER)?,
        [host] => RedisConfig::of(Topology::Standalone(host.parse::<Address>()?), CLUSTER),
        several => RedisConfig::of(Topology::seeds(&several.join(","))?, CLUSTER),
    })
}

impl System {
    fn new(store: Store, workers: u16, scratch: Option<Scratch>) -> Result<Self, SystemError> {
        let failed = |error: String| SystemError::Role(error);
        let settings = ClusterSettings::from(&LearningCluster::default());
        let options = GatewayOptions {
            id: format!("library-{:016x}", rand::random::<u64>()),
            max_queue_size: settings.max_queue_size,
            allow_undeclared_domains: false,
            hyperparameters: settings.hyperparameters.clone(),
            keys: None,
            limits: None,
            sync_interval: None,
        };
        let gateway = Gateway::new(store.clone(), options).map_err(|error| failed(error.to_string()))?;
        let (front, front_stop) = stop_channel();
        let (engine, engine_stop) = stop_channel();
        let (mut fronts, mut engines) = (JoinSet::new(), JoinSet::new());
        let served = gateway.clone();
        fronts.spawn(async move { served.run(front_stop).await });
        let (shared, id) = (store.clone(), format!("library-{:08x}", rand::random::<u32>()));
        engines.spawn(async move {
            if let Err(error) = run_workers_within(shared, &settings, id, workers, engine_stop).await {
                tracing::error!(error = %error, "the workers can't run");
            }
        });
        Ok(Self {
            gateway,
            store,
            partitions: u32::from(workers).min(PARTITIONS_MAX as u32),
            declared: Mutex::default(),
            front,
            engine,
            fronts,
            engines,
            _scratch: scratch,
        })
    }

    /// The patterns in a signal of at least two samples, which are learned by it. A domain is made by its first signal, with a
    /// partition a worker; which of them a signal goes to is left to chance.
    ///
    /// # Errors
    /// [`SystemError`] for a name or a signal out of bounds, or an answer that doesn't come within ten seconds.
    pub async fn perceive(&self, signal: &[f32], domain: &str) -> Result<Vec<PatternMatch>, SystemError> {
        self.declare(domain, Task::Patterns).await?;
        Ok(self.gateway.perceive(domain, signal.to_vec()).await?.patterns)
    }

    /// The patterns of many signals, `batch_size` of them under way at once, in the order of the signals.
    ///
    /// # Errors
    /// [`SystemError`] of the first signal that was not perceived; those under way with it may have been.
    pub async fn batch_perceive(
        &self,
        signals: &[Vec<f32>],
        domain: &str,
        batch_size: usize,
    ) -> Result<Vec<Vec<PatternMatch>>, SystemError> {
        self.declare(domain, Task::Patterns).await?;
        let calls = stream::iter(signals).map(|signal| self.perceive(signal, domain));
        calls.buffered(batch_size.max(1)).try_collect().await
    }

    /// Answers events, and learns those with a label in their order; at most [`EVENTS_MAX`] at once. A domain is made by its
    /// first events: for targets where the first label is a number, else for classes; with a partition a worker, each of which
    /// learns from its share of the ids. The answers are in the order of the events.
    ///
    /// # Errors
    /// [`SystemError`] for a name or an event out of bounds, or an answer that doesn't come within ten seconds. Others of the
    /// events may have been learned; to send all of them again is safe, as an id is learned once.
    pub async fn infer_and_adapt(&self, events: Vec<Observation>, domain: &str) -> Result<Vec<Answer>, SystemError> {
        if events.len() > EVENTS_MAX {
            return Err(SystemError::TooMany(events.len()));
        }
        let first = events.iter().find_map(|event| event.label.as_ref());
        let task = if matches!(first, Some(Label::Number(_))) { Task::Regression } else { Task::Classification };
        self.declare(domain, task).await?;
        Ok(self.gateway.infer_and_adapt(domain, events).await?)
    }

    /// Ends what runs, after what is under way.
    pub async fn close(mut self) {
        self.front.stop();
        while self.fronts.join_next().await.is_some() {}
        self.engine.stop();
        while self.engines.join_next().await.is_some() {}
    }

    async fn declare(&self, name: &str, task: Task) -> Result<(), SystemError> {
        let known = self.declared.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        let stands = match known {
            Some(stands) => stands,
            None => {
                if !is_domain_name(name) {
                    return Err(SystemError::DomainName(name.to_owned()));
                }
                let config = PartitionConfig { seed: event_digest(name), ..PartitionConfig::new(task) };
                let domain = Domain { name: name.to_owned(), partitions: self.partitions, config };
                // One that is there already stays as it is.
                let stands = self.store.directory.declare(&domain).await?.config.task;
                self.declared.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), stands);
                stands
            }
        };
        // Of a domain with labels, events without one don't say which kind; a label of the other kind is refused by the engine.
        if stands == task || (stands.has_labels() && task.has_labels()) {
            return Ok(());
        }
        Err(SystemError::OtherTask { name: name.to_owned(), task: stands })
    }
}

#[cfg(test)]
mod tests {
    use hebb_engine::{Features, Prediction};

    use super::*;

    #[test]
    fn hosts_of_redis_say_of_which_kind_it_is() {
        let topology = |hosts: &[&str]| match redis(hosts) {
            Ok(config) => format!("{:?}", config.topology),
            Err(error) => error.to_string(),
        };
        assert!(topology(&["a:1"]).starts_with("Standalone"));
        assert!(topology(&["redis+sentinel://a:1,b:2/hebb"]).starts_with("Sentinel"));
        assert!(topology(&["a:1", "b:2"]).starts_with("Cluster"));
        assert_eq!(topology(&[]), "the store fails");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_local_system_perceives_in_parallel_and_leaves_nothing_behind() {
        let system = create_local(3).await.unwrap();
        let folder = system._scratch.as_ref().unwrap().0.clone();
        let wave = |phase: f32| (0..96).map(|place| (place as f32 * 0.3 + phase).sin()).collect::<Vec<f32>>();
        let signals: Vec<_> = (0..24).map(|number| wave(number as f32)).collect();
        let found = system.batch_perceive(&signals, "waves", 8).await.unwrap();
        assert_eq!(found.len(), 24);
        assert!(found.iter().all(|patterns| !patterns.is_empty()), "{found:?}");
        assert!(found.iter().flatten().any(|pattern| !pattern.new), "nothing was recognised");
        assert!(matches!(system.perceive(&[1.0], "waves").await, Err(SystemError::Call(_))));
        assert!(matches!(system.perceive(&wave(0.0), "No Name").await, Err(SystemError::DomainName(_))));
        system.close().await;
        assert!(!folder.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_local_system_was_taught_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let events = |from: u32, to: u32| -> Vec<Observation> {
            let event = |number: u32| {
                let x = f64::from(number % 10);
                let label = Label::Class(if x > 4.5 { "high" } else { "low" }.into());
                Observation { id: number.to_string().into(), features: Features::Dense(vec![x]), label: Some(label) }
            };
            (from..to).map(event).collect()
        };
        let system = open_local(folder.path(), 1).await.unwrap();
        system.infer_and_adapt(events(0, 300), "levels").await.unwrap();
        assert!(matches!(system.perceive(&[0.0, 1.0], "levels").await, Err(SystemError::OtherTask { .. })));
        assert!(matches!(open_local(folder.path(), 1).await, Err(SystemError::Open(OpenError::InUse(_)))));
        system.close().await;

        let system = open_local(folder.path(), 1).await.unwrap();
        let answers = system.infer_and_adapt(events(290, 310), "levels").await.unwrap();
        let duplicates = answers.iter().filter(|answer| answer.duplicate).count();
        assert_eq!(duplicates, 10, "an id is learned once");
        let right = answers.iter().zip(290u32..).filter(|(answer, number)| {
            let expected = if number % 10 > 4 { "high" } else { "low" };
            answer.prediction == Some(Prediction::Class(expected.into()))
        });
        assert!(right.count() >= 18, "{answers:?}");
        let mut wrong = events(400, 401);
        wrong[0].features = Features::Dense(vec![f64::NAN]);
        assert!(matches!(system.infer_and_adapt(wrong, "levels").await, Err(SystemError::Call(_))));
        let many = events(1_000, 2_000);
        assert!(matches!(system.infer_and_adapt(many, "levels").await, Err(SystemError::TooMany(1_000))));
        system.close().await;
    }

    #[tokio::test]
    async fn what_cannot_be_a_system_says_why() {
        assert!(matches!(create_local(0).await, Err(SystemError::Workers(0))));
        assert!(matches!(create_local(501).await, Err(SystemError::Workers(501))));
        let nobody = create_cluster("127.0.0.1:1", &["127.0.0.1:1"], 1).await;
        assert!(matches!(nobody, Err(SystemError::NoCoordinator(_))));
    }
}
