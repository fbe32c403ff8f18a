//! Bodies that nobody wants: too large, or sent to where none is read. The client learns why, whatever it was sending.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures::{StreamExt, stream};
use hebb_engine::{EntryId, Task};
use hebb_log::{LocalStore, PartitionKey};
use hebb_node::{Store, stop_channel};
use reqwest::{Body, Client, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::handover::{Worker, front_end, identity};
use crate::server::Server;
use crate::support::{Api, settings};

/// More than the sockets of both sides hold, so that the client is still sending when the bound is passed.
const LARGE: usize = 8 << 20;
const ROUNDS: usize = 100;

fn spaces() -> &'static [u8] {
    Vec::leak(vec![b' '; LARGE])
}

async fn post(client: &Client, address: SocketAddr, path: &str, body: Body) -> Response {
    client.post(format!("http://{address}{path}")).body(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_bound_is_refused_with_a_reason_every_time() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 1)])).await;
    let (address, body) = (server.address, spaces());
    let client = Client::new();
    let paths = ["infer-and-adapt", "infer", "feedback", "perceive"].map(|name| format!("/v1/domains/d/{name}"));
    let answers = stream::iter(0..ROUNDS).map(|round| {
        let (client, path) = (client.clone(), paths[round % paths.len()].clone());
        async move {
            // With a length, and in chunks without one.
            let body = match round % 2 {
                0 => Body::from(body),
                _ => Body::wrap_stream(stream::iter(body.chunks(1 << 16).map(Ok::<_, std::io::Error>))),
            };
            let answer = post(&client, address, &path, body).await;
            let head = (answer.status(), answer.headers().get("connection").cloned());
            (head, answer.json::<Value>().await.unwrap())
        }
    });
    for ((status, connection), body) in answers.buffer_unordered(4).collect::<Vec<_>>().await {
        assert_eq!(
            (status, body["error"]["code"].as_str()),
            (StatusCode::PAYLOAD_TOO_LARGE, Some("too_large")),
            "{body}"
        );
        assert_eq!(connection.unwrap(), "close");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_no_route_reads_hides_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[])).await;
    let (gateway, body) = (server.address, spaces());
    let client = Client::new();
    for _ in 0..ROUNDS / 4 {
        for (path, status) in [("/v1/domains", 405), ("/nowhere", 404), ("/v1/domains/No_Name/infer", 413)] {
            let answer = post(&client, gateway, path, Body::from(body)).await;
            assert_eq!(answer.status().as_u16(), status, "{path}");
        }
        let answer = post(&client, server.coordinator, "/api/v1/status", Body::from(body)).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_over_the_bound_ends_its_stream_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 1)])).await;
    for _ in 0..ROUNDS / 4 {
        let lines = format!("{{\"features\":[1],\"label\":\"up\"}}\n{}", " ".repeat(LARGE));
        let answers = server.stream("d", lines).await;
        assert_eq!(answers.len(), 2, "{answers:?}");
        assert_eq!((&answers[0]["learned"], &answers[1]["error"]["code"]), (&true.into(), &"too_large".into()));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[])).await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let head =
        format!("POST /nowhere HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: {LARGE}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    server.stop().await;
}

/// Streams of large lines to a partition that nobody owns: the gateway takes up what it has room for, and everything is
/// answered once there is an owner.
#[tokio::test(flavor = "multi_thread")]
async fn streams_slow_down_when_there_is_no_room_for_their_lines() {
    const STREAMS: usize = 12;
    const LINES: usize = 12;
    let store = Store::new(LocalStore::in_memory().unwrap());
    let (gateway, coordinator) = (identity("gateway"), identity("coordinator"));
    let address = gateway.listen;
    let (stopper, stop) = stop_channel();
    let settings = settings(&[("d", Task::Classification, 1)]);
    let front = tokio::spawn(front_end(store.clone(), settings, gateway, coordinator, stop));
    Api::new(address).until("/v1/domains", |answer| answer.body["domains"][0]["name"] == "d").await;

    let words: serde_json::Map<String, Value> =
        (0..3_900).map(|number| (number.to_string(), Value::String("x".repeat(256)))).collect();
    let line = Bytes::from(format!("{}\n", serde_json::json!({ "features": words })));
    assert!(line.len() > 1_000_000 && line.len() <= 1 << 20, "{}", line.len());
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let lines = stream::iter(vec![line.clone(); LINES]).map(Ok::<_, std::io::Error>);
            let request = Client::new()
                .post(format!("http://{address}/v1/domains/d/infer-and-adapt"))
                .header("content-type", "application/x-ndjson")
                .body(Body::wrap_stream(lines));
            tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() })
        })
        .collect();
    let key = PartitionKey { domain: "d".to_owned(), index: 0 };
    // What hears no answer is sent again, so that requests are counted and not entries.
    let (mut requests, mut position, mut since) = (BTreeSet::new(), EntryId::default(), Instant::now());
    while requests.is_empty() || since.elapsed() < Duration::from_millis(1_500) {
        for (id, record) in store.log.read(&key, position, 8, Duration::from_millis(100)).await.unwrap() {
            position = id;
            if requests.insert(record.reply_to.unwrap().request) {
                since = Instant::now();
            }
        }
    }
    // Of 64 MiB lines have three quarters.
    assert!((40..=50).contains(&requests.len()), "{} lines of 1 MiB are under way", requests.len());
    let worker = Worker::start(&store, "worker-0");
    for stream in streams {
        let answers = stream.await.unwrap();
        assert_eq!(answers.lines().count(), LINES, "{answers}");
    }
    worker.stop().await;
    stopper.stop();
    front.await.unwrap();
}

/// A connection whose client takes in little that it doesn't read, with a stream begun on it.
async fn small(address: SocketAddr, domain: &str, framing: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut connection = socket.connect(address).await.unwrap();
    let head = format!(
        "POST /v1/domains/{domain}/infer-and-adapt HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/x-ndjson\r\n{framing}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_their_answers_are_hung_up_on_when_others_need_the_room() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Regression, 1)])).await;
    // Answered at once, with a message that is longer than the line.
    let line = format!("{{\"features\":[1],\"label\":\"{}\"}}\n", "x".repeat(16 << 10));
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let (hung_up, mut cut) = tokio::sync::mpsc::channel(64);
    let lazy: Vec<_> = (0..48)
        .map(|_| {
            let (address, chunk, hung_up) = (server.address, chunk.clone(), hung_up.clone());
            tokio::spawn(async move {
                let mut connection = small(address, "d", "transfer-encoding: chunked").await;
                connection.write_all(chunk.as_bytes()).await.unwrap();
                let mut begun = [0; 12];
                connection.read_exact(&mut begun).await.unwrap();
                assert_eq!(&begun, b"HTTP/1.1 200");
                while connection.write_all(chunk.as_bytes()).await.is_ok() {}
                hung_up.send(()).await.unwrap();
            })
        })
        .collect();
    let given_up = tokio::time::timeout(Duration::from_secs(40), cut.recv()).await;
    assert!(given_up.is_ok(), "all of them keep their room");
    let others = server.stream("d", "{\"features\":[1],\"label\":0.5}\n".repeat(3));
    let answers = tokio::time::timeout(Duration::from_secs(60), others).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| answer["learned"] == true).count(), 3, "{answers:?}");
    for client in lazy {
        client.abort();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_some_thousand_lines_before_it_reads_is_answered() {
    const LINES: usize = 2_000;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), settings(&[("d", Task::Classification, 1)])).await;
    let lines: String = (0..LINES)
        .map(|number| format!("{{\"id\":\"line-{number}\",\"features\":[{}],\"label\":\"up\"}}\n", number % 10))
        .collect();
    let mut connection = small(server.address, "d", &format!("content-length: {}", lines.len())).await;
    connection.write_all(lines.as_bytes()).await.unwrap();
    let mut answers = String::new();
    let read = connection.read_to_string(&mut answers);
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap().unwrap();
    assert_eq!(answers.matches("\"learned\":true").count(), LINES);
    server.stop().await;
}
