//! `make demo`, once the cluster and the operator are up: streams real data through a LearningCluster while a worker and the
//! leading coordinator are killed, and reports what came of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use hebb_e2e::kubectl::{
    cluster_status, fresh_namespace, gateway, get, kill_pod, kubectl, owner, wait_for, wait_ready,
};
use hebb_e2e::ledger::{Client, Ledger};
use hebb_e2e::{Error, data};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Streams real data through a LearningCluster and kills parts of it on the way.
#[derive(Parser)]
struct Options {
    /// Gzip CSV file of the stream
    #[arg(long)]
    data: PathBuf,
    /// Column with the class
    #[arg(long, default_value = "anomaly")]
    label: String,
    /// Folder with learningcluster.yaml and alertpolicy.yaml
    #[arg(long, default_value = "examples")]
    examples: PathBuf,
    /// Where the report is written
    #[arg(long, default_value = "target/demo/report.json")]
    report: PathBuf,
    /// Namespace that is made for the demo
    #[arg(long, default_value = "hebb-demo")]
    namespace: String,
    /// Events a second at most
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Requests under way at once
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
}

const CLUSTER: &str = "demo";
const DOMAIN: &str = "shuttle";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let records = data::read(&options.data, &options.label)?;
    let (no_change, majority) = data::baselines(&records);
    println!("==> a LearningCluster in namespace {}", options.namespace);
    fresh_namespace(&options.namespace)?;
    let applied_at = Instant::now();
    let examples = options.examples.to_string_lossy().into_owned();
    print!("{}", kubectl(&["-n", &options.namespace, "apply", "-f", &examples])?);
    wait_ready(&options.namespace, CLUSTER, Duration::from_secs(120))?;
    let ready_seconds = applied_at.elapsed().as_secs_f64();
    println!("    ready after {ready_seconds:.1} s");

    println!(
        "==> {} real events, one by one, {} in flight, at most {} a second",
        records.len(),
        options.in_flight,
        options.rate
    );
    let client = Client::new(&gateway(&options.namespace, CLUSTER)?, DOMAIN, "shuttle-")?;
    let (progress, seen) = watch::channel(0usize);
    let killer = tokio::spawn(kill_on_the_way(options.namespace.clone(), records.len(), seen));
    let ledger = replay(&client, &records, &options, &progress).await?;
    let killed = killer.await??;

    println!("==> what was acknowledged against what was applied");
    let applied = client.settle(&ledger).await?;
    let recover_worker = ledger.recovery(killed.worker_at).as_secs_f64();
    println!(
        "    {} acknowledged, {} applied, the digests of the ids are equal",
        ledger.events.len(),
        applied["events"]
    );
    // A worker that is told to end, and not killed, hands over first.
    let answers = if recover_worker > 0.0 {
        format!("answers resumed after {recover_worker:.1} s")
    } else {
        "answers never stopped".to_owned()
    };
    println!("    worker {} killed: {answers}", killed.worker);
    println!("    leader {} killed: {} led after {:.1} s", killed.leader, killed.successor, killed.leader_seconds);
    wait_ready(&options.namespace, CLUSTER, Duration::from_secs(60))?;
    println!();
    print!("{}", kubectl(&["-n", &options.namespace, "get", "learningclusters,alertpolicies"])?);
    println!(
        "\naccuracy   Hebb {:.2} %   no-change {:.2} %   majority {:.2} %",
        ledger.accuracy() * 100.0,
        no_change * 100.0,
        majority * 100.0
    );
    println!(
        "latency    p50 {:.1} ms   p99 {:.1} ms   {:.0} events/s",
        ledger.latency_ms(0.5),
        ledger.latency_ms(0.99),
        ledger.events.len() as f64 / ledger.seconds
    );

    let version: Value = serde_json::from_str(&kubectl(&["version", "-o", "json"])?)?;
    let report = json!({
        "kubernetes": version["serverVersion"]["gitVersion"],
        "dataset": "Statlog (Shuttle), river 0.26.1",
        "events": records.len(),
        "acknowledged": ledger.events.len(),
        "applied": applied["events"],
        "accuracy": ledger.accuracy(),
        "baselines": {"no_change": no_change, "majority": majority},
        "ready_seconds": ready_seconds,
        "recover_seconds": {"worker": recover_worker, "coordinator": killed.leader_seconds},
        "events_per_second": ledger.events.len() as f64 / ledger.seconds,
        "p50_ms": ledger.latency_ms(0.5),
        "p99_ms": ledger.latency_ms(0.99),
    });
    if let Some(folder) = options.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&options.report, serde_json::to_string_pretty(&report)?)?;
    println!("report     {}", options.report.display());
    Ok(())
}

async fn replay(
    client: &Client,
    records: &[data::Record],
    options: &Options,
    progress: &watch::Sender<usize>,
) -> Result<Ledger, Error> {
    let bar = ProgressBar::new(records.len() as u64);
    bar.set_style(ProgressStyle::with_template("    {bar:32} {pos}/{len}  {per_sec}  {msg}")?);
    let (mut right, mut retried) = (0u64, 0u64);
    let ledger = client.replay(records, options.in_flight, Some(options.rate), |event| {
        right += u64::from(event.right);
        retried += u64::from(event.retries > 0);
        let done = event.place as u64 + 1;
        if done.is_multiple_of(500) {
            let line = format!("accuracy {:.2} %, {retried} retried", right as f64 / done as f64 * 100.0);
            // A log gets a line now and then, a terminal the bar.
            if bar.is_hidden() && done.is_multiple_of(5_000) {
                println!("    {done} of {} events, {line}", records.len());
            }
            bar.set_message(line);
        }
        bar.set_position(done);
        progress.send_replace(event.place + 1);
    });
    let ledger = ledger.await?;
    bar.finish_and_clear();
    Ok(ledger)
}

/// What was killed, and what became of it.
struct Killed {
    worker: String,
    worker_at: Instant,
    leader: String,
    successor: String,
    leader_seconds: f64,
}

async fn kill_on_the_way(namespace: String, events: usize, mut seen: watch::Receiver<usize>) -> Result<Killed, Error> {
    seen.wait_for(|done| *done >= events / 3).await?;
    let space = namespace.clone();
    let (worker, worker_at) = tokio::task::spawn_blocking(move || {
        let worker = owner(&space, CLUSTER, DOMAIN)?;
        let at = Instant::now();
        let how = kill_pod(&space, &worker)?;
        println!("    {worker}, which owned the partition: {how}");
        Ok::<_, Error>((worker, at))
    })
    .await??;
    seen.wait_for(|done| *done >= events * 2 / 3).await?;
    let (leader, successor, leader_seconds) = tokio::task::spawn_blocking(move || kill_leader(&namespace)).await??;
    Ok(Killed { worker, worker_at, leader, successor, leader_seconds })
}

fn kill_leader(namespace: &str) -> Result<(String, String, f64), Error> {
    let status = cluster_status(namespace, CLUSTER)?;
    let leader = status["leader"].as_str().ok_or("nobody leads")?.to_owned();
    let term = status["term"].as_u64();
    let at = Instant::now();
    let how = kill_pod(namespace, &leader)?;
    println!("    {leader}, which led the coordinators: {how}");
    let successor = wait_for("a new leader", Duration::from_secs(60), || {
        let status = cluster_status(namespace, CLUSTER).ok()?;
        (status["term"].as_u64() > term).then(|| status["leader"].as_str().map(str::to_owned))?
    })?;
    let seconds = at.elapsed().as_secs_f64();
    wait_for("the cluster's status names the new leader", Duration::from_secs(30), || {
        let cluster = get(namespace, &["learningcluster", CLUSTER]).ok()?;
        (cluster["status"]["leader"] == successor.as_str()).then_some(())
    })?;
    Ok((leader, successor, seconds))
}
