//! `hebb operator`: the controllers, as the operator's pod runs them.

use std::net::SocketAddr;

use clap::Args;
use hebb_operator::{Defaults, Settings};
use tracing::info;

use crate::cli::Outcome;
use crate::node::{runtime, wait_for_signal};

#[derive(Args)]
pub struct Options {
    /// Image of gateways, coordinators and workers where a LearningCluster names none
    #[arg(long, env = "HEBB_IMAGE")]
    image: String,
    /// Image of Redis where a LearningCluster names none
    #[arg(long, env = "HEBB_REDIS_IMAGE", default_value = "docker.io/library/redis:7.4")]
    redis_image: String,
    /// DNS domain of the cluster
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// Namespace to watch [default: all]
    #[arg(long, env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Unique name of this process
    #[arg(long, env = "POD_NAME", default_value = "hebb-operator")]
    identity: String,
    /// Namespace of the Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the Lease
    #[arg(long, default_value = "hebb-operator")]
    lease_name: String,
    /// Where to serve health and metrics
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

pub fn run(options: Options) -> Outcome {
    let settings = Settings {
        defaults: Defaults {
            image: options.image,
            redis_image: options.redis_image,
            cluster_domain: options.cluster_domain,
            operator_namespace: options.lease_namespace.clone(),
        },
        namespace: options.namespace.filter(|namespace| !namespace.is_empty()),
        identity: options.identity,
        lease_namespace: options.lease_namespace,
        lease_name: options.lease_name,
        listen: options.listen,
    };
    runtime()?.block_on(async move {
        let (asked, stop) = tokio::sync::watch::channel(false);
        let signal = tokio::spawn(async move {
            let heard = wait_for_signal().await;
            asked.send_replace(true);
            heard
        });
        hebb_operator::run(settings, stop).await?;
        signal.abort();
        info!("stopped");
        Ok(())
    })
}
