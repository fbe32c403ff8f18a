//! `hebb start`: everything in one process, with the log in a directory.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use hebb_api::LearningCluster;
use hebb_log::{Durability, LocalConfig, LocalStore};
use hebb_node::{ClusterSettings, EmbeddedAddresses, Store, run_embedded, stop_channel};
use tracing::info;

use crate::cli::Outcome;
use crate::config;
use crate::node::{runtime, wait_for_signal};

#[derive(Args)]
pub struct Options {
    /// YAML files with a LearningCluster, and AlertPolicies, which are checked; without a file every default holds
    #[arg(short = 'f', long = "file")]
    files: Vec<PathBuf>,
    /// Where the log and what was learned are kept
    #[arg(long, default_value = "hebb-data")]
    data_dir: PathBuf,
    /// Address to listen on; no key is asked for, so other machines should not reach it
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port of the API
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of the status API
    #[arg(long, default_value_t = 8000)]
    coordinator_port: u16,
    /// Port of the worker's health and metrics
    #[arg(long, default_value_t = 8081)]
    worker_port: u16,
}

pub fn run(options: Options) -> Outcome {
    let mut clusters = Vec::new();
    for file in &options.files {
        clusters.extend(config::read(file)?.clusters);
    }
    if clusters.len() > 1 {
        return Err("one process runs one LearningCluster; the files hold several".into());
    }
    let cluster = clusters.pop().unwrap_or_else(default_cluster);
    let settings = ClusterSettings::from(&cluster);
    let durability = match cluster.spec.redis.durability {
        hebb_api::Durability::Async => Durability::Async,
        hebb_api::Durability::EverySecond | hebb_api::Durability::Always => Durability::EverySecond,
    };
    let address = |port| SocketAddr::new(options.bind, port);
    let addresses = EmbeddedAddresses {
        gateway: address(options.port),
        coordinator: address(options.coordinator_port),
        worker: address(options.worker_port),
    };
    runtime()?.block_on(async move {
        let store = Store::new(LocalStore::open(&options.data_dir, LocalConfig { durability }).await?);
        let (stopper, stop) = stop_channel();
        let signal = tokio::spawn(async move {
            let heard = wait_for_signal().await;
            stopper.stop();
            heard
        });
        info!(
            cluster = settings.name, api = %addresses.gateway, status = %addresses.coordinator,
            data = %options.data_dir.display(), "serving; no API key is asked for"
        );
        run_embedded(store, &settings, addresses, stop).await?;
        signal.abort();
        info!("stopped");
        Ok(())
    })
}

fn default_cluster() -> LearningCluster {
    let mut cluster = LearningCluster::default();
    cluster.metadata.name = Some("local".to_owned());
    cluster
}
