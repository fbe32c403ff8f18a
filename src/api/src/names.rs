//! Names, labels, annotations and ports of what the operator makes: the one place that spells them.

use std::collections::BTreeMap;

/// The API group.
pub const GROUP: &str = "hebb.dev";
/// The one who manages fields and objects.
pub const MANAGER: &str = "hebb-operator";
/// Label with the LearningCluster's name.
pub const CLUSTER_LABEL: &str = "hebb.dev/cluster";
/// Annotation on a LearningCluster that makes the controller leave its children alone: `"true"`.
pub const PAUSED_ANNOTATION: &str = "hebb.dev/paused";
/// Annotation on a LearningCluster that lets an AlertPolicy's action run once that waits for approval: the action's name.
pub const APPROVE_ANNOTATION: &str = "hebb.dev/approve";
/// Annotation on a LearningCluster that asks for a backup: each new value for one.
pub const BACKUP_ANNOTATION: &str = "hebb.dev/backup";
/// Annotation on a LearningCluster that asks for a pod to be replaced within the budget of `spec.healing`: `failover`, or
/// `restart` and a role, and a word that makes it a new request.
pub const REQUEST_ANNOTATION: &str = "hebb.dev/request";
/// What the label of a role's pods says on those that back up and restore.
pub const BACKUP_COMPONENT: &str = "backup";
/// Annotation on pod templates with the digest of the configuration that the pods read.
pub const CONFIG_ANNOTATION: &str = "hebb.dev/config-digest";
/// Annotation on pod templates with the digest of the whole template: tells which pods run the newest.
pub const TEMPLATE_ANNOTATION: &str = "hebb.dev/template-digest";
/// Where pods find their configuration.
pub const CONFIG_PATH: &str = "/etc/hebb/learningcluster.yaml";
/// Where gateways find the API keys.
pub const API_KEYS_PATH: &str = "/etc/hebb-api-keys";
/// Port of the gateway's API.
pub const GATEWAY_PORT: i32 = 8080;
/// Port of the coordinator's API.
pub const COORDINATOR_PORT: i32 = 8000;
/// Port of the coordinators' meta-learning API.
pub const META_PORT: i32 = 3002;
/// Port of a worker's health and metrics.
pub const WORKER_PORT: i32 = 8081;
/// Port of Redis.
pub const REDIS_PORT: i32 = 6379;
/// Port on which the members of a Redis Cluster talk to each other.
pub const REDIS_BUS_PORT: i32 = REDIS_PORT + 10_000;
/// Port of a Sentinel.
pub const SENTINEL_PORT: i32 = 26379;
/// What the Sentinels call the primary.
pub const SENTINEL_MASTER: &str = "hebb";

/// A role of a cluster's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The API.
    Gateway,
    /// Assignment and status.
    Coordinator,
    /// Learning.
    Worker,
    /// The log.
    Redis,
}

impl Role {
    /// The word in names and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Redis => "redis",
        }
    }

    /// The role of this word.
    pub fn of(word: &str) -> Option<Self> {
        [Role::Gateway, Role::Coordinator, Role::Worker, Role::Redis].into_iter().find(|role| role.as_str() == word)
    }

    /// Name of the role's objects.
    pub fn object_name(self, cluster: &str) -> String {
        format!("{cluster}-{}", self.as_str())
    }
}

/// Name of the ConfigMap.
pub fn config_name(cluster: &str) -> String {
    format!("{cluster}-config")
}

/// Name of the ConfigMap that keeps the revision with which the cluster was ready last.
pub fn revision_name(cluster: &str) -> String {
    format!("{cluster}-revision")
}

/// Name of the Secret with the nodes' token.
pub fn internal_secret_name(cluster: &str) -> String {
    format!("{cluster}-internal")
}

/// Name of the Secret with the certificate of Redis, and of the Certificate that asks for it.
pub fn redis_tls_name(cluster: &str) -> String {
    format!("{}-tls", Role::Redis.object_name(cluster))
}

/// Name of what makes backups, and of the claim that keeps them.
pub fn backup_name(cluster: &str) -> String {
    format!("{cluster}-{BACKUP_COMPONENT}")
}

/// Name of the Job that restores a backup.
pub fn restore_name(cluster: &str) -> String {
    format!("{cluster}-restore")
}

/// What selects the pods that back up and restore.
pub fn backup_selector(cluster: &str) -> BTreeMap<String, String> {
    [(CLUSTER_LABEL, cluster), ("app.kubernetes.io/component", BACKUP_COMPONENT)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Labels of everything that belongs to a cluster.
pub fn cluster_labels(cluster: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "hebb"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/managed-by", MANAGER),
        (CLUSTER_LABEL, cluster),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Labels of a role's objects.
pub fn role_labels(cluster: &str, role: Role) -> BTreeMap<String, String> {
    let mut labels = cluster_labels(cluster);
    labels.insert("app.kubernetes.io/component".to_owned(), role.as_str().to_owned());
    labels
}

/// What selects a role's pods.
pub fn role_selector(cluster: &str, role: Role) -> BTreeMap<String, String> {
    [(CLUSTER_LABEL, cluster), ("app.kubernetes.io/component", role.as_str())]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
