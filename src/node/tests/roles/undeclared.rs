//! Domains that nobody declared: made by a first event that can be learned, of the task that it implies.

use futures::future::join_all;
use hebb_node::ClusterSettings;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::settings;

const ROUNDS: usize = 8;

async fn start() -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let settings = ClusterSettings { allow_undeclared_domains: true, ..settings(&[]) };
    let server = Server::start(folder.path(), settings).await;
    (folder, server)
}

/// Which task made the first event's domain, and what became of every event that came along.
async fn race(server: &Server, domain: &str, events: &[(&str, Value)]) -> (String, Vec<StatusCode>) {
    let answers = (0..24).map(|number| {
        let (place, body) = &events[number % events.len()];
        let place = match *place {
            "event" => "/event".to_owned(),
            name => format!("/v1/domains/{domain}/{name}"),
        };
        let api = server.api.clone();
        let body = body.clone();
        tokio::spawn(async move { api.post(&place, &body).await })
    });
    let statuses = join_all(answers).await.into_iter().map(|answer| answer.unwrap().status).collect();
    let domains = server.api.get("/v1/domains").await.body;
    let made = domains["domains"].as_array().unwrap().iter().find(|made| made["name"] == domain).unwrap();
    (made["task"].as_str().unwrap().to_owned(), statuses)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_first_events_those_that_fit_are_learned() {
    let (_folder, server) = start().await;
    for round in 0..ROUNDS {
        // A whole number is a class and a target, one with a fraction only a target.
        let events = [
            ("infer-and-adapt", json!({ "features": [1, 2], "label": 2 })),
            ("infer-and-adapt", json!({ "features": [1, 2], "label": 2.5 })),
        ];
        let (task, statuses) = race(&server, &format!("labels-{round}"), &events).await;
        for (number, status) in statuses.into_iter().enumerate() {
            let fits = number % 2 == 0 || task == "Regression";
            assert_eq!(status.as_u16(), if fits { 200 } else { 422 }, "event {number} of a {task} domain");
        }

        let name = format!("kinds-{round}");
        let events = [
            ("perceive", json!({ "signal": [1, 2, 3, 2, 1] })),
            ("infer-and-adapt", json!({ "signal": [1, 2, 3, 2, 1], "label": "a" })),
            ("event", json!({ "domain": name, "vector": [1, 2], "moral_value": 0.9 })),
        ];
        let (task, statuses) = race(&server, &name, &events).await;
        for (number, status) in statuses.into_iter().enumerate() {
            let fits = ["Patterns", "TimeSeriesClassification", "Governed"][number % 3] == task;
            assert_eq!(status.as_u16(), if fits { 200 } else { 422 }, "event {number} of a {task} domain");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_event_that_is_refused_makes_no_domain() {
    let (_folder, server) = start().await;
    for (body, status) in [
        (json!({ "features": [1e17] }), 422),
        (json!({ "features": { "a": -1e17 } }), 422),
        (json!({ "features": [1], "label": 1.1e17 }), 422),
        (json!({ "features": [1], "label": 1e300 }), 422),
        (json!({ "features": [1], "label": "x".repeat(257) }), 413),
        (json!({ "features": { ("x".repeat(257)): 1 } }), 413),
        (json!({ "features": [1], "id": "" }), 422),
        (json!(["id", null, [1, 2], null, "up"]), 400),
    ] {
        let answer = server.api.post("/v1/domains/never/infer-and-adapt", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
    }
    for body in [json!({ "id": "a", "signal": [1, 1e17] }), json!(["a", null, [1, 2]])] {
        let answer = server.api.post("/v1/domains/never/perceive", &body).await;
        assert!(answer.status.is_client_error(), "{body}: {answer:?}");
    }
    for body in [
        json!({ "domain": "never", "vector": [1e17], "moral_value": 0.9 }),
        json!({ "domain": "never", "vector": [1], "moral_value": 2 }),
        json!(["a", "never", [1, 2], 0.9]),
    ] {
        let answer = server.api.post("/event", &body).await;
        assert!(answer.status.is_client_error(), "{body}: {answer:?}");
    }
    assert_eq!(server.api.get("/v1/domains").await.body, json!({ "domains": [] }));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_read_as_it_is_documented() {
    let (_folder, server) = start().await;
    let lines = Client::new()
        .post(format!("http://{}/v1/domains/d/infer-and-adapt", server.address))
        .header("content-type", "APPLICATION/X-NDJSON; charset=utf-8")
        .body("{\"id\":\"a\",\"features\":[1],\"label\":\"up\"}\n{\"id\":\"b\",\"features\":[2],\"label\":\"up\"}\n");
    let answer = lines.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    assert_eq!(answer.text().await.unwrap().lines().count(), 2);
    for (id, status) in [(String::new(), 422), ("x".repeat(257), 413), ("x".repeat(256), 200)] {
        let answer = server.api.post("/v1/domains/d/infer", &json!({ "id": id, "features": [1] })).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    }
    for (place, body) in [
        ("infer", json!([null, null, [1]])),
        ("feedback", json!(["a", null, "up"])),
        ("perceive:batch", json!([[], 1])),
    ] {
        let answer = server.api.post(&format!("/v1/domains/d/{place}"), &body).await;
        assert_eq!((answer.status.as_u16(), &answer.body["error"]["code"]), (400, &json!("bad_body")), "{place}");
    }
    server.stop().await;
}
