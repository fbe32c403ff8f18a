//! `hebb config validate` and `hebb crd`; and the reading of files for the other subcommands.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hebb_alert::Policy;
use hebb_api::AlertPolicy;
use hebb_api::load::{Resources, load};
use kube::ResourceExt;

use crate::cli::Outcome;
use crate::output::print_line;

#[derive(Subcommand)]
pub enum Command {
    /// Check files as the API server would, and say what is wrong with which field
    Validate {
        /// YAML files with LearningClusters and AlertPolicies
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}")]
    Load { path: String, source: hebb_api::load::LoadError },
    #[error("{path}")]
    Policy { path: String, source: UnusablePolicy },
    #[error("{0} holds no LearningCluster")]
    NoCluster(String),
}

/// An AlertPolicy with everything that is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("AlertPolicy {name}: {}", problems.join("; "))]
pub struct UnusablePolicy {
    name: String,
    problems: Vec<String>,
}

/// Reads and checks one file.
pub fn read(path: &Path) -> Result<Resources, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
    let resources = load(&text).map_err(|source| ConfigError::Load { path: shown.clone(), source })?;
    for policy in &resources.policies {
        compile(policy).map_err(|source| ConfigError::Policy { path: shown.clone(), source })?;
    }
    Ok(resources)
}

/// The policy, ready to be used.
pub fn compile(policy: &AlertPolicy) -> Result<Policy, UnusablePolicy> {
    let (namespace, name) = (policy.namespace().unwrap_or_else(|| "default".to_owned()), policy.name_any());
    Policy::new(&namespace, &name, &policy.spec).map_err(|problems| UnusablePolicy { name, problems })
}

pub fn run(command: Command) -> Outcome {
    let Command::Validate { files } = command;
    for file in files {
        let resources = read(&file)?;
        let (clusters, policies) = (resources.clusters.len(), resources.policies.len());
        print_line(format_args!(
            "{}: {clusters} LearningCluster(s), {policies} AlertPolicy(s), all valid",
            file.display()
        ))?;
    }
    Ok(())
}

pub fn print_crds() -> Outcome {
    for (_, yaml) in hebb_api::crd_yaml()? {
        print_line(format_args!("---\n{yaml}"))?;
    }
    Ok(())
}
