//! Whom the API serves and how much: keys, limits, and what is asked of nobody.

use std::path::Path;
use std::time::{Duration, Instant};

use hebb_api::{RateLimitSpec, TierSpec};
use hebb_engine::Task;
use hebb_node::gateway::KeyLine;
use hebb_node::{Access, ClusterSettings};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::{event, settings};

const LEARN: &str = "/v1/domains/d/infer-and-adapt";

fn with(access: Access) -> ClusterSettings {
    ClusterSettings { access, ..settings(&[("d", Task::Classification, 1), ("shapes", Task::Patterns, 1)]) }
}

fn limit(requests_per_second: i32, burst: i32) -> RateLimitSpec {
    RateLimitSpec { requests_per_second, burst: Some(burst), tiers: Vec::new() }
}

fn keys(folder: &Path, lines: &[&KeyLine]) {
    let text: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
    // As Kubernetes does: the old one or the new one, nothing in between.
    std::fs::write(folder.join("..new"), text.concat()).unwrap();
    std::fs::rename(folder.join("..new"), folder.join("clients")).unwrap();
}

async fn ask(server: &Server, path: &str, key: Option<&str>) -> Response {
    let request = Client::new().get(format!("http://{}{path}", server.address));
    match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
    .send()
    .await
    .unwrap()
}

async fn status(server: &Server, key: Option<&str>) -> StatusCode {
    ask(server, "/v1/domains", key).await.status()
}

/// A server whose only way in are keys; waits by what needs none.
async fn locked(folder: &Path, rate_limit: Option<RateLimitSpec>, unlimited: bool) -> Server {
    let access = Access { api_keys: Some(folder.join("keys")), rate_limit, unlimited };
    Server::start_locked(&folder.join("data"), with(access)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_known_key_gets_in_and_keys_change_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    let ((old_key, old), (new_key, new)) = (KeyLine::new("alice", None).unwrap(), KeyLine::new("alice", None).unwrap());
    keys(&folder.path().join("keys"), &[&old]);
    let server = locked(folder.path(), None, true).await;

    assert_eq!(status(&server, Some(&old_key)).await, StatusCode::OK);
    for wrong in [None, Some(""), Some("x"), Some(new_key.as_str()), Some(&old_key[..60])] {
        let answer = ask(&server, "/v1/domains", wrong).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], json!("unauthorized"), "{body}");
    }
    // Nothing is learned without a key, whatever the size of what is sent.
    for size in [10, 3 << 20] {
        let answer = server.api.post(LEARN, &json!({ "features": [1], "label": "x".repeat(size) })).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
    }
    // The kubelet and Prometheus have no key.
    for path in ["/health", "/health/liveness", "/health/readiness", "/metrics"] {
        assert_eq!(ask(&server, path, None).await.status(), StatusCode::OK, "{path}");
    }

    // While one key replaces the other both work.
    let becomes = async |key: &str, wanted: StatusCode| {
        let started = Instant::now();
        while status(&server, Some(key)).await != wanted {
            assert!(started.elapsed() < Duration::from_secs(15), "still not {wanted}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    keys(&folder.path().join("keys"), &[&old, &new]);
    becomes(&new_key, StatusCode::OK).await;
    assert_eq!(status(&server, Some(&old_key)).await, StatusCode::OK);
    keys(&folder.path().join("keys"), &[&new]);
    becomes(&old_key, StatusCode::UNAUTHORIZED).await;
    assert_eq!(status(&server, Some(&new_key)).await, StatusCode::OK);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_the_limit_of_its_tier() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    let (free_key, free) = KeyLine::new("free", None).unwrap();
    let (paid_key, paid) = KeyLine::new("paid", Some("gold")).unwrap();
    let (lost_key, lost) = KeyLine::new("lost", Some("a tier that is gone".replace(' ', "-").as_str())).unwrap();
    keys(&folder.path().join("keys"), &[&free, &paid, &lost]);
    let tiers = vec![TierSpec { name: "gold".to_owned(), requests_per_second: 1_000, burst: None, max_priority: None }];
    let server = locked(folder.path(), Some(RateLimitSpec { tiers, ..limit(2, 4) }), false).await;
    for (key, expected) in [(&free_key, 4..=6), (&paid_key, 40..=40), (&lost_key, 4..=6)] {
        let mut passed = 0;
        for _ in 0..40 {
            let answer = ask(&server, "/v1/domains", Some(key)).await;
            match answer.status() {
                StatusCode::OK => passed += 1,
                status => {
                    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                    assert_eq!(answer.headers()["retry-after"], "1");
                    let body: Value = answer.json().await.unwrap();
                    assert_eq!(body["error"]["code"], json!("rate_limit_exceeded"), "{body}");
                }
            }
        }
        assert!(expected.contains(&passed), "{passed} of 40 passed");
    }
    let metrics = ask(&server, "/metrics", None).await.text().await.unwrap();
    assert!(metrics.contains("hebb_refused_total{reason=\"rate_limit\"} "), "{metrics}");
    assert!(metrics.contains("hebb_limited_clients 3"), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_an_address_is_limited_where_a_limit_is_set_and_a_stream_is_slowed_down() {
    let folder = tempfile::tempdir().unwrap();
    let access = Access { rate_limit: Some(limit(50, 10)), ..Access::default() };
    let server = Server::start(folder.path(), with(access)).await;
    let lines: Vec<String> = (0..60).map(|number| event(number).to_string()).collect();
    let started = Instant::now();
    let answers = server.stream("d", lines.join("\n")).await;
    assert!(answers.iter().all(|answer| answer["learned"] == json!(true)), "{answers:?}");
    assert_eq!(answers.len(), 60);
    // Sixty lines and the request, at fifty a second, after ten at once.
    assert!(started.elapsed() > Duration::from_millis(950), "{:?}", started.elapsed());

    // A batch is served and paid for afterwards.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let signals: Vec<Value> = (0..100).map(|_| json!([0, 1, 5, 1, 0])).collect();
    let batch = server.api.post("/v1/domains/shapes/perceive:batch", &json!({ "signals": signals })).await;
    assert_eq!(batch.status, StatusCode::OK, "{batch:?}");
    let next = server.api.get("/v1/domains").await;
    assert_eq!((next.status, next.retry_after.as_deref()), (StatusCode::TOO_MANY_REQUESTS, Some("2")), "{next:?}");
    server.stop().await;
}
