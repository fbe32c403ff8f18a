//! What the README promises, on a real cluster: kills under load lose nothing, hand-made changes are repaired, a cluster at
//! rest writes nothing, a bad object harms no other, and a deleted cluster leaves nothing behind.
//!
//! `make test-e2e` runs these after it has installed the operator. `HEBB_E2E_DATA` names the stream.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::time::{Duration, Instant};

use hebb_e2e::data::first_records;
use hebb_e2e::kubectl::{
    apply, cluster_status, condition, fresh_namespace, gateway, get, kill_pod, kubectl, owner, silence, wait_for,
    wait_ready,
};
use hebb_e2e::ledger::{Client, Ledger};
use serde_json::{Value, json};
use tokio::sync::watch;

const READY: Duration = Duration::from_secs(120);
/// Hand-made drift is repaired within this.
const REPAIR: Duration = Duration::from_secs(5);
/// Answers come again within this.
const RESUME: Duration = Duration::from_secs(10);

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: NAME}
spec:
  domains: [{name: shuttle, task: Classification}]
  gateway: {replicas: 1}
  coordinator: {replicas: 2}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
";

fn learning_cluster(name: &str) -> String {
    CLUSTER.replace("NAME", name)
}

/// Streams events at 500 a second and does something at half of them; the ledger, and when it was done.
async fn under_load(
    client: &Client,
    count: usize,
    act: impl FnOnce() -> Instant + Send + 'static,
) -> (Ledger, Instant) {
    let records = first_records(count).unwrap();
    let (progress, mut seen) = watch::channel(0);
    let half = count / 2;
    let acting = tokio::spawn(async move {
        seen.wait_for(|done| *done >= half).await.unwrap();
        tokio::task::spawn_blocking(act).await.unwrap()
    });
    let replay = client.replay(&records, 32, Some(500.0), |event| {
        progress.send_replace(event.place + 1);
    });
    let ledger = replay.await.unwrap();
    (ledger, acting.await.unwrap())
}

fn killed(namespace: &'static str, pod: impl FnOnce() -> String + Send + 'static) -> impl FnOnce() -> Instant + Send {
    move || {
        let pod = pod();
        let at = Instant::now();
        let how = kill_pod(namespace, &pod).unwrap();
        println!("{pod}: {how}");
        at
    }
}

/// Asks for eventual answers, ten a second, until the load is over: when the gateway's copy answered, and how old it was
/// in ms.
async fn read_eventually(url: String, question: Value, mut over: watch::Receiver<bool>) -> Vec<(Instant, f64)> {
    let client = reqwest::Client::builder().timeout(RESUME).build().unwrap();
    let mut answers = Vec::new();
    while !*over.borrow_and_update() {
        let asked = client.post(format!("{url}/v1/domains/shuttle/infer?consistency=Eventual")).json(&question);
        // Before its first event nobody knows the domain.
        if let Ok(answer) = asked.send().await.and_then(|response| response.error_for_status())
            && let Ok(answer) = answer.json::<Value>().await
            && answer["staleness"]["servedBy"] == "copy"
        {
            answers.push((Instant::now(), answer["staleness"]["ageMs"].as_f64().unwrap()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn what_is_acknowledged_is_applied_once_whoever_is_killed() {
    const SPACE: &str = "hebb-e2e-kill";
    fresh_namespace(SPACE).unwrap();
    apply(SPACE, &learning_cluster("kill")).unwrap();
    wait_ready(SPACE, "kill", READY).unwrap();
    let url = gateway(SPACE, "kill").unwrap();

    let worker = || owner(SPACE, "kill", "shuttle").unwrap();
    let leader = || cluster_status(SPACE, "kill").unwrap()["leader"].as_str().unwrap().to_owned();
    let redis = || "kill-redis-0".to_owned();
    let gate = || {
        let pods = get(SPACE, &["pods", "-l", "app.kubernetes.io/component=gateway"]).unwrap();
        pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
    };
    let mut total = Ledger::default();
    for (what, act) in [
        ("worker", Box::new(killed(SPACE, worker)) as Box<dyn FnOnce() -> Instant + Send>),
        ("leader", Box::new(killed(SPACE, leader))),
        ("redis", Box::new(killed(SPACE, redis))),
        ("gateway", Box::new(killed(SPACE, gate))),
    ] {
        let client = Client::new(&url, "shuttle", &format!("{what}-")).unwrap();
        let (over, ended) = watch::channel(false);
        let question = json!({"features": first_records(1).unwrap()[0].features});
        let reads = tokio::spawn(read_eventually(url.clone(), question, ended));
        let (ledger, at) = under_load(&client, 4_000, act).await;
        over.send_replace(true);
        let reads = reads.await.unwrap();
        if what == "worker" {
            // Its lease takes 3 s to end, and nobody owns the partition before.
            let unowned: Vec<f64> = reads
                .iter()
                .filter(|(when, _)| (at..at + Duration::from_secs(3)).contains(when))
                .map(|(_, age_ms)| *age_ms)
                .collect();
            println!(
                "{} eventual answers while nobody owned the partition, at most {:?} ms old",
                unowned.len(),
                unowned.iter().copied().reduce(f64::max)
            );
            assert!(unowned.len() > 10 && unowned.iter().all(|age_ms| *age_ms <= 1_000.0), "{unowned:?}");
        }
        let resumed = ledger.recovery(at);
        println!("{what}: {} acknowledged, answers resumed after {:.1} s", ledger.events.len(), resumed.as_secs_f64());
        assert!(resumed < RESUME, "{what}: {resumed:?}");
        total.digest = total.digest.wrapping_add(ledger.digest);
        total.events.extend(ledger.events);
        client.settle(&total).await.unwrap();
    }
    wait_ready(SPACE, "kill", READY).unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn the_conditions_tell_the_truth_while_redis_is_down() {
    const SPACE: &str = "hebb-e2e-truth";
    fresh_namespace(SPACE).unwrap();
    apply(SPACE, &learning_cluster("truth").replace("deletionPolicy: Delete", "deletionPolicy: Retain")).unwrap();
    wait_ready(SPACE, "truth", READY).unwrap();
    // A Redis that can't come back: its image doesn't exist.
    let broken = "{\"spec\":{\"redis\":{\"image\":\"localhost/hebb/no-such-image:1\"}}}";
    kubectl(&["-n", SPACE, "patch", "lc", "truth", "--type=merge", "-p", broken]).unwrap();
    wait_for("Ready is false while Redis is down", Duration::from_secs(30), || {
        let is = |type_| condition(SPACE, "truth", type_);
        (is("Ready").as_deref() == Some("False") && is("RedisAvailable").as_deref() == Some("False")).then_some(())
    })
    .unwrap();
    wait_for("the message names the image", Duration::from_secs(30), || {
        let cluster = get(SPACE, &["lc", "truth"]).ok()?;
        let text = cluster["status"]["conditions"].to_string();
        (text.contains("ImagePull") || text.contains("ErrImage")).then_some(())
    })
    .unwrap();
    let image = "[{\"op\":\"remove\",\"path\":\"/spec/redis/image\"}]";
    kubectl(&["-n", SPACE, "patch", "lc", "truth", "--type=json", "-p", image]).unwrap();
    // The StatefulSet waits for its broken pod for ever, as Kubernetes documents; a person deletes it.
    kubectl(&["-n", SPACE, "delete", "pod", "truth-redis-0", "--grace-period=0", "--force"]).unwrap();
    wait_ready(SPACE, "truth", READY).unwrap();
    let events = kubectl(&[
        "-n",
        SPACE,
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=truth",
        "-o",
        "jsonpath={.items[*].reason}",
    ])
    .unwrap();
    for reason in ["Created", "BecameReady", "NotReady", "LeaderElected"] {
        assert!(events.contains(reason), "{reason} in {events}");
    }

    // A second cluster on the first one's Redis, which it takes for somebody else's.
    apply(
        SPACE,
        "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: guest}
spec:
  gateway: {replicas: 1}
  coordinator: {replicas: 1}
  workers: {replicas: 1}
  redis: {mode: External, external: {host: truth-redis, passwordSecretRef: {name: truth-redis, key: password}}}
",
    )
    .unwrap();
    wait_ready(SPACE, "guest", READY).unwrap();
    let client = Client::new(&gateway(SPACE, "guest").unwrap(), "made-on-first-use", "g-").unwrap();
    let ledger = client.replay(&first_records(200).unwrap(), 16, None, |_| {}).await.unwrap();
    client.settle(&ledger).await.unwrap();
    kubectl(&["-n", SPACE, "delete", "lc", "guest"]).unwrap();

    // The volume stays where its policy says so.
    kubectl(&["-n", SPACE, "delete", "lc", "truth"]).unwrap();
    wait_for("no pod is left", Duration::from_secs(90), || {
        get(SPACE, &["pods"]).ok()?["items"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
    assert!(get(SPACE, &["pvc", "data-truth-redis-0"]).is_ok(), "a volume with deletionPolicy Retain is gone");
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn hand_made_changes_are_repaired_rest_is_silent_and_deletion_leaves_nothing() {
    const SPACE: &str = "hebb-e2e-rest";
    fresh_namespace(SPACE).unwrap();
    // A bad object beside a good one: refused, with the field's name.
    let refused = apply(SPACE, &learning_cluster("bad").replace("replicas: 2", "replicas: 0")).unwrap_err().to_string();
    assert!(refused.contains("spec.coordinator.replicas"), "{refused}");
    apply(SPACE, &learning_cluster("rest")).unwrap();
    wait_ready(SPACE, "rest", READY).unwrap();

    kubectl(&["-n", SPACE, "delete", "service", "rest-gateway"]).unwrap();
    wait_for("the Service is back", REPAIR, || get(SPACE, &["service", "rest-gateway"]).ok()).unwrap();

    kubectl(&["-n", SPACE, "scale", "deployment", "rest-worker", "--replicas=5"]).unwrap();
    wait_for("the workers are as many as the spec says", REPAIR, || {
        let workers = get(SPACE, &["deployment", "rest-worker"]).ok()?;
        (workers["spec"]["replicas"] == 2).then_some(())
    })
    .unwrap();

    kubectl(&["-n", SPACE, "set", "image", "deployment/rest-gateway", "gateway=example.com/other:1"]).unwrap();
    wait_for("the image is the cluster's", REPAIR, || {
        let gateway = get(SPACE, &["deployment", "rest-gateway"]).ok()?;
        let image = gateway["spec"]["template"]["spec"]["containers"][0]["image"].as_str()?.to_owned();
        (!image.contains("other")).then_some(())
    })
    .unwrap();

    kubectl(&["-n", SPACE, "scale", "lc", "rest", "--replicas=3"]).unwrap();
    wait_ready(SPACE, "rest", READY).unwrap();
    let shown = kubectl(&["-n", SPACE, "get", "lc", "rest"]).unwrap();
    assert!(shown.contains("3/3") && shown.contains("Standalone"), "{shown}");

    // A paused cluster is left alone; a resumed one is repaired.
    kubectl(&["-n", SPACE, "annotate", "lc", "rest", "hebb.dev/paused=true"]).unwrap();
    wait_for("the status says that it is paused", Duration::from_secs(10), || {
        (get(SPACE, &["lc", "rest"]).ok()?["status"]["phase"] == "Paused").then_some(())
    })
    .unwrap();
    kubectl(&["-n", SPACE, "delete", "pdb", "rest-worker"]).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert!(get(SPACE, &["pdb", "rest-worker"]).is_err(), "a paused cluster was written to");
    kubectl(&["-n", SPACE, "annotate", "lc", "rest", "hebb.dev/paused-"]).unwrap();
    wait_for("the budget is back", REPAIR, || get(SPACE, &["pdb", "rest-worker"]).ok()).unwrap();
    wait_ready(SPACE, "rest", READY).unwrap();

    // What the changes above set in motion comes to its end: a surplus pod goes, the last probe is answered.
    wait_for("only the wanted pods are left", Duration::from_secs(90), || {
        let pods = get(SPACE, &["pods"]).ok()?;
        let leaving = pods["items"].as_array()?.iter().any(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        (!leaving && pods["items"].as_array()?.len() == 7).then_some(())
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(5));
    silence(SPACE).unwrap();

    // Suspended: no pods, and what was learned is there again afterwards.
    let client = Client::new(&gateway(SPACE, "rest").unwrap(), "shuttle", "s-").unwrap();
    let ledger = client.replay(&first_records(500).unwrap(), 32, None, |_| {}).await.unwrap();
    kubectl(&["-n", SPACE, "patch", "lc", "rest", "--type=merge", "-p", "{\"spec\":{\"suspend\":true}}"]).unwrap();
    wait_for("no pod is left", Duration::from_secs(90), || {
        get(SPACE, &["pods"]).ok()?["items"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
    assert_eq!(condition(SPACE, "rest", "Suspended").as_deref(), Some("True"));
    kubectl(&["-n", SPACE, "patch", "lc", "rest", "--type=merge", "-p", "{\"spec\":{\"suspend\":false}}"]).unwrap();
    wait_ready(SPACE, "rest", READY).unwrap();
    client.settle(&ledger).await.unwrap();

    kubectl(&["-n", SPACE, "delete", "lc", "rest"]).unwrap();
    let kinds = "pods,services,deployments,statefulsets,configmaps,secrets,serviceaccounts,poddisruptionbudgets,networkpolicies,persistentvolumeclaims";
    wait_for("nothing is left", Duration::from_secs(90), || {
        let left = get(SPACE, &[kinds, "-l", "hebb.dev/cluster=rest"]).ok()?;
        left["items"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}
