//! `hebb config validate` and `hebb crd`; and the reading of files for the other subcommands.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use hebb_alert::Policy;
use hebb_api::AlertPolicy;
use hebb_api::load::{Resources, load};
use kube::ResourceExt;
use serde_json::json;

use crate::cli::Outcome;
use crate::kubernetes::Format;
use crate::output::{print_line, with_causes};

/// Bytes that are read: more than a file may have, so that one which is too long is still known by its length.
const READ_MAX: u64 = 2 << 20;

#[derive(Subcommand)]
pub enum Command {
    /// Check files as the API server would, and say what is wrong with which field
    Validate {
        /// YAML files with LearningClusters and AlertPolicies; - is standard input
        #[arg(required = true, env = "CONFIG_PATH")]
        files: Vec<PathBuf>,
        /// How to write what was found
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
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

/// Some of the files can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", problems.join("\nhebb: "))]
struct Unusable {
    problems: Vec<String>,
}

/// Reads and checks one file; `-` is standard input.
pub fn read(path: &Path) -> Result<Resources, ConfigError> {
    let shown = path.display().to_string();
    let failed = |source| ConfigError::Read { path: shown.clone(), source };
    let source: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path).map_err(failed)?),
    };
    let mut text = String::new();
    source.take(READ_MAX).read_to_string(&mut text).map_err(failed)?;
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
    let Command::Validate { files, output } = command;
    let (mut lines, mut said, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let shown = file.display().to_string();
        match read(&file) {
            Ok(resources) => {
                let (clusters, policies) = (resources.clusters.len(), resources.policies.len());
                lines.push(format!("{shown}: {clusters} LearningCluster(s), {policies} AlertPolicy(s), all valid"));
                said.push(
                    json!({"file": shown, "valid": true, "learningClusters": clusters, "alertPolicies": policies}),
                );
            }
            Err(error) => {
                let why = with_causes(&error);
                said.push(json!({"file": shown, "valid": false, "problem": why}));
                problems.push(why);
            }
        }
    }
    if output == Format::Json || !lines.is_empty() {
        output.print(&lines.join("\n"), &json!({"files": said}))?;
    }
    if problems.is_empty() { Ok(()) } else { Err(Unusable { problems }.into()) }
}

pub fn print_crds() -> Outcome {
    for (_, yaml) in hebb_api::crd_yaml()? {
        print_line(format_args!("---\n{yaml}"))?;
    }
    Ok(())
}
