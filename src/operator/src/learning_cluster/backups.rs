//! What became of backups and of a restore: pure, from their Jobs and pods.
//!
//! Kubernetes forgets Jobs in time. What they ended with is in the status, and only something newer takes its place.

use hebb_api::names;
use hebb_api::{BackupFailure, BackupRecord, BackupStatus, LearningCluster, RestoreStatus};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

/// The label by which Kubernetes says whose a pod is.
const JOB_LABEL: &str = "batch.kubernetes.io/job-name";

/// What a pod says of a backup, as `hebb backup --report` writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Said {
    #[serde(default)]
    pub backup: String,
    #[serde(default)]
    pub bytes: i64,
    #[serde(default)]
    pub events: i64,
}

/// A Job that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub job: String,
    pub at: Time,
    /// What its pod said, or why it failed.
    pub outcome: Result<Said, String>,
}

/// The Jobs that have ended, in the order in which they did.
pub fn ended(jobs: &[Job], pods: &[Pod]) -> Vec<Ended> {
    let mut ended: Vec<Ended> = jobs.iter().filter_map(|job| end(job, pods)).collect();
    ended.sort_by(|one, other| (one.at.0, &one.job).cmp(&(other.at.0, &other.job)));
    ended
}

fn end(job: &Job, pods: &[Pod]) -> Option<Ended> {
    let name = job.metadata.name.clone()?;
    let status = job.status.as_ref()?;
    let conditions = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    let condition =
        conditions.into_iter().find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"))?;
    let at = status.completion_time.clone().or_else(|| condition.last_transition_time.clone())?;
    let message = last_word(&name, pods);
    let outcome = match condition.type_.as_str() {
        "Complete" => Ok(message.and_then(|said| serde_json::from_str(&said).ok()).unwrap_or_default()),
        _ => {
            let why = condition.message.clone().or_else(|| condition.reason.clone()).unwrap_or_default();
            Err(message.as_deref().and_then(last_line).unwrap_or(why))
        }
    };
    Some(Ended { job: name, at, outcome })
}

/// What the pod of a Job that ended last has left.
fn last_word(job: &str, pods: &[Pod]) -> Option<String> {
    let of_job = |pod: &&Pod| {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get(JOB_LABEL)).is_some_and(|name| name == job)
    };
    let words = pods.iter().filter(of_job).filter_map(|pod| {
        let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        Some((ended.finished_at.as_ref().map(|time| time.0), ended.message.clone()?))
    });
    words.max_by_key(|(at, _)| *at).map(|(_, message)| message)
}

/// A program says last why it failed.
fn last_line(message: &str) -> Option<String> {
    let line = message.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.strip_prefix("hebb: ").unwrap_or(line).to_owned())
}

/// What a cluster is asked for by its annotation, if that is something new.
pub fn request(cluster: &LearningCluster) -> Option<String> {
    let asked =
        cluster.metadata.annotations.as_ref()?.get(names::BACKUP_ANNOTATION).filter(|value| !value.is_empty())?;
    let done = cluster.status.as_ref().and_then(|status| status.backup.as_ref()?.requested.as_ref());
    (done != Some(asked)).then(|| asked.clone())
}

/// The cluster with what is known of its backups in the status.
pub fn noted(cluster: &LearningCluster, ended: &[Ended]) -> LearningCluster {
    let mut noted = cluster.clone();
    let restore = names::restore_name(cluster.metadata.name.as_deref().unwrap_or_default());
    for end in ended {
        if end.job == restore {
            if let Ok(said) = &end.outcome
                && cluster.spec.restore.is_some()
            {
                let status = noted.status.get_or_insert_default();
                let restored = RestoreStatus { backup: said.backup.clone(), time: end.at.clone() };
                status.restored.get_or_insert(restored);
            }
            continue;
        }
        let backup = noted.status.get_or_insert_default().backup.get_or_insert_default();
        note(backup, end);
    }
    noted
}

fn note(status: &mut BackupStatus, end: &Ended) {
    match &end.outcome {
        Ok(said) if status.last_backup.as_ref().is_none_or(|last| last.time.0 < end.at.0) => {
            status.last_backup = Some(BackupRecord {
                name: said.backup.clone(),
                time: end.at.clone(),
                bytes: said.bytes,
                events: said.events,
            });
        }
        Err(message) if status.last_failure.as_ref().is_none_or(|last| last.time.0 < end.at.0) => {
            let (job, time, message) = (end.job.clone(), end.at.clone(), message.clone());
            status.last_failure = Some(BackupFailure { job, time, message });
        }
        Ok(_) | Err(_) => {}
    }
}

/// Why the restore was given up, if it was.
pub fn restore_failure<'a>(cluster: &str, ended: &'a [Ended]) -> Option<&'a str> {
    let restore = names::restore_name(cluster);
    ended.iter().find(|end| end.job == restore)?.outcome.as_ref().err().map(String::as_str)
}

/// The newest failure, where no backup has succeeded since.
pub fn failure(status: &BackupStatus) -> Option<&BackupFailure> {
    let succeeded_at = status.last_backup.as_ref().map(|last| last.time.0);
    status.last_failure.as_ref().filter(|failure| succeeded_at.is_none_or(|at| at < failure.time.0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: u8) -> String {
        format!("2030-01-01T00:00:{second:02}Z")
    }

    fn job(name: &str, type_: &str, second: u8) -> Job {
        let completed = if type_ == "Complete" { json!(at(second)) } else { Value::Null };
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {
            "completionTime": completed,
            "conditions": [{"type": type_, "status": "True", "lastTransitionTime": at(second), "message": "given up"}],
        }}))
        .unwrap()
    }

    fn pod(job: &str, second: u8, message: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("{job}-{second}"), "labels": {JOB_LABEL: job}},
            "status": {"containerStatuses": [{
                "name": "backup", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 1, "finishedAt": at(second), "message": message}},
            }]},
        }))
        .unwrap()
    }

    fn cluster(spec: Value) -> LearningCluster {
        serde_json::from_value(json!({
            "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster", "metadata": {"name": "demo"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_end_counts_and_a_job_that_is_forgotten_takes_nothing_back() {
        let said = r#"{"backup":"b1.hebb","bytes":9,"events":4,"partitions":1}"#;
        let first = noted(&cluster(json!({})), &ended(&[job("one", "Complete", 1)], &[pod("one", 1, said)]));
        let status = first.status.clone().unwrap().backup.unwrap();
        let last = status.last_backup.clone().unwrap();
        assert_eq!((last.name.as_str(), last.bytes, last.events), ("b1.hebb", 9, 4));
        assert_eq!(failure(&status), None);

        let words =
            [pod("two", 2, "early"), pod("two", 4, "INFO begun\nhebb: the disk is full\n"), pod("one", 1, said)];
        let second = noted(&first, &ended(&[job("two", "Failed", 5), job("one", "Complete", 1)], &words));
        let status = second.status.clone().unwrap().backup.unwrap();
        assert_eq!(status.last_backup, Some(last));
        assert_eq!(failure(&status).unwrap().message, "the disk is full");
        assert_eq!(noted(&second, &[]), second);
        assert_eq!(
            noted(&second, &ended(&[job("one", "Complete", 1)], &[])),
            second,
            "an older end that is still there"
        );

        let third = noted(&second, &ended(&[job("three", "Complete", 7)], &[]));
        assert_eq!(failure(third.status.unwrap().backup.as_ref().unwrap()), None, "one that succeeded since");
        let deadline = ended(&[job("four", "Failed", 8)], &[]);
        assert_eq!(deadline[0].outcome, Err("given up".to_owned()), "the Job's own words where no pod has left any");
        let running: Job =
            serde_json::from_value(json!({"metadata": {"name": "five"}, "status": {"active": 1}})).unwrap();
        assert_eq!(ended(&[running], &[]), vec![]);
    }

    #[test]
    fn a_restore_is_noted_once_and_its_failure_is_told() {
        let spec = json!({"restore": {"from": {"persistentVolumeClaim": {"claimName": "c"}}}});
        let ends = ended(&[job("demo-restore", "Complete", 3)], &[pod("demo-restore", 3, r#"{"backup":"b.hebb"}"#)]);
        let restored = noted(&cluster(spec.clone()), &ends);
        assert_eq!(restored.status.as_ref().unwrap().restored.as_ref().unwrap().backup, "b.hebb");
        assert_eq!(restored.status.as_ref().unwrap().backup, None, "it is no backup");
        assert_eq!(noted(&restored, &[]), restored);
        let ends = ended(&[job("demo-restore", "Failed", 3)], &[pod("demo-restore", 3, "hebb: it is corrupt")]);
        assert_eq!(noted(&cluster(spec), &ends).status, None);
        assert_eq!(restore_failure("demo", &ends), Some("it is corrupt"));
    }

    #[test]
    fn each_new_value_of_the_annotation_asks_once() {
        let mut cluster = cluster(json!({}));
        assert_eq!(request(&cluster), None);
        cluster.metadata.annotations = Some([(names::BACKUP_ANNOTATION.to_owned(), "a".to_owned())].into());
        assert_eq!(request(&cluster).as_deref(), Some("a"));
        let backup = BackupStatus { requested: Some("a".to_owned()), ..BackupStatus::default() };
        cluster.status.get_or_insert_default().backup = Some(backup);
        assert_eq!(request(&cluster), None);
        cluster.metadata.annotations = Some([(names::BACKUP_ANNOTATION.to_owned(), "b".to_owned())].into());
        assert_eq!(request(&cluster).as_deref(), Some("b"));
    }
}
