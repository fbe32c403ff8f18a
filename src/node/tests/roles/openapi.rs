//! `/openapi.json` against the server: both ways, every address with its methods, every answer with its status.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use hebb_api::RateLimitSpec;
use hebb_engine::{PartitionConfig, Task};
use hebb_log::{Directory, Domain, LocalStore};
use hebb_node::{Access, ClusterSettings, Identity, Store, run_gateway, stop_channel};
use reqwest::{Client, Method};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::Server;
use crate::support::{Api, free_address, settings};

/// Address as documented, method, status.
type Seen = BTreeSet<(String, String, u16)>;

const EVENT: &str = r#"{"id":"e1","features":[1,2],"label":"up"}"#;
const QUESTION: &str = r#"{"features":[1,2]}"#;
const LABEL: &str = r#"{"id":"e1","label":"up"}"#;
const SIGNAL: &str = r#"{"id":"s1","signal":[0,1,4,1,0]}"#;
const VECTOR: &str = r#"{"id":"v1","domain":"kept","vector":[1,2],"moral_value":0.9}"#;
const BATCH: &str = r#"{"signals":[[0,1,4,1,0]]}"#;
const MERGE: &str = r#"{"similarity":0.95}"#;
const ARCHIVE: &str = r#"{"ids":[0]}"#;
const RESET: &str = r#"{"confirm":"d"}"#;
/// What writes, and what it takes.
const WRITES: [(&str, &str, &str); 9] = [
    ("infer-and-adapt", "d", EVENT),
    ("infer", "d", QUESTION),
    ("feedback", "d", LABEL),
    ("perceive", "shapes", SIGNAL),
    ("patterns:merge", "shapes", MERGE),
    ("patterns:archive", "shapes", ARCHIVE),
    ("patterns:restore", "shapes", ARCHIVE),
    ("reset", "d", RESET),
    ("perceive:batch", "shapes", BATCH),
];
/// What reads, and of which domain.
const READS: [(&str, &str); 4] = [
    ("/v1/domains", "d"),
    ("/v1/domains/{domain}", "d"),
    ("/v1/domains/{domain}/patterns", "shapes"),
    ("/v1/domains/{domain}/events/{id}", "d"),
];

/// One server, and what it has answered.
struct Probe {
    client: Client,
    address: SocketAddr,
}

impl Probe {
    fn new(address: SocketAddr) -> Self {
        Self { client: Client::new(), address }
    }

    async fn ask(&self, method: &str, path: &str, domain: &str, id: &str, body: &str) -> (String, String, u16) {
        let place = path.replace("{domain}", domain).replace("{id}", id);
        let wanted = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let request = self.client.request(wanted, format!("http://{}{place}", self.address)).body(body.to_owned());
        let status = request.send().await.unwrap().status().as_u16();
        let path = path.split('?').next().unwrap();
        (path.to_owned(), method.to_owned(), status)
    }

    async fn write(&self, name: &str, domain: &str, body: &str) -> (String, String, u16) {
        self.ask("post", &format!("/v1/domains/{{domain}}/{name}"), domain, "", body).await
    }

    /// Everything that a key may be asked for, once.
    async fn all(&self) -> Seen {
        let mut seen = Seen::new();
        for (name, domain, body) in WRITES {
            seen.insert(self.write(name, domain, body).await);
        }
        for (path, domain) in READS {
            seen.insert(self.ask("get", path, domain, "e1", "").await);
        }
        seen.insert(self.ask("post", "/event", "", "", VECTOR).await);
        seen.insert(self.ask("get", "/state?domain=kept", "", "", "").await);
        seen
    }
}

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            found.push((path.clone(), method.clone(), operation));
        }
    }
    found
}

fn declared() -> ClusterSettings {
    settings(&[("d", Task::Classification, 1), ("shapes", Task::Patterns, 1), ("kept", Task::Governed, 1)])
}

async fn with(access: Access) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_locked(folder.path(), ClusterSettings { access, ..declared() }).await;
    (folder, server)
}

/// A gateway alone, with as many domains as there may be: nobody answers, and no event makes another domain.
async fn lonely() -> Seen {
    let store = LocalStore::in_memory().unwrap();
    for number in 0..997 {
        let config = PartitionConfig::new(Task::Classification);
        store.declare(&Domain { name: format!("d{number}"), partitions: 1, config }).await.unwrap();
    }
    for (name, task) in [("d", Task::Classification), ("shapes", Task::Patterns), ("kept", Task::Governed)] {
        let domain = Domain { name: name.to_owned(), partitions: 1, config: PartitionConfig::new(task) };
        store.declare(&domain).await.unwrap();
    }
    let address = free_address();
    let identity = Identity { id: "alone".to_owned(), listen: address, advertise: address.to_string() };
    let (stopper, stop) = stop_channel();
    let settings = ClusterSettings { allow_undeclared_domains: true, ..settings(&[]) };
    let task = tokio::spawn(async move { run_gateway(Store::new(store), &settings, identity, stop).await });
    Api::new(address).until("/health/readiness", |answer| answer.status.is_success()).await;

    let probe = &Probe::new(address);
    let mut seen = Seen::new();
    for (name, body) in [("infer-and-adapt", EVENT), ("perceive", SIGNAL), ("perceive:batch", BATCH)] {
        seen.insert(probe.write(name, "one-more", body).await);
    }
    seen.insert(probe.ask("post", "/event", "", "", &VECTOR.replace("kept", "one-more")).await);
    let unanswered = async {
        let writes = WRITES[..8].iter().map(|(name, domain, body)| probe.write(name, domain, body));
        let reads = READS[1..].iter().map(|(path, domain)| probe.ask("get", path, domain, "e1", ""));
        let governed = [("post", "/event", VECTOR), ("get", "/state?domain=kept", "")];
        let governed = governed.map(|(method, path, body)| probe.ask(method, path, "", "", body));
        let (writes, reads, governed) = tokio::join!(join_all(writes), join_all(reads), join_all(governed));
        writes.into_iter().chain(reads).chain(governed)
    };
    let writes = WRITES
        .iter()
        .map(|(name, domain, _)| (format!("/v1/domains/{{domain}}/{name}"), format!("/v1/domains/{domain}/{name}")));
    let slow = join_all(writes.chain([("/event".to_owned(), "/event".to_owned())]).map(|(path, place)| async move {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!("POST {place} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let whole = tokio::time::timeout(Duration::from_secs(40), connection.read_to_string(&mut answer));
        whole.await.unwrap().unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        (path, "post".to_owned(), status)
    }));
    let (unanswered, slow) = tokio::join!(unanswered, slow);
    seen.extend(unanswered.chain(slow));
    stopper.stop();
    task.await.unwrap().unwrap();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_documented_and_every_documented_answer_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), declared()).await;
    let document = server.api.get("/openapi.json").await.body;
    let operations = operations(&document);
    // Generated clients name their functions by it.
    let ids: BTreeSet<_> =
        operations.iter().map(|(.., operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len(), "two operations of one id: {ids:?}");
    let probe = Probe::new(server.address);

    for (path, _, _) in &operations {
        for method in ["get", "post", "put", "delete", "patch"] {
            let known = operations.iter().any(|(other, name, _)| other == path && name == method);
            let (.., status) = probe.ask(method, path, "d", "e1", "").await;
            assert_eq!(status == 405, !known, "{method} {path} gets {status}");
        }
    }

    let mut seen = probe.all().await;
    let open = ["/openapi.json", "/metrics", "/health", "/health/liveness", "/health/readiness"];
    for path in open.into_iter().chain(["/health/metrics", "/health/detailed"]) {
        seen.insert(probe.ask("get", path, "", "", "").await);
    }
    for (path, method, _) in operations.iter().filter(|(_, method, _)| method == "post") {
        let place = path.replace("{domain}", "d");
        let request =
            probe.client.post(format!("http://{}{place}", probe.address)).header("sec-fetch-site", "cross-site");
        seen.insert((path.clone(), method.clone(), request.send().await.unwrap().status().as_u16()));
    }
    let large = " ".repeat((1 << 20) + 1);
    for (name, domain, body) in WRITES {
        seen.insert(probe.write(name, "No_Name", body).await);
        seen.insert(probe.write(name, "nowhere", body).await);
        seen.insert(probe.write(name, domain, "[").await);
        seen.insert(probe.write(name, domain, &large).await);
    }
    for (name, domain, body) in [
        ("infer-and-adapt", "d", r#"{"features":[]}"#),
        ("infer", "d", EVENT),
        ("feedback", "d", r#"{"id":"e1","label":0.5}"#),
        ("perceive", "shapes", r#"{"signal":[1]}"#),
        ("patterns:merge", "shapes", r#"{"ids":[]}"#),
        ("patterns:archive", "shapes", r#"{"ids":[]}"#),
        ("patterns:restore", "shapes", r#"{"ids":[]}"#),
        ("reset", "d", r#"{"confirm":"e"}"#),
        ("perceive:batch", "shapes", r#"{"signals":[]}"#),
    ] {
        seen.insert(probe.write(name, domain, body).await);
    }
    for (path, _) in &READS[1..] {
        seen.insert(probe.ask("get", path, "No_Name", "e1", "").await);
        seen.insert(probe.ask("get", path, "nowhere", "e1", "").await);
    }
    seen.insert(probe.ask("get", READS[2].0, "d", "", "").await);
    seen.insert(probe.ask("get", READS[3].0, "d", "never", "").await);
    seen.insert(probe.ask("get", READS[3].0, "d", &"x".repeat(257), "").await);
    seen.insert(probe.ask("get", "/v1/domains/{domain}/events/{id}?key=", "d", "e1", "").await);
    seen.insert(probe.ask("get", "/v1/domains/{domain}/patterns?limit=1001", "shapes", "", "").await);
    let governed = |from: &str, to: &str| VECTOR.replace(from, to);
    for body in ["[".to_owned(), large, governed("kept", "No_Name"), governed("kept", "nowhere"), governed("0.9", "2")]
    {
        seen.insert(probe.ask("post", "/event", "", "", &body).await);
    }
    for query in ["?domain=No_Name", "?domain=nowhere", "?domain=d"] {
        seen.insert(probe.ask("get", &format!("/state{query}"), "", "", "").await);
    }
    server.stop().await;

    let (folder, server) = with(Access { api_keys: Some(PathBuf::from("/dev/null")), ..Access::default() }).await;
    seen.extend(Probe::new(server.address).all().await);
    server.stop().await;
    drop(folder);

    let limit = RateLimitSpec { requests_per_second: 1, burst: Some(1), tiers: Vec::new() };
    let (folder, server) = with(Access { rate_limit: Some(limit), ..Access::default() }).await;
    let probe = Probe::new(server.address);
    // Paid for in a hundred seconds.
    let batch = format!(r#"{{"signals":[{}]}}"#, vec!["[0,1,4,1,0]"; 100].join(","));
    probe.write("perceive:batch", "shapes", &batch).await;
    seen.extend(probe.all().await);
    server.stop().await;
    drop(folder);

    seen.extend(lonely().await);

    let documented: Seen = operations
        .iter()
        .flat_map(|(path, method, operation)| {
            let statuses = operation["responses"].as_object().unwrap().keys();
            statuses.map(|status| (path.clone(), method.clone(), status.parse().unwrap()))
        })
        .collect();
    let undocumented: Vec<_> = seen.difference(&documented).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
    // Nodes of two versions, a store that is away, two thousand requests at once: not in one process and a minute.
    let hard = |path: &str, status: u16| {
        status == 502
            || (status == 503 && ["/v1/domains", "/health", "/health/readiness"].contains(&path))
            || (status == 503 && path.ends_with("perceive:batch"))
    };
    let missing: Vec<_> = documented.difference(&seen).filter(|(path, _, status)| !hard(path, *status)).collect();
    assert!(missing.is_empty(), "documented and never seen: {missing:?}");
}
