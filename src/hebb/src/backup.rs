//! `hebb backup`: takes a backup of what was learned, lists and verifies those that are there.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use hebb_log::{LocalConfig, LocalStore, LogError, RedisStore};
use hebb_node::backup::{self, Found, Summary};
use hebb_node::{ClusterSettings, Store};
use jiff::Timestamp;
use serde_json::json;
use tracing::{info, warn};

use crate::cli::Outcome;
use crate::config::{self, ConfigError};
use crate::kubernetes::{self, Format, Output};
use crate::node::runtime;
use crate::output::{table, with_causes};
use crate::redis::RedisOptions;

/// How long a Redis is waited for that doesn't answer yet: that of a new cluster is only starting.
const PATIENCE: Duration = Duration::from_secs(180);
/// Wait between two questions.
const ASK_EVERY: Duration = Duration::from_secs(2);

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  kubectl hebb backup demo --wait                         # on Kubernetes, where spec.backup says
  hebb backup --to backups --data-dir hebb-data           # of a stopped `hebb start`
  hebb backup verify backups"
)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// A LearningCluster of the kubeconfig: the operator makes the backup
    #[arg(conflicts_with_all = ["to", "data_dir", "report"])]
    name: Option<String>,
    #[command(flatten)]
    kubernetes: kubernetes::OnDemand,
    /// Folder that the backup is written to
    #[arg(long, required_unless_present = "name", value_name = "DIR")]
    to: Option<PathBuf>,
    /// Backups of this cluster to keep in the folder, the new one included
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    retention: u16,
    #[command(flatten)]
    source: StoreOptions,
    /// Also write the outcome to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Read every backup of a folder to its end, and say what it holds or what is wrong with it
    List {
        /// The folder
        directory: PathBuf,
        /// How to write the list
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Check a backup, and print a digest of the state of each partition: equal digests are equal states
    Verify {
        /// The folder
        directory: PathBuf,
        /// The backup's name [default: the newest complete one]
        #[arg(long)]
        backup: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

/// Which store is meant.
#[derive(Args)]
pub struct StoreOptions {
    /// The LearningCluster whose name the store knows [default: the one that `hebb start` runs without a file]
    #[arg(short = 'f', long = "file", env = "CONFIG_PATH")]
    file: Option<PathBuf>,
    /// The directory of a `hebb start` that isn't running, in place of a Redis
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    redis: RedisOptions,
}

impl StoreOptions {
    /// The cluster's name in the store.
    pub fn cluster(&self) -> Result<String, ConfigError> {
        let Some(file) = &self.file else { return Ok("local".to_owned()) };
        let resources = config::read(file)?;
        let cluster = resources.clusters.first().ok_or_else(|| ConfigError::NoCluster(file.display().to_string()))?;
        Ok(ClusterSettings::from(cluster).name)
    }

    /// The store, once it answers.
    pub async fn open(self, cluster: &str) -> Result<Store, Box<dyn std::error::Error>> {
        if let Some(directory) = self.data_dir {
            return Ok(Store::new(LocalStore::open(directory, LocalConfig::default()).await?));
        }
        let store = Store::new(RedisStore::lazy(self.redis.config(cluster)?)?);
        let asked_at = Instant::now();
        loop {
            match store.directory.domains().await {
                Err(LogError::Unavailable(error)) if asked_at.elapsed() < PATIENCE => {
                    warn!(error = %error, "Redis doesn't answer yet");
                    tokio::time::sleep(ASK_EVERY).await;
                }
                answer => return answer.map(|_| store).map_err(Into::into),
            }
        }
    }

    /// Where there is no directory, none is made: it would hold nothing.
    fn must_exist(&self) -> Outcome {
        match &self.data_dir {
            Some(directory) if !directory.is_dir() => Err(format!("there is no {}", directory.display()).into()),
            Some(_) | None => Ok(()),
        }
    }
}

pub fn run(options: Options) -> Outcome {
    match options.command {
        Some(Command::List { directory, output }) => return list(&directory, output),
        Some(Command::Verify { directory, backup, output }) => {
            return verify(&directory, backup.as_deref(), output.format());
        }
        None => {}
    }
    if let Some(name) = &options.name {
        return kubernetes::backup(name, options.kubernetes);
    }
    // The command line asks for it where there is no name.
    let folder = options.to.unwrap_or_default();
    let cluster = options.source.cluster()?;
    options.source.must_exist()?;
    let summary = runtime()?.block_on(async {
        let store = options.source.open(&cluster).await?;
        Ok::<_, Box<dyn std::error::Error>>(backup::take(&store, &cluster, &folder, Timestamp::now()).await?)
    })?;
    info!(backup = summary.backup, bytes = summary.bytes, partitions = summary.partitions.len(), "backed up");
    for removed in backup::prune(&folder, &cluster, usize::from(options.retention))? {
        info!(removed, "removed an old backup");
    }
    conclude(&summary, options.report.as_deref(), options.kubernetes.output)
}

/// Says what was backed up or restored.
pub fn conclude(summary: &Summary, report: Option<&Path>, output: Format) -> Outcome {
    let said = json!({
        "backup": summary.backup, "createdAt": summary.head.created_at, "bytes": summary.bytes,
        "partitions": summary.partitions.len(), "events": events(summary),
    });
    if let Some(path) = report {
        std::fs::write(path, said.to_string())?;
    }
    output.print(&summary.backup, &said)
}

fn events(summary: &Summary) -> u64 {
    summary.partitions.iter().map(|partition| partition.events).sum()
}

/// Some of what is in the folder can't be restored.
#[derive(Debug, thiserror::Error)]
#[error("of {all} backups in {folder} these can't be restored: {}", broken.join(", "))]
struct Broken {
    folder: String,
    all: usize,
    broken: Vec<String>,
}

fn list(folder: &Path, output: Format) -> Outcome {
    let found = backup::list(folder)?;
    let mut rows =
        vec![["BACKUP", "CLUSTER", "CREATED", "DOMAINS", "EVENTS", "BYTES", "STATE"].map(str::to_owned).to_vec()];
    let (mut said, mut broken, all) = (Vec::new(), Vec::new(), found.len());
    for Found { name, content } in found {
        match content {
            Ok(summary) => {
                said.push(json!({
                    "backup": name, "state": "complete", "cluster": summary.head.cluster,
                    "createdAt": summary.head.created_at, "domains": summary.domains.len(), "events": events(&summary),
                    "bytes": summary.bytes,
                }));
                rows.push(vec![
                    name,
                    summary.head.cluster.clone(),
                    summary.head.created_at.to_string(),
                    summary.domains.len().to_string(),
                    events(&summary).to_string(),
                    summary.bytes.to_string(),
                    "complete".to_owned(),
                ]);
            }
            Err(error) => {
                let why = with_causes(&error);
                said.push(json!({"backup": name, "state": "broken", "problem": why}));
                let unknown = std::iter::repeat_n("-".to_owned(), 5);
                broken.push(name.clone());
                rows.push(std::iter::once(name).chain(unknown).chain([format!("BROKEN: {why}")]).collect());
            }
        }
    }
    output.print(table(&rows).trim_end(), &json!({"backups": said}))?;
    if broken.is_empty() { Ok(()) } else { Err(Broken { folder: folder.display().to_string(), all, broken }.into()) }
}

fn verify(folder: &Path, name: Option<&str>, output: Format) -> Outcome {
    let summary = backup::choose(folder, name)?;
    let head = format!("{}: complete, of {} at {}\n\n", summary.backup, summary.head.cluster, summary.head.created_at);
    let mut rows =
        vec![["PARTITION", "POSITION", "EVENTS", "APPLIED DIGEST", "SHA-256 OF THE STATE"].map(str::to_owned).to_vec()];
    for partition in &summary.partitions {
        rows.push(vec![
            format!("{}/{}", partition.domain, partition.index),
            partition.position.to_string(),
            partition.events.to_string(),
            format!("{:016x}", partition.applied_digest),
            partition.digest.clone(),
        ]);
    }
    output.print((head + &table(&rows)).trim_end(), &serde_json::to_value(&summary)?)
}
