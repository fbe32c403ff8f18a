//! Classes of whole signals as a user teaches them: over HTTP to `hebb start`, which is killed in between.

mod process;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::{Running, free_port};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const CLASSES: [&str; 3] = ["square", "saw", "sine"];
const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: laptop}
spec: {domains: [{name: waves, task: TimeSeriesClassification}]}
";
/// Everything has started within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers in [0, 1), the same in each run.
struct Noise(u64);

impl Noise {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    /// Noise beside a wave whose shape is the class: its period, its place and its length say nothing.
    fn signal(&mut self, class: usize) -> Value {
        let (period, phase) = (12.0 + 12.0 * self.unit(), self.unit());
        let length = 80 + (60.0 * self.unit()) as usize;
        let wave: Vec<f64> = (0..length)
            .map(|place| {
                let turn = (place as f64 / period + phase).fract();
                let value = match class {
                    0 => (2.0 * turn).floor() * 2.0 - 1.0,
                    1 => 2.0 * turn - 1.0,
                    _ => (turn * std::f64::consts::TAU).sin(),
                };
                value + 0.4 * (self.unit() - 0.5)
            })
            .collect();
        let beside: Vec<f64> = (0..length).map(|_| self.unit()).collect();
        json!([beside, wave])
    }
}

fn start(folder: &Path, port: u16) -> Result<Running> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    let child = Command::new(env!("CARGO_BIN_EXE_hebb"))
        .current_dir(folder)
        .args(["start", "-f", "cluster.yaml", "--data-dir", "data", "--port", &port.to_string()])
        .args(["--coordinator-port", &free_port()?.to_string(), "--worker-port", &free_port()?.to_string()])
        .args(["--meta-port", &free_port()?.to_string()])
        .stderr(Stdio::from(log))
        .spawn()?;
    Ok(Running(child))
}

struct Domain {
    client: Client,
    address: String,
}

impl Domain {
    async fn post(&self, operation: &str, body: String) -> Result<(StatusCode, Value)> {
        let answer = self.client.post(format!("{}/{operation}", self.address)).body(body).send().await?;
        Ok((answer.status(), answer.json().await?))
    }

    async fn ask(&self, operation: &str, body: Value) -> Result<Value> {
        match self.post(operation, body.to_string()).await? {
            (StatusCode::OK, answer) => Ok(answer),
            (status, answer) => Err(format!("{operation}: {status} {answer}").into()),
        }
    }

    /// What is counted, once the domain answers.
    async fn counts(&self) -> Result<Value> {
        let started = Instant::now();
        loop {
            if let Ok(answer) = self.client.get(&self.address).send().await
                && answer.status().is_success()
            {
                return Ok(answer.json().await?);
            }
            if started.elapsed() > PATIENCE {
                return Err("the domain doesn't answer".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn classes_of_whole_signals_are_taught_over_http_and_told_apart_after_a_crash() -> Result {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("cluster.yaml"), CLUSTER)?;
    let port = free_port()?;
    let running = start(folder.path(), port)?;
    let client = Client::builder().timeout(Duration::from_secs(15)).build()?;
    let domain = Domain { client, address: format!("http://127.0.0.1:{port}/v1/domains/waves") };
    assert_eq!(domain.counts().await?["task"], "TimeSeriesClassification");

    // A third of the lessons one by one, a third as lines, and a third whose labels come later.
    let mut noise = Noise(1);
    let first =
        domain.ask("infer-and-adapt", json!({"id": "0", "signal": noise.signal(0), "label": CLASSES[0]})).await?;
    assert_eq!((&first["prediction"], &first["path"]), (&Value::Null, &json!("cold_start")), "{first}");
    for number in 1..30 {
        let event = json!({"id": number.to_string(), "signal": noise.signal(number % 3), "label": CLASSES[number % 3]});
        let answer = domain.ask("infer-and-adapt", event).await?;
        assert_eq!(answer["learned"], true, "{answer}");
    }
    let lines: String = (30..60)
        .map(|number| {
            let event =
                json!({"id": number.to_string(), "signal": noise.signal(number % 3), "label": CLASSES[number % 3]});
            format!("{event}\n")
        })
        .collect();
    let request = domain.client.post(format!("{}/infer-and-adapt", domain.address));
    let answers = request.header("content-type", "application/x-ndjson").body(lines).send().await?.text().await?;
    for line in answers.lines() {
        let answer: Value = serde_json::from_str(line)?;
        assert_eq!(answer["learned"], true, "{answer}");
    }
    assert_eq!(answers.lines().count(), 30);
    for number in 60..90 {
        let event = json!({"id": number.to_string(), "signal": noise.signal(number % 3)});
        assert_eq!(domain.ask("infer-and-adapt", event).await?["learned"], false);
    }

    // Killed while half of the labels are still to come.
    let label = |number: usize| json!({"id": number.to_string(), "label": CLASSES[number % 3]});
    for number in 60..75 {
        assert_eq!(domain.ask("feedback", label(number)).await?["outcome"], "joined");
    }
    let question = json!({"signal": noise.signal(2)});
    let (counts, said) = (domain.counts().await?, domain.ask("infer", question.clone()).await?);
    drop(running);
    let _running = start(folder.path(), port)?;
    let again = domain.counts().await?;
    for figure in ["events", "labels", "updates", "accuracy", "appliedDigest"] {
        assert_eq!(again[figure], counts[figure], "{figure}");
    }
    assert_eq!(again["events"], 90);
    let told = domain.ask("infer", question).await?;
    assert_eq!((&told["prediction"], &told["confidence"]), (&said["prediction"], &said["confidence"]), "{told}");
    let retried = domain.ask("infer-and-adapt", json!({"id": "7", "signal": [[1], [1]], "label": "saw"})).await?;
    assert_eq!((&retried["duplicate"], &retried["learned"]), (&json!(true), &json!(false)), "{retried}");
    for number in 75..90 {
        assert_eq!(domain.ask("feedback", label(number)).await?["outcome"], "joined");
    }

    // Signals that it has never seen.
    let mut right = 0;
    for number in 0..60 {
        let answer = domain.ask("infer", json!({"signal": noise.signal(number % 3)})).await?;
        assert_eq!(answer["path"], "ensemble", "{answer}");
        right += usize::from(answer["prediction"] == CLASSES[number % 3]);
    }
    assert!(right >= 55, "{right} of 60");

    for (body, code, why) in [
        (json!({"features": [1, 2]}), StatusCode::UNPROCESSABLE_ENTITY, "send signal instead of features"),
        (json!({"signal": [1, 2]}), StatusCode::UNPROCESSABLE_ENTITY, "a signal of 2 channels, as the first had"),
        (json!({"signal": [[1, 2], [1]]}), StatusCode::UNPROCESSABLE_ENTITY, "channel 1 of the signal has 1 samples"),
        (json!({"signal": [[1], [2e15]]}), StatusCode::UNPROCESSABLE_ENTITY, "sample 0 of channel 1"),
        (json!({"signal": vec![0; 65_537]}), StatusCode::PAYLOAD_TOO_LARGE, "at most 65536"),
        (json!({"signal": "loud"}), StatusCode::BAD_REQUEST, "a list of numbers, or a list of channels"),
    ] {
        let (status, answer) = domain.post("infer", body.to_string()).await?;
        let said = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == code && said.contains(why), "{status} {answer}");
    }
    Ok(())
}
