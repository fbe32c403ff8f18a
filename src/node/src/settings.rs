//! What the nodes take from a LearningCluster: plain values, parsed once.

use std::time::Duration;

use hebb_engine::Hyperparameters;
use hebb_log::Domain;

/// The part of a LearningCluster that the nodes follow.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// The cluster's name in the store: `namespace/name`, or the name alone outside Kubernetes.
    pub name: String,
    /// The declared domains.
    pub domains: Vec<Domain>,
    /// Whether an unknown domain is made on its first event.
    pub allow_undeclared_domains: bool,
    /// What undeclared domains start from.
    pub hyperparameters: Hyperparameters,
    /// Most entries of a partition that may wait.
    pub max_queue_size: u64,
    /// How often a partition is checkpointed at most.
    pub checkpoint_interval: Duration,
}
