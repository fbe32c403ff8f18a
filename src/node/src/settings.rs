//! What the nodes take from a LearningCluster: plain values, parsed once.

use std::time::Duration;

use hebb_api::{EngineSpec, LearningCluster};
use hebb_engine::{GateMode, Hyperparameters, PartitionConfig, Task, event_digest};
use hebb_log::Domain;
use serde::{Deserialize, Serialize};

/// Whether and how often the cycles of meta-learning run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaLearning {
    /// Whether they start by themselves.
    pub enabled: bool,
    /// From the end of one to the next, in milliseconds.
    pub interval_ms: u64,
    /// After how many they end; 0 for never.
    pub max_cycles: u64,
}

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
    /// The cycles of meta-learning.
    pub meta_learning: MetaLearning,
}

impl From<&LearningCluster> for ClusterSettings {
    fn from(cluster: &LearningCluster) -> Self {
        let spec = &cluster.spec;
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let hyperparameters = hyperparameters(&spec.engine);
        let domains = spec
            .domains
            .iter()
            .map(|domain| Domain {
                name: domain.name.clone(),
                partitions: count(domain.partitions),
                config: PartitionConfig {
                    task: task(domain.task),
                    hyperparameters: hyperparameters.clone(),
                    seed: event_digest(&domain.name),
                },
            })
            .collect();
        Self {
            name: match &cluster.metadata.namespace {
                Some(namespace) => format!("{namespace}.{name}"),
                None => name,
            },
            domains,
            allow_undeclared_domains: spec.allow_undeclared_domains,
            hyperparameters,
            max_queue_size: u64::from(count(spec.engine.max_queue_size)),
            checkpoint_interval: spec.engine.checkpoint_interval.0,
            meta_learning: MetaLearning {
                enabled: spec.meta_learning.enabled,
                interval_ms: u64::try_from(spec.meta_learning.interval.0.as_millis()).unwrap_or(u64::MAX),
                max_cycles: u64::from(count(spec.meta_learning.max_cycles)),
            },
        }
    }
}

fn hyperparameters(engine: &EngineSpec) -> Hyperparameters {
    Hyperparameters {
        edge_threshold: engine.edge_threshold as f32,
        cluster_threshold: engine.cluster_threshold as f32,
        learning_rate: engine.learning_rate as f32,
        exploration_rate: engine.exploration_rate as f32,
        confidence_gate: engine.confidence_gate as f32,
        gate_mode: match engine.gate_mode {
            hebb_api::GateMode::Always => GateMode::Always,
            hebb_api::GateMode::Uncertain => GateMode::Uncertain,
            hebb_api::GateMode::Confident => GateMode::Confident,
        },
        cold_start_experiences: count(engine.cold_start_experiences),
        memory_max_vectors: count(engine.memory.max_vectors),
        horizon_events: count(engine.horizon_events),
        max_local_patterns: count(engine.max_local_patterns),
    }
}

fn task(task: hebb_api::Task) -> Task {
    match task {
        hebb_api::Task::Classification => Task::Classification,
        hebb_api::Task::Regression => Task::Regression,
        hebb_api::Task::Patterns => Task::Patterns,
    }
}

/// The schema allows no negative count.
fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_resource_are_those_of_the_engine() {
        let settings = ClusterSettings::from(&LearningCluster::default());
        assert_eq!(settings.hyperparameters, Hyperparameters::default());
    }
}
