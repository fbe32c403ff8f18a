//! Stops, crashes, and what is there afterwards.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use hebb_engine::Task;
use hebb_node::ClusterSettings;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::server::Server;
use crate::support::{Api, digest, event, free_address, id, settings};

const LEARN: &str = "/v1/domains/d/infer-and-adapt";
/// Where the child of the test of a killed process keeps its data, and where it listens.
const CHILD_DIRECTORY: &str = "HEBB_TEST_CHILD_DIRECTORY";
const CHILD_ADDRESS: &str = "HEBB_TEST_CHILD_ADDRESS";

fn two_partitions() -> ClusterSettings {
    settings(&[("d", Task::Classification, 2)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_everything_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = None;
    for round in 0..3 {
        let server = Server::start(directory.path(), two_partitions()).await;
        if let Some(before) = &before {
            assert_eq!(&server.api.counts("d").await, before, "round {round}");
        }
        for number in round * 100..(round + 1) * 100 {
            server.api.insist("d", &event(number)).await;
        }
        let (retried, _) = server.api.insist("d", &event(5)).await;
        assert_eq!(retried["duplicate"], json!(true), "ids are remembered over a restart");
        before = Some(server.api.counts("d").await);
        server.stop().await;
    }
    let before = before.unwrap();
    let ids: Vec<String> = (0..300).map(id).collect();
    assert_eq!((&before["events"], &before["appliedDigest"]), (&json!(300), &json!(digest(&ids))), "{before}");
    assert!(before["accuracy"].as_f64().unwrap() > 0.9, "{before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_the_requests_under_way_and_is_quick() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), two_partitions()).await;
    let requests: Vec<_> = (0..400)
        .map(|number| {
            let api = server.api.clone();
            tokio::spawn(async move { api.send(Method::POST, LEARN, event(number).to_string()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let took = server.stop().await;
    let mut answered = Vec::new();
    for (number, request) in requests.into_iter().enumerate() {
        // A connection that the server had not taken yet is refused: nothing was promised.
        if let Ok(answer) = request.await.unwrap() {
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            answered.push(id(number));
        }
    }
    assert!(took < Duration::from_secs(5), "the stop took {took:?}");
    let server = Server::start(directory.path(), two_partitions()).await;
    let counts = server.api.counts("d").await;
    assert_eq!(counts["appliedDigest"], json!(digest(&answered)), "{} answered, {counts}", answered.len());
    server.stop().await;
}

/// Sends events until `crash` was called in their midst; the numbers of the acknowledged ones.
async fn load_until_the_crash(api: &Api, crash: impl FnOnce()) -> Vec<usize> {
    let mut crash = Some(crash);
    let mut acknowledged = Vec::new();
    let mut answers = stream::iter(0..2_000)
        .map(|number| async move { (number, api.send(Method::POST, LEARN, event(number).to_string()).await) })
        .buffer_unordered(16);
    while let Some((number, answer)) = answers.next().await {
        if let Ok(answer) = answer
            && answer.status == StatusCode::OK
        {
            acknowledged.push(number);
        }
        if acknowledged.len() >= 300
            && let Some(crash) = crash.take()
        {
            crash();
        }
    }
    acknowledged
}

/// Everything acknowledged is there, and what is sent again is applied once.
async fn check_after_the_crash(directory: &Path, acknowledged: Vec<usize>) {
    assert!((300..2_000).contains(&acknowledged.len()), "{} acknowledged", acknowledged.len());
    let server = Server::start(directory, two_partitions()).await;
    let found = server.api.counts("d").await["events"].as_u64().unwrap() as usize;
    assert!(found >= acknowledged.len() && found <= acknowledged.len() + 16, "{found} of {}", acknowledged.len());
    for number in &acknowledged {
        let event = server.api.get(&format!("/v1/domains/d/events/{}", id(*number))).await;
        assert_eq!(event.status, StatusCode::OK, "{number} was acknowledged: {event:?}");
    }
    let api = &server.api;
    let again = stream::iter(0..2_000).map(|number| async move { api.insist("d", &event(number)).await });
    let duplicates = again.buffer_unordered(16).filter(|(answer, _)| std::future::ready(answer["duplicate"] == true));
    assert_eq!(duplicates.count().await, found);
    let ids: Vec<String> = (0..2_000).map(id).collect();
    let counts = api.counts("d").await;
    assert_eq!((&counts["events"], &counts["appliedDigest"]), (&json!(2_000), &json!(digest(&ids))), "{counts}");
    server.stop().await;
}

#[test]
fn tasks_that_end_in_the_middle_lose_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let server = servers.block_on(Server::start(directory.path(), two_partitions()));
    let acknowledged = clients.block_on(load_until_the_crash(&server.api, || servers.shutdown_background()));
    drop(server);
    clients.block_on(check_after_the_crash(directory.path(), acknowledged));
}

/// A process that is killed at the latest when the test ends.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server in a process of its own. A write beyond a limit of its files is an error there, and no signal.
async fn start_apart(directory: &Path) -> (Killed, Api) {
    let address = free_address();
    let child = Command::new("sh")
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "restart::the_process_that_is_killed"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_ADDRESS, address.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let api = Api::new(address);
    api.until("/v1/domains/d", |answer| answer.status == StatusCode::OK).await;
    (Killed(child), api)
}

/// How large a file the process may write, as a full disk would say.
fn limit_files(child: &Killed, bytes: &str) {
    let id = child.0.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &id, &format!("--fsize={bytes}:unlimited")]).status().unwrap();
    assert!(limited.success(), "prlimit: {limited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_full_loses_nothing_acknowledged_and_needs_no_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, api) = start_apart(directory.path()).await;
    for number in 0..50 {
        api.insist("d", &event(number)).await;
    }
    limit_files(&child, "4096");
    let refused = api.send(Method::POST, LEARN, event(50).to_string()).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    limit_files(&child, "unlimited");
    for number in 50..100 {
        api.insist("d", &event(number)).await;
    }
    child.kill();
    let server = Server::start(directory.path(), two_partitions()).await;
    let ids: Vec<String> = (0..100).map(id).collect();
    let counts = server.api.counts("d").await;
    assert_eq!((&counts["events"], &counts["appliedDigest"]), (&json!(100), &json!(digest(&ids))), "{counts}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, api) = start_apart(directory.path()).await;
    let acknowledged = load_until_the_crash(&api, || child.kill()).await;
    check_after_the_crash(directory.path(), acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of other tests here, which run it as a process of its own"]
async fn the_process_that_is_killed() {
    let (Ok(directory), Ok(address)) = (std::env::var(CHILD_DIRECTORY), std::env::var(CHILD_ADDRESS)) else {
        return;
    };
    let started = Instant::now();
    let server = Server::start_at(Path::new(&directory), two_partitions(), address.parse().unwrap()).await;
    tokio::time::sleep(Duration::from_secs(120).saturating_sub(started.elapsed())).await;
    server.stop().await;
}
