//! The `LearningCluster` resource.

// Every printer column says its type, and the lint takes that for a repetition.
#![allow(clippy::duplicated_attributes)]

mod backup;
mod engine;
mod gateway;
mod redis;
mod status;
mod upkeep;
mod workers;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use backup::*;
pub use engine::*;
pub use gateway::*;
pub use redis::*;
pub use status::*;
pub use upkeep::*;
pub use workers::*;

/// What a LearningCluster should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "hebb.dev",
    version = "v1alpha1",
    kind = "LearningCluster",
    plural = "learningclusters",
    shortname = "lc",
    category = "all",
    category = "hebb",
    namespaced,
    status = "LearningClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Models that learn while they serve: a gateway, coordinators, workers and Redis, reconciled as one.",
    scale(
        spec_replicas_path = ".spec.workers.replicas",
        status_replicas_path = ".status.workers.replicas",
        label_selector_path = ".status.workers.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers.summary"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Redis", type_ = "string", json_path = ".status.redis.mode"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Min",
        type_ = "integer",
        json_path = ".spec.workers.autoscaling.minReplicas",
        priority = 1
    ),
    printcolumn(
        name = "Max",
        type_ = "integer",
        json_path = ".spec.workers.autoscaling.maxReplicas",
        priority = 1
    ),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.redis.primary", priority = 1),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.workers.lag", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    validation = ("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')", "metadata.name: at most 40 lower-case letters, digits and '-', beginning with a letter: Services are named after it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(oldSelf.domains) || !has(self.domains) || oldSelf.domains.all(o, self.domains.all(n, n.name != o.name || (n.task == o.task && n.partitions == o.partitions)))",
    "spec.domains: task and partitions of a domain can't change; remove the domain and give it another name"
))]
#[x_kube(validation = (
    "!has(self.restore) || (has(oldSelf.restore) && self.restore == oldSelf.restore)",
    "spec.restore: is for a new LearningCluster; it can be removed, not added or changed"
))]
pub struct LearningClusterSpec {
    /// Image of gateway, coordinators and workers. Default: the operator's own image, pinned in `status.image` so that an
    /// upgrade of the operator restarts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Scales every workload to zero and keeps what was learned. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// Whether a domain that isn't listed is made on its first event. Default: true.
    #[serde(default = "yes")]
    pub allow_undeclared_domains: bool,
    /// The learning problems that are known from the start. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub domains: Vec<DomainSpec>,
    /// How the engine learns.
    #[serde(default)]
    pub engine: EngineSpec,
    /// Learning how to learn: cycles that try other parameters on recorded experience and keep what is better.
    #[serde(default, skip_serializing_if = "MetaLearningSpec::is_default")]
    pub meta_learning: MetaLearningSpec,
    /// The HTTP API.
    #[serde(default)]
    pub gateway: GatewaySpec,
    /// Assignment, status and leadership.
    #[serde(default)]
    pub coordinator: CoordinatorSpec,
    /// The pods that own partitions and learn.
    #[serde(default)]
    pub workers: WorkersSpec,
    /// Where logs and checkpoints are kept.
    #[serde(default)]
    pub redis: RedisSpec,
    /// Backups of what was learned. Without it none are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupSpec>,
    /// What a new cluster begins with. It is restored once, before anything else runs. Can be removed, not added or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
    /// How a changed image or configuration reaches the pods.
    #[serde(default)]
    pub upgrade: UpgradeSpec,
    /// What is done about pods that don't recover by themselves.
    #[serde(default)]
    pub healing: HealingSpec,
    /// Who may reach the pods.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
    /// Protection from voluntary disruptions.
    #[serde(default)]
    pub pod_disruption_budget: PodDisruptionBudgetSpec,
    /// Pushes metrics of gateways, coordinators and workers. Without it they are only there for a scrape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsSpec>,
    /// Traces of requests through gateway, log and worker. Without it none are recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<TracesSpec>,
}

impl Default for LearningClusterSpec {
    fn default() -> Self {
        Self {
            image: None,
            suspend: false,
            allow_undeclared_domains: true,
            domains: Vec::new(),
            engine: EngineSpec::default(),
            meta_learning: MetaLearningSpec::default(),
            gateway: GatewaySpec::default(),
            coordinator: CoordinatorSpec::default(),
            workers: WorkersSpec::default(),
            redis: RedisSpec::default(),
            backup: None,
            restore: None,
            upgrade: UpgradeSpec::default(),
            healing: HealingSpec::default(),
            network_policy: NetworkPolicySpec::default(),
            pod_disruption_budget: PodDisruptionBudgetSpec::default(),
            metrics: None,
            traces: None,
        }
    }
}

fn yes() -> bool {
    true
}
