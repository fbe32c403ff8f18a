//! `hebb start`: everything in one process, with the log in a directory, or in a Redis that is there already; or one role of
//! several processes that share a Redis.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use hebb_api::{AutoscalingSpec, LearningCluster};
use hebb_log::{Durability, LocalConfig, LocalStore, LogError, RedisConfig, RedisStore, SqliteHistory};
use hebb_node::{
    Access, ClusterSettings, EmbeddedAddresses, EmbeddedIdentity, NodeError, Store, WorkerCount, coordinator_address,
    run_embedded, stop_channel,
};
use hebb_telemetry::metrics::{self, export_metrics};
use hebb_telemetry::traces::{self, export_traces};
use tracing::{Level, enabled, info, warn};

use crate::access::AccessOptions;
use crate::alerts::{Surroundings, Watch};
use crate::cli::Outcome;
use crate::config;
use crate::node::{self, MetaOptions, Part, ReadOptions, ReplayOptions, Role, Who, runtime, wait_for_signal};
use crate::output::with_causes;
use crate::redis::{RedisOptions, TlsOptions};

/// The folder of the log, where nothing else is said.
pub const DATA: &str = "hebb-data";
/// Workers of a process, where nothing else is said.
const WORKERS: u16 = 4;
/// How often a coordinator is looked for.
const LOOKS: usize = 10;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct Options {
    /// YAML files with a LearningCluster and AlertPolicies; without a file every default holds
    #[arg(short = 'f', long = "file", env = "CONFIG_PATH")]
    files: Vec<PathBuf>,
    /// Where the log and what was learned are kept [default: hebb-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep them in a Redis instead: redis://[user:password@]host:port, redis+sentinel://host:port,host:port/name or
    /// redis+cluster://host:port,host:port; rediss:// encrypts. A password is better given by the environment
    #[arg(long = "redis", env = "REDIS_URL", hide_env_values = true, value_name = "URL", conflicts_with = "data_dir")]
    redis: Option<String>,
    #[command(flatten)]
    redis_options: RedisOptions,
    /// What this process is. hybrid is everything; the other roles share a Redis with further processes
    #[arg(long, env = "NODE_ROLE", value_enum, default_value_t)]
    role: RoleName,
    /// Workers in this process [default: 4, or with --role hybrid and a file as many as the file has]
    #[arg(long, env = "NUM_WORKERS", value_parser = clap::value_parser!(u16).range(1..=500))]
    workers: Option<u16>,
    /// Fewest workers, where the queue decides how many: with --role hybrid and this, --max-workers or the file's
    /// spec.workers.autoscaling [default: 2]
    #[arg(long, env = "MIN_WORKERS", value_parser = clap::value_parser!(u16).range(1..=500))]
    min_workers: Option<u16>,
    /// Most workers, where the queue decides how many [default: 50]
    #[arg(long, env = "MAX_WORKERS", value_parser = clap::value_parser!(u16).range(1..=500))]
    max_workers: Option<u16>,
    /// Host of a coordinator, host or host:port, that a gateway or a worker looks for when it starts, to say so when there is
    /// none; they find each other by Redis
    #[arg(long, env = "COORDINATOR_HOST", value_name = "HOST")]
    coordinator: Option<String>,
    /// Log what happens in detail, as --log-level debug
    #[arg(short, long)]
    pub verbose: bool,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    surroundings: Surroundings,
    #[command(flatten)]
    access: AccessOptions,
    /// Address to listen on [default: 127.0.0.1; 0.0.0.0 for a role other than hybrid]. Who reaches it is served unless there
    /// are --api-keys for the API and an --internal-token for the rest
    #[arg(long, env = "HEBB_BIND")]
    bind: Option<IpAddr>,
    /// Port of the API
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of the status API
    #[arg(long, default_value_t = 8000)]
    coordinator_port: u16,
    /// Port of the meta-learning API
    #[arg(long, env = "META_PORT", default_value_t = 3002)]
    meta_port: u16,
    #[command(flatten)]
    meta: MetaOptions,
    #[command(flatten)]
    reads: ReadOptions,
    #[command(flatten)]
    replays: ReplayOptions,
    /// Port of the worker's health and metrics
    #[arg(long, default_value_t = 8081)]
    worker_port: u16,
}

/// A role, as the command line has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Everything in one process
    #[default]
    Hybrid,
    /// The API
    Gateway,
    /// Assignment and status
    Coordinator,
    /// Learning
    Worker,
    /// The log, which is a Redis
    Storage,
}

/// Why a process can't have a role.
#[derive(Debug, thiserror::Error)]
enum RoleError {
    #[error("the storage of a cluster is a Redis: run redis-server with --appendonly yes, as compose.yaml does")]
    Storage,
    #[error("AlertPolicies are followed by --role hybrid, or by the operator on Kubernetes")]
    Policies,
    #[error("--data-dir keeps the log in a folder, and {0} in a Redis: leave one of them out")]
    TwoStores(&'static str),
    #[error("--min-workers (MIN_WORKERS) is {least}, more than --max-workers (MAX_WORKERS), {most}")]
    Bounds { least: i32, most: i32 },
}

pub fn run(options: Options) -> Outcome {
    let (mut clusters, mut policies) = (Vec::new(), Vec::new());
    for file in &options.files {
        let read = config::read(file)?;
        clusters.extend(read.clusters);
        policies.extend(read.policies);
    }
    if let (Some(_), Some(option)) = (&options.data_dir, options.redis_options.named_by()) {
        return Err(RoleError::TwoStores(option).into());
    }
    if clusters.len() > 1 {
        return Err("one process runs one LearningCluster; the files hold several".into());
    }
    let cluster = clusters.pop().unwrap_or_else(default_cluster);
    let role = match options.role {
        RoleName::Hybrid => None,
        RoleName::Gateway => Some((Role::Gateway, options.port)),
        RoleName::Coordinator => Some((Role::Coordinator, options.coordinator_port)),
        RoleName::Worker => Some((Role::Worker, options.worker_port)),
        RoleName::Storage => return Err(RoleError::Storage.into()),
    };
    if let Some((role, port)) = role {
        if !policies.is_empty() {
            return Err(RoleError::Policies.into());
        }
        return run_role(role, port, &cluster, options);
    }
    let access = options.access.with(&cluster.spec.gateway)?;
    let mut settings = ClusterSettings { access, ..ClusterSettings::from(&cluster) };
    options.meta.apply(&mut settings);
    options.replays.apply(&mut settings);
    let bounds = (options.min_workers, options.max_workers);
    settings.workers = worker_count(settings.workers, options.workers, bounds)?;
    let durability = durability(&cluster, options.redis.is_some());
    let who = options.who;
    let redis = match options.redis {
        Some(url) => Some(redis_config(&url, options.redis_options.tls, &settings.name, durability)?),
        None if options.redis_options.named_by().is_some() => Some(options.redis_options.config(&settings.name)?),
        None => None,
    };
    let bind = options.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    // Before a folder is made, which would stay where a port is taken.
    let ports = [options.port, options.coordinator_port, options.meta_port, options.worker_port];
    let [gateway, coordinator, meta, worker] = free(bind, ports)?;
    let addresses = EmbeddedAddresses { gateway, coordinator, meta, worker };
    let token = who.token();
    // A folder is one process' alone; a Redis may be that of several.
    let id = if redis.is_some() { who.id("hybrid") } else { who.named().unwrap_or("local").to_owned() };
    let who = EmbeddedIdentity { id, advertise: who.advertised(addresses.coordinator) };
    let folder = options.data_dir.unwrap_or_else(|| PathBuf::from(DATA));
    let watch = match policies.is_empty() {
        true => None,
        false => Some(Watch::new(&policies, &cluster, &addresses, token.as_deref(), &folder, options.surroundings)?),
    };
    let traced = cluster.spec.traces.as_ref().map(|traces| traces::Collector {
        endpoint: traces.endpoint.clone(),
        share: f64::from(traces.sample_percent) / 100.0,
    });
    let metered = cluster
        .spec
        .metrics
        .as_ref()
        .map(|metrics| metrics::Collector { endpoint: metrics.endpoint.clone(), interval: metrics.interval.0 });
    runtime()?.block_on(async move {
        let traces = export_traces("hebb", traced)?;
        let metrics = export_metrics("hebb", metered)?;
        let (store, data) = match redis {
            Some(redis) => {
                let data = format!("{:?}", redis.topology);
                let store = RedisStore::connect(redis).await?;
                (Store::new(store.clone()).with_history(store), data)
            }
            None => {
                let data = folder.display().to_string();
                let store = Store::new(LocalStore::open(&folder, LocalConfig { durability }).await?);
                (keep_history(store, &folder).await, data)
            }
        };
        let (stopper, stop) = stop_channel();
        let signal = tokio::spawn(async move {
            let heard = wait_for_signal().await;
            stopper.stop();
            heard
        });
        info!(id = who.id, cluster = settings.name, data, "starting");
        tell(&format!(
            "API at http://{gateway}, status and dashboard at http://{coordinator}, meta-learning at http://{meta}, health \
             and metrics of the workers at http://{worker}"
        ));
        say_who_is_served(&settings.access, bind);
        say_who_is_told(token.as_deref(), bind);
        let alerts = async {
            if let Some(watch) = watch {
                watch.run().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = run_embedded(store, &settings, who, addresses, token, stop) => ended?,
            () = alerts => {}
        }
        signal.abort();
        node::finish(traces, metrics).await;
        info!("stopped");
        Ok(())
    })
}

/// What is learned doesn't need the history: without its file there is one in memory.
async fn keep_history(store: Store, folder: &Path) -> Store {
    match SqliteHistory::open(folder).await {
        Ok(history) => store.with_history(history),
        Err(error) => {
            warn!(error = with_causes(&error), "the history of metrics isn't kept");
            store
        }
    }
}

/// Runs one role over a Redis that is there already.
fn run_role(role: Role, port: u16, cluster: &LearningCluster, options: Options) -> Outcome {
    let bind = options.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let Options { redis: url, redis_options, access, who, meta_port, meta, reads, replays, .. } = options;
    let name = ClusterSettings::from(cluster).name;
    let redis = match url {
        Some(url) => redis_config(&url, redis_options.tls, &name, durability(cluster, true))?,
        None => redis_options.config(&name)?,
    };
    if let Some(host) = options.coordinator.filter(|host| role != Role::Coordinator && !host.is_empty()) {
        std::thread::spawn(move || look_for_coordinator(&host));
    }
    match role {
        Role::Gateway => say_who_is_served(&access.with(&cluster.spec.gateway)?, bind),
        Role::Coordinator => say_who_is_told(who.token().as_deref(), bind),
        // It says how it is, and takes no orders.
        Role::Worker => {}
    }
    let [listen] = free(bind, [port])?;
    tell(&format!("{} at http://{listen}", format!("{role:?}").to_lowercase()));
    let part = Part { access, who, listen: Some(listen), meta_port, meta, reads, replays };
    if role == Role::Worker && (options.min_workers, options.max_workers) != (None, None) {
        info!(
            "--min-workers and --max-workers are for --role hybrid: who starts the processes decides how many there are"
        );
    }
    node::run_part(role, cluster, redis, part, options.workers.unwrap_or(WORKERS))
}

/// What the options make of the file's number of workers.
fn worker_count(
    of_file: WorkerCount,
    number: Option<u16>,
    (min, max): (Option<u16>, Option<u16>),
) -> Result<WorkerCount, RoleError> {
    let (first, mut scaling) = match of_file {
        WorkerCount::Fixed(of_file) if min.or(max).is_none() => return Ok(number.unwrap_or(of_file).into()),
        WorkerCount::Fixed(of_file) => (of_file, AutoscalingSpec::default()),
        WorkerCount::ByQueue { first, scaling } => (first, scaling),
    };
    if let Some(min) = min {
        scaling.min_replicas = min.into();
    }
    if let Some(max) = max {
        scaling.max_replicas = max.into();
    }
    let (least, most) = (scaling.min_replicas, scaling.max_replicas);
    if least > most {
        return Err(RoleError::Bounds { least, most });
    }
    let bound = |count: i32| u16::try_from(count).unwrap_or(u16::MAX);
    let first = number.unwrap_or(first).clamp(bound(least), bound(most));
    Ok(WorkerCount::ByQueue { first, scaling })
}

/// Says whether a coordinator can be reached; nothing depends on it.
fn look_for_coordinator(host: &str) {
    let address = coordinator_address(host);
    for _ in 0..LOOKS {
        let mut resolved = address.to_socket_addrs().into_iter().flatten();
        if resolved.any(|address| TcpStream::connect_timeout(&address, LOOK_EVERY).is_ok()) {
            info!(coordinator = address, "the coordinator is there");
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    warn!(coordinator = address, "no coordinator is there: partitions get no owner before one leads");
}

fn durability(cluster: &LearningCluster, is_redis: bool) -> Durability {
    match cluster.spec.redis.durability {
        hebb_api::Durability::Async => Durability::Async,
        hebb_api::Durability::Replicated if is_redis => {
            let servers = cluster.spec.redis.replicas.unwrap_or(3);
            Durability::Replicated { replicas: u8::try_from(servers / 2).unwrap_or(1) }
        }
        // A directory has no replicas.
        hebb_api::Durability::EverySecond | hebb_api::Durability::Replicated => Durability::EverySecond,
        hebb_api::Durability::Always => Durability::Always,
    }
}

/// The addresses of these ports, where a port that is 0 is one that is free: each can be listened on, now.
fn free<const COUNT: usize>(bind: IpAddr, ports: [u16; COUNT]) -> Result<[SocketAddr; COUNT], NodeError> {
    let mut addresses = ports.map(|port| SocketAddr::new(bind, port));
    // All at once, so that none is given twice.
    let mut listeners = Vec::with_capacity(COUNT);
    for address in &mut addresses {
        let failed = |source| NodeError::Listen { address: *address, source };
        let listener = TcpListener::bind(*address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        listeners.push(listener);
        *address = bound;
    }
    Ok(addresses)
}

/// Says what whoever starts the process has to know: in its log, and beside it where the log is told to leave that out.
fn tell(text: &str) {
    if enabled!(Level::INFO) { info!("{text}") } else { eprintln!("hebb: {text}") }
}

/// Likewise what may harm.
fn tell_warning(text: &str) {
    if enabled!(Level::WARN) { warn!("{text}") } else { eprintln!("hebb: {text}") }
}

fn say_who_is_served(access: &Access, bind: IpAddr) {
    let limits = if access.limits().is_some() { "limits hold for each client" } else { "no limit holds" };
    match (&access.api_keys, bind.is_loopback()) {
        (Some(_), _) => tell(&format!("the API asks for a key; {limits}")),
        (None, true) => tell(&format!("the API asks for no key; only this machine reaches it; {limits}")),
        (None, false) => tell_warning(&format!(
            "the API asks for no key, and other machines reach {bind}: see `hebb keys`; {limits}"
        )),
    }
}

/// Warns where whoever comes is told of everything.
fn say_who_is_told(token: Option<&str>, bind: IpAddr) {
    if token.is_none() && !bind.is_loopback() {
        tell_warning(&format!(
            "the status API, the dashboard and the meta-learning API ask for no token, and other machines reach {bind}: \
             see --internal-token"
        ));
    }
}

fn redis_config(url: &str, tls: TlsOptions, cluster: &str, durability: Durability) -> Result<RedisConfig, LogError> {
    let config = RedisConfig::from_url(url, cluster)?;
    let tls = tls.read()?.or(config.tls);
    Ok(RedisConfig { tls, durability, ..config })
}

fn default_cluster() -> LearningCluster {
    let mut cluster = LearningCluster::default();
    cluster.metadata.name = Some("local".to_owned());
    cluster.spec.workers.replicas = i32::from(WORKERS);
    cluster
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_let_the_queue_decide_and_a_number_alone_is_fixed() {
        let count = |number, bounds| worker_count(WorkerCount::Fixed(WORKERS), number, bounds);
        assert_eq!(count(None, (None, None)).unwrap(), WorkerCount::Fixed(4));
        assert_eq!(count(Some(7), (None, None)).unwrap(), WorkerCount::Fixed(7));
        let by_queue = |first, min_replicas, max_replicas| WorkerCount::ByQueue {
            first,
            scaling: AutoscalingSpec { min_replicas, max_replicas, ..AutoscalingSpec::default() },
        };
        assert_eq!(count(None, (Some(3), None)).unwrap(), by_queue(4, 3, 50));
        assert_eq!(count(None, (None, Some(3))).unwrap(), by_queue(3, 2, 3));
        assert!(count(None, (Some(9), Some(8))).is_err());
        // A file's bounds hold where the options have none.
        let of_file = by_queue(2, 2, 6);
        assert_eq!(worker_count(of_file.clone(), None, (None, None)).unwrap(), of_file);
        assert_eq!(worker_count(of_file, Some(5), (None, Some(9))).unwrap(), by_queue(5, 2, 9));
    }
}
