//! Where logs and checkpoints are kept.

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretRef;

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

/// Where an External server is.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!(has(self.sentinels) && has(self.cluster) && self.cluster)", "spec.redis.external: Redis has sentinels or is a cluster, not both"))]
pub struct ExternalRedis {
    /// Host name or address; of a Cluster one of its nodes. With `sentinels` it is only shown in the status.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port. With `sentinels` that of the servers: NetworkPolicies let the nodes out to it and to the Sentinels' ports. Of a
    /// Cluster that of the node; its servers may listen on any. Default: 6379.
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
