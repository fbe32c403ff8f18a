//! A domain that forgets what it has learned, because somebody asks for it.

use std::time::Duration;

use hebb_engine::Task;
use hebb_log::LocalStore;
use hebb_node::{ClusterSettings, Store, stop_channel};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::handover::{Worker, front_end, identity};
use crate::support::{Api, digest, event, id, settings};

const RESET: &str = "/v1/domains/d/reset";

/// What a domain and its partitions count, without what changes with every look at them.
async fn seen(api: &Api) -> Value {
    let mut answer = api.get("/v1/domains/d").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    for partition in answer.body["partitionStatistics"].as_array_mut().unwrap() {
        let partition = partition.as_object_mut().unwrap();
        partition.remove("entries").and(partition.remove("position")).unwrap();
    }
    answer.body
}

async fn reset(api: &Api, body: Value) -> Value {
    let answer = api.post(RESET, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

fn sums(domain: &Value, field: &str) -> f64 {
    domain["partitionStatistics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| partition[field].as_f64().unwrap_or(0.0))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_reset_learns_anew_knows_what_it_has_seen_and_a_replay_ends_there_too() {
    let store = Store::new(LocalStore::in_memory().unwrap());
    let (_stopper, stop) = stop_channel();
    let (gateway, coordinator) = (identity("gateway"), identity("coordinator"));
    let api = Api::new(gateway.listen);
    let known = settings(&[("d", Task::Classification, 2)]);
    // No checkpoint comes between: who takes over replays everything.
    let replaying = || ClusterSettings { checkpoint_interval: Duration::from_secs(3_600), ..settings(&[]) };
    tokio::spawn(front_end(store.clone(), known, gateway, coordinator, stop));
    let worker = Worker::start_with(&store, "a", replaying());

    for number in 0..100 {
        api.insist("d", &event(number)).await;
    }
    let late = json!({ "id": "late", "features": event(7)["features"] });
    api.insist("d", &late).await;
    let before = seen(&api).await;
    assert!(before["labels"] == json!(100) && before["accuracy"].as_f64().unwrap() > 0.8, "{before}");

    for body in [json!({ "confirm": "e" }), json!({ "confirm": "d", "partition": 2 })] {
        assert_eq!(api.post(RESET, &body).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    assert_eq!(seen(&api).await, before, "what was refused changed nothing");

    let after = reset(&api, json!({ "confirm": "d" })).await;
    assert_eq!((&after["labels"], &after["accuracy"]), (&json!(0), &Value::Null), "{after}");
    for field in ["kappa", "logLoss", "experiences", "features"] {
        assert!(sums(&before, field) > 0.0, "{field} of {before}");
        assert_eq!(sums(&after, field), 0.0, "{field} of {after}");
    }
    for field in ["events", "appliedDigest", "updates", "duplicates"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let question = api.post("/v1/domains/d/infer", &json!({ "features": event(0)["features"] })).await;
    assert_eq!(question.body["prediction"], Value::Null, "{question:?}");

    let (retried, _) = api.insist("d", &event(5)).await;
    assert_eq!((&retried["duplicate"], &retried["learned"]), (&json!(true), &json!(false)), "{retried}");
    let label = api.post("/v1/domains/d/feedback", &json!({ "id": "late", "label": "up" })).await;
    assert_eq!(label.body["outcome"], json!("already_labelled"), "{label:?}");
    assert_eq!(seen(&api).await["labels"], json!(0), "neither is learned or scored");

    for number in 100..140 {
        let (answer, _) = api.insist("d", &event(number)).await;
        assert_eq!((&answer["duplicate"], &answer["learned"]), (&json!(false), &json!(true)), "{answer}");
    }
    let ids: Vec<String> = (0..140).map(id).chain(["late".to_owned()]).collect();
    let learned = seen(&api).await;
    assert_eq!((&learned["events"], &learned["labels"]), (&json!(141), &json!(40)), "{learned}");
    assert_eq!(learned["appliedDigest"], json!(digest(&ids)));

    let labels = |domain: &Value| [0, 1].map(|index| domain["partitionStatistics"][index]["labels"].clone());
    let [first, second] = labels(&learned);
    assert!(first != json!(0), "it has events to forget");
    assert_eq!(labels(&reset(&api, json!({ "confirm": "d", "partition": 0 })).await), [json!(0), second]);
    api.insist("d", &event(140)).await;

    let last = seen(&api).await;
    worker.crash();
    let _worker = Worker::start_with(&store, "b", replaying());
    api.until("/v1/domains/d", |answer| answer.status == StatusCode::OK).await;
    assert_eq!(seen(&api).await, last);
}
