//! Meta-learning over HTTP: the cycles, what they report, and what is left of them after a restart.

use std::time::Duration;

use hebb_engine::Task;
use hebb_node::{ClusterSettings, MetaLearning};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::Server;
use crate::support::{Answer, event, settings};

const BASE: &str = "/api/v4/meta-learning";
const METRICS: [&str; 4] = ["learningVelocity", "adaptationSpeed", "knowledgeRetention", "transferEfficiency"];

/// Cycles that run by themselves every so many milliseconds, or not at all.
fn with_cycles(interval_ms: Option<u64>) -> ClusterSettings {
    let meta_learning =
        MetaLearning { enabled: interval_ms.is_some(), interval_ms: interval_ms.unwrap_or(300_000), max_cycles: 0 };
    ClusterSettings { meta_learning, ..settings(&[("d", Task::Classification, 2)]) }
}

async fn feed(server: &Server, numbers: std::ops::Range<usize>) {
    for number in numbers {
        server.api.insist("d", &event(number)).await;
    }
}

async fn get(server: &Server, path: &str) -> Value {
    let answer = server.meta.get(&format!("{BASE}/{path}")).await;
    assert_eq!((answer.status, &answer.body["ok"]), (StatusCode::OK, &json!(true)), "{path}: {answer:?}");
    answer.body
}

async fn post(server: &Server, path: &str, body: &Value) -> Value {
    let answer = server.meta.post(&format!("{BASE}/{path}"), body).await;
    assert_eq!((answer.status, &answer.body["ok"]), (StatusCode::OK, &json!(true)), "{path}: {answer:?}");
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_scores_what_the_workers_lived_through_and_every_path_tells_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), with_cycles(None)).await;
    server.meta.until("/health", |answer| answer.body["ok"] == json!(true)).await;
    server.meta.until(&format!("{BASE}/status"), |answer| answer.status == StatusCode::OK).await;
    let empty = get(&server, "production-dashboard").await;
    assert_eq!(empty["performance"]["currentMetrics"]["learningVelocity"], Value::Null, "nothing is made up: {empty}");

    feed(&server, 0..600).await;
    let cycle = post(&server, "run-all", &json!({})).await["cycle"].clone();
    assert_eq!(
        (&cycle["metricsSource"], &cycle["partitions"], &cycle["fresh"]),
        (&json!("live"), &json!(2), &json!(600))
    );
    for name in METRICS {
        let value = cycle["metrics"][name].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&value), "{name}: {cycle}");
    }
    assert!(cycle["score"].as_f64().unwrap() > 0.9, "{cycle}");

    let status = get(&server, "continuous-status").await;
    assert_eq!((&status["continuousActive"], status["timestamp"].is_string()), (&json!(false), true));
    let dashboard = get(&server, "production-dashboard").await;
    assert_eq!(dashboard["systemStatus"]["started"], json!(true));
    assert_eq!(dashboard["performance"]["currentMetrics"], cycle["metrics"]);
    assert_eq!(dashboard["performance"]["recentVelocity"][0]["delta"], json!(0.0));
    assert_eq!(dashboard["health"], json!({"metricsHealthy": true, "phasesHealthy": true, "logSize": 1}));
    assert_eq!(get(&server, "metrics").await["metrics"], cycle["metrics"]);
    assert_eq!(get(&server, "performance").await["performance"], dashboard["performance"]);
    assert_eq!(get(&server, "alerts").await["alerts"], json!([]));

    feed(&server, 600..620).await;
    post(&server, "run-all", &json!({})).await;
    assert_eq!(get(&server, "metrics-trend?limit=1").await["trend"].as_array().map(Vec::len), Some(1));
    let history = get(&server, "adaptation-history").await["history"].clone();
    assert_eq!((history.as_array().map(Vec::len), &history[1]["fresh"]), (Some(2), &json!(20)));
    let status = server.status.get("/api/v1/status").await.body;
    assert!(status["meta"]["meta_score"].as_f64().is_none_or(|score| score > 0.9), "{status}");

    post(&server, "reset", &json!({})).await;
    assert_eq!(get(&server, "adaptation-history").await["history"], json!([]));
    assert_eq!(server.api.counts("d").await["events"], json!(620), "what was learned stays");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cycles_run_by_themselves_and_their_history_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), with_cycles(Some(200))).await;
    feed(&server, 0..300).await;
    let path = format!("{BASE}/adaptation-history?limit=1000");
    let run = |answer: &Answer| answer.body["history"].as_array().is_some_and(|cycles| cycles.len() >= 3);
    server.meta.until(&path, run).await;
    let stopped = post(&server, "stop-continuous", &json!({})).await;
    assert_eq!(stopped["continuousActive"], json!(false));
    let before = get(&server, "adaptation-history?limit=1000").await["history"].clone();
    server.stop().await;

    let server = Server::start(directory.path(), with_cycles(Some(200))).await;
    server.meta.until(&path, |answer| answer.status == StatusCode::OK).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let after = get(&server, "adaptation-history?limit=1000").await["history"].clone();
    assert_eq!(after, before, "what was stopped by hand stays so");
    let started = post(&server, "start-continuous", &json!({"intervalMs": 100, "maxCycles": 2})).await;
    assert_eq!(started["continuousActive"], json!(true));
    let ended = format!("{BASE}/continuous-status");
    server.meta.until(&ended, |answer| answer.body["continuousActive"] == json!(false)).await;
    let cycles = get(&server, "adaptation-history?limit=1000").await["history"].as_array().map(Vec::len);
    assert_eq!(cycles, before.as_array().map(|before| before.len() + 2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_whose_client_hangs_up_is_remembered() {
    const CYCLES: usize = 5;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), with_cycles(None)).await;
    server.meta.until(&format!("{BASE}/status"), |answer| answer.status == StatusCode::OK).await;
    let path = format!("{BASE}/adaptation-history");
    for cycle in 0..CYCLES {
        feed(&server, cycle * 10..cycle * 10 + 10).await;
        let mut client = TcpStream::connect(server.meta_address).await.unwrap();
        let request = format!("POST {BASE}/run-all HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(client);
        let remembered = |answer: &Answer| answer.body["history"].as_array().map(Vec::len) == Some(cycle + 1);
        let history = server.meta.until(&path, remembered).await.body;
        assert_eq!(history["history"][cycle]["fresh"], json!(10));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_to_meta_learning_says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), with_cycles(None)).await;
    server.meta.until(&format!("{BASE}/status"), |answer| answer.status == StatusCode::OK).await;
    let (start, large) = (format!("{BASE}/start-continuous"), " ".repeat(3 << 20));
    let cases = [
        (Method::POST, start.as_str(), "{", 400),
        (Method::POST, &start, r#"{"intervalMs":1}"#, 422),
        (Method::POST, &start, r#"{"intervalMs":-1}"#, 400),
        (Method::POST, &start, r#"{"interval":1000}"#, 400),
        (Method::POST, &start, "[1000,1]", 400),
        (Method::POST, &start, large.as_str(), 413),
        (Method::GET, &start, "", 405),
        (Method::GET, "/api/v4/meta-learning/metrics-trend?limit=many", "", 400),
        (Method::GET, "/api/v4/meta-learning/nothing", "", 404),
    ];
    for (method, path, body, status) in cases {
        let answer = server.meta.send(method, path, body.to_owned()).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {answer:?}");
        assert!(answer.body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer:?}");
    }
    assert_eq!(get(&server, "continuous-status").await["continuousActive"], json!(false));
    server.stop().await;
}
