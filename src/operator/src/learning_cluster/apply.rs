//! Carries a plan out: the one place that writes children.
//!
//! What is missing is applied without force, because it may not have been looked for: where it is there after all, and
//! somebody else's, the API server refuses, and what is to be done is decided on what is read then.

use std::collections::VecDeque;

use hebb_api::names::{MANAGER, Role};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::healing::Sick;
use super::observe::api;
use super::plan::{Because, Live, Step, plan};
use super::pods::{DELETION_COST, PodView};
use super::render::{Child, Desired, Kind};
use crate::metrics::Metrics;

/// Who owns a number of replicas between Hebb and an autoscaler.
const SCALE_MANAGER: &str = "hebb-operator-scale";

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("failed to read {kind:?} {name}")]
    Read { kind: Kind, name: String, source: kube::Error },
    #[error("failed to apply {kind:?} {name}")]
    Apply { kind: Kind, name: String, source: kube::Error },
    #[error("failed to delete {kind:?} {name}")]
    Delete { kind: Kind, name: String, source: kube::Error },
    #[error("failed to {verb} pod {name}")]
    Pod { verb: &'static str, name: String, source: kube::Error },
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

/// Carries the steps of an owner out in order; the first failure ends it, and the next pass goes on from there.
pub async fn apply(
    client: &Client,
    namespace: &str,
    owner_uid: &str,
    steps: Vec<Step>,
    metrics: &Metrics,
) -> Result<(Vec<Done>, Vec<Written>), ApplyError> {
    let mut done = Vec::new();
    let mut written = Vec::new();
    let mut steps = VecDeque::from(steps);
    while let Some(step) = steps.pop_front() {
        match step {
            Step::Apply { child, because } => match write(client, namespace, &child, because, metrics).await {
                Ok(object) => {
                    written.push(((child.kind, child.name.clone()), object));
                    done.push(Done { kind: child.kind, name: child.name, because: Some(because) });
                }
                Err(error) => {
                    let again = match because {
                        Because::Missing => decide_again(client, namespace, owner_uid, &child, &error).await?,
                        Because::Drifted | Because::Changed => None,
                    };
                    let Some(again) = again else { return Err(error) };
                    again.into_iter().rev().for_each(|step| steps.push_front(step));
                }
            },
            Step::HandOver { kind, name, object } => {
                let parameters = PatchParams::apply(SCALE_MANAGER).force();
                let handed = api(client, namespace, kind).patch(&name, &parameters, &Patch::Apply(&object)).await;
                metrics.wrote(kind.names().2, "apply");
                handed.map_err(|source| ApplyError::Apply { kind, name, source })?;
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

/// Applies one object; the object as it stands then.
async fn write(
    client: &Client,
    namespace: &str,
    child: &Child,
    because: Because,
    metrics: &Metrics,
) -> Result<Value, ApplyError> {
    let mut parameters = PatchParams::apply(MANAGER);
    // What Hebb renders, Hebb owns: a hand-made change of it is drift to be repaired.
    parameters.force = because != Because::Missing;
    let applied =
        api(client, namespace, child.kind).patch(&child.name, &parameters, &Patch::Apply(&child.object)).await;
    metrics.wrote(child.kind.names().2, "apply");
    let failed = |source| ApplyError::Apply { kind: child.kind, name: child.name.clone(), source };
    serde_json::to_value(applied.map_err(failed)?).map_err(|error| failed(kube::Error::SerdeError(error)))
}

/// What is to be done about an object that seemed to be missing and was refused; nothing where it is missing indeed.
async fn decide_again(
    client: &Client,
    namespace: &str,
    owner_uid: &str,
    child: &Child,
    error: &ApplyError,
) -> Result<Option<Vec<Step>>, ApplyError> {
    let ApplyError::Apply { source: kube::Error::Api(status), .. } = error else { return Ok(None) };
    // With a second controller it is invalid.
    if !status.is_conflict() && !status.is_invalid() {
        return Ok(None);
    }
    let failed = |source| ApplyError::Read { kind: child.kind, name: child.name.clone(), source };
    let Some(found) = api(client, namespace, child.kind).get_opt(&child.name).await.map_err(failed)? else {
        return Ok(None);
    };
    let found = serde_json::to_value(found).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    let live = Live::from([((child.kind, child.name.clone()), found)]);
    Ok(Some(plan(&Desired { present: vec![child.clone()], absent: Vec::new() }, &live, owner_uid)))
}

/// Says which workers go first when their number falls, and takes it back from those that were chosen before.
pub async fn mark(
    client: &Client,
    namespace: &str,
    pods: &[PodView],
    victims: &[String],
    metrics: &Metrics,
) -> Result<(), ApplyError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods.iter().filter(|pod| pod.role == Some(Role::Worker) && !pod.leaving) {
        let chosen = victims.contains(&pod.name);
        if chosen == pod.marked {
            continue;
        }
        let cost = if chosen { json!("-1000") } else { Value::Null };
        let patch = json!({"metadata": {"annotations": {DELETION_COST: cost}}});
        metrics.wrote("pods", "patch");
        match api.patch_metadata(&pod.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(source) => return Err(ApplyError::Pod { verb: "mark", name: pod.name.clone(), source }),
        }
    }
    Ok(())
}

/// Deletes a pod that doesn't recover; its workload makes another.
pub async fn replace(client: &Client, namespace: &str, sick: &Sick, metrics: &Metrics) -> Result<(), ApplyError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let parameters = DeleteParams {
        grace_period_seconds: sick.force.then_some(0),
        preconditions: Some(kube::api::Preconditions { uid: Some(sick.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    metrics.wrote("pods", "delete");
    match api.delete(&sick.pod, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(ApplyError::Pod { verb: "replace", name: sick.pod.clone(), source }),
    }
}
