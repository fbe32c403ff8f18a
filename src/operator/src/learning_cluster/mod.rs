//! The LearningCluster controller: observe → topology → plan → apply → status. Only the middle decides.

mod apply;
mod observe;
pub mod plan;
mod quantity;
pub mod render;
pub mod scrape;
mod status;
pub mod topology;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hebb_api::names::{self, Role};
use hebb_api::{LearningCluster, LearningClusterStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};

use self::apply::{ApplyError, Done, apply};
use self::plan::{Because, plan};
use self::render::render;
use self::topology::{Topology, TopologyError};
use crate::conditions::is_true;
use crate::context::Context;
use crate::unreadable::refuse;

/// One pass reads some thirty objects and writes at most twenty; a slow API server takes seconds for that.
const PASS_DEADLINE: Duration = Duration::from_secs(30);
/// How soon a cluster that isn't ready yet is looked at again, should no watch call first.
const RECHECK_AFTER: Duration = Duration::from_secs(3);
/// How often a cluster at rest is looked at again, should a watch have missed something.
const RESYNC_AFTER: Duration = Duration::from_secs(300);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read {what}")]
    Observe { what: &'static str, source: kube::Error },
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("failed to write the status")]
    Status(#[source] kube::Error),
    #[error("the pass took longer than {} s", PASS_DEADLINE.as_secs())]
    Deadline,
}

impl Error {
    fn reason(&self) -> &'static str {
        match self {
            Error::Observe { .. } => "ObserveFailed",
            Error::Topology(_) => "InvalidSpec",
            Error::Apply(ApplyError::Foreign { .. }) => "NameTaken",
            Error::Apply(_) => "ApplyFailed",
            Error::Status(_) => "StatusFailed",
            Error::Deadline => "Deadline",
        }
    }

    /// Whether trying again can't help before somebody changes something.
    fn is_stalled(&self) -> bool {
        matches!(self, Error::Topology(_) | Error::Apply(ApplyError::Foreign { .. }))
    }
}

/// What a pass found out.
struct Pass {
    status: LearningClusterStatus,
    done: Vec<Done>,
}

/// Brings one cluster to what its spec says, or says on it why it can't be read.
pub async fn reconcile(guard: Arc<DeserializeGuard<LearningCluster>>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    match &guard.0 {
        Ok(cluster) => converge(cluster, &context, started).await,
        Err(invalid) => {
            let refused = timeout(PASS_DEADLINE, refuse::<LearningCluster>(invalid, &context)).await;
            context.metrics.reconciled("LearningCluster", "failed", started.elapsed());
            refused.map_err(|_| Error::Deadline)?.map_err(Error::Status)?;
            Ok(Action::await_change())
        }
    }
}

async fn converge(cluster: &LearningCluster, context: &Context, started: Instant) -> Result<Action, Error> {
    let key = ObjectRef::from_obj(cluster);
    if cluster.metadata.deletion_timestamp.is_some() {
        // The children go with their owner, and volumes by the policy of their StatefulSet.
        context.coordinators.forget(&key);
        return Ok(Action::await_change());
    }
    let outcome = timeout(PASS_DEADLINE, pass(cluster, context, key)).await.unwrap_or(Err(Error::Deadline));
    let (status, done) = match &outcome {
        Ok(pass) => (pass.status.clone(), pass.done.as_slice()),
        Err(error) => {
            let message = with_causes(error);
            (status::failed(cluster, error.is_stalled(), error.reason(), &message, Timestamp::now()), &[][..])
        }
    };
    let reported = report(cluster, context, &status, done).await;
    let result = outcome.and_then(|pass| reported.map(|()| pass));
    let settled = is_true(&status.conditions, "Ready");
    let word = match &result {
        Ok(_) if settled => "settled",
        Ok(_) => "waiting",
        Err(_) => "failed",
    };
    context.metrics.reconciled("LearningCluster", word, started.elapsed());
    result.map(|_| {
        context.failures.forget(&cluster.uid().unwrap_or_default());
        Action::requeue(if settled { RESYNC_AFTER } else { RECHECK_AFTER })
    })
}

/// What follows a failed pass: another one, later with each failure in a row.
pub fn on_error(cluster: Arc<DeserializeGuard<LearningCluster>>, error: &Error, context: Arc<Context>) -> Action {
    warn!(cluster = %ObjectRef::from_obj(&*cluster), error = with_causes(error), "a pass failed");
    Action::requeue(context.failures.next_delay(&cluster.uid().unwrap_or_default()))
}

async fn pass(cluster: &LearningCluster, context: &Context, key: ObjectRef<LearningCluster>) -> Result<Pass, Error> {
    if cluster.annotations().get(names::PAUSED_ANNOTATION).is_some_and(|value| value == "true") {
        return Ok(Pass { status: status::paused(cluster, Timestamp::now()), done: Vec::new() });
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let name = cluster.name_any();
    let client = &context.client;
    let observing = |what| move |source| Error::Observe { what, source };
    let secrets = observe::secrets(client, &namespace, &name).await.map_err(observing("secrets"))?;
    let topology = Topology::new(cluster, &context.defaults, secrets)?;
    let desired = render(&topology);
    let mut live = observe::live(client, &namespace, &desired).await.map_err(observing("children"))?;
    let steps = plan(&desired, &live, &topology.uid);
    let (done, written) = apply(client, &namespace, steps, &context.metrics).await?;
    live.extend(written);
    if topology.suspended {
        context.coordinators.forget(&key);
    } else {
        let host = topology.host(Role::Coordinator);
        let url = format!("http://{host}:{}/api/v1/status", names::COORDINATOR_PORT);
        context.coordinators.follow(key.clone(), url, topology.secrets.token.clone());
    }
    let scraped = context.coordinators.answer(&key);
    let pods: Vec<Pod> = observe::pods(client, cluster).await.map_err(observing("pods"))?;
    let seen = status::Seen { topology: &topology, live: &live, pods: &pods, scraped: scraped.as_ref() };
    Ok(Pass { status: status::status(cluster, &seen, Timestamp::now()), done })
}

/// Writes the status if it says something new, and tells of every transition.
async fn report(
    cluster: &LearningCluster,
    context: &Context,
    status: &LearningClusterStatus,
    done: &[Done],
) -> Result<(), Error> {
    let former = cluster.status.clone().unwrap_or_default();
    tell_of_children(cluster, context, &former, done).await;
    if *status == former {
        return Ok(());
    }
    let api: Api<LearningCluster> = Api::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": LearningCluster::api_version(&()),
        "kind": LearningCluster::kind(&()),
        "status": status,
    });
    let parameters = PatchParams::apply(names::MANAGER).force();
    let written = api.patch_status(&cluster.name_any(), &parameters, &Patch::Apply(&patch)).await;
    context.metrics.wrote("learningclusters/status", "apply");
    match written {
        Ok(_) => {}
        // Deleted in the meantime.
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(()),
        Err(error) => return Err(Error::Status(error)),
    }
    tell_of_transitions(cluster, context, &former, status).await;
    Ok(())
}

async fn tell_of_children(cluster: &LearningCluster, context: &Context, former: &LearningClusterStatus, done: &[Done]) {
    if done.is_empty() {
        return;
    }
    let list = |because: Option<Because>| {
        let names: Vec<String> = done
            .iter()
            .filter(|done| done.because == because)
            .map(|done| format!("{:?} {}", done.kind, done.name))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let first = former.observed_generation.is_none();
    let told = [
        (Because::Missing, if first { "Created" } else { "Recreated" }),
        (Because::Drifted, "RepairedDrift"),
        (Because::Changed, "Updated"),
    ];
    for (because, reason) in told {
        if let Some(names) = list(Some(because)) {
            info!(cluster = %ObjectRef::from_obj(cluster), reason, names, "wrote children");
            context.tell(cluster, EventType::Normal, reason, "Apply", names).await;
        }
    }
    if let Some(names) = list(None) {
        context.tell(cluster, EventType::Normal, "Deleted", "Delete", names).await;
    }
}

async fn tell_of_transitions(
    cluster: &LearningCluster,
    context: &Context,
    former: &LearningClusterStatus,
    status: &LearningClusterStatus,
) {
    if let Some(leader) = status.leader.as_ref().filter(|leader| former.leader.as_ref() != Some(leader)) {
        let note = format!("{leader} leads the coordinators");
        context.tell(cluster, EventType::Normal, "LeaderElected", "Observe", note).await;
    }
    for condition in &status.conditions {
        let before = former.conditions.iter().find(|old| old.type_ == condition.type_).map(|old| old.status.as_str());
        if before == Some(condition.status.as_str()) {
            continue;
        }
        let (type_, reason) = match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", "True") => (EventType::Normal, "BecameReady"),
            ("Ready", _) if before == Some("True") => (EventType::Warning, "NotReady"),
            ("Stalled", "True") => (EventType::Warning, "Stalled"),
            ("Suspended", "True") => (EventType::Normal, "Suspended"),
            ("Suspended", "False") if before == Some("True") => (EventType::Normal, "Resumed"),
            _ => continue,
        };
        context.tell(cluster, type_, reason, "Observe", condition.message.clone()).await;
    }
    let desired = |status: &LearningClusterStatus| status.workers.as_ref().map(|workers| workers.desired);
    if let (Some(from), Some(to)) = (desired(former), desired(status))
        && from != to
    {
        context
            .tell(cluster, EventType::Normal, "ScaledWorkers", "Scale", format!("from {from} to {to} workers"))
            .await;
    }
}

/// An error with everything that caused it.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
