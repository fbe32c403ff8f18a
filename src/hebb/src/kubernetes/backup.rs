//! `hebb backup NAME`: asks the operator for a backup now.

use clap::Args;
use hebb_api::names::BACKUP_ANNOTATION;
use hebb_api::{BackupRecord, BackupStatus, LearningCluster};
use serde_json::json;

use super::Format;
use super::reach::{Reach, left_alone, token};
use crate::cli::Outcome;
use crate::node::runtime;

/// How a backup of a cluster on Kubernetes is asked for.
#[derive(Args)]
pub struct OnDemand {
    #[command(flatten)]
    pub reach: Reach,
    /// Wait until the backup has succeeded or failed
    #[arg(long, conflicts_with = "to")]
    wait: bool,
    /// How long to wait at most
    #[arg(long, default_value = "30m")]
    timeout: hebb_api::Duration,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum BackupError {
    #[error("{0} has no spec.backup: say there where backups are kept, see examples/backup/back-up.yaml")]
    NoDestination(String),
    #[error("{0} is not backed up: {1}")]
    LeftAlone(String, &'static str),
    #[error("the backup failed: {0}")]
    Failed(String),
}

fn standing(cluster: &LearningCluster) -> BackupStatus {
    cluster.status.as_ref().and_then(|status| status.backup.clone()).unwrap_or_default()
}

/// What came of the request, once something did: something else than before has succeeded or failed since it was begun.
fn outcome(before: &BackupStatus, now: &BackupStatus, request: &str) -> Option<Result<BackupRecord, String>> {
    if now.requested.as_deref() != Some(request) {
        return None;
    }
    if let Some(backup) = now.last_backup.clone().filter(|_| now.last_backup != before.last_backup) {
        return Some(Ok(backup));
    }
    now.last_failure
        .as_ref()
        .filter(|_| now.last_failure != before.last_failure)
        .map(|failure| Err(format!("Job {}: {}", failure.job, failure.message)))
}

pub fn run(name: &str, options: OnDemand) -> Outcome {
    runtime()?.block_on(async {
        let (found, cluster) = options.reach.cluster(name).await?;
        if cluster.spec.backup.is_none() {
            return Err(BackupError::NoDestination(name.to_owned()).into());
        }
        if let Some(why) = left_alone(&cluster) {
            return Err(BackupError::LeftAlone(name.to_owned(), why).into());
        }
        let (before, request) = (standing(&cluster), token());
        found.annotate(BACKUP_ANNOTATION, &request).await?;
        let mut said = json!({"name": name, "namespace": found.namespace, "request": request});
        if !options.wait {
            let text =
                format!("{name}: a backup is asked for ({request}); kubectl hebb status {name} tells what comes of it");
            return options.output.print(&text, &said);
        }
        let ended = found
            .wait("the backup has ended", options.timeout.0, |cluster| outcome(&before, &standing(cluster), &request))
            .await?;
        let backup = ended.map_err(BackupError::Failed)?;
        said["backup"] = serde_json::to_value(&backup)?;
        options.output.print(&format!("{}: {} events, {} bytes", backup.name, backup.events, backup.bytes), &said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_has_ended_when_something_new_is_known_of_this_request() {
        let status = |json: serde_json::Value| serde_json::from_value::<BackupStatus>(json).unwrap();
        let record = |name: &str| json!({"name": name, "time": "2030-01-01T00:00:00Z", "bytes": 1, "events": 2});
        let before = status(json!({"requested": "a", "lastBackup": record("old")}));
        let now = |json| outcome(&before, &status(json), "b");
        assert_eq!(now(json!({"requested": "a", "lastBackup": record("scheduled")})), None);
        assert_eq!(now(json!({"requested": "b", "lastBackup": record("old")})), None);
        assert_eq!(now(json!({"requested": "b", "lastBackup": record("new")})).unwrap().unwrap().name, "new");
        let failure = json!({"job": "j", "time": "2030-01-01T00:00:00Z", "message": "full"});
        let failed = now(json!({"requested": "b", "lastBackup": record("old"), "lastFailure": failure}));
        assert_eq!(failed.unwrap().unwrap_err(), "Job j: full");
    }
}
