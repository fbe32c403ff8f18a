//! `hebb restore`: fills an empty store with a backup.

use std::path::PathBuf;

use clap::Args;
use hebb_node::backup;
use tracing::info;

use crate::backup::{StoreOptions, conclude};
use crate::cli::Outcome;
use crate::kubernetes;
use crate::node::runtime;

#[derive(Args)]
#[command(after_help = "Examples:
  kubectl hebb restore demo-2 --like demo --wait          # on Kubernetes: a new LearningCluster
  hebb restore --from backups --data-dir new-data         # on this machine")]
pub struct Options {
    /// A new LearningCluster of the kubeconfig, which begins with the backup
    #[arg(conflicts_with_all = ["from", "data_dir", "report"])]
    name: Option<String>,
    #[command(flatten)]
    kubernetes: kubernetes::IntoNew,
    /// Folder with the backup
    #[arg(long, required_unless_present = "name", value_name = "DIR")]
    from: Option<PathBuf>,
    /// The backup's name [default: the newest complete one]
    #[arg(long)]
    backup: Option<String>,
    #[command(flatten)]
    target: StoreOptions,
    /// Also write the outcome to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub fn run(options: Options) -> Outcome {
    if let Some(name) = &options.name {
        return kubernetes::restore(name, options.backup, options.kubernetes);
    }
    // The command line asks for it where there is no name.
    let from = options.from.unwrap_or_default();
    let cluster = options.target.cluster()?;
    // Before the store is asked for: what can't be restored needn't wait.
    let chosen = backup::choose(&from, options.backup.as_deref())?;
    let summary = runtime()?.block_on(async {
        let store = options.target.open(&cluster).await?;
        Ok::<_, Box<dyn std::error::Error>>(backup::restore(&store, &from, &chosen.backup).await?)
    })?;
    info!(backup = summary.backup, partitions = summary.partitions.len(), cluster, "restored");
    conclude(&summary, options.report.as_deref(), options.kubernetes.output)
}
