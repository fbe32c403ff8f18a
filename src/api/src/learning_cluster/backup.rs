//! Backups and where a cluster begins from.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DeletionPolicy;

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
