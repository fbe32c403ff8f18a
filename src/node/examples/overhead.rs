//! Prints what the history of metrics and the traces cost: events a second and processor time an event, on against off.
//! `overhead [ROUNDS]`: a server a way, each a process of its own, gets the same events in slices of a fraction of a second, by
//! turns, so that a machine that becomes slower does so for all of them. A round begins with new processes: two of one kind
//! differ by some percent for as long as they live.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use hebb_api::LearningCluster;
use hebb_log::{LocalStore, SqliteHistory};
use hebb_node::{ClusterSettings, EmbeddedAddresses, EmbeddedIdentity, Store, run_embedded, stop_channel};
use hebb_telemetry::traces::export_traces;
use rand::seq::SliceRandom;
use reqwest::Client;
use serde_json::json;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Events of one slice, by all clients.
const EVENTS: u64 = 2_000;
/// Cycles of a round, and those before them that don't count.
const CYCLES: u64 = 25;
const WARM_UP: u64 = 5;
/// Requests in flight.
const CLIENTS: u64 = 16;
/// The second one shows how far two equal servers are from each other.
const WAYS: [&str; 5] = ["off", "off-again", "history", "traces-1-percent", "traces"];

fn main() -> Outcome {
    let runtime = tokio::runtime::Runtime::new()?;
    match std::env::args().nth(1) {
        Some(way) if WAYS.contains(&way.as_str()) => runtime.block_on(serve(&way)),
        rounds => runtime.block_on(compare(rounds.map_or(Ok(12), |rounds| rounds.parse())?)),
    }
}

/// One way's server, and what its slices took.
struct Subject {
    child: Child,
    client: Client,
    url: String,
    sent: u64,
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn compare(rounds: u64) -> Outcome {
    let collector = collector()?;
    let mut ratios = vec![Vec::new(); WAYS.len()];
    for round in 1..=rounds {
        let figures = cycles(collector).await?;
        let (off_seconds, off_cost) = figures[0];
        eprintln!("{round} of {rounds}: off takes {:.1} µs of a processor an event", off_cost / EVENTS as f64 * 1e6);
        for (ratios, (seconds, cost)) in ratios.iter_mut().zip(figures) {
            ratios.push((off_seconds / seconds, cost / off_cost));
        }
    }
    println!("{:<18} {:>20} {:>20}", "of off, ± 2 s.e.", "events/s", "processor time");
    for (name, ratios) in WAYS.iter().zip(&ratios).skip(1) {
        let shown = |which: fn(&(f64, f64)) -> f64| {
            let (mean, error) = mean_and_error(&ratios.iter().map(which).collect::<Vec<_>>());
            format!("{mean:.3} ± {:.3}", 2.0 * error)
        };
        println!("{name:<18} {:>20} {:>20}", shown(|one| one.0), shown(|one| one.1));
    }
    Ok(())
}

/// Seconds and processor seconds of a cycle, of each way.
async fn cycles(collector: SocketAddr) -> Outcome<Vec<(f64, f64)>> {
    let mut subjects = WAYS.into_iter().map(|way| start(way, collector)).collect::<Outcome<Vec<_>>>()?;
    let mut order: Vec<usize> = (0..WAYS.len()).collect();
    let mut seconds = vec![0.0; WAYS.len()];
    let mut before = Vec::new();
    for cycle in 0..WARM_UP + CYCLES {
        if cycle == WARM_UP {
            before = subjects.iter().map(Subject::cost).collect::<Outcome<Vec<f64>>>()?;
        }
        // Nobody always follows the same one.
        order.shuffle(&mut rand::rng());
        for way in order.iter().copied() {
            let begun = Instant::now();
            subjects[way].slice().await?;
            if cycle >= WARM_UP {
                seconds[way] += begun.elapsed().as_secs_f64() / CYCLES as f64;
            }
        }
    }
    // With what each did while the others were measured: the history goes on, and spans leave late.
    let cycle = |((seconds, subject), before): ((f64, &Subject), f64)| -> Outcome<(f64, f64)> {
        Ok((seconds, (subject.cost()? - before) / CYCLES as f64))
    };
    seconds.into_iter().zip(&subjects).zip(before).map(cycle).collect()
}

fn start(way: &str, collector: SocketAddr) -> Outcome<Subject> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(way).stdin(Stdio::piped()).stdout(Stdio::piped());
    if way.starts_with("traces") {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
    }
    if way == "traces-1-percent" {
        command.env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").env("OTEL_TRACES_SAMPLER_ARG", "0.01");
    }
    let mut child = command.spawn()?;
    let mut url = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut url)?;
    Ok(Subject { child, client: Client::new(), url: url.trim().to_owned(), sent: 0 })
}

impl Subject {
    /// The processor time that it has taken, in seconds.
    fn cost(&self) -> Outcome<f64> {
        processor_seconds(self.child.id())
    }

    async fn slice(&mut self) -> Outcome {
        let first = self.sent;
        self.sent += EVENTS;
        let this = &*self;
        try_join_all((0..CLIENTS).map(|client| async move {
            for number in (first + client..first + EVENTS).step_by(CLIENTS as usize) {
                this.learn(number).await?;
            }
            Outcome::Ok(())
        }))
        .await?;
        Ok(())
    }

    async fn learn(&self, number: u64) -> Outcome {
        let side = if number.is_multiple_of(2) { 1.0 } else { -1.0 };
        let features: Vec<f64> = (0..8).map(|one| side + f64::from(one) * (number % 7) as f64 / 50.0).collect();
        let event = json!({ "id": number.to_string(), "features": features, "label": side > 0.0 }).to_string();
        loop {
            match self.client.post(&self.url).body(event.clone()).send().await {
                Ok(answer) if answer.status().is_success() => {
                    answer.bytes().await?;
                    return Ok(());
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
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

/// Serves until its input ends, and says where.
async fn serve(way: &str) -> Outcome {
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
    println!("http://{}/v1/domains/d/infer-and-adapt", addresses.gateway);
    let (stopper, stop) = stop_channel();
    std::thread::spawn(move || {
        // An error ends it as well.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stopper.stop();
    });
    let who = EmbeddedIdentity { id: "local".to_owned(), advertise: addresses.coordinator.to_string() };
    run_embedded(store, &settings, who, addresses, None, stop).await?;
    Ok(())
}

/// The processor time of a process.
fn processor_seconds(process: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // A hundred ticks a second, on every Linux.
    Ok((ticks(11) + ticks(12)) / 100.0)
}
