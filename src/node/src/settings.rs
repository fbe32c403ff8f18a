//! What the nodes take from a LearningCluster: plain values, parsed once.

use std::path::PathBuf;
use std::time::Duration;

use hebb_api::{EngineSpec, LearningCluster, RateLimitSpec, ScalingStrategy, WorkersSpec};
use hebb_engine::{GateMode, Governance, Hyperparameters, PartitionConfig, Rhythm, Task, Thresholds, event_digest};
use hebb_log::Domain;
use serde::{Deserialize, Serialize};

use crate::gateway::Limits;
use crate::worker::WorkerCount;

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
    /// How governed memories are run.
    pub governance: Governance,
    /// Most entries of a partition that may wait.
    pub max_queue_size: u64,
    /// Whether workers let entries go that only a newer version can read, where its checkpoint can't be read either.
    pub skip_unreadable: bool,
    /// How often a partition is checkpointed at most.
    pub checkpoint_interval: Duration,
    /// How old the answer of a gateway's copy may be.
    pub sync_interval: Duration,
    /// Whom gateways serve, and how much.
    pub access: Access,
    /// The cycles of meta-learning.
    pub meta_learning: MetaLearning,
    /// How many workers a process runs that is all of the cluster.
    pub workers: WorkerCount,
}

/// Whom gateways serve, and how much.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// A file with API keys, or a folder of such files, as `hebb keys new` prints them. None: whoever comes is served.
    pub api_keys: Option<PathBuf>,
    /// How much a client may ask for. None: the default limit where there are keys, no limit where there are none.
    pub rate_limit: Option<RateLimitSpec>,
    /// Whether nobody is limited, whatever else is said: for tests.
    pub unlimited: bool,
}

impl Access {
    /// The limits that hold, if any.
    pub fn limits(&self) -> Option<Limits> {
        let standard = || self.api_keys.as_ref().map(|_| RateLimitSpec::default());
        let limit = self.rate_limit.clone().or_else(standard)?;
        (!self.unlimited).then(|| Limits::from(&limit))
    }
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
            governance: governance(&spec.engine),
            max_queue_size: u64::from(count(spec.engine.max_queue_size)),
            // A person's word, never the cluster's.
            skip_unreadable: false,
            checkpoint_interval: spec.engine.checkpoint_interval.0,
            sync_interval: spec.engine.sync_interval.0,
            // Where the keys are, the process is told.
            access: Access { rate_limit: spec.gateway.rate_limit.clone(), ..Access::default() },
            meta_learning: MetaLearning {
                enabled: spec.meta_learning.enabled,
                interval_ms: u64::try_from(spec.meta_learning.interval.0.as_millis()).unwrap_or(u64::MAX),
                max_cycles: u64::from(count(spec.meta_learning.max_cycles)),
            },
            workers: workers(&spec.workers),
        }
    }
}

/// A process has no HorizontalPodAutoscaler, so that the number is fixed there.
fn workers(workers: &WorkersSpec) -> WorkerCount {
    let number = |replicas: i32| u16::try_from(replicas).unwrap_or_default().max(1);
    match &workers.autoscaling {
        Some(scaling) if scaling.strategy == ScalingStrategy::Queue => {
            let (least, most) = (number(scaling.min_replicas), number(scaling.max_replicas));
            let first = number(workers.replicas).clamp(least, most.max(least));
            WorkerCount::ByQueue { first, scaling: scaling.clone() }
        }
        _ => WorkerCount::Fixed(number(workers.replicas)),
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

fn governance(engine: &EngineSpec) -> Governance {
    let (rhythm, admission) = (&engine.rhythm, &engine.admission);
    let steps = |value: i32| u8::try_from(value).unwrap_or(u8::MAX);
    Governance {
        rhythm: Rhythm { wake: steps(rhythm.wake), sleep: steps(rhythm.sleep) },
        admission: Thresholds {
            initial_threshold: admission.initial_threshold,
            min_threshold: admission.min_threshold,
            max_threshold: admission.max_threshold,
            target_acceptance: admission.target_acceptance,
        },
    }
}

fn task(task: hebb_api::Task) -> Task {
    match task {
        hebb_api::Task::Classification => Task::Classification,
        hebb_api::Task::Regression => Task::Regression,
        hebb_api::Task::Patterns => Task::Patterns,
        hebb_api::Task::Governed => Task::Governed,
        hebb_api::Task::TimeSeriesClassification => Task::TimeSeriesClassification,
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
    fn a_process_runs_as_many_workers_as_the_cluster_has() {
        let count = |spec: &str| workers(&serde_json::from_str(spec).unwrap());
        assert_eq!(count("{}"), WorkerCount::Fixed(2));
        assert_eq!(count(r#"{"replicas": 0}"#), WorkerCount::Fixed(1));
        assert_eq!(count(r#"{"replicas": 7, "autoscaling": {"strategy": "Hpa"}}"#), WorkerCount::Fixed(7));
        let scaled = count(r#"{"replicas": 7, "autoscaling": {"minReplicas": 1, "maxReplicas": 5}}"#);
        assert!(matches!(scaled, WorkerCount::ByQueue { first: 5, .. }), "{scaled:?}");
    }

    #[test]
    fn who_needs_no_key_is_limited_by_a_wish_only_and_who_needs_one_by_default() {
        let with = |api_keys: Option<&str>, rate_limit: Option<RateLimitSpec>, unlimited| {
            Access { api_keys: api_keys.map(PathBuf::from), rate_limit, unlimited }.limits()
        };
        let wish = RateLimitSpec { requests_per_second: 9, ..RateLimitSpec::default() };
        let standard = Some(Limits::from(&RateLimitSpec::default()));
        assert_eq!(with(None, None, false), None);
        assert_eq!(with(Some("keys"), None, false), standard);
        assert_eq!(with(None, Some(wish.clone()), false), Some(Limits::from(&wish)));
        assert_eq!(with(Some("keys"), Some(wish.clone()), false), Some(Limits::from(&wish)));
        assert_eq!(with(Some("keys"), Some(wish), true), None);
    }

    #[test]
    fn the_defaults_of_the_resource_are_those_of_the_engine() {
        let settings = ClusterSettings::from(&LearningCluster::default());
        assert_eq!(settings.hyperparameters, Hyperparameters::default());
        assert_eq!(settings.governance, Governance::default());
    }
}
