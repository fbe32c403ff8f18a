//! Reads from a gateway's copies: with the owner there, without it, and in one process with it.

use std::time::{Duration, Instant};

use hebb_engine::Task;
use hebb_log::LocalStore;
use hebb_node::{Stopper, Store, stop_channel};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::handover::{Worker, front_end, identity};
use crate::server::Server;
use crate::support::{Answer, Api, event, settings};

const LATEST: &str = "/v1/domains/d/infer";
const EVENTUAL: &str = "/v1/domains/d/infer?consistency=Eventual";
/// `engine.syncInterval` of these tests, in milliseconds.
const BOUND_MS: f64 = 1_000.0;

/// A gateway and a coordinator of two domains.
struct Front {
    store: Store,
    api: Api,
    // Asks for the stop when it is dropped.
    _stopper: Stopper,
}

impl Front {
    async fn start() -> Self {
        let store = Store::new(LocalStore::in_memory().unwrap());
        let (stopper, stop) = stop_channel();
        let (gateway, coordinator) = (identity("gateway"), identity("coordinator"));
        let api = Api::new(gateway.listen);
        let settings = settings(&[("d", Task::Classification, 1), ("shapes", Task::Patterns, 2)]);
        tokio::spawn(front_end(store.clone(), settings, gateway, coordinator, stop));
        api.until("/health/readiness", |answer| answer.status.is_success()).await;
        Self { store, api, _stopper: stopper }
    }

    async fn metric(&self, line: &str) -> f64 {
        let text = self.api.get("/metrics").await.body;
        let value = text.as_str().unwrap().lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
    }
}

fn question(answer: &Value) -> Value {
    json!({ "features": answer["features"] })
}

/// An answer of a copy that is as young as promised; its position.
fn from_copy(answer: &Answer) -> (u64, u64) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let staleness = &answer.body["staleness"];
    assert_eq!((&staleness["servedBy"], &staleness["partition"]), (&json!("copy"), &json!(0)), "{answer:?}");
    assert!(staleness["ageMs"].as_f64().is_some_and(|age| (0.0..=BOUND_MS).contains(&age)), "{answer:?}");
    place(&staleness["position"])
}

fn place(position: &Value) -> (u64, u64) {
    let (at_ms, seq) = position.as_str().unwrap().split_once('-').unwrap();
    (at_ms.parse().unwrap(), seq.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_follows_its_owner_and_answers_on_when_it_has_crashed() {
    let front = Front::start().await;
    let worker = Worker::start(&front.store, "a");
    for number in 0..200 {
        front.api.insist("d", &event(number)).await;
    }
    assert_eq!(front.metric("hebb_copies").await, 0.0, "nobody has asked for a copy");

    let asked = question(&event(7));
    let latest = front.api.post(LATEST, &asked).await;
    assert_eq!(latest.body.get("staleness"), None, "{latest:?}");
    let eventual = front.api.post(EVENTUAL, &asked).await;
    from_copy(&eventual);
    for field in ["prediction", "confidence", "path", "votes", "learned"] {
        assert_eq!(eventual.body[field], latest.body[field], "{field} of {eventual:?}");
    }

    // What is learned from now on arrives.
    let id = front.api.insist("d", &event(200)).await.0["id"].as_str().unwrap().to_owned();
    let learned = place(&front.api.get(&format!("/v1/domains/d/events/{id}")).await.body["appliedAt"]);
    let started = Instant::now();
    while from_copy(&front.api.post(EVENTUAL, &asked).await) < learned {
        assert!(started.elapsed() < Duration::from_secs(10), "the copy stays behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    worker.crash();
    let unowned = async { front.api.post(LATEST, &asked).await };
    let copied = async {
        let started = Instant::now();
        let mut answers = 0;
        while started.elapsed() < Duration::from_secs(5) {
            from_copy(&front.api.post(EVENTUAL, &asked).await);
            answers += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        answers
    };
    let (unowned, copied) = tokio::join!(unowned, copied);
    assert_eq!(unowned.status, StatusCode::SERVICE_UNAVAILABLE, "nobody owns the partition: {unowned:?}");
    assert!(copied > 10);
    assert!(front.metric("hebb_eventual_reads_total{by=\"copy\"}").await >= f64::from(copied));
    assert_eq!(front.metric("hebb_eventual_reads_total{by=\"nobody\"}").await, 0.0);
    assert_eq!(front.metric("hebb_copies").await, 1.0);
    assert!(front.metric("hebb_copy_age_seconds").await <= 1.0);
    assert!(front.metric("hebb_copies_bytes").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_read_from_the_copies_of_all_partitions() {
    let front = Front::start().await;
    let worker = Worker::start(&front.store, "a");
    let signal: Vec<u32> = (0..200).map(|step| step % 7).collect();
    for key in ["a", "b", "c", "d"] {
        let body = json!({ "key": key, "signal": signal });
        let started = Instant::now();
        while front.api.post("/v1/domains/shapes/perceive", &body).await.status != StatusCode::OK {
            assert!(started.elapsed() < Duration::from_secs(20), "never perceived");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let latest = front.api.get("/v1/domains/shapes/patterns").await.body;
    let eventual = front.api.get("/v1/domains/shapes/patterns?consistency=Eventual").await.body;
    assert!(latest["patterns"].as_array().is_some_and(|found| !found.is_empty()), "{latest}");
    assert_eq!(eventual["patterns"], latest["patterns"]);
    assert_eq!(latest.get("staleness"), None);
    let staleness: Vec<(&Value, &Value)> =
        eventual["staleness"].as_array().unwrap().iter().map(|each| (&each["partition"], &each["servedBy"])).collect();
    assert_eq!(staleness, [(&json!(0), &json!("copy")), (&json!(1), &json!("copy"))]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_asks_for_something_else_is_refused_and_learns_nothing() {
    let front = Front::start().await;
    let worker = Worker::start(&front.store, "a");
    front.api.insist("d", &event(0)).await;
    let asked = question(&event(0));
    for consistency in ["eventual", "", "Strong"] {
        let answer = front.api.post(&format!("{LATEST}?consistency={consistency}"), &asked).await;
        assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (400, &json!("bad_address")));
    }
    // Of the engine's own refusals, too, the copy says what the owner says.
    let odd = json!({ "features": { "a": 1 } });
    let (latest, eventual) = (front.api.post(LATEST, &odd).await, front.api.post(EVENTUAL, &odd).await);
    assert_eq!(eventual.status, latest.status, "{latest:?} {eventual:?}");
    let before = front.api.counts("d").await;
    for _ in 0..20 {
        from_copy(&front.api.post(EVENTUAL, &asked).await);
    }
    assert_eq!(front.api.counts("d").await, before);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_process_with_its_owner_an_eventual_read_is_answered_by_the_owner_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 1)])).await;
    server.api.insist("d", &event(0)).await;
    let answer = server.api.post(EVENTUAL, &question(&event(0))).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.body["staleness"], json!({ "partition": 0, "servedBy": "owner", "ageMs": 0.0 }));
    server.stop().await;
}
