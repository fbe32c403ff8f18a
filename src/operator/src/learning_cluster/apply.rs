//! Carries a plan out: the one place that writes children.

use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::Value;

use hebb_api::names::MANAGER;

use super::observe::api;
use super::plan::{Because, Step};
use super::render::Kind;
use crate::metrics::Metrics;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("failed to apply {kind:?} {name}")]
    Apply { kind: Kind, name: String, source: kube::Error },
    #[error("failed to delete {kind:?} {name}")]
    Delete { kind: Kind, name: String, source: kube::Error },
    #[error("{kind:?} {name} belongs to another owner; rename the LearningCluster or remove the object")]
    Foreign { kind: Kind, name: String },
}

/// What was done, for the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub kind: Kind,
    pub name: String,
    /// None for a deletion.
    pub because: Option<Because>,
}

/// An object as the API server answered it.
pub type Written = ((Kind, String), Value);

/// Carries the steps out in order; the first failure ends it, and the next pass goes on from there.
pub async fn apply(
    client: &Client,
    namespace: &str,
    steps: Vec<Step>,
    metrics: &Metrics,
) -> Result<(Vec<Done>, Vec<Written>), ApplyError> {
    let mut done = Vec::new();
    let mut written = Vec::new();
    for step in steps {
        match step {
            Step::Apply { child, because } => {
                // Forced: what Hebb renders, Hebb owns. A hand-made change of it is drift to be repaired.
                let parameters = PatchParams::apply(MANAGER).force();
                let applied = api(client, namespace, child.kind)
                    .patch(&child.name, &parameters, &Patch::Apply(&child.object))
                    .await;
                metrics.wrote(child.kind.names().2, "apply");
                let object = applied.map_err(|source| ApplyError::Apply {
                    kind: child.kind,
                    name: child.name.clone(),
                    source,
                })?;
                written.push(((child.kind, child.name.clone()), serde_json::to_value(object).unwrap_or_default()));
                done.push(Done { kind: child.kind, name: child.name, because: Some(because) });
            }
            Step::Delete { kind, name, uid } => {
                // By uid: an object of the same name that came since is not the one that was seen.
                let parameters = DeleteParams {
                    preconditions: Some(kube::api::Preconditions { uid: Some(uid), resource_version: None }),
                    ..DeleteParams::background()
                };
                metrics.wrote(kind.names().2, "delete");
                match api(client, namespace, kind).delete(&name, &parameters).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                    Err(source) => return Err(ApplyError::Delete { kind, name, source }),
                }
                done.push(Done { kind, name, because: None });
            }
            Step::Foreign { kind, name } => return Err(ApplyError::Foreign { kind, name }),
        }
    }
    Ok((done, written))
}
