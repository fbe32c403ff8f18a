//! Alerts on a real cluster, from the fault to a real HTTP server that listens: told once, repaired, and told that it is over;
//! also when the operator is killed after it sent and before it knew. `make test-e2e` runs these.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does: by a panic")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hebb_e2e::kubectl::{apply, fresh_namespace, get, kill_pod, kubectl, processes_of, signal, wait_for, wait_ready};
use serde_json::Value;

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

/// A message as the server got it.
#[derive(Clone, Debug)]
struct Got {
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
        let node = get("default", &["nodes"]).unwrap();
        let host = node["items"][0]["status"]["addresses"][0]["address"].as_str().unwrap().to_owned();
        let listener = TcpListener::bind((host.as_str(), 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (got, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
        let (seen, may) = (got.clone(), answers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, may) = (seen.clone(), may.clone());
                std::thread::spawn(move || receive(stream, &seen, &may));
            }
        });
        Self { address, got, answers }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

fn receive(stream: TcpStream, got: &Mutex<Vec<Got>>, answers: &AtomicBool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
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
        key: header("x-idempotency-key"),
        signature: header("x-hebb-signature"),
        body: serde_json::from_slice(&body).unwrap(),
    });
    while !answers.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    // The client may have gone.
    let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn stop_redis() -> String {
    let uid = get(SPACE, &["pod", "watched-redis-0"]).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
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
    println!("told after {:.1} s", at.elapsed().as_secs_f64());
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
    wait_for("the sink is told again", Duration::from_secs(60), || (!sink.got().is_empty()).then_some(())).unwrap();
    println!("the operator: {}", kill_pod("hebb-system", &operator()).unwrap());
    sink.answers.store(true, Ordering::Relaxed);
    wait_for("all is over", Duration::from_secs(180), || {
        (!with_status(&sink.got(), "resolved").is_empty()).then_some(())
    })
    .unwrap();
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
