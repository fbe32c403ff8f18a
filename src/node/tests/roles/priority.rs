//! Queues that fill up: who finds room by its priority. Nobody owns the partition, so that nothing is applied.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hebb_api::{Priority, RateLimitSpec, TierSpec};
use hebb_engine::{PartitionConfig, Task};
use hebb_log::{Directory, Domain, LocalStore};
use hebb_node::gateway::KeyLine;
use hebb_node::{Access, ClusterSettings, Stopper, Store, run_gateway, stop_channel};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::handover::identity;
use crate::support::{Api, settings};

const QUEUE_MAX: u64 = 20;
const EVENT: &str = r#"{"features":[1,2]}"#;
const LABEL: &str = r#"{"id":"e1","label":"up"}"#;

/// A gateway alone.
struct Lonely {
    url: String,
    client: Client,
    api: Api,
    // Asks for the stop when it is dropped.
    _stopper: Stopper,
}

impl Lonely {
    async fn start(access: Access) -> Self {
        let store = LocalStore::in_memory().unwrap();
        let config = PartitionConfig::new(Task::Classification);
        store.declare(&Domain { name: "d".to_owned(), partitions: 1, config }).await.unwrap();
        let identity = identity("alone");
        let (url, api) = (format!("http://{}/v1/domains/d", identity.listen), Api::new(identity.listen));
        let (stopper, stop) = stop_channel();
        let settings = ClusterSettings { access, max_queue_size: QUEUE_MAX, ..settings(&[]) };
        tokio::spawn(async move { run_gateway(Store::new(store), &settings, identity, stop).await });
        api.until("/health/readiness", |answer| answer.status.is_success()).await;
        Self { url, client: Client::new(), api, _stopper: stopper }
    }

    fn post(&self, place: &str, body: &str, priority: Option<&str>) -> RequestBuilder {
        let request = self.client.post(format!("{}/{place}", self.url)).body(body.to_owned());
        match priority {
            Some(priority) => request.header("Hebb-Priority", priority),
            None => request,
        }
    }

    async fn count(&self, metric: &str, priority: &str) -> u64 {
        let text = self.api.get("/metrics").await.body;
        let line = format!("{metric}{{priority=\"{priority}\"}} ");
        let value = text.as_str().unwrap().lines().find_map(|found| found.strip_prefix(&line));
        value.unwrap().parse().unwrap()
    }

    /// Sends thirty of a kind and says how many found room, once all of them have or were refused.
    async fn thirty(&self, place: &str, body: &str, wish: Option<&str>, counted_as: &str) -> u64 {
        let all = (0..30).map(|_| self.post(place, body, wish).send());
        let counted = async {
            let started = Instant::now();
            loop {
                let appended = self.count("hebb_queue_appended_total", counted_as).await;
                if appended + self.count("hebb_queue_refused_total", counted_as).await == 30 {
                    return appended;
                }
                assert!(started.elapsed() < Duration::from_secs(8), "thirty were sent as {counted_as}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Who found room waits for an owner.
        tokio::select! {
            appended = counted => appended,
            answers = join_all(all) => panic!("{answers:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_find_room_in_a_queue_that_a_bulk_load_has_filled() {
    let gateway = Lonely::start(Access::default()).await;
    assert_eq!(gateway.thirty("infer-and-adapt", EVENT, Some("low"), "low").await, QUEUE_MAX / 2);
    assert_eq!(gateway.thirty("infer", EVENT, None, "normal").await, QUEUE_MAX / 2 - 1);
    let refused = gateway.post("infer-and-adapt", EVENT, None).send().await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    let body: Value = refused.json().await.unwrap();
    let message = "19 entries are waiting for this partition, 19 are allowed to normal priority";
    assert_eq!(body["error"], json!({ "code": "queue_full", "message": message }));
    assert_eq!(gateway.thirty("feedback", LABEL, None, "high").await, 1, "the last place is for a label");
    let full = gateway.post("infer-and-adapt", EVENT, Some("high")).send().await.unwrap();
    assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS, "the bound is the same for everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_that_is_none_is_refused_wherever_it_is_read() {
    let gateway = Lonely::start(Access::default()).await;
    for place in ["infer-and-adapt", "infer", "feedback", "perceive", "perceive:batch"] {
        for wish in ["urgent", "HIGH", ""] {
            let answer = gateway.post(place, EVENT, Some(wish)).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{place} {wish:?}");
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["error"]["code"], json!("bad_priority"));
        }
        let twice = gateway.post(place, EVENT, Some("low")).header("Hebb-Priority", "high").send().await.unwrap();
        assert_eq!(twice.status(), StatusCode::BAD_REQUEST, "{place}");
    }
    assert_eq!(gateway.count("hebb_queue_appended_total", "normal").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_of_a_key_bounds_what_its_requests_may_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let (key, line) = KeyLine::new("bulk", Some("bulk")).unwrap();
    std::fs::write(folder.path().join("clients"), line.to_string()).unwrap();
    let bulk = TierSpec {
        name: "bulk".to_owned(),
        requests_per_second: 1_000,
        burst: None,
        max_priority: Some(Priority::Low),
    };
    let rate_limit = Some(RateLimitSpec { tiers: vec![bulk], ..RateLimitSpec::default() });
    let access = Access { api_keys: Some(folder.path().to_owned()), rate_limit, unlimited: false };
    let gateway = Lonely::start(access).await;
    let label = gateway.post("feedback", LABEL, Some("high")).bearer_auth(&key).send();
    let counted = async {
        while gateway.count("hebb_queue_appended_total", "low").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = counted => {}
        answer = label => panic!("{answer:?}"),
    }
    assert_eq!(gateway.count("hebb_queue_appended_total", "high").await, 0);
}
