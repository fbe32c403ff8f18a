//! A Redis with Sentinels, and a Redis Cluster, on a real cluster, under load and with the same ledger: a primary is killed,
//! is deleted, is renewed and comes back empty; then all pods are deleted at once. Nothing that was acknowledged is lost, or
//! applied twice.
//! `make test-e2e` runs these after it has installed the operator.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::time::{Duration, Instant};

use hebb_e2e::group::{Group, PODS, READY, VOLUME};
use hebb_e2e::kubectl::{apply, get, kubectl, processes_of, signal, silence, wait_for, wait_ready};

/// Answers come again within this.
const RESUME: Duration = Duration::from_secs(10);

/// Fires while all is well, so that what it does is all that is done.
const POLICY: &str = "
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: move}
spec:
  targetRef: {name: group}
  interval: 5s
  rules:
    - name: wanted
      expr: {indicator: redis_up, aggregation: Max, window: 10s, operator: GreaterThan, threshold: 0}
      actions: [fail-over]
  actions: [{name: fail-over, type: FailoverRedis, maxAffected: '1', cooldown: 1h}]
";

/// Spoils the certificate, so that Hebb makes another.
fn spoil(space: &'static str) -> impl FnOnce() + Send {
    move || {
        let change = "{\"stringData\":{\"tls.crt\":\"spoilt\"}}";
        kubectl(&["-n", space, "patch", "secret", "group-redis-tls", "--type=merge", "-p", change]).unwrap();
    }
}

/// Kills the server of a pod, not its Sentinel, where the pods run on this machine; elsewhere the pod is deleted without grace.
fn kill_server(space: &str, pod: &str) {
    if std::env::var("HEBB_CLUSTER").as_deref() != Ok("local") {
        kubectl(&["-n", space, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"]).unwrap();
        return;
    }
    let uid = get(space, &["pod", pod]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let servers: Vec<u32> = processes_of(&uid)
        .unwrap()
        .into_iter()
        .filter(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with("redis-server") && !line.contains("sentinel")
        })
        .collect();
    assert_eq!(servers.len(), 1, "servers of {pod}");
    signal("KILL", &servers).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn a_redis_with_sentinels_loses_no_acknowledged_event() {
    const SPACE: &str = "hebb-e2e-redis";
    let mut group = Group::make(SPACE, &format!("{{mode: Sentinel, durability: Replicated, {VOLUME}}}"), 1);
    let status = group.status();
    assert_eq!((&status["mode"], &status["readyReplicas"]), (&"Sentinel".into(), &3.into()), "{status}");
    assert!(status["lastFailoverTime"].is_null(), "{status}");

    let before = group.primary();
    let victim = before.clone();
    let resumed = group.under_load("killed", 4_000, move || kill_server(SPACE, &victim)).await;
    assert!(resumed < RESUME, "{resumed:?}");
    group.moved_from(&before);
    group.ready();
    let events = kubectl(&["-n", SPACE, "get", "events", "-o", "jsonpath={.items[*].reason}"]).unwrap();
    assert!(events.contains("RedisFailover"), "{events}");

    let before = group.primary();
    let victim = before.clone();
    let deleting = move || drop(kubectl(&["-n", SPACE, "delete", "pod", &victim, "--wait=false"]).unwrap());
    let resumed = group.under_load("deleted", 4_000, deleting).await;
    assert!(resumed < RESUME, "{resumed:?}");
    group.moved_from(&before);
    group.ready();

    // By an alert's action, which a person has written.
    let before = group.primary();
    let resumed = group.under_load("failed over", 6_000, || drop(apply(SPACE, POLICY).unwrap())).await;
    assert!(resumed < RESUME, "{resumed:?}");
    group.moved_from(&before);
    group.ready();
    let events = kubectl(&["-n", SPACE, "get", "events", "-o", "jsonpath={.items[*].message}"]).unwrap();
    assert!(events.contains(&format!("restarts {before}")), "{events}");
    kubectl(&["-n", SPACE, "delete", "alertpolicy", "move"]).unwrap();

    let before = group.primary();
    let change = "{\"spec\":{\"redis\":{\"maxMemoryPercentOfLimit\":60}}}";
    let renewing = move || {
        kubectl(&["-n", SPACE, "patch", "lc", "group", "--type=merge", "-p", change]).unwrap();
        wait_ready(SPACE, "group", READY).unwrap();
    };
    let began = Instant::now();
    group.under_load("renewed", 15_000, renewing).await;
    println!("every pod renewed, {:.0} s in all", began.elapsed().as_secs_f64());
    group.moved_from(&before);

    kubectl(&["-n", SPACE, "delete", "pods", "-l", PODS, "--wait=false"]).unwrap();
    wait_for("a pod is away", Duration::from_secs(30), || (group.status()["readyReplicas"] != 3).then_some(()))
        .unwrap();
    let began = Instant::now();
    group.ready();
    println!("ready {:.0} s after all pods of Redis were deleted", began.elapsed().as_secs_f64());
    group.under_load("after", 1_000, || ()).await;

    std::thread::sleep(Duration::from_secs(5));
    silence(SPACE).unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn a_primary_that_comes_back_empty_takes_nothing_from_the_others() {
    const SPACE: &str = "hebb-e2e-redis-empty";
    let mut group = Group::make(SPACE, "{mode: Sentinel, durability: Replicated}", 1);
    for what in ["first", "second"] {
        let before = group.primary();
        let victim = before.clone();
        let lost = move || {
            kubectl(&["-n", SPACE, "delete", "pod", &victim, "--grace-period=0", "--force", "--wait=false"]).unwrap();
        };
        let resumed = group.under_load(what, 4_000, lost).await;
        assert!(resumed < RESUME, "{resumed:?}");
        group.moved_from(&before);
        group.ready();
    }
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn a_redis_cluster_loses_no_acknowledged_event() {
    const SPACE: &str = "hebb-e2e-redis-cluster";
    let mut group = Group::make(SPACE, &format!("{{mode: Cluster, durability: Replicated, {VOLUME}}}"), 8);
    let status = group.status();
    assert_eq!((&status["mode"], &status["readyReplicas"]), (&"Cluster".into(), &6.into()), "{status}");
    group.under_load("before", 500, || ()).await;
    let primaries = group.primaries();
    for pod in &primaries {
        assert!(group.keys(pod) > 0, "{pod} holds no partition: the names of the test don't reach every shard");
    }

    let victim = primaries[0].clone();
    let killed = victim.clone();
    let resumed = group.under_load("killed", 4_000, move || kill_server(SPACE, &killed)).await;
    assert!(resumed < RESUME, "{resumed:?}");
    group.gave_way(&victim);
    group.ready();

    // Until the pod is back, its shard has one copy, and nothing is acknowledged there.
    let resumed = group.under_load("failed over", 6_000, || drop(apply(SPACE, POLICY).unwrap())).await;
    assert!(resumed < 2 * RESUME, "{resumed:?}");
    let events = kubectl(&["-n", SPACE, "get", "events", "-o", "jsonpath={.items[*].message}"]).unwrap();
    let moved = primaries[1..].iter().find(|pod| events.contains(&format!("restarts {pod}")));
    group.gave_way(moved.unwrap_or_else(|| panic!("the action moved none of {primaries:?}: {events}")));
    group.ready();
    kubectl(&["-n", SPACE, "delete", "alertpolicy", "move"]).unwrap();

    kubectl(&["-n", SPACE, "delete", "pods", "-l", PODS, "--wait=false"]).unwrap();
    wait_for("a pod is away", Duration::from_secs(30), || (group.status()["readyReplicas"] != 6).then_some(()))
        .unwrap();
    let began = Instant::now();
    group.ready();
    println!("ready {:.0} s after all pods of Redis were deleted", began.elapsed().as_secs_f64());
    group.under_load("after", 1_000, || ()).await;

    let change = "{\"spec\":{\"redis\":{\"maxMemoryPercentOfLimit\":60}}}";
    let renewing = move || {
        kubectl(&["-n", SPACE, "patch", "lc", "group", "--type=merge", "-p", change]).unwrap();
        wait_ready(SPACE, "group", READY).unwrap();
    };
    let began = Instant::now();
    group.under_load("renewed", 4_000, renewing).await;
    println!("every pod renewed, {:.0} s in all", began.elapsed().as_secs_f64());
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn an_encrypted_server_loses_no_acknowledged_event() {
    const SPACE: &str = "hebb-e2e-redis-sealed";
    let mut group = Group::make(SPACE, &format!("{{tls: {{}}, {VOLUME}}}"), 1);
    group.is_sealed();
    let resumed = group.under_load("killed", 4_000, || kill_server(SPACE, "group-redis-0")).await;
    assert!(resumed < 2 * RESUME, "{resumed:?}");
    group.ready();
    group.renew_certificate(spoil(SPACE), 1, 4_000).await;
    group.under_load("after", 500, || ()).await;
    std::thread::sleep(Duration::from_secs(5));
    silence(SPACE).unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn an_encrypted_group_loses_no_acknowledged_event() {
    const SPACE: &str = "hebb-e2e-redis-sealed-group";
    let mut group = Group::make(SPACE, &format!("{{mode: Sentinel, durability: Replicated, tls: {{}}, {VOLUME}}}"), 1);
    group.is_sealed();
    let before = group.primary();
    let victim = before.clone();
    let resumed = group.under_load("killed", 4_000, move || kill_server(SPACE, &victim)).await;
    assert!(resumed < RESUME, "{resumed:?}");
    group.moved_from(&before);
    group.ready();
    group.renew_certificate(spoil(SPACE), 3, 15_000).await;
    group.under_load("after", 500, || ()).await;
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn an_encrypted_redis_cluster_loses_no_acknowledged_event() {
    const SPACE: &str = "hebb-e2e-redis-sealed-cluster";
    let mut group = Group::make(SPACE, &format!("{{mode: Cluster, durability: Replicated, tls: {{}}, {VOLUME}}}"), 8);
    group.is_sealed();
    let victim = group.primaries()[0].clone();
    let killed = victim.clone();
    let resumed = group.under_load("killed", 4_000, move || kill_server(SPACE, &killed)).await;
    assert!(resumed < RESUME, "{resumed:?}");
    group.gave_way(&victim);
    group.ready();
    group.renew_certificate(spoil(SPACE), 6, 4_000).await;
    group.under_load("after", 500, || ()).await;
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}
