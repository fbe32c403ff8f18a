//! `hebb drain`: evicts a worker's pod, which its PodDisruptionBudget may refuse. The pod checkpoints what it owns and gives
//! it up before it ends.

use clap::Args;
use hebb_api::names::{CLUSTER_LABEL, Role};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, EvictParams};
use serde_json::json;

use super::Format;
use super::reach::{Reach, call, named};
use crate::cli::Outcome;
use crate::node::runtime;

#[derive(Args)]
#[command(after_help = "Example:
  kubectl hebb drain demo-worker-6d4f9c7b5-x2x7k")]
pub struct Options {
    /// Name of the worker's pod
    pod: String,
    #[command(flatten)]
    reach: Reach,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Why it isn't drained.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    #[error("{0} is no worker of a LearningCluster; of the other roles kubectl delete pod does the same")]
    NoWorker(String),
    #[error("{0} can't go now: as many workers are away already as the PodDisruptionBudget allows. Try again later")]
    Budget(String),
}

/// The cluster whose worker the pod is.
fn cluster_of(pod: &Pod) -> Option<&str> {
    let is_worker = pod.labels().get("app.kubernetes.io/component").is_some_and(|role| role == Role::Worker.as_str());
    pod.labels().get(CLUSTER_LABEL).filter(|_| is_worker).map(String::as_str)
}

pub fn run(options: Options) -> Outcome {
    runtime()?.block_on(async {
        let (client, namespace) = options.reach.client(true).await?;
        let pod: Pod = named(&client, &namespace, &options.pod, "Pod").await?;
        let cluster = cluster_of(&pod).ok_or_else(|| DrainError::NoWorker(options.pod.clone()))?;
        let api: Api<Pod> = Api::namespaced(client, &namespace);
        match api.evict(&options.pod, &EvictParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 429 => return Err(DrainError::Budget(options.pod).into()),
            evicted => evicted.map_err(call("evict the pod"))?,
        };
        let said = json!({"pod": options.pod, "namespace": namespace, "cluster": cluster});
        options.output.print(&format!("{} gives up what it owns and ends", options.pod), &said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_are_drained() {
        let pod = |role: &str| {
            let labels = json!({CLUSTER_LABEL: "demo", "app.kubernetes.io/component": role});
            serde_json::from_value::<Pod>(json!({"metadata": {"name": "p", "labels": labels}})).unwrap()
        };
        assert_eq!(cluster_of(&pod("worker")), Some("demo"));
        assert_eq!(cluster_of(&pod("redis")), None);
        assert_eq!(cluster_of(&Pod::default()), None);
    }
}
