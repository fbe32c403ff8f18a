//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{AlertPolicy, LearningCluster};

/// Both definitions.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![LearningCluster::crd(), AlertPolicy::crd()]
}

/// The definitions as YAML documents with their file names, as `crds/` holds them.
///
/// # Errors
/// A definition that can't be written as YAML, which no definition of this crate is.
pub fn crd_yaml() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    crds()
        .into_iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.metadata.name.clone().unwrap_or_default());
            Ok((name, quoted(&serde_yaml::to_string(&crd)?)))
        })
        .collect()
}

/// A plain `=` is a text in YAML 1.2, and in YAML 1.1 a type of its own that readers such as PyYAML refuse.
fn quoted(yaml: &str) -> String {
    let line = |line: &str| match line.strip_suffix('=') {
        Some(before) if before.ends_with(": ") || before.ends_with("- ") => format!("{before}'='\n"),
        _ => format!("{line}\n"),
    };
    yaml.lines().map(line).collect()
}
