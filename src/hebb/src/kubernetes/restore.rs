//! `hebb restore NEW --like OLD`: a new LearningCluster with the spec of another, filled from its backups.

use clap::Args;
use hebb_api::{BackupVolume, ClaimRef, LearningCluster, LearningClusterSpec, RestoreSource, RestoreSpec, names};
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::json;

use super::Format;
use super::reach::{Found, Reach, call, condition};
use crate::cli::Outcome;
use crate::node::runtime;

/// How a new cluster is made from a backup.
#[derive(Args)]
pub struct IntoNew {
    /// The LearningCluster whose spec the new one gets, and whose backup, unless --claim says otherwise
    #[arg(long, value_name = "OLD", conflicts_with = "from")]
    like: Option<String>,
    /// Claim of the volume with the backups [default: where OLD keeps its backups]
    #[arg(long, requires = "like")]
    claim: Option<String>,
    #[command(flatten)]
    pub reach: Reach,
    /// Wait until the new cluster is restored and ready
    #[arg(long, conflicts_with = "from")]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "30m")]
    timeout: hebb_api::Duration,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Why nothing is restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("say --like OLD: whose spec the new cluster gets")]
    LikeWhom,
    #[error("{0} keeps no backups: name the --claim of the volume that has them")]
    NoClaim(String),
    #[error("the restore failed: {0}")]
    Failed(String),
}

/// The claim where a cluster keeps its backups.
fn claim_of(name: &str, spec: &LearningClusterSpec) -> Option<String> {
    let BackupVolume { claim_name, .. } = &spec.backup.as_ref()?.destination.persistent_volume_claim;
    Some(claim_name.clone().unwrap_or_else(|| names::backup_name(name)))
}

/// The new cluster.
fn restored(new: &str, old: &LearningCluster, claim: String, backup: Option<String>) -> LearningCluster {
    let from = RestoreSource { persistent_volume_claim: ClaimRef { claim_name: claim } };
    let spec = LearningClusterSpec { restore: Some(RestoreSpec { from, backup }), suspend: false, ..old.spec.clone() };
    let metadata = ObjectMeta {
        name: Some(new.to_owned()),
        namespace: old.metadata.namespace.clone(),
        labels: old.metadata.labels.clone(),
        ..ObjectMeta::default()
    };
    LearningCluster { metadata, spec, status: None }
}

pub fn run(new: &str, backup: Option<String>, options: IntoNew) -> Outcome {
    let old_name = options.like.ok_or(RestoreError::LikeWhom)?;
    runtime()?.block_on(async {
        let (found, old) = options.reach.cluster(&old_name).await?;
        let claim = options.claim.or_else(|| claim_of(&old_name, &old.spec));
        let claim = claim.ok_or_else(|| RestoreError::NoClaim(old_name.clone()))?;
        let object = restored(new, &old, claim.clone(), backup);
        let api: Api<LearningCluster> = found.api();
        let made = api.create(&PostParams::default(), &object).await.map_err(call("make the LearningCluster"))?;
        let said = json!({"name": new, "namespace": made.namespace(), "like": old_name, "claim": claim});
        if options.wait {
            let found = Found { name: new.to_owned(), ..found };
            let ended = found.wait("the new cluster is ready", options.timeout.0, outcome).await?;
            ended.map_err(RestoreError::Failed)?;
            return options.output.print(&format!("{new} is restored from {claim} and ready"), &said);
        }
        options.output.print(&format!("{new} is made, and filled from {claim} before its nodes start"), &said)
    })
}

fn outcome(cluster: &LearningCluster) -> Option<Result<(), String>> {
    if let Some(stalled) = condition(cluster, "Stalled").filter(|stalled| stalled.status == "True") {
        return Some(Err(stalled.message.clone()));
    }
    let is_restored = cluster.status.as_ref().is_some_and(|status| status.restored.is_some());
    (is_restored && super::reach::is_true(cluster, "Ready")).then_some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_cluster_is_like_the_old_one_and_begins_with_its_backup() {
        let old: LearningCluster = serde_json::from_value(json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster",
            "metadata": {"name": "old", "namespace": "ns", "uid": "u", "annotations": {"hebb.dev/backup": "1"}},
            "spec": {"workers": {"replicas": 5},
                "backup": {"destination": {"persistentVolumeClaim": {"size": "1Gi"}}}},
            "status": {"phase": "Ready"},
        }))
        .unwrap();
        let claim = claim_of("old", &old.spec).unwrap();
        assert_eq!(claim, "old-backup");
        let new = restored("new", &old, claim, Some("a.hebb".to_owned()));
        assert_eq!((new.spec.workers.replicas, new.status.is_none(), new.metadata.uid.is_none()), (5, true, true));
        assert!(new.metadata.annotations.is_none(), "a request is not repeated");
        let restore = new.spec.restore.unwrap();
        assert_eq!(restore.from.persistent_volume_claim.claim_name, "old-backup");
        assert_eq!(claim_of("old", &LearningClusterSpec::default()), None);
    }
}
