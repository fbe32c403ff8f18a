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
            Ok((name, serde_yaml::to_string(&crd)?))
        })
        .collect()
}
