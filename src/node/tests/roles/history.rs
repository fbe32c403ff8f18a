//! What was measured outlives the process that measured it, and the coordinator that led.

use std::time::{Duration, Instant};

use hebb_engine::Task;
use hebb_log::{Batch, Directory, History, LocalStore, Samples, SqliteHistory, Tier};
use hebb_node::{Identity, Stopper, Store, run_coordinator, stop_channel};
use reqwest::StatusCode;
use serde_json::Value;

use crate::backups::Redis;
use crate::server::Server;
use crate::support::{Answer, Api, event, free_address, settings};

const LAG: &str = "/api/v1/history?metric=lag&hours=1";

fn beginnings(answer: &Answer) -> Vec<u64> {
    answer.body["points"].as_array().into_iter().flatten().filter_map(|point| point[0].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_the_history() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || Server::start(directory.path(), settings(&[("d", Task::Classification, 1)])).await;
    let server = start().await;
    for number in 0..20 {
        server.api.insist("d", &event(number)).await;
    }
    let told = |answer: &Answer| answer.body["points"].as_array().is_some_and(|points| !points.is_empty());
    let measured = server.status.until(LAG, told).await;
    let begun = Instant::now();
    let rate = loop {
        let refused = server.api.post("/v1/domains/d/infer", &Value::Null).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        let rate = server.status.get("/api/v1/history?metric=success_rate").await;
        if rate.body["summary"]["min"].as_f64().is_some_and(|least| least < 1.0) {
            break rate;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{rate:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(rate.body["summary"]["max"].as_f64().is_some_and(|most| most <= 1.0), "{rate:?}");
    server.stop().await;

    let first = beginnings(&measured)[0];
    tokio::time::sleep(Duration::from_millis(100)).await;
    let server = start().await;
    let again = server.status.until(LAG, |answer| beginnings(answer).contains(&first)).await;
    assert_eq!(again.body["resolution_seconds"], 10);
    // Further back than the memory reaches, the store is asked.
    let week = "/api/v1/history?metric=lag&hours=168&step=3600";
    let week = server.status.until(week, |answer| answer.status == StatusCode::OK).await;
    assert_eq!(week.body["resolution_seconds"], 3600, "{week:?}");
    let too_far = server.status.get("/api/v1/history?metric=lag&hours=169").await;
    assert_eq!(too_far.status, StatusCode::BAD_REQUEST, "{too_far:?}");
    for path in ["anomalies", "trends"] {
        let found = server.status.get(&format!("/api/v1/history/{path}?hours=24")).await;
        assert!(found.status == StatusCode::OK && found.body[path].is_array(), "{found:?}");
        let unknown = server.status.get(&format!("/api/v1/history/{path}?metric=charm")).await;
        assert_eq!(unknown.status, StatusCode::BAD_REQUEST, "{unknown:?}");
    }
    server.stop().await;
}

/// What a week ago was measured, by a process that is long gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_week_is_read_and_what_is_older_is_pruned() {
    let directory = tempfile::tempdir().unwrap();
    let now = u32::try_from(jiff::Timestamp::now().as_second()).unwrap();
    let at = |hours: u32| Tier::Coarse.beginning(now - hours * 3600);
    {
        let history = SqliteHistory::open(directory.path()).await.unwrap();
        let terms = LocalStore::in_memory().unwrap();
        let term = terms.campaign("long-gone", "nowhere:1", Duration::from_secs(9)).await.unwrap().term;
        for hours in [200, 167, 100, 30] {
            let samples = Samples { count: 150, min: 1.0, max: 9.0, sum: 300.0 };
            let series = vec![("domain/d/lag".to_owned(), samples), ("domain/d/charm".to_owned(), samples)];
            history.record(term, Tier::Coarse, &Batch { at: at(hours), series }).await.unwrap();
        }
    }
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 1)])).await;
    let path = "/api/v1/history?metric=lag&domain=d&hours=168";
    let kept = server.status.until(path, |answer| beginnings(answer).len() > 3).await;
    assert_eq!(beginnings(&kept)[..3], [167, 100, 30].map(|hours| u64::from(at(hours))), "{kept:?}");
    assert_eq!(kept.body["points"][0], serde_json::json!([at(167), 2.0, 1.0, 9.0, 150]));
    server.stop().await;
    let history = SqliteHistory::open(directory.path()).await.unwrap();
    let oldest = history.read(Tier::Coarse, None, 0, now).await.unwrap().remove(0);
    assert_eq!(oldest.at, at(167));
}

/// A coordinator over Redis.
struct Leader {
    status: Api,
    _stopper: Stopper,
    task: tokio::task::JoinHandle<Result<(), hebb_node::NodeError>>,
}

impl Leader {
    fn start(store: Store, name: &str) -> Self {
        let listen = free_address();
        let identity = Identity { id: name.to_owned(), listen, advertise: listen.to_string() };
        let (stopper, stop) = stop_channel();
        let task =
            tokio::spawn(
                async move { run_coordinator(store, &settings(&[]), identity, free_address(), None, stop).await },
            );
        Self { status: Api::new(listen), _stopper: stopper, task }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_goes_on_with_the_history() {
    let redis = Redis::start().await;
    let first = Leader::start(redis.store("cluster"), "coordinator-0");
    let measured = first.status.until(LAG, |answer| !beginnings(answer).is_empty()).await;
    // It stores what it has measured when it begins to lead, and is killed before it does so again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    first.task.abort();
    let second = Leader::start(redis.store("cluster"), "coordinator-1");
    let known = beginnings(&measured)[0];
    second.status.until(LAG, |answer| beginnings(answer).first() == Some(&known)).await;
}
