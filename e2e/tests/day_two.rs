//! Day two on a real cluster, always under load and always with the same ledger: workers come and go with the queue, pods
//! are rolled, a bad revision is taken back, a process that hangs is replaced, and an upgrade of the operator restarts
//! nothing. `make test-e2e` runs these after it has installed the operator.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hebb_e2e::Error;
use hebb_e2e::data::first_records;
use hebb_e2e::kubectl::{
    apply, condition, fresh_namespace, gateway, get, kubectl, owner, plugin, processes_of, signal, wait_for, wait_ready,
};
use hebb_e2e::ledger::{Client, Ledger};
use serde_json::Value;

const READY: Duration = Duration::from_secs(120);
const SPACE: &str = "hebb-e2e-day-two";

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: two}
spec:
  domains: [{name: shuttle, task: Classification, partitions: 8}]
  gateway: {replicas: 2}
  coordinator: {replicas: 2}
  workers:
    autoscaling:
      minReplicas: 2
      maxReplicas: 6
      queueDepthPerWorker: 2
      scaleDown: {stabilization: 15s, maxStep: 2}
  upgrade: {progressDeadline: 25s}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
";

/// Sends events in the background.
fn load(
    url: &str,
    prefix: &str,
    count: usize,
    in_flight: usize,
    rate: Option<f64>,
) -> JoinHandle<Result<Ledger, Error>> {
    let client = Client::new(url, "shuttle", prefix).unwrap();
    client.replay_beside(first_records(count).unwrap(), in_flight, rate)
}

fn status() -> Value {
    get(SPACE, &["learningcluster", "two"]).unwrap()["status"].clone()
}

/// The uids of the cluster's pods that aren't leaving, of a role or of all.
fn pods(role: Option<&str>) -> BTreeSet<String> {
    let selector = match role {
        Some(role) => format!("hebb.dev/cluster=two,app.kubernetes.io/component={role}"),
        None => "hebb.dev/cluster=two".to_owned(),
    };
    let pods = get(SPACE, &["pods", "-l", &selector]).unwrap();
    let staying = pods["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    staying.map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

fn events() -> String {
    let about = "involvedObject.name=two";
    let format = "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}";
    kubectl(&["-n", SPACE, "get", "events", "--field-selector", about, "-o", format]).unwrap()
}

fn patch(spec: &str) {
    kubectl(&["-n", SPACE, "patch", "lc", "two", "--type=merge", "-p", &format!("{{\"spec\":{spec}}}")]).unwrap();
}

struct Day {
    url: String,
    total: Ledger,
}

impl Day {
    /// Adds what was acknowledged, and compares everything so far with what was applied.
    async fn settle(&mut self, what: &str, ledger: Ledger) {
        println!("{what}: {} acknowledged, p99 {:.0} ms", ledger.events.len(), ledger.latency_ms(0.99));
        self.total.digest = self.total.digest.wrapping_add(ledger.digest);
        self.total.events.extend(ledger.events);
        Client::new(&self.url, "shuttle", "-").unwrap().settle(&self.total).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn a_day_in_the_life_of_a_cluster_loses_nothing() {
    fresh_namespace(SPACE).unwrap();
    apply(SPACE, CLUSTER).unwrap();
    wait_ready(SPACE, "two", READY).unwrap();
    let mut day = Day { url: gateway(SPACE, "two").unwrap(), total: Ledger::default() };
    workers_follow_the_queue(&mut day).await;
    a_process_that_hangs_is_replaced(&mut day).await;
    pods_are_rolled_one_role_after_the_other(&mut day).await;
    a_person_restarts_the_workers_and_reads_what_they_say(&mut day).await;
    pods_wait_for_somebody_to_delete_them(&mut day).await;
    a_bad_revision_is_taken_back(&mut day).await;
    an_upgrade_of_the_operator_restarts_nothing(&mut day).await;
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

/// Whatever made the queue long for a moment, pods that came with it have gone again.
fn two_workers_again() {
    wait_for("two workers again", Duration::from_secs(120), || {
        let workers = &status()["workers"];
        (workers["desired"] == 2 && pods(Some("worker")).len() == 2).then_some(())
    })
    .unwrap();
}

async fn workers_follow_the_queue(day: &mut Day) {
    let storm = load(&day.url, "storm-", 40_000, 256, None);
    let grown = wait_for("six workers", Duration::from_secs(60), || {
        let ready = status()["workers"]["ready"].as_i64();
        (ready == Some(6)).then(Instant::now)
    });
    let story = events();
    assert!(grown.is_ok() && story.contains("QueueGrew"), "{story}");
    let ledger = storm.join().unwrap().unwrap();
    day.settle("growing to six workers", ledger).await;
    let drizzle = load(&day.url, "drizzle-", 4_000, 4, Some(60.0));
    two_workers_again();
    assert!(events().contains("QueueShrank"), "{}", events());
    let ledger = drizzle.join().unwrap().unwrap();
    day.settle("shrinking to two workers", ledger).await;
}

async fn a_process_that_hangs_is_replaced(day: &mut Day) {
    if std::env::var("HEBB_CLUSTER").as_deref() != Ok("local") {
        println!("skipped: the processes of this cluster's pods can't be stopped from here");
        return;
    }
    let steady = load(&day.url, "hang-", 4_000, 16, Some(100.0));
    let worker = owner(SPACE, "two", "shuttle").unwrap();
    let uid = get(SPACE, &["pod", &worker]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    signal("STOP", &processes_of(&uid).unwrap()).unwrap();
    let at = Instant::now();
    wait_for("the pod that hangs is replaced", Duration::from_secs(60), || {
        status()["replacements"].to_string().contains(&uid).then_some(())
    })
    .unwrap();
    println!("a worker that hangs: replaced after {:.1} s", at.elapsed().as_secs_f64());
    let ledger = steady.join().unwrap().unwrap();
    let resumed = ledger.recovery(at);
    println!("a worker that hangs: answers resumed after {:.1} s", resumed.as_secs_f64());
    assert!(resumed < Duration::from_secs(10), "{resumed:?}");
    day.settle("a worker that hangs", ledger).await;
    wait_for("the stopped pod is gone", Duration::from_secs(150), || (!pods(None).contains(&uid)).then_some(()))
        .unwrap();
    wait_ready(SPACE, "two", READY).unwrap();
}

async fn pods_are_rolled_one_role_after_the_other(day: &mut Day) {
    // From here on the number of pods says something about upgrades, not about a queue that a slow machine let grow.
    patch("{\"workers\":{\"autoscaling\":{\"queueDepthPerWorker\":1000}}}");
    two_workers_again();
    let steady = load(&day.url, "roll-", 6_000, 16, Some(100.0));
    let before = pods(None);
    let redis = pods(Some("redis"));
    let revision = status()["currentRevision"].clone();
    patch("{\"engine\":{\"learningRate\":0.2}}");
    wait_for("the new revision is the current one", Duration::from_secs(180), || {
        let status = status();
        (status["currentRevision"] != revision && status["currentRevision"] == status["updateRevision"]).then_some(())
    })
    .unwrap();
    wait_ready(SPACE, "two", READY).unwrap();
    let kept: BTreeSet<String> = pods(None).intersection(&before).cloned().collect();
    assert_eq!(kept, redis, "every node is rolled, and Redis, which the change is nothing to, is not");
    let ledger = steady.join().unwrap().unwrap();
    day.settle("a rolling upgrade", ledger).await;
}

async fn a_person_restarts_the_workers_and_reads_what_they_say(day: &mut Day) {
    let names = || -> BTreeSet<String> {
        let pods = get(SPACE, &["pods", "-l", "hebb.dev/cluster=two,app.kubernetes.io/component=worker"]).unwrap();
        pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let (before, uids) = (names(), pods(Some("worker")));
    let mut reader = plugin(&["logs", "two", "-n", SPACE, "--role", "worker", "-f"])
        .unwrap()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    let read = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let steady = load(&day.url, "restart-", 3_000, 16, Some(100.0));
    let restarted = plugin(&["restart", "two", "-n", SPACE, "--role", "worker", "--wait"]).unwrap().output().unwrap();
    let after = names();
    assert!(restarted.status.success(), "{}", String::from_utf8_lossy(&restarted.stderr));
    assert!(pods(Some("worker")).is_disjoint(&uids), "a pod from before is among {after:?}");
    let ledger = steady.join().unwrap().unwrap();
    day.settle("workers restarted by hand", ledger).await;
    reader.kill().unwrap();
    reader.wait().unwrap();
    let said = read.join().unwrap();
    for pod in before.iter().chain(&after) {
        assert!(said.iter().any(|line| line.contains(pod.as_str())), "nothing of {pod} in {} lines", said.len());
    }
}

async fn pods_wait_for_somebody_to_delete_them(day: &mut Day) {
    let steady = load(&day.url, "wait-", 6_000, 16, Some(100.0));
    let has = |kind: &str| get(SPACE, &[kind, "two-worker"]).is_ok();
    patch("{\"upgrade\":{\"strategy\":\"OnDelete\"}}");
    wait_for("a ReplicaSet makes the workers", Duration::from_secs(60), || {
        (has("replicaset") && !has("deployment")).then_some(())
    })
    .unwrap();
    wait_ready(SPACE, "two", READY).unwrap();
    two_workers_again();
    let before = pods(None);
    patch("{\"engine\":{\"learningRate\":0.3}}");
    wait_for("the upgrade is told", Duration::from_secs(30), || {
        (condition(SPACE, "two", "UpgradeInProgress").as_deref() == Some("True")).then_some(())
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(pods(None), before, "nobody has deleted a pod");
    let worker = owner(SPACE, "two", "shuttle").unwrap();
    kubectl(&["-n", SPACE, "delete", "pod", &worker, "--wait=false"]).unwrap();
    wait_for("its successor is of the new revision", Duration::from_secs(60), || {
        (status()["upgrade"]["updatedPods"] == 1).then_some(())
    })
    .unwrap();
    assert_eq!(pods(None).difference(&before).count(), 1, "the others stay what they are");
    let nodes = "hebb.dev/cluster=two,app.kubernetes.io/component!=redis";
    kubectl(&["-n", SPACE, "delete", "pods", "-l", nodes, "--wait=false"]).unwrap();
    wait_for("the new revision is the current one", Duration::from_secs(120), || {
        let status = status();
        (status["currentRevision"] == status["updateRevision"]).then_some(())
    })
    .unwrap();
    patch("{\"upgrade\":{\"strategy\":\"RollingUpdate\"}}");
    wait_for("a Deployment makes the workers", Duration::from_secs(60), || {
        (has("deployment") && !has("replicaset")).then_some(())
    })
    .unwrap();
    wait_ready(SPACE, "two", READY).unwrap();
    let ledger = steady.join().unwrap().unwrap();
    day.settle("pods that somebody deletes", ledger).await;
}

async fn a_bad_revision_is_taken_back(day: &mut Day) {
    let steady = load(&day.url, "bad-", 5_000, 16, Some(100.0));
    let good = status()["currentRevision"].clone();
    patch("{\"image\":\"localhost/hebb/no-such-image:1\"}");
    wait_for("the bad revision is taken back", Duration::from_secs(90), || {
        (status()["upgrade"]["failed"] == true).then_some(())
    })
    .unwrap();
    wait_for("every pod is ready with the good one", Duration::from_secs(90), || {
        let is = |type_| condition(SPACE, "two", type_);
        (is("Ready").as_deref() == Some("True") && is("Stalled").as_deref() == Some("True")).then_some(())
    })
    .unwrap();
    let status = status();
    assert_eq!(status["currentRevision"], good);
    assert!(events().contains("RolledBack"), "{}", events());
    let ledger = steady.join().unwrap().unwrap();
    day.settle("a bad revision", ledger).await;
    kubectl(&[
        "-n",
        SPACE,
        "patch",
        "lc",
        "two",
        "--type=json",
        "-p",
        "[{\"op\":\"remove\",\"path\":\"/spec/image\"}]",
    ])
    .unwrap();
    wait_for("nothing is stalled any more", Duration::from_secs(60), || {
        (condition(SPACE, "two", "Stalled").as_deref() == Some("False")).then_some(())
    })
    .unwrap();
    wait_ready(SPACE, "two", READY).unwrap();
}

async fn an_upgrade_of_the_operator_restarts_nothing(day: &mut Day) {
    two_workers_again();
    let before = pods(None);
    kubectl(&["-n", "hebb-system", "rollout", "restart", "deployment/hebb-operator"]).unwrap();
    kubectl(&["-n", "hebb-system", "rollout", "status", "deployment/hebb-operator", "--timeout=90s"]).unwrap();
    // The new one has to get the lease, and to have looked at everything.
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(pods(None), before);
    let ledger = load(&day.url, "after-", 500, 16, None).join().unwrap().unwrap();
    day.settle("after a restart of the operator", ledger).await;
}
