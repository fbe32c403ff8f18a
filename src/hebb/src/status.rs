//! `hebb status`: what a running process or cluster says of itself.

use std::time::Duration;

use clap::Args;
use hebb_node::coordinator::ClusterStatus;

use crate::cli::Outcome;
use crate::kubernetes::{self, Format, Reach};
use crate::node::runtime;
use crate::output::{percent, table};

#[derive(Args)]
#[command(after_help = "Examples:
  hebb status                                 # of `hebb start` on this machine
  kubectl hebb status demo -n default         # what the operator says of a LearningCluster
  kubectl hebb status demo -o json")]
pub struct Options {
    /// A LearningCluster of the kubeconfig instead
    #[arg(conflicts_with_all = ["coordinator", "token", "json"])]
    name: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// How to write what the operator says of it
    #[arg(short, long, value_enum, default_value_t, requires = "name")]
    output: Format,
    /// Address of a coordinator
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "HEBB_COORDINATOR")]
    coordinator: String,
    /// Token of the internal endpoints, where the cluster has one
    #[arg(long, env = "HEBB_INTERNAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A coordinator answers within a second or not at all.
const DEADLINE: Duration = Duration::from_secs(5);

pub fn run(options: Options) -> Outcome {
    if let Some(name) = &options.name {
        return kubernetes::status(name, &options.reach, options.output);
    }
    let url = format!("{}/api/v1/status", options.coordinator.trim_end_matches('/'));
    let status: ClusterStatus = runtime()?.block_on(async {
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        let mut request = client.get(&url);
        if let Some(token) = &options.token {
            request = request.bearer_auth(token);
        }
        request.send().await?.error_for_status()?.json().await
    })?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    println!(
        "leader {} (term {}), {} worker(s), lag {}, {} partition(s) without an owner, p99 of the answers {}\n",
        status.leader,
        status.term,
        status.workers.len(),
        status.lag,
        status.unowned,
        status.answer_p99_seconds.map_or_else(|| "unknown".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3))
    );
    let mut rows = vec![
        ["DOMAIN", "TASK", "PARTITIONS", "EVENTS", "LABELS", "ACCURACY", "DRIFTS", "LAG"].map(str::to_owned).to_vec(),
    ];
    for domain in &status.domains {
        rows.push(vec![
            domain.name.clone(),
            format!("{:?}", domain.task),
            domain.partitions.len().to_string(),
            domain.events.to_string(),
            domain.labels.to_string(),
            percent(domain.accuracy),
            domain.drifts.to_string(),
            domain.lag.to_string(),
        ]);
    }
    print!("{}", table(&rows));
    Ok(())
}
