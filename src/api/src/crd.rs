//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{AlertPolicy, LearningCluster};

/// Both definitions.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![LearningCluster::crd(), AlertPolicy::crd()]
}

/// The schema of a definition's spec; nothing of one that has none, which no definition of this crate is.
pub(crate) fn spec_schema(crd: &CustomResourceDefinition) -> serde_json::Value {
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let spec = schema.and_then(|schema| schema.properties.as_ref()?.get("spec"));
    spec.and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or_default()
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
