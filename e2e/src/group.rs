//! A LearningCluster whose Redis is put to the test: under load, with a ledger of all that was acknowledged.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as the test does: by a panic")]

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use crate::data::first_records;
use crate::kubectl::{apply, fresh_namespace, gateway, get, kubectl, wait_for, wait_ready};
use crate::ledger::{Client, Ledger};

/// How long a cluster may take to become ready.
pub const READY: Duration = Duration::from_secs(180);
/// What a Redis is told that keeps its data on a volume.
pub const VOLUME: &str = "storage: {size: 1Gi, deletionPolicy: Delete}";
/// Selects the pods of Redis.
pub const PODS: &str = "hebb.dev/cluster=group,app.kubernetes.io/component=redis";

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

/// The cluster, and what has been sent to it.
pub struct Group {
    space: &'static str,
    url: String,
    total: Ledger,
}

impl Group {
    /// Makes a cluster called `group` in a fresh namespace, and waits until it is ready.
    pub fn make(space: &'static str, redis: &str, partitions: u32) -> Self {
        fresh_namespace(space).unwrap();
        Self::begin(space, redis, partitions, || ())
    }

    /// The same in a namespace that is there; `meanwhile` is done once the cluster has been applied.
    pub fn begin(space: &'static str, redis: &str, partitions: u32, meanwhile: impl FnOnce()) -> Self {
        let began = Instant::now();
        let text = CLUSTER.replace("REDIS", redis).replace("PARTITIONS", &partitions.to_string());
        apply(space, &text).unwrap();
        meanwhile();
        wait_ready(space, "group", READY).unwrap();
        println!("ready after {:.0} s", began.elapsed().as_secs_f64());
        Self { space, url: gateway(space, "group").unwrap(), total: Ledger::default() }
    }

    /// What the status says of Redis.
    pub fn status(&self) -> Value {
        get(self.space, &["learningcluster", "group"]).unwrap()["status"]["redis"].clone()
    }

    /// The pod that takes writes.
    pub fn primary(&self) -> String {
        self.status()["primary"].as_str().unwrap().to_owned()
    }

    /// The pods that take writes, of a Redis Cluster that is whole.
    pub fn primaries(&self) -> Vec<String> {
        let status = self.status();
        assert_eq!(status["primary"], "3 shards", "{status}");
        let names = status["primaries"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// Waits until this pod is no primary any more, and the shards are whole.
    pub fn gave_way(&self, before: &str) {
        wait_for("the status names another primary", Duration::from_secs(30), || {
            let status = self.status();
            let primaries = status["primaries"].as_array()?;
            let moved = status["primary"] == "3 shards" && primaries.iter().all(|name| name != before);
            (moved && status["lastFailoverTime"].is_string()).then_some(())
        })
        .unwrap();
    }

    /// What a server says of its keys, asked in its pod.
    pub fn keys(&self, pod: &str) -> u64 {
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
    pub fn is_sealed(&self) {
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

    /// Does what makes another certificate, under load, and waits until every pod has taken it up.
    pub async fn renew_certificate(&mut self, renew: impl FnOnce() + Send + 'static, pods: usize, count: usize) {
        let before = self.templates();
        let began = Instant::now();
        self.under_load("certificate", count, renew).await;
        wait_for("every pod shows the new certificate", READY, || {
            let now = self.templates();
            (now.len() == pods && now.iter().all(|digest| !before.contains(digest))).then_some(())
        })
        .unwrap();
        self.ready();
        println!("every pod shows another certificate, {:.0} s in all", began.elapsed().as_secs_f64());
    }

    /// Waits until the cluster is ready.
    pub fn ready(&self) {
        wait_ready(self.space, "group", READY).unwrap();
    }

    /// Waits until another pod is primary, and says so with the time.
    pub fn moved_from(&self, before: &str) {
        let space = self.space;
        wait_for("the status names another primary", Duration::from_secs(20), || {
            let redis = get(space, &["learningcluster", "group"]).ok()?["status"]["redis"].clone();
            (redis["primary"] != before && redis["lastFailoverTime"].is_string()).then_some(())
        })
        .unwrap();
    }

    /// Streams events at 500 a second, does something at half of them, and compares everything so far with what was applied.
    pub async fn under_load(&mut self, what: &str, count: usize, act: impl FnOnce() + Send + 'static) -> Duration {
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
