//! What the tests of this crate share: settings, free addresses, and a client.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hebb_engine::{Governance, Hyperparameters, PartitionConfig, Task, event_digest};
use hebb_log::Domain;
use hebb_node::{Access, ClusterSettings, MetaLearning, WorkerCount};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A cluster with these domains, and no others.
pub fn settings(domains: &[(&str, Task, u32)]) -> ClusterSettings {
    let domains = domains.iter().map(|(name, task, partitions)| Domain {
        name: (*name).to_owned(),
        partitions: *partitions,
        config: PartitionConfig::new(*task),
    });
    ClusterSettings {
        name: "test".to_owned(),
        domains: domains.collect(),
        allow_undeclared_domains: false,
        hyperparameters: Hyperparameters::default(),
        governance: Governance::default(),
        max_queue_size: 100_000,
        skip_unreadable: false,
        checkpoint_interval: Duration::from_secs(1),
        sync_interval: Duration::from_secs(1),
        access: Access::default(),
        meta_learning: MetaLearning { enabled: false, interval_ms: 300_000, max_cycles: 0 },
        workers: WorkerCount::Fixed(1),
    }
}

/// An address that nobody listens on; below the ports from which the system gives some to clients.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(64) + NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, (10_000 + number % 20_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Event `number` of a stream with two classes that are far apart.
pub fn event(number: usize) -> Value {
    let (sign, label) = if number.is_multiple_of(2) { (1.0, "up") } else { (-1.0, "down") };
    let noise = (number * 7 % 11) as f64 / 50.0;
    json!({ "id": id(number), "features": [sign + noise, -sign + noise / 2.0, noise], "label": label })
}

/// The id of event `number`.
pub fn id(number: usize) -> String {
    format!("event-{number}")
}

/// What `appliedDigest` is when exactly these were applied, each once.
pub fn digest<'a>(ids: impl IntoIterator<Item = &'a String>) -> String {
    let sum = ids.into_iter().fold(0u64, |sum, id| sum.wrapping_add(event_digest(id)));
    format!("{sum:016x}")
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<String>,
    pub body: Value,
}

/// A client of one address.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
}

impl Api {
    pub fn new(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { client, base: format!("http://{address}") }
    }

    /// Any request; the error of one that no answer came to.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Result<Answer> {
        let response = self.client.request(method, format!("{}{path}", self.base)).body(body).send().await?;
        let status = response.status();
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, retry_after, body })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body.to_string()).await.unwrap()
    }

    /// The same event until it is acknowledged, and how long that took.
    pub async fn insist(&self, domain: &str, event: &Value) -> (Value, Duration) {
        let started = Instant::now();
        let path = format!("/v1/domains/{domain}/infer-and-adapt");
        loop {
            let answer = self.send(Method::POST, &path, event.to_string()).await;
            match answer {
                Ok(answer) if answer.status == StatusCode::OK => return (answer.body, started.elapsed()),
                // 404: the declared domains are known once a coordinator leads.
                Ok(answer) => assert!([404, 429, 503].contains(&answer.status.as_u16()), "{answer:?}"),
                Err(_) => {}
            }
            assert!(started.elapsed() < Duration::from_secs(40), "never acknowledged: {event}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a domain counts, without what changes with every look at it.
    pub async fn counts(&self, domain: &str) -> Value {
        let mut answer = self.get(&format!("/v1/domains/{domain}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body.as_object_mut().unwrap().remove("partitionStatistics").unwrap();
        answer.body
    }

    /// Asks until the answer is as it should be.
    pub async fn until(&self, path: &str, right: impl Fn(&Answer) -> bool) -> Answer {
        let started = Instant::now();
        loop {
            let answer = self.send(Method::GET, path, "").await;
            if let Ok(answer) = answer {
                if right(&answer) {
                    return answer;
                }
                assert!(started.elapsed() < Duration::from_secs(20), "still {answer:?}");
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{path} of {} doesn't answer", self.base);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
