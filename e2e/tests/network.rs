//! The network policies of a cluster, enforced: it works with them, and what they don't name is shut. `make test-e2e` runs
//! this on a node whose network can be held back.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::time::Duration;

use hebb_e2e::data::first_records;
use hebb_e2e::kubectl::{apply, fresh_namespace, gateway, get, kubectl, wait_for, wait_ready};
use hebb_e2e::ledger::Client;
use hebb_e2e::policies::Agent;

const READY: Duration = Duration::from_secs(120);
const SPACE: &str = "hebb-e2e-network";
const ELSEWHERE: &str = "hebb-e2e-elsewhere";

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: shut}
spec:
  domains: [{name: shuttle, task: Classification}]
  gateway: {replicas: 1}
  coordinator: {replicas: 2}
  workers: {replicas: 1}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
";

/// A pod with a shell: somebody else's, or an intruder with the labels of a role.
fn shell(namespace: &str, name: &str, labels: &str) {
    let pod = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {labels}}}
spec:
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  terminationGracePeriodSeconds: 0
  containers:
    - name: shell
      image: localhost/hebb/tools:1
      command: [httpd, -f, -p, '8000']
      securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
"
    );
    apply(namespace, &pod).unwrap();
}

fn address(namespace: &str, pod: &str) -> String {
    wait_for("the pod's address", Duration::from_secs(60), || {
        get(namespace, &["pod", pod]).ok()?["status"]["podIP"].as_str().map(str::to_owned)
    })
    .unwrap()
}

fn first_pod(role: &str) -> String {
    let selector = format!("hebb.dev/cluster=shut,app.kubernetes.io/component={role}");
    let pods = get(SPACE, &["pods", "-l", &selector, "--field-selector=status.phase=Running"]).unwrap();
    let named = pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
    // Where an intruder bears the labels, it is not the one that is meant.
    named.filter(|name| name.starts_with("shut-")).min().unwrap().to_owned()
}

/// Whether a connection from a pod with a shell comes about.
fn reaches(namespace: &str, pod: &str, to: &str, port: u16) -> bool {
    kubectl(&["-n", namespace, "exec", pod, "--", "nc", "-w", "2", to, &port.to_string(), "-e", "true"]).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn exactly_the_flows_that_are_needed_are_open() {
    if std::env::var("HEBB_CLUSTER").as_deref() != Ok("local") {
        println!("skipped: this cluster's own agent enforces policies, or none does");
        return;
    }
    fresh_namespace(SPACE).unwrap();
    fresh_namespace(ELSEWHERE).unwrap();
    let agent = Agent::start(SPACE).unwrap();
    apply(SPACE, CLUSTER).unwrap();
    shell(ELSEWHERE, "stranger", "{app: stranger}");
    wait_ready(SPACE, "shut", READY).unwrap();

    let client = Client::new(&gateway(SPACE, "shut").unwrap(), "shuttle", "n-").unwrap();
    let ledger = client.replay(&first_records(500).unwrap(), 16, None, |_| {}).await.unwrap();
    client.settle(&ledger).await.unwrap();

    let stranger = address(ELSEWHERE, "stranger");
    let [api, leader, worker, redis] = ["gateway", "coordinator", "worker", "redis"].map(|role| {
        let pod = first_pod(role);
        address(SPACE, &pod)
    });
    let from_elsewhere = |to: &str, port| reaches(ELSEWHERE, "stranger", to, port);
    wait_for("the API is open to everybody", Duration::from_secs(30), || from_elsewhere(&api, 8080).then_some(()))
        .unwrap();
    for (what, to, port) in [("coordinators", &leader, 8000), ("workers", &worker, 8081), ("Redis", &redis, 6379)] {
        assert!(!from_elsewhere(to, port), "{what} are shut to strangers");
    }

    // A process that got into a worker reaches Redis and names, and nothing else.
    shell(
        SPACE,
        "intruder",
        "{hebb.dev/cluster: shut, app.kubernetes.io/component: worker, app.kubernetes.io/name: hebb}",
    );
    let intruder = address(SPACE, "intruder");
    let from_inside = |to: &str, port| reaches(SPACE, "intruder", to, port);
    wait_for("a worker reaches Redis", Duration::from_secs(30), || from_inside(&redis, 6379).then_some(())).unwrap();
    wait_for("the rules are there", Duration::from_secs(10), || (!from_inside(&stranger, 8000)).then_some(())).unwrap();
    let named = ["-n", SPACE, "exec", "intruder", "--", "nslookup", "shut-redis.hebb-e2e-network.svc.cluster.local"];
    kubectl(&named).unwrap();
    assert!(!from_inside(&leader, 8000), "a worker has no business with a coordinator");
    assert!(!from_inside(&api, 8080), "nor with a gateway");
    assert!(!from_elsewhere(&intruder, 8000), "and nobody with a worker");

    // Switched off, they are gone: what was shut above was shut by them.
    let off = "{\"spec\":{\"networkPolicy\":{\"enabled\":false}}}";
    kubectl(&["-n", SPACE, "patch", "lc", "shut", "--type=merge", "-p", off]).unwrap();
    wait_for("Redis is open without policies", Duration::from_secs(60), || from_elsewhere(&redis, 6379).then_some(()))
        .unwrap();
    assert!(from_inside(&stranger, 8000));

    drop(agent);
    for space in [SPACE, ELSEWHERE] {
        kubectl(&["delete", "namespace", space, "--wait=false"]).unwrap();
    }
}
