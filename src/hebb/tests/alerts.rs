//! AlertPolicies without Kubernetes: `hebb start` tells a real sink, and a process that was killed tells nothing twice.

mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use process::{Running, free_port};
use serde_json::{Value, json};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const POLICY: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: laptop}
spec: {}
---
apiVersion: hebb.dev/v1alpha1
kind: AlertPolicy
metadata: {name: quality}
spec:
  targetRef: {name: laptop}
  interval: 5s
  rules:
    - name: confused
      expr: {indicator: accuracy, operator: LessThan, threshold: 0.9}
      severity: Critical
      annotations: {summary: '{{ target }} is wrong too often'}
  routes:
    - {receiver: hook, groupWait: 0s, matchers: [{name: severity, value: Critical}]}
    - {receiver: book, groupWait: 0s}
  receivers:
    - {name: hook, webhook: {url: 'http://SINK/', hmacSecretRef: {name: hook, key: signature}}}
    - {name: book, file: {name: book.jsonl}}
";

fn start(folder: &Path, port: u16) -> Result<Running> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    let child = Command::new(env!("CARGO_BIN_EXE_hebb"))
        .current_dir(folder)
        .args(["start", "-f", "all.yaml", "--data-dir", "data", "--port", &port.to_string()])
        .args(["--coordinator-port", &free_port()?.to_string(), "--worker-port", &free_port()?.to_string()])
        .stderr(Stdio::from(log))
        .spawn()?;
    Ok(Running(child))
}

/// Takes requests, and keeps what their heads and bodies say.
type Got = Arc<Mutex<Vec<(String, Value)>>>;

fn sink() -> Result<(String, Got)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let got = Got::default();
    let kept = got.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if let Ok(request) = take(&mut stream) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            }
        }
    });
    Ok((address, got))
}

fn take(stream: &mut TcpStream) -> Result<(String, Value)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line.to_lowercase());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    Ok((head, serde_json::from_slice(&body)?))
}

/// Labels that nothing in the features tells.
async fn learn_nonsense(port: u16, prefix: &str) -> Result {
    let http = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{port}/v1/domains/noise/infer-and-adapt");
    let since = Instant::now();
    // Accuracy is told from the hundredth label on.
    for number in 0..120 {
        let label = if number * number % 7 < 3 { "a" } else { "b" };
        let body = json!({"id": format!("{prefix}-{number}"), "features": [f64::from(number % 3)], "label": label});
        while !http.post(&url).json(&body).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(since.elapsed() < Duration::from_secs(30), "the process doesn't serve");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// Everything below a folder, itself included, is for one user alone.
fn assert_private(folder: &Path) -> Result {
    assert_eq!(std::fs::metadata(folder)?.permissions().mode() & 0o777, 0o700, "{}", folder.display());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        match metadata.is_dir() {
            true => assert_private(&path)?,
            false => assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", path.display()),
        }
    }
    Ok(())
}

fn keep_secret(folder: &Path) -> Result {
    std::fs::create_dir_all(folder.join("hebb-secrets/hook"))?;
    Ok(std::fs::write(folder.join("hebb-secrets/hook/signature"), "canary-of-the-hook\n")?)
}

#[tokio::test]
async fn a_process_alone_tells_its_receivers_once_also_when_it_was_killed() -> Result {
    let folder = tempfile::tempdir()?;
    let (address, got) = sink()?;
    std::fs::write(folder.path().join("all.yaml"), POLICY.replace("SINK", &address))?;
    keep_secret(folder.path())?;
    let log = || std::fs::read_to_string(folder.path().join("log"));
    let port = free_port()?;

    let running = start(folder.path(), port)?;
    learn_nonsense(port, "first").await?;
    let since = Instant::now();
    while got.lock().unwrap().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(30), "nobody was told: {}", log()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What the receiver answered is recorded with the next look.
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(running);

    let _running = start(folder.path(), port)?;
    learn_nonsense(port, "second").await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let log = log()?;
    let got = got.lock().unwrap();
    assert_eq!(got.len(), 1, "{got:#?}\n{log}");
    let (head, body) = &got[0];
    assert!(head.contains("sha256="), "unsigned: {head}");
    assert!(body.to_string().contains("laptop is wrong too often"), "{body}");
    assert!(
        !folder.path().join("data/alerts/messages/book.jsonl").exists(),
        "the first route that matches is the last"
    );
    assert!(!log.contains("canary-of"), "a secret was said");
    assert_private(&folder.path().join("data"))
}

#[test]
fn route_explains_and_test_says_what_the_receiver_answered() -> Result {
    let folder = tempfile::tempdir()?;
    let (address, got) = sink()?;
    std::fs::write(folder.path().join("all.yaml"), POLICY.replace("SINK", &address))?;
    let hebb = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_hebb")).current_dir(folder.path()).args(arguments).output()
    };
    let explained = hebb(&["alerts", "route", "-f", "all.yaml", "--labels", "severity=Critical,alertname=confused"])?;
    let text = String::from_utf8(explained.stdout)?;
    assert!(explained.status.success() && text.contains("hook"), "{text}");

    let failed = hebb(&["alerts", "test", "-f", "all.yaml", "--receiver", "hook"])?;
    let text = String::from_utf8(failed.stderr)?;
    assert!(!failed.status.success() && text.contains("no Secret hook"), "{text}");
    keep_secret(folder.path())?;
    let told = hebb(&["alerts", "test", "-f", "all.yaml", "--receiver", "hook"])?;
    assert!(told.status.success(), "{}", String::from_utf8(told.stderr)?);
    assert_eq!(got.lock().unwrap().len(), 1);

    // As the process would: into the folder of its data.
    let written = hebb(&["alerts", "test", "-f", "all.yaml", "--receiver", "book", "-o", "json"])?;
    let said: Value = serde_json::from_slice(&written.stdout)?;
    assert_eq!((&said["receiver"], &said["taken"]), (&json!("book"), &json!(true)));
    let told = std::fs::read_to_string(folder.path().join("hebb-data/alerts/messages/book.jsonl"))?;
    assert!(told.contains("quality"), "{told}");
    Ok(())
}
