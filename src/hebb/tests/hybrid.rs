//! Several processes that are everything each, over one Redis.

mod process;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::{Running, free_port};
use serde_json::Value;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Everything has started within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, and the port of its status API.
fn start(redis: u16, folder: &Path, more: &[&str]) -> Result<(Running, u16)> {
    let port = free_port()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
    command.current_dir(folder).args(["start", "--workers", "1", "--redis", &format!("redis://127.0.0.1:{redis}")]);
    command.args(["--coordinator-port", &port.to_string()]);
    for option in ["--port", "--worker-port", "--meta-port"] {
        command.args([option, &free_port()?.to_string()]);
    }
    let child = command.args(more).stderr(std::fs::File::create(folder.join(format!("{port}.log")))?).spawn()?;
    Ok((Running(child), port))
}

#[tokio::test]
async fn two_processes_over_one_redis_are_two_and_one_of_them_leads() -> Result {
    let folder = tempfile::tempdir()?;
    let redis = free_port()?;
    let server = Command::new("redis-server")
        .args(["--port", &redis.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let _server = Running(server);
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", redis)).is_err() {
        assert!(started.elapsed() < PATIENCE, "Redis doesn't listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_unnamed, first) = start(redis, folder.path(), &[])?;
    let (_named, second) = start(redis, folder.path(), &["--id", "beside"])?;

    let client = reqwest::Client::new();
    let status = async |port: u16| -> Option<Value> {
        let answer = client.get(format!("http://127.0.0.1:{port}/api/v1/status")).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    };
    let worker_ids = |status: &Value| -> Vec<String> {
        let workers = status["workers"].as_array().into_iter().flatten();
        workers.filter_map(|worker| Some(worker["id"].as_str()?.to_owned())).collect()
    };
    let started = Instant::now();
    loop {
        let both = (status(first).await, status(second).await);
        if let (Some(one), Some(other)) = &both
            && worker_ids(one).len() == 2
            && (&one["leader"], &one["term"]) == (&other["leader"], &other["term"])
        {
            let ids = worker_ids(one);
            assert!(ids.contains(&"beside".to_owned()) && ids.iter().any(|id| id.starts_with("hybrid-")), "{ids:?}");
            assert!(ids.iter().any(|id| one["leader"] == id.as_str()), "{one}");
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{both:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Who leads says so; the other one doesn't.
    let mut leaders = 0;
    for port in [first, second] {
        let metrics = client.get(format!("http://127.0.0.1:{port}/metrics")).send().await?.text().await?;
        leaders += metrics.lines().filter(|line| *line == "hebb_coordinator_leads 1").count();
    }
    assert_eq!(leaders, 1);
    Ok(())
}
