//! The gateways: keys, limits, the Service.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PodTemplate;

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
