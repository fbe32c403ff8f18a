//! What a page in somebody's browser can do here: nothing for another site, and nothing under a name that leads to this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hebb_engine::Task;
use hebb_node::gateway::KeyLine;
use hebb_node::{Access, ClusterSettings};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::{free_address, settings};

const LEARN: &str = "/v1/domains/d/infer-and-adapt";

fn declared() -> ClusterSettings {
    settings(&[("d", Task::Classification, 1)])
}

async fn send(method: Method, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    let body = json!({"features": [1, 2], "label": "up"}).to_string();
    let request = Client::new().request(method, format!("http://{address}{path}")).body(body);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

async fn refused(answer: Response) -> (u16, Value) {
    (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["error"]["code"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_teaches_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), declared()).await;
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example"), ("content-type", "text/plain")];
    for path in [LEARN, "/v1/domains/d/feedback", "/v1/domains/new/perceive", "/event"] {
        let answer = refused(send(Method::POST, server.address, path, &foreign).await).await;
        assert_eq!(answer, (403, json!("cross_site")), "{path}");
        // A browser that doesn't say of which site a page is says where it comes from.
        let answer = refused(send(Method::POST, server.address, path, &foreign[1..]).await).await;
        assert_eq!(answer, (403, json!("cross_site")), "{path}");
    }
    let boost = "/api/v4/meta-learning/boost";
    for (method, path) in [(Method::PUT, "/api/v1/alerts"), (Method::POST, boost)] {
        let answer = refused(send(method, server.coordinator, path, &foreign).await).await;
        assert_eq!(answer, (403, json!("cross_site")), "{path}");
    }
    let answer = refused(send(Method::POST, server.meta_address, boost, &foreign).await).await;
    assert_eq!(answer, (403, json!("cross_site")));
    assert_eq!(server.api.get("/v1/domains/d").await.body["events"], json!(0), "something was learned");
    assert_eq!(server.api.get("/v1/domains").await.body["domains"].as_array().map(Vec::len), Some(1));

    for own in [&[("sec-fetch-site", "same-origin")][..], &[("sec-fetch-site", "none")], &[]] {
        assert_eq!(send(Method::POST, server.address, LEARN, own).await.status(), StatusCode::OK);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_this_machine_alone_answers_to_its_names_only() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), declared()).await;
    for (address, path) in [
        (server.address, "/v1/domains"),
        (server.address, "/metrics"),
        (server.coordinator, "/api/v1/status"),
        (server.coordinator, "/"),
        (server.meta_address, "/health"),
        (server.worker_address, "/metrics"),
    ] {
        for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"] {
            let answer = refused(send(Method::GET, address, path, &[("host", host)]).await).await;
            assert_eq!(answer, (421, json!("wrong_host")), "{path} of {host}");
        }
        for host in ["localhost", "localhost:9", "[::1]:9"] {
            assert_eq!(
                send(Method::GET, address, path, &[("host", host)]).await.status(),
                StatusCode::OK,
                "{path} of {host}"
            );
        }
    }
    let answer = refused(send(Method::POST, server.address, LEARN, &[("host", "evil.example")]).await).await;
    assert_eq!(answer, (421, json!("wrong_host")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_and_on_other_addresses_the_host_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let (key, line) = KeyLine::new("alice", None).unwrap();
    let file: PathBuf = folder.path().join("keys");
    std::fs::write(&file, format!("{line}\n")).unwrap();
    let access = Access { api_keys: Some(file), unlimited: true, ..Access::default() };
    let server = Server::start_locked(&folder.path().join("a"), ClusterSettings { access, ..declared() }).await;
    let bearer = format!("Bearer {key}");
    // A browser adds no key by itself: whoever has one may use it from any page.
    let with_key = [("authorization", bearer.as_str()), ("host", "hebb.example"), ("sec-fetch-site", "cross-site")];
    // Nobody has waited for the domain yet: to ask for it takes the key.
    let since = Instant::now();
    while send(Method::GET, server.address, "/v1/domains/d", &with_key).await.status() != StatusCode::OK {
        assert!(since.elapsed() < Duration::from_secs(30), "the domain never answers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let learned = send(Method::POST, server.address, LEARN, &with_key).await;
    assert_eq!(learned.status(), StatusCode::OK, "{:?}", learned.text().await);
    server.stop().await;

    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, free_address().port()));
    let server = Server::start_at(&folder.path().join("b"), declared(), everywhere).await;
    let answer = send(Method::GET, server.address, "/v1/domains", &[("host", "demo-gateway.default.svc")]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    server.stop().await;
}
