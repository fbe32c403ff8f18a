//! Governed memory over HTTP: what is accepted, what is kept, and what a retry and a restart find.

use hebb_engine::{Governance, Rhythm, Task, Thresholds};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::settings;

async fn offer(server: &Server, number: usize, value: f64) -> Value {
    let body = json!({ "id": format!("v{number}"), "vector": [number as f64 * 10.0, 1.0, -1.0], "moral_value": value });
    let answer = server.api.post("/event", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_judged_kept_within_the_bound_and_told_of_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(&[("governed", Task::Governed, 1)]);
    settings.domains[0].config.hyperparameters.memory_max_vectors = 20;
    let server = Server::start(directory.path(), settings.clone()).await;

    let first = offer(&server, 0, 0.9).await;
    assert_eq!((&first["accepted"], &first["phase"], &first["threshold"]), (&json!(true), &json!("wake"), &json!(0.5)));
    let again = offer(&server, 0, 0.9).await;
    assert_eq!((&again["accepted"], &again["duplicate"], &again["phase"]), (&json!(true), &json!(true), &Value::Null));
    let low = offer(&server, 1, 0.01).await;
    assert_eq!((&low["accepted"], &low["duplicate"]), (&json!(false), &json!(false)), "{low}");

    let mut phases = Vec::new();
    for number in 2..46 {
        phases.push(offer(&server, number, 1.0).await["phase"].as_str().unwrap().to_owned());
    }
    assert_eq!(phases.iter().filter(|phase| *phase == "sleep").count(), 12, "3 of 11: {phases:?}");
    let before = server.api.get("/state").await;
    assert_eq!(before.status, StatusCode::OK, "{before:?}");
    let state = &before.body;
    assert_eq!((&state["accepted"], &state["rejected"]), (&json!(45), &json!(1)), "{state}");
    assert!(state["vectors"].as_u64().unwrap() <= 20 && state["capacity"] == json!(20), "{state}");
    let part = &state["partitions"][0];
    let sum: u64 =
        ["vectors", "waiting", "merged", "pruned", "evicted"].iter().map(|name| part[name].as_u64().unwrap()).sum();
    assert_eq!(sum, 45, "every accepted vector is accounted for: {part}");
    let metrics = server.api.get("/metrics").await.body.as_str().unwrap().to_owned();
    for line in ["total_events_processed 46", "accepted_events_count 45", "rejected_events_count 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    let detailed = server.api.get("/health/detailed").await.body;
    assert_eq!((&detailed["status"], &detailed["phase"]), (&json!("ok"), &state["phase"]), "{detailed}");
    assert_eq!(detailed["statistics"]["moral_filter_threshold"], state["threshold"]);
    assert_eq!(detailed["memory_state"]["vectors"], state["vectors"]);
    assert!(detailed["system"]["memory_usage_bytes"].as_u64().unwrap() > 0, "{detailed}");
    let learned = |status: &Value| status["domains"][0]["learned"] == json!(45);
    server.status.until("/api/v1/status", |answer| learned(&answer.body)).await;
    let entries = async || {
        let told = server.api.get("/v1/domains/governed").await.body;
        told["partitionStatistics"][0]["entries"].as_u64().unwrap()
    };
    let asked_before = entries().await;
    for _ in 0..100 {
        server.api.get("/health/detailed").await;
    }
    assert!(entries().await < asked_before + 20, "everybody who may ask how the process is fills the log");
    server.stop().await;

    let server = Server::start(directory.path(), settings).await;
    assert_eq!(server.api.get("/state").await.body, before.body);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_begins_with_the_rhythm_and_the_thresholds_that_are_asked_for_and_takes_up_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(&[("governed", Task::Governed, 1)]);
    let admission = Thresholds { initial_threshold: 0.2, ..Thresholds::default() };
    settings.governance = Governance { rhythm: Rhythm { wake: 2, sleep: 1 }, admission };
    let server = Server::start(directory.path(), settings.clone()).await;
    let mut phases = Vec::new();
    for number in 0..4 {
        let offered = offer(&server, number, 0.3).await;
        if number == 0 {
            assert_eq!((&offered["threshold"], &offered["accepted"]), (&json!(0.2), &json!(true)), "{offered}");
        }
        phases.push(offered["phase"].as_str().unwrap().to_owned());
    }
    assert_eq!(phases, ["wake", "wake", "sleep", "wake"]);
    let before = server.api.get("/state").await.body;
    assert_eq!(before["rhythm"], json!({ "wake": 2, "sleep": 1 }));
    server.stop().await;

    let admission = Thresholds { initial_threshold: 0.8, min_threshold: 0.7, ..Thresholds::default() };
    settings.governance = Governance { rhythm: Rhythm { wake: 1, sleep: 1 }, admission };
    let server = Server::start(directory.path(), settings).await;
    let state = server.api.until("/state", |answer| answer.body["rhythm"]["wake"] == json!(1)).await.body;
    // The threshold goes no further than it has to: this memory has judged before.
    assert_eq!((&state["threshold"], &state["admission"]["minThreshold"]), (&json!(0.7), &json!(0.7)), "{state}");
    assert_eq!((&state["accepted"], &state["vectors"]), (&before["accepted"], &before["vectors"]));
    let offered = offer(&server, 4, 0.3).await;
    assert_eq!((&offered["phase"], &offered["accepted"]), (&json!("wake"), &json!(false)), "{offered}");
    assert_eq!(offer(&server, 5, 0.9).await["phase"], json!("sleep"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vector_that_does_not_fit_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let domains = [("governed", Task::Governed, 1), ("d", Task::Classification, 1)];
    let server = Server::start(directory.path(), settings(&domains)).await;
    offer(&server, 0, 0.9).await;
    let before = server.api.get("/state").await.body;
    for (body, status) in [
        (json!({ "vector": [1, 2], "moral_value": 0.5 }), 422),
        (json!({ "vector": [], "moral_value": 0.5 }), 422),
        (json!({ "vector": [1, 2, 1e39], "moral_value": 0.5 }), 422),
        (json!({ "vector": [1, 2, 3], "moral_value": 1.5 }), 422),
        (json!({ "vector": [1, 2, 3] }), 400),
        (json!({ "vector": [1, 2, 3], "moral_value": 0.5, "domain": "d" }), 422),
        (json!({ "vector": [1, 2, 3], "moral_value": 0.5, "domain": "other" }), 404),
    ] {
        let answer = server.api.post("/event", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
    }
    let wrong = server.api.post("/v1/domains/governed/infer-and-adapt", &json!({ "features": [1, 2, 3] })).await;
    assert!(
        wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.body.to_string().contains("POST /event"),
        "{wrong:?}"
    );
    let mut after = server.api.get("/state").await.body;
    assert_eq!(after.as_object_mut().map(std::mem::take), before.as_object().cloned());
    server.stop().await;
}
