//! A Redis with Sentinels, and a Redis Cluster, on a real cluster, under load and with the same ledger: a primary is killed,
//! is deleted, is renewed and comes back empty; then all pods are deleted at once. Nothing that was acknowledged is lost, or
//! applied twice.
//! `make test-e2e` runs these after it has installed the operator.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::time::{Duration, Instant};

use hebb_e2e::data::first_records;
use hebb_e2e::kubectl::{
    apply, fresh_namespace, gateway, get, kubectl, processes_of, signal, silence, wait_for, wait_ready,
};
use hebb_e2e::ledger::{Client, Ledger};
use serde_json::Value;
use tokio::sync::watch;

const READY: Duration = Duration::from_secs(180);
/// Answers come again within this.
const RESUME: Duration = Duration::from_secs(10);
const VOLUME: &str = "storage: {size: 1Gi, deletionPolicy: Delete}";
const PODS: &str = "hebb.dev/cluster=group,app.kubernetes.io/component=redis";

const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: group}
spec:
  domains: [{name: shuttle, task: Classification, partitions: PARTITIONS}]
  gateway: {replicas: 1}
  coordinator: {replicas: 2}
  redis: REDIS
";

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

struct Group {
    space: &'static str,
    url: String,
    total: Ledger,
}

impl Group {
    fn make(space: &'static str, redis: &str, partitions: u32) -> Self {
        fresh_namespace(space).unwrap();
        let began = Instant::now();
        let text = CLUSTER.replace("REDIS", redis).replace("PARTITIONS", &partitions.to_string());
        apply(space, &text).unwrap();
        wait_ready(space, "group", READY).unwrap();
        println!("ready after {:.0} s", began.elapsed().as_secs_f64());
        Self { space, url: gateway(space, "group").unwrap(), total: Ledger::default() }
    }

    fn status(&self) -> Value {
        get(self.space, &["learningcluster", "group"]).unwrap()["status"]["redis"].clone()
    }

    fn primary(&self) -> String {
        self.status()["primary"].as_str().unwrap().to_owned()
    }

    /// The pods that take writes, of a Redis Cluster that is whole.
    fn primaries(&self) -> Vec<String> {
        let status = self.status();
        assert_eq!(status["primary"], "3 shards", "{status}");
        let names = status["primaries"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until this pod is no primary any more, and the shards are whole.
    fn gave_way(&self, before: &str) {
        wait_for("the status names another primary", Duration::from_secs(30), || {
            let status = self.status();
            let primaries = status["primaries"].as_array()?;
            let moved = status["primary"] == "3 shards" && primaries.iter().all(|name| name != before);
            (moved && status["lastFailoverTime"].is_string()).then_some(())
        })
        .unwrap();
    }

    /// What a server says of its keys, asked in its pod.
    fn keys(&self, pod: &str) -> u64 {
        let template = "go-template={{index .data \"password\" | base64decode}}";
        let password = kubectl(&["-n", self.space, "get", "secret", "group-redis", "-o", template]);
        let asking = ["redis-cli", "--no-auth-warning", "-a", &password.unwrap(), "dbsize"];
        let answer = kubectl(&[&["-n", self.space, "exec", pod, "-c", "redis", "--"], &asking[..]].concat()).unwrap();
        answer.trim().parse().unwrap()
    }

    /// The digests of the templates by which the pods of Redis were made.
    fn templates(&self) -> Vec<String> {
        let pods = get(self.space, &["pods", "-l", PODS]).unwrap();
        let digest =
            |pod: &Value| pod["metadata"]["annotations"]["hebb.dev/template-digest"].as_str().map(str::to_owned);
        pods["items"].as_array().unwrap().iter().filter_map(digest).collect()
    }

    /// Nobody who doesn't encrypt is answered, or who doesn't know the certificate.
    fn is_sealed(&self) {
        let ask = |more: &[&str]| {
            let line =
                ["-n", self.space, "exec", "group-redis-0", "-c", "redis", "--", "redis-cli", "--no-auth-warning"];
            kubectl(&[&line[..], more, &["ping"]].concat())
        };
        assert!(ask(&[]).is_err(), "an answer in the clear");
        assert!(ask(&["--tls"]).is_err(), "a certificate that this system doesn't know was trusted");
        let answer = ask(&["--tls", "--cacert", "/etc/redis-tls/ca.crt"]).unwrap();
        assert!(answer.contains("PONG") || answer.contains("NOAUTH"), "{answer}");
    }

    /// Spoils the certificate under load: Hebb makes another, and every pod takes it up.
    async fn renew_certificate(&mut self, pods: usize, count: usize) {
        let (space, before) = (self.space, self.templates());
        let began = Instant::now();
        let spoiling = move || {
            let change = "{\"stringData\":{\"tls.crt\":\"spoilt\"}}";
            kubectl(&["-n", space, "patch", "secret", "group-redis-tls", "--type=merge", "-p", change]).unwrap();
        };
        self.under_load("certificate", count, spoiling).await;
        wait_for("every pod shows the new certificate", READY, || {
            let now = self.templates();
            (now.len() == pods && now.iter().all(|digest| !before.contains(digest))).then_some(())
        })
        .unwrap();
        self.ready();
        println!("every pod shows another certificate, {:.0} s in all", began.elapsed().as_secs_f64());
    }

    fn ready(&self) {
        wait_ready(self.space, "group", READY).unwrap();
    }

    /// Waits until another pod is primary, and says so with the time.
    fn moved_from(&self, before: &str) {
        let space = self.space;
        wait_for("the status names another primary", Duration::from_secs(20), || {
            let redis = get(space, &["learningcluster", "group"]).ok()?["status"]["redis"].clone();
            (redis["primary"] != before && redis["lastFailoverTime"].is_string()).then_some(())
        })
        .unwrap();
    }

    /// Streams events at 500 a second, does something at half of them, and compares everything so far with what was applied.
    async fn under_load(&mut self, what: &str, count: usize, act: impl FnOnce() + Send + 'static) -> Duration {
        let client = Client::new(&self.url, "shuttle", &format!("{what}-")).unwrap();
        let records = first_records(count).unwrap();
        let (progress, mut seen) = watch::channel(0);
        let half = count / 2;
        let acting = tokio::spawn(async move {
            seen.wait_for(|done| *done >= half).await.unwrap();
            let at = Instant::now();
            tokio::task::spawn_blocking(act).await.unwrap();
            at
        });
        let replay = client.replay(&records, 32, Some(500.0), |event| {
            progress.send_replace(event.place + 1);
        });
        let ledger = replay.await.unwrap();
        let resumed = ledger.recovery(acting.await.unwrap());
        println!(
            "{what}: {} acknowledged, p99 {:.0} ms, answers resumed after {:.1} s",
            ledger.events.len(),
            ledger.latency_ms(0.99),
            resumed.as_secs_f64()
        );
        self.total.digest = self.total.digest.wrapping_add(ledger.digest);
        self.total.events.extend(ledger.events);
        client.settle(&self.total).await.unwrap();
        resumed
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
    group.renew_certificate(1, 4_000).await;
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
    group.renew_certificate(3, 15_000).await;
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
    group.renew_certificate(6, 4_000).await;
    group.under_load("after", 500, || ()).await;
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}
