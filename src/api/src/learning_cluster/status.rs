//! What is seen of a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
