//! Alerts on a real cluster, from the fault to a real HTTP server that listens: told once, repaired, and told that it is over;
//! also when the operator is killed after it sent and before it knew. `make test-e2e` runs these and leaves
//! `target/alerts/report.json`.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hebb_e2e::data::{Record, first_records};
use hebb_e2e::kubectl::{
    apply, fresh_namespace, gateway, get, kill_pod, kubectl, processes_of, signal, wait_for, wait_ready,
};
use hebb_e2e::ledger::Client;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const READY: Duration = Duration::from_secs(120);
const SPACE: &str = "hebb-e2e-alerts";

const OBJECTS: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: watched}
spec:
  gateway: {replicas: 1}
  coordinator: {replicas: 1}
  workers: {replicas: 1}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
---
apiVersion: v1
kind: Secret
metadata: {name: signature}
stringData: {key: canary-of-the-signature}
---
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: redis}
spec:
  targetRef: {name: watched}
  interval: 5s
  dedupInterval: 0s
  rules:
    - name: redis-is-away
      expr: {indicator: redis_up, aggregation: Max, window: 10s, operator: LessThan, threshold: 1}
      severity: Critical
      annotations: {summary: 'the Redis of {{ target }} does not answer'}
      actions: [restart-redis]
  routes: [{receiver: sink, groupWait: 0s, groupInterval: 5s}]
  receivers:
    - name: sink
      timeout: 5s
      webhook: {url: 'http://SINK/', hmacSecretRef: {name: signature, key: key}}
  actions: [{name: restart-redis, type: RestartComponent, component: Redis, maxAffected: '1', cooldown: 1m}]
---
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: bad}
spec:
  targetRef: {name: watched}
  rules:
    - name: nonsense
      expr: {indicator: no_such_indicator, operator: LessThan, threshold: 1}
";

const TROUBLE: &str = "hebb-e2e-trouble";

/// Two clusters' worth of trouble in one: its queues are short, and it has a gateway to spare.
const BUSY: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: busy}
spec:
  domains: [{name: shuttle, task: Classification, partitions: 2}]
  engine: {maxQueueSize: 100}
  gateway: {replicas: 2}
  coordinator: {replicas: 1}
  workers: {replicas: 1}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
---
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: trouble}
spec:
  targetRef: {name: busy}
  interval: 5s
  dedupInterval: 0s
  rules:
    - name: queue-is-full
      expr: {indicator: queue_size, aggregation: Max, window: 10s, operator: GreaterThan, threshold: 50}
      severity: Critical
      actions: [more-workers]
    - name: crash-loop
      expr: {indicator: crash_loops, aggregation: Max, window: 10s, operator: GreaterThan, threshold: 0}
      severity: Warning
      actions: [restart-gateway]
  routes: [{receiver: sink, groupBy: [alertname], groupWait: 0s, groupInterval: 5s}]
  receivers: [{name: sink, timeout: 5s, webhook: {url: 'https://SINK/'}}]
  actions:
    - {name: more-workers, type: Scale, component: Worker, replicas: 2, maxAffected: '1', cooldown: 1m}
    - {name: restart-gateway, type: RestartComponent, component: Gateway, maxAffected: '1', cooldown: 1m}
";

const STILL: &str = "hebb-e2e-plateau";

/// Cycles follow close upon each other, so that five of them don't take half an hour.
const LEARNER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: learner}
spec:
  domains: [{name: coin, task: Classification, partitions: 1}]
  metaLearning: {interval: 1s}
  gateway: {replicas: 1}
  coordinator: {replicas: 1}
  workers: {replicas: 1}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
---
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: plateau}
spec:
  targetRef: {name: learner}
  interval: 5s
  dedupInterval: 0s
  rules:
    - name: plateau-detected
      all:
        - {indicator: mean_improvement, aggregation: Max, window: 10s, operator: LessThan, threshold: 0.05}
        - {indicator: meta_score, aggregation: Max, window: 10s, operator: LessThan, threshold: 0.95}
      severity: Warning
      actions: [boost]
  routes: [{receiver: sink, groupWait: 0s, groupInterval: 5s}]
  receivers: [{name: sink, timeout: 5s, webhook: {url: 'http://SINK/'}}]
  actions: [{name: boost, type: BoostExploration, maxAffected: '1', cooldown: 10m}]
";

/// What became of one trouble: told once, and once told to be over.
struct Plan {
    lost: usize,
    duplicates: usize,
    told_after: Duration,
}

static PLANS: Mutex<Vec<Plan>> = Mutex::new(Vec::new());

/// Adds a trouble to the report, by the messages about it. More than one of a kind, or the same key twice, is a duplicate.
fn report(got: &[Got], told_after: Duration) {
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    let kinds = ["firing", "resolved"].map(|status| with_status(got, status).len());
    plans.push(Plan {
        lost: kinds.iter().filter(|count| **count == 0).count(),
        duplicates: kinds.iter().map(|count| count.saturating_sub(1)).sum(),
        told_after,
    });
    let slowest = plans.iter().map(|plan| plan.told_after.as_secs_f64()).fold(0.0, f64::max);
    let report = json!({
        "plans": plans.len(),
        "lost": plans.iter().map(|plan| plan.lost).sum::<usize>(),
        "duplicates": plans.iter().map(|plan| plan.duplicates).sum::<usize>(),
        "latency_p99_seconds": slowest,
    });
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/alerts");
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(format!("{folder}/report.json"), serde_json::to_string_pretty(&report).unwrap()).unwrap();
    println!("{report}");
}

/// A message as the server got it.
#[derive(Clone, Debug)]
struct Got {
    at: Instant,
    key: String,
    signature: String,
    body: Value,
}

/// An HTTP server that writes down what it gets, and can keep its answers to itself.
struct Sink {
    address: String,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<AtomicBool>,
}

impl Sink {
    fn start() -> Self {
        Self::serve(receive)
    }

    /// One over TLS. Its certificate is signed by nobody whom a system trusts, only by whom the chart's `receiverCA` names:
    /// it is the API server's.
    fn start_sealed() -> Self {
        let pki = PathBuf::from(std::env::var("HEBB_PKI").unwrap());
        let chain = CertificateDer::pem_file_iter(pki.join("apiserver.crt")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(pki.join("apiserver.key")).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let config = Arc::new(config);
        Self::serve(move |stream, got, answers| {
            let session = ServerConnection::new(config.clone()).unwrap();
            receive(StreamOwned::new(session, stream), got, answers);
        })
    }

    fn serve(receive: impl Fn(TcpStream, &Mutex<Vec<Got>>, &AtomicBool) + Clone + Send + 'static) -> Self {
        let node = get("default", &["nodes"]).unwrap();
        let host = node["items"][0]["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
        let listener = TcpListener::bind((host.as_str(), 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (got, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
        let (seen, may) = (got.clone(), answers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (receive, seen, may) = (receive.clone(), seen.clone(), may.clone());
                std::thread::spawn(move || receive(stream, &seen, &may));
            }
        });
        Self { address, got, answers }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

fn receive(stream: impl Read + Write, got: &Mutex<Vec<Got>>, answers: &AtomicBool) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let line = head.iter().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.map(|line| line[name.len() + 1..].trim().to_owned()).unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    got.lock().unwrap().push(Got {
        at: Instant::now(),
        key: header("x-idempotency-key"),
        signature: header("x-hebb-signature"),
        body: serde_json::from_slice(&body).unwrap(),
    });
    while !answers.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    // The client may have gone.
    let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn uid_of(space: &str, pod: &str) -> String {
    get(space, &["pod", pod]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn stop_redis() -> String {
    let uid = uid_of(SPACE, "watched-redis-0");
    signal("STOP", &processes_of(&uid).unwrap()).unwrap();
    uid
}

fn with_status(got: &[Got], status: &str) -> Vec<Got> {
    got.iter()
        .filter(|got| got.body["status"].as_str().is_some_and(|is| is.eq_ignore_ascii_case(status)))
        .cloned()
        .collect()
}

fn operator() -> String {
    let pods = get("hebb-system", &["pods", "-l", "app.kubernetes.io/name=hebb-operator"]).unwrap();
    pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs the cluster of `make cluster-install`"]
fn a_dead_redis_is_told_repaired_and_told_to_be_well_also_by_an_operator_that_is_killed() {
    if std::env::var("HEBB_CLUSTER").as_deref() != Ok("local") {
        println!("skipped: the processes of this cluster's pods can't be stopped from here");
        return;
    }
    fresh_namespace(SPACE).unwrap();
    let sink = Sink::start();
    apply(SPACE, &OBJECTS.replace("SINK", &sink.address)).unwrap();
    wait_ready(SPACE, "watched", READY).unwrap();

    // A bad policy is visible on itself.
    wait_for("the bad policy says what is wrong", Duration::from_secs(20), || {
        let policy = get(SPACE, &["alertpolicy", "bad"]).ok()?;
        policy["status"]["conditions"].to_string().contains("no_such_indicator").then_some(())
    })
    .unwrap();

    // One message, one repair, one message that it is over.
    let stopped = stop_redis();
    let at = Instant::now();
    wait_for("the sink is told", Duration::from_secs(60), || (!sink.got().is_empty()).then_some(())).unwrap();
    let told_after = at.elapsed();
    println!("told after {:.1} s", told_after.as_secs_f64());
    wait_for("Redis is another pod", Duration::from_secs(120), || {
        let pod = get(SPACE, &["pod", "watched-redis-0"]).ok()?;
        (pod["metadata"]["uid"] != stopped.as_str()).then_some(())
    })
    .unwrap();
    println!("repaired after {:.1} s", at.elapsed().as_secs_f64());
    wait_for("the sink is told that it is over", Duration::from_secs(120), || {
        (!with_status(&sink.got(), "resolved").is_empty()).then_some(())
    })
    .unwrap();
    println!("told to be over after {:.1} s", at.elapsed().as_secs_f64());
    wait_ready(SPACE, "watched", READY).unwrap();
    std::thread::sleep(Duration::from_secs(8));
    let got = sink.got();
    report(&got, told_after);
    let keys: BTreeSet<String> = got.iter().map(|got| got.key.clone()).collect();
    assert_eq!((got.len(), keys.len()), (2, 2), "{got:#?}");
    assert!(got.iter().all(|got| got.signature.starts_with("sha256=")), "{got:#?}");
    assert!(got[0].body.to_string().contains("the Redis of watched does not answer"), "{}", got[0].body);
    let status = get(SPACE, &["alertpolicy", "redis"]).unwrap()["status"].clone();
    assert_eq!((&status["actions"][0]["attempts"], &status["firing"]), (&Value::from(1), &Value::from(0)), "{status}");

    // The operator dies after it has sent and before it has an answer: the same message again, under the same key.
    sink.answers.store(false, Ordering::Relaxed);
    sink.got.lock().unwrap().clear();
    stop_redis();
    let at = Instant::now();
    wait_for("the sink is told again", Duration::from_secs(60), || (!sink.got().is_empty()).then_some(())).unwrap();
    let told_after = at.elapsed();
    println!("the operator: {}", kill_pod("hebb-system", &operator()).unwrap());
    sink.answers.store(true, Ordering::Relaxed);
    wait_for("all is over", Duration::from_secs(180), || {
        (!with_status(&sink.got(), "resolved").is_empty()).then_some(())
    })
    .unwrap();
    report(&sink.got(), told_after);
    let firing = with_status(&sink.got(), "firing");
    let keys: BTreeSet<String> = firing.iter().map(|got| got.key.clone()).collect();
    assert!(firing.len() <= 2 && keys.len() == 1, "{firing:#?}");
    wait_ready(SPACE, "watched", READY).unwrap();

    // What is secret stands nowhere but in its Secret.
    let everything = kubectl(&["-n", SPACE, "get", "lc,ap,configmaps,events,pods", "-o", "yaml"]).unwrap();
    let logs = kubectl(&["-n", "hebb-system", "logs", "deployment/hebb-operator"]).unwrap();
    assert!(!everything.contains("canary-of") && !logs.contains("canary-of"), "a secret was said");
    // A namespace ends with its pods first: the policies would go on, and say that everything is down.
    kubectl(&["-n", SPACE, "delete", "alertpolicies,learningclusters", "--all"]).unwrap();
    kubectl(&["delete", "namespace", SPACE, "--wait=false"]).unwrap();
}

/// The only pod of a role with the fewest letters behind it, so that the same is meant each time.
fn first_pod(role: &str) -> String {
    let selector = format!("hebb.dev/cluster=busy,app.kubernetes.io/component={role}");
    let pods = get(TROUBLE, &["pods", "-l", &selector]).unwrap();
    let names = pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
    names.min().unwrap().to_owned()
}

fn about(sink: &Sink, rule: &str) -> Vec<Got> {
    sink.got().into_iter().filter(|got| got.body.to_string().contains(rule)).collect()
}

/// Waits until a rule's alert was told and then told to be over, and adds it to the report.
fn told_once(sink: &Sink, rule: &str, told_after: Duration) {
    wait_for("the sink is told that it is over", Duration::from_secs(120), || {
        (!with_status(&about(sink, rule), "resolved").is_empty()).then_some(())
    })
    .unwrap();
    // Whatever would be told twice would come by now.
    std::thread::sleep(Duration::from_secs(8));
    let got = about(sink, rule);
    report(&got, told_after);
    assert_eq!((with_status(&got, "firing").len(), with_status(&got, "resolved").len()), (1, 1), "{got:#?}");
}

fn wait_told(sink: &Sink, rule: &str, since: Instant) -> Duration {
    let first = wait_for("the sink is told", Duration::from_secs(60), || about(sink, rule).into_iter().next()).unwrap();
    let told_after = first.at.duration_since(since);
    println!("{rule}: told after {:.1} s", told_after.as_secs_f64());
    told_after
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn a_full_queue_and_a_crash_loop_are_told_repaired_and_told_to_be_over() {
    if std::env::var("HEBB_CLUSTER").as_deref() != Ok("local") {
        println!("skipped: the processes of this cluster's pods can't be stopped from here");
        return;
    }
    fresh_namespace(TROUBLE).unwrap();
    let sink = Sink::start_sealed();
    apply(TROUBLE, &BUSY.replace("SINK", &sink.address)).unwrap();
    wait_ready(TROUBLE, "busy", READY).unwrap();

    // The only worker stands still, for less time than would make it a patient; the clients go on.
    let client = Client::new(&gateway(TROUBLE, "busy").unwrap(), "shuttle", "q-").unwrap();
    let load = client.replay_beside(first_records(3_000).unwrap(), 256, Some(400.0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let processes = processes_of(&uid_of(TROUBLE, &first_pod("worker"))).unwrap();
    signal("STOP", &processes).unwrap();
    let at = Instant::now();
    tokio::time::sleep(Duration::from_secs(9)).await;
    signal("CONT", &processes).unwrap();
    let told_after = wait_told(&sink, "queue-is-full", at);
    wait_for("there are more workers", Duration::from_secs(60), || {
        let cluster = get(TROUBLE, &["learningcluster", "busy"]).ok()?;
        (cluster["spec"]["workers"]["replicas"] == 2 && cluster["status"]["workers"]["ready"] == 2).then_some(())
    })
    .unwrap();
    let ledger = load.join().unwrap().unwrap();
    client.settle(&ledger).await.unwrap();
    told_once(&sink, "queue-is-full", told_after);

    // A gateway that dies again and again, though not often enough for the operator to replace it by itself.
    let victim = first_pod("gateway");
    let uid = uid_of(TROUBLE, &victim);
    let at = Instant::now();
    wait_for("Kubernetes waits with the next start", Duration::from_secs(60), || {
        let pod = get(TROUBLE, &["pod", &victim]).ok()?;
        let container = &pod["status"]["containerStatuses"][0];
        if container["state"]["waiting"]["reason"] == "CrashLoopBackOff" {
            return Some(());
        }
        if container["state"]["running"].is_object() && container["restartCount"].as_i64()? < 3 {
            // Between two looks it may have ended by itself.
            kill_pod(TROUBLE, &victim).ok();
        }
        None
    })
    .unwrap();
    let told_after = wait_told(&sink, "crash-loop", at);
    wait_for("the gateway is another pod", Duration::from_secs(60), || {
        get(TROUBLE, &["pods", "-l", "hebb.dev/cluster=busy"]).ok().filter(|pods| !pods.to_string().contains(&uid))
    })
    .unwrap();
    let status = get(TROUBLE, &["learningcluster", "busy"]).unwrap()["status"].clone();
    assert!(status["replacements"].to_string().contains("Requested"), "{status}");
    told_once(&sink, "crash-loop", told_after);
    wait_ready(TROUBLE, "busy", READY).unwrap();

    kubectl(&["-n", TROUBLE, "delete", "alertpolicies,learningclusters", "--all"]).unwrap();
    kubectl(&["delete", "namespace", TROUBLE, "--wait=false"]).unwrap();
}

/// Labels that nothing tells in advance, or that the first feature tells.
fn coins(count: u64, fair: bool) -> Vec<Record> {
    let mut state = 7u64;
    let mut next = || {
        // A linear congruential generator (Knuth, MMIX).
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31)
    };
    let mut record = || {
        let (feature, toss) = (next(), next());
        let heads = if fair { toss < 0.5 } else { feature < 0.5 };
        Record { features: vec![feature, next()], label: if heads { "heads" } else { "tails" }.to_owned() }
    };
    (0..count).map(|_| record()).collect()
}

/// What meta-learning answers on its port to the one who has the cluster's token.
async fn meta_status() -> Value {
    let pod = get(STILL, &["pod", "learner-coordinator-0"]).unwrap();
    let url = format!("http://{}:3002/api/v4/meta-learning/status", pod["status"]["podIP"].as_str().unwrap());
    let go_template = "go-template={{.data.token | base64decode}}";
    let token = kubectl(&["-n", STILL, "get", "secret", "learner-internal", "-o", go_template]).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(http.get(&url).send().await.unwrap().status().as_u16(), 401, "without the token");
    http.get(&url).bearer_auth(token).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster of `make cluster-install`"]
async fn a_learning_plateau_is_told_boosted_and_told_to_be_over() {
    fresh_namespace(STILL).unwrap();
    let sink = Sink::start();
    apply(STILL, &LEARNER.replace("SINK", &sink.address)).unwrap();
    wait_ready(STILL, "learner", READY).unwrap();

    let address = gateway(STILL, "learner").unwrap();
    let fair = Client::new(&address, "coin", "fair-").unwrap();
    let at = Instant::now();
    let load = fair.replay_beside(coins(2_500, true), 16, Some(100.0));
    let told_after = wait_told(&sink, "plateau-detected", at);
    wait_for("exploration is boosted", Duration::from_secs(60), || {
        let policy = get(STILL, &["alertpolicy", "plateau"]).ok()?;
        let action = policy["status"]["actions"][0].clone();
        (action["lastOutcome"] == "Succeeded").then_some(action)
    })
    .unwrap();
    let ledger = load.join().unwrap().unwrap();
    let status = meta_status().await;
    println!("meta-learning: {status}");
    assert!(status["boosts"].as_u64().unwrap() >= 2, "once by itself, once for the policy: {status}");

    // What can be learned is learned, so that there is little left to gain.
    let told = Client::new(&address, "coin", "told-").unwrap();
    let other = told.replay_beside(coins(2_500, false), 16, Some(100.0)).join().unwrap().unwrap();
    told_once(&sink, "plateau-detected", told_after);
    let events = fair.describe().await.unwrap()["events"].as_u64().unwrap();
    assert_eq!(events, (ledger.events.len() + other.events.len()) as u64, "a cycle is no event");

    kubectl(&["-n", STILL, "delete", "alertpolicies,learningclusters", "--all"]).unwrap();
    kubectl(&["delete", "namespace", STILL, "--wait=false"]).unwrap();
}
