//! Prints what the history of metrics and the traces cost: events a second and processor time an event, on against off.
//! `overhead [ROUNDS]`: each round measures every way once, in a process of its own and over the same events, and compares
//! within the round, so that a machine that becomes slower does so for all of them.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hebb_api::LearningCluster;
use hebb_log::{LocalStore, SqliteHistory};
use hebb_node::{ClusterSettings, EmbeddedAddresses, Store, run_embedded, stop_channel};
use hebb_telemetry::traces::export_traces;
use serde_json::json;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Events of one figure: they take longer than the ten seconds after which the history is stored.
const EVENTS: u64 = 150_000;
/// Events that are learned before that.
const WARM_UP: u64 = 20_000;
/// How often the events are counted.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Requests in flight.
const CLIENTS: usize = 16;
const WAYS: [&str; 4] = ["off", "history", "traces", "traces-1-percent"];

fn main() -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    match std::env::args().nth(1) {
        Some(way) if WAYS.contains(&way.as_str()) => runtime.block_on(measure(&way)),
        rounds => compare(rounds.map_or(Ok(5), |rounds| rounds.parse())?),
    }
}

fn compare(rounds: usize) -> Outcome {
    let collector = collector()?;
    let mut figures = vec![Vec::new(); WAYS.len()];
    for round in 0..rounds {
        // Whoever is first in a round isn't so in the next.
        for place in 0..WAYS.len() {
            let way = (place + round) % WAYS.len();
            let mut child = Command::new(std::env::current_exe()?);
            child.arg(WAYS[way]);
            if WAYS[way].starts_with("traces") {
                child.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
            }
            if WAYS[way] == "traces-1-percent" {
                child.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").env("OTEL_TRACES_SAMPLER_ARG", "0.01");
            }
            let said = String::from_utf8(child.output()?.stdout)?;
            let mut numbers = said.split_whitespace().map(str::parse::<f64>);
            let (Some(rate), Some(cost)) = (numbers.next(), numbers.next()) else { return Err(said.into()) };
            figures[way].push((rate?, cost?));
        }
    }
    println!("{:<18} {:>20} {:>20}", "of off, ± 2 s.e.", "events/s", "processor time");
    for (way, name) in WAYS.iter().enumerate().skip(1) {
        let of_off = |which: fn(&(f64, f64)) -> f64| {
            let ratios = figures[way].iter().zip(&figures[0]).map(|(on, off)| which(on) / which(off));
            let (mean, error) = mean_and_error(&ratios.collect::<Vec<_>>());
            format!("{mean:.3} ± {:.3}", 2.0 * error)
        };
        println!("{name:<18} {:>20} {:>20}", of_off(|one| one.0), of_off(|one| one.1));
    }
    Ok(())
}

/// The mean of some numbers, and its standard error.
fn mean_and_error(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

/// Takes batches of spans, and says that they are fine.
fn collector() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 20];
                let mut unread = Vec::new();
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    unread.extend_from_slice(&buffer[..read]);
                    while let Some(end) = end_of_request(&unread) {
                        unread.drain(..end);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}

fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length: usize = text.split_once("content-length:")?.1.lines().next()?.trim().parse().ok()?;
    (head + length <= bytes.len()).then_some(head + length)
}

async fn measure(way: &str) -> Outcome {
    let directory = tempfile::tempdir()?;
    let store = Store::new(LocalStore::in_memory()?);
    let store = match way {
        "history" => store.with_history(SqliteHistory::open(directory.path()).await?),
        _ => store,
    };
    export_traces("hebb", None)?;
    let address = || -> Outcome<SocketAddr> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?) };
    let addresses =
        EmbeddedAddresses { gateway: address()?, coordinator: address()?, meta: address()?, worker: address()? };
    let mut cluster = LearningCluster::default();
    cluster.metadata.name = Some("overhead".to_owned());
    let settings = ClusterSettings { workers: 1.into(), ..ClusterSettings::from(&cluster) };
    let (stopper, stop) = stop_channel();
    let server = tokio::spawn(async move { run_embedded(store, &settings, addresses, None, stop).await });
    let answered = Arc::new(AtomicU64::new(0));
    let url = format!("http://{}/v1/domains/d/infer-and-adapt", addresses.gateway);
    for client in 0..CLIENTS {
        tokio::spawn(learn(url.clone(), client, answered.clone()));
    }
    let until = async |count: u64| {
        while answered.load(Ordering::Relaxed) < count {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        answered.load(Ordering::Relaxed)
    };
    let before = until(WARM_UP).await;
    let (begun, cost) = (Instant::now(), processor_seconds()?);
    let events = (until(WARM_UP + EVENTS).await - before) as f64;
    let cost = processor_seconds()? - cost;
    println!("{} {}", events / begun.elapsed().as_secs_f64(), cost / events * 1e6);
    stopper.stop();
    server.await??;
    Ok(())
}

async fn learn(url: String, client: usize, answered: Arc<AtomicU64>) {
    let http = reqwest::Client::new();
    for number in 0u64.. {
        let side = if number.is_multiple_of(2) { 1.0 } else { -1.0 };
        let features: Vec<f64> = (0..8).map(|one| side + f64::from(one) * (number % 7) as f64 / 50.0).collect();
        let event = json!({ "id": format!("{client}-{number}"), "features": features, "label": side > 0.0 });
        match http.post(&url).body(event.to_string()).send().await {
            Ok(answer) if answer.status().is_success() => {
                drop(answer.bytes().await);
                answered.fetch_add(1, Ordering::Relaxed);
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The processor time of this process, clients included.
fn processor_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // A hundred ticks a second, on every Linux.
    Ok((ticks(11) + ticks(12)) / 100.0)
}
