//! Backup and restore on a real cluster, with the same ledger: what was acknowledged before a backup is in the cluster that is
//! restored from it, each event once, and a client's retry is known there. A file with a changed byte is refused.
//! `make test-e2e` runs these after it has installed the operator.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::time::{Duration, Instant};

use hebb_e2e::data::first_records;
use hebb_e2e::kubectl::{apply, condition, fresh_namespace, gateway, get, kubectl, wait_for, wait_ready};
use hebb_e2e::ledger::Client;
use serde_json::Value;

const SPACE: &str = "hebb-e2e-backup";
const READY: Duration = Duration::from_secs(120);
/// A Job's pod starts, reads, and its end is noticed.
const BACKUP: Duration = Duration::from_secs(60);
/// A Job is given up after its third pod.
const GIVEN_UP: Duration = Duration::from_secs(120);

/// An image of busybox that the node of these tests has.
const TOOLS: &str = "localhost/hebb/tools:1";

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: NAME}
spec:
  gateway: {replicas: 1}
  coordinator: {replicas: 1}
  workers: {replicas: 1}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
";

fn cluster(name: &str, more: &str) -> String {
    format!("{}  {more}\n", CLUSTER.replace("NAME", name))
}

fn status(name: &str) -> Value {
    get(SPACE, &["learningcluster", name]).unwrap()["status"].clone()
}

fn message(name: &str, type_: &str) -> String {
    let conditions = status(name)["conditions"].clone();
    let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == type_).cloned();
    found.map_or(String::new(), |condition| format!("{} {}", condition["reason"], condition["message"]))
}

/// Asks for a backup and waits for the next one to be recorded; its record.
fn back_up(request: &str) -> Value {
    let before = status("first")["backup"]["lastBackup"].clone();
    let began = Instant::now();
    kubectl(&["-n", SPACE, "annotate", "lc", "first", "--overwrite", &format!("hebb.dev/backup={request}")]).unwrap();
    let record = wait_for("the backup is recorded", BACKUP, || {
        let now = status("first")["backup"]["lastBackup"].clone();
        (now.is_object() && now != before).then_some(now)
    })
    .unwrap();
    println!(
        "{}: {} events, {} bytes, after {:.1} s",
        record["name"],
        record["events"],
        record["bytes"],
        began.elapsed().as_secs_f64()
    );
    record
}

/// A pod on the volume of the backups, in which the program looks at them or one is damaged.
fn with_the_volume(name: &str, image: &str, command: &str) -> String {
    let pod = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  securityContext: {{runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: look
      image: {image}
      imagePullPolicy: IfNotPresent
      {command}
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
      volumeMounts: [{{name: backups, mountPath: /backups}}]
  volumes: [{{name: backups, persistentVolumeClaim: {{claimName: first-backup}}}}]
"
    );
    apply(SPACE, &pod).unwrap();
    let phase = wait_for("the pod has ended", BACKUP, || {
        let phase = get(SPACE, &["pod", name]).ok()?["status"]["phase"].clone();
        (phase == "Succeeded" || phase == "Failed").then_some(phase)
    })
    .unwrap();
    let said = kubectl(&["-n", SPACE, "logs", name]).unwrap();
    assert_eq!(phase, "Succeeded", "{name}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn a_cluster_is_deleted_and_learns_on_from_its_backup() {
    fresh_namespace(SPACE).unwrap();
    let backup = "backup: {schedule: '0 0 1 1 *', retention: 1, destination: {persistentVolumeClaim: {size: 1Gi}}}";
    apply(SPACE, &cluster("first", backup)).unwrap();
    wait_ready(SPACE, "first", READY).unwrap();
    assert_eq!(condition(SPACE, "first", "BackupSucceeded").as_deref(), Some("Unknown"));
    let image = status("first")["image"].as_str().unwrap().to_owned();
    let cronjob = get(SPACE, &["cronjob", "first-backup"]).unwrap();
    assert_eq!(cronjob["spec"]["suspend"], false);

    let client = Client::new(&gateway(SPACE, "first").unwrap(), "shuttle", "e-").unwrap();
    let records = first_records(3_000).unwrap();
    // One in the midst of the load: it says itself how much it holds.
    let middle = tokio::task::spawn_blocking(|| back_up("under-load"));
    let ledger = client.replay(&records, 16, Some(300.0), |_| {}).await.unwrap();
    let middle = middle.await.unwrap();
    assert!(middle["events"].as_u64().unwrap() <= 3_000, "{middle}");
    let before = client.settle(&ledger).await.unwrap();

    let taken = back_up("after-load");
    assert_eq!(taken["events"], 3_000, "{taken}");
    assert_eq!(condition(SPACE, "first", "BackupSucceeded").as_deref(), Some("True"));
    let listed = with_the_volume("list", &image, "args: [backup, list, /backups]");
    assert!(listed.contains(taken["name"].as_str().unwrap()), "{listed}");
    assert!(!listed.contains(middle["name"].as_str().unwrap()), "retention is 1: {listed}");
    println!("{}", with_the_volume("verify", &image, "args: [backup, verify, /backups]"));

    // What makes backups goes with the schedule, and with the cluster; what keeps them stays.
    kubectl(&[
        "-n",
        SPACE,
        "patch",
        "lc",
        "first",
        "--type=json",
        "-p",
        "[{\"op\":\"remove\",\"path\":\"/spec/backup/schedule\"}]",
    ])
    .unwrap();
    wait_for("the CronJob is gone", BACKUP, || get(SPACE, &["cronjob", "first-backup"]).is_err().then_some(()))
        .unwrap();
    kubectl(&["-n", SPACE, "delete", "lc", "first"]).unwrap();
    wait_for("the pods are gone", READY, || {
        let pods = get(SPACE, &["pods", "-l", "hebb.dev/cluster=first"]).ok()?;
        pods["items"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
    let claim = get(SPACE, &["pvc", "first-backup"]).unwrap();
    assert!(claim["metadata"]["deletionTimestamp"].is_null(), "{claim}");

    let restore = "restore: {from: {persistentVolumeClaim: {claimName: first-backup}}}";
    let began = Instant::now();
    apply(SPACE, &cluster("second", restore)).unwrap();
    wait_ready(SPACE, "second", READY).unwrap();
    println!(
        "ready {:.0} s after it was applied, restored from {}",
        began.elapsed().as_secs_f64(),
        status("second")["restored"]
    );
    assert_eq!(status("second")["restored"]["backup"], taken["name"]);
    let client = Client::new(&gateway(SPACE, "second").unwrap(), "shuttle", "e-").unwrap();
    let after = client.settle(&ledger).await.unwrap();
    for field in ["events", "appliedDigest", "accuracy", "labels"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // A retry of an event from before the backup is known, and what is new is learned.
    client.replay(&records[2_990..], 4, None, |_| {}).await.unwrap();
    let retries = Client::new(&gateway(SPACE, "second").unwrap(), "shuttle", "e-").unwrap();
    retries.send(2_999, &records[2_999]).await.unwrap();
    assert_eq!(retries.describe().await.unwrap()["events"], 3_000);
    let fresh = Client::new(&gateway(SPACE, "second").unwrap(), "shuttle", "new-").unwrap();
    let more = fresh.replay(&records[..500], 16, None, |_| {}).await.unwrap();
    let total = ledger.digest.wrapping_add(more.digest);
    let learned = fresh.describe().await.unwrap();
    assert_eq!((&learned["events"], &learned["appliedDigest"]), (&3_500.into(), &format!("{total:016x}").into()));
    kubectl(&["-n", SPACE, "delete", "lc", "second", "--wait=false"]).unwrap();

    // A file with one changed byte.
    let name = taken["name"].as_str().unwrap();
    let line = format!("printf XYZ | dd of=/backups/{name} bs=1 seek=5000 conv=notrunc");
    with_the_volume("damage", TOOLS, &format!("command: [sh, -c, '{line}']"));
    apply(SPACE, &cluster("third", restore)).unwrap();
    wait_for("the restore is given up", GIVEN_UP, || message("third", "Ready").contains("RestoreFailed").then_some(()))
        .unwrap();
    let said = message("third", "Stalled");
    assert!(said.contains(name) && said.contains("corrupt"), "{said}");
    println!("{said}");
    let pods =
        get(SPACE, &["pods", "-l", "hebb.dev/cluster=third,app.kubernetes.io/component in (gateway,worker)"]).unwrap();
    assert_eq!(pods["items"].as_array().unwrap().len(), 0, "nothing runs on half a state");
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}
