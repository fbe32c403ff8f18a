//! How Hebb keeps what runs: upgrades, healing, pods, networks, traces.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

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

/// Where metrics are pushed, beside being there for a scrape.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.interval) || (duration(self.interval) >= duration('1s') && duration(self.interval) <= duration('1h'))",
    "message": "spec.metrics.interval: must be between 1s and 1h",
}]))]
pub struct MetricsSpec {
    /// Where a collector takes OTLP over HTTP, for example http://otel-collector.monitoring:4318.
    #[schemars(length(min = 1, max = 300), regex(pattern = r"^http://[-.a-z0-9]+:[0-9]{1,5}$"))]
    pub endpoint: String,
    /// From one push to the next, 1s to 1h. Default: 60s.
    #[serde(default = "a_minute")]
    pub interval: Duration,
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}

fn one_percent() -> i32 {
    1
}
