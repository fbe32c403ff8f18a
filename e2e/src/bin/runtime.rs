//! `make bench-runtime`: what Hebb carries without Kubernetes, beside what the same machine does with less or with others in
//! the same run. Writes `target/bench/runtime.json`.
//!
//! Hebb runs as its users run it: gateway, coordinator and worker as three processes over a Redis, `hebb start` with its own
//! log, and as a library. Beside it: an HTTP server that only answers (the same client, the same bodies), Redis alone (redis-benchmark's XADD), and
//! Ray and Celery with tasks that do nothing. Rounds are interleaved, so that a slow minute of the machine falls on all.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use hebb_e2e::Error;
use hebb_e2e::data::{self, Record};
use hebb_e2e::ledger::Client;
use hebb_engine::{Answer, Features, Label};
use hebb_node::{Observation, open_local};
use serde::{Deserialize, Serialize};

/// As in the binary: the library is measured in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests of single events under way at once.
const UNDER_WAY: usize = 64;
/// Events of a call of the library, and calls under way.
const LIBRARY_CALL: usize = 480;
const LIBRARY_CALLS: usize = 3;
/// How long a server may take to be there.
const START: Duration = Duration::from_secs(30);

/// Measures throughput and latency of Hebb's processes on this machine, beside others.
#[derive(Parser)]
struct Options {
    /// The binary
    #[arg(long)]
    hebb: PathBuf,
    /// Gzip CSV file of the stream
    #[arg(long)]
    data: PathBuf,
    /// Column with the class
    #[arg(long, default_value = "anomaly")]
    label: String,
    /// A Python that has Ray and Celery; without it they are left out
    #[arg(long)]
    python: Option<PathBuf>,
    /// The program that measures them
    #[arg(long, default_value = "e2e/runtime/peers.py")]
    peers: PathBuf,
    /// How often everything is measured; the median is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measure the library alone
    #[arg(long)]
    library_only: bool,
    /// Single requests of a measurement
    #[arg(long, default_value_t = 10_000)]
    singles: usize,
    /// Where the figures are written
    #[arg(long, default_value = "target/bench/runtime.json")]
    report: PathBuf,
    /// Be the HTTP server that only answers
    #[arg(long, hide = true)]
    answer_only: Option<u16>,
}

/// What was measured of one system in one shape.
#[derive(Clone, Debug, Serialize)]
struct Row {
    system: String,
    shape: &'static str,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    peer: bool,
}

/// What a peer's program prints.
#[derive(Deserialize)]
struct PeerLine {
    system: String,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Serialize)]
struct Report {
    events: usize,
    rounds: usize,
    rows: Vec<Row>,
    left_out: Vec<String>,
}

/// A process of this run, which ends with it.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self, Error> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(quiet.spawn().map_err(|error| format!("{command:?}: {error}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    if let Some(port) = options.answer_only {
        return answer_only(port).await;
    }
    let records = data::read(&options.data, &options.label)?;
    let folder = tempfile::tempdir()?;
    let stage = if options.library_only { None } else { Some(Stage::set(&options.hebb, folder.path()).await?) };
    let mut rows = Vec::new();
    let mut left_out = Vec::new();
    for round in 0..options.rounds {
        println!("==> round {} of {}", round + 1, options.rounds);
        if let Some(stage) = &stage {
            rows.extend(stage.hebb(round, &records, options.singles).await?);
        }
        rows.push(library(&folder.path().join(format!("library-{round}")), &records).await?);
        if let Some(stage) = &stage {
            rows.extend(empty(&stage.empty, round, &records, options.singles).await?);
            rows.extend(redis_alone(stage.redis_port)?);
            let (found, without) = stage.peers(&options);
            rows.extend(found);
            left_out = without;
        }
    }
    let rows = medians(rows);
    println!("{:<44} {:<22} {:>10} {:>9} {:>9}", "", "", "per second", "p50, ms", "p99, ms");
    for row in &rows {
        let ms = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        println!(
            "{:<44} {:<22} {:>10.0} {:>9} {:>9}",
            row.system,
            row.shape,
            row.per_second,
            ms(row.p50_ms),
            ms(row.p99_ms)
        );
    }
    for what in &left_out {
        println!("left out: {what}");
    }
    if let Some(folder) = options.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let report = Report { events: records.len(), rounds: options.rounds, rows, left_out };
    std::fs::write(&options.report, serde_json::to_string_pretty(&report)?)?;
    println!("report {}", options.report.display());
    Ok(())
}

/// Everything that is measured, running.
struct Stage {
    redis_port: u16,
    cluster: String,
    embedded: String,
    empty: String,
    _processes: Vec<Running>,
}

impl Stage {
    async fn set(hebb: &Path, folder: &Path) -> Result<Self, Error> {
        let spec = folder.join("bench.yaml");
        std::fs::write(
            &spec,
            "apiVersion: hebb.dev/v1alpha1\nkind: LearningCluster\nmetadata: {name: bench}\nspec: {}\n",
        )?;
        let mut processes = Vec::new();
        let redis_port = free_port()?;
        // As the operator runs it: everything on disk within a second.
        let port = redis_port.to_string();
        let settings = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"];
        processes.push(Running::start(Command::new("redis-server").args(settings).arg(folder))?);
        answers_to(redis_port).await?;

        let mut gateway_port = 0;
        for role in ["coordinator", "worker", "gateway"] {
            gateway_port = free_port()?;
            let mut command = Command::new(hebb);
            command.arg(role).arg("--file").arg(&spec).args(["--redis-port", &port, "--id", role]);
            command.args(["--listen", &format!("127.0.0.1:{gateway_port}"), "--meta-port", &free_port()?.to_string()]);
            processes.push(Running::start(&mut command)?);
        }
        let embedded_port = free_port()?;
        let mut command = Command::new(hebb);
        command.arg("start").arg("--data-dir").arg(folder.join("data"));
        for (option, port) in [
            ("--port", embedded_port),
            ("--coordinator-port", free_port()?),
            ("--meta-port", free_port()?),
            ("--worker-port", free_port()?),
        ] {
            command.arg(option).arg(port.to_string());
        }
        processes.push(Running::start(&mut command)?);
        let empty_port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        // Whoever only answers needs no binary and no data.
        command.args(["--hebb", "-", "--data", "-", "--answer-only", &empty_port.to_string()]);
        processes.push(Running::start(&mut command)?);
        for port in [gateway_port, embedded_port, empty_port] {
            answers_to(port).await?;
        }
        for port in [gateway_port, embedded_port] {
            is_ready(port).await?;
        }
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (cluster, embedded, empty) = (url(gateway_port), url(embedded_port), url(empty_port));
        Ok(Self { redis_port, cluster, embedded, empty, _processes: processes })
    }

    async fn hebb(&self, round: usize, records: &[Record], singles: usize) -> Result<Vec<Row>, Error> {
        let mut rows = hebb("Hebb, three processes over Redis", &self.cluster, round, records, singles).await?;
        rows.extend(hebb("Hebb, hebb start", &self.embedded, round, records, singles).await?);
        Ok(rows)
    }

    /// Ray and Celery, and why one of them is left out.
    fn peers(&self, options: &Options) -> (Vec<Row>, Vec<String>) {
        let Some(python) = &options.python else {
            return (Vec::new(), vec!["Ray and Celery: no --python".to_owned()]);
        };
        let (mut rows, mut left_out) = (Vec::new(), Vec::new());
        for which in ["ray", "celery"] {
            match peers(python, &options.peers, which, self.redis_port) {
                Ok(found) => rows.extend(found),
                Err(error) => left_out.push(format!("{which}: {error}")),
            }
        }
        (rows, left_out)
    }
}

async fn answers_to(port: u16) -> Result<(), Error> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if began.elapsed() > START {
            return Err(format!("nobody listens on port {port}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn is_ready(port: u16) -> Result<(), Error> {
    let began = Instant::now();
    while !reqwest::get(format!("http://127.0.0.1:{port}/health/readiness")).await?.status().is_success() {
        if began.elapsed() > START {
            return Err(format!("the gateway on port {port} isn't ready").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// An HTTP server that reads a body and answers.
async fn answer_only(port: u16) -> Result<(), Error> {
    let answer = async |_: axum::body::Bytes| "{\"prediction\":\"0\"}";
    let router = Router::new().route("/v1/domains/{domain}/infer-and-adapt", post(answer));
    Ok(axum::serve(tokio::net::TcpListener::bind(("127.0.0.1", port)).await?, router).await?)
}

/// The three shapes of one Hebb; each event is acknowledged and applied, or this fails.
async fn hebb(system: &str, url: &str, round: usize, records: &[Record], singles: usize) -> Result<Vec<Row>, Error> {
    let row = |shape, per_second, latencies: Option<(f64, f64)>| {
        let (p50_ms, p99_ms) = latencies.unzip();
        Row { system: system.to_owned(), shape, per_second, p50_ms, p99_ms, peer: false }
    };
    let some = &records[..records.len().min(singles)];
    let domain = |shape: &str| format!("{shape}-{round}");
    let mut rows = Vec::new();

    let client = Client::new(url, &domain("batch"), "b-")?;
    // The first event makes the domain.
    client.send(0, &records[0]).await?;
    let took = client.stream(records).await?;
    rows.push(row("NDJSON, one stream", records.len() as f64 / took.as_secs_f64(), None));

    let client = Client::new(url, &domain("single"), "s-")?;
    client.send(0, &some[0]).await?;
    let ledger = client.replay(some, UNDER_WAY, None, |_| {}).await?;
    client.settle(&ledger).await?;
    let latencies = (ledger.latency_ms(0.5), ledger.latency_ms(0.99));
    rows.push(row("single, 64 under way", ledger.events.len() as f64 / ledger.seconds, Some(latencies)));

    let client = Client::new(url, &domain("paced"), "p-")?;
    client.send(0, &some[0]).await?;
    let ledger = client.replay(some, 256, Some(1_000.0), |_| {}).await?;
    client.settle(&ledger).await?;
    let latencies = (ledger.latency_ms(0.5), ledger.latency_ms(0.99));
    rows.push(row("single, 1,000/s", ledger.events.len() as f64 / ledger.seconds, Some(latencies)));
    for row in &rows {
        println!("    {:<34} {:<22} {:>9.0}/s", row.system, row.shape, row.per_second);
    }
    Ok(rows)
}

/// Hebb in this process, with a log on the disk and two workers: each event is answered, which implies that it is on the disk
/// and applied.
async fn library(folder: &Path, records: &[Record]) -> Result<Row, Error> {
    let observation = |(place, record): (usize, &Record)| Observation {
        id: format!("l-{place}").into(),
        features: Features::Dense(record.features.clone()),
        label: Some(Label::Class(record.label.clone().into())),
    };
    let mut events: Vec<Observation> = records.iter().enumerate().map(observation).collect();
    let system = open_local(folder, 2).await?;
    // The first events make the domain and its partitions.
    let begun = events.drain(..LIBRARY_CALL.min(events.len())).collect();
    system.infer_and_adapt(begun, "library").await?;
    let count = events.len();
    let mut calls = Vec::new();
    while !events.is_empty() {
        calls.push(events.split_off(events.len().saturating_sub(LIBRARY_CALL)));
    }
    let began = Instant::now();
    let calls = stream::iter(calls.into_iter().rev()).map(|call| system.infer_and_adapt(call, "library"));
    let answers: Vec<Vec<Answer>> = calls.buffered(LIBRARY_CALLS).try_collect().await?;
    let seconds = began.elapsed().as_secs_f64();
    let learned = answers.iter().flatten().filter(|answer| answer.learned && !answer.duplicate).count();
    if learned != count {
        return Err(format!("{learned} of {count} were learned").into());
    }
    system.close().await;
    let per_second = count as f64 / seconds;
    println!("    {:<34} {:<22} {per_second:>9.0}/s", "Hebb, as a library", "calls of 480 events");
    let (system, shape) = ("Hebb, as a library".to_owned(), "calls of 480 events");
    Ok(Row { system, shape, per_second, p50_ms: None, p99_ms: None, peer: false })
}

async fn empty(url: &str, round: usize, records: &[Record], singles: usize) -> Result<Vec<Row>, Error> {
    let client = Client::new(url, &format!("empty-{round}"), "e-")?;
    let some = &records[..records.len().min(singles)];
    let mut rows = Vec::new();
    for (shape, under_way, rate) in [("single, 64 under way", UNDER_WAY, None), ("single, 1,000/s", 256, Some(1_000.0))]
    {
        let ledger = client.replay(some, under_way, rate, |_| {}).await?;
        rows.push(Row {
            system: "an axum handler that only answers".to_owned(),
            shape,
            per_second: ledger.events.len() as f64 / ledger.seconds,
            p50_ms: Some(ledger.latency_ms(0.5)),
            p99_ms: Some(ledger.latency_ms(0.99)),
            peer: true,
        });
    }
    Ok(rows)
}

/// What the same Redis takes of entries alone, from its own benchmark.
fn redis_alone(port: u16) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for (shape, pipeline) in [("XADD, 64 clients", "1"), ("XADD, pipelines of 16", "16")] {
        let told = Command::new("redis-benchmark")
            .args(["-p", &port.to_string(), "-n", "200000", "-c", "64", "-P", pipeline, "--csv"])
            .args(["XADD", "bench", "MAXLEN", "~", "10000", "*", "entry", &"x".repeat(128)])
            .output()?;
        // A head, and a line: the command, requests a second, and latencies.
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        let line = text.lines().last().unwrap_or_default();
        let cells: Vec<f64> = line.split("\",\"").filter_map(|cell| cell.trim_matches('"').parse().ok()).collect();
        let [per_second, _, _, p50, _, p99, ..] = cells[..] else {
            return Err(format!("redis-benchmark says {text:?}").into());
        };
        let (p50_ms, p99_ms) = (Some(p50), Some(p99));
        rows.push(Row { system: "Redis alone".to_owned(), shape, per_second, p50_ms, p99_ms, peer: true });
    }
    Ok(rows)
}

fn peers(python: &Path, script: &Path, which: &str, redis_port: u16) -> Result<Vec<Row>, Error> {
    let count = if which == "ray" { "5000" } else { "2000" };
    let told = Command::new(python).arg(script).args([which, &redis_port.to_string(), count]).output()?;
    if !told.status.success() {
        let complaint = String::from_utf8_lossy(&told.stderr).into_owned();
        return Err(complaint.lines().last().unwrap_or("it says nothing").into());
    }
    let lines = String::from_utf8_lossy(&told.stdout).into_owned();
    let found = lines.lines().filter(|line| line.starts_with('{')).map(|line| {
        let line: PeerLine = serde_json::from_str(line)?;
        println!("    {:<34} {:<22} {:>9.0}/s", line.system, "task, 64 under way", line.per_second);
        let (p50_ms, p99_ms) = (Some(line.p50_ms), Some(line.p99_ms));
        Ok(Row {
            system: line.system,
            shape: "task, 64 under way",
            per_second: line.per_second,
            p50_ms,
            p99_ms,
            peer: true,
        })
    });
    found.collect()
}

/// The median of each figure over the rounds.
fn medians(rows: Vec<Row>) -> Vec<Row> {
    let mut order = Vec::new();
    let mut groups: BTreeMap<(String, &str), Vec<Row>> = BTreeMap::new();
    for row in rows {
        let key = (row.system.clone(), row.shape);
        let group = groups.entry(key.clone()).or_default();
        if group.is_empty() {
            order.push(key);
        }
        group.push(row);
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let of_group = |key: &(String, &str)| {
        let group = &groups[key];
        let first = group.first()?;
        Some(Row {
            per_second: median(group.iter().map(|row| row.per_second).collect())?,
            p50_ms: median(group.iter().filter_map(|row| row.p50_ms).collect()),
            p99_ms: median(group.iter().filter_map(|row| row.p99_ms).collect()),
            ..first.clone()
        })
    };
    order.iter().filter_map(of_group).collect()
}
