//! The `LearningCluster` resource.

// Every printer column says its type, and the lint takes that for a repetition.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

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
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.redis.primary", priority = 1),
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
    /// Protection from voluntary disruptions.
    #[serde(default)]
    pub pod_disruption_budget: PodDisruptionBudgetSpec,
}

impl Default for LearningClusterSpec {
    fn default() -> Self {
        Self {
            image: None,
            suspend: false,
            allow_undeclared_domains: true,
            domains: Vec::new(),
            engine: EngineSpec::default(),
            gateway: GatewaySpec::default(),
            coordinator: CoordinatorSpec::default(),
            workers: WorkersSpec::default(),
            redis: RedisSpec::default(),
            pod_disruption_budget: PodDisruptionBudgetSpec::default(),
        }
    }
}

fn yes() -> bool {
    true
}

/// One learning problem.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainSpec {
    /// Name of the domain, part of its address: lower-case letters, digits and '-', at most 63.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What is to be learned. Can't change.
    pub task: Task,
    /// Number of partitions that the domain's events are split into, by key. Can't change. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub partitions: i32,
}

fn one() -> i32 {
    1
}

/// A kind of learning problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Task {
    /// Which class an event belongs to.
    #[default]
    Classification,
    /// Which number belongs to an event.
    Regression,
    /// Which shapes recur in a signal.
    Patterns,
}

/// How the engine learns. A change is taken up by running partitions without a restart of what they learned.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.checkpointInterval) >= duration('100ms') && duration(self.checkpointInterval) <= duration('5m')",
    "message": "spec.engine.checkpointInterval: must be between 100ms and 5m",
}]))]
pub struct EngineSpec {
    /// Smallest change between two samples that counts as an edge, as a share of the signal's range. Default: 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub edge_threshold: f64,
    /// Smallest likeness, 0 to 1, at which a segment joins a pattern. Default: 0.7.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub cluster_threshold: f64,
    /// How far a pattern moves towards a segment that joins it, 0 to 1. Default: 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub learning_rate: f64,
    /// Share of the segments just below the threshold that found a pattern of their own, 0 to 1. Default: 0.2.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub exploration_rate: f64,
    /// The confidence, 0 to 1, at which the gate stands. Default: 0.7.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub confidence_gate: f64,
    /// Which labels update the learner: `Always`; `Uncertain`: when wrong or below the gate, fewer updates; `Confident`: at
    /// or above the gate, measured to cost accuracy under drift. Default: Always.
    pub gate_mode: GateMode,
    /// Labelled events before the ensemble votes. Default: 100.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cold_start_experiences: i32,
    /// The memory of experiences.
    pub memory: MemorySpec,
    /// Entries of a partition that may wait to be applied; beyond it clients get 429. Default: 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queue_size: i32,
    /// How often a partition is checkpointed at most; an expensive checkpoint is taken less often.
    /// 100ms to 5m. Default: 5s.
    pub checkpoint_interval: Duration,
    /// Patterns that a partition keeps. Default: 10000.
    #[schemars(range(min = 16, max = 50_000))]
    pub max_local_patterns: i32,
    /// Events of a partition that are remembered for retries and for labels that come later. Default: 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub horizon_events: i32,
}

impl Default for EngineSpec {
    fn default() -> Self {
        Self {
            edge_threshold: 0.1,
            cluster_threshold: 0.7,
            learning_rate: 0.1,
            exploration_rate: 0.2,
            confidence_gate: 0.7,
            gate_mode: GateMode::Always,
            cold_start_experiences: 100,
            memory: MemorySpec::default(),
            max_queue_size: 1000,
            checkpoint_interval: Duration::from_secs(5),
            max_local_patterns: 10_000,
            horizon_events: 10_000,
        }
    }
}

/// Which labels update the learner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GateMode {
    /// Every label.
    #[default]
    Always,
    /// When the prediction was wrong or unsure.
    Uncertain,
    /// Only when the prediction was sure.
    Confident,
}

/// The memory of experiences.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySpec {
    /// Experiences that a partition holds. Default: 20000.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub max_vectors: i32,
}

impl Default for MemorySpec {
    fn default() -> Self {
        Self { max_vectors: 20_000 }
    }
}

/// The HTTP API.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    /// Number of pods. Default: 2.
    #[schemars(range(min = 1, max = 100))]
    pub replicas: i32,
    /// How the API is reached.
    pub service: ServiceSpec,
    /// What the pods get beyond the defaults.
    pub pod_template: PodTemplate,
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self { replicas: 2, service: ServiceSpec::default(), pod_template: PodTemplate::default() }
    }
}

/// How the API is reached.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Type of the Service. Default: ClusterIP.
    #[serde(rename = "type")]
    pub type_: ServiceType,
}

/// Type of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Within the cluster.
    #[default]
    ClusterIP,
    /// On a port of each node.
    NodePort,
    /// By the cloud's load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// The word that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterIP => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Assignment, status and leadership.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CoordinatorSpec {
    /// Number of pods; one leads. Default: 3.
    #[schemars(range(min = 1, max = 9))]
    pub replicas: i32,
    /// What the pods get beyond the defaults.
    pub pod_template: PodTemplate,
}

impl Default for CoordinatorSpec {
    fn default() -> Self {
        Self { replicas: 3, pod_template: PodTemplate::default() }
    }
}

/// The pods that own partitions and learn.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.drainTimeout) >= duration('1s') && duration(self.drainTimeout) <= duration('1h')",
    "message": "spec.workers.drainTimeout: must be between 1s and 1h",
}]))]
pub struct WorkersSpec {
    /// Number of pods; `kubectl scale` sets it. Default: 2.
    #[schemars(range(min = 0, max = 500))]
    pub replicas: i32,
    /// How long a worker that leaves may take to checkpoint what it owns, 1s to 1h. Default: 60s.
    pub drain_timeout: Duration,
    /// What the pods get beyond the defaults.
    pub pod_template: PodTemplate,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        Self { replicas: 2, drain_timeout: Duration::from_secs(60), pod_template: PodTemplate::default() }
    }
}

/// What pods get beyond the defaults.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Labels of the pods; those of Hebb win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Requests and limits of the container. Default: a small request and a limit for memory by role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Nodes on which the pods may run, by label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods bear.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Which nodes and neighbours the pods prefer, as in a pod's `spec.affinity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub affinity: Option<Affinity>,
    /// Priority class of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Names of the Secrets with which the image is pulled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<String>,
}

/// An object that the API server checks where it is used; spelled out it would double the size of the CRD.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

/// Where logs and checkpoints are kept.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.mode != 'External' || has(self.external)", "spec.redis.external: is needed with mode External"))]
#[x_kube(validation = ("self.mode == 'External' || !has(self.external)", "spec.redis.external: is for mode External only"))]
#[x_kube(validation = ("self.mode != 'External' || !has(self.storage.size)", "spec.redis.storage: an External Redis has its own storage"))]
#[x_kube(validation = ("self.mode == oldSelf.mode", "spec.redis.mode: can't change; make a new LearningCluster"))]
pub struct RedisSpec {
    /// `Standalone`: one server that Hebb runs. `External`: a server that somebody else runs. Can't change. Default: Standalone.
    #[serde(default)]
    pub mode: RedisMode,
    /// When an event counts as durable. `Async`: in the server's memory. `EverySecond`: written at once, on disk within a
    /// second. `Always`: on disk before the answer. An External server keeps its own setting. Default: EverySecond.
    #[serde(default)]
    pub durability: Durability,
    /// Image of the Redis server, 7.0 or newer. Default: the operator's `--redis-image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// The volume of the server.
    #[serde(default)]
    pub storage: StorageSpec,
    /// Share of the container's memory limit that data may take, in percent; writes are refused beyond it. Default: 70.
    #[serde(default = "seventy")]
    #[schemars(range(min = 10, max = 95))]
    pub max_memory_percent_of_limit: i32,
    /// Where an External server is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRedis>,
    /// Requests and limits of the container. Default: 50m and 64Mi, limit 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

fn seventy() -> i32 {
    70
}

impl Default for RedisSpec {
    fn default() -> Self {
        Self {
            mode: RedisMode::Standalone,
            durability: Durability::EverySecond,
            image: None,
            storage: StorageSpec::default(),
            max_memory_percent_of_limit: 70,
            external: None,
            resources: None,
        }
    }
}

/// Who runs Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedisMode {
    /// One server that Hebb runs.
    #[default]
    Standalone,
    /// A server that somebody else runs.
    External,
}

/// When an event counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Durability {
    /// In the server's memory.
    Async,
    /// Written at once, on disk within a second.
    #[default]
    EverySecond,
    /// On disk before the answer.
    Always,
}

/// The volume of the server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.size) == has(oldSelf.size) && (!has(self.size) || self.size == oldSelf.size)", "spec.redis.storage.size: can't change"))]
#[x_kube(validation = ("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)", "spec.redis.storage.storageClassName: can't change"))]
pub struct StorageSpec {
    /// Size of the volume, for example 10Gi. Without it the data lives as long as the pod. Can't change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"))]
    pub size: Option<String>,
    /// Class of the volume. Default: the cluster's default class. Can't change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volume when the LearningCluster is deleted. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What becomes of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It goes.
    Delete,
}

/// Where an External server is.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRedis {
    /// Host name or address.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port. Default: 6379.
    #[serde(default = "redis_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The Secret, in the same namespace, that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
}

fn redis_port() -> i32 {
    6379
}

/// One key of a Secret in the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Protection from voluntary disruptions.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetSpec {
    /// Whether roles of more than one pod lose at most one at a time. Default: true.
    pub enabled: bool,
}

impl Default for PodDisruptionBudgetSpec {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// What a LearningCluster is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LearningClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people: Pending, Progressing, Ready, Degraded, Suspended, Paused or Invalid. Programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What is true of the cluster: Ready, Reconciling, Stalled, Initialized, GatewayAvailable, LeaderElected,
    /// WorkersAvailable, RedisAvailable, Suspended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The coordinator that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersStatus>,
    /// Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStatus>,
    /// The image that the cluster runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The image's tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the cluster is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// The workers.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersStatus {
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that should be there.
    pub desired: i32,
    /// Ready of desired, for the column.
    pub summary: String,
    /// Selects the workers' pods.
    pub selector: String,
}

/// Redis.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisStatus {
    /// Standalone or External.
    pub mode: String,
    /// The pod, or the host, that takes writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// Servers of the cluster's own that are ready.
    pub ready_replicas: i32,
}

/// Where the cluster is reached.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// The API.
    pub gateway: String,
    /// The status API.
    pub coordinator: String,
}
