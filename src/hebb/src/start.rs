//! `hebb start`: everything in one process, with the log in a directory, or in a Redis that is there already.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use hebb_api::LearningCluster;
use hebb_log::{Durability, LocalConfig, LocalStore, LogError, RedisConfig, RedisStore, SqliteHistory};
use hebb_node::{Access, ClusterSettings, EmbeddedAddresses, Store, run_embedded, stop_channel};
use hebb_telemetry::traces::export_traces;
use tracing::{info, warn};

use crate::access::AccessOptions;
use crate::alerts::{Surroundings, Watch};
use crate::cli::Outcome;
use crate::config;
use crate::node::{MetaOptions, runtime, wait_for_signal};
use crate::output::with_causes;
use crate::redis::TlsOptions;

#[derive(Args)]
pub struct Options {
    /// YAML files with a LearningCluster and AlertPolicies; without a file every default holds
    #[arg(short = 'f', long = "file")]
    files: Vec<PathBuf>,
    /// Where the log and what was learned are kept
    #[arg(long, default_value = "hebb-data")]
    data_dir: PathBuf,
    /// Keep them in a Redis instead: redis://[user:password@]host:port, redis+sentinel://host:port,host:port/name or
    /// redis+cluster://host:port,host:port; rediss:// encrypts. A password is better given by the environment
    #[arg(long = "redis", env = "REDIS_URL", hide_env_values = true, value_name = "URL", conflicts_with = "data_dir")]
    redis: Option<String>,
    #[command(flatten)]
    tls: TlsOptions,
    #[command(flatten)]
    surroundings: Surroundings,
    #[command(flatten)]
    access: AccessOptions,
    /// Address to listen on. The status API and the dashboard ask for no key: other machines should not reach them
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
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
    /// Port of the worker's health and metrics
    #[arg(long, default_value_t = 8081)]
    worker_port: u16,
}

pub fn run(options: Options) -> Outcome {
    let (mut clusters, mut policies) = (Vec::new(), Vec::new());
    for file in &options.files {
        let read = config::read(file)?;
        clusters.extend(read.clusters);
        policies.extend(read.policies);
    }
    if clusters.len() > 1 {
        return Err("one process runs one LearningCluster; the files hold several".into());
    }
    let cluster = clusters.pop().unwrap_or_else(default_cluster);
    let access = options.access.with(&cluster.spec.gateway)?;
    let mut settings = ClusterSettings { access, ..ClusterSettings::from(&cluster) };
    options.meta.apply(&mut settings);
    let durability = match cluster.spec.redis.durability {
        hebb_api::Durability::Async => Durability::Async,
        hebb_api::Durability::Replicated if options.redis.is_some() => {
            let servers = cluster.spec.redis.replicas.unwrap_or(3);
            Durability::Replicated { replicas: u8::try_from(servers / 2).unwrap_or(1) }
        }
        // A directory has no replicas.
        hebb_api::Durability::EverySecond | hebb_api::Durability::Replicated => Durability::EverySecond,
        hebb_api::Durability::Always => Durability::Always,
    };
    let redis = options.redis.map(|url| redis_config(&url, options.tls, &settings.name, durability)).transpose()?;
    let address = |port| SocketAddr::new(options.bind, port);
    let addresses = EmbeddedAddresses {
        gateway: address(options.port),
        coordinator: address(options.coordinator_port),
        meta: address(options.meta_port),
        worker: address(options.worker_port),
    };
    let watch = match policies.is_empty() {
        true => None,
        false => {
            let folder = options.data_dir.join("alerts");
            Some(Watch::new(&policies, &cluster, &addresses, &folder, options.surroundings)?)
        }
    };
    runtime()?.block_on(async move {
        let traces = export_traces("hebb")?;
        let (store, data) = match redis {
            Some(redis) => {
                let data = format!("{:?}", redis.topology);
                let store = RedisStore::connect(redis).await?;
                (Store::new(store.clone()).with_history(store), data)
            }
            None => {
                let data = options.data_dir.display().to_string();
                let store = Store::new(LocalStore::open(&options.data_dir, LocalConfig { durability }).await?);
                (keep_history(store, &options.data_dir).await, data)
            }
        };
        let (stopper, stop) = stop_channel();
        let signal = tokio::spawn(async move {
            let heard = wait_for_signal().await;
            stopper.stop();
            heard
        });
        info!(
            cluster = settings.name, api = %addresses.gateway, status = %addresses.coordinator,
            data, "serving"
        );
        say_who_is_served(&settings.access, options.bind);
        let alerts = async {
            if let Some(watch) = watch {
                watch.run().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = run_embedded(store, &settings, addresses, stop) => ended?,
            () = alerts => {}
        }
        signal.abort();
        if let Some(traces) = traces {
            traces.finish().await;
        }
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

fn say_who_is_served(access: &Access, bind: IpAddr) {
    let limits = if access.limits().is_some() { "by client" } else { "none" };
    match (&access.api_keys, bind.is_loopback()) {
        (Some(_), _) => info!(limits, "the API asks for a key"),
        (None, true) => info!(limits, "the API asks for no key; only this machine reaches it"),
        (None, false) => warn!(limits, %bind, "the API asks for no key, and other machines reach it: see `hebb keys`"),
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
    cluster
}
