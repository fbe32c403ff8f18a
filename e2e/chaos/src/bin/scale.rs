//! `make scale`: how the operator does with a thousand LearningClusters: until all are ready, and at rest.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Parser;
use futures::StreamExt;
use hebb_api::LearningCluster;
use hebb_chaos::Error;
use hebb_chaos::fleet::Fleet;
use hebb_chaos::operator::IMAGE;
use hebb_chaos::plane::Plane;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::process::{Child, Command};

/// Runs the operator's release binary against a real API server and kube-controller-manager. No node runs: pods are called
/// ready as soon as they are made.
#[derive(Parser)]
struct Options {
    /// The binary
    #[arg(long)]
    hebb: PathBuf,
    /// LearningClusters, of four pods each
    #[arg(long, default_value_t = 1_000)]
    clusters: usize,
    /// Seconds of rest in which writes are counted
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 900)]
    within: u64,
    /// Where the report goes
    #[arg(long, default_value = "target/scale")]
    out: PathBuf,
}

/// Clusters of one namespace.
const PER_NAMESPACE: usize = 100;
/// LearningClusters that are made at once.
const CONCURRENCY: usize = 16;
/// The processes of the control plane.
const SERVERS: [&str; 3] = ["etcd", "apiserver", "controller-manager"];
/// Nothing was written for so long: it is at rest.
const QUIET: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Error> {
    tokio::select! {
        done = act(Options::parse()) => done,
        // The API server ends with the values that are dropped here.
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }
}

async fn act(options: Options) -> Result<(), Error> {
    std::fs::create_dir_all(&options.out)?;
    let plane = Plane::start_with_controllers().await?;
    let client = plane.client().await?;
    let fleet = Fleet::default();
    let coordinators = fleet.serve().await?;
    fleet.join(&client).await?;
    tokio::spawn(fleet.run(client.clone()));
    let mut operator = Operator::start(&options, &plane, &coordinators)?;
    operator.leads().await?;

    let spent = |operator: &Operator| -> Result<BTreeMap<&str, f64>, Error> {
        let servers = SERVERS.iter().map(|server| Ok::<_, Error>((*server, cpu_seconds(plane.process(server)?)?)));
        let ours = [("operator", operator.pid()?), ("stand-in for kubelets, and client", std::process::id())];
        let ours = ours.into_iter().map(|(name, pid)| Ok((name, cpu_seconds(pid)?)));
        servers.chain(ours).collect()
    };
    let spent_before = spent(&operator)?;
    let asked_before = requests(&client).await?;
    let began = Instant::now();
    let deadline = began + Duration::from_secs(options.within);
    let making = tokio::spawn(make(client.clone(), options.clusters));
    let ready = all_ready(client.clone(), options.clusters, began);
    tokio::time::timeout_at(deadline.into(), ready).await.map_err(|_| "not all became ready in time")??;
    making.await??;
    let ready_seconds = began.elapsed().as_secs_f64();
    println!("all are ready after {ready_seconds:.1} s");
    let mut cpu_seconds_until_ready = spent(&operator)?;
    for (process, before) in spent_before {
        *cpu_seconds_until_ready.entry(process).or_default() -= before;
    }

    wait_quiet(&plane, deadline).await?;
    let mut asked = requests(&client).await?;
    for (verb, before) in asked_before {
        *asked.entry(verb).or_default() -= before;
    }
    asked.values_mut().for_each(|count| *count /= options.clusters as f64);
    let metrics = operator.metrics().await?;
    let rss = operator.peak_mib()?;
    let before = writes(&plane)?;
    let cpu = cpu_seconds(operator.pid()?)?;
    tokio::time::sleep(Duration::from_secs(options.rest)).await;
    let at_rest = writes(&plane)? - before;
    let cpu = (cpu_seconds(operator.pid()?)? - cpu) / options.rest as f64;
    let pods = Api::<k8s_openapi::api::core::v1::Pod>::all(client).list_metadata(&ListParams::default()).await?;
    let report = json!({
        "clusters": options.clusters,
        "pods": pods.items.len(),
        "ready_seconds": ready_seconds,
        "cpu_seconds_until_ready": cpu_seconds_until_ready,
        "requests_per_cluster": asked,
        "passes_per_cluster": total(&metrics, "hebb_reconcile_total") / options.clusters as f64,
        "operator_writes_per_cluster": total(&metrics, "hebb_api_writes_total") / options.clusters as f64,
        "reconcile_p50_ms": quantile(&metrics, 0.5),
        "reconcile_p99_ms": quantile(&metrics, 0.99),
        "operator_rss_mib": rss,
        "operator_cpu_cores_at_rest": cpu,
        "writes_at_rest": at_rest,
    });
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(options.out.join("report.json"), &text)?;
    println!("{text}");
    operator.child.kill().await?;
    Ok(())
}

async fn make(client: Client, count: usize) -> Result<(), Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for number in 0..count.div_ceil(PER_NAMESPACE) {
        let metadata = ObjectMeta { name: Some(format!("fleet-{number}")), ..ObjectMeta::default() };
        namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await?;
    }
    let made = futures::stream::iter(0..count).map(|number| {
        let client = client.clone();
        async move {
            let cluster: LearningCluster = serde_json::from_value(json!({
                "apiVersion": "hebb.dev/v1alpha1", "kind": "LearningCluster", "metadata": {"name": format!("lc-{number}")},
                "spec": {"gateway": {"replicas": 1}, "coordinator": {"replicas": 1}, "workers": {"replicas": 1}},
            }))?;
            let api: Api<LearningCluster> = Api::namespaced(client, &format!("fleet-{}", number / PER_NAMESPACE));
            api.create(&PostParams::default(), &cluster).await?;
            Ok::<(), Error>(())
        }
    });
    let results: Vec<Result<(), Error>> = made.buffer_unordered(CONCURRENCY).collect().await;
    results.into_iter().collect()
}

/// Waits until so many are ready; says every five seconds how many are.
async fn all_ready(client: Client, count: usize, began: Instant) -> Result<(), Error> {
    let clusters = Api::<LearningCluster>::all(client);
    let events = watcher(clusters, watcher::Config::default()).default_backoff().applied_objects();
    let mut events = std::pin::pin!(events);
    let mut ready: BTreeMap<String, bool> = BTreeMap::new();
    let mut told = Instant::now();
    while ready.values().filter(|ready| **ready).count() < count {
        let Some(event) = events.next().await else { return Err("the watch ended".into()) };
        // A watch that fails is begun again.
        let Ok(cluster) = event else { continue };
        let conditions = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let is = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        ready.insert(cluster.name_any(), is);
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            let done = ready.values().filter(|ready| **ready).count();
            println!("    {:>4.0} s: {done} of {count} ready", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

async fn wait_quiet(plane: &Plane, deadline: Instant) -> Result<(), Error> {
    let (mut count, mut since) = (writes(plane)?, Instant::now());
    while since.elapsed() < QUIET {
        if Instant::now() > deadline {
            return Err("it never came to rest".into());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = writes(plane)?;
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Writes of the operator, and of what plays the kubelets, but for leases; they share a user.
fn writes(plane: &Plane) -> Result<usize, Error> {
    let log = plane.audit()?;
    let of_ours = |line: &&str| line.contains("\"username\":\"admin\"") && !line.contains("\"resource\":\"leases\"");
    let reads = ["get", "list", "watch"].map(|verb| format!("\"verb\":\"{verb}\""));
    Ok(log.lines().filter(of_ours).filter(|line| !reads.iter().any(|read| line.contains(read.as_str()))).count())
}

/// What the API server was asked so far, by verb, but for watches.
async fn requests(client: &Client) -> Result<BTreeMap<String, f64>, Error> {
    let metrics = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let mut asked = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let verb = line.split("verb=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let count: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
        if !["WATCH", "CONNECT"].contains(&verb) {
            *asked.entry(verb.to_lowercase()).or_default() += count;
        }
    }
    Ok(asked)
}

/// The sum of a counter of the operator, over what it says of LearningClusters and their children.
fn total(metrics: &str, counter: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(counter) && !line.contains("AlertPolicy"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Processor time that a process has taken; the kernel counts hundredths of a second.
fn cpu_seconds(pid: u32) -> Result<f64, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = [11, 12].iter().filter_map(|place| fields.get(*place)?.parse::<f64>().ok()).sum::<f64>();
    Ok(ticks / 100.0)
}

/// An upper bound of a quantile of the LearningClusters' reconciles, in milliseconds, by the operator's own histogram.
fn quantile(metrics: &str, q: f64) -> f64 {
    let mut buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter(|line| line.starts_with("hebb_reconcile_duration_seconds_bucket") && line.contains("LearningCluster"))
        .filter_map(|line| {
            let bound = line.split("le=\"").nth(1)?.split('"').next()?.parse().ok()?;
            Some((bound, line.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    buckets.iter().find(|(_, count)| *count >= total * q).map_or(0.0, |(bound, _)| bound * 1e3)
}

/// The operator's process.
struct Operator {
    child: Child,
    url: String,
}

impl Operator {
    fn start(options: &Options, plane: &Plane, coordinators: &str) -> Result<Self, Error> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::create(options.out.join("operator.log"))?;
        let child = Command::new(&options.hebb)
            .args(["operator", "--image", IMAGE, "--redis-image", "redis:7", "--cluster-domain", "cluster.test"])
            .args(["--listen", &address.to_string()])
            .env_clear()
            .env("KUBECONFIG", plane.kubeconfig())
            .env("HTTP_PROXY", coordinators)
            .env("http_proxy", coordinators)
            // As in the chart.
            .env("MIMALLOC_ALLOW_THP", "0")
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, url: format!("http://{address}") })
    }

    async fn metrics(&self) -> Result<String, Error> {
        Ok(reqwest::get(format!("{}/metrics", self.url)).await?.error_for_status()?.text().await?)
    }

    async fn leads(&mut self) -> Result<(), Error> {
        for _ in 0..60 {
            if let Ok(metrics) = self.metrics().await
                && metrics.lines().any(|line| line == "hebb_operator_leads 1")
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(format!("the operator doesn't lead after 30 s; it ended with {:?}", self.child.try_wait()?).into())
    }

    fn pid(&self) -> Result<u32, Error> {
        Ok(self.child.id().ok_or("the operator has ended")?)
    }

    /// The most memory that it ever had.
    fn peak_mib(&self) -> Result<f64, Error> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
    }
}
