//! LearningClusters on Kubernetes, reached by the kubeconfig: what `kubectl hebb` adds to kubectl.
//!
//! Nothing here deletes a pod. A request is a field, an annotation or an eviction, and the operator, or the API server, says
//! whether it is granted.

mod backup;
mod bundle;
mod drain;
mod failover;
mod logs;
mod output;
mod reach;
mod restart;
mod restore;
mod silence;
mod status;

use clap::{Args, Subcommand};

pub use self::backup::{OnDemand, run as backup};
pub use self::output::{Format, Output};
pub use self::reach::Reach;
pub use self::restore::{IntoNew, run as restore};
pub use self::status::run as status;
use crate::cli::Outcome;

/// What is done to, or asked of, a LearningCluster of the kubeconfig.
#[derive(Subcommand)]
pub enum Command {
    /// Show the logs of a LearningCluster's pods, merged by time
    Logs(logs::Options),
    /// Restart the pods of a LearningCluster, role by role, each drained first
    Restart(restart::Options),
    /// Have another server of Redis take over as primary, within the healing budget
    Failover(failover::Options),
    /// Have a worker checkpoint, give its partitions up and end; another takes its place
    Drain(drain::Options),
    /// Tell nobody of some alerts of an AlertPolicy for a while
    Silence(silence::Options),
    /// Collect what explains how a LearningCluster is doing into one file, without secrets
    SupportBundle(bundle::Options),
}

/// The LearningCluster that is meant, and how the answer is written.
#[derive(Args)]
pub struct Named {
    /// Name of the LearningCluster
    pub name: String,
    #[command(flatten)]
    pub reach: Reach,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub fn run(command: Command) -> Outcome {
    match command {
        Command::Logs(options) => logs::run(options),
        Command::Restart(options) => restart::run(options),
        Command::Failover(options) => failover::run(options),
        Command::Drain(options) => drain::run(options),
        Command::Silence(options) => silence::run(options),
        Command::SupportBundle(options) => bundle::run(options),
    }
}
