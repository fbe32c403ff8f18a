//! `hebb restore`: fills an empty store with a backup.

use std::path::PathBuf;

use clap::Args;
use hebb_node::backup;
use tracing::info;

use crate::backup::{StoreOptions, conclude};
use crate::cli::Outcome;
use crate::node::runtime;

#[derive(Args)]
pub struct Options {
    /// Folder with the backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
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
    let cluster = options.target.cluster()?;
    // Before the store is asked for: what can't be restored needn't wait.
    let chosen = backup::choose(&options.from, options.backup.as_deref())?;
    let summary = runtime()?.block_on(async {
        let store = options.target.open(&cluster).await?;
        Ok::<_, Box<dyn std::error::Error>>(backup::restore(&store, &options.from, &chosen.backup).await?)
    })?;
    info!(backup = summary.backup, partitions = summary.partitions.len(), cluster, "restored");
    conclude(&summary, options.report.as_deref())
}
