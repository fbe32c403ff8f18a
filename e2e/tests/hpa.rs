//! Workers that a real HorizontalPodAutoscaler scales, by the figures of a real metrics-server. `make test-hpa` runs this:
//! the metrics-server takes minutes to build, so that it isn't part of `make test`.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::time::{Duration, Instant};

use hebb_e2e::data::first_records;
use hebb_e2e::kubectl::{apply, condition, fresh_namespace, gateway, get, kubectl, wait_for, wait_ready};
use hebb_e2e::ledger::Client;

const SPACE: &str = "hebb-e2e-hpa";

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: scaled}
spec:
  domains: [{name: shuttle, task: Classification, partitions: 4}]
  gateway: {replicas: 1}
  coordinator: {replicas: 1}
  workers:
    podTemplate: {resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 512Mi}}}
    autoscaling:
      strategy: Hpa
      minReplicas: 1
      maxReplicas: 3
      targetCpuUtilizationPercentage: 60
      scaleUp: {maxStep: 2}
      scaleDown: {stabilization: 15s, maxStep: 2}
";

fn workers() -> (i64, i64) {
    let status = get(SPACE, &["learningcluster", "scaled"]).unwrap()["status"].clone();
    let number = |field: &str| status["workers"][field].as_i64().unwrap_or(-1);
    (number("desired"), number("ready"))
}

fn wait_workers(count: i64, limit: Duration) {
    let began = Instant::now();
    let found = wait_for(&format!("{count} workers"), limit, || (workers() == (count, count)).then_some(()));
    let hpa = kubectl(&["-n", SPACE, "get", "hpa"]).unwrap();
    assert!(found.is_ok(), "{:?} after {limit:?}\n{hpa}", workers());
    println!("{count} workers after {:.0} s", began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`, and metrics of pods"]
async fn an_autoscaler_adds_workers_under_load_and_takes_them_away_and_nothing_is_lost() {
    fresh_namespace(SPACE).unwrap();
    apply(SPACE, CLUSTER).unwrap();
    wait_ready(SPACE, "scaled", Duration::from_secs(120)).unwrap();
    let url = gateway(SPACE, "scaled").unwrap();
    let client = Client::new(&url, "shuttle", "hpa-").unwrap();
    let storm = client.replay_beside(first_records(49_000).unwrap(), 64, Some(700.0));
    wait_workers(3, Duration::from_secs(120));
    assert_eq!(condition(SPACE, "scaled", "ScalingActive").as_deref(), Some("True"));
    let ledger = storm.join().unwrap().unwrap();
    Client::new(&url, "shuttle", "-").unwrap().settle(&ledger).await.unwrap();
    wait_workers(1, Duration::from_secs(240));
    Client::new(&url, "shuttle", "-").unwrap().settle(&ledger).await.unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}
