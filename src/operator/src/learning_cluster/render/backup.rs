//! Backups and the restore of one: a claim that keeps them, a CronJob, and Jobs. Their pods reach Redis, and nothing else.

use hebb_api::DeletionPolicy;
use hebb_api::names;
use serde_json::{Value, json};

use super::pods::{placement, restricted, security_context};
use super::roles::{redis_env, redis_mounts, redis_volumes};
use super::{Topology, digest};
use crate::learning_cluster::topology::{Backup, Claim};

/// Where the volume is found.
const FOLDER: &str = "/backups";
/// Where the kubelet reads what a container leaves.
const REPORT: &str = "/dev/termination-log";
/// How often a pod that failed is followed by another.
const RETRIES: i32 = 2;
/// How long a Job may take, its waiting for a volume and a node included.
const DEADLINE_SECONDS: i64 = 3_600;
/// How long the Job of a backup that was asked for can be looked at.
const KEPT_SECONDS: i32 = 24 * 3_600;
/// How late a scheduled backup may still begin.
const STARTING_DEADLINE_SECONDS: i64 = 600;
/// Digits that tell the Jobs of different requests apart; with them a name has at most 63 characters.
const DIGITS: usize = 12;

/// Name of the Job that a request asks for.
pub fn job_name(cluster: &str, request: &str) -> String {
    let digits: String = digest(&[request]).chars().take(DIGITS).collect();
    format!("{}-{digits}", names::backup_name(cluster))
}

/// The claim that keeps the backups, where Hebb makes one, and whether it outlives the cluster.
pub fn claim(topology: &Topology) -> Option<(Value, DeletionPolicy)> {
    let Claim::Made { size, storage_class, deletion_policy } = &topology.backup.as_ref()?.claim else { return None };
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
    if let Some(class) = storage_class {
        spec["storageClassName"] = json!(class);
    }
    Some((json!({"spec": spec}), *deletion_policy))
}

/// The CronJob, where there is a schedule.
pub fn schedule(topology: &Topology) -> Option<Value> {
    let backup = topology.backup.as_ref()?;
    let schedule = backup.schedule.as_ref()?;
    Some(json!({"spec": {
        "schedule": schedule,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": STARTING_DEADLINE_SECONDS,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "suspend": !topology.runs(),
        "jobTemplate": {"metadata": {"labels": labels(topology)}, "spec": job(topology, backup_pod(topology, backup))},
    }}))
}

/// The Job that the annotation asks for.
pub fn requested(topology: &Topology) -> Option<(String, Value)> {
    let backup = topology.backup.as_ref().filter(|_| topology.runs())?;
    let mut job = job(topology, backup_pod(topology, backup));
    job["ttlSecondsAfterFinished"] = json!(KEPT_SECONDS);
    Some((job_name(&topology.name, backup.request.as_ref()?), json!({"spec": job})))
}

/// The Job that restores a backup. It stays, so that nobody wonders whether there was one.
pub fn restore(topology: &Topology) -> Option<Value> {
    let restore = topology.restore.as_ref().filter(|_| topology.awaits_restore && !topology.suspended)?;
    let mut arguments = vec!["restore", "--from", FOLDER];
    if let Some(backup) = &restore.backup {
        arguments.extend(["--backup", backup]);
    }
    let pod = pod(topology, arguments, &restore.from.persistent_volume_claim.claim_name, true);
    Some(json!({"spec": job(topology, pod)}))
}

fn labels(topology: &Topology) -> Value {
    let mut labels = names::cluster_labels(&topology.name);
    labels.extend(names::backup_selector(&topology.name));
    json!(labels)
}

fn job(topology: &Topology, pod: Value) -> Value {
    json!({
        "backoffLimit": RETRIES,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "template": {"metadata": {"labels": labels(topology)}, "spec": pod},
    })
}

fn backup_pod(topology: &Topology, backup: &Backup) -> Value {
    let made = names::backup_name(&topology.name);
    let claim = match &backup.claim {
        Claim::Existing(name) => name,
        Claim::Made { .. } => &made,
    };
    let retention = backup.retention.to_string();
    pod(topology, vec!["backup", "--to", FOLDER, "--retention", &retention], claim, false)
}

fn pod(topology: &Topology, mut arguments: Vec<&str>, claim: &str, read_only: bool) -> Value {
    arguments.extend(["--file", names::CONFIG_PATH, "--report", REPORT]);
    let mut mounts = redis_mounts(topology);
    mounts.push(json!({"name": "backups", "mountPath": FOLDER, "readOnly": read_only}));
    let mut volumes = redis_volumes(topology);
    volumes.push(json!({"name": "backups", "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}}));
    let template = &topology.worker.template;
    // It holds one partition at a time, as a worker holds several.
    let default_resources = json!({"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}});
    let resources = template.resources.as_ref().map_or(default_resources, |resources| json!(resources));
    let body = json!({
        "args": arguments,
        "env": redis_env(topology),
        "volumeMounts": mounts,
        "terminationMessagePath": REPORT,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let mut pod = json!({
        "restartPolicy": "Never",
        "serviceAccountName": topology.name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": security_context(),
        "containers": [restricted(names::BACKUP_COMPONENT, &topology.image, resources, body)],
        "volumes": volumes,
    });
    if let (Some(pod), Value::Object(placed)) = (pod.as_object_mut(), placement(template)) {
        pod.extend(placed);
    }
    pod
}
