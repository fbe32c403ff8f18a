//! What people do to a library of patterns over HTTP, and what is there after a restart.

use hebb_engine::Task;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::settings;

const PATTERNS: &str = "/v1/domains/shapes/patterns";

async fn perceive(server: &Server, signal: &[f32], key: &str) -> Value {
    let body = json!({ "signal": signal, "key": key });
    let answer = server.api.post("/v1/domains/shapes/perceive", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

async fn change(server: &Server, name: &str, body: &Value) -> Value {
    let answer = server.api.post(&format!("{PATTERNS}:{name}"), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

async fn list(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.api.get(&format!("{PATTERNS}?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["patterns"].as_array().unwrap().clone()
}

/// Waves of many shapes, so that there are many patterns.
fn waves(seed: usize) -> Vec<f32> {
    let step = |step: usize| ((step * (seed % 7 + 3)) % (11 + seed % 5)) as f32 + ((step * step + seed) % 3) as f32;
    (0..160).map(step).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_are_asked_for_merged_archived_and_restored_and_a_restart_finds_them_so() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&[("shapes", Task::Patterns, 2)]);
    let server = Server::start(directory.path(), settings.clone()).await;
    for number in 0..30 {
        perceive(&server, &waves(number), &number.to_string()).await;
    }
    let all = list(&server, "limit=1000").await;
    assert!(all.len() > 20, "{}", all.len());

    let mut pages = Vec::new();
    let mut query = "limit=7".to_owned();
    loop {
        let page = server.api.get(&format!("{PATTERNS}?{query}")).await.body;
        pages.extend(page["patterns"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=7&after={next}");
    }
    assert_eq!(pages, all, "every one once, in the same order");
    let strong = list(&server, "limit=1000&minSupport=5&level=0").await;
    assert!(strong.iter().all(|one| one["support"].as_u64().unwrap() >= 5 && one["level"] == json!(0)));
    let shape: Vec<String> = all[0]["prototype"].as_array().unwrap().iter().map(ToString::to_string).collect();
    let like = list(&server, &format!("limit=1&like={}", shape.join(","))).await;
    assert!(like[0]["similarity"].as_f64().unwrap() > 0.99, "{like:?}");

    let support = |patterns: &[Value]| patterns.iter().map(|one| one["support"].as_u64().unwrap()).sum::<u64>();
    let merged = change(&server, "merge", &json!({ "similarity": 0.8 })).await;
    let counts: Vec<u64> =
        merged["partitions"].as_array().unwrap().iter().map(|part| part["changed"].as_u64().unwrap()).collect();
    let fewer = list(&server, "limit=1000").await;
    assert!(counts.len() == 2 && counts.iter().sum::<u64>() > 0, "{merged}");
    assert_eq!((fewer.len() as u64, support(&fewer)), (all.len() as u64 - counts.iter().sum::<u64>(), support(&all)));

    let (partition, id) = (&fewer[0]["partition"], &fewer[0]["id"]);
    let archive = json!({ "id": "tidy", "partition": partition, "ids": [id] });
    let archived = change(&server, "archive", &archive).await;
    assert_eq!((&archived["id"], &archived["partitions"][0]["archived"]), (&json!("tidy"), &json!([id])), "{archived}");
    let again = change(&server, "archive", &archive).await;
    assert_eq!(again["partitions"][0]["duplicate"], json!(true));
    let in_archive = list(&server, "state=archived").await;
    assert_eq!((in_archive.len(), &in_archive[0]["id"], &in_archive[0]["archived"]), (1, id, &json!(true)));
    let everything = list(&server, "limit=1000&state=all").await;
    server.stop().await;

    let server = Server::start(directory.path(), settings).await;
    assert_eq!(list(&server, "limit=1000&state=all").await, everything);
    let restored = change(&server, "restore", &json!({ "partition": partition, "ids": [id, 123_456] })).await;
    let part = &restored["partitions"][0];
    assert_eq!((&part["restored"], &part["unknown"]), (&json!([id]), &json!([123_456])), "{restored}");
    assert_eq!(list(&server, "limit=1000").await, fewer);

    for (name, body, status) in [
        ("merge", json!({ "ids": [1, 2] }), 422),
        ("merge", json!({ "ids": [1, 2], "partition": 2 }), 422),
        ("merge", json!({ "similarity": 1.5 }), 422),
        ("archive", json!({}), 422),
        ("archive", json!({ "supportbelow": 1 }), 400),
        ("restore", json!({ "ids": vec![1; 1_001], "partition": 0 }), 413),
    ] {
        let answer = server.api.post(&format!("{PATTERNS}:{name}"), &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {answer:?}");
    }
    for query in ["state=gone", "minConfidence=2", "after=1", "like=1", "like=1,x", "nothing=1"] {
        let answer = server.api.get(&format!("{PATTERNS}?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}: {answer:?}");
    }
    assert_eq!(list(&server, "limit=1000").await, fewer, "what was refused changed nothing");
    server.stop().await;
}
