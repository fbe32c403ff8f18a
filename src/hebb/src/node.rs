//! `hebb gateway|coordinator|worker`: one role of a cluster, as a pod runs it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use futures::future::OptionFuture;
use hebb_api::{LearningCluster, names};
use hebb_log::{RedisConfig, RedisStore};
use hebb_node::{ClusterSettings, Identity, Store, run_coordinator, run_gateway, run_workers, stop_channel};
use hebb_telemetry::metrics::{self, export_metrics};
use hebb_telemetry::traces::{self, export_traces};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::access::AccessOptions;
use crate::cli::Outcome;
use crate::config::{self, ConfigError};
use crate::redis::RedisOptions;

/// A role of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Gateway,
    Coordinator,
    Worker,
}

#[derive(Args)]
pub struct Options {
    /// The LearningCluster that this process is part of
    #[arg(short = 'f', long = "file", env = "CONFIG_PATH")]
    file: PathBuf,
    #[command(flatten)]
    redis: RedisOptions,
    #[command(flatten)]
    part: Part,
}

/// What a process of one role is told.
#[derive(Args)]
pub struct Part {
    #[command(flatten)]
    pub access: AccessOptions,
    #[command(flatten)]
    pub who: Who,
    /// Where to listen [default: 0.0.0.0 and the role's port: gateway 8080, coordinator 8000, worker 8081]
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Port of the meta-learning API, which coordinators serve
    #[arg(long, env = "META_PORT", default_value_t = 3002)]
    pub meta_port: u16,
    #[command(flatten)]
    pub meta: MetaOptions,
    #[command(flatten)]
    pub reads: ReadOptions,
    #[command(flatten)]
    pub replays: ReplayOptions,
}

/// What gateways are told of reads beside the LearningCluster.
#[derive(Args)]
pub struct ReadOptions {
    /// How old the answer to a read with consistency=Eventual may be [default: engine.syncInterval]
    #[arg(long, env = "HEBB_SYNC_INTERVAL", value_name = "DURATION", value_parser = sync_interval)]
    sync_interval: Option<Duration>,
}

/// What workers are told of replays beside the LearningCluster.
#[derive(Args)]
pub struct ReplayOptions {
    /// After an upgrade was taken back: let go what only the newer version can read, instead of waiting for it
    #[arg(long, env = "HEBB_SKIP_UNREADABLE", value_parser = BoolishValueParser::new())]
    skip_unreadable: bool,
}

impl ReplayOptions {
    /// Puts what is given in place of what the LearningCluster says.
    pub fn apply(&self, settings: &mut ClusterSettings) {
        settings.skip_unreadable = self.skip_unreadable;
    }
}

fn sync_interval(text: &str) -> Result<Duration, String> {
    let interval: hebb_api::Duration = text.parse().map_err(|error: hebb_api::DurationError| error.to_string())?;
    if hebb_api::SYNC_INTERVALS.contains(&interval) {
        Ok(interval.0)
    } else {
        Err(format!("must be between {} and {}", hebb_api::SYNC_INTERVALS.start(), hebb_api::SYNC_INTERVALS.end()))
    }
}

impl ReadOptions {
    /// Puts what is given in place of what the LearningCluster says.
    pub fn apply(&self, settings: &mut ClusterSettings) {
        settings.sync_interval = self.sync_interval.unwrap_or(settings.sync_interval);
    }
}

/// Who a process of a cluster is.
#[derive(Args)]
pub struct Who {
    /// Token that the status API, the dashboard and the meta-learning API ask for; without one they ask for none
    #[arg(long, env = "HEBB_INTERNAL_TOKEN", hide_env_values = true)]
    internal_token: Option<String>,
    /// Unique name of this process [default: the role, the host's name and the process id; with --role hybrid and a
    /// --data-dir: local]
    #[arg(long, env = "POD_NAME")]
    id: Option<String>,
    /// Where the other processes reach this one, host:port [default: the host's name, or the address that it listens on]
    #[arg(long, env = "HEBB_ADVERTISE")]
    advertise: Option<String>,
    /// Threads that serve [default: 1; a worker: one a processor, at least 2]
    #[arg(long, env = "HEBB_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

impl Who {
    /// What callers of the internal endpoints must present, if anything.
    pub fn token(&self) -> Option<String> {
        self.internal_token.clone().filter(|token| !token.is_empty())
    }

    /// What a process that does this is called, unless it was told.
    pub fn id(&self, role: &str) -> String {
        // In containers every process has the same number, and on a host every process has the same name.
        self.id.clone().unwrap_or_else(|| format!("{role}-{}-{}", host_name(), std::process::id()))
    }

    /// What it was told that it is called.
    pub fn named(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Where the others reach what listens there, unless it was told.
    pub fn advertised(&self, listen: SocketAddr) -> String {
        self.advertise.clone().unwrap_or_else(|| match listen.ip().is_unspecified() {
            true => format!("{}:{}", host_name(), listen.port()),
            false => listen.to_string(),
        })
    }
}

/// What may be set of meta-learning beside the LearningCluster.
#[derive(Args)]
pub struct MetaOptions {
    /// Whether the cycles of meta-learning start by themselves [default: metaLearning.enabled]
    #[arg(long, env = "AUTOSTART_META_LEARNING", value_parser = BoolishValueParser::new())]
    autostart_meta_learning: Option<bool>,
    /// Milliseconds between two cycles of meta-learning [default: metaLearning.interval]
    #[arg(long, env = "META_LEARNING_INTERVAL_MS", value_parser = clap::value_parser!(u64).range(100..=604_800_000))]
    meta_learning_interval_ms: Option<u64>,
}

impl MetaOptions {
    /// Puts what is given in place of what the LearningCluster says.
    pub fn apply(&self, settings: &mut ClusterSettings) {
        let meta = &mut settings.meta_learning;
        meta.enabled = self.autostart_meta_learning.unwrap_or(meta.enabled);
        meta.interval_ms = self.meta_learning_interval_ms.unwrap_or(meta.interval_ms);
    }
}

impl Role {
    /// A gateway and a coordinator only pass on, and are many: on one thread an event wakes nobody up on its way, which
    /// takes a fifth less processor time. A worker learns: while one thread does, the others answer.
    fn threads(self) -> usize {
        match self {
            Role::Gateway | Role::Coordinator => 1,
            Role::Worker => processors(),
        }
    }

    /// What its spans are said to be of.
    fn service(self) -> &'static str {
        match self {
            Role::Gateway => "hebb-gateway",
            Role::Coordinator => "hebb-coordinator",
            Role::Worker => "hebb-worker",
        }
    }

    pub fn port(self) -> u16 {
        let port = match self {
            Role::Gateway => names::GATEWAY_PORT,
            Role::Coordinator => names::COORDINATOR_PORT,
            Role::Worker => names::WORKER_PORT,
        };
        u16::try_from(port).unwrap_or_default()
    }
}

pub fn run(role: Role, options: Options) -> Outcome {
    let resources = config::read(&options.file)?;
    let cluster =
        resources.clusters.first().ok_or_else(|| ConfigError::NoCluster(options.file.display().to_string()))?;
    let redis = options.redis.config(&ClusterSettings::from(cluster).name)?;
    run_part(role, cluster, redis, options.part, 1)
}

/// Runs one role of a cluster; a worker as often as it is said.
pub fn run_part(role: Role, cluster: &LearningCluster, redis: RedisConfig, part: Part, workers: u16) -> Outcome {
    let access = part.access.with(&cluster.spec.gateway)?;
    let mut settings = ClusterSettings { access, ..ClusterSettings::from(cluster) };
    part.meta.apply(&mut settings);
    part.reads.apply(&mut settings);
    part.replays.apply(&mut settings);
    let listen = part.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], role.port())));
    let meta = SocketAddr::new(listen.ip(), part.meta_port);
    let who = part.who;
    let token = who.token();
    let id = who.id(&format!("{role:?}").to_lowercase());
    let identity = Identity { id, listen, advertise: who.advertised(listen) };
    let threads = who.threads.map_or_else(|| role.threads(), usize::from);
    runtime_of(threads)?.block_on(async move {
        info!(?role, id = identity.id, cluster = settings.name, %listen, redis = ?redis.topology, "starting");
        let traces = export_traces(role.service(), None)?;
        let metrics = export_metrics(role.service(), None)?;
        let store = RedisStore::lazy(redis)?;
        let store = Store::new(store.clone()).with_history(store);
        let (stopper, stop) = stop_channel();
        let listening = tokio::spawn(async move {
            let heard = wait_for_signal().await;
            stopper.stop();
            heard
        });
        match role {
            Role::Gateway => run_gateway(store, &settings, identity, stop).await?,
            Role::Coordinator => run_coordinator(store, &settings, identity, meta, token, stop).await?,
            Role::Worker => run_workers(store, &settings, identity, workers, stop).await?,
        }
        listening.abort();
        finish(traces, metrics).await;
        info!("stopped");
        Ok(())
    })
}

/// Sends what traces and metrics are left.
pub async fn finish(traces: Option<traces::Export>, metrics: Option<metrics::Export>) {
    let (traces, metrics) = (traces.map(traces::Export::finish), metrics.map(metrics::Export::finish));
    tokio::join!(OptionFuture::from(traces), OptionFuture::from(metrics));
}

/// The name of this machine, or of this container.
fn host_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = told.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// The runtime of a process with more than one job.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    runtime_of(processors())
}

/// A thread a processor, never fewer than two, so that one that learns doesn't hold up the other.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).max(2)
}

fn runtime_of(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// Returns on SIGTERM or SIGINT, and says which it was.
pub async fn wait_for_signal() -> std::io::Result<SignalKind> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => SignalKind::terminate(),
        _ = interrupt.recv() => SignalKind::interrupt(),
    })
}

/// Who ran a command ended it before it was through.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
pub struct Stopped(pub SignalKind);

impl Stopped {
    /// What a shell calls the end by this signal.
    pub fn code(&self) -> u8 {
        u8::try_from(128 + self.0.as_raw_value()).unwrap_or(u8::MAX)
    }
}
