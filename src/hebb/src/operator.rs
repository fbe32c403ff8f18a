//! `hebb operator`: the controllers, as the operator's pod runs them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use hebb_alert::notify::{Egress, Net};
use hebb_operator::{Defaults, Settings, Webhook};
use tracing::info;

use crate::alerts::receiver_roots;
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
    /// Let the receivers of alerts that ask for it reach private addresses, for example Services of the cluster
    #[arg(long, env = "HEBB_PRIVATE_RECEIVERS")]
    private_receivers: bool,
    /// Addresses or nets that receivers of alerts may reach whatever they are, for example 10.1.2.0/24
    #[arg(long, env = "HEBB_RECEIVER_NETS", value_delimiter = ',', value_name = "NET")]
    receiver_nets: Vec<Net>,
    /// Certificates (PEM) that receivers of alerts are trusted by, besides those of the system
    #[arg(long, env = "HEBB_RECEIVER_CA", value_name = "FILE")]
    receiver_ca: Option<PathBuf>,
    #[command(flatten)]
    webhook: WebhookOptions,
}

/// How the admission webhook is served.
#[derive(Args)]
struct WebhookOptions {
    /// Where to serve the admission webhook over TLS [default: nowhere]
    #[arg(long, env = "HEBB_WEBHOOK_LISTEN", requires = "webhook_certificates")]
    webhook_listen: Option<SocketAddr>,
    /// Folder with the webhook's tls.crt and tls.key (PEM); changed files count from the next connection on
    #[arg(long, env = "HEBB_WEBHOOK_CERTIFICATES", value_name = "DIR", requires = "webhook_listen")]
    webhook_certificates: Option<PathBuf>,
    /// What the webhook's path ends with, /validate/TOKEN, known to the API server only [default: none, /validate]
    #[arg(long, env = "HEBB_WEBHOOK_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    webhook_token: Option<String>,
}

/// A token that the API server takes for a part of a path, and that can't be guessed.
fn token(text: &str) -> Result<String, String> {
    let good =
        (16..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if good { Ok(text.to_owned()) } else { Err("16 to 128 lower-case letters and digits are needed".to_owned()) }
}

impl WebhookOptions {
    fn settings(self) -> Option<Webhook> {
        let (listen, certificates) = self.webhook_listen.zip(self.webhook_certificates)?;
        Some(Webhook { listen, certificates, token: self.webhook_token })
    }
}

/// The API server's address in a pod: no receiver may have the operator call it.
fn api_server() -> Vec<Net> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    host.and_then(|host| host.parse().ok()).into_iter().collect()
}

pub fn run(options: Options) -> Outcome {
    let settings = Settings {
        egress: Egress { private: options.private_receivers, exceptions: options.receiver_nets, denied: api_server() },
        receiver_roots: receiver_roots(options.receiver_ca.as_deref())?,
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
        webhook: options.webhook.settings(),
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
