//! Backups and restores: what the operator makes of them, and what it says when their Jobs end. No pod runs here, so the test
//! says how each ends, in the way in which the Job controller and the kubelet do.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::PATIENT;
use crate::scenario::{Scenario, cluster, condition, within};

/// Ends a Job, with what its only pod has left.
async fn end(scenario: &Scenario, job: &str, succeeded: bool, message: &str) {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"generateName": format!("{job}-"), "labels": {
            "hebb.dev/cluster": "demo", "batch.kubernetes.io/job-name": job,
            "app.kubernetes.io/component": "backup", "app.kubernetes.io/managed-by": "hebb-operator",
        }},
        "spec": {"serviceAccountName": "demo", "containers": [{"name": "backup", "image": "hebb:1"}]},
    }))
    .unwrap();
    let pod = scenario.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    let terminated = json!({"exitCode": i32::from(!succeeded), "finishedAt": now, "message": message});
    let status = json!({"status": {"phase": if succeeded { "Succeeded" } else { "Failed" }, "containerStatuses": [{
        "name": "backup", "image": "hebb:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": terminated},
    }]}});
    let parameters = PatchParams::default();
    scenario.api::<Pod>().patch_status(&pod.name_any(), &parameters, &Patch::Merge(&status)).await.unwrap();
    let types = if succeeded { ["SuccessCriteriaMet", "Complete"] } else { ["FailureTarget", "Failed"] };
    let conditions = types.map(|type_| {
        json!({"type": type_, "status": "True", "lastTransitionTime": now, "lastProbeTime": now, "reason": "Test", "message": "the Job's words"})
    });
    let mut status = json!({"startTime": now, "conditions": conditions});
    if succeeded {
        status["completionTime"] = json!(now);
        status["succeeded"] = json!(1);
    } else {
        status["failed"] = json!(1);
    }
    let status = json!({"status": status});
    scenario.api::<Job>().patch_status(job, &parameters, &Patch::Merge(&status)).await.unwrap();
}

/// The only Job that hasn't ended.
async fn begun(scenario: &Scenario) -> Job {
    within("a Job is begun", PATIENT, async || {
        let jobs = scenario.api::<Job>().list(&ListParams::default()).await.unwrap().items;
        let ended = |job: &Job| job.status.as_ref().is_some_and(|status| status.conditions.is_some());
        let mut open: Vec<Job> = jobs.into_iter().filter(|job| !ended(job)).collect();
        assert!(open.len() <= 1, "{open:?}");
        open.pop()
    })
    .await
}

async fn ask(scenario: &Scenario, value: &str) {
    scenario.change("demo", json!({"metadata": {"annotations": {"hebb.dev/backup": value}}})).await;
}

fn has(type_: &'static str, words: &'static str) -> impl Fn(&Value) -> bool {
    move |status| condition(status, type_).starts_with(words)
}

pub async fn backups_are_made_once_a_request_and_told_as_they_end(client: Client) {
    let scenario = Scenario::new(client, "backup").await;
    let operator = scenario.operator("a", "hebb:1").await;
    let destination = json!({"persistentVolumeClaim": {"size": "1Gi"}});
    let backup = json!({"backup": {"schedule": "0 */6 * * *", "destination": destination}});
    scenario.create(&cluster("demo", backup)).await;
    scenario.status("nothing yet", PATIENT, has("BackupSucceeded", "Unknown NoBackupYet")).await;
    let claim = scenario.api::<PersistentVolumeClaim>().get("demo-backup").await.unwrap();
    assert_eq!(claim.metadata.owner_references, None, "it outlives the cluster");
    let cron = scenario.api::<CronJob>().get("demo-backup").await.unwrap().spec.unwrap();
    assert_eq!((cron.schedule.as_str(), cron.concurrency_policy.as_deref()), ("0 */6 * * *", Some("Forbid")));
    scenario.api::<NetworkPolicy>().get("demo-backup").await.unwrap();

    ask(&scenario, "one").await;
    let first = begun(&scenario).await.name_any();
    end(&scenario, &first, true, r#"{"backup":"ns.demo-1.hebb","bytes":12,"events":3}"#).await;
    let status =
        scenario.status("the backup is told", PATIENT, has("BackupSucceeded", "True BackedUp ns.demo-1.hebb")).await;
    let last = &status["backup"]["lastBackup"];
    assert_eq!((&status["backup"]["requested"], &last["events"]), (&json!("one"), &json!(3)));

    tokio::time::sleep(Duration::from_secs(1)).await;
    ask(&scenario, "two").await;
    let second = begun(&scenario).await.name_any();
    assert_ne!(first, second);
    end(&scenario, &second, false, "INFO begun\nhebb: the disk is full\n").await;
    let status = scenario.status("the failure is told", PATIENT, has("BackupSucceeded", "False BackupFailed")).await;
    assert!(condition(&status, "BackupSucceeded").ends_with("the disk is full"), "{status}");
    assert_eq!(status["backup"]["lastBackup"]["name"], "ns.demo-1.hebb", "the last good one is known");

    // What Kubernetes forgets, the status keeps; and neither a Job nor a write follows, in another operator either.
    for job in [&first, &second] {
        scenario.api::<Job>().delete(job, &Default::default()).await.unwrap();
    }
    operator.stop().await.unwrap();
    let operator = scenario.operator("b", "hebb:1").await;
    operator.passes(1).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = (scenario.versions().await, operator.writes().await);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((scenario.versions().await, operator.writes().await), before, "written at rest");
    let jobs = scenario.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert!(jobs.iter().all(|job| job.metadata.deletion_timestamp.is_some()), "{jobs:?}");

    scenario.change("demo", json!({"spec": {"backup": {"schedule": null}}})).await;
    within("the CronJob is gone", PATIENT, async || {
        scenario.api::<CronJob>().get_opt("demo-backup").await.unwrap().is_none().then_some(())
    })
    .await;
    operator.stop().await.unwrap();
}

pub async fn a_restore_comes_first_and_what_it_refuses_is_told(client: Client) {
    let scenario = Scenario::new(client, "restore").await;
    let operator = scenario.operator("a", "hebb:1").await;
    scenario
        .create(&cluster("demo", json!({"restore": {"from": {"persistentVolumeClaim": {"claimName": "old"}}}})))
        .await;
    let replicas = async |name: &str| {
        let found = scenario.api::<Deployment>().get_opt(name).await.unwrap();
        found.and_then(|found| found.spec?.replicas)
    };
    let status = scenario.status("restoring", PATIENT, has("Ready", "False Restoring")).await;
    assert_eq!(status["phase"], "Restoring");
    assert_eq!((replicas("demo-worker").await, replicas("demo-gateway").await), (Some(0), Some(0)));

    let job = begun(&scenario).await;
    end(&scenario, "demo-restore", false, "hebb: the backup a.hebb can't be used: it is corrupt: it is cut short")
        .await;
    let status = scenario.status("refused", PATIENT, has("Ready", "False RestoreFailed")).await;
    let stalled = condition(&status, "Stalled");
    assert!(stalled.contains("it is cut short") && stalled.contains("delete the Job demo-restore"), "{stalled}");
    assert_eq!(condition(&status, "Reconciling"), "False Stalled ", "nobody is to wait for it");
    assert_eq!(replicas("demo-worker").await, Some(0));

    let background = kube::api::DeleteParams::background();
    scenario.api::<Job>().delete("demo-restore", &background).await.unwrap();
    // Nobody takes the finalizer of a Job away where there is no Job controller.
    let free = json!({"metadata": {"finalizers": null}});
    scenario.api::<Job>().patch("demo-restore", &PatchParams::default(), &Patch::Merge(&free)).await.ok();
    let again = within("another Job", PATIENT, async || {
        let found = scenario.api::<Job>().get_opt("demo-restore").await.unwrap();
        found.filter(|found| found.uid() != job.uid())
    })
    .await;
    assert_eq!(again.name_any(), "demo-restore");
    scenario.status("restoring again", PATIENT, has("Ready", "False Restoring")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    end(&scenario, "demo-restore", true, r#"{"backup":"a.hebb","bytes":1,"events":1}"#).await;
    let status = scenario.status("restored", PATIENT, |status| status["restored"]["backup"] == "a.hebb").await;
    assert!(!condition(&status, "Ready").contains("Restor"), "{status}");
    within("the nodes run", PATIENT, async || (replicas("demo-worker").await == Some(2)).then_some(())).await;

    // Nobody restores a second time, whatever becomes of the Job.
    scenario.api::<Job>().delete("demo-restore", &background).await.unwrap();
    scenario.change("demo", json!({"spec": {"workers": {"replicas": 3}}})).await;
    within("it goes on", PATIENT, async || (replicas("demo-worker").await == Some(3)).then_some(())).await;
    let jobs = scenario.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    assert!(jobs.iter().all(|job| job.metadata.deletion_timestamp.is_some()), "{jobs:?}");
    operator.stop().await.unwrap();
}
