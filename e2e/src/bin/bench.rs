//! `make bench-path`: what the way of an event through gateway, Redis and worker carries on this cluster, how long it takes,
//! and what the pods need. Writes `target/bench/path.json`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use hebb_e2e::kubectl::{apply, fresh_namespace, gateway, get, kubectl, processes_of, wait_ready};
use hebb_e2e::ledger::{Client, Ledger};
use hebb_e2e::{Error, data};
use serde_json::json;

/// Measures throughput, latency and memory on the cluster of the current kubeconfig.
#[derive(Parser)]
struct Options {
    /// Gzip CSV file of the stream
    #[arg(long)]
    data: PathBuf,
    /// Column with the class
    #[arg(long, default_value = "anomaly")]
    label: String,
    /// Where the figures are written
    #[arg(long, default_value = "target/bench/path.json")]
    report: PathBuf,
}

const SPACE: &str = "hebb-bench";
const CLUSTER: &str = "
apiVersion: hebb.dev/v1alpha1
kind: LearningCluster
metadata: {name: bench}
spec:
  allowUndeclaredDomains: false
  domains:
    - {name: lines, task: Classification}
    - {name: singles, task: Classification}
    - {name: paced, task: Classification}
  redis: {storage: {size: 1Gi, deletionPolicy: Delete}}
";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let records = data::read(&options.data, &options.label)?;
    fresh_namespace(SPACE)?;
    let applied_at = Instant::now();
    apply(SPACE, CLUSTER)?;
    wait_ready(SPACE, "bench", Duration::from_secs(120))?;
    let ready_seconds = applied_at.elapsed().as_secs_f64();
    let url = gateway(SPACE, "bench")?;

    println!("==> {} events as one NDJSON stream", records.len());
    let client = Client::new(&url, "lines", "l-")?;
    let lines = records.len() as f64 / client.stream(&records).await?.as_secs_f64();
    println!("    {lines:.0} events/s acknowledged and applied");

    let some = &records[..records.len().min(20_000)];
    println!("==> {} single requests, 64 in flight", some.len());
    let client = Client::new(&url, "singles", "s-")?;
    let singles = client.replay(some, 64, None, |_| {}).await?;
    client.settle(&singles).await?;
    let per_second = singles.events.len() as f64 / singles.seconds;
    println!(
        "    {per_second:.0} events/s, p50 {:.1} ms, p99 {:.1} ms",
        singles.latency_ms(0.5),
        singles.latency_ms(0.99)
    );

    println!("==> {} single requests at 1,000 a second", some.len());
    let client = Client::new(&url, "paced", "p-")?;
    let paced: Ledger = client.replay(some, 256, Some(1_000.0), |_| {}).await?;
    client.settle(&paced).await?;
    println!("    p50 {:.1} ms, p99 {:.1} ms", paced.latency_ms(0.5), paced.latency_ms(0.99));

    println!("==> memory now, and 30 s of rest");
    let mut pods = memory(SPACE)?;
    pods.extend(memory("hebb-system")?);
    for (pod, mib) in &pods {
        println!("    {pod:<40} {mib:>7.1} MiB");
    }
    let operator = operator_pids()?;
    let before = cpu_seconds(&operator)?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let cpu = (cpu_seconds(&operator)? - before) / 30.0;
    println!("    the operator at rest takes {:.2} % of one core", cpu * 100.0);

    let report = json!({
        "ready_seconds": ready_seconds,
        "stream_events_per_second": lines,
        "single_events_per_second": per_second,
        "at_1000_per_second": {"p50_ms": paced.latency_ms(0.5), "p99_ms": paced.latency_ms(0.99)},
        "memory_mib": pods.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "operator_cpu_cores_at_rest": cpu,
    });
    if let Some(folder) = options.report.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&options.report, serde_json::to_string_pretty(&report)?)?;
    println!("report {}", options.report.display());
    kubectl(&["delete", "namespace", SPACE, "--wait=false"])?;
    Ok(())
}

/// Resident memory of each pod's processes in MiB, where the pods run on this machine.
fn memory(namespace: &str) -> Result<Vec<(String, f64)>, Error> {
    let mut found = Vec::new();
    for pod in get(namespace, &["pods"])?["items"].as_array().into_iter().flatten() {
        let (Some(name), Some(uid)) = (pod["metadata"]["name"].as_str(), pod["metadata"]["uid"].as_str()) else {
            continue;
        };
        let mut kib = 0.0;
        for pid in processes_of(uid)? {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            kib += line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0);
        }
        found.push((name.to_owned(), kib / 1024.0));
    }
    Ok(found)
}

fn operator_pids() -> Result<Vec<u32>, Error> {
    let mut pids = Vec::new();
    for pod in get("hebb-system", &["pods"])?["items"].as_array().into_iter().flatten() {
        pids.extend(processes_of(pod["metadata"]["uid"].as_str().unwrap_or("none"))?);
    }
    Ok(pids)
}

/// Processor time of processes so far; the kernel counts hundredths of a second.
fn cpu_seconds(pids: &[u32]) -> Result<f64, Error> {
    let mut ticks = 0.0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        for place in [11, 12] {
            ticks += fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    Ok(ticks / 100.0)
}
