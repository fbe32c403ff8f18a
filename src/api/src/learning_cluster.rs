//! The `LearningCluster` resource.

// Every printer column says its type, and the lint takes that for a repetition.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
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
            traces: None,
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
    /// Which vectors are worth keeping: governed memory, by `POST /event` and `GET /state`.
    Governed,
}

/// What `engine.syncInterval` may be.
pub const SYNC_INTERVALS: RangeInclusive<Duration> =
    Duration(std::time::Duration::from_millis(500))..=Duration::from_secs(5);

/// How the engine learns. A change is taken up by running partitions without a restart of what they learned.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.checkpointInterval) >= duration('100ms') && duration(self.checkpointInterval) <= duration('5m')",
    "message": "spec.engine.checkpointInterval: must be between 100ms and 5m",
}, {
    "rule": "duration(self.syncInterval) >= duration('500ms') && duration(self.syncInterval) <= duration('5s')",
    "message": "spec.engine.syncInterval: must be between 500ms and 5s",
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
    /// Entries of a partition that may wait to be applied; beyond it clients get 429, those of low priority from half of
    /// it on and those of normal priority from 95 %. Default: 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queue_size: i32,
    /// How often a partition is checkpointed at most; an expensive checkpoint is taken less often.
    /// 100ms to 5m. Default: 5s.
    pub checkpoint_interval: Duration,
    /// How far the copy of a partition from which a gateway answers reads with `consistency=Eventual` may be behind its
    /// log. 500ms to 5s. A change restarts the gateways. Default: 1s.
    pub sync_interval: Duration,
    /// Patterns that a partition keeps, and so each copy of it. Default: 10000.
    #[schemars(range(min = 16, max = 50_000))]
    pub max_local_patterns: i32,
    /// Events of a partition that are remembered for retries and for labels that come later. Default: 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub horizon_events: i32,
    /// How long a governed memory is awake and asleep.
    #[serde(skip_serializing_if = "RhythmSpec::is_default")]
    pub rhythm: RhythmSpec,
    /// What a governed memory accepts.
    #[serde(skip_serializing_if = "AdmissionSpec::is_default")]
    pub admission: AdmissionSpec,
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
            sync_interval: Duration::from_secs(1),
            max_local_patterns: 10_000,
            horizon_events: 10_000,
            rhythm: RhythmSpec::default(),
            admission: AdmissionSpec::default(),
        }
    }
}

/// How long a governed memory takes in, and how long it consolidates. A changed rhythm begins with waking.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RhythmSpec {
    /// Vectors for which it is awake. Default: 8.
    #[schemars(range(min = 1, max = 100))]
    pub wake: i32,
    /// Vectors for which it is asleep; what is accepted meanwhile waits for the next waking. Default: 3.
    #[schemars(range(min = 1, max = 100))]
    pub sleep: i32,
}

impl Default for RhythmSpec {
    fn default() -> Self {
        Self { wake: 8, sleep: 3 }
    }
}

impl RhythmSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a governed memory accepts: vectors whose value reaches a threshold, which each of them moves.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minThreshold <= self.initialThreshold && self.initialThreshold <= self.maxThreshold",
    "message": "spec.engine.admission: initialThreshold must be between minThreshold and maxThreshold",
}]))]
pub struct AdmissionSpec {
    /// Where the threshold begins, 0 to 1. A memory that has judged a vector keeps its own. Default: 0.5.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub initial_threshold: f64,
    /// The least that the threshold becomes, 0 to 1: what is worth less is never accepted. Default: 0.1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_threshold: f64,
    /// The most that the threshold becomes, 0 to 1: what is worth as much is always accepted. Default: 0.9.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_threshold: f64,
    /// The share of the vectors, 0 to 1, that the threshold homes in on accepting. Default: 0.7.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub target_acceptance: f64,
}

impl Default for AdmissionSpec {
    fn default() -> Self {
        Self { initial_threshold: 0.5, min_threshold: 0.1, max_threshold: 0.9, target_acceptance: 0.7 }
    }
}

impl AdmissionSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
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
    /// Who may use the API. Default: whoever reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// How much a client may ask for. Default: 5 requests a second where `auth` is set, no limit where it isn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// What the pods get beyond the defaults.
    pub pod_template: PodTemplate,
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            replicas: 2,
            service: ServiceSpec::default(),
            auth: None,
            rate_limit: None,
            pod_template: PodTemplate::default(),
        }
    }
}

/// Who may use the API: who sends `Authorization: Bearer` with one of these keys.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthSpec {
    /// The Secret with the keys, in the same namespace. Each of its entries holds lines of `hebb keys new`, one a key. The
    /// pods see a change within about a minute, without a restart.
    pub secret_ref: SecretRef,
}

/// A Secret in the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How much a client may ask for: a client is the name of an API key, else an address. A line of a stream and a signal of a
/// batch count as a request each. Each gateway counts for itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// Requests a second of a client without a tier. Default: 5.
    #[serde(default = "requests_per_second")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: i32,
    /// Requests that may come at once after a pause. Default: twice `requestsPerSecond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<i32>,
    /// Other limits, for the keys that name them. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub tiers: Vec<TierSpec>,
}

/// What a person can click; programs have tiers.
fn requests_per_second() -> i32 {
    5
}

impl Default for RateLimitSpec {
    fn default() -> Self {
        Self { requests_per_second: requests_per_second(), burst: None, tiers: Vec::new() }
    }
}

/// The limit of some keys.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// Its name, as keys name it: 1 to 63 letters, digits, '.', '_' and '-'.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub name: String,
    /// Requests a second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: i32,
    /// Requests that may come at once after a pause. Default: twice `requestsPerSecond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<i32>,
    /// The highest priority that its requests have, whatever they ask for. Default: High.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<Priority>,
}

/// How much requests matter to a queue that fills up: `Low` is refused from half of `maxQueueSize` on, `Normal` from 95 %
/// of it on, `High` when it is full. Of a tier the most that its requests get, whatever they ask for. Default: High.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Priority {
    /// From half of `maxQueueSize` on.
    Low,
    /// From 95 % of it on.
    Normal,
    /// At `maxQueueSize`.
    High,
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
    /// Number of pods; `kubectl scale` sets it. With an autoscaling strategy it is only what a new cluster begins with.
    /// Default: 2.
    #[schemars(range(min = 0, max = 500))]
    pub replicas: i32,
    /// Who decides the number of pods, and how. Without it `replicas` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,
    /// How long a worker that leaves may take to checkpoint what it owns, 1s to 1h. Default: 60s.
    pub drain_timeout: Duration,
    /// What the pods get beyond the defaults.
    pub pod_template: PodTemplate,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        Self {
            replicas: 2,
            autoscaling: None,
            drain_timeout: Duration::from_secs(60),
            pod_template: PodTemplate::default(),
        }
    }
}

/// Who decides the number of workers, and how.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.minReplicas <= self.maxReplicas",
    "message": "spec.workers.autoscaling: minReplicas must not be above maxReplicas",
}]))]
pub struct AutoscalingSpec {
    /// `Queue`: entries that wait to be applied, divided by `queueDepthPerWorker`. `Hpa`: a HorizontalPodAutoscaler that Hebb
    /// makes, on processor time. `None`: `spec.workers.replicas`. Default: Queue.
    pub strategy: ScalingStrategy,
    /// Fewest workers. Default: 2.
    #[schemars(range(min = 1, max = 500))]
    pub min_replicas: i32,
    /// Most workers. Default: 50.
    #[schemars(range(min = 1, max = 500))]
    pub max_replicas: i32,
    /// Waiting entries that one worker is there for. Default: 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue_depth_per_worker: i32,
    /// Processor time, in percent of the request, that an `Hpa` aims at. Default: 70.
    #[schemars(range(min = 1, max = 1_000))]
    pub target_cpu_utilization_percentage: i32,
    /// How the number grows.
    pub scale_up: ScaleUpSpec,
    /// How the number shrinks.
    pub scale_down: ScaleDownSpec,
    /// What is done while the number of waiting entries isn't known.
    pub fallback: FallbackSpec,
}

impl Default for AutoscalingSpec {
    fn default() -> Self {
        Self {
            strategy: ScalingStrategy::Queue,
            min_replicas: 2,
            max_replicas: 50,
            queue_depth_per_worker: 100,
            target_cpu_utilization_percentage: 70,
            scale_up: ScaleUpSpec::default(),
            scale_down: ScaleDownSpec::default(),
            fallback: FallbackSpec::default(),
        }
    }
}

/// Who decides the number of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingStrategy {
    /// The operator, by the queue.
    #[default]
    Queue,
    /// A HorizontalPodAutoscaler.
    Hpa,
    /// `spec.workers.replicas`.
    None,
}

/// How the number of workers grows.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.stabilization) <= duration('1h')",
    "message": "spec.workers.autoscaling.scaleUp.stabilization: must be at most 1h",
}]))]
pub struct ScaleUpSpec {
    /// For how long more workers must have been wanted, up to 1h. Default: 0s.
    pub stabilization: Duration,
    /// Workers that are added at a time at most. Default: 10.
    #[schemars(range(min = 1, max = 500))]
    pub max_step: i32,
}

impl Default for ScaleUpSpec {
    fn default() -> Self {
        Self { stabilization: Duration::from_secs(0), max_step: 10 }
    }
}

/// How the number of workers shrinks.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.stabilization) <= duration('1h')",
    "message": "spec.workers.autoscaling.scaleDown.stabilization: must be at most 1h",
}]))]
pub struct ScaleDownSpec {
    /// For how long fewer workers must have been enough, up to 1h. Default: 5m.
    pub stabilization: Duration,
    /// Workers that are drained at a time at most. The next ones follow when these are gone. Default: 1.
    #[schemars(range(min = 1, max = 500))]
    pub max_step: i32,
}

impl Default for ScaleDownSpec {
    fn default() -> Self {
        Self { stabilization: Duration::from_secs(300), max_step: 1 }
    }
}

/// What is done while the number of waiting entries isn't known. No answer is not an empty queue.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FallbackSpec {
    /// Spans of ten seconds without an answer of the coordinators before the fallback. Default: 3.
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
    /// Workers that there are then at least; a greater number stays as it is. Default: 3.
    #[schemars(range(min = 1, max = 500))]
    pub replicas: i32,
}

impl Default for FallbackSpec {
    fn default() -> Self {
        Self { failure_threshold: 3, replicas: 3 }
    }
}

/// How a changed image or configuration reaches the pods: Redis first, then workers, coordinators and gateways, each role
/// when the one before has come up.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.progressDeadline) >= duration('10s') && duration(self.progressDeadline) <= duration('24h')",
    "message": "spec.upgrade.progressDeadline: must be between 10s and 24h",
}]))]
pub struct UpgradeSpec {
    /// Who decides when a pod goes to the new revision. A change of the strategy replaces gateways and workers once.
    /// Default: RollingUpdate.
    pub strategy: UpgradeStrategy,
    /// Workers that may be away at a time; each checkpoints what it owns before it goes. Default: 1.
    #[schemars(range(min = 1, max = 100))]
    pub max_unavailable: i32,
    /// How long an upgrade may go on without one more pod of the new revision that is ready, 10s to 24h. Default: 10m.
    pub progress_deadline: Duration,
    /// Whether an upgrade that misses its deadline is taken back to the revision that was ready last. Default: true.
    pub auto_rollback: bool,
}

impl Default for UpgradeSpec {
    fn default() -> Self {
        Self {
            strategy: UpgradeStrategy::RollingUpdate,
            max_unavailable: 1,
            progress_deadline: Duration::from_secs(600),
            auto_rollback: true,
        }
    }
}

/// Who decides when a pod goes to a new revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpgradeStrategy {
    /// Hebb, one role after the other.
    #[default]
    RollingUpdate,
    /// Whoever deletes the pod: its successor is of the new revision. There is no deadline, and nothing is taken back.
    OnDelete,
}

/// What is done about pods that don't recover by themselves: crash loops, stuck ends, processes that hang.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.window) >= duration('1m') && duration(self.window) <= duration('24h')",
    "message": "spec.healing.window: must be between 1m and 24h",
}]))]
pub struct HealingSpec {
    /// Whether the operator replaces such pods. Default: true.
    pub enabled: bool,
    /// Replacements within the window before the operator stops and says so in the condition Stalled. Default: 3.
    #[schemars(range(min = 1, max = 16))]
    pub max_replacements: i32,
    /// The window, 1m to 24h. Default: 10m.
    pub window: Duration,
}

impl Default for HealingSpec {
    fn default() -> Self {
        Self { enabled: true, max_replacements: 3, window: Duration::from_secs(600) }
    }
}

/// Who may reach the pods.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// Whether NetworkPolicies let through only what a cluster needs: clients to the gateways, the nodes to Redis and each
    /// other, the operator to the coordinators. Default: true.
    pub enabled: bool,
    /// Labels of the namespaces whose pods may read the metrics of every role, for example
    /// `kubernetes.io/metadata.name: monitoring`. Without it nobody else may.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub metrics_from_namespaces: BTreeMap<String, String>,
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self { enabled: true, metrics_from_namespaces: BTreeMap::new() }
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
#[x_kube(validation = ("self.mode in ['Sentinel', 'Cluster'] || !has(self.replicas)", "spec.redis.replicas: is for the modes Sentinel and Cluster only"))]
#[x_kube(validation = ("self.mode != 'Sentinel' || !has(self.replicas) || (self.replicas % 2 == 1 && self.replicas <= 9)", "spec.redis.replicas: must be odd with mode Sentinel, so that a majority can elect the primary, and at most 9"))]
#[x_kube(validation = ("self.mode != 'Cluster' || !has(self.replicas) || (self.replicas % 2 == 0 && self.replicas >= 6)", "spec.redis.replicas: must be even with mode Cluster, two servers a shard, and at least 6, so that a majority of the shards is left when one loses its primary"))]
#[x_kube(validation = ("(has(self.replicas) ? self.replicas : self.mode == 'Cluster' ? 6 : 3) == (has(oldSelf.replicas) ? oldSelf.replicas : oldSelf.mode == 'Cluster' ? 6 : 3)", "spec.redis.replicas: can't change; make a new LearningCluster"))]
#[x_kube(validation = ("self.mode != 'External' || !has(self.tls)", "spec.redis.tls: is for a Redis that Hebb runs; an External one has external.tls"))]
#[x_kube(validation = ("has(self.tls) == has(oldSelf.tls) && (!has(self.tls) || self.tls == oldSelf.tls)", "spec.redis.tls: can't be added, removed or changed; make a new LearningCluster"))]
#[x_kube(validation = ("self.mode in ['Sentinel', 'Cluster'] || self.durability != 'Replicated'", "spec.redis.durability: Replicated is for the modes Sentinel and Cluster; an External Redis has external.waitForReplicas"))]
pub struct RedisSpec {
    /// `Standalone`: one server that Hebb runs. `Sentinel`: a primary with replicas that Hebb runs, of which Sentinels elect
    /// another primary when it is lost. `Cluster`: a Redis Cluster that Hebb runs, whose shards of a primary and a replica
    /// share the partitions. `External`: a server that somebody else runs. Can't change. Default: Standalone.
    #[serde(default)]
    pub mode: RedisMode,
    /// Pods with mode Sentinel, each with a server and a Sentinel: 3, 5, 7 or 9, by default 3. With mode Cluster servers, two
    /// a shard: an even number from 6 to 18, by default 6. Can't change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3, max = 18))]
    pub replicas: Option<i32>,
    /// When an event counts as durable. `Async`: in the server's memory. `EverySecond`: written at once, on disk within a
    /// second. `Always`: on disk before the answer. `Replicated`, with mode Sentinel: as `EverySecond`, and more than half of
    /// the servers have it, so that a failover loses nothing; with mode Cluster: the shard's replica has it too. An External
    /// server keeps its own setting. Default: EverySecond.
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
    /// Encrypts every connection to the servers and Sentinels that Hebb runs, and between them. `{}`: with a certificate that
    /// Hebb makes and renews. Can't be added, removed or changed. Default: connections are in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
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
            replicas: None,
            durability: Durability::EverySecond,
            image: None,
            storage: StorageSpec::default(),
            max_memory_percent_of_limit: 70,
            tls: None,
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
    /// A primary with replicas, and Sentinels, that Hebb runs.
    Sentinel,
    /// Shards of a primary and a replica each, that Hebb runs.
    Cluster,
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
    /// In the memory of more than half of the servers, with mode Cluster of those of the shard.
    Replicated,
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

/// Learning how to learn.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaLearningSpec {
    /// Whether the cycles run by themselves. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// From the end of one cycle to the next, 1s to 168h. Default: 5m.
    #[serde(default = "five_minutes_between")]
    pub interval: Duration,
    /// After how many cycles they end; 0 for never. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_cycles: i32,
}

fn five_minutes_between() -> Duration {
    Duration::from_secs(300)
}

impl MetaLearningSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for MetaLearningSpec {
    fn default() -> Self {
        Self { enabled: true, interval: five_minutes_between(), max_cycles: 0 }
    }
}

/// Backups of what was learned.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupSpec {
    /// When backups are made, in the five fields of cron and in UTC, for example `0 */6 * * *`. Without it only when the
    /// annotation `hebb.dev/backup` of the LearningCluster gets a new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 100), regex(pattern = r"^\s*[0-9*,/-]+(\s+[0-9*,/-]+){4}\s*$"))]
    pub schedule: Option<String>,
    /// Backups of this cluster that are kept. Default: 7.
    #[serde(default = "seven")]
    #[schemars(range(min = 1, max = 1_000))]
    pub retention: i32,
    /// Where they are kept.
    pub destination: BackupDestination,
}

fn seven() -> i32 {
    7
}

/// Where backups are kept.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupDestination {
    /// A volume in the namespace of the cluster.
    pub persistent_volume_claim: BackupVolume,
}

/// A volume for backups: one that is there already, or one that Hebb makes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.claimName) != has(self.size)", "spec.backup.destination.persistentVolumeClaim: needs claimName, or size"))]
#[x_kube(validation = ("!has(self.claimName) || !has(self.storageClassName)", "spec.backup.destination.persistentVolumeClaim.storageClassName: is for a volume that Hebb makes"))]
#[x_kube(validation = ("!has(self.size) || !has(oldSelf.size) || self.size == oldSelf.size", "spec.backup.destination.persistentVolumeClaim.size: can't change"))]
#[x_kube(validation = ("!has(self.size) || !has(oldSelf.size) || (has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName))", "spec.backup.destination.persistentVolumeClaim.storageClassName: can't change"))]
pub struct BackupVolume {
    /// An existing claim. Several clusters may share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Size of the volume that Hebb makes, for example 10Gi; its claim is called after the cluster, with `-backup`. Can't
    /// change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"))]
    pub size: Option<String>,
    /// Class of that volume. Default: the cluster's default class. Can't change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// What becomes of that volume when the LearningCluster is deleted. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What a new cluster begins with.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSpec {
    /// Where the backup is.
    pub from: RestoreSource,
    /// Its name, needed where the volume holds those of several clusters. Default: the newest complete one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^./][^/]*\.hebb$"))]
    pub backup: Option<String>,
}

/// Where a backup is.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSource {
    /// A volume in the namespace of the cluster.
    pub persistent_volume_claim: ClaimRef,
}

/// An existing claim in the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// Where an External server is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.sentinels) && has(self.cluster) && self.cluster)", "spec.redis.external: Redis has sentinels or is a cluster, not both"))]
pub struct ExternalRedis {
    /// Host name or address; of a Cluster one of its nodes. With `sentinels` it is only shown in the status.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port. Default: 6379.
    #[serde(default = "redis_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Whether the server is a node of a Redis Cluster. Default: false.
    #[serde(default)]
    pub cluster: bool,
    /// The Sentinels that say which server is primary, each host:port. At most 9.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), inner(length(min = 3, max = 259), regex(pattern = r"^[^,\s]+:[0-9]+$")))]
    pub sentinels: Vec<String>,
    /// What the Sentinels call the primary. Default: hebb.
    #[serde(default = "sentinel_master")]
    #[schemars(length(min = 1, max = 128))]
    pub sentinel_master: String,
    /// ACL user. Default: the default user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub username: Option<String>,
    /// The Secret, in the same namespace, that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// The Secret, in the same namespace, that holds the password of the Sentinels, where they have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_password_secret_ref: Option<SecretKeyRef>,
    /// Encrypts the connections. Default: they are in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// Replicas that must have an event before it is answered, so that a failover loses nothing. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 8))]
    pub wait_for_replicas: i32,
}

/// How connections to Redis are encrypted.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// The Secret, in the same namespace, with `ca.crt`, and with `tls.crt` and `tls.key` where Redis wants to see a
    /// certificate, as cert-manager writes it.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Whether the nodes show the certificate in the Secret. Default: false.
    #[serde(default)]
    pub client_certificate: bool,
}

/// Where the certificate of a Redis that Hebb runs comes from; without a reference Hebb makes it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.secretRef) && has(self.issuerRef))", "spec.redis.tls: takes secretRef or issuerRef, not both"))]
pub struct ServerTls {
    /// A Secret in the same namespace, made by somebody, with `tls.crt`, `tls.key` and `ca.crt`. The certificate is for
    /// NAME-redis.NAMESPACE.svc.DOMAIN and, with modes Sentinel and Cluster, for `*.` before that. A change of the Secret
    /// renews the pods within five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// The cert-manager issuer that is asked for the certificate. It must say who vouches for it (`ca.crt`), as issuers of
    /// the types CA and Vault do. The operator needs rights for this: `certManager.enabled` of its chart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
}

/// An issuer of cert-manager.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its kind. Default: Issuer.
    #[serde(default = "issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its API group. Default: cert-manager.io.
    #[serde(default = "issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

fn issuer_kind() -> String {
    "Issuer".to_owned()
}

fn issuer_group() -> String {
    "cert-manager.io".to_owned()
}

fn sentinel_master() -> String {
    "hebb".to_owned()
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

/// Where traces go, and how many.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TracesSpec {
    /// Where a collector takes OTLP over HTTP, for example http://otel-collector.monitoring:4318.
    #[schemars(length(min = 1, max = 300), regex(pattern = r"^http://[-.a-z0-9]+:[0-9]{1,5}$"))]
    pub endpoint: String,
    /// Of a hundred requests that are part of no trace yet, how many are recorded. A client that sends a trace decides for
    /// itself. Default: 1.
    #[serde(default = "one_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub sample_percent: i32,
}

fn one_percent() -> i32 {
    1
}

/// What a LearningCluster is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LearningClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people: Progressing, Restoring, Ready, Upgrading, RolledBack, Degraded, Suspended, Paused or Invalid.
    /// Programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What is true of the cluster: Ready, Reconciling, Stalled, Initialized, GatewayAvailable, LeaderElected,
    /// WorkersAvailable, RedisAvailable, RedisCertificateValid, ScalingActive, UpgradeInProgress, Suspended, BackupSucceeded.
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
    /// The revision of images and configuration with which the cluster was ready last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// The revision that the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
    /// The upgrade that is under way, or was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,
    /// The last decision on the number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// The pods that were replaced lately because they didn't recover. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub replacements: Vec<Replacement>,
    /// What became of the newest annotation `hebb.dev/request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestStatus>,
    /// The backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// What was restored when the cluster was new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoreStatus>,
    /// Where the cluster is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// The backups.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupStatus {
    /// The value of the annotation `hebb.dev/backup` that a backup was last begun for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// The newest backup that succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<BackupRecord>,
    /// The newest one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<BackupFailure>,
}

/// A backup that succeeded.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupRecord {
    /// Name of its file, by which it is restored; empty where its pod was gone before it could be asked.
    pub name: String,
    /// When it was complete.
    pub time: Time,
    /// Bytes of the file.
    pub bytes: i64,
    /// Events whose effects it holds.
    pub events: i64,
}

/// A backup that failed.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupFailure {
    /// The Job that was given up.
    pub job: String,
    /// When.
    pub time: Time,
    /// Why.
    pub message: String,
}

/// What was restored when the cluster was new.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// Name of the backup; empty where the pod was gone before it could be asked.
    pub backup: String,
    /// When it was restored.
    pub time: Time,
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
    /// The power of ten below which the waiting entries have stayed for half a minute, for example `<100`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Selects the workers' pods.
    pub selector: String,
}

/// Redis.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisStatus {
    /// Standalone, Sentinel, Cluster or External.
    pub mode: String,
    /// The pod, or the host, that takes writes; with mode Sentinel the one that was elected last, with mode Cluster how many
    /// shards have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// With mode Cluster, the pods that take writes, one a shard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    pub primaries: Vec<String>,
    /// Servers of the cluster's own that are ready.
    pub ready_replicas: i32,
    /// When another primary than before was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover_time: Option<Time>,
    /// How many servers what the domains may learn asks for, by the bounds in the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sizing: Option<String>,
    /// The image of the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
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

/// An upgrade that is under way, or was taken back.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// The revision that it leads to.
    pub revision: String,
    /// Pods of that revision that were ready when it last progressed.
    pub updated_pods: i32,
    /// When it began or last progressed.
    pub progressed_at: Time,
    /// Whether it missed its deadline and was taken back; it is tried again when the spec asks for another revision.
    pub failed: bool,
}

/// A decision on the number of workers.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// The number.
    pub desired: i32,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// When the number was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
}

/// What became of a request. Written before it is granted, so that none is granted twice.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestStatus {
    /// The value of the annotation `hebb.dev/request`.
    pub value: String,
    /// Whether it was granted.
    pub granted: bool,
    /// What is done, or why nothing is.
    pub message: String,
    /// When.
    pub at: Time,
}

/// A pod that was replaced because it didn't recover. Written before the pod is deleted.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// What was wrong with it, in one word.
    pub reason: String,
    /// When.
    pub at: Time,
}
