//! compose.yaml without a container engine: its commands with its variables as plain processes over a real Redis.

mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::{Running, free_port};
use serde::Deserialize;
use serde_json::{Value, json};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Events that are sent.
const EVENTS: usize = 300;
/// Everything has started within this time.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Service {
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn service<'a>(compose: &'a Compose, name: &str) -> Result<&'a Service> {
    compose.services.get(name).ok_or_else(|| format!("compose.yaml has no service {name}").into())
}

/// A value as compose fills it in where nobody has set the variable.
fn filled(value: &str) -> String {
    let default =
        value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).and_then(|rest| rest.split_once(":-"));
    default.map_or(value, |(_, default)| default).to_owned()
}

/// Starts a service on ports of its own; hosts of the composition are this one.
fn start(service: &Service, ports: &BTreeMap<&str, u16>, log: &Path) -> Result<Running> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hebb"));
    command.env_clear().args(&service.command);
    for (name, value) in &service.environment {
        let value = match (name.as_str(), filled(value)) {
            ("REDIS_PORT", _) => ports["redis"].to_string(),
            (_, host) if host == "redis" => "127.0.0.1".to_owned(),
            ("COORDINATOR_HOST", _) => format!("127.0.0.1:{}", ports["coordinator"]),
            (_, value) => value,
        };
        command.env(name, value);
    }
    command.args(["--bind", "127.0.0.1", "--port", &ports["gateway"].to_string()]);
    command.args(["--coordinator-port", &ports["coordinator"].to_string(), "--worker-port", &free_port()?.to_string()]);
    command.args(["--meta-port", &free_port()?.to_string()]);
    Ok(Running(command.stderr(std::fs::File::create(log)?).spawn()?))
}

async fn until<T>(what: &str, logs: &Path, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            let mut said = format!("{what}: not within {} s", PATIENCE.as_secs());
            for entry in std::fs::read_dir(logs)?.flatten() {
                if entry.path().extension().is_some_and(|end| end == "log") {
                    said.push_str(&format!("\n{}\n{}", entry.path().display(), std::fs::read_to_string(entry.path())?));
                }
            }
            return Err(said.into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_composition_learns_and_counts_every_event_once() -> Result {
    let text = std::fs::read_to_string(root().join("compose.yaml"))?;
    // Merge keys are applied by serde_yaml on request only.
    let mut value: serde_yaml::Value = serde_yaml::from_str(&text)?;
    value.apply_merge()?;
    let compose: Compose = serde_yaml::from_value(value)?;
    let names: Vec<&str> = compose.services.keys().map(String::as_str).collect();
    assert_eq!(names, ["coordinator", "gateway", "redis", "worker"]);

    let folder = tempfile::tempdir()?;
    let ports: BTreeMap<&str, u16> =
        [("redis", free_port()?), ("coordinator", free_port()?), ("gateway", free_port()?)].into();
    let redis = service(&compose, "redis")?;
    let (program, arguments) = redis.command.split_first().ok_or("redis has no command")?;
    let redis_log = std::fs::File::create(folder.path().join("redis.log"))?;
    let _redis = Running(
        Command::new(program)
            .args(arguments)
            .args(["--port", &ports["redis"].to_string(), "--bind", "127.0.0.1"])
            .current_dir(folder.path())
            .stdout(redis_log)
            .stdin(Stdio::null())
            .spawn()?,
    );
    let mut running = Vec::new();
    for (number, name) in ["coordinator", "worker", "worker", "gateway"].into_iter().enumerate() {
        let log = folder.path().join(format!("{name}-{number}.log"));
        running.push(start(service(&compose, name)?, &ports, &log)?);
    }

    let client = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
    let status = format!("http://127.0.0.1:{}/api/v1/status", ports["coordinator"]);
    until("two workers are known", folder.path(), async || {
        let status: Value = client.get(&status).send().await.ok()?.json().await.ok()?;
        (status["workers"].as_array()?.len() == 2).then_some(())
    })
    .await?;
    let domain = format!("http://127.0.0.1:{}/v1/domains/composed", ports["gateway"]);
    for number in 0..EVENTS {
        let event = json!({"id": format!("e-{number}"), "features": [number % 7, number % 3, 1],
            "label": if number % 3 == 0 { "a" } else { "b" }});
        until("an event is acknowledged", folder.path(), async || {
            let answer = client.post(format!("{domain}/infer-and-adapt")).body(event.to_string()).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await?;
    }
    let counts: Value = client.get(&domain).send().await?.error_for_status()?.json().await?;
    assert_eq!(counts["events"], EVENTS, "{counts}");

    // The gateway is a process of its own: it keeps a copy, and that needs no worker.
    let question = json!({"features": [1, 1, 1]}).to_string();
    let latest: Value = client.post(format!("{domain}/infer")).body(question.clone()).send().await?.json().await?;
    // Both workers.
    drop(running.drain(1..=2));
    for _ in 0..20 {
        let asked = client.post(format!("{domain}/infer?consistency=Eventual")).body(question.clone());
        let answer: Value = asked.send().await?.error_for_status()?.json().await?;
        assert_eq!(answer["staleness"]["servedBy"], "copy", "{answer}");
        assert!(answer["staleness"]["ageMs"].as_f64().is_some_and(|age| age <= 1_000.0), "{answer}");
        assert_eq!((&answer["prediction"], &answer["votes"]), (&latest["prediction"], &latest["votes"]), "{answer}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
